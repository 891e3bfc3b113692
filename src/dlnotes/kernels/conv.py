"""Convolution and transposed convolution, and unfold and fold (im2col, col2im), as in torch.

What networks call convolution is cross-correlation: y[o] = Σ x[o · stride + i · dilation - padding]
· weight[i], summed over the offsets i of the kernel and over the channels. It stands here three
times: `conv2d_loops` is the formula; `conv2d_unfold` lays the windows out as the columns of a
matrix (im2col), so that the sum becomes one matrix product; `conv2d` is the same matrix product
with columns that are cheap to lay out (see `_Planes`). The gradients need no new idea: the one of
the input adds columns back (col2im), the one of the weight is a matrix product with the columns.
Transposed convolution is the gradient of convolution with respect to its input.

Shapes: x (n, channels, *size), weight (out channels, channels / groups, *kernel), bias
(out channels,). Inputs without the batch axis are for `nn.functional`. `stride`, `padding`
and `dilation` are one number or one for each spatial axis; padding is by zeros and may be "valid"
(none) or, at stride 1, "same" (the output is as large as the input). With groups > 1, each group
of output channels sees its own group of input channels only.

Cost: 2 · n · out channels · channels / groups · kernel · output size operations forward, twice
that backward; besides the result about 2 MiB of work memory, whatever the batch.

Backward functions compute the gradients of x, weight and bias that `output_mask` says True for;
the others are None, and so is the bias' where there is none.

In each: TypeError for arrays that are not float32 or float64 or differ in dtype, ValueError for
shapes that do not fit or a setting out of range.

Accuracy: results and gradients are off by a few roundings of the largest entry, about 5e-7 of it in
float32 and 1e-15 in float64. float32 images with 3×3 kernels, stride 1 and 32 channels or more on
both sides take a faster way (Winograd's), off by about 5e-6 of the largest entry (1.3e-5 at worst
where it was measured); but not where an entry is NaN, infinite, or more than 256 times as large as
the mean size of the entries of its sample or filter. An infinity or NaN in x may show in more
entries of the weight's gradient than in exact arithmetic.
"""

import itertools
import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from dlnotes import _validate
from dlnotes._validate import Mask
from dlnotes.kernels import _windows, _winograd
from dlnotes.kernels._windows import Size, Windows, inside

Int = int | np.integer

_COLUMN_BYTES = 2**20  # work memory for columns: it should stay in the second-level cache
_MIN_COLUMNS = 128  # fewer would leave the matrix product nothing to work on
_SMALL_PRODUCT = 10**6  # multiplications up to which OpenBLAS does not repack its matrices first,
_MANY_COLUMNS = 2048  # three times as fast for few rows, but not for few columns at a time
_MOST_WRAPPED = 1.5  # all window positions per window proper, up to which wrapping is cheaper


# ---- convolution -----------------------------------------------------------------------------


def conv1d(
    x: Float[np.ndarray, "n c_in length"],
    weight: Float[np.ndarray, "c_out c_group k"],
    bias: Float[np.ndarray, " c_out"] | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: Int = 1,
) -> Float[np.ndarray, "n c_out out"]:
    """Return the convolution of sequences (n, channels, length) with kernels (out, channels, k)."""
    return _conv(x, weight, bias, stride, padding, dilation, groups, axes=1)


def conv2d(
    x: Float[np.ndarray, "n c_in h w"],
    weight: Float[np.ndarray, "c_out c_group kh kw"],
    bias: Float[np.ndarray, " c_out"] | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: Int = 1,
) -> Float[np.ndarray, "n c_out h_out w_out"]:
    """Return the convolution of images (n, channels, h, w) with kernels (out, channels, kh, kw).

    The output has ⌊(h + 2 padding - dilation (kh - 1) - 1) / stride⌋ + 1 rows, columns likewise
    (LeCun et al., 1989; as a matrix product: Chellapilla et al., 2006). float32 results with 3×3
    kernels at stride 1 and 32 channels or more are off by about 5e-6 of the largest (Winograd's
    method: Lavin and Gray, 2016), others by 5e-7.
    """
    return _conv(x, weight, bias, stride, padding, dilation, groups, axes=2)


