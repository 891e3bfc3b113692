"""Object detection in small: a one-stage grid network, and the two heads of Faster R-CNN."""

from types import ModuleType

from dlnotes import nn
from dlnotes._validate import Number
from dlnotes.models import _engine
from dlnotes.models._engine import Network


class YOLO(Network):
    """A one-stage detector: (n, c, h, w) → (n, h / stride, w / stride, anchors, 5 + num_classes).

    In the manner of YOLO (Redmon et al., 2016) and its second version (Redmon and Farhadi, 2017):
    the image is divided into cells of `stride` pixels, and for each cell and anchor box the network
    gives, as logits: x and y of the centre within the cell, width and height (as factors of the
    anchor's, to be taken e^), whether there is an object, and its class. Convolutions with batch
    norm and leaky ReLU, each halving the image, log₂ stride of them, then a 3×3 and a 1×1
    convolution. The first version ended in linear layers, had 7×7 cells, two boxes for each and no
    anchors; the first 20 of its 24 convolutions were trained on ImageNet before.

    Width and height must be multiples of `stride`, else ValueError. The object's bias starts at -4,
    since few cells have one.
    """

    def __init__(
        self,
        num_classes: int,
        anchors: int = 1,
        stride: int = 16,
        in_channels: int = 3,
        width: Number = 1.0,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        halvings = stride.bit_length() - 1
        if stride < 2 or stride != 2**halvings:
            raise ValueError(f"stride must be a power of 2, at least 2, got {stride}")
        self.anchors, self.stride = anchors, stride
        self.backbone = nn.Sequential()
        channels = in_channels
        for i in range(halvings):
            out_channels = _engine.scaled(min(16 * 2**i, 128), width)
            self.backbone.append(conv_norm_leaky(channels, out_channels, nn))
            self.backbone.append(nn.MaxPool2d(2))
            channels = out_channels
        hidden = _engine.scaled(128, width)
        self.backbone.append(conv_norm_leaky(channels, hidden, nn))
        self.head = nn.Conv2d(hidden, anchors * (5 + num_classes), 1)
        _engine.he_init(self)
        nn.init.normal_(self.head.weight, 0.0, 0.01)
        self.head.bias.data[4 :: 5 + num_classes] = -4.0

    def forward(self, x):
        """Return the logits of each cell and anchor."""
        _engine.check_sides(x, self.stride)
        y = self.head(self.backbone(x))
        n, channels, h, w = y.shape
        y = y.reshape(n, self.anchors, channels // self.anchors, h, w)
        return y.permute(0, 3, 4, 1, 2)


class RPNHead(Network):
    """Region proposals (Ren et al., 2015): features (n, c, h, w) → objectness, box changes.

    One 3×3 convolution slides over the features; two 1×1 convolutions give, for each of `anchors`
    boxes at each place, the logit of an object (n, anchors, h, w) and the changes from anchor to
    box (n, 4 anchors, h, w), as `kernels.decode_boxes` takes them. Names as in torchvision, which
    has one logit where the paper has two. Weights start with deviation 0.01, biases at 0.
    in_channels: c, as many as the convolution gives.
    """

    def __init__(self, in_channels: int, anchors: int = 9, *, nn: ModuleType = nn):
        super().__init__()
        conv = nn.Sequential(nn.Conv2d(in_channels, in_channels, 3, padding=1), nn.ReLU())
        self.conv = nn.Sequential(conv)
        self.cls_logits = nn.Conv2d(in_channels, anchors, 1)
        self.bbox_pred = nn.Conv2d(in_channels, 4 * anchors, 1)
        for module in (conv[0], self.cls_logits, self.bbox_pred):
            nn.init.normal_(module.weight, 0.0, 0.01)
            nn.init.zeros_(module.bias)

    def forward(self, features):
        """Return (objectness, changes)."""
        x = self.conv(features)
        return self.cls_logits(x), self.bbox_pred(x)


class FastRCNNHead(Network):
    """What each region is (Girshick, 2015): pooled regions (r, c, size, size) → classes, boxes.

    Two linear layers; then class logits (r, num_classes), of which 0 is "background", and changes
    from region to box, four for each class (r, 4 num_classes). Names as in torchvision's
    `box_head` and `box_predictor`. Weights of the last layers start with deviation 0.01 and 0.001.
    in_channels: c, size: the side of a pooled region; hidden: units of both layers.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        size: int = 7,
        hidden: int = 1024,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        self.fc6 = nn.Linear(in_channels * size * size, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.relu = nn.ReLU()
        self.cls_score = nn.Linear(hidden, num_classes)
        self.bbox_pred = nn.Linear(hidden, 4 * num_classes)
        for module, deviation in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(module.weight, 0.0, deviation)
            nn.init.zeros_(module.bias)

    def forward(self, regions):
        """Return (class logits, changes)."""
        x = self.relu(self.fc7(self.relu(self.fc6(regions.flatten(1)))))
        return self.cls_score(x), self.bbox_pred(x)


def conv_norm_leaky(in_channels: int, out_channels: int, nn: ModuleType):
    """Return a 3×3 convolution, batch norm and leaky ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(0.1),
    )
