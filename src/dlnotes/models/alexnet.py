"""AlexNet (Krizhevsky, Sutskever and Hinton, 2012) in both its forms, and ZF Net (2013)."""

from types import ModuleType

from dlnotes import nn
from dlnotes._validate import Number
from dlnotes.models import _engine
from dlnotes.models._engine import Network


class AlexNet(Network):
    """AlexNet in one column, as in torchvision: (n, 3, 224, 224) → (n, num_classes).

    61,100,840 parameters and 714 million multiply-accumulates at the defaults. The names are
    torchvision's, so its weights load. This is the form of Krizhevsky's "One weird trick" (2014,
    arXiv:1404.5997): 64 and 192 filters first, no local response normalisation, no groups;
    `AlexNetPaper` is that of 2012.

    `width` scales all hidden sizes. small_input=True, for images of 28 to 96 pixels, begins with a
    5×5 convolution of stride 1 and ends the features with 2×2 averages in place of 6×6.
    dropout: on what goes into the first and the second of the three linear layers.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: Number = 0.5,
        width: Number = 1.0,
        small_input: bool = False,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        c1, c2, c3, c4, c5 = (_engine.scaled(c, width) for c in (64, 192, 384, 256, 256))
        hidden, side = _engine.scaled(4096, width), 2 if small_input else 6
        first = {"kernel_size": 11, "stride": 4, "padding": 2}
        if small_input:
            first = {"kernel_size": 5, "stride": 1, "padding": 2}
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, c1, **first),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(c1, c2, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(c2, c3, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(c3, c4, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(c4, c5, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((side, side))
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(c5 * side * side, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x):
        """Return the logits."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class AlexNetPaper(Network):
    """AlexNet of the paper: (n, 3, 227, 227) → (n, num_classes), 60,965,224 parameters.

    Two halves, then one on each graphics card, meet only in the third convolution and from the
    linear layers on: groups=2 elsewhere. Local response normalisation follows the first two
    convolutions (n = 5, k = 2, β = 0.75; the paper's α = 10⁻⁴ multiplies the *sum* of the squares,
    torch's their mean, so 5 · 10⁻⁴ here). The paper says 224 pixels; its sizes need 227.
    Weights start normally with deviation 0.01; biases at 1 in the second, fourth and fifth
    convolution and the hidden linear layers, else 0.
    dropout: on what goes into the second and the third of the three linear layers.
    """

    def __init__(
        self, num_classes: int = 1000, dropout: Number = 0.5, width: Number = 1.0,
        *, nn: ModuleType = nn,
    ):  # fmt: skip
        super().__init__()
        # Even numbers, for two groups.
        c1, c2, c3, c5 = (2 * _engine.scaled(c, width) for c in (48, 128, 192, 128))
        hidden = _engine.scaled(4096, width)

        def norm():
            return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)

        self.features = nn.Sequential(
            nn.Conv2d(3, c1, 11, stride=4),
            nn.ReLU(),
            norm(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(c1, c2, 5, padding=2, groups=2),
            nn.ReLU(),
            norm(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(c2, c3, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(c3, c3, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.Conv2d(c3, c5, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(c5 * 6 * 6, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
                nn.init.zeros_(module.bias)
        for module in (*(self.features[i] for i in (4, 10, 12)), *self.classifier[:6:3]):
            nn.init.ones_(module.bias)

    def forward(self, x):
        """Return the logits."""
        return self.classifier(self.features(x).flatten(1))


class ZFNet(Network):
    """ZF Net (Zeiler and Fergus, 2013): (n, 3, 224, 224) → (n, num_classes).

    AlexNet with a finer start: the first layer has 7×7 filters of stride 2 in place of 11×11 of
    stride 4, which left dead and aliased filters, as the paper's visualisations show. All maps are
    connected. 62,357,608 parameters at the defaults, after the paper's figure 3; local response
    normalisation as in AlexNet, since the paper's "contrast normalised" gives no numbers.

    `width` and `small_input` are as in `AlexNet`.
    dropout as in `AlexNetPaper`.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: Number = 0.5,
        width: Number = 1.0,
        small_input: bool = False,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        c1, c2, c3, c5 = (_engine.scaled(c, width) for c in (96, 256, 384, 256))
        hidden, side = _engine.scaled(4096, width), 2 if small_input else 6
        first = {"kernel_size": 7, "stride": 2, "padding": 1}
        second = {"kernel_size": 5, "stride": 2}
        if small_input:
            first = {"kernel_size": 5, "stride": 1, "padding": 2}
            second = {"kernel_size": 5, "stride": 1, "padding": 2}
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, c1, **first),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, ceil_mode=True),  # the paper's sizes: 110 → 55, 26 → 13
            nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0),
            nn.Conv2d(c1, c2, **second),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0),
            nn.Conv2d(c2, c3, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(c3, c3, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(c3, c5, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((side, side))
        self.classifier = nn.Sequential(
            nn.Linear(c5 * side * side, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x):
        """Return the logits."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))
