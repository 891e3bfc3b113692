"""Fast style transfer: one network for one style (Johnson, Alahi and Fei-Fei, 2016)."""

from types import ModuleType

from dlnotes import _validate, nn
from dlnotes._validate import Number
from dlnotes.models import _engine
from dlnotes.models._engine import Network


class TransformNet(Network):
    """Pictures (n, 3, h, w) between 0 and 1 → pictures of the same shape, between 0 and 1.

    A 9×9 convolution, two of stride 2, five residual blocks, two transposed convolutions of stride
    2 and a 9×9 one; trained so that features of `VGGFeatures` match a content and a style, it
    paints in one pass what Gatys et al. (2016) optimise for minutes. 1,679,235 parameters. h and w
    must be multiples of 4, else ValueError. norm="instance" (Ulyanov, Vedaldi and Lempitsky, 2016)
    gives better pictures than the paper's "batch", as Ulyanov et al. report. The paper pads the
    picture by reflection once and lets the residual blocks crop it; here every convolution pads
    with zeros. `width` scales the channels.
    """

    def __init__(
        self, norm: str = "instance", blocks: int = 5, width: Number = 1.0, *, nn: ModuleType = nn
    ):
        super().__init__()
        _validate.one_of("norm", norm, ["instance", "batch"])
        c1, c2, c3 = (_engine.scaled(c, width) for c in (32, 64, 128))
        self.down = nn.Sequential(
            *_conv(3, c1, 9, 1, norm, nn),
            *_conv(c1, c2, 3, 2, norm, nn),
            *_conv(c2, c3, 3, 2, norm, nn),
        )
        self.blocks = nn.Sequential(*(StyleBlock(c3, norm, nn=nn) for _ in range(blocks)))
        self.up = nn.Sequential(
            nn.ConvTranspose2d(c3, c2, 3, 2, 1, 1),
            _norm(norm, c2, nn),
            nn.ReLU(),
            nn.ConvTranspose2d(c2, c1, 3, 2, 1, 1),
            _norm(norm, c1, nn),
            nn.ReLU(),
            nn.Conv2d(c1, 3, 9, padding=4),
            nn.Sigmoid(),
        )

    def forward(self, x):
        """Return the painted pictures."""
        _engine.check_sides(x, 4)
        return self.up(self.blocks(self.down(x)))


class StyleBlock(Network):
    """x + f(x) with two 3×3 convolutions and nothing after the sum."""

    def __init__(self, channels: int, norm: str, *, nn: ModuleType = nn):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm1 = _norm(norm, channels, nn)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = _norm(norm, channels, nn)

    def forward(self, x):
        """Return x + f(x)."""
        return x + self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int, norm: str, nn):
    """Return a convolution, a normalisation and ReLU."""
    settings = {"stride": stride, "padding": kernel_size // 2}
    layer = nn.Conv2d(in_channels, out_channels, kernel_size, **settings)
    return layer, _norm(norm, out_channels, nn), nn.ReLU()


def _norm(norm: str, channels: int, nn: ModuleType):
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    return nn.InstanceNorm2d(channels, affine=True)
