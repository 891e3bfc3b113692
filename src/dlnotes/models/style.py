"""Fast style transfer (Johnson, Alahi and Fei-Fei, 2016), and two ways to keep the colours."""

from types import ModuleType

import numpy as np

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


# ---- colour --------------------------------------------------------------------------------------

# Rows: luminance, and two axes of colour (the YIQ of NTSC television).
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def match_colors(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return an image with the mean colour and the spread of colours of another one.

    Given a painting and the photo that shall keep its colours, the result is the painting to take
    the style from (Gatys et al., 2016, "Preserving color in neural artistic style transfer"). A
    pixel x becomes A (x - μ) + μ', A = Σ'^½ Σ^-½ of the covariances Σ, Σ' of the colours. Both
    (3, h, w), floats, of any sizes; values may leave 0 … 1, where the caller cuts them off. Cost
    O(pixels).

    TypeError for arrays that are no floats, ValueError for another shape.
    """
    pixels, wanted = _colors("image", image), _colors("reference", reference)
    mean, aim = pixels.mean(axis=1, keepdims=True), wanted.mean(axis=1, keepdims=True)
    spread, goal = (x @ x.T / x.shape[1] for x in (pixels - mean, wanted - aim))
    y = _root(goal) @ np.linalg.pinv(_root(spread)) @ (pixels - mean) + aim
    return y.reshape(image.shape).astype(image.dtype)


def keep_colors(painted: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """Return the luminance of the painted picture with the colours of the photo.

    (Gatys et al., 2016, as above, "luminance-only transfer".) Both (3, h, w), floats of one shape;
    values may leave 0 … 1.
    """
    light, colors = _colors("painted", painted), _colors("photo", photo)
    _validate.same_shape(painted=painted, photo=photo)
    mixed = np.concatenate([(_YIQ @ light)[:1], (_YIQ @ colors)[1:]])
    return np.linalg.solve(_YIQ, mixed).reshape(painted.shape).astype(painted.dtype)


def _colors(name, image):
    """Return an image's colours as columns (3, pixels), float64."""
    image = _validate.floats(name, image, ndim=3)
    if image.shape[0] != 3 or not image.size:
        raise ValueError(f"{name} must have shape (3, h, w), got {image.shape}")
    return image.reshape(3, -1).astype(np.float64)


def _root(covariance):
    """Return the symmetric square root of a covariance matrix."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
