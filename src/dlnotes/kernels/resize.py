"""Resizing: sequences (n, channels, length) and images (n, channels, h, w) at another size.

`interpolate` has the name, the arguments and the values of torch.nn.functional's, in the modes
"nearest", "nearest-exact", "linear" (of sequences) and "bilinear" (of images); without
antialiasing. Entries are counted from their centres: of an axis of length s at position i, the
centre lies at (i + ½) / s of its length. TypeError for an array that is not float32 or float64 and
for settings of a wrong type, ValueError for shapes, sizes and modes that do not go together. Cost
O(size of the output) for each axis.
"""

import math

import numpy as np
from jaxtyping import Float

from dlnotes import _validate
from dlnotes._validate import Number
from dlnotes.kernels import _windows
from dlnotes.kernels._windows import Size

NEAREST = ("nearest", "nearest-exact")
LINEAR = {3: "linear", 4: "bilinear"}
Factor = Number | tuple[Number, ...] | list[Number]


def interpolate(
    x: Float[np.ndarray, "n c *size"],
    size: Size | None = None,
    scale_factor: Factor | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
) -> Float[np.ndarray, "n c *out"]:
    """Return x resized to `size`, or by `scale_factor` (⌊length · factor⌋): give one of the two.

    An entry of the output at i lies at s = (i + ½) · length / out - ½ in the input; "linear" and
    "bilinear" mix the two entries on either side of s, an axis at a time, "nearest-exact" takes
    the one nearest to s, and "nearest" entry ⌊i · length / out⌋, half an entry off, as torch and
    OpenCV do. align_corners=True, for the linear modes, lets the first and last entries of input
    and output coincide: s = i · (length - 1) / (out - 1). Positions follow from a scale_factor as
    given, or with recompute_scale_factor=True from the sizes.
    """
    x, axes = _check(x, size, scale_factor, mode, align_corners, recompute_scale_factor)
    for axis, places in enumerate(axes, start=2):
        low, high, share = places
        y = x.take(low, axis)
        if share is not None:
            share = _along(share, axis, x.ndim)
            y = y * (1 - share) + x.take(high, axis) * share
        x = y
    return x


def interpolate_backward(
    dy: Float[np.ndarray, "n c *out"],
    x: Float[np.ndarray, "n c *size"],
    size: Size | None = None,
    scale_factor: Factor | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
) -> Float[np.ndarray, "n c *size"]:
    """Return dx: each entry of dy is shared by the entries it was mixed from, by their shares."""
    x, axes = _check(x, size, scale_factor, mode, align_corners, recompute_scale_factor)
    dy = _validate.floats("dy", dy)
    _validate.same_dtype(dy=dy, x=x)
    shape = (*x.shape[:2], *(len(low) for low, _, _ in axes))
    _validate.has_shape("dy", dy, shape, "the shape of the output")
    for axis, (low, high, share) in enumerate(axes, start=2):
        dx = np.zeros((*dy.shape[:axis], x.shape[axis], *dy.shape[axis + 1 :]), x.dtype)
        before = (slice(None),) * axis
        for i in range(len(low)):  # neighbours in the output may come from one entry
            entry = dy[*before, i]
            if share is None:
                dx[*before, low[i]] += entry
            else:
                dx[*before, low[i]] += entry * (1 - share[i])
                dx[*before, high[i]] += entry * share[i]
        dy = dx
    return dy


def _places(length, out, factor, mode, align_corners, dtype):
    """Return, for each entry of the output, those below and above it and the share of the second.

    The share is None where one entry is taken. Rounding is that of torch: positions of "nearest"
    are float32 whatever the dtype.
    """
    i = np.arange(out)
    if mode in NEAREST:
        step = np.float32(length / out if factor is None else 1 / factor)
        middle = np.float32(0.5 if mode == "nearest-exact" else 0)
        low = np.minimum(np.floor((i.astype(np.float32) + middle) * step), length - 1)
        return low.astype(np.int64), None, None
    if out == length:  # as in torch, whatever the factor
        return i, i, np.zeros(out, dtype)
    i = i.astype(dtype)
    if align_corners:
        places = i * dtype.type((length - 1) / (out - 1) if out > 1 else 0)
    else:
        step = dtype.type(length / out if factor is None else 1 / factor)
        half = dtype.type(0.5)
        places = np.maximum((i + half) * step - half, 0)
    low = np.minimum(places.astype(np.int64), length - 1)
    share = np.clip(places - low.astype(dtype), 0, 1)
    return low, np.minimum(low + 1, length - 1), share


def _along(values, axis, ndim):
    """Return a vector with the axes that let it broadcast along `axis`."""
    return values.reshape(-1, *[1] * (ndim - axis - 1))


def _check(x, size, scale_factor, mode, align_corners, recompute_scale_factor):
    """Return x and, for each axis that is resized, its `_places`."""
    x = _validate.floats("x", x)
    if x.ndim not in LINEAR:
        raise ValueError(f"x must have 3 or 4 axes, got shape {x.shape}")
    _validate.one_of("mode", mode, [*NEAREST, *LINEAR.values()])
    if mode not in (*NEAREST, LINEAR[x.ndim]):
        raise ValueError(
            f"mode must be {LINEAR[x.ndim]!r} or a nearest one for {x.ndim} axes, got {mode!r}"
        )
    settings = {"align_corners": align_corners, "recompute_scale_factor": recompute_scale_factor}
    for name, value in settings.items():
        if value is not None and not isinstance(value, bool):
            raise TypeError(f"{name} must be True, False or None, got {type(value).__name__}")
    if mode in NEAREST and align_corners is not None:
        raise ValueError(f"align_corners must be None for mode={mode!r}: it is for linear modes")
    if (size is None) == (scale_factor is None):
        raise ValueError(
            f"size or scale_factor must be given, not both, got {size} and {scale_factor}"
        )
    if recompute_scale_factor and size is not None:
        raise ValueError("recompute_scale_factor=True needs scale_factor, got size")
    axes = x.ndim - 2
    if min(x.shape[2:]) < 1:
        raise ValueError(f"x must have entries to resize, got shape {x.shape}")
    if scale_factor is None:
        out, factors = _windows.sizes("size", size, axes, low=1), [None] * axes
    else:
        factors = scale_factor if isinstance(scale_factor, tuple | list) else [scale_factor] * axes
        factors = [_validate.number("scale_factor", factor) for factor in factors]
        if len(factors) != axes or min(factors) <= 0:
            raise ValueError(
                f"scale_factor must be a positive number or {axes} of them, got {scale_factor}"
            )
        out = [math.floor(n * f) for n, f in zip(x.shape[2:], factors, strict=True)]
        if min(out) < 1:
            raise ValueError(f"scale_factor leaves no output: its size would be {tuple(out)}")
        factors = [None] * axes if recompute_scale_factor else factors
    places = zip(x.shape[2:], out, factors, strict=True)
    return x, [_places(*one, mode, align_corners, x.dtype) for one in places]
