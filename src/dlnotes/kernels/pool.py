"""Pooling over windows of sequences (n, channels, length) and images (n, channels, h, w).

Names, arguments and defaults are those of torch: kernel_size, stride (None: as kernel_size),
padding and dilation are one number or one for each axis; ceil_mode adds a last window that starts
inside the input or its padding in front but reaches past the end. Every window is made of slices
of the input, one for each offset in the kernel (see `_windows`), and a maximum or a sum over a
rectangle is taken one axis at a time, so that its cost grows with the sides, not with the area.

In each: TypeError for arrays that are not float32 or float64 or differ in dtype, ValueError for
shapes that do not fit or a setting out of range. Inputs without the batch axis are for
`nn.functional`.

count_include_pad says whether padding counts, as zeros, in the number by which an average divides;
what a window of ceil_mode has past the padding never does.

Cost: at stride 1, kh + kw operations for each window of kh × kw, forward and backward; the
positions of maxima, which the backward functions need as well, take kh · kw comparisons. Adaptive
averages: one pass over the entries for each axis.
"""

import math

import numpy as np
from jaxtyping import Float, Integer

from dlnotes import _validate
from dlnotes._validate import Number
from dlnotes.kernels import _windows
from dlnotes.kernels._windows import Size, Windows
from dlnotes.kernels.activations import _without

_BLOCK_ENTRIES = 2**17  # entries that are worked on together, in the second-level cache
_FEW_OFFSETS = 3  # so few that a mask for each is faster than addresses

# ---- maximum ---------------------------------------------------------------------------------


def max_pool1d(
    x: Float[np.ndarray, "n c length"],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    return_residuals: bool = False,
) -> Float[np.ndarray, "n c out"] | tuple:
    """Return the largest entry of each window; see `max_pool2d`."""
    x, g = _check_windows(x, kernel_size, stride, padding, dilation, ceil_mode, axes=1)
    return _max_pool(x, g, return_indices, return_residuals)


def max_pool1d_backward(
    dy: Float[np.ndarray, "n c out"],
    x: Float[np.ndarray, "n c length"],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    residuals: np.ndarray | None = None,
) -> Float[np.ndarray, "n c length"]:
    """Return dx: dy goes to the largest entry of its window; see `max_pool2d_backward`."""
    x, g = _check_windows(x, kernel_size, stride, padding, dilation, ceil_mode, axes=1)
    return _max_backward(_check_upstream(dy, x, g), x, g, residuals)


def max_pool2d(
    x: Float[np.ndarray, "n c h w"],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    return_residuals: bool = False,
) -> Float[np.ndarray, "n c h_out w_out"] | tuple:
    """Return the largest entry of each window; padding, at most half a window, never wins.

    return_indices=True returns (y, indices) with the position row · w + column of each winner in
    its image, the first on ties, as `max_unpool2d` takes them. NaN counts as the largest, and the
    last NaN wins. A dilated window with no entry in the image gives -∞ and the index -1.
    return_residuals=True returns (y, residuals) instead: which entry of its window each winner is,
    which saves `max_pool2d_backward` looking for them again.
    (Sequences: Yamaguchi et al., 1990; images: Weng, Ahuja and Huang, 1992.)
    """
    x, g = _check_windows(x, kernel_size, stride, padding, dilation, ceil_mode, axes=2)
    return _max_pool(x, g, return_indices, return_residuals)


