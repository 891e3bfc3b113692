"""DenseNet (Huang, Liu, van der Maaten and Weinberger, 2017)."""

from types import ModuleType

from dlnotes import nn
from dlnotes._validate import Number
from dlnotes.models import _engine
from dlnotes.models._engine import Network


class DenseNet(Network):
    """DenseNet-BC: (n, 3, 224, 224) → (n, num_classes).

    Within a block each layer sees the maps of all layers before it and adds `growth_rate` maps;
    between blocks a transition halves channels and pixels. `densenet121` is the paper's smallest
    for ImageNet; the names are torchvision's, so its weights load. Slim networks: a smaller
    growth_rate, shorter block_config. small_input=True, for images of 28 to 96 pixels, begins with
    a 3×3 convolution of stride 1 and no pooling.
    num_init_features: maps before the first block; bn_size · growth_rate: maps between the two
    convolutions of a layer; drop_rate: dropout on the maps that each layer adds.
    """

    def __init__(
        self,
        growth_rate: int = 32,
        block_config: tuple[int, ...] | list[int] = (6, 12, 24, 16),
        num_init_features: int = 64,
        bn_size: int = 4,
        drop_rate: Number = 0.0,
        num_classes: int = 1000,
        in_channels: int = 3,
        small_input: bool = False,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        channels = num_init_features
        first = {"kernel_size": 7, "stride": 2, "padding": 3}
        if small_input:
            first = {"kernel_size": 3, "padding": 1}
        self.features = nn.Sequential()
        add = self.features.add_module
        add("conv0", nn.Conv2d(in_channels, channels, bias=False, **first))
        add("norm0", nn.BatchNorm2d(channels))
        add("relu0", nn.ReLU())
        if not small_input:
            add("pool0", nn.MaxPool2d(3, 2, 1))
        for i, count in enumerate(block_config, start=1):
            block = nn.Sequential()
            for j in range(1, count + 1):
                layer = DenseLayer(channels, growth_rate, bn_size, drop_rate, nn=nn)
                block.add_module(f"denselayer{j}", layer)
                channels += growth_rate
            add(f"denseblock{i}", block)
            if i < len(block_config):
                add(f"transition{i}", Transition(channels, channels // 2, nn=nn))
                channels //= 2
        add("norm5", nn.BatchNorm2d(channels))
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.classifier = nn.Linear(channels, num_classes)
        _engine.he_init(self)

    def forward(self, x):
        """Return the logits."""
        x = self.relu(self.features(x))
        return self.classifier(self.avgpool(x).flatten(1))


class DenseLayer(Network):
    """Batch norm, ReLU, 1×1 convolution; the same with 3×3: its maps are added to its input's.

    (n, in_channels, h, w) → (n, in_channels + growth_rate, h, w); bn_size · growth_rate maps
    between the two; drop_rate: dropout on the new maps.
    """

    def __init__(
        self,
        in_channels: int,
        growth_rate: int,
        bn_size: int = 4,
        drop_rate: Number = 0.0,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, bn_size * growth_rate, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(bn_size * growth_rate)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(bn_size * growth_rate, growth_rate, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(drop_rate)

    def forward(self, x):
        """Return the maps of x and the new ones behind them."""
        y = self.conv1(self.relu1(self.norm1(x)))
        y = self.conv2(self.relu2(self.norm2(y)))
        return _engine.cat([x, self.dropout(y)], 1)


class Transition(Network):
    """Batch norm, ReLU, 1×1 convolution and average pooling between two blocks.

    (n, in_channels, h, w) → (n, out_channels, ⌊h / 2⌋, ⌊w / 2⌋).
    """

    def __init__(self, in_channels: int, out_channels: int, *, nn: ModuleType = nn):
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x):
        """Return fewer and smaller maps."""
        return self.pool(self.conv(self.relu(self.norm(x))))


def densenet121(num_classes: int = 1000, *, nn: ModuleType = nn, **settings) -> DenseNet:
    """Return DenseNet-121 (7,978,856 parameters); settings as in `DenseNet`."""
    return DenseNet(32, (6, 12, 24, 16), 64, num_classes=num_classes, nn=nn, **settings)
