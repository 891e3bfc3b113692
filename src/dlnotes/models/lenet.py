"""LeNet-5 (LeCun, Bottou, Bengio and Haffner, 1998): as it was, and as it is usually built."""

from types import ModuleType

import numpy as np

from dlnotes import _validate, nn
from dlnotes._validate import Number
from dlnotes.models import _engine
from dlnotes.models._engine import Network

# Table I of the paper: the maps of S2 that each of the 16 maps of C3 sees. Six see three
# neighbours, six see four neighbours, three see four others, one sees all.
C3_TABLE = (
    *(tuple((first + i) % 6 for i in range(3)) for first in range(6)),
    *(tuple((first + i) % 6 for i in range(4)) for first in range(6)),
    *((first, first + 1, (first + 3) % 6, (first + 4) % 6) for first in range(3)),
    tuple(range(6)),
)


class LeNet5(Network):
    """LeNet-5 as it is usually built: (n, 1, 28, 28) → (n, num_classes).

    Two convolutions 5×5 (6 and 16 maps) with pooling, then 120, 84 and num_classes units. It
    differs from the paper (`LeNet5Paper`): padding 2 in place of 32-pixel images, plain pooling
    (nothing to train), every map of the second convolution sees all six, a linear output in place
    of distances, and no scaled tanh. 61,706 parameters at the defaults; 60,000 in the paper.
    activation="relu", pool="max" is the modern choice. `width` scales all hidden sizes;
    `image_size` is the side of the images, at least 12.
    activation: a name such as "tanh", "relu", "sigmoid"; pool: "average" or "max".
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        activation: str = "tanh",
        pool: str = "average",
        width: Number = 1.0,
        image_size: int = 28,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        pools = {"average": nn.AvgPool2d, "max": nn.MaxPool2d}
        Pool = pools[_validate.one_of("pool", pool, pools)]
        c1, c3, c5, f6 = (_engine.scaled(size, width) for size in (6, 16, 120, 84))
        side = (_validate.integer("image_size", image_size, low=12) // 2 - 4) // 2
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, c1, 5, padding=2),
            _engine.activation(activation, nn),
            Pool(2),
            nn.Conv2d(c1, c3, 5),
            _engine.activation(activation, nn),
            Pool(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(c3 * side * side, c5),
            _engine.activation(activation, nn),
            nn.Linear(c5, f6),
            _engine.activation(activation, nn),
            nn.Linear(f6, num_classes),
        )

    def forward(self, x):
        """Return the logits."""
        return self.classifier(self.features(x).flatten(1))


class LeNet5Paper(Network):
    """LeNet-5 of the paper: (n, 1, 32, 32) → (n, num_classes), 60,000 trainable parameters.

    As printed there (section II.B): every unit is squashed by 1.7159 tanh(2x/3); the subsampling
    layers S2 and S4 add four neighbours, times a weight, plus a bias, of which each map trains one;
    maps of C3 see only some of those of S2 (`C3_TABLE`); the output is the squared distance of the
    84 units of F6 to a code of ±1 for each class, which is not trained. 340,908 connections, of
    which `summary` counts those with a weight matrix, without their biases.

    The codes were drawn by hand, as pictures of the characters; here they are random signs, the
    other choice that the paper names. The output here is *minus* the distance, so that the largest
    wins, as with logits; the paper trains with squared errors of the distances (its equations 8
    and 9).
    """

    def __init__(self, num_classes: int = 10, *, nn: ModuleType = nn):
        super().__init__()
        self.c1 = nn.Conv2d(1, 6, 5)
        self.s2 = Subsampling(6, nn=nn)
        self.c3 = PartialConv(C3_TABLE, 5, nn=nn)
        self.s4 = Subsampling(16, nn=nn)
        self.c5 = nn.Conv2d(16, 120, 5)
        self.f6 = nn.Linear(120, 84)
        self.output = Codes(84, num_classes, nn=nn)
        self.squash = ScaledTanh(nn=nn)

    def forward(self, x):
        """Return minus the squared distance to the code of each class."""
        x = self.squash(self.c1(x))
        x = self.squash(self.s2(x))
        x = self.squash(self.c3(x))
        x = self.squash(self.s4(x))
        x = self.squash(self.c5(x)).flatten(1)
        x = self.squash(self.f6(x))
        return self.output(x)


class ScaledTanh(Network):
    """1.7159 tanh(2x/3), which maps ±1 to ±1 (LeCun, 1989)."""

    def __init__(self, *, nn: ModuleType = nn):
        super().__init__()

    def forward(self, x):
        """Return the activation."""
        return 1.7159 * (x * (2 / 3)).tanh()


class Subsampling(Network):
    """Halve each side: the sum of four neighbours, times a weight, plus a bias, one of each a map.

    The weights start at 1/4, so that it starts as average pooling.
    """

    def __init__(self, channels: int, *, nn: ModuleType = nn):
        super().__init__()
        self.pool = nn.AvgPool2d(2)
        self.weight = nn.Parameter(_engine.leaf(np.full(channels, 0.25, np.float32), nn))
        self.bias = nn.Parameter(_engine.leaf(np.zeros(channels, np.float32), nn))

    def forward(self, x):
        """Return the smaller maps."""
        return 4 * self.pool(x) * self.weight.reshape(-1, 1, 1) + self.bias.reshape(-1, 1, 1)


class PartialConv(Network):
    """A convolution in which each output map sees only the input maps that `table` gives it.

    Maps that see equally many are one grouped convolution; `table` must hold them together.
    """

    def __init__(self, table, kernel_size: int, *, nn: ModuleType = nn):
        super().__init__()
        self.inputs = []
        self.convs = nn.ModuleList()
        for count in dict.fromkeys(len(maps) for maps in table):
            group = [maps for maps in table if len(maps) == count]
            self.inputs.append([i for maps in group for i in maps])
            channels = (count * len(group), len(group))
            self.convs.append(nn.Conv2d(*channels, kernel_size, groups=len(group)))

    def forward(self, x):
        """Return the maps in the order of the table."""
        pairs = zip(self.convs, self.inputs, strict=True)
        return _engine.cat([conv(x[:, inputs]) for conv, inputs in pairs], 1)


class Codes(Network):
    """Minus the squared distance of x (n, features) to a fixed code of ±1 for each class."""

    def __init__(self, features: int, num_classes: int, *, nn: ModuleType = nn):
        super().__init__()
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (num_classes, features))
        self.register_buffer("codes", _engine.leaf(signs.astype(np.float32), nn))

    def forward(self, x):
        """Return one number for each class."""
        difference = x.reshape(x.shape[0], 1, -1) - self.codes
        return -(difference * difference).sum(2)
