"""Convolution layers; the functions themselves are in `dlnotes.kernels.conv`.

Arguments of all: in_channels and out_channels, at least 1; kernel_size, stride, padding and
dilation, one number or one for each spatial axis; groups, which divides both numbers of channels;
bias=False leaves the bias (out_channels,) out. padding may be "valid" (none) or, at stride 1,
"same". Weight and bias are drawn as in torch, uniformly between ±1/√fan_in, fan_in =
weight.shape[1] times the entries of a kernel. Inputs may come without n.

padding_mode, of the convolutions that are not transposed, says what the padding holds: "zeros",
"reflect", "replicate" or "circular" (see `kernels.pad`). The transposed ones have none: torch's
takes "zeros" alone. As in all layers, there is no `device`.
"""

import math

import numpy as np

from dlnotes import _validate
from dlnotes.autograd import Tensor
from dlnotes.kernels import _windows
from dlnotes.kernels._windows import Size
from dlnotes.nn import functional as F
from dlnotes.nn import init
from dlnotes.nn.module import Module, Parameter

Int = int | np.integer


class _Conv(Module):
    """What all convolutions share: settings, weights drawn as in torch, repr.

    Weight and bias are drawn uniformly between ±1/√fan_in, fan_in = weight.shape[1] · kernel.
    """

    axes = 2
    transposed = False

    def __init__(
        self, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, dtype
    ):
        super().__init__()
        self.in_channels = _validate.integer("in_channels", in_channels, low=1)
        self.out_channels = _validate.integer("out_channels", out_channels, low=1)
        self.kernel_size = _windows.sizes("kernel_size", kernel_size, self.axes, low=1)
        self.stride = _windows.sizes("stride", stride, self.axes, low=1)
        if isinstance(padding, str):
            self.padding = _validate.one_of("padding", padding, ["same", "valid"])
            if padding == "same" and any(s != 1 for s in self.stride):
                raise ValueError(f'padding="same" needs stride 1, got stride {self.stride}')
        else:
            self.padding = _windows.sizes("padding", padding, self.axes, low=0)
        self.dilation = _windows.sizes("dilation", dilation, self.axes, low=1)
        self.groups = _validate.integer("groups", groups, low=1)
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % self.groups:
                raise ValueError(f"groups must divide {name}, got {groups} for {channels}")
        first, second = self.out_channels, self.in_channels // self.groups
        if self.transposed:
            first, second = self.in_channels, self.out_channels // self.groups
        self.weight = Parameter(np.empty((first, second, *self.kernel_size), dtype))
        self.register_parameter("bias", None)
        if bias:
            self.bias = Parameter(np.empty(self.out_channels, dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # bound 1/√fan_in
        if self.bias is not None:
            bound = 1 / math.sqrt(math.prod(self.weight.shape[1:]))
            init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        """Return the sizes, and the settings that are not the default."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        text += f", stride={self.stride}"
        ones, zeros = (1,) * self.axes, (0,) * self.axes
        if self.padding != zeros:
            text += f", padding={self.padding}"
        if self.dilation != ones:
            text += f", dilation={self.dilation}"
        if getattr(self, "output_padding", zeros) != zeros:
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        text = text if self.bias is not None else text + ", bias=False"
        mode = getattr(self, "padding_mode", "zeros")
        return text if mode == "zeros" else f"{text}, padding_mode={mode}"


class _ForwardConv(_Conv):
    def __init__(
        self,
        in_channels: Int,
        out_channels: Int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: Int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        dtype=np.float32,
    ):
        sizes = (in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
        super().__init__(*sizes, bias, dtype)
        modes = ["zeros", "reflect", "replicate", "circular"]
        self.padding_mode = _validate.one_of("padding_mode", padding_mode, modes)

    def forward(self, input) -> Tensor:
        """Return the convolution."""
        function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[self.axes]
        padding = self.padding
        if self.padding_mode != "zeros":
            input, padding = F.pad(input, self._pads(), self.padding_mode), 0
        settings = (self.stride, padding, self.dilation, self.groups)
        return function(input, self.weight, self.bias, *settings)

    def _pads(self) -> list[int]:
        """Return the padding as `F.pad` takes it, the last axis first."""
        if self.padding == "same":
            pairs = _windows.same_padding(self.kernel_size, self.dilation)
        else:
            each = (0,) * self.axes if self.padding == "valid" else self.padding
            pairs = [(p, p) for p in each]
        return [p for pair in reversed(pairs) for p in pair]


class Conv1d(_ForwardConv):
    """Sequences (n, in, length) → (n, out, length_out); weight (out, in / groups, k).

    length_out = ⌊(length + 2 padding - dilation (k - 1) - 1) / stride⌋ + 1. (Over time: Waibel et
    al., 1989.)
    """

    axes = 1


class Conv2d(_ForwardConv):
    """Images (n, in, h, w) → (n, out, h_out, w_out); weight (out, in / groups, kh, kw).

    h_out = ⌊(h + 2 padding - dilation (kh - 1) - 1) / stride⌋ + 1, w_out likewise (LeCun et al.,
    1989).
    """

    axes = 2


class Conv3d(_ForwardConv):
    """Volumes (n, in, d, h, w) → (n, out, …); weight (out, in / groups, kd, kh, kw).

    Each axis of the output as in `Conv2d`. (Videos: Ji, Xu, Yang and Yu, 2013.)
    """

    axes = 3


class _TransposedConv(_Conv):
    transposed = True

    def __init__(
        self,
        in_channels: Int,
        out_channels: Int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: Int = 1,
        bias: bool = True,
        dilation: Size = 1,
        *,
        dtype=np.float32,
    ):
        if isinstance(padding, str):
            raise TypeError(f"padding must be an int or ints, got {padding!r}")
        sizes = (in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
        super().__init__(*sizes, bias, dtype)
        self.output_padding = _windows.sizes("output_padding", output_padding, self.axes, low=0)

    def forward(self, input) -> Tensor:
        """Return the transposed convolution."""
        function = {1: F.conv_transpose1d, 2: F.conv_transpose2d}[self.axes]
        settings = (self.stride, self.padding, self.output_padding, self.groups, self.dilation)
        return function(input, self.weight, self.bias, *settings)


class ConvTranspose1d(_TransposedConv):
    """Sequences (n, in, length) → (n, out, length_out); weight (in, out / groups, k).

    length_out = (length - 1) stride - 2 padding + dilation (k - 1) + 1 + output_padding, which must
    be below stride or dilation; padding takes no words. (Zeiler et al., 2010.)
    """

    axes = 1


class ConvTranspose2d(_TransposedConv):
    """Images (n, in, h, w) → (n, out, h_out, w_out); weight (in, out / groups, kh, kw).

    h_out = (h - 1) stride - 2 padding + dilation (kh - 1) + 1 + output_padding, w_out likewise,
    with output_padding below stride or dilation; padding takes no words. (Zeiler et al., 2010;
    Dumoulin and Visin, 2016.)
    """

    axes = 2


class Unfold(Module):
    """Each window of an image as a column: (n, c, h, w) → (n, c · kh · kw, windows).

    kernel_size, dilation, padding and stride as in `Conv2d`; they are checked when it runs.
    (Chellapilla et al., 2006, im2col.)
    """

    def __init__(self, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1):
        super().__init__()
        self.kernel_size, self.dilation = kernel_size, dilation
        self.padding, self.stride = padding, stride

    def forward(self, input) -> Tensor:
        """Return the columns."""
        return F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        """Return the settings."""
        return (
            f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, "
            f"stride={self.stride}"
        )


class Fold(Module):
    """Images from columns, overlapping windows adding up: (n, c · kh · kw, windows) → images.

    The images are (n, c, *output_size); the other settings are those of the `Unfold` that made the
    columns. They are checked when it runs.
    """

    def __init__(
        self,
        output_size: Size,
        kernel_size: Size,
        dilation: Size = 1,
        padding: Size = 0,
        stride: Size = 1,
    ):
        super().__init__()
        self.output_size, self.kernel_size, self.dilation = output_size, kernel_size, dilation
        self.padding, self.stride = padding, stride

    def forward(self, input) -> Tensor:
        """Return the images."""
        settings = (self.kernel_size, self.dilation, self.padding, self.stride)
        return F.fold(input, self.output_size, *settings)

    def extra_repr(self) -> str:
        """Return the settings."""
        return (
            f"output_size={self.output_size}, kernel_size={self.kernel_size}, "
            f"dilation={self.dilation}, padding={self.padding}, stride={self.stride}"
        )
