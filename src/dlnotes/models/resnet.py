"""Residual networks (He, Zhang, Ren and Sun, 2016): for ImageNet, and for images of 32 pixels."""

from types import ModuleType

import numpy as np

from dlnotes import _validate, nn
from dlnotes._validate import Number
from dlnotes.models import _engine
from dlnotes.models._engine import Network


class ResNet(Network):
    """ResNet: (n, 3, 224, 224) → (n, num_classes).

    A 7×7 convolution, then four stages of `block`s, layers[i] of them in stage i, each of which
    adds its input to what its convolutions give. `resnet18` … `resnet101` are the paper's; the
    names are torchvision's, so its weights load. As there, a bottleneck halves the image in its 3×3
    convolution (the paper: in the first 1×1, which costs 3.8 in place of 4.1 billion
    multiply-accumulates in ResNet-50), and shortcuts that change shape are a 1×1 convolution (the
    paper's option B).

    `width` scales all channels. small_input=True, for images of 28 to 96 pixels, begins with a 3×3
    convolution of stride 1 and no pooling.
    block: a class made by block(in_channels, channels, stride, nn=nn), with `expansion`, as
    `BasicBlock` and `Bottleneck` are; layers: four numbers.
    """

    def __init__(
        self,
        block: type,
        layers: tuple[int, int, int, int] | list[int],
        num_classes: int = 1000,
        in_channels: int = 3,
        width: Number = 1.0,
        small_input: bool = False,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        channels = [_engine.scaled(c, width) for c in (64, 128, 256, 512)]
        first = {"kernel_size": 7, "stride": 2, "padding": 3}
        if small_input:
            first = {"kernel_size": 3, "padding": 1}
        self.conv1 = nn.Conv2d(in_channels, channels[0], bias=False, **first)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.relu = nn.ReLU()
        self.maxpool = nn.Identity() if small_input else nn.MaxPool2d(3, 2, 1)
        self.in_channels = channels[0]
        self.layer1 = self._stage(block, channels[0], layers[0], 1)
        self.layer2 = self._stage(block, channels[1], layers[1], 2)
        self.layer3 = self._stage(block, channels[2], layers[2], 2)
        self.layer4 = self._stage(block, channels[3], layers[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(self.in_channels, num_classes)
        _engine.he_init(self)

    def _stage(self, block, channels: int, count: int, stride: int):
        """Return `count` blocks, of which the first may halve the image."""
        stage = self.nn.Sequential()
        for i in range(count):
            stage.append(block(self.in_channels, channels, stride if i == 0 else 1, nn=self.nn))
            self.in_channels = channels * block.expansion
        return stage

    def forward(self, x):
        """Return the logits."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


class BasicBlock(Network):
    """Two 3×3 convolutions and the shortcut: relu(x + f(x)).

    shortcut: what happens to x where its shape changes: "B", a 1×1 convolution; "A", every second
    pixel and zeros for the new channels, without parameters; None, no shortcut at all (a plain
    network).
    (n, in_channels, h, w) → (n, channels, h / stride, w / stride), rounded up.
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        shortcut: str | None = "B",
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.residual = shortcut is not None
        self.downsample = None
        if self.residual and (stride != 1 or in_channels != channels):
            self.downsample = _downsample(shortcut, in_channels, channels, stride, nn)

    def forward(self, x):
        """Return relu(x + f(x)), or relu(f(x)) in a plain network."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.residual:
            y = y + (x if self.downsample is None else self.downsample(x))
        return self.relu(y)


class Bottleneck(Network):
    """1×1, 3×3 and 1×1 convolution and the shortcut; the last has four times the channels.

    (n, in_channels, h, w) → (n, 4 channels, h / stride, w / stride), rounded up; the shortcut is a
    1×1 convolution where the shape changes.
    """

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int = 1, *, nn: ModuleType = nn):
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = _downsample("B", in_channels, out_channels, stride, nn)

    def forward(self, x):
        """Return relu(x + f(x))."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ZeroPadShortcut(Network):
    """Option A: every stride-th pixel, and channels of zeros behind those there are."""

    def __init__(self, new_channels: int, stride: int, *, nn: ModuleType = nn):
        super().__init__()
        self.new_channels, self.stride = new_channels, stride

    def forward(self, x):
        """Return x with fewer pixels and more channels."""
        x = x[:, :, :: self.stride, :: self.stride]
        zeros = np.zeros((x.shape[0], self.new_channels, *x.shape[2:]), np.float32)
        return _engine.cat([x, _engine.constant(zeros, x)], 1)


def _downsample(shortcut: str, in_channels: int, out_channels: int, stride: int, nn):
    if _validate.one_of("shortcut", shortcut, ["A", "B"]) == "A":
        return ZeroPadShortcut(out_channels - in_channels, stride, nn=nn)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
    )


def resnet18(num_classes: int = 1000, *, nn: ModuleType = nn, **settings) -> ResNet:
    """Return ResNet-18 (11,689,512 parameters); settings as in `ResNet`."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, nn=nn, **settings)


def resnet34(num_classes: int = 1000, *, nn: ModuleType = nn, **settings) -> ResNet:
    """Return ResNet-34 (21,797,672 parameters); settings as in `ResNet`."""
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes, nn=nn, **settings)


def resnet50(num_classes: int = 1000, *, nn: ModuleType = nn, **settings) -> ResNet:
    """Return ResNet-50 (25,557,032 parameters); settings as in `ResNet`."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, nn=nn, **settings)


def resnet101(num_classes: int = 1000, *, nn: ModuleType = nn, **settings) -> ResNet:
    """Return ResNet-101 (44,549,160 parameters); settings as in `ResNet`."""
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes, nn=nn, **settings)


class CifarResNet(Network):
    """The paper's network for CIFAR-10 (its section 4.2): (n, 3, 32, 32) → (n, num_classes).

    depth = 6n + 2 (20, 32, 44, 56, 110, …): a 3×3 convolution, three stages of n blocks with 16, 32
    and 64 channels on 32, 16 and 8 pixels, the mean over the image, one linear layer. 0.27 million
    parameters at depth 20, 0.85 at 56 (the paper's table 6). shortcut: "A" as in the paper, "B", or
    None for the plain network that it is compared with. `width` scales all channels.
    """

    def __init__(
        self,
        depth: int = 20,
        num_classes: int = 10,
        in_channels: int = 3,
        shortcut: str | None = "A",
        width: Number = 1.0,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        count, rest = divmod(_validate.integer("depth", depth, low=8) - 2, 6)
        if rest:
            raise ValueError(f"depth must be 6n + 2 (8, 14, 20, …), got {depth}")
        c1, c2, c3 = (_engine.scaled(c, width) for c in (16, 32, 64))
        self.conv1 = nn.Conv2d(in_channels, c1, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c1)
        self.relu = nn.ReLU()

        def stage(in_channels, channels, stride):
            blocks = [(in_channels, channels, stride)] + [(channels, channels, 1)] * (count - 1)
            return nn.Sequential(*(BasicBlock(*block, shortcut, nn=nn) for block in blocks))

        self.layer1 = stage(c1, c1, 1)
        self.layer2 = stage(c1, c2, 2)
        self.layer3 = stage(c2, c3, 2)
        self.fc = nn.Linear(c3, num_classes)
        _engine.he_init(self)

    def forward(self, x):
        """Return the logits."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))
