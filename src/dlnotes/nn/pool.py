"""Pooling layers; the functions themselves are in `dlnotes.kernels.pool`.

Arguments of all that have them: kernel_size; stride (None: as kernel_size); padding, at most half a
window; dilation; each one number or one for each spatial axis. ceil_mode=True adds a last window
that reaches past the end, return_indices=True also returns positions, count_include_pad says
whether zeros of the padding count in an average, divisor_override (at least 1) replaces the number
that it divides by. A length l becomes ⌊(l + 2 padding - dilation (k - 1) - 1) / stride⌋ + 1. No
layer here has parameters; inputs may come without n.
"""

import numpy as np

from dlnotes._validate import Number
from dlnotes.autograd import Tensor
from dlnotes.kernels import _windows
from dlnotes.kernels._windows import Size
from dlnotes.nn import functional as F
from dlnotes.nn.module import Module


class _MaxPool(Module):
    axes = 2

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ):
        super().__init__()
        self.kernel_size = _as_given("kernel_size", kernel_size, self.axes, low=1)
        self.stride = _stride(stride, self.kernel_size, self.axes)
        self.padding = _as_given("padding", padding, self.axes, low=0)
        self.dilation = _as_given("dilation", dilation, self.axes, low=1)
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, input) -> Tensor | tuple[Tensor, Tensor]:
        """Return the largest entries (and with return_indices their positions)."""
        function = {1: F.max_pool1d, 2: F.max_pool2d}[self.axes]
        settings = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        return function(input, *settings, self.return_indices)

    def extra_repr(self) -> str:
        """Return the settings."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """The largest entry of each window of sequences: (n, c, length) → (n, c, length_out)."""

    axes = 1


class MaxPool2d(_MaxPool):
    """The largest entry of each window of images: (n, c, h, w) → (n, c, h_out, w_out).

    (Weng, Ahuja and Huang, 1992.)
    """

    axes = 2


class MaxUnpool2d(Module):
    """The reverse of MaxPool2d(return_indices=True): zeros but for the entries at `indices`.

    Input and indices (n, c, h, w) → (n, c, h_out, w_out), by default h_out = (h - 1) stride - 2
    padding + kernel_size, w_out likewise (Zeiler and Fergus, 2014).
    """

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0):
        super().__init__()
        self.kernel_size = _windows.sizes("kernel_size", kernel_size, 2, low=1)
        self.stride = self.kernel_size
        if stride is not None:
            self.stride = _windows.sizes("stride", stride, 2, low=1)
        self.padding = _windows.sizes("padding", padding, 2, low=0)

    def forward(self, input, indices, output_size=None) -> Tensor:
        """Return the larger images."""
        settings = (self.kernel_size, self.stride, self.padding)
        return F.max_unpool2d(input, indices, *settings, output_size)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(Module):
    """The mean of each window of sequences: (n, c, length) → (n, c, length_out)."""

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ):
        super().__init__()
        self.kernel_size = _windows.sizes("kernel_size", kernel_size, 1, low=1)
        self.stride = self.kernel_size
        if stride is not None:
            self.stride = _windows.sizes("stride", stride, 1, low=1)
        self.padding = _windows.sizes("padding", padding, 1, low=0)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, input) -> Tensor:
        """Return the means."""
        settings = (self.kernel_size, self.stride, self.padding)
        return F.avg_pool1d(input, *settings, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(Module):
    """The mean of each window of images: (n, c, h, w) → (n, c, h_out, w_out)."""

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | np.integer | None = None,
    ):
        super().__init__()
        self.kernel_size = _as_given("kernel_size", kernel_size, 2, low=1)
        self.stride = _stride(stride, self.kernel_size, 2)
        self.padding = _as_given("padding", padding, 2, low=0)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input) -> Tensor:
        """Return the means."""
        settings = (self.kernel_size, self.stride, self.padding, self.ceil_mode)
        return F.avg_pool2d(input, *settings, self.count_include_pad, self.divisor_override)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AdaptiveAvgPool(Module):
    axes = 2

    def __init__(self, output_size: int | np.integer | tuple[int | None, ...] | list[int | None]):
        super().__init__()
        self.output_size = output_size

    def forward(self, input) -> Tensor:
        """Return the means."""
        function = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d}[self.axes]
        return function(input, self.output_size)

    def extra_repr(self) -> str:
        """Return the size of the output."""
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Means over `output_size` stretches of sequences; with 1, the global average.

    (n, c, length) → (n, c, output_size). output_size is checked when it runs.
    """

    axes = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Means over `output_size` rectangles of images; with 1, global average pooling.

    (n, c, h, w) → (n, c, *output_size), a number for both or a pair, in which None keeps a side as
    it is; it is checked when it runs. (Lin et al., 2014.)
    """

    axes = 2


class _LPPool(Module):
    axes = 2

    def __init__(
        self,
        norm_type: Number,
        kernel_size: Size,
        stride: Size | None = None,
        ceil_mode: bool = False,
    ):
        super().__init__()
        self.norm_type = norm_type
        self.kernel_size = _as_given("kernel_size", kernel_size, self.axes, low=1)
        self.stride = None if stride is None else _stride(stride, stride, self.axes)
        self.ceil_mode = ceil_mode

    def forward(self, input) -> Tensor:
        """Return the norms."""
        function = {1: F.lp_pool1d, 2: F.lp_pool2d}[self.axes]
        return function(input, self.norm_type, self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        """Return the settings."""
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class LPPool1d(_LPPool):
    """The p-norm of each window, p = norm_type: (n, c, length) → (n, c, length_out)."""

    axes = 1


class LPPool2d(_LPPool):
    """The p-norm of each window of images, p = norm_type: (n, c, h, w) → (n, c, h_out, w_out).

    As in torch without an absolute value: p should be even where inputs may be negative (Sermanet,
    Chintala and LeCun, 2012).
    """

    axes = 2


def _as_given(name: str, value, count: int, *, low: int):
    """Check a size, and return it in the form that it was given in, which repr shows."""
    _windows.sizes(name, value, count, low=low)
    return value


def _stride(stride, kernel_size, count: int):
    return kernel_size if stride is None else _as_given("stride", stride, count, low=1)
