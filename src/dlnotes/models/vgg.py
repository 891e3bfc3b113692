"""VGG (Simonyan and Zisserman, 2015): 3×3 convolutions, again and again."""

from types import ModuleType

from dlnotes import _validate, nn
from dlnotes._validate import Number
from dlnotes.models import _engine
from dlnotes.models._engine import Network

# Table 1 of the paper: how many convolutions stand in each of the five blocks.
CONVOLUTIONS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
CHANNELS = (64, 128, 256, 512, 512)


class VGG(Network):
    """VGG with `depth` (11, 13, 16 or 19) layers: (n, 3, 224, 224) → (n, num_classes).

    Blocks of 3×3 convolutions with 64 to 512 channels, a 2×2 max pooling after each block, three
    linear layers. Two 3×3 convolutions see as much as one 5×5, three as much as a 7×7, with fewer
    parameters. At the defaults 132,863,336, 133,047,848, 138,357,544 and 143,667,240 parameters
    (the paper's table 2: 133, 133, 138, 144 million). The names are torchvision's, so its weights
    load. batch_norm=True, after the paper's time, adds a batch normalisation to each convolution
    and trains without the paper's warm start from a shallower network.
    Weights start by He's rule; torchvision draws the linear ones with deviation 0.01, which is too
    small for slim networks.

    `width` scales all hidden sizes. small_input=True, for images of 28 to 96 pixels, pools odd
    sides up and ends the features with one average for each channel in place of 7×7.
    dropout: on what goes into the second and the third linear layer.
    """

    def __init__(
        self,
        depth: int = 16,
        num_classes: int = 1000,
        in_channels: int = 3,
        batch_norm: bool = False,
        dropout: Number = 0.5,
        width: Number = 1.0,
        small_input: bool = False,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        if depth not in CONVOLUTIONS:
            raise ValueError(
                f"depth must be one of {', '.join(map(str, CONVOLUTIONS))}, got {depth}"
            )
        self.features = nn.Sequential()
        for channels, count in zip(CHANNELS, CONVOLUTIONS[depth], strict=True):
            out_channels = _engine.scaled(channels, width)
            for _ in range(count):
                self.features.append(nn.Conv2d(in_channels, out_channels, 3, padding=1))
                if batch_norm:
                    self.features.append(nn.BatchNorm2d(out_channels))
                self.features.append(nn.ReLU())
                in_channels = out_channels
            self.features.append(nn.MaxPool2d(2, ceil_mode=small_input))
        hidden, side = _engine.scaled(4096, width), 1 if small_input else 7
        self.avgpool = nn.AdaptiveAvgPool2d((side, side))
        self.classifier = nn.Sequential(
            nn.Linear(in_channels * side * side, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )
        _engine.he_init(self)

    def forward(self, x):
        """Return the logits."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def vgg11(num_classes: int = 1000, *, nn: ModuleType = nn, **settings) -> VGG:
    """Return VGG-11, configuration A of the paper; settings as in `VGG`."""
    return VGG(11, num_classes, nn=nn, **settings)


def vgg13(num_classes: int = 1000, *, nn: ModuleType = nn, **settings) -> VGG:
    """Return VGG-13, configuration B of the paper; settings as in `VGG`."""
    return VGG(13, num_classes, nn=nn, **settings)


def vgg16(num_classes: int = 1000, *, nn: ModuleType = nn, **settings) -> VGG:
    """Return VGG-16, configuration D of the paper; settings as in `VGG`."""
    return VGG(16, num_classes, nn=nn, **settings)


def vgg19(num_classes: int = 1000, *, nn: ModuleType = nn, **settings) -> VGG:
    """Return VGG-19, configuration E of the paper; settings as in `VGG`."""
    return VGG(19, num_classes, nn=nn, **settings)


class VGGFeatures(Network):
    """The convolutions of VGG up to the deepest of `layers`: (n, 3, h, w) → {layer: features}.

    Layers have the paper's names, "conv3_2" or "relu3_2" for the second of block 3, "pool3" for
    its pooling. Neural style transfer compares images in these features (Gatys et al., 2016).
    The parameters have torchvision's names: `data.load("vgg16")` has those up to conv4_1 of VGG-16.
    Those weights expect pixels between 0 and 1, less the mean (0.485, 0.456, 0.406), over
    (0.229, 0.224, 0.225). pool="average" gives smoother pictures, as Gatys et al. advise.
    depth as in `VGG`; ValueError for layers that it has not.
    """

    def __init__(
        self,
        layers: tuple[str, ...] | list[str] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1"),
        depth: int = 16,
        pool: str = "max",
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        average = _validate.one_of("pool", pool, ["max", "average"]) == "average"
        if depth not in CONVOLUTIONS:
            raise ValueError(
                f"depth must be one of {', '.join(map(str, CONVOLUTIONS))}, got {depth}"
            )
        names = _layer_names(CONVOLUTIONS[depth])
        for layer in layers:
            _validate.one_of("layers", layer, names)
        if not layers:
            raise ValueError("layers must name a layer or more")
        self.layers = tuple(layers)
        self.names = names[: max(map(names.index, layers)) + 1]
        self.features = nn.Sequential()
        in_channels = 3
        for name in self.names:
            if name.startswith("conv"):
                out_channels = CHANNELS[int(name[4]) - 1]
                layer = nn.Conv2d(in_channels, out_channels, 3, padding=1)
                in_channels = out_channels
            elif name.startswith("relu"):
                layer = nn.ReLU()
            else:
                layer = nn.AvgPool2d(2) if average else nn.MaxPool2d(2)
            self.features.append(layer)
        _engine.he_init(self)

    def forward(self, x):
        """Return the features of each layer asked for, by name."""
        found = {}
        for name, layer in zip(self.names, self.features, strict=True):
            x = layer(x)
            if name in self.layers:
                found[name] = x
        return found


def _layer_names(counts) -> list[str]:
    """Return the paper's names in the order of torchvision's `features`."""
    names = []
    for block, count in enumerate(counts, start=1):
        for i in range(1, count + 1):
            names += [f"conv{block}_{i}", f"relu{block}_{i}"]
        names.append(f"pool{block}")
    return names
