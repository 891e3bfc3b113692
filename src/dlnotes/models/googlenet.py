"""GoogLeNet, also called Inception v1 (Szegedy et al., 2015)."""

from types import ModuleType
from typing import Any, NamedTuple

from dlnotes import _validate, nn
from dlnotes._validate import Number
from dlnotes.models import _engine
from dlnotes.models._engine import Network


class GoogLeNetOutputs(NamedTuple):
    """What GoogLeNet gives in training: its logits and those of the two auxiliary heads.

    The paper's loss is CE(logits) + 0.3 (CE(aux_logits1) + CE(aux_logits2)). torchvision's tuple
    has the order logits, aux_logits2, aux_logits1. All are (n, num_classes).
    """

    logits: Any
    aux_logits1: Any
    aux_logits2: Any


class GoogLeNet(Network):
    """GoogLeNet: (n, 3, 224, 224) → (n, num_classes), in training with aux_logits three of them.

    Nine inception modules, each with 1×1, 3×3 and 5×5 convolutions and a pooling side by side; 1×1
    convolutions before the wide ones save most of the work. Two forms:

    - "torchvision" (default): batch normalisation, no biases in convolutions, and, by a known
      mistake that its weights keep, 3×3 where the paper has 5×5. Its names, so its weights load.
      6,624,904 parameters, with the auxiliary heads 13,004,888.
    - "paper": 5×5, biases, no batch normalisation but local response normalisation in the first
      layers. 6,998,552 parameters, without the heads; 1.58 billion multiply-accumulates (the paper
      has 1.5, since its table 1 counts 34 million for the first convolution, which has 118).

    The heads pool to 4×4 (the paper: 5×5 windows of stride 3, the same at 224 pixels). Weights
    start by He's rule, where torchvision draws with deviation 0.01, too small for slim networks.
    `width` scales all hidden sizes. small_input=True, for images of 28 to 96 pixels, begins with a
    3×3 convolution of stride 1 and without the first pooling.
    dropout: before the last layer; dropout_aux: before the heads' last layers; aux_logits=False
    leaves the heads out.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        aux_logits: bool = True,
        form: str = "torchvision",
        dropout: Number = 0.2,
        dropout_aux: Number = 0.7,
        width: Number = 1.0,
        small_input: bool = False,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        paper = _validate.one_of("form", form, ["torchvision", "paper"]) == "paper"
        settings = {"batch_norm": not paper, "nn": nn}

        def inception(in_channels, *channels):
            channels = [_engine.scaled(c, width) for c in channels]
            return Inception(in_channels, *channels, kernel_size=5 if paper else 3, **settings)

        def pool(kernel_size=3):
            return nn.MaxPool2d(kernel_size, 2, ceil_mode=True)

        def norm():
            return nn.LocalResponseNorm(5, alpha=5e-4) if paper else nn.Identity()

        c1, c3 = _engine.scaled(64, width), _engine.scaled(192, width)
        first = {"kernel_size": 7, "stride": 2, "padding": 3}
        if small_input:
            first = {"kernel_size": 3, "padding": 1}
        self.conv1 = BasicConv2d(in_channels, c1, **first, **settings)
        self.maxpool1 = nn.Identity() if small_input else pool()
        self.norm1 = norm()
        self.conv2 = BasicConv2d(c1, c1, kernel_size=1, **settings)
        self.conv3 = BasicConv2d(c1, c3, kernel_size=3, padding=1, **settings)
        self.norm2 = norm()
        self.maxpool2 = pool()
        self.inception3a = inception(c3, 64, 96, 128, 16, 32, 32)
        self.inception3b = inception(self.inception3a.out_channels, 128, 128, 192, 32, 96, 64)
        self.maxpool3 = pool()
        self.inception4a = inception(self.inception3b.out_channels, 192, 96, 208, 16, 48, 64)
        self.inception4b = inception(self.inception4a.out_channels, 160, 112, 224, 24, 64, 64)
        self.inception4c = inception(self.inception4b.out_channels, 128, 128, 256, 24, 64, 64)
        self.inception4d = inception(self.inception4c.out_channels, 112, 144, 288, 32, 64, 64)
        self.inception4e = inception(self.inception4d.out_channels, 256, 160, 320, 32, 128, 128)
        self.maxpool4 = pool(3 if paper else 2)
        self.inception5a = inception(self.inception4e.out_channels, 256, 160, 320, 32, 128, 128)
        self.inception5b = inception(self.inception5a.out_channels, 384, 192, 384, 48, 128, 128)
        self.aux1 = self.aux2 = None
        if aux_logits:
            heads = (num_classes, dropout_aux, _engine.scaled(128, width))
            hidden = _engine.scaled(1024, width)
            self.aux1 = InceptionAux(self.inception4a.out_channels, *heads, hidden, **settings)
            self.aux2 = InceptionAux(self.inception4d.out_channels, *heads, hidden, **settings)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(self.inception5b.out_channels, num_classes)
        _engine.he_init(self)

    def forward(self, x):
        """Return the logits; in training, with aux_logits, `GoogLeNetOutputs`."""
        x = self.norm1(self.maxpool1(self.conv1(x)))
        x = self.maxpool2(self.norm2(self.conv3(self.conv2(x))))
        x = self.inception3b(self.inception3a(x))
        middle1 = self.inception4a(self.maxpool3(x))
        middle2 = self.inception4d(self.inception4c(self.inception4b(middle1)))
        x = self.maxpool4(self.inception4e(middle2))
        x = self.inception5b(self.inception5a(x))
        logits = self.fc(self.dropout(self.avgpool(x).flatten(1)))
        if self.training and self.aux1 is not None:
            return GoogLeNetOutputs(logits, self.aux1(middle1), self.aux2(middle2))
        return logits


class BasicConv2d(Network):
    """Convolution, batch normalisation (or a bias), ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, *, batch_norm: bool, nn: ModuleType = nn, **conv
    ):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, bias=not batch_norm, **conv)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001) if batch_norm else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, x):
        """Return the activation."""
        return self.relu(self.bn(self.conv(x)))


