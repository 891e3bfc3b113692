"""MobileNetV2 (Sandler, Howard, Zhu, Zhmoginov and Chen, 2018)."""

from types import ModuleType

from dlnotes import nn
from dlnotes._validate import Number
from dlnotes.models import _engine
from dlnotes.models._engine import Network

# Table 2 of the paper: expansion, channels, blocks, stride of the first of them.
BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class MobileNetV2(Network):
    """MobileNetV2: (n, 3, 224, 224) → (n, num_classes), 3,504,872 parameters at the defaults.

    Inverted residuals: a 1×1 convolution widens, a depthwise 3×3 convolution (groups = channels)
    filters, another 1×1 narrows without an activation; about 300 million multiply-accumulates. The
    names are torchvision's; `data.load("mobilenet_v2")` has its ImageNet weights, which expect
    pixels between 0 and 1, less the mean (0.485, 0.456, 0.406), over (0.229, 0.224, 0.225).

    `width_mult` scales the channels, rounded to multiples of 8 that lose at most a tenth.
    small_input=True, for images of 28 to 64 pixels, leaves out the first two halvings.
    dropout: before the one linear layer.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        width_mult: Number = 1.0,
        in_channels: int = 3,
        dropout: Number = 0.2,
        small_input: bool = False,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        channels = _multiple_of_8(32 * width_mult)
        last = _multiple_of_8(1280 * max(1.0, width_mult))
        first = conv_norm_relu(in_channels, channels, 3, 1 if small_input else 2, nn=nn)
        self.features = nn.Sequential(first)
        for i, (expansion, c, count, stride) in enumerate(BLOCKS):
            if small_input and i == 1:
                stride = 1
            for j in range(count):
                out_channels = _multiple_of_8(c * width_mult)
                settings = (stride if j == 0 else 1, expansion)
                self.features.append(InvertedResidual(channels, out_channels, *settings, nn=nn))
                channels = out_channels
        self.features.append(conv_norm_relu(channels, last, 1, nn=nn))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))
        _engine.he_init(self)
        nn.init.normal_(self.classifier[1].weight, 0.0, 0.01)

    def forward(self, x):
        """Return the logits."""
        return self.classifier(self.features(x).mean((2, 3)))


def conv_norm_relu(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    groups: int = 1,
    *,
    nn: ModuleType = nn,
):
    """Return convolution, batch norm and ReLU6, one after another."""
    settings = {"stride": stride, "padding": kernel_size // 2, "groups": groups, "bias": False}
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, **settings),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(),
    )


class InvertedResidual(Network):
    """Widen, filter each channel on its own, narrow; add the input where the shape is the same.

    (n, in_channels, h, w) → (n, out_channels, h / stride, w / stride), rounded up; stride 1 or 2;
    expand_ratio: by how much the first convolution widens.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        expand_ratio: int,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        hidden = in_channels * expand_ratio
        self.residual = stride == 1 and in_channels == out_channels
        self.conv = nn.Sequential()
        if expand_ratio != 1:
            self.conv.append(conv_norm_relu(in_channels, hidden, 1, nn=nn))
        self.conv.append(conv_norm_relu(hidden, hidden, 3, stride, groups=hidden, nn=nn))
        self.conv.append(nn.Conv2d(hidden, out_channels, 1, bias=False))
        self.conv.append(nn.BatchNorm2d(out_channels))

    def forward(self, x):
        """Return x + f(x), or f(x) where the shape changes."""
        y = self.conv(x)
        return x + y if self.residual else y


def _multiple_of_8(channels: float) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
