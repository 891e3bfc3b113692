"""Random changes to training images that do not change what they show: data augmentation.

Named after `torchvision.transforms.v2`. A transform takes a batch of float images, (n, h, w) or
(n, c, h, w), and returns a new one; every image draws its own random numbers, from `generator` or
from `dlnotes.random.generator()` at the time of the call. `MixUp` and `CutMix` also change the
targets. `Transformed` puts one in front of a data set:

    augment = transforms.Compose([
        transforms.RandomHorizontalFlip(),
        transforms.RandomCrop(32, padding=4),
    ])
    loader = data.DataLoader(data.Transformed(data.TensorDataset(x, y), augment), batch_size=64)
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from dlnotes import _validate
from dlnotes.data._loader import _fetch, _generator

__all__ = [
    "ColorJitter",
    "Compose",
    "CutMix",
    "GaussianNoise",
    "MixUp",
    "RandomAffine",
    "RandomCrop",
    "RandomErasing",
    "RandomHorizontalFlip",
    "RandomRotation",
    "RandomVerticalFlip",
    "Transformed",
]

Number = float | int
Pair = Sequence[Number]
Images = Float[np.ndarray, "n ..."]
PADDING = ("constant", "edge", "reflect", "symmetric")


class Transformed:
    """A data set whose images pass through `transform` each time that they are read.

    `transform` is given the images of a batch; or, if it takes targets too (`MixUp`, `CutMix`, or
    a `Compose` that ends with one), all arrays of the batch.
    """

    def __init__(self, dataset: Any, transform: Callable):
        if not callable(transform):
            raise TypeError(f"transform must be callable, got {type(transform).__name__}")
        self.dataset, self.transform = dataset, transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple:
        return tuple(array[0] for array in self.__getitems__(np.array([index])))

    def __getitems__(self, indices: np.ndarray) -> tuple:
        """Return a whole batch (`DataLoader` asks for it)."""
        images, *others = _fetch(self.dataset, indices)
        if getattr(self.transform, "takes_targets", False):
            return self.transform(images, *others)
        return (self.transform(images), *others)


class Compose:
    """Several transforms, one after another; one that takes targets may only be the last."""

    def __init__(self, transforms: Sequence[Callable]):
        for transform in transforms:
            if not callable(transform):
                raise TypeError(f"transforms must be callable, got {type(transform).__name__}")
            if getattr(transform, "takes_targets", False) and transform is not transforms[-1]:
                raise ValueError(
                    f"transforms must end with {type(transform).__name__}, if with any"
                )
        self.transforms = list(transforms)

    @property
    def takes_targets(self) -> bool:
        """Whether the last transform changes the targets too."""
        return bool(self.transforms) and getattr(self.transforms[-1], "takes_targets", False)

    def __call__(self, images: Images, *targets: np.ndarray) -> Any:
        """Return the changed images, and the changed targets if the last transform takes them."""
        images = _images(images).copy()
        for transform in self.transforms[: -1 if self.takes_targets else None]:
            images = transform(images)
        return self.transforms[-1](images, *targets) if self.takes_targets else images


class _Transform:
    """What all have: their settings, their generator, and a check of the images."""

    def __init__(self, generator: np.random.Generator | None = None):
        self.generator = generator
        _generator(generator)

    def __call__(self, images: Images) -> Images:
        return self._changed(_images(images), _generator(self.generator))

    def __repr__(self) -> str:
        settings = (f"{k}={v!r}" for k, v in vars(self).items() if k != "generator")
        return f"{type(self).__name__}({', '.join(settings)})"


class RandomHorizontalFlip(_Transform):
    """Exchange left and right, with probability `p` for each image."""

    axis = -1

    def __init__(self, p: Number = 0.5, *, generator: np.random.Generator | None = None):
        super().__init__(generator)
        self.p = _validate.number("p", p, low=0, high=1)

    def _changed(self, images, rng):
        chosen = rng.random(len(images)) < self.p
        return np.where(_per_image(chosen, images), np.flip(images, self.axis), images)


class RandomVerticalFlip(RandomHorizontalFlip):
    """Exchange top and bottom, with probability `p` for each image."""

    axis = -2


class RandomCrop(_Transform):
    """Cut a window of `size` (an int or (h, w)) out of each image, at a random place.

    `padding` pixels are first added on every side, so that a crop of the old size is a shift;
    `padding_mode`: "constant" (with `fill`), "edge", "reflect" or "symmetric".
    """

    def __init__(
        self,
        size: int | Sequence[int],
        padding: int = 0,
        *,
        fill: Number = 0,
        padding_mode: str = "constant",
        generator: np.random.Generator | None = None,
    ):
        super().__init__(generator)
        size = (size, size) if isinstance(size, int | np.integer) else tuple(size)
        if len(size) != 2:
            raise ValueError(f"size must be an int or (h, w), got {size}")
        self.size = tuple(_validate.integer("size", side, low=1) for side in size)
        self.padding = _validate.integer("padding", padding, low=0)
        self.fill = _validate.number("fill", fill)
        self.padding_mode = _validate.one_of("padding_mode", padding_mode, PADDING)

    def _changed(self, images, rng):
        around = [(0, 0)] * (images.ndim - 2) + [(self.padding, self.padding)] * 2
        fill = {"constant_values": self.fill} if self.padding_mode == "constant" else {}
        padded = np.pad(images, around, self.padding_mode, **fill)
        room = [padded.shape[axis] - side for axis, side in zip((-2, -1), self.size, strict=True)]
        if min(room) < 0:
            raise ValueError(
                f"size must fit into the padded images of {padded.shape[-2:]}, got {self.size}"
            )
        top, left = (rng.integers(0, most + 1, len(images)) for most in room)
        rows = top[:, None] + np.arange(self.size[0])
        columns = left[:, None] + np.arange(self.size[1])
        cut = np.take_along_axis(padded, _along(rows, padded, -2), axis=-2)
        return np.take_along_axis(cut, _along(columns, cut, -1), axis=-1)


class RandomAffine(_Transform):
    """Turn, shift, scale and shear each image about its middle, by bilinear interpolation.

    degrees: angles in [-degrees, degrees], counter-clockwise. translate: (a, b), shifts of at most
    a of the width and b of the height. scale: (least, most). shear: degrees along x, in
    [-shear, shear]. What comes in from outside is `fill`.
    """

    def __init__(
        self,
        degrees: Number,
        translate: Pair | None = None,
        scale: Pair | None = None,
        shear: Number = 0,
        *,
        fill: Number = 0,
        generator: np.random.Generator | None = None,
    ):
        super().__init__(generator)
        self.degrees = _validate.number("degrees", degrees, low=0)
        self.translate = _pair("translate", translate or (0.0, 0.0), low=0, high=1)
        self.scale = _pair("scale", scale or (1.0, 1.0), low=1e-3)
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale must be (least, most), got {self.scale}")
        self.shear = _validate.number("shear", shear, low=0, high=89)
        self.fill = _validate.number("fill", fill)

    def _changed(self, images, rng):
        from scipy.ndimage import affine_transform

        n, (h, w) = len(images), images.shape[-2:]
        angle = np.radians(rng.uniform(-self.degrees, self.degrees, n))
        shear = np.tan(np.radians(rng.uniform(-self.shear, self.shear, n)))
        scale = rng.uniform(*self.scale, n)
        most = np.array([self.translate[1] * h, self.translate[0] * w])
        shift = rng.uniform(-most, most, (n, 2))
        middle = (np.array([h, w]) - 1) / 2
        result = np.empty_like(images)
        for image, changed, a, s, k, t in zip(
            images, result, angle, shear, scale, shift, strict=True
        ):
            # In (row, column), rows counted downwards: where a pixel of the result comes from.
            turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
            back = np.linalg.inv(k * turn @ np.array([[1.0, 0.0], [s, 1.0]]))
            planes = zip(image.reshape(-1, h, w), changed.reshape(-1, h, w), strict=True)
            for plane, target in planes:
                affine_transform(
                    plane, back, middle - back @ (middle + t), output=target, order=1,
                    mode="constant", cval=self.fill,
                )  # fmt: skip
        return result


class RandomRotation(RandomAffine):
    """Turn each image about its middle by an angle in [-degrees, degrees]."""

    def __init__(
        self,
        degrees: Number,
        *,
        fill: Number = 0,
        generator: np.random.Generator | None = None,
    ):
        super().__init__(degrees, fill=fill, generator=generator)


class GaussianNoise(_Transform):
    """Add normal noise of standard deviation `sigma`; `clip` keeps the pixels in [0, 1]."""

    def __init__(
        self,
        mean: Number = 0.0,
        sigma: Number = 0.1,
        clip: bool = True,
        *,
        generator: np.random.Generator | None = None,
    ):
        super().__init__(generator)
        self.mean = _validate.number("mean", mean)
        self.sigma = _validate.number("sigma", sigma, low=0)
        self.clip = bool(clip)

    def _changed(self, images, rng):
        noise = rng.standard_normal(images.shape, dtype=images.dtype)
        noisy = images + images.dtype.type(self.mean) + images.dtype.type(self.sigma) * noise
        return np.clip(noisy, 0, 1) if self.clip else noisy


class RandomErasing(_Transform):
    """Fill a random rectangle of each image with `value`, with probability `p`.

    scale: (least, most) share of the area; ratio: (least, most) of height over width. What would
    reach over the border is cut off (Zhong et al., 2020).
    """

    def __init__(
        self,
        p: Number = 0.5,
        scale: Pair = (0.02, 0.33),
        ratio: Pair = (0.3, 3.3),
        value: Number = 0,
        *,
        generator: np.random.Generator | None = None,
    ):
        super().__init__(generator)
        self.p = _validate.number("p", p, low=0, high=1)
        self.scale = _pair("scale", scale, low=0, high=1)
        self.ratio = _pair("ratio", ratio, low=1e-3)
        self.value = _validate.number("value", value)

    def _changed(self, images, rng):
        n, (h, w) = len(images), images.shape[-2:]
        area = h * w * rng.uniform(*self.scale, n)
        ratio = np.exp(rng.uniform(*np.log(self.ratio), n))
        sides = np.stack([np.sqrt(area * ratio), np.sqrt(area / ratio)], axis=1)
        inside = _rectangles(sides, (h, w), rng) & (rng.random(n) < self.p)[:, None, None]
        inside = inside.reshape(n, *[1] * (images.ndim - 3), h, w)
        return np.where(inside, images.dtype.type(self.value), images)


class ColorJitter(_Transform):
    """Change brightness and contrast of each image by factors in [1 - x, 1 + x]; pixels in [0, 1].

    Brightness multiplies the pixels; contrast multiplies their distance from the image's mean.
    """

    def __init__(
        self,
        brightness: Number = 0,
        contrast: Number = 0,
        *,
        generator: np.random.Generator | None = None,
    ):
        super().__init__(generator)
        self.brightness = _validate.number("brightness", brightness, low=0, high=1)
        self.contrast = _validate.number("contrast", contrast, low=0, high=1)

    def _changed(self, images, rng):
        bright, contrast = (
            _per_image(rng.uniform(1 - x, 1 + x, len(images)).astype(images.dtype), images)
            for x in (self.brightness, self.contrast)
        )
        brighter = np.clip(images * bright, 0, 1)
        mean = brighter.mean(axis=tuple(range(1, images.ndim)), keepdims=True)
        return np.clip(mean + contrast * (brighter - mean), 0, 1)


class MixUp(_Transform):
    """Blend each image, and its target, with another of the batch (Zhang et al., 2018).

    x := λ x + (1 - λ) x', with one λ ~ Beta(alpha, alpha) for the batch, and the same for the
    one-hot targets. Called with images and class indices (n,), it returns images and
    probabilities (n, num_classes), which `nn.CrossEntropyLoss` takes.
    """

    takes_targets = True

    def __init__(
        self,
        num_classes: int,
        alpha: Number = 1.0,
        *,
        generator: np.random.Generator | None = None,
    ):
        super().__init__(generator)
        self.num_classes = _validate.integer("num_classes", num_classes, low=1)
        self.alpha = _validate.number("alpha", alpha, low=1e-6)

    def __call__(
        self, images: Images, target: Int64[np.ndarray, " n"]
    ) -> tuple[Images, Float[np.ndarray, "n classes"]]:
        """Return blended images and the probabilities that go with them."""
        images = _images(images)
        _validate.labels("target", target, classes=self.num_classes, shape=(len(images),))
        rng = _generator(self.generator)
        one_hot = np.eye(self.num_classes, dtype=images.dtype)[target]
        share, partner = rng.beta(self.alpha, self.alpha), rng.permutation(len(images))
        images, share = self._blend(images, images[partner], share, rng)
        share = images.dtype.type(share)
        return images, share * one_hot + (1 - share) * one_hot[partner]

    def _blend(self, images, others, share, rng):
        share = images.dtype.type(share)
        return share * images + (1 - share) * others, share


class CutMix(MixUp):
    """Replace a rectangle of each image by that of another, and the target by as much.

    The rectangle covers 1 - λ of the area, λ ~ Beta(alpha, alpha), less where it is cut off at the
    border; the targets are blended by the area that is left (Yun et al., 2019).
    """

    def _blend(self, images, others, share, rng):
        h, w = images.shape[-2:]
        sides = math.sqrt(1 - share) * np.array([[h, w]])
        inside = _rectangles(sides, (h, w), rng)[0]
        return np.where(inside, others, images), 1 - inside.mean()


def _rectangles(sides, size, rng):
    """Return masks (n, h, w) of rectangles with these sides about random middles."""
    middles = rng.uniform(0, 1, sides.shape) * size
    low, high = np.rint(middles - sides / 2), np.rint(middles + sides / 2)
    rows, columns = (
        (np.arange(size[i]) >= low[:, i, None]) & (np.arange(size[i]) < high[:, i, None])
        for i in (0, 1)
    )
    return rows[:, :, None] & columns[:, None, :]


def _images(images: Any) -> np.ndarray:
    images = _validate.floats("images", images)
    if images.ndim not in (3, 4):
        raise ValueError(f"images must have shape (n, h, w) or (n, c, h, w), got {images.shape}")
    return images


def _per_image(values: np.ndarray, images: np.ndarray) -> np.ndarray:
    return values.reshape(-1, *[1] * (images.ndim - 1))


def _along(index: np.ndarray, images: np.ndarray, axis: int) -> np.ndarray:
    """Return (n, k) indices shaped for `take_along_axis` of images along an axis."""
    shape = [1] * images.ndim
    shape[0], shape[axis] = index.shape
    return index.reshape(shape)


def _pair(name, value, *, low, high=None) -> tuple[float, float]:
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise ValueError(f"{name} must be two numbers, got {value!r}")
    return tuple(_validate.number(name, entry, low=low, high=high) for entry in value)