class Inception(Network):
    """Four branches side by side, their outputs joined along the channels.

    Channels in the paper's order: 1×1; 3×3 reduce and 3×3; 5×5 reduce and 5×5; pool projection.
    kernel_size: the third branch's, 3 or 5; batch_norm as in `BasicConv2d`. Images keep their size:
    (n, in_channels, h, w) → (n, ch1x1 + ch3x3 + ch5x5 + pool_proj, h, w).
    """

    def __init__(
        self,
        in_channels: int,
        ch1x1: int,
        ch3x3red: int,
        ch3x3: int,
        ch5x5red: int,
        ch5x5: int,
        pool_proj: int,
        kernel_size: int = 5,
        batch_norm: bool = True,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        settings = {"batch_norm": batch_norm, "nn": nn}
        one = {"kernel_size": 1, **settings}
        three = {"kernel_size": 3, "padding": 1, **settings}
        wide = {"kernel_size": kernel_size, "padding": kernel_size // 2, **settings}
        self.branch1 = BasicConv2d(in_channels, ch1x1, **one)
        self.branch2 = nn.Sequential(
            BasicConv2d(in_channels, ch3x3red, **one), BasicConv2d(ch3x3red, ch3x3, **three)
        )
        self.branch3 = nn.Sequential(
            BasicConv2d(in_channels, ch5x5red, **one), BasicConv2d(ch5x5red, ch5x5, **wide)
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, 1, 1), BasicConv2d(in_channels, pool_proj, **one)
        )
        self.out_channels = ch1x1 + ch3x3 + ch5x5 + pool_proj

    def forward(self, x):
        """Return the four branches as one."""
        return _engine.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class InceptionAux(Network):
    """A small classifier on features half way up, which brings them gradients in training.

    (n, in_channels, h, w) → (n, num_classes); 4×4 averages, a 1×1 convolution with `channels` maps,
    a linear layer of `hidden` units, dropout, a linear layer.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        dropout: Number = 0.7,
        channels: int = 128,
        hidden: int = 1024,
        batch_norm: bool = True,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d((4, 4))
        self.conv = BasicConv2d(in_channels, channels, kernel_size=1, batch_norm=batch_norm, nn=nn)
        self.fc1 = nn.Linear(16 * channels, hidden)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden, num_classes)

    def forward(self, x):
        """Return the logits."""
        x = self.conv(self.pool(x)).flatten(1)
        return self.fc2(self.dropout(self.relu(self.fc1(x))))