def conv3d(
    x: Float[np.ndarray, "n c_in d h w"],
    weight: Float[np.ndarray, "c_out c_group kd kh kw"],
    bias: Float[np.ndarray, " c_out"] | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: Int = 1,
) -> Float[np.ndarray, "n c_out d_out h_out w_out"]:
    """Return the convolution of volumes (n, channels, d, h, w) with kernels of three axes."""
    return _conv(x, weight, bias, stride, padding, dilation, groups, axes=3)


def conv2d_loops(
    x: Float[np.ndarray, "n c_in h w"],
    weight: Float[np.ndarray, "c_out c_group kh kw"],
    bias: Float[np.ndarray, " c_out"] | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: Int = 1,
) -> Float[np.ndarray, "n c_out h_out w_out"]:
    """Return what `conv2d` returns, one product at a time: the formula, and the tests' oracle."""
    x, weight, bias, g = _check(x, weight, bias, stride, padding, dilation, groups, axes=2)
    outs, channels, kh, kw = weight.shape  # channels of one group
    y = np.zeros((len(x), outs, *g.out), x.dtype)
    for n, o, row, column in np.ndindex(y.shape):
        first = o // (outs // groups) * channels  # the first input channel of o's group
        for c, i, j in np.ndindex(channels, kh, kw):
            r = row * g.stride[0] + i * g.dilation[0] - g.padding[0]
            s = column * g.stride[1] + j * g.dilation[1] - g.padding[1]
            if 0 <= r < g.size[0] and 0 <= s < g.size[1]:  # outside there are zeros
                y[n, o, row, column] += x[n, first + c, r, s] * weight[o, c, i, j]
        if bias is not None:
            y[n, o, row, column] += bias[o]
    return y