def max_pool2d_loops(
    x: Float[np.ndarray, "n c h w"],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> Float[np.ndarray, "n c h_out w_out"]:
    """Return the values of `max_pool2d`, one entry at a time: the tests' oracle."""
    x, g = _check_windows(x, kernel_size, stride, padding, dilation, ceil_mode, axes=2)
    y = np.full((*x.shape[:2], *g.out), -np.inf, x.dtype)
    for n, c, row, column in np.ndindex(y.shape):
        for i, j in np.ndindex(g.kernel):
            r = row * g.stride[0] + i * g.dilation[0] - g.padding[0]
            s = column * g.stride[1] + j * g.dilation[1] - g.padding[1]
            if 0 <= r < g.size[0] and 0 <= s < g.size[1]:  # what is outside never wins
                y[n, c, row, column] = np.maximum(y[n, c, row, column], x[n, c, r, s])
    return y


def max_pool2d_backward(
    dy: Float[np.ndarray, "n c h_out w_out"],
    x: Float[np.ndarray, "n c h w"],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    residuals: np.ndarray | None = None,
) -> Float[np.ndarray, "n c h w"]:
    """Return dx: dy goes to the largest entry of its window, row by row to the first on ties.

    `residuals` are those that `max_pool2d` returned, or None.
    """
    x, g = _check_windows(x, kernel_size, stride, padding, dilation, ceil_mode, axes=2)
    return _max_backward(_check_upstream(dy, x, g), x, g, residuals)


def adaptive_max_pool1d(
    x: Float[np.ndarray, "n c length"],
    output_size: Size,
    return_indices: bool = False,
    *,
    return_residuals: bool = False,
) -> Float[np.ndarray, "n c out"] | tuple:
    """Return the largest entry of each of `output_size` stretches; see `adaptive_max_pool2d`."""
    x, out = _check_adaptive(x, output_size, axes=1)
    y, indices = _adaptive_winners(x, out)
    return (y, indices) if return_indices or return_residuals else y


def adaptive_max_pool1d_backward(
    dy: Float[np.ndarray, "n c out"],
    x: Float[np.ndarray, "n c length"],
    output_size: Size,
    *,
    residuals: np.ndarray | None = None,
) -> Float[np.ndarray, "n c length"]:
    """Return dx: dy goes to the largest entry of its stretch."""
    x, out = _check_adaptive(x, output_size, axes=1)
    return _adaptive_max_backward(dy, x, out, residuals)


def adaptive_max_pool2d(
    x: Float[np.ndarray, "n c h w"],
    output_size: Size | tuple[int | None, int | None],
    return_indices: bool = False,
    *,
    return_residuals: bool = False,
) -> Float[np.ndarray, "n c h_out w_out"] | tuple:
    """Return the largest entry of each rectangle of a grid of `output_size` over each image.

    The rectangles are those of `adaptive_avg_pool2d`; they may overlap by a row or a column.
    return_indices=True returns (y, indices) with the position row · w + column of each, the first
    on ties, of NaNs the last; return_residuals=True the same for `adaptive_max_pool2d_backward`.
    Cost O(size of x), one step of NumPy for each rectangle.
    """
    x, out = _check_adaptive(x, output_size, axes=2)
    y, indices = _adaptive_winners(x, out)
    return (y, indices) if return_indices or return_residuals else y


def adaptive_max_pool2d_backward(
    dy: Float[np.ndarray, "n c h_out w_out"],
    x: Float[np.ndarray, "n c h w"],
    output_size: Size | tuple[int | None, int | None],
    *,
    residuals: np.ndarray | None = None,
) -> Float[np.ndarray, "n c h w"]:
    """Return dx: dy goes to the largest entry of its rectangle; `residuals` from the forward."""
    x, out = _check_adaptive(x, output_size, axes=2)
    return _adaptive_max_backward(dy, x, out, residuals)


def max_unpool2d(
    x: Float[np.ndarray, "n c h w"],
    indices: Integer[np.ndarray, "n c h w"],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: tuple[int, ...] | list[int] | None = None,
) -> Float[np.ndarray, "n c h_out w_out"]:
    """Return images of zeros with each entry of x at the position that `indices` gives it.

    `indices` come from `max_pool2d(…, return_indices=True)`. output_size, (h_out, w_out) or the
    whole shape, defaults to (h - 1) · stride - 2 padding + kernel_size. Where two entries have one
    position, the last in memory order stays (Zeiler and Fergus, 2014).
    """
    x, indices, size = _check_unpool(x, indices, kernel_size, stride, padding, output_size)
    y = np.zeros((*x.shape[:2], math.prod(size)), x.dtype)
    np.put_along_axis(y, _flat(indices), _flat(x), axis=2)
    return y.reshape(*x.shape[:2], *size)


def max_unpool2d_backward(
    dy: Float[np.ndarray, "n c h_out w_out"],
    x: Float[np.ndarray, "n c h w"],
    indices: Integer[np.ndarray, "n c h w"],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: tuple[int, ...] | list[int] | None = None,
) -> Float[np.ndarray, "n c h w"]:
    """Return dx: the entry of dy at each index."""
    x, indices, size = _check_unpool(x, indices, kernel_size, stride, padding, output_size)
    dy = _validate.floats("dy", dy)
    _validate.same_dtype(dy=dy, x=x)
    _validate.has_shape("dy", dy, (*x.shape[:2], *size), "the shape of the output")
    return np.take_along_axis(_flat(dy), _flat(indices), axis=2).reshape(x.shape)


def _max_pool(x, g: Windows, return_indices, return_residuals):
    if not (return_indices or return_residuals):  # one axis after another
        return _over_windows(np.maximum, x, g, -np.inf, axes=reversed(range(len(g.size))))
    y, winners = _winners(x, g)
    if return_residuals:
        return y, winners
    corners, steps, some = _places(g)
    return y, np.where(some, corners + steps[winners], -1)


def _winners(x, g: Windows):
    """Return the largest entry of each window, and the number of its offset in the kernel.

    Of equal entries the first wins, of NaNs the last. A few samples at a time, so that work memory
    stays in the cache.
    """
    y = np.empty((*x.shape[:2], *g.out), x.dtype)
    winners = np.empty(y.shape, np.min_scalar_type(math.prod(g.kernel)))
    if math.prod(g.kernel) > 8 * math.prod(g.out):
        _winners_by_window(x, g, y, winners)
        return y, winners
    blocks, first = list(_blocks(x)), _first_offsets(g)
    first = first if first.any() else 0
    offsets = [((..., *windows), (..., *entries)) for _, windows, entries in g.offsets()]
    everywhere = y[:1][offsets[0][0]].shape == y[:1].shape  # each window has its first entry
    # Work memory: entries that lie side by side are compared several times as fast.
    work = [np.empty(y[block].shape, y.dtype) for block in blocks[:1]]
    wins = [np.empty(y[block].shape, winners.dtype) for block in blocks[:1]]
    for block in blocks:
        images, largest, winner = x[block], y[block], winners[block]
        if not everywhere:
            largest.fill(-np.inf)
        winner[...] = first
        for k, (windows, entries) in enumerate(offsets):
            best = largest[windows]
            if k == 0:
                best[...] = images[entries]
                continue
            here = work[0][: len(images)][windows]
            here[...] = images[entries]
            won = np.greater(here, best, out=wins[0][: len(images)][windows])
            won *= k
            np.maximum(winner[windows], won, out=winner[windows])  # k grows: the last one to win
            np.maximum(best, here, out=best)
        nan = np.isnan(largest)
        if nan.any():  # it is larger than nothing, and yet it wins
            winner[nan] = 0
            for k, (windows, entries) in enumerate(offsets):
                won = np.isnan(images[entries]) * winners.dtype.type(k)
                np.maximum(winner[windows], won, out=winner[windows])
    return y, winners


def _winners_by_window(x, g: Windows, y, winners):
    """Write what `_winners` returns, window by window: there are far fewer of them than offsets."""
    starts = [_starts(g, axis) for axis in range(len(g.size))]
    y.fill(-np.inf)
    winners.fill(0)
    for window in np.ndindex(g.out):
        first = [firsts[o] for (_, firsts), o in zip(starts, window, strict=True)]
        corner = [start[o] for (start, _), o in zip(starts, window, strict=True)]
        axes = zip(corner, first, g.kernel, g.dilation, strict=True)
        part = x[..., *(slice(c + f * d, c + k * d, d) for c, f, k, d in axes)]
        if not math.prod(part.shape[2:]):
            continue
        largest, place = _largest(part)
        offset = np.unravel_index(place, part.shape[2:])
        offset = tuple(o + f for o, f in zip(offset, first, strict=True))
        y[:, :, *window] = largest
        winners[:, :, *window] = np.ravel_multi_index(offset, g.kernel)


def _largest(part):
    """Return the largest entry of each image, and its place: the first one, of NaNs the last."""
    entries = _flat(part)
    place = entries.argmax(axis=2)
    largest = np.take_along_axis(entries, place[..., None], axis=2)[..., 0]
    nan = np.isnan(largest)
    if nan.any():
        place[nan] = entries.shape[2] - 1 - np.isnan(entries[nan])[:, ::-1].argmax(axis=1)
    return largest, place


def _max_backward(dy, x, g: Windows, winners=None):
    """Return dx, a few samples at a time, so that work memory stays in the cache."""
    if winners is None:
        _, winners = _winners(x, g)
    corners, steps, some = _places(g)
    spans = _windows.extent(g.kernel, g.dilation)
    apart = all(s >= span for s, span in zip(g.stride, spans, strict=True))
    offsets = [((..., *windows), (..., *entries)) for _, windows, entries in g.offsets()]
    dx, blocks, holes = np.empty(x.shape, x.dtype), list(_blocks(x)), not some.all()
    # Windows side by side, without a gap or an edge: each entry is in one, nothing is left to fill.
    shapes = zip(g.size, g.out, g.kernel, g.stride, g.padding, g.dilation, strict=True)
    everywhere = all((o * k, s, p, d) == (n, k, 0, 1) for n, o, k, s, p, d in shapes)
    # Where the windows of all the images of a block start in the block.
    images = np.arange(math.prod(x[blocks[0]].shape[:2])) if blocks else np.arange(0)
    starts = np.add.outer(images * math.prod(g.size), corners)
    for block in blocks:
        flat, gradient, winner = dx[block].reshape(-1), dy[block], winners[block]
        if apart and len(offsets) <= _FEW_OFFSETS:
            if not everywhere:
                flat.fill(0)
            for k, (windows, entries) in enumerate(offsets):
                dx[block][entries] = _without(gradient[windows], winner[windows] != k)
            continue
        index = steps.take(winner, mode="clip").reshape(-1, *g.out)
        index += starts[: len(index)]
        if holes:
            index, gradient = index[:, some], gradient[:, :, some]
        index, gradient = index.reshape(-1), gradient.reshape(-1)
        if apart:  # no entry is the largest of two windows
            flat.fill(0)
            flat[index] = gradient
        else:
            flat[...] = np.bincount(index, gradient, minlength=len(flat))
    return dx


def _places(g: Windows):
    """Return where the entries of the windows lie in a flattened image.

    Window o has its entry of offset k at corners[o] + steps[k]; some[o] says whether the window has
    entries at all.
    """
    corners = steps = np.zeros((), np.int64)
    some = np.ones((), bool)
    for axis, (n, k, d) in enumerate(zip(g.size, g.kernel, g.dilation, strict=True)):
        start, first = _starts(g, axis)
        corners = np.add.outer(corners * n, start)
        steps = np.add.outer(steps * n, np.arange(k) * d)
        some = np.logical_and.outer(some, (first < k) & (start + first * d < n))
    return corners, steps.reshape(-1), some


def _first_offsets(g: Windows):
    """Return the number in the kernel of the first offset at which each window has an entry."""
    number = np.zeros((), np.int64)
    for axis, k in enumerate(g.kernel):
        _, first = _starts(g, axis)
        number = np.add.outer(number * k, np.minimum(first, k - 1))
    return number


def _starts(g: Windows, axis):
    """Return where the windows start along an axis, and the first offset not in front of it."""
    start = np.arange(g.out[axis]) * g.stride[axis] - g.padding[axis]
    return start, np.maximum(0, -(start // g.dilation[axis]))


def _blocks(x):
    """Yield slices of samples that stay in the cache together."""
    step = max(1, _BLOCK_ENTRIES // max(1, math.prod(x.shape[1:])))
    for first in range(0, len(x), step):
        yield slice(first, first + step)


# ---- average ---------------------------------------------------------------------------------


def avg_pool1d(
    x: Float[np.ndarray, "n c length"],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Float[np.ndarray, "n c out"]:
    """Return the mean of each window; see `avg_pool2d`."""
    x, g = _check_windows(x, kernel_size, stride, padding, 1, ceil_mode, axes=1)
    return _sum(x, g) / _counts(g, count_include_pad, None, x.dtype)


def avg_pool1d_backward(
    dy: Float[np.ndarray, "n c out"],
    x: Float[np.ndarray, "n c length"],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Float[np.ndarray, "n c length"]:
    """Return dx: dy is shared equally by the entries of its window."""
    x, g = _check_windows(x, kernel_size, stride, padding, 1, ceil_mode, axes=1)
    dy = _check_upstream(dy, x, g)
    return _sum_backward(dy / _counts(g, count_include_pad, None, x.dtype), g)


def avg_pool2d(
    x: Float[np.ndarray, "n c h w"],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | np.integer | None = None,
) -> Float[np.ndarray, "n c h_out w_out"]:
    """Return the mean of each window.

    Padding counts as zeros, unless count_include_pad=False leaves it out of the mean; what a window
    of ceil_mode has past the padding is always left out. divisor_override divides the sums instead.
    (LeCun et al., 1998, with a weight and a bias for each map.)
    """
    x, g = _check_windows(x, kernel_size, stride, padding, 1, ceil_mode, axes=2)
    return _sum(x, g) / _counts(g, count_include_pad, divisor_override, x.dtype)


def avg_pool2d_loops(
    x: Float[np.ndarray, "n c h w"],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | np.integer | None = None,
) -> Float[np.ndarray, "n c h_out w_out"]:
    """Return what `avg_pool2d` returns, one entry at a time: the formula, and the tests' oracle."""
    x, g = _check_windows(x, kernel_size, stride, padding, 1, ceil_mode, axes=2)
    y = np.zeros((*x.shape[:2], *g.out), x.dtype)
    for n, c, row, column in np.ndindex(y.shape):
        inside = padded = 0
        for i, j in np.ndindex(g.kernel):
            r = row * g.stride[0] + i - g.padding[0]
            s = column * g.stride[1] + j - g.padding[1]
            if 0 <= r < g.size[0] and 0 <= s < g.size[1]:
                y[n, c, row, column] += x[n, c, r, s]
                inside += 1
            padded += r < g.size[0] + g.padding[0] and s < g.size[1] + g.padding[1]
        count = padded if count_include_pad else inside
        y[n, c, row, column] /= count if divisor_override is None else divisor_override
    return y


def avg_pool2d_backward(
    dy: Float[np.ndarray, "n c h_out w_out"],
    x: Float[np.ndarray, "n c h w"],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | np.integer | None = None,
) -> Float[np.ndarray, "n c h w"]:
    """Return dx: dy is shared equally by the entries of its window; arguments as in the forward."""
    x, g = _check_windows(x, kernel_size, stride, padding, 1, ceil_mode, axes=2)
    dy = _check_upstream(dy, x, g)
    return _sum_backward(dy / _counts(g, count_include_pad, divisor_override, x.dtype), g)


def adaptive_avg_pool1d(
    x: Float[np.ndarray, "n c length"], output_size: Size
) -> Float[np.ndarray, "n c out"]:
    """Return means over `output_size` stretches of each sequence; see `adaptive_avg_pool2d`."""
    return _adaptive(*_check_adaptive(x, output_size, axes=1))


def adaptive_avg_pool1d_backward(
    dy: Float[np.ndarray, "n c out"], x: Float[np.ndarray, "n c length"], output_size: Size
) -> Float[np.ndarray, "n c length"]:
    """Return dx: dy is shared equally by the entries of its stretch."""
    return _adaptive_backward(dy, *_check_adaptive(x, output_size, axes=1))


def adaptive_avg_pool2d(
    x: Float[np.ndarray, "n c h w"], output_size: Size | tuple[int | None, int | None]
) -> Float[np.ndarray, "n c h_out w_out"]:
    """Return means over a grid of `output_size` rectangles that cover each image.

    Row r of the grid covers the rows ⌊r · h / h_out⌋ … ⌈(r + 1) · h / h_out⌉ - 1, columns
    likewise. None keeps an axis as it is; output_size=1 is global average pooling (Lin et al.,
    2014).
    """
    return _adaptive(*_check_adaptive(x, output_size, axes=2))


def adaptive_avg_pool2d_backward(
    dy: Float[np.ndarray, "n c h_out w_out"],
    x: Float[np.ndarray, "n c h w"],
    output_size: Size | tuple[int | None, int | None],
) -> Float[np.ndarray, "n c h w"]:
    """Return dx: dy is shared equally by the entries of its rectangle."""
    return _adaptive_backward(dy, *_check_adaptive(x, output_size, axes=2))


def _sum(x, g: Windows):
    return _over_windows(np.add, x, g, 0)


def _sum_backward(dy, g: Windows):
    """Return dx of `_sum`: each entry of x gets the sum of dy over the windows that hold it."""
    for axis in range(len(g.size)):
        shape = list(dy.shape)
        shape[axis + 2] = g.size[axis]
        dx = np.zeros(shape, dy.dtype)
        for windows, entries in _along(g, axis):
            dx[entries] += dy[windows]
        dy = dx
    return dy


def _counts(g: Windows, include_padding, divisor, dtype):
    """Return by how much the sum of each window is divided."""
    if divisor is not None:
        return dtype.type(_validate.integer("divisor_override", divisor, low=1))
    counts = np.ones((), dtype)
    for n, k, s, p, out in zip(g.size, g.kernel, g.stride, g.padding, g.out, strict=True):
        start = np.arange(out) * s - p
        stop = np.minimum(start + k, n + p)
        if not include_padding:
            start, stop = np.maximum(start, 0), np.minimum(stop, n)
        counts = np.multiply.outer(counts, (stop - start).astype(dtype))
    # One number divides faster than an array of equal ones.
    return counts.flat[0] if (counts == counts.flat[0]).all() else counts


def _adaptive(x, out):
    for axis, count in enumerate(out, start=2):
        shape = list(x.shape)
        shape[axis] = count
        y = np.empty(shape, x.dtype)
        for i, (start, stop) in enumerate(_bins(x.shape[axis], count)):
            piece = np.moveaxis(x, axis, -1)[..., start:stop]
            ones = np.full(stop - start, 1 / (stop - start), x.dtype)
            np.moveaxis(y, axis, -1)[..., i] = piece @ ones
        x = y
    return x


def _adaptive_backward(dy, x, out):
    dy = _validate.floats("dy", dy)
    _validate.same_dtype(dy=dy, x=x)
    _validate.has_shape("dy", dy, (*x.shape[:2], *out), "the shape of the output")
    for axis, count in enumerate(out, start=2):
        shape = list(dy.shape)
        shape[axis] = x.shape[axis]
        dx = np.zeros(shape, dy.dtype)
        for i, (start, stop) in enumerate(_bins(x.shape[axis], count)):
            share = np.moveaxis(dy, axis, -1)[..., i : i + 1] / dy.dtype.type(stop - start)
            np.moveaxis(dx, axis, -1)[..., start:stop] += share
        dy = dx
    return dy


def _adaptive_winners(x, out):
    """Return the largest entry of each cell of the grid, and its position in the image."""
    y = np.empty((*x.shape[:2], *out), x.dtype)
    positions = np.empty(y.shape, np.int64)
    bins = [_bins(size, count) for size, count in zip(x.shape[2:], out, strict=True)]
    numbers = np.arange(math.prod(x.shape[2:])).reshape(x.shape[2:])
    for cell in np.ndindex(out):
        inside = tuple(slice(*axis[i]) for axis, i in zip(bins, cell, strict=True))
        y[:, :, *cell], place = _largest(x[:, :, *inside])
        positions[:, :, *cell] = numbers[inside].reshape(-1)[place]
    return y, positions


def _adaptive_max_backward(dy, x, out, positions):
    dy = _validate.floats("dy", dy)
    _validate.same_dtype(dy=dy, x=x)
    _validate.has_shape("dy", dy, (*x.shape[:2], *out), "the shape of the output")
    if positions is None:
        _, positions = _adaptive_winners(x, out)
    dx = np.zeros((*x.shape[:2], math.prod(x.shape[2:])), x.dtype)
    image, channel = np.ogrid[: x.shape[0], : x.shape[1]]
    for cell in np.ndindex(out):  # cells may overlap, so that an entry is the largest of several
        dx[image, channel, positions[:, :, *cell]] += dy[:, :, *cell]
    return dx.reshape(x.shape)


def _bins(size, count):
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


# ---- power mean ------------------------------------------------------------------------------


def lp_pool1d(
    x: Float[np.ndarray, "n c length"],
    norm_type: Number,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
) -> Float[np.ndarray, "n c out"]:
    """Return the p-norm of each window; see `lp_pool2d`."""
    x, g, p = _check_lp(x, norm_type, kernel_size, stride, ceil_mode, axes=1)
    return _lp(x, g, p)


def lp_pool1d_backward(
    dy: Float[np.ndarray, "n c out"],
    x: Float[np.ndarray, "n c length"],
    norm_type: Number,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
) -> Float[np.ndarray, "n c length"]:
    """Return dx = Σ dy (x / y)^(p - 1) over the windows; 0 where y is 0."""
    x, g, p = _check_lp(x, norm_type, kernel_size, stride, ceil_mode, axes=1)
    return _lp_backward(_check_upstream(dy, x, g), x, g, p)


def lp_pool2d(
    x: Float[np.ndarray, "n c h w"],
    norm_type: Number,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
) -> Float[np.ndarray, "n c h_out w_out"]:
    """Return (Σ xᵖ)^(1/p) over each window, p = norm_type: for p = 2 the length of the vector.

    As in torch the power has no absolute value, so p should be even where x may be negative (a
    negative sum gives NaN), and a window of ceil_mode that reaches past the end is scaled up to
    the full window.
    (Sermanet, Chintala and LeCun, 2012.)
    """
    x, g, p = _check_lp(x, norm_type, kernel_size, stride, ceil_mode, axes=2)
    return _lp(x, g, p)


def lp_pool2d_backward(
    dy: Float[np.ndarray, "n c h_out w_out"],
    x: Float[np.ndarray, "n c h w"],
    norm_type: Number,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
) -> Float[np.ndarray, "n c h w"]:
    """Return dx = Σ dy (x / y)^(p - 1) over the windows; 0 where y is 0."""
    x, g, p = _check_lp(x, norm_type, kernel_size, stride, ceil_mode, axes=2)
    return _lp_backward(_check_upstream(dy, x, g), x, g, p)


def _lp(x, g: Windows, p):
    with np.errstate(invalid="ignore"):  # a root of a negative number is NaN
        return (_sum(x**p, g) * _scale(g, x.dtype)) ** (1 / p)


def _lp_backward(dy, x, g: Windows, p):
    scale = _scale(g, x.dtype)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = (_sum(x**p, g) * scale) ** (1 / p - 1)
        slope[np.isinf(slope)] = 0  # of an empty sum, at which the root has no derivative
        return _sum_backward(dy * slope * scale, g) * x ** (p - 1)


def _scale(g: Windows, dtype):
    """Return full window / window inside the input."""
    return dtype.type(math.prod(g.kernel)) / _counts(g, True, None, dtype)


# ---- shared pieces ---------------------------------------------------------------------------


def _over_windows(ufunc, x, g: Windows, start, axes=None):
    """Return ufunc reduced over each window, from the value `start`, one axis after another."""
    for axis in range(len(g.size)) if axes is None else axes:
        shape = list(x.shape)
        shape[axis + 2] = g.out[axis]
        pairs = [(windows, x[entries]) for windows, entries in _along(g, axis)]
        # First come the offsets at which every window has an entry: they need no start.
        whole = [part for _, part in pairs if part.shape == tuple(shape)]
        if len(whole) > 1:
            y = ufunc(*whole[:2], order="C")
        else:
            y = whole[0].copy() if whole else np.full(shape, start, x.dtype)
        for part in whole[2:]:
            ufunc(y, part, out=y)
        for windows, part in pairs:
            if part.shape != tuple(shape):
                ufunc(y[windows], part, out=y[windows])
        x = y
    return x


def _along(g: Windows, axis):
    """Yield, for each offset along one axis, the windows and their entries, as whole indices."""
    before = (slice(None),) * (axis + 2)
    for i in range(g.kernel[axis]):
        start = i * g.dilation[axis] - g.padding[axis]
        windows, entries = _windows.inside(g.size[axis], g.stride[axis], start, g.out[axis])
        yield (*before, windows), (*before, entries)


def _flat(x):
    return x.reshape(*x.shape[:2], math.prod(x.shape[2:]))


# ---- arguments -------------------------------------------------------------------------------


def _check_windows(x, kernel_size, stride, padding, dilation, ceil_mode, axes):
    x = _validate.floats("x", x, ndim=axes + 2)
    size = x.shape[2:]
    kernel = _windows.sizes("kernel_size", kernel_size, axes, low=1)
    stride = kernel if stride is None else _windows.sizes("stride", stride, axes, low=1)
    padding = _windows.sizes("padding", padding, axes, low=0)
    dilation = _windows.sizes("dilation", dilation, axes, low=1)
    spans = _windows.extent(kernel, dilation)
    if any(2 * p > span for p, span in zip(padding, spans, strict=True)):
        raise ValueError(
            f"padding must be at most half of the window, got {padding} for windows that span "
            f"{spans}"
        )
    out = []
    for n, s, p, span in zip(size, stride, padding, spans, strict=True):
        room = n + 2 * p - span
        count = room // s + 1
        # One more window where entries are left over and it starts before the end of the input.
        if ceil_mode and room % s and count * s < n + p:
            count += 1
        if n < 1 or count < 1:
            raise ValueError(
                f"windows must fit into the padded input: they span {spans}, the size of x is "
                f"{size} and the padding {padding}"
            )
        out.append(count)
    return x, Windows(size, kernel, stride, dilation, padding, tuple(out))


def _check_lp(x, norm_type, kernel_size, stride, ceil_mode, axes):
    p = _validate.number("norm_type", norm_type)
    if p <= 0:
        raise ValueError(f"norm_type must be positive, got {norm_type}")
    return *_check_windows(x, kernel_size, stride, 0, 1, ceil_mode, axes), p


def _check_adaptive(x, output_size, axes):
    x = _validate.floats("x", x, ndim=axes + 2)
    if isinstance(output_size, tuple | list) and len(output_size) == axes:
        pairs = zip(output_size, x.shape[2:], strict=True)
        output_size = tuple(size if count is None else count for count, size in pairs)
    out = _windows.sizes("output_size", output_size, axes, low=1)
    if min(x.shape[2:]) < 1:
        raise ValueError(f"x must have entries to pool, got shape {x.shape}")
    return x, out


def _check_unpool(x, indices, kernel_size, stride, padding, output_size):
    x = _validate.floats("x", x, ndim=4)
    kernel = _windows.sizes("kernel_size", kernel_size, 2, low=1)
    stride = kernel if stride is None else _windows.sizes("stride", stride, 2, low=1)
    padding = _windows.sizes("padding", padding, 2, low=0)
    if output_size is None:
        geometry = zip(x.shape[2:], stride, padding, kernel, strict=True)
        size = tuple((n - 1) * s - 2 * p + k for n, s, p, k in geometry)
        if min(size) < 1:
            raise ValueError(f"padding leaves no output: its size would be {size}")
    else:
        # As in torch, the shape of the whole result will do.
        output_size = output_size[2:] if len(output_size) == 4 else output_size
        size = _windows.sizes("output_size", output_size, 2, low=1)
    indices = _validate.labels("indices", indices, classes=math.prod(size), shape=x.shape)
    return x, indices, size


def _check_upstream(dy, x, g: Windows):
    dy = _validate.floats("dy", dy)
    _validate.same_dtype(dy=dy, x=x)
    return _validate.has_shape("dy", dy, (*x.shape[:2], *g.out), "the shape of the output")
