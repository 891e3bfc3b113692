"""Padding and resizing as layers; the functions are in `dlnotes.kernels.pad` and `resize`."""

import numpy as np

from dlnotes import _validate
from dlnotes._validate import Number
from dlnotes.autograd import Tensor
from dlnotes.kernels._windows import Size
from dlnotes.nn import functional as F
from dlnotes.nn.module import Module

Pads = int | np.integer | tuple[int, ...] | list[int]


class _Pad(Module):
    """(n, c, …) with `padding` entries around: one int, or (left, right[, top, bottom])."""

    axes, mode = 2, "constant"

    def __init__(self, padding: Pads):
        super().__init__()
        pads = padding if isinstance(padding, tuple | list) else (padding,) * (2 * self.axes)
        self.padding = tuple(_validate.integer("padding", entry) for entry in pads)
        if len(self.padding) != 2 * self.axes:
            raise ValueError(f"padding must be an int or {2 * self.axes} ints, got {padding}")

    def forward(self, input) -> Tensor:
        """Return the padded input."""
        input = input if isinstance(input, Tensor) else Tensor(input)
        if input.ndim not in (self.axes + 1, self.axes + 2):
            allowed = f"{self.axes + 1} or {self.axes + 2}"
            raise ValueError(f"input must have {allowed} axes, got shape {input.shape}")
        return F.pad(input, self.padding, self.mode, getattr(self, "value", None))

    def extra_repr(self) -> str:
        """Return the padding."""
        return str(self.padding)


class _ConstantPad(_Pad):
    def __init__(self, padding: Pads, value: Number):
        super().__init__(padding)
        self.value = value

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """Sequences with entries of `value` on both sides."""

    axes = 1


class ConstantPad2d(_ConstantPad):
    """Images in a frame of `value`."""


class _ZeroPad(_Pad):
    value = 0.0


class ZeroPad1d(_ZeroPad):
    """Sequences with zeros on both sides."""

    axes = 1


class ZeroPad2d(_ZeroPad):
    """Images in a frame of zeros."""


class ReflectionPad1d(_Pad):
    """Sequences mirrored at both ends, which are not repeated."""

    axes, mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    """Images mirrored at their edges, which are not repeated; no seam, as frames of zeros make."""

    mode = "reflect"


class ReplicationPad1d(_Pad):
    """Sequences with their ends repeated."""

    axes, mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    """Images with their edges repeated."""

    mode = "replicate"


class CircularPad1d(_Pad):
    """Sequences that go on at their other end."""

    axes, mode = 1, "circular"


class CircularPad2d(_Pad):
    """Images that go on at their other side."""

    mode = "circular"


class Upsample(Module):
    """Resize (n, c, length) or (n, c, h, w) to `size` or by `scale_factor`.

    mode: "nearest", "nearest-exact", "linear" or "bilinear"; see `kernels.interpolate`. Before a
    convolution it takes the place of a transposed one, which leaves a checkerboard where its
    kernel is no multiple of its stride (Odena, Dumoulin and Olah, 2016).
    """

    def __init__(
        self,
        size: Size | None = None,
        scale_factor: Number | tuple[Number, ...] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ):
        super().__init__()
        self.size, self.mode, self.align_corners = size, mode, align_corners
        many = isinstance(scale_factor, tuple | list)
        self.scale_factor = None
        if scale_factor is not None:
            self.scale_factor = tuple(map(float, scale_factor)) if many else float(scale_factor)
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input) -> Tensor:
        """Return the resized input."""
        settings = (self.mode, self.align_corners, self.recompute_scale_factor)
        return F.interpolate(input, self.size, self.scale_factor, *settings)

    def extra_repr(self) -> str:
        """Return the settings."""
        given = {"scale_factor": self.scale_factor, "size": self.size}
        name = "size" if self.scale_factor is None else "scale_factor"
        return f"{name}={given[name]}, mode={self.mode!r}"