def conv2d_unfold(
    x: Float[np.ndarray, "n c_in h w"],
    weight: Float[np.ndarray, "c_out c_group kh kw"],
    bias: Float[np.ndarray, " c_out"] | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: Int = 1,
) -> Float[np.ndarray, "n c_out h_out w_out"]:
    """Return what `conv2d` returns, as a product of the weight with all windows as columns."""
    x, weight, bias, g = _check(x, weight, bias, stride, padding, dilation, groups, axes=2)
    columns = _columns(x, g)  # (channels · kh · kw, n · windows)
    y = _rows(weight, groups) @ columns.reshape(groups, len(columns) // groups, columns.shape[1])
    y = y.reshape(len(weight), len(x), *g.out).swapaxes(0, 1)
    return np.ascontiguousarray(y) if bias is None else y + bias[:, None, None]


def conv1d_backward(
    dy: Float[np.ndarray, "n c_out out"],
    x: Float[np.ndarray, "n c_in length"],
    weight: Float[np.ndarray, "c_out c_group k"],
    bias: Float[np.ndarray, " c_out"] | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: Int = 1,
    *,
    output_mask: Mask = (True, True, True),
) -> tuple[
    Float[np.ndarray, "n c_in length"] | None,
    Float[np.ndarray, "c_out c_group k"] | None,
    Float[np.ndarray, " c_out"] | None,
]:
    """Return (dx, dweight, dbias) of `conv1d`; those not wanted are None."""
    return _conv_backward(
        dy, x, weight, bias, stride, padding, dilation, groups, output_mask, axes=1
    )


def conv2d_backward(
    dy: Float[np.ndarray, "n c_out h_out w_out"],
    x: Float[np.ndarray, "n c_in h w"],
    weight: Float[np.ndarray, "c_out c_group kh kw"],
    bias: Float[np.ndarray, " c_out"] | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: Int = 1,
    *,
    output_mask: Mask = (True, True, True),
) -> tuple[
    Float[np.ndarray, "n c_in h w"] | None,
    Float[np.ndarray, "c_out c_group kh kw"] | None,
    Float[np.ndarray, " c_out"] | None,
]:
    """Return (dx, dweight, dbias) of `conv2d`; those not wanted are None.

    With the windows as columns, y = weight · columns, so dweight = dy · columnsᵀ and
    dcolumns = weightᵀ · dy, each entry of which is added to the entry of dx that it came from.
    """
    return _conv_backward(
        dy, x, weight, bias, stride, padding, dilation, groups, output_mask, axes=2
    )


def conv3d_backward(
    dy: Float[np.ndarray, "n c_out d_out h_out w_out"],
    x: Float[np.ndarray, "n c_in d h w"],
    weight: Float[np.ndarray, "c_out c_group kd kh kw"],
    bias: Float[np.ndarray, " c_out"] | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: Int = 1,
    *,
    output_mask: Mask = (True, True, True),
) -> tuple[
    Float[np.ndarray, "n c_in d h w"] | None,
    Float[np.ndarray, "c_out c_group kd kh kw"] | None,
    Float[np.ndarray, " c_out"] | None,
]:
    """Return (dx, dweight, dbias) of `conv3d`; those not wanted are None."""
    return _conv_backward(
        dy, x, weight, bias, stride, padding, dilation, groups, output_mask, axes=3
    )


def _conv(x, weight, bias, stride, padding, dilation, groups, axes):
    x, weight, bias, g = _check(x, weight, bias, stride, padding, dilation, groups, axes)
    return _correlate(x, weight, g, groups, bias)


def _conv_backward(dy, x, weight, bias, stride, padding, dilation, groups, output_mask, axes):
    x, weight, bias, g = _check(x, weight, bias, stride, padding, dilation, groups, axes)
    dy = _check_upstream(dy, x, (len(x), len(weight), *g.out))
    for_x, for_weight, for_bias = _validate.output_mask(output_mask, 3)
    if (for_x or for_weight) and _winograd.fits(x, weight, g, groups, dy):
        dx, dweight = _winograd.backward(dy, x, weight, g, for_x, for_weight)
    else:
        dx = _spread_back(dy, weight, g, groups) if for_x else None
        dweight = _weight_gradient(dy, x, weight.shape, g, groups) if for_weight else None
    return dx, dweight, _sum_channels(dy) if for_bias and bias is not None else None


# ---- transposed convolution ------------------------------------------------------------------


def conv_transpose1d(
    x: Float[np.ndarray, "n c_in length"],
    weight: Float[np.ndarray, "c_in c_group k"],
    bias: Float[np.ndarray, " c_out"] | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: Int = 1,
    dilation: Size = 1,
) -> Float[np.ndarray, "n c_out out"]:
    """Return the transposed convolution of sequences; see `conv_transpose2d`."""
    settings = (stride, padding, output_padding, groups, dilation)
    return _conv_transpose(x, weight, bias, *settings, axes=1)


def conv_transpose2d(
    x: Float[np.ndarray, "n c_in h w"],
    weight: Float[np.ndarray, "c_in c_group kh kw"],
    bias: Float[np.ndarray, " c_out"] | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: Int = 1,
    dilation: Size = 1,
) -> Float[np.ndarray, "n c_out h_out w_out"]:
    """Return the transposed convolution: each entry of x spreads a kernel over the output.

    weight: (channels, out channels / groups, kh, kw). It is the gradient of `conv2d`, with the
    same settings, with respect to its input, so it maps conv2d's output shape to its input shape:
    (h - 1) · stride - 2 padding + dilation (kh - 1) + 1 + output_padding rows, columns likewise.
    output_padding, below stride or dilation, chooses among the sizes that conv2d would map to h
    (Zeiler et al., 2010; Dumoulin and Visin, 2016).
    """
    settings = (stride, padding, output_padding, groups, dilation)
    return _conv_transpose(x, weight, bias, *settings, axes=2)


def conv_transpose1d_backward(
    dy: Float[np.ndarray, "n c_out out"],
    x: Float[np.ndarray, "n c_in length"],
    weight: Float[np.ndarray, "c_in c_group k"],
    bias: Float[np.ndarray, " c_out"] | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: Int = 1,
    dilation: Size = 1,
    *,
    output_mask: Mask = (True, True, True),
) -> tuple[
    Float[np.ndarray, "n c_in length"] | None,
    Float[np.ndarray, "c_in c_group k"] | None,
    Float[np.ndarray, " c_out"] | None,
]:
    """Return (dx, dweight, dbias) of `conv_transpose1d`; those not wanted are None."""
    settings = (stride, padding, output_padding, groups, dilation)
    return _conv_transpose_backward(dy, x, weight, bias, *settings, output_mask, axes=1)


def conv_transpose2d_backward(
    dy: Float[np.ndarray, "n c_out h_out w_out"],
    x: Float[np.ndarray, "n c_in h w"],
    weight: Float[np.ndarray, "c_in c_group kh kw"],
    bias: Float[np.ndarray, " c_out"] | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: Int = 1,
    dilation: Size = 1,
    *,
    output_mask: Mask = (True, True, True),
) -> tuple[
    Float[np.ndarray, "n c_in h w"] | None,
    Float[np.ndarray, "c_in c_group kh kw"] | None,
    Float[np.ndarray, " c_out"] | None,
]:
    """Return (dx, dweight, dbias) of `conv_transpose2d`; those not wanted are None.

    The gradient of the gradient is the convolution itself: dx = conv2d(dy, weight).
    """
    settings = (stride, padding, output_padding, groups, dilation)
    return _conv_transpose_backward(dy, x, weight, bias, *settings, output_mask, axes=2)


def _conv_transpose(x, weight, bias, stride, padding, output_padding, groups, dilation, axes):
    x, weight, bias, g = _check_transpose(
        x, weight, bias, stride, padding, output_padding, groups, dilation, axes
    )
    y = _spread_back(x, weight, g, groups)
    if bias is not None:
        y += bias.reshape(-1, *[1] * axes)
    return y


def _conv_transpose_backward(
    dy, x, weight, bias, stride, padding, output_padding, groups, dilation, output_mask, axes
):
    x, weight, bias, g = _check_transpose(
        x, weight, bias, stride, padding, output_padding, groups, dilation, axes
    )
    dy = _check_upstream(dy, x, (len(x), weight.shape[1] * groups, *g.size))
    for_x, for_weight, for_bias = _validate.output_mask(output_mask, 3)
    dx = _correlate(dy, weight, g, groups) if for_x else None
    dweight = _weight_gradient(x, dy, weight.shape, g, groups) if for_weight else None
    return dx, dweight, _sum_channels(dy) if for_bias and bias is not None else None


# ---- unfold and fold -------------------------------------------------------------------------


def unfold(
    x: Float[np.ndarray, "n c h w"],
    kernel_size: Size,
    dilation: Size = 1,
    padding: Size = 0,
    stride: Size = 1,
) -> Float[np.ndarray, "n rows windows"]:
    """Return each window of x as a column (im2col): (n, channels · kh · kw, windows)."""
    x = _validate.floats("x", x, ndim=4)
    g = _plain_windows(x.shape[2:], kernel_size, dilation, padding, stride, "the size of x")
    columns = _columns(x, g)
    columns = columns.reshape(len(columns), len(x), math.prod(g.out))
    return np.ascontiguousarray(columns.swapaxes(0, 1))


def unfold_backward(
    dy: Float[np.ndarray, "n rows windows"],
    x: Float[np.ndarray, "n c h w"],
    kernel_size: Size,
    dilation: Size = 1,
    padding: Size = 0,
    stride: Size = 1,
) -> Float[np.ndarray, "n c h w"]:
    """Return dx: each entry of dy is added to the entry of x that it is a copy of, as in `fold`."""
    x, dy = _validate.floats("x", x, ndim=4), _validate.floats("dy", dy, ndim=3)
    g = _plain_windows(x.shape[2:], kernel_size, dilation, padding, stride, "the size of x")
    dy = _check_upstream(dy, x, (len(x), x.shape[1] * math.prod(g.kernel), math.prod(g.out)))
    return _add_columns(dy.swapaxes(0, 1), x.shape, g)


def fold(
    x: Float[np.ndarray, "n rows windows"],
    output_size: Size,
    kernel_size: Size,
    dilation: Size = 1,
    padding: Size = 0,
    stride: Size = 1,
) -> Float[np.ndarray, "n c h w"]:
    """Return images of `output_size` from columns (col2im): overlapping windows add up.

    x: (n, channels · kh · kw, windows), laid out as `unfold` does.
    """
    x, g, channels = _check_fold(x, output_size, kernel_size, dilation, padding, stride)
    return _add_columns(x.swapaxes(0, 1), (len(x), channels, *g.size), g)


def fold_backward(
    dy: Float[np.ndarray, "n c h w"],
    x: Float[np.ndarray, "n rows windows"],
    output_size: Size,
    kernel_size: Size,
    dilation: Size = 1,
    padding: Size = 0,
    stride: Size = 1,
) -> Float[np.ndarray, "n rows windows"]:
    """Return dx: the windows of dy as columns, as in `unfold`."""
    x, g, channels = _check_fold(x, output_size, kernel_size, dilation, padding, stride)
    dy = _check_upstream(dy, x, (len(x), channels, *g.size))
    return unfold(dy, g.kernel, g.dilation, g.padding, g.stride)


# ---- the three products that everything above is made of -------------------------------------


def _correlate(x, weight, g, groups, bias=None):
    """Return y = weight · columns(x) + bias, (n, outs, *out)."""
    rows = _rows(weight, groups)
    bias = x.dtype.type(0) if bias is None else bias.reshape(-1, *[1] * len(g.out))
    if _winograd.fits(x, weight, g, groups):
        return _winograd.forward(x, weight, bias, g)
    y = np.empty((len(x), len(weight), *g.out), x.dtype)
    if _is_pointwise(g):  # the columns are x itself
        np.matmul(rows, _by_group(x, groups), out=_by_group(y, groups))
        y += bias
        return y
    planes = _Planes(x, len(weight), g, groups)
    for block, samples in planes.blocks():
        planes.load(x[block])
        for span in planes.spans(samples):
            np.matmul(rows, planes.columns(span), out=planes.results[..., span])
        np.add(planes.windows(samples), bias, out=y[block])
    return y


def _spread_back(dy, weight, g, groups):
    """Return dx, (n, channels, *size): columns weightᵀ · dy, each entry added where it was from."""
    rows = _rows(weight, groups).swapaxes(-1, -2)
    dx = np.empty((len(dy), weight.shape[1] * groups, *g.size), dy.dtype)
    if _is_pointwise(g):
        np.matmul(rows, _by_group(dy, groups), out=_by_group(dx, groups))
        return dx
    # With one output channel a group, the product is an outer one, which matmul is slow at.
    product = np.multiply if rows.shape[-1] == 1 else np.matmul
    planes = _Planes(dx, len(weight), g, groups)
    for block, samples in planes.blocks():
        planes.windows(samples)[...] = dy[block]
        planes.clear()
        for span in planes.spans(samples):
            columns = planes.space(span)
            product(rows, planes.results[..., span], out=columns)
            planes.add(columns, span)
        planes.unload(dx[block])
    return dx


def _weight_gradient(dy, x, shape, g, groups):
    """Return dweight = dy · columns(x)ᵀ, summed over the batch, in the weight's `shape`."""
    dweight = np.zeros((groups, shape[0] // groups, math.prod(shape[1:])), x.dtype)
    if _is_pointwise(g):
        for dy_rows, columns in zip(_by_group(dy, groups), _by_group(x, groups), strict=True):
            dweight += dy_rows @ columns.swapaxes(-1, -2)
        return dweight.reshape(shape)
    planes = _Planes(x, shape[0], g, groups)
    for block, samples in planes.blocks():
        planes.load(x[block])
        planes.windows(samples)[...] = dy[block]
        for span in planes.spans(samples):
            dweight += planes.results[..., span] @ planes.columns(span).swapaxes(-1, -2)
    return dweight.reshape(shape)


def _rows(weight, groups):
    """Return the weight as (groups, outs / groups, channels / groups · kernel)."""
    return weight.reshape(groups, len(weight) // groups, math.prod(weight.shape[1:]))


def _by_group(x, groups):
    """Return x as (n, groups, channels / groups, length)."""
    return x.reshape(len(x), groups, x.shape[1] // groups, math.prod(x.shape[2:]))


def _is_pointwise(g: Windows) -> bool:
    """Say whether each window is one entry of the input, and each entry a window."""
    # Output padding makes the input of a transposed convolution's gradient larger than its windows.
    return {*g.kernel, *g.stride} == {1} and not any(g.padding) and g.size == g.out


def _sum_channels(dy):
    """Return the sum of dy over all axes but the second."""
    flat = dy.reshape(*dy.shape[:2], math.prod(dy.shape[2:]))
    # A product with ones is about three times as fast as .sum().
    return (flat @ np.ones(flat.shape[2], dy.dtype)).sum(axis=0)


# ---- columns, plainly ------------------------------------------------------------------------


def _columns(x, g: Windows):
    """Return the windows of x as columns: (channels · kernel, n · windows)."""
    columns = np.zeros((x.shape[1], *g.kernel, len(x), *g.out), x.dtype)
    for offset, windows, entries in g.offsets():
        columns[:, *offset, :, *windows] = x[:, :, *entries].swapaxes(0, 1)
    return columns.reshape(x.shape[1] * math.prod(g.kernel), len(x) * math.prod(g.out))


def _add_columns(columns, shape, g: Windows):
    """Return an array of `shape` (n, channels, *size): each entry of the columns added in place.

    columns: (channels · kernel, n, windows).
    """
    columns = columns.reshape(shape[1], *g.kernel, shape[0], *g.out)
    x = np.zeros(shape, columns.dtype)
    for offset, windows, entries in g.offsets():
        x[:, :, *entries] += columns[:, *offset, :, *windows].swapaxes(0, 1)
    return x


# ---- columns, fast ---------------------------------------------------------------------------


class _Planes:
    """Padded samples laid out so that a row of columns is one contiguous piece of memory.

    Take stride 1. Let the padded sample be one flat row of numbers, `step` numbers for a step
    down. The window at flat position f has its entry for offset (i, j) at f + i · step + j: for
    all windows together, an offset is a shift of the flat row, and row (i, j) of the columns is a
    copy of it from that shift on. Windows that wrap around an edge come along and are dropped
    at the end. With stride s, the entries that share the remainder of their position modulo s
    form a plane of their own (a phase), in which windows lie side by side again.

    A few samples follow one another in the flat row, and columns are made a span at a time, so
    that all work memory stays in the second-level cache. Where too many windows would wrap
    around (the kernel is nearly as large as the input), rows are copied without them.
    """

    def __init__(self, x, outs, g, groups):
        self.g, self.groups, self.n, self.channels = g, groups, *x.shape[:2]
        reach = [(k - 1) * d // s for k, d, s in zip(g.kernel, g.dilation, g.stride, strict=True)]
        plane = tuple(o + r for o, r in zip(g.out, reach, strict=True))
        self.wide = math.prod(plane) <= _MOST_WRAPPED * math.prod(g.out)
        self.grid = plane if self.wide else g.out  # one sample's window positions
        self.size = math.prod(self.grid)

        positions = [
            tuple(i * d for i, d in zip(offset, g.dilation, strict=True))
            for offset in itertools.product(*map(range, g.kernel))
        ]
        phases = [tuple(i % s for i, s in zip(p, g.stride, strict=True)) for p in positions]
        self.phases = sorted(set(phases))
        # For each offset: which plane its row of columns lies in, and where it starts there.
        self.taps = [
            (self.phases.index(phase), tuple(i // s for i, s in zip(p, g.stride, strict=True)))
            for phase, p in zip(phases, positions, strict=True)
        ]
        self.steps = [math.prod(plane[axis + 1 :]) for axis in range(len(plane))]

        span = max(_MIN_COLUMNS, _COLUMN_BYTES // (self.channels * len(self.taps) * x.itemsize))
        small = _SMALL_PRODUCT // max(1, self.channels * len(self.taps) * outs // groups**2)
        if small >= _MANY_COLUMNS:
            span = min(span, small)
        self.samples = max(1, min(self.n, span // self.size))
        # Without wrapped windows, a span is made of whole samples.
        self.span = min(span, self.samples * self.size) if self.wide else self.samples * self.size
        self.planes = np.zeros((len(self.phases), self.channels, self.samples, *plane), x.dtype)
        self.flat = self.planes.reshape(len(self.phases), self.channels, -1)
        self.work = np.empty((self.channels, len(self.taps), self.span), x.dtype)
        self.results = np.zeros((groups, outs // groups, self.samples * self.size), x.dtype)

    def blocks(self) -> Iterator[tuple[slice, int]]:
        """Yield slices of the batch and how many samples each holds."""
        for first in range(0, self.n, self.samples):
            samples = min(self.samples, self.n - first)
            yield slice(first, first + samples), samples

    def spans(self, samples: int) -> Iterator[slice]:
        """Yield slices of window positions, from the first window to the last."""
        length = samples * self.size
        if self.wide:  # the last window proper comes before the end of its plane
            length -= sum(
                (n - o) * step for n, o, step in zip(self.grid, self.g.out, self.steps, strict=True)
            )
        for first in range(0, length, self.span):
            yield slice(first, min(first + self.span, length))

    def load(self, x) -> None:
        """Copy samples in; the padding around them stays 0."""
        for held, entries in self._pieces(x):
            held[...] = entries

    def unload(self, x) -> None:
        """Copy samples out; entries that no window reaches become 0."""
        x[...] = 0
        for held, entries in self._pieces(x):
            entries[...] = held

    def _pieces(self, x):
        """Yield (part of a plane, the entries of x (samples, channels, *size) that it holds)."""
        x = x.swapaxes(0, 1)
        for plane, phase in zip(self.planes, self.phases, strict=True):
            pairs = [
                inside(size, stride, remainder - padding, count)
                for size, stride, remainder, padding, count in zip(
                    self.g.size, self.g.stride, phase, self.g.padding, plane.shape[2:], strict=True
                )
            ]
            held, entries = zip(*pairs, strict=True)
            yield plane[:, : x.shape[1], *held], x[:, :, *entries]

    def clear(self) -> None:
        """Set all planes to 0."""
        self.planes[...] = 0

    def space(self, span: slice):
        """Return work memory for the columns of a span, (groups, rows / groups, length)."""
        work = self.work[..., : span.stop - span.start]
        return work.reshape(self.groups, -1, work.shape[2])

    def columns(self, span: slice):
        """Return the columns at the window positions of `span`."""
        columns = self.space(span)
        for row, entries in self._rows(columns, span):
            row[...] = entries
        return columns

    def add(self, columns, span: slice) -> None:
        """Add columns back to the entries that they were copied from."""
        for row, entries in self._rows(columns, span):
            entries += row

    def _rows(self, columns, span):
        """Yield (one row of each channel's columns, the entries of a plane that it stands for)."""
        columns = columns.reshape(self.channels, len(self.taps), -1)
        samples = columns.shape[2] // self.size
        for k, (plane, start) in enumerate(self.taps):
            if self.wide:
                shift = sum(i * step for i, step in zip(start, self.steps, strict=True))
                yield columns[:, k], self.flat[plane, :, span.start + shift : span.stop + shift]
            else:
                part = (slice(i, i + o) for i, o in zip(start, self.g.out, strict=True))
                row = columns[:, k].reshape(self.channels, samples, *self.g.out)
                yield row, self.planes[plane, :, :samples, *part]

    def windows(self, samples: int):
        """Return the results at the windows proper, (samples, outs, *out), without the wrapped."""
        grid = self.results.reshape(-1, self.samples, *self.grid)
        return grid[:, :samples, *map(slice, self.g.out)].swapaxes(0, 1)


# ---- arguments -------------------------------------------------------------------------------


def _check(x, weight, bias, stride, padding, dilation, groups, axes):
    x = _validate.floats("x", x, ndim=axes + 2)
    weight = _check_weight(weight, axes)
    groups = _validate.integer("groups", groups, low=1)
    channels = x.shape[1]
    if channels % groups or len(weight) % groups:
        raise ValueError(
            f"groups must divide the {channels} channels of x and the {len(weight)} of the output, "
            f"got {groups}"
        )
    if weight.shape[1] * groups != channels:
        raise ValueError(
            f"weight must take {channels // groups} input channels (x has {channels}, "
            f"groups={groups}), got weight {weight.shape} and x {x.shape}"
        )
    bias = _check_bias(bias, len(weight))
    _validate.same_dtype(x=x, weight=weight, bias=bias)
    g = _conv_windows(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    return x, weight, bias, g


def _check_transpose(x, weight, bias, stride, padding, output_padding, groups, dilation, axes):
    """Check; the windows returned are those of the convolution whose gradient this is."""
    x = _validate.floats("x", x, ndim=axes + 2)
    weight = _check_weight(weight, axes)
    groups = _validate.integer("groups", groups, low=1)
    if len(weight) != x.shape[1] or len(weight) % groups:
        raise ValueError(
            f"the first axis of weight must be the {x.shape[1]} channels of x, and groups divide "
            f"it, got weight {weight.shape}, x {x.shape} and groups={groups}"
        )
    bias = _check_bias(bias, weight.shape[1] * groups)
    _validate.same_dtype(x=x, weight=weight, bias=bias)
    kernel = weight.shape[2:]
    stride = _windows.sizes("stride", stride, axes, low=1)
    dilation = _windows.sizes("dilation", dilation, axes, low=1)
    padding = _windows.sizes("padding", padding, axes, low=0)
    extra = _windows.sizes("output_padding", output_padding, axes, low=0)
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise ValueError(
            f"output_padding must be smaller than stride or dilation, got {extra} with stride "
            f"{stride} and dilation {dilation}"
        )
    spans = _windows.extent(kernel, dilation)
    size = tuple(
        (o - 1) * s - 2 * p + span + e
        for o, s, p, span, e in zip(x.shape[2:], stride, padding, spans, extra, strict=True)
    )
    if min(x.shape[2:]) < 1 or min(size) < 1:
        raise ValueError(f"x of shape {x.shape} is too small: the output would have size {size}")
    return x, weight, bias, Windows(size, kernel, stride, dilation, padding, x.shape[2:])


def _check_weight(weight, axes):
    weight = _validate.floats("weight", weight, ndim=axes + 2)
    if not weight.size:
        raise ValueError(f"weight must not be empty, got shape {weight.shape}")
    return weight


def _check_bias(bias, outs):
    if bias is None:
        return None
    bias = _validate.floats("bias", bias, ndim=1)
    return _validate.has_shape("bias", bias, (outs,), "one for each output channel")


def _check_upstream(dy, x, shape):
    dy = _validate.floats("dy", dy)
    _validate.same_dtype(dy=dy, x=x)
    return _validate.has_shape("dy", dy, shape, "the shape of the output")


def _conv_windows(size, kernel, stride, padding, dilation) -> Windows:
    axes = len(size)
    stride = _windows.sizes("stride", stride, axes, low=1)
    dilation = _windows.sizes("dilation", dilation, axes, low=1)
    if isinstance(padding, str):
        if _validate.one_of("padding", padding, ["same", "valid"]) == "valid":
            pairs = ((0, 0),) * axes
        elif any(s != 1 for s in stride):
            raise ValueError(f'padding="same" needs stride 1, got stride {stride}')
        else:
            pairs = _windows.same_padding(kernel, dilation)
    else:
        pairs = tuple((p, p) for p in _windows.sizes("padding", padding, axes, low=0))
    return _fitted(size, kernel, stride, dilation, pairs, "the size of x")


def _plain_windows(size, kernel, dilation, padding, stride, what) -> Windows:
    axes = len(size)
    kernel = _windows.sizes("kernel_size", kernel, axes, low=1)
    dilation = _windows.sizes("dilation", dilation, axes, low=1)
    pairs = tuple((p, p) for p in _windows.sizes("padding", padding, axes, low=0))
    stride = _windows.sizes("stride", stride, axes, low=1)
    return _fitted(size, kernel, stride, dilation, pairs, what)


def _fitted(size, kernel, stride, dilation, pairs, what) -> Windows:
    """Return the windows that fit into the padded size; ValueError if there are none."""
    size = tuple(size)
    spans = _windows.extent(kernel, dilation)
    room = [n + sum(pair) - span for n, pair, span in zip(size, pairs, spans, strict=True)]
    if min(room) < 0:
        raise ValueError(
            f"the kernel must fit into the padded input: it spans {spans}, {what} is {size} and "
            f"the padding (in front, behind) {pairs}"
        )
    out = tuple(r // s + 1 for r, s in zip(room, stride, strict=True))
    return Windows(size, kernel, stride, dilation, tuple(front for front, _ in pairs), out)


def _check_fold(x, output_size, kernel_size, dilation, padding, stride):
    x = _validate.floats("x", x, ndim=3)
    size = _windows.sizes("output_size", output_size, 2, low=1)
    g = _plain_windows(size, kernel_size, dilation, padding, stride, "output_size")
    entries, count = math.prod(g.kernel), math.prod(g.out)
    if x.shape[1] % entries or x.shape[2] != count:
        raise ValueError(
            f"x must have a multiple of {entries} rows (kernel_size {g.kernel}) and {count} "
            f"windows ({g.out} fit into output_size {size}), got shape {x.shape}"
        )
    return x, g, x.shape[1] // entries
