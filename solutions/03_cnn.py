# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Exercises 3 · Convolutional networks
#
# Twelve questions on [chapter 3](../notebooks/03_cnn.ipynb), from a warm-up to an open challenge. Write
# your code where a cell says `raise NotImplementedError`, run the cell, then run the check below it: it
# says at once what holds, what does not, and gives a hint. A teacher's grading adds hidden checks on
# other inputs (odd sizes, a batch of one, unequal sides), so make your functions right for every input
# that the task allows.
#
# Use NumPy and the standard library only. No function may change the arrays that it is given. Arrays are
# float64. "Convolution" is cross-correlation, as everywhere in this book.

# %%
# Set-up: import dlnotes, and install it first where it is missing (Colab).
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("dlnotes") is None:
    source = "dlnotes @ git+https://github.com/dlnotes/dlnotes"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)

import numpy as np

from dlnotes.course import Grader

grader = Grader("03_cnn")


# %% tags=["test"]
from dlnotes import kernels


def near(actual, expected, rtol=1e-6, atol=1e-9):
    return np.shape(actual) == np.shape(expected) and np.allclose(
        actual, expected, rtol=rtol, atol=atol
    )


# %% [markdown] tags=["q1", "outcome-1"]
# ## Question 1 · Sizes, parameters, work (warm-up)
#
# Write
#
# - `out_size(n, k, s=1, p=0, d=1)`: the number of outputs along an axis of `n` pixels for a kernel of
#   `k`, stride `s`, padding `p` on both sides and dilation `d`; 0 where the kernel does not fit;
# - `conv_cost(channels, height, width, out, k, s=1, p=0, d=1, groups=1, bias=True)`: the tuple
#   `(parameters, macs)` of a square convolution for one picture;
# - `same_padding(k, d=1)`: the padding that keeps the size at stride 1, or `None` where there is no such
#   whole number.


# %% tags=["answer", "q1"]
def out_size(n, k, s=1, p=0, d=1):
    """Return the number of outputs along one axis."""
    # BEGIN SOLUTION
    room = n + 2 * p - d * (k - 1) - 1
    return room // s + 1 if room >= 0 else 0
    # END SOLUTION


def conv_cost(channels, height, width, out, k, s=1, p=0, d=1, groups=1, bias=True):
    """Return (parameters, multiply-accumulates for one picture)."""
    # BEGIN SOLUTION
    weights = out * (channels // groups) * k * k
    positions = out_size(height, k, s, p, d) * out_size(width, k, s, p, d)
    return weights + out * bias, weights * positions
    # END SOLUTION


def same_padding(k, d=1):
    """Return the padding that keeps the size at stride 1, or None."""
    # BEGIN SOLUTION
    total = d * (k - 1)
    return total // 2 if total % 2 == 0 else None
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q1"]
# **Why.** The dilated kernel spans $d(k-1)+1$ pixels; the first window starts at 0 and the last at most
# at $n + 2p - d(k-1) - 1$, so there are that many strides, rounded down, plus one. Each weight is used
# once at each output position, so the work is weights times positions. The size stays if
# $2p = d(k-1)$.


# %% tags=["test"]
def sizes(s, settings):
    for n, k, st, p, d in settings:
        expected = kernels.conv1d(np.zeros((1, 1, n)), np.zeros((1, 1, k)), None, st, p, d).shape[2]
        got = given(s.out_size(n, k, st, p, d), "out_size")
        assert d == 1 or got != (n + 2 * p - k) // st + 1 or got == expected, (
            f"n={n}, k={k}, d={d}: you forgot that dilation widens the kernel to d(k-1)+1 pixels"
        )
        assert got != (n + p - d * (k - 1) - 1) // st + 1 or got == expected, (
            "padding stands on both sides: count it twice"
        )
        assert got == expected, (
            f"n={n}, k={k}, s={st}, p={p}, d={d}: got {got}, expected {expected}"
        )


@test("q1", 1, hint="how far does the dilated kernel reach, and how often can it be moved?")
def number_of_outputs(s):
    sizes(s, [(28, 5, 1, 2, 1), (63, 7, 2, 3, 1), (13, 3, 2, 0, 2), (12, 3, 5, 1, 3)])


@test("q1", 1, hint="each kernel spans channels / groups; each weight works once at each output")
def parameters_and_work(s):
    parameters, macs = several(s.conv_cost(6, 17, 12, 10, 3, 2, 1), "conv_cost", 2)
    assert parameters != 10 * 9 + 10, "a kernel spans *all* input channels, not one"
    assert parameters == 10 * 6 * 9 + 10, f"parameters: got {parameters}"
    assert macs != 10 * 6 * 9 * 17 * 12, "count the positions of the *output*, not of the input"
    assert macs == 10 * 6 * 9 * 9 * 6, f"macs: got {macs}, expected {10 * 6 * 9 * 9 * 6}"


@test("q1", 1, hint="2p = d(k-1)")
def padding_that_keeps_the_size(s):
    assert [s.same_padding(3), s.same_padding(7), s.same_padding(5, 3)] == [1, 3, 6]
    assert s.same_padding(4) is None, "an even kernel would need half a pixel on each side"


@test(
    "q1",
    1,
    hint="does the kernel fit at all? groups divide the channels; a bias is optional",
    hidden=True,
)
def awkward_settings(s):
    sizes(s, [(1, 1, 1, 0, 1), (5, 5, 3, 0, 1), (9, 2, 4, 2, 3), (31, 4, 3, 1, 2)])
    assert s.out_size(4, 7) == 0, "a kernel of 7 does not fit on 4 pixels: 0 outputs"
    assert s.out_size(5, 3, 1, 0, 4) == 0, "a dilated kernel of 9 does not fit on 5 pixels"
    assert tuple(s.conv_cost(8, 9, 5, 8, 3, 1, 1, 1, 8, False)) == (72, 72 * 45), (
        "depthwise, no bias"
    )
    assert s.same_padding(4, 2) == 3 and s.same_padding(1, 5) == 0


# %% tags=["wrong", "q1"]
# expect: you forgot that dilation widens the kernel
def out_size(n, k, s=1, p=0, d=1):
    return max(0, (n + 2 * p - k) // s + 1)


def conv_cost(channels, height, width, out, k, s=1, p=0, d=1, groups=1, bias=True):
    weights = out * (channels // groups) * k * k
    return weights + out * bias, weights * out_size(height, k, s, p, d) * out_size(
        width, k, s, p, d
    )


def same_padding(k, d=1):
    return d * (k - 1) // 2 if d * (k - 1) % 2 == 0 else None


# %% tags=["wrong", "q1"]
# expect: a kernel spans *all* input channels
def out_size(n, k, s=1, p=0, d=1):
    room = n + 2 * p - d * (k - 1) - 1
    return room // s + 1 if room >= 0 else 0


def conv_cost(channels, height, width, out, k, s=1, p=0, d=1, groups=1, bias=True):
    positions = out_size(height, k, s, p, d) * out_size(width, k, s, p, d)
    return out * k * k + out * bias, out * k * k * positions


def same_padding(k, d=1):
    return d * (k - 1) // 2 if d * (k - 1) % 2 == 0 else None


# %% tags=["wrong", "q1"]
# expect: count the positions of the *output*
def out_size(n, k, s=1, p=0, d=1):
    room = n + 2 * p - d * (k - 1) - 1
    return room // s + 1 if room >= 0 else 0


def conv_cost(channels, height, width, out, k, s=1, p=0, d=1, groups=1, bias=True):
    weights = out * (channels // groups) * k * k
    return weights + out * bias, weights * height * width


def same_padding(k, d=1):
    return d * (k - 1) // 2 if d * (k - 1) % 2 == 0 else None


# %% tags=["wrong", "q1"]
# expect: an even kernel would need half a pixel
def out_size(n, k, s=1, p=0, d=1):
    room = n + 2 * p - d * (k - 1) - 1
    return room // s + 1 if room >= 0 else 0


def conv_cost(channels, height, width, out, k, s=1, p=0, d=1, groups=1, bias=True):
    weights = out * (channels // groups) * k * k
    return weights + out * bias, weights * out_size(height, k, s, p, d) * out_size(
        width, k, s, p, d
    )


def same_padding(k, d=1):
    return d * (k - 1) // 2


# %% [markdown] tags=["q2", "outcome-1"]
# ## Question 2 · Convolution without a loop over pixels
#
# Write `conv2d(x, w, b, s=1, p=0, groups=1)` for `x` of shape `(n, C, h, w)`, `w` of shape
# `(O, C / groups, kh, kw)` (the kernel need not be square) and `b` of shape `(O,)`. Loop over the
# kernel's offsets and the groups if you like, but not over pictures or pixels. Output channel $o$ sees
# the input channels of group $\lfloor o \cdot \text{groups} / O \rfloor$.


# %% tags=["answer", "q2"]
def conv2d(x, w, b, s=1, p=0, groups=1):
    """Return the convolution (n, O, h', w') of x with w, plus b."""
    # BEGIN SOLUTION
    x = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    o, each, kh, kw = w.shape
    rows, cols = (x.shape[2] - kh) // s + 1, (x.shape[3] - kw) // s + 1
    y = np.zeros((len(x), groups, o // groups, rows, cols))
    w = w.reshape(groups, o // groups, each, kh, kw)
    for i in range(kh):
        for j in range(kw):
            patch = x[:, :, i : i + s * rows : s, j : j + s * cols : s]
            patch = patch.reshape(len(x), groups, each, rows, cols)
            y += np.einsum("ngcuv,goc->ngouv", patch, w[..., i, j])
    return y.reshape(len(x), o, rows, cols) + b[:, None, None]
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q2"]
# **Why.** For a fixed offset $(i, j)$ all outputs together need one strided slice of the padded input
# that starts at $(i, j)$. Its channels are mixed by the matrix $W_{:,:,i,j}$, a sum over channels that
# `einsum` writes down. Sum over the offsets. A group is one more axis that is not summed.


# %% tags=["test"]
def conv_case(s, seed, shape, w_shape, stride, p, groups):
    x, w, b = (
        rng(seed).normal(size=shape),
        rng(seed + 1).normal(size=w_shape),
        rng(seed + 2).normal(size=w_shape[0]),
    )
    expected = kernels.conv2d(x, w, b, stride, p, 1, groups)
    with unchanged(x=x, w=w, b=b):
        y = array(given(s.conv2d(x, w, b, stride, p, groups), "conv2d"))
    same_shape(y, expected, "the output")
    assert not near(y, expected - b[:, None, None]), "you forgot the bias"
    if not near(y, expected):
        turned = np.ascontiguousarray(w[:, :, ::-1, ::-1])
        assert not near(y, kernels.conv2d(x, turned, b, stride, p, 1, groups)), (
            "you turned the kernel: that is mathematics' convolution, not the cross-correlation of the book"
        )
    assert near(y, expected), f"stride {stride}, padding {p}, groups {groups}: wrong values"


@test("q2", 2, hint="for each offset (i, j): a slice of the input times w[:, :, i, j]")
def one_group(s):
    conv_case(s, 1, (2, 3, 7, 5), (4, 3, 3, 3), 1, 0, 1)
    conv_case(s, 4, (2, 3, 7, 6), (4, 3, 3, 3), 1, 1, 1)


@test("q2", 1, hint="slices take a step: x[..., i : i + s * rows : s, …]")
def with_stride(s):
    conv_case(s, 7, (1, 2, 9, 8), (5, 2, 3, 3), 2, 1, 1)


@test("q2", 1, hint="channels of another group must have no influence")
def two_groups(s):
    conv_case(s, 10, (2, 4, 6, 5), (6, 2, 3, 3), 1, 1, 2)


@test("q2", 1, hint="the kernel may have unequal sides; depthwise is groups = C", hidden=True)
def unequal_sides_and_depthwise(s):
    conv_case(s, 13, (1, 1, 4, 9), (1, 1, 2, 5), 3, 2, 1)
    conv_case(s, 16, (3, 6, 7, 8), (12, 1, 3, 2), 2, 0, 6)
    conv_case(s, 19, (1, 3, 3, 3), (2, 3, 3, 3), 1, 0, 1)


# %% tags=["wrong", "q2"]
# expect: you turned the kernel
def conv2d(x, w, b, s=1, p=0, groups=1):
    x = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    o, each, kh, kw = w.shape
    rows, cols = (x.shape[2] - kh) // s + 1, (x.shape[3] - kw) // s + 1
    y = np.zeros((len(x), groups, o // groups, rows, cols))
    w = w.reshape(groups, o // groups, each, kh, kw)
    for i in range(kh):
        for j in range(kw):
            patch = x[:, :, i : i + s * rows : s, j : j + s * cols : s]
            patch = patch.reshape(len(x), groups, each, rows, cols)
            y += np.einsum("ngcuv,goc->ngouv", patch, w[..., kh - 1 - i, kw - 1 - j])
    return y.reshape(len(x), o, rows, cols) + b[:, None, None]


# %% tags=["wrong", "q2"]
# expect: you forgot the bias
def conv2d(x, w, b, s=1, p=0, groups=1):
    x = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    o, each, kh, kw = w.shape
    rows, cols = (x.shape[2] - kh) // s + 1, (x.shape[3] - kw) // s + 1
    y = np.zeros((len(x), groups, o // groups, rows, cols))
    w = w.reshape(groups, o // groups, each, kh, kw)
    for i in range(kh):
        for j in range(kw):
            patch = x[:, :, i : i + s * rows : s, j : j + s * cols : s]
            patch = patch.reshape(len(x), groups, each, rows, cols)
            y += np.einsum("ngcuv,goc->ngouv", patch, w[..., i, j])
    return y.reshape(len(x), o, rows, cols)


# %% tags=["wrong", "q2"]
# expect: channels of another group must have no influence
def conv2d(x, w, b, s=1, p=0, groups=1):
    x = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    o, each, kh, kw = w.shape
    rows, cols = (x.shape[2] - kh) // s + 1, (x.shape[3] - kw) // s + 1
    y = np.zeros((len(x), o, rows, cols))
    for i in range(kh):
        for j in range(kw):
            patch = x[:, :each, i : i + s * rows : s, j : j + s * cols : s]
            y += np.einsum("ncuv,oc->nouv", patch, w[:, :, i, j])
    return y + b[:, None, None]


# %% [markdown] tags=["q3", "outcome-1", "outcome-2"]
# ## Question 3 · Columns and back
#
# Write, for pictures `x` of shape `(n, C, h, w)`, stride 1 and no padding,
#
# - `im2col(x, k)`: shape `(n, C * k * k, rows * cols)`; each column is one window, its entries in the
#   order channel, row, column; windows row by row;
# - `col2im(columns, shape, k)`: the transpose of `im2col` as a linear map: an array of the shape `shape`
#   in which each entry of `columns` has been *added* to the pixel that it was a copy of;
# - `uses(h, w, k)`: how many windows see each pixel, shape `(h, w)`.


# %% tags=["answer", "q3"]
def im2col(x, k):
    """Return the windows of x as columns."""
    # BEGIN SOLUTION
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3))
    n, channels, rows, cols = windows.shape[:4]
    return windows.transpose(0, 1, 4, 5, 2, 3).reshape(n, channels * k * k, rows * cols)
    # END SOLUTION


def col2im(columns, shape, k):
    """Add each entry of the columns to the pixel that it came from."""
    # BEGIN SOLUTION
    n, channels, h, w = shape
    rows, cols = h - k + 1, w - k + 1
    parts = columns.reshape(n, channels, k, k, rows, cols)
    x = np.zeros(shape)
    for i in range(k):
        for j in range(k):
            x[:, :, i : i + rows, j : j + cols] += parts[:, :, i, j]
    return x
    # END SOLUTION


def uses(h, w, k):
    """Return how many windows see each pixel."""
    # BEGIN SOLUTION
    return col2im(np.ones((1, k * k, (h - k + 1) * (w - k + 1))), (1, 1, h, w), k)[0, 0]
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q3"]
# **Why.** `im2col` copies pixel $(r+i, c+j)$ to row $(m, i, j)$ and column $(r, c)$. Its transpose sends
# every copy back, so a pixel gets the sum over all windows that hold it. With ones as columns the sum
# counts the windows: 1 in a corner, up to $k^2$ inside. That is why `col2im(im2col(x))` is not `x`, but
# `x` times `uses`.


# %% tags=["test"]
@test("q3", 1, hint="rows in the order channel, i, j; columns in the order r, c")
def columns_are_windows(s):
    x = rng(30).normal(size=(2, 3, 5, 4))
    with unchanged(x=x):
        columns = array(given(s.im2col(x, 3), "im2col"))
    expected = kernels.unfold(x, 3)
    same_shape(columns, expected, "the columns")
    other = expected.reshape(2, 3, 9, 6).swapaxes(1, 2).reshape(2, 27, 6)
    assert not near(columns, other), "the channel comes first in a column, then the offset"
    assert near(columns, expected), "the shape is right, the order is not: channel, row, column"


@test("q3", 1, hint="⟨im2col(x), c⟩ = ⟨x, col2im(c)⟩ for all x and c")
def transpose(s):
    x, c = rng(31).normal(size=(2, 3, 5, 6)), rng(32).normal(size=(2, 12, 20))
    back = array(given(s.col2im(c, (2, 3, 5, 6), 2), "col2im"))
    same_shape(back, x, "col2im's result")
    expected = kernels.unfold_backward(c, x, 2)
    last = np.zeros((2, 3, 5, 6))
    parts = c.reshape(2, 3, 2, 2, 4, 5)
    for i in range(2):
        for j in range(2):
            last[:, :, i : i + 4, j : j + 5] = parts[:, :, i, j]
    assert not near(back, last), "windows overlap: add (+=), do not overwrite"
    divided = expected / kernels.unfold_backward(np.ones_like(c), x, 2)
    assert not near(back, divided), "you took the mean over the windows; the transpose is a sum"
    assert near(back, expected), "the inner products differ"


@test("q3", 1, hint="a corner pixel is seen by one window only")
def windows_per_pixel(s):
    expected = kernels.unfold_backward(np.ones((1, 9, 12)), np.zeros((1, 1, 6, 5)), 3)[0, 0]
    counts = array(given(s.uses(6, 5, 3), "uses"))
    assert near(counts, expected), f"for 6 x 5 pixels and k = 3 the first row is {expected[0]}"


@test("q3", 1, hint="k may be 1, or as large as the picture", hidden=True)
def extremes(s):
    for shape, k in [((1, 2, 4, 4), 4), ((3, 1, 2, 7), 1), ((1, 5, 3, 8), 2)]:
        x = rng(33).normal(size=shape)
        columns = kernels.unfold(x, k)
        assert near(array(s.im2col(x, k)), columns), f"im2col, shape {shape}, k = {k}"
        c = rng(34).normal(size=columns.shape)
        assert near(array(s.col2im(c, shape, k)), kernels.unfold_backward(c, x, k)), (
            f"col2im, k = {k}"
        )


# %% tags=["wrong", "q3"]
# expect: windows overlap: add
def im2col(x, k):
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3))
    n, channels, rows, cols = windows.shape[:4]
    return windows.transpose(0, 1, 4, 5, 2, 3).reshape(n, channels * k * k, rows * cols)


def col2im(columns, shape, k):
    n, channels, h, w = shape
    rows, cols = h - k + 1, w - k + 1
    parts = columns.reshape(n, channels, k, k, rows, cols)
    x = np.zeros(shape)
    for i in range(k):
        for j in range(k):
            x[:, :, i : i + rows, j : j + cols] = parts[:, :, i, j]
    return x


def uses(h, w, k):
    up, left = np.arange(h), np.arange(w)
    count = lambda at, n: np.minimum(np.minimum(at + 1, n - at), np.minimum(k, n - k + 1))
    return np.outer(count(up, h), count(left, w)).astype(float)


# %% tags=["wrong", "q3"]
# expect: you took the mean over the windows
def im2col(x, k):
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3))
    n, channels, rows, cols = windows.shape[:4]
    return windows.transpose(0, 1, 4, 5, 2, 3).reshape(n, channels * k * k, rows * cols)


def col2im(columns, shape, k):
    n, channels, h, w = shape
    rows, cols = h - k + 1, w - k + 1
    parts = columns.reshape(n, channels, k, k, rows, cols)
    x, counts = np.zeros(shape), np.zeros(shape)
    for i in range(k):
        for j in range(k):
            x[:, :, i : i + rows, j : j + cols] += parts[:, :, i, j]
            counts[:, :, i : i + rows, j : j + cols] += 1
    return x / counts


def uses(h, w, k):
    up, left = np.arange(h), np.arange(w)
    count = lambda at, n: np.minimum(np.minimum(at + 1, n - at), np.minimum(k, n - k + 1))
    return np.outer(count(up, h), count(left, w)).astype(float)


# %% tags=["wrong", "q3"]
# expect: the channel comes first in a column
def im2col(x, k):
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3))
    n, channels, rows, cols = windows.shape[:4]
    return windows.transpose(0, 4, 5, 1, 2, 3).reshape(n, channels * k * k, rows * cols)


def col2im(columns, shape, k):
    n, channels, h, w = shape
    rows, cols = h - k + 1, w - k + 1
    parts = columns.reshape(n, channels, k, k, rows, cols)
    x = np.zeros(shape)
    for i in range(k):
        for j in range(k):
            x[:, :, i : i + rows, j : j + cols] += parts[:, :, i, j]
    return x


def uses(h, w, k):
    return col2im(np.ones((1, k * k, (h - k + 1) * (w - k + 1))), (1, 1, h, w), k)[0, 0]


# %% [markdown] tags=["q4", "outcome-2"]
# ## Question 4 · The backward pass (derivation, checked numerically)
#
# Derive the three gradients of $y_{n,o} = b_o + \sum_m W_{o,m} \star x_{n,m}$ with stride `s` and padding
# `p`, and write `conv2d_backward(dy, x, w, s=1, p=0)`, which returns `(dx, dw, db)`. Shapes: `dy`
# `(n, O, h', w')`, `x` `(n, C, h, w)`, `w` `(O, C, k, k)`. The loss is a sum over the batch: do not
# divide by `n`. With a stride, some rows of `x` may not be used at all.


# %% tags=["answer", "q4"]
def conv2d_backward(dy, x, w, s=1, p=0):
    """Return the gradients of x, w and b."""
    # BEGIN SOLUTION
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    dpadded, dw = np.zeros_like(padded), np.zeros_like(w)
    rows, cols = dy.shape[2:]
    for i in range(w.shape[2]):
        for j in range(w.shape[3]):
            at = (..., slice(i, i + s * rows, s), slice(j, j + s * cols, s))
            dw[:, :, i, j] = np.einsum("nouv,ncuv->oc", dy, padded[at])
            dpadded[at] += np.einsum("nouv,oc->ncuv", dy, w[:, :, i, j])
    h, width = x.shape[2:]
    return dpadded[:, :, p : p + h, p : p + width], dw, dy.sum((0, 2, 3))
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q4"]
# **Why.** Weight $W_{o,m,i,j}$ multiplies the pixel at $(rs+i, cs+j)$ in every picture and at every
# output $(r, c)$; its gradient is the sum of $\mathrm dy$ times these pixels. That same product makes the
# pixel receive $W_{o,m,i,j}\,\mathrm dy_{n,o,r,c}$. The slice that an offset reads forward is the slice
# that it adds to backward. What was added to the padding is cut off. The bias is added everywhere, so its
# gradient is the sum of $\mathrm dy$ over pictures and places.


# %% tags=["test"]
def backward_case(s, seed, shape, w_shape, stride, p):
    r = rng(seed)
    x, w = r.normal(size=shape), r.normal(size=w_shape)
    dy = r.normal(size=kernels.conv2d(x, w, None, stride, p).shape)
    expected = kernels.conv2d_backward(dy, x, w, np.zeros(len(w)), stride, p)
    with unchanged(dy=dy, x=x, w=w):
        got = several(s.conv2d_backward(dy, x, w, stride, p), "conv2d_backward", 3)
    return [array(g) for g in got], expected, (dy, x, w)


@test("q4", 1, hint="sum over pictures and places of dy times the pixel")
def gradient_of_the_weight(s):
    (_, dw, _), (_, expected, _), (dy, x, _) = backward_case(
        s, 40, (3, 2, 6, 5), (4, 2, 3, 3), 1, 0
    )
    same_shape(dw, expected, "dw")
    assert not near(dw, expected / 3), "you divided by the batch size: the task asks for the sum"
    assert not near(dw, expected[:, :, ::-1, ::-1]), "dw is turned by 180 degrees"
    assert near(dw, expected), "dw is wrong; compare one entry with a difference quotient"


@test("q4", 1, hint="every window that holds the pixel gives it something: add")
def gradient_of_the_input(s):
    (dx, _, _), (expected, _, _), (dy, x, w) = backward_case(
        s, 41, (2, 3, 6, 5), (4, 3, 3, 3), 1, 0
    )
    same_shape(dx, expected, "dx")
    last = np.zeros_like(x)
    for i in range(3):
        for j in range(3):
            last[:, :, i : i + 4, j : j + 3] = np.einsum("nouv,oc->ncuv", dy, w[:, :, i, j])
    assert not near(dx, last), "windows overlap: add to dx (+=), do not overwrite it"
    assert near(dx, expected), "dx is wrong; compare one entry with a difference quotient"


@test("q4", 1, hint="the bias is used at every place of every picture")
def gradient_of_the_bias(s):
    (_, _, db), (_, _, expected), (dy, _, _) = backward_case(
        s, 42, (3, 2, 5, 5), (4, 2, 3, 3), 1, 1
    )
    assert not near(db, dy.mean((0, 2, 3))), "db is a sum, not a mean"
    assert np.shape(db) == (4,), (
        f"db has the shape {np.shape(db)}: sum over pictures, rows *and* columns"
    )
    assert near(db, expected), "db is wrong"


@test("q4", 1, hint="cut the padding off dx; pixels that no window sees get 0", hidden=True)
def stride_and_padding(s):
    for seed, shape, w_shape, stride, p in [
        (43, (1, 2, 8, 7), (3, 2, 3, 3), 2, 1), (44, (2, 1, 9, 6), (1, 1, 2, 2), 3, 0),
        (45, (1, 3, 4, 4), (2, 3, 4, 4), 1, 2),
    ]:  # fmt: skip
        got, expected, _ = backward_case(s, seed, shape, w_shape, stride, p)
        for name, g, e in zip(("dx", "dw", "db"), got, expected, strict=True):
            same_shape(g, e, name)
            assert near(g, e), f"{name} is wrong at stride {stride}, padding {p}"


# %% tags=["wrong", "q4"]
# expect: windows overlap: add to dx
def conv2d_backward(dy, x, w, s=1, p=0):
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    dpadded, dw = np.zeros_like(padded), np.zeros_like(w)
    rows, cols = dy.shape[2:]
    for i in range(w.shape[2]):
        for j in range(w.shape[3]):
            at = (..., slice(i, i + s * rows, s), slice(j, j + s * cols, s))
            dw[:, :, i, j] = np.einsum("nouv,ncuv->oc", dy, padded[at])
            dpadded[at] = np.einsum("nouv,oc->ncuv", dy, w[:, :, i, j])
    h, width = x.shape[2:]
    return dpadded[:, :, p : p + h, p : p + width], dw, dy.sum((0, 2, 3))


# %% tags=["wrong", "q4"]
# expect: you divided by the batch size
def conv2d_backward(dy, x, w, s=1, p=0):
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    dpadded, dw = np.zeros_like(padded), np.zeros_like(w)
    rows, cols = dy.shape[2:]
    for i in range(w.shape[2]):
        for j in range(w.shape[3]):
            at = (..., slice(i, i + s * rows, s), slice(j, j + s * cols, s))
            dw[:, :, i, j] = np.einsum("nouv,ncuv->oc", dy, padded[at]) / len(x)
            dpadded[at] += np.einsum("nouv,oc->ncuv", dy, w[:, :, i, j])
    h, width = x.shape[2:]
    return dpadded[:, :, p : p + h, p : p + width], dw, dy.sum((0, 2, 3)) / len(x)


# %% tags=["wrong", "q4"]
# expect: sum over pictures, rows *and* columns
def conv2d_backward(dy, x, w, s=1, p=0):
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    dpadded, dw = np.zeros_like(padded), np.zeros_like(w)
    rows, cols = dy.shape[2:]
    for i in range(w.shape[2]):
        for j in range(w.shape[3]):
            at = (..., slice(i, i + s * rows, s), slice(j, j + s * cols, s))
            dw[:, :, i, j] = np.einsum("nouv,ncuv->oc", dy, padded[at])
            dpadded[at] += np.einsum("nouv,oc->ncuv", dy, w[:, :, i, j])
    h, width = x.shape[2:]
    return dpadded[:, :, p : p + h, p : p + width], dw, dy.sum(0)


# %% tags=["wrong", "q4"]
# expect: dw is turned by 180 degrees
def conv2d_backward(dy, x, w, s=1, p=0):
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    dpadded, dw = np.zeros_like(padded), np.zeros_like(w)
    rows, cols = dy.shape[2:]
    for i in range(w.shape[2]):
        for j in range(w.shape[3]):
            at = (..., slice(i, i + s * rows, s), slice(j, j + s * cols, s))
            dw[:, :, -1 - i, -1 - j] = np.einsum("nouv,ncuv->oc", dy, padded[at])
            dpadded[at] += np.einsum("nouv,oc->ncuv", dy, w[:, :, i, j])
    h, width = x.shape[2:]
    return dpadded[:, :, p : p + h, p : p + width], dw, dy.sum((0, 2, 3))


# %% [markdown] tags=["q5", "outcome-2", "outcome-3"]
# ## Question 5 · Max pooling, and where its gradient goes
#
# Write
#
# - `max_pool(x, k, s)` for `x` of shape `(n, C, h, w)`, windows of `k` with stride `s`, which may overlap
#   or leave pixels out;
# - `max_pool_backward(dy, x, k, s)`: each entry of `dy` goes to the winner of its window, on ties to the
#   *first* in the order of rows, and a pixel that wins several windows gets the sum;
# - `lost(x, k)`: the share of the entries of `x` that could be lowered (by any amount) without changing
#   `max_pool(x, k, k)`: those that win no window. Pixels outside all windows count too.


# %% tags=["answer", "q5"]
def max_pool(x, k, s):
    """Return the largest entry of each window."""
    # BEGIN SOLUTION
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3))
    return windows[:, :, ::s, ::s].max((4, 5))
    # END SOLUTION


def max_pool_backward(dy, x, k, s):
    """Return dx: dy at the first winner of each window, summed."""
    # BEGIN SOLUTION
    dx = np.zeros_like(x)
    for n, m, r, c in np.ndindex(dy.shape):
        window = x[n, m, r * s : r * s + k, c * s : c * s + k]
        i, j = np.unravel_index(window.argmax(), window.shape)
        dx[n, m, r * s + i, c * s + j] += dy[n, m, r, c]
    return dx
    # END SOLUTION


def lost(x, k):
    """Return the share of entries that win no window."""
    # BEGIN SOLUTION
    wins = max_pool_backward(np.ones_like(max_pool(x, k, k)), x, k, k)
    return float(np.mean(wins == 0))
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q5"]
# **Why.** Near $x$ the maximum *is* its winner, so its gradient is 1 there and 0 elsewhere; windows that
# overlap may share a winner, and then the gradients add. With windows of 2 by 2 exactly one of four
# entries wins, so three quarters can be lowered unseen: max pooling loses a great deal, the places of
# the winners included.


# %% tags=["test"]
@test("q5", 1, hint="the largest of each window; windows start at multiples of s")
def pooled_values(s):
    for shape, k, st in [((2, 3, 6, 8), 2, 2), ((1, 2, 7, 7), 3, 2)]:
        x = rng(50).normal(size=shape)
        with unchanged(x=x):
            y = array(given(s.max_pool(x, k, st), "max_pool"))
        expected = kernels.max_pool2d(x, k, st)
        same_shape(y, expected, "max_pool's result")
        assert not near(y, kernels.avg_pool2d(x, k, st)), "that is the mean, not the maximum"
        assert near(y, expected), f"windows of {k}, stride {st}"


@test("q5", 1, hint="only the winner gets a gradient")
def routed_gradient(s):
    x, dy = rng(51).normal(size=(2, 2, 6, 4)), rng(52).normal(size=(2, 2, 3, 2))
    dx = array(given(s.max_pool_backward(dy, x, 2, 2), "max_pool_backward"))
    assert not near(dx, np.repeat(np.repeat(dy, 2, 2), 2, 3) / 4), (
        "you shared dy among the window: that is average pooling"
    )
    assert near(dx, kernels.max_pool2d_backward(dy, x, 2, 2)), "windows of 2, no ties"


@test("q5", 1, hint="ties: argmax gives the first; overlapping windows: +=")
def ties_and_overlaps(s):
    x, dy = rng(53).integers(0, 3, (2, 2, 6, 6)).astype(float), rng(54).normal(size=(2, 2, 3, 3))
    dx = array(s.max_pool_backward(dy, x, 2, 2))
    assert abs(dx.sum() - dy.sum()) < 1e-9, "on ties only the first winner gets dy, not all of them"
    assert near(dx, kernels.max_pool2d_backward(dy, x, 2, 2)), (
        "on ties the *first* in row order wins"
    )
    x, dy = rng(55).normal(size=(1, 2, 7, 7)), rng(56).normal(size=(1, 2, 3, 3))
    dx = array(s.max_pool_backward(dy, x, 3, 2))
    assert near(dx, kernels.max_pool2d_backward(dy, x, 3, 2)), (
        "a pixel that wins two overlapping windows gets both gradients: add"
    )


@test(
    "q5",
    1,
    hint="count the entries that win no window, also those that no window sees",
    hidden=True,
)
def what_is_lost(s):
    x = rng(57).normal(size=(2, 3, 8, 6))
    assert near(float(given(s.lost(x, 2), "lost")), 0.75), "of each 2 x 2 window three of four lose"
    x = rng(58).normal(size=(1, 1, 7, 7))
    assert near(float(s.lost(x, 3)), 1 - 4 / 49), "7 x 7 with windows of 3: 4 winners of 49 pixels"
    x = rng(59).normal(size=(1, 2, 5, 3))
    assert near(array(s.max_pool(x, 3, 1)), kernels.max_pool2d(x, 3, 1)), "stride 1, unequal sides"


# %% tags=["wrong", "q5"]
# expect: on ties only the first winner gets dy
def max_pool(x, k, s):
    return np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3))[:, :, ::s, ::s].max(
        (4, 5)
    )


def max_pool_backward(dy, x, k, s):
    dx = np.zeros_like(x)
    for n, m, r, c in np.ndindex(dy.shape):
        at = (n, m, slice(r * s, r * s + k), slice(c * s, c * s + k))
        dx[at] += dy[n, m, r, c] * (x[at] == x[at].max())
    return dx


def lost(x, k):
    return float(np.mean(max_pool_backward(np.ones_like(max_pool(x, k, k)), x, k, k) == 0))


# %% tags=["wrong", "q5"]
# expect: a pixel that wins two overlapping windows gets both
def max_pool(x, k, s):
    return np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3))[:, :, ::s, ::s].max(
        (4, 5)
    )


def max_pool_backward(dy, x, k, s):
    dx = np.zeros_like(x)
    for n, m, r, c in np.ndindex(dy.shape):
        window = x[n, m, r * s : r * s + k, c * s : c * s + k]
        i, j = np.unravel_index(window.argmax(), window.shape)
        dx[n, m, r * s + i, c * s + j] = dy[n, m, r, c]
    return dx


def lost(x, k):
    return float(np.mean(max_pool_backward(np.ones_like(max_pool(x, k, k)), x, k, k) == 0))


# %% tags=["wrong", "q5"]
# expect: that is average pooling
def max_pool(x, k, s):
    return np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3))[:, :, ::s, ::s].max(
        (4, 5)
    )


def max_pool_backward(dy, x, k, s):
    dx = np.zeros_like(x)
    for n, m, r, c in np.ndindex(dy.shape):
        dx[n, m, r * s : r * s + k, c * s : c * s + k] += dy[n, m, r, c] / k**2
    return dx


def lost(x, k):
    windows = (x.shape[2] // k) * (x.shape[3] // k)
    return 1 - windows / (x.shape[2] * x.shape[3])


# %% [markdown] tags=["q6", "outcome-3"]
# ## Question 6 · What a shift does
#
# A network is a list of `(k, s)`: convolutions (or poolings) of kernel `k` and stride `s` without
# padding, one after another. Pictures are moved around a circle (`np.roll`), so that there is no border.
# Write
#
# - `shift_needed(layers)`: the smallest shift of the input, in pixels, above 0, for which the output of
#   *every* such network is exactly moved too;
# - `output_shift(layers, a)`: by how many output pixels the output then moves when the input is moved by
#   `a` pixels; `None` where no whole shift is guaranteed;
# - `circular(x, w, s)`: the convolution of the signal `x`, shape `(n,)`, around the circle with the kernel
#   `w`, shape `(k,)`, and stride `s`, where `s` divides `n`: $y_r = \sum_i w_i\, x_{(rs+i) \bmod n}$.


# %% tags=["answer", "q6"]
def shift_needed(layers):
    """Return the smallest shift above 0 that every such network keeps."""
    # BEGIN SOLUTION
    needed = 1
    for _, s in layers:
        needed *= s
    return needed
    # END SOLUTION


def output_shift(layers, a):
    """Return the shift of the output for a shift of the input by a, or None."""
    # BEGIN SOLUTION
    needed = shift_needed(layers)
    return a // needed if a % needed == 0 else None
    # END SOLUTION


def circular(x, w, s):
    """Return the circular convolution of x with w at stride s."""
    # BEGIN SOLUTION
    n = len(x)
    at = (np.arange(0, n, s)[:, None] + np.arange(len(w))) % n
    return x[at] @ w
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q6"]
# **Why.** Moving the input by $a$ moves the output of a layer with stride $s$ by $a/s$, which is a shift
# of the same numbers only if $s$ divides $a$; otherwise the layer keeps other outputs than before. Layer
# by layer, the strides multiply. Kernel sizes do not matter.


# %% tags=["test"]
@test("q6", 1, hint="a stride of s turns a shift by a into a/s")
def smallest_shift(s):
    for layers, expected in [
        ([(3, 1), (5, 1)], 1),
        ([(3, 2), (3, 1), (2, 2)], 4),
        ([(7, 2), (3, 3), (2, 2)], 12),
    ]:
        got = given(s.shift_needed(layers), "shift_needed")
        assert got != sum(st for _, st in layers) or got == expected, (
            "strides multiply, they do not add"
        )
        assert got != max(st for _, st in layers) or got == expected, (
            "the largest stride is not enough: they multiply"
        )
        assert got == expected, f"{layers}: got {got}, expected {expected}"


@test("q6", 1, hint="a divided by the product of the strides")
def shift_of_the_output(s):
    layers = [(3, 2), (3, 1), (2, 2)]
    assert s.output_shift(layers, 12) == 3, (
        "a shift by 12 with strides 2, 1, 2 moves the output by 3"
    )
    assert s.output_shift(layers, 6) is None, "6 is not a multiple of 4: no whole shift, so None"


@test("q6", 1, hint="index with (r s + i) modulo n")
def around_the_circle(s):
    x, w = rng(60).normal(size=12), rng(61).normal(size=5)
    with unchanged(x=x, w=w):
        y = array(given(s.circular(x, w, 2), "circular"))
    expected = kernels.conv1d(np.concatenate([x, x[:4]])[None, None], w[None, None], None, 2)[0, 0]
    same_shape(y, expected, "circular's result")
    turned = kernels.conv1d(
        np.concatenate([x, x[:4]])[None, None], np.ascontiguousarray(w[::-1])[None, None], None, 2
    )
    assert not near(y, turned[0, 0]), "the kernel is not turned here: index r s + i, not r s - i"
    assert near(y, expected), "the last windows must go on at the beginning of x"


@test("q6", 1, hint="negative shifts move to the left; no layers: every shift is kept", hidden=True)
def whole_networks(s):
    assert s.shift_needed([]) == 1 and s.output_shift([], -5) == -5
    assert s.output_shift([(3, 2), (3, 3)], -18) == -3
    x, w = rng(62).normal(size=(24)), [rng(63).normal(size=3), rng(64).normal(size=4)]
    net = lambda x: array(s.circular(array(s.circular(x, w[0], 2)), w[1], 3))
    assert near(net(np.roll(x, 6)), np.roll(net(x), 1)), (
        "strides 2 and 3: a shift by 6 is one output pixel"
    )
    assert near(array(s.circular(x, rng(65).normal(size=30)[:24], 4)).shape, (6,)), (
        "a kernel as long as the signal"
    )


# %% tags=["wrong", "q6"]
# expect: strides multiply, they do not add
def shift_needed(layers):
    return max(1, sum(s for _, s in layers)) if any(s > 1 for _, s in layers) else 1


def output_shift(layers, a):
    needed = shift_needed(layers)
    return a // needed if a % needed == 0 else None


def circular(x, w, s):
    at = (np.arange(0, len(x), s)[:, None] + np.arange(len(w))) % len(x)
    return x[at] @ w


# %% tags=["wrong", "q6"]
# expect: the largest stride is not enough
def shift_needed(layers):
    return max([1, *(s for _, s in layers)])


def output_shift(layers, a):
    needed = shift_needed(layers)
    return a // needed if a % needed == 0 else None


def circular(x, w, s):
    at = (np.arange(0, len(x), s)[:, None] + np.arange(len(w))) % len(x)
    return x[at] @ w


# %% tags=["wrong", "q6"]
# expect: no whole shift, so None
def shift_needed(layers):
    return int(np.prod([1, *(s for _, s in layers)]))


def output_shift(layers, a):
    return a // shift_needed(layers)


def circular(x, w, s):
    at = (np.arange(0, len(x), s)[:, None] + np.arange(len(w))) % len(x)
    return x[at] @ w


# %% [markdown] tags=["q7", "outcome-4"]
# ## Question 7 · Receptive fields
#
# Layers are tuples `(k, s, p, d)`: kernel, stride, padding, dilation. Write
#
# - `receptive_field(layers)`: the side of the receptive field of one output;
# - `field_of(layers, index)`: the tuple `(first, last)` of input positions that output number `index`
#   can see along one axis; positions in the padding count, so `first` may be negative;
# - `layers_needed(size, k)`: the smallest number of convolutions with kernel `k` > 1 and stride 1 whose
#   receptive field is at least `size`.


# %% tags=["answer", "q7"]
def receptive_field(layers):
    """Return the side of the receptive field."""
    # BEGIN SOLUTION
    r, jump = 1, 1
    for k, s, _, d in layers:
        r, jump = r + d * (k - 1) * jump, jump * s
    return r
    # END SOLUTION


def field_of(layers, index):
    """Return the first and the last input position that the output sees."""
    # BEGIN SOLUTION
    first = last = index
    for k, s, p, d in reversed(layers):
        first, last = first * s - p, last * s - p + d * (k - 1)
    return first, last
    # END SOLUTION


def layers_needed(size, k):
    """Return how many k-convolutions of stride 1 see at least `size` pixels."""
    # BEGIN SOLUTION
    return -(-(size - 1) // (k - 1))
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q7"]
# **Why.** Output $r$ of a layer sees its inputs $rs - p$ to $rs - p + d(k-1)$. Going from the last layer
# to the first gives the ends of the field; going from the first to the last gives its side, with the
# distance of neighbours (the jump) multiplied by the stride *after* the layer has been counted. At stride 1
# each layer adds $k - 1$.


# %% tags=["test"]
@test("q7", 1, hint="r grows by d (k-1) times the product of the strides of the layers *before*")
def side_of_the_field(s):
    layers = [(7, 2, 3, 1), (3, 2, 1, 1), (3, 1, 2, 2)]
    got = given(s.receptive_field(layers), "receptive_field")
    assert got != 1 + 6 * 2 + 2 * 4 + 4 * 4, (
        "a layer's own stride counts for the layers after it only"
    )
    assert got != 1 + 6 + 2 + 4, (
        "you left out the strides: neighbours of later layers are further apart"
    )
    assert got != 1 + 6 + 2 * 2 + 2 * 4, "dilation widens the kernel: d (k-1)"
    assert got == 27, f"got {got}, expected 27"


@test("q7", 1, hint="go back from the output: first · s - p, last · s - p + d (k-1)")
def ends_of_the_field(s):
    layers = [(5, 1, 2, 1), (2, 2, 0, 1), (3, 2, 1, 1)]
    first, last = several(s.field_of(layers, 3), "field_of", 2)
    assert (first, last) != (12, 21), "padding moves the field to the left"
    assert (first, last) == (8, 17), f"got {(first, last)}, expected (8, 17)"


@test("q7", 1, hint="each layer adds k - 1 pixels")
def depth_needed(s):
    got = [given(s.layers_needed(*a), "layers_needed") for a in ((5, 3), (224, 3), (11, 7))]
    assert got != [2, 111, 1], "round up: the field must be *at least* that large"
    assert got == [2, 112, 2], f"got {got}, expected [2, 112, 2]"


@test("q7", 1, hint="no layers: one pixel; the ends and the side must agree", hidden=True)
def both_agree(s):
    assert s.receptive_field([]) == 1 and tuple(s.field_of([], 7)) == (7, 7)
    r = rng(70)
    for _ in range(20):
        layers = [tuple(int(v) for v in r.integers(1, 5, 4)) for _ in range(4)]
        index = int(r.integers(0, 9))
        size, jump, start = 1, 1, 0
        for k, st, p, d in layers:
            size, start, jump = size + d * (k - 1) * jump, start - p * jump, jump * st
        expected = (start + index * jump, start + index * jump + size - 1)
        assert s.receptive_field(layers) == size, f"{layers}: the side is {size}"
        assert tuple(s.field_of(layers, index)) == expected, f"{layers}, output {index}: {expected}"
    assert s.layers_needed(1, 3) == 0, "one pixel is seen without any layer"


# %% tags=["wrong", "q7"]
# expect: a layer's own stride counts for the layers after it only
def receptive_field(layers):
    r, jump = 1, 1
    for k, s, _, d in layers:
        jump *= s
        r += d * (k - 1) * jump
    return r


def field_of(layers, index):
    first = last = index
    for k, s, p, d in reversed(layers):
        first, last = first * s - p, last * s - p + d * (k - 1)
    return first, last


def layers_needed(size, k):
    return -(-(size - 1) // (k - 1))


# %% tags=["wrong", "q7"]
# expect: you left out the strides
def receptive_field(layers):
    return 1 + sum(d * (k - 1) for k, _, _, d in layers)


def field_of(layers, index):
    first = last = index
    for k, s, p, d in reversed(layers):
        first, last = first * s - p, last * s - p + d * (k - 1)
    return first, last


def layers_needed(size, k):
    return -(-(size - 1) // (k - 1))


# %% tags=["wrong", "q7"]
# expect: padding moves the field to the left
def receptive_field(layers):
    r, jump = 1, 1
    for k, s, _, d in layers:
        r, jump = r + d * (k - 1) * jump, jump * s
    return r


def field_of(layers, index):
    first = last = index
    for k, s, _, d in reversed(layers):
        first, last = first * s, last * s + d * (k - 1)
    return first, last


def layers_needed(size, k):
    return -(-(size - 1) // (k - 1))


# %% tags=["wrong", "q7"]
# expect: round up
def receptive_field(layers):
    r, jump = 1, 1
    for k, s, _, d in layers:
        r, jump = r + d * (k - 1) * jump, jump * s
    return r


def field_of(layers, index):
    first = last = index
    for k, s, p, d in reversed(layers):
        first, last = first * s - p, last * s - p + d * (k - 1)
    return first, last


def layers_needed(size, k):
    return (size - 1) // (k - 1)


# %% [markdown] tags=["q8", "outcome-4"]
# ## Question 8 · Count a network
#
# A network is a list of layers: `("conv", out, k, s, p)`, `("pool", k, s)`, `("global",)` (the mean of each
# map) and `("dense", out)`, which takes all numbers that it gets. All convolutions and dense layers have
# biases. Write `count(layers, shape)` for one picture of `shape` `(C, h, w)`: the tuple
# `(shapes, parameters, macs)`, where `shapes` is the list of the layers' output shapes (tuples; `(out,)`
# after a dense or global layer), and the other two are totals. Count multiply-accumulates of convolutions
# and dense layers only, without biases.


# %% tags=["answer", "q8"]
def count(layers, shape):
    """Return the output shapes, the parameters and the multiply-accumulates."""
    # BEGIN SOLUTION
    shapes, parameters, macs = [], 0, 0
    for kind, *numbers in layers:
        if kind == "conv":
            out, k, s, p = numbers
            weights = out * shape[0] * k * k
            shape = (out, *((side + 2 * p - k) // s + 1 for side in shape[1:]))
            parameters += weights + out
            macs += weights * shape[1] * shape[2]
        elif kind == "pool":
            k, s = numbers
            shape = (shape[0], *((side - k) // s + 1 for side in shape[1:]))
        elif kind == "global":
            shape = (shape[0],)
        else:
            inputs = int(np.prod(shape))
            shape = (numbers[0],)
            parameters += inputs * shape[0] + shape[0]
            macs += inputs * shape[0]
        shapes.append(shape)
    return shapes, parameters, macs
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q8"]
# **Why.** Only the shape has to be carried along. A convolution's weights do not depend on the size of the
# picture, its work does; a dense layer uses each weight once. The checks count LeNet-5 and AlexNet this
# way and meet 61,706 and 61,100,840.


# %% tags=["test"]
LENET = [
    ("conv", 6, 5, 1, 2), ("pool", 2, 2), ("conv", 16, 5, 1, 0), ("pool", 2, 2),
    ("dense", 120), ("dense", 84), ("dense", 10),
]  # fmt: skip
ALEXNET = [
    ("conv", 64, 11, 4, 2), ("pool", 3, 2), ("conv", 192, 5, 1, 2), ("pool", 3, 2), ("conv", 384, 3, 1, 1),
    ("conv", 256, 3, 1, 1), ("conv", 256, 3, 1, 1), ("pool", 3, 2), ("dense", 4096), ("dense", 4096),
    ("dense", 1000),
]  # fmt: skip


def counted(s, layers, shape):
    shapes, parameters, macs = several(s.count(layers, shape), "count", 3)
    return [tuple(int(v) for v in each) for each in shapes], int(parameters), int(macs)


@test("q8", 1, hint="carry the shape along, with the formula for the size")
def shapes_of_lenet(s):
    shapes, _, _ = counted(s, LENET, (1, 28, 28))
    expected = [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120,), (84,), (10,)]
    assert len(shapes) == 7, "one shape for each layer"
    for k, (got, right) in enumerate(zip(shapes, expected, strict=True)):
        assert got == right, f"layer {k} gives {right}, not {got}"


@test("q8", 1, hint="a kernel spans all input channels; biases are parameters")
def parameters_of_lenet(s):
    _, parameters, _ = counted(s, LENET, (1, 28, 28))
    assert parameters != 61_706 - 236, "you left the 236 biases out"
    assert parameters == 61_706, f"LeNet-5 has 61,706 parameters, you counted {parameters:,}"


@test("q8", 1, hint="weights times output positions; biases do not count as work")
def work_of_lenet(s):
    _, _, macs = counted(s, LENET, (1, 28, 28))
    assert macs != 61_470, "a convolution's weights work at *every* position of its output"
    assert macs != 416_520 + 236, "do not count biases as multiply-accumulates"
    assert macs != 588_000 + 16 * 150 * 196 - 470_400 + 58_920, (
        "positions of the *output*, not of the input"
    )
    assert macs == 416_520, f"LeNet-5 has 416,520 multiply-accumulates, you counted {macs:,}"


@test(
    "q8",
    1,
    hint="pictures need not be square; a global mean leaves one number a channel",
    hidden=True,
)
def other_networks(s):
    shapes, parameters, macs = counted(s, ALEXNET, (3, 224, 224))
    assert parameters == 61_100_840, f"AlexNet: 61,100,840 parameters, not {parameters:,}"
    assert macs == 714_188_480, f"AlexNet: 714,188,480 multiply-accumulates, not {macs:,}"
    layers = [("conv", 5, 3, 2, 1), ("global",), ("dense", 4)]
    assert counted(s, layers, (2, 9, 6)) == ([(5, 5, 3), (5,), (4,)], 95 + 24, 90 * 15 + 20)


# %% tags=["wrong", "q8"]
# expect: you left the 236 biases out
def count(layers, shape):
    shapes, parameters, macs = [], 0, 0
    for kind, *numbers in layers:
        if kind == "conv":
            out, k, s, p = numbers
            weights = out * shape[0] * k * k
            shape = (out, *((side + 2 * p - k) // s + 1 for side in shape[1:]))
            parameters += weights
            macs += weights * shape[1] * shape[2]
        elif kind == "pool":
            k, s = numbers
            shape = (shape[0], *((side - k) // s + 1 for side in shape[1:]))
        elif kind == "global":
            shape = (shape[0],)
        else:
            inputs = int(np.prod(shape))
            shape = (numbers[0],)
            parameters += inputs * shape[0]
            macs += inputs * shape[0]
        shapes.append(shape)
    return shapes, parameters, macs


# %% tags=["wrong", "q8"]
# expect: work at *every* position of its output
def count(layers, shape):
    shapes, parameters, macs = [], 0, 0
    for kind, *numbers in layers:
        if kind == "conv":
            out, k, s, p = numbers
            weights = out * shape[0] * k * k
            shape = (out, *((side + 2 * p - k) // s + 1 for side in shape[1:]))
            parameters += weights + out
            macs += weights
        elif kind == "pool":
            k, s = numbers
            shape = (shape[0], *((side - k) // s + 1 for side in shape[1:]))
        elif kind == "global":
            shape = (shape[0],)
        else:
            inputs = int(np.prod(shape))
            shape = (numbers[0],)
            parameters += inputs * shape[0] + shape[0]
            macs += inputs * shape[0]
        shapes.append(shape)
    return shapes, parameters, macs


# %% tags=["wrong", "q8"]
# expect: layer 0 gives (6, 28, 28), not (6, 24, 24)
def count(layers, shape):
    shapes, parameters, macs = [], 0, 0
    for kind, *numbers in layers:
        if kind == "conv":
            out, k, s, _ = numbers
            weights = out * shape[0] * k * k
            shape = (out, *((side - k) // s + 1 for side in shape[1:]))
            parameters += weights + out
            macs += weights * shape[1] * shape[2]
        elif kind == "pool":
            k, s = numbers
            shape = (shape[0], *((side - k) // s + 1 for side in shape[1:]))
        elif kind == "global":
            shape = (shape[0],)
        else:
            inputs = int(np.prod(shape))
            shape = (numbers[0],)
            parameters += inputs * shape[0] + shape[0]
            macs += inputs * shape[0]
        shapes.append(shape)
    return shapes, parameters, macs


# %% [markdown] tags=["q9", "outcome-4"]
# ## Question 9 · Bottlenecks, and a normalisation that vanishes
#
# Write
#
# - `bottleneck_macs(channels, out, k, squeeze, height, width)`: the multiply-accumulates of a $1\times1$
#   convolution to `squeeze` channels followed by a `k` × `k` convolution ("same" padding, stride 1) to `out`;
# - `largest_squeeze(channels, out, k)`: the largest whole number of squeezed channels for which that is
#   *strictly less* work than the `k` × `k` convolution alone; 0 where there is none;
# - `fold(w, b, gamma, beta, mean, var, eps)`: in evaluation mode a batch normalisation after a
#   convolution, $\gamma_o\,(y_o - \mu_o)/\sqrt{\sigma_o^2 + \epsilon} + \beta_o$, can be put into the
#   convolution's weights. Return `(w2, b2)` with which the convolution alone gives the same.


# %% tags=["answer", "q9"]
def bottleneck_macs(channels, out, k, squeeze, height, width):
    """Return the multiply-accumulates of 1 x 1, then k x k."""
    # BEGIN SOLUTION
    return height * width * (channels * squeeze + squeeze * out * k * k)
    # END SOLUTION


def largest_squeeze(channels, out, k):
    """Return the largest number of squeezed channels that saves work."""
    # BEGIN SOLUTION
    return (channels * out * k * k - 1) // (channels + out * k * k)
    # END SOLUTION


def fold(w, b, gamma, beta, mean, var, eps):
    """Return the weights and biases of convolution and normalisation in one."""
    # BEGIN SOLUTION
    scale = gamma / np.sqrt(var + eps)
    return w * scale[:, None, None, None], (b - mean) * scale + beta
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q9"]
# **Why.** With $q$ squeezed channels the work per place is $q\,(C + O k^2)$ against $C O k^2$, so
# $q < COk^2 / (C + Ok^2)$; in whole numbers the largest is $\lfloor (COk^2 - 1) / (C + Ok^2) \rfloor$.
# Normalisation is an affine map of each channel, and so is what the convolution's scale and bias can do:
# $\gamma(Wx + b - \mu)/\sqrt{\cdot} + \beta$ has weights $W\gamma/\sqrt\cdot$ and bias
# $(b-\mu)\gamma/\sqrt\cdot + \beta$. Programs that serve trained networks do this.


# %% tags=["test"]
@test(
    "q9", 1, hint="the first layer has channels x squeeze weights, the second squeeze x out x k x k"
)
def work_of_a_bottleneck(s):
    got = given(s.bottleneck_macs(192, 32, 5, 16, 28, 27), "bottleneck_macs")
    assert got != 28 * 27 * 16 * 32 * 25, "you forgot the work of the 1 x 1 convolution"
    assert got != 28 * 27 * 192 * 32 * 25, "that is the work without the bottleneck"
    assert got == 28 * 27 * (192 * 16 + 16 * 32 * 25), f"got {got:,}"


@test("q9", 1, hint="q (C + O k²) < C O k²")
def when_it_pays(s):
    for c, o, k in [(192, 32, 5), (64, 64, 3), (30, 7, 3)]:
        got = given(s.largest_squeeze(c, o, k), "largest_squeeze")
        right = max((q for q in range(c + 1) if q * (c + o * k * k) < c * o * k * k), default=0)
        assert got == right, f"{c} to {o} channels, k = {k}: got {got}, the largest is {right}"


@test("q9", 1, hint="scale the kernels of each output channel; the bias is normalised too")
def folded(s):
    r = rng(80)
    x, w, b = r.normal(size=(2, 3, 6, 5)), r.normal(size=(4, 3, 3, 3)), r.normal(size=4)
    gamma, beta, mean, var = (
        r.normal(size=4),
        r.normal(size=4),
        r.normal(size=4),
        r.uniform(0.1, 4, 4),
    )
    with unchanged(w=w, b=b, gamma=gamma, beta=beta, mean=mean, var=var):
        w2, b2 = (array(v) for v in several(s.fold(w, b, gamma, beta, mean, var, 1e-3), "fold", 2))
    same_shape(w2, w, "w2")
    scale = gamma / np.sqrt(var + 1e-3)
    assert not near(w2, w * (gamma / (var + 1e-3))[:, None, None, None]), (
        "divide by the *root* of the variance"
    )
    assert near(w2, w * scale[:, None, None, None]), (
        "each output channel's kernels are scaled by its own factor"
    )
    assert not near(b2, b - mean * scale + beta), "the old bias is scaled too"
    y = (kernels.conv2d(x, w, b) - mean[:, None, None]) * scale[:, None, None] + beta[:, None, None]
    assert near(kernels.conv2d(x, w2, b2), y), "b2 is wrong"


@test("q9", 1, hint="strictly less; a variance near 0 needs eps", hidden=True)
def edges(s):
    assert s.largest_squeeze(18, 2, 3) == 8, (
        "18 to 2 channels, 3 x 3: 9 squeezed channels are exactly as much work"
    )
    assert s.largest_squeeze(1, 1, 1) == 0, "one channel cannot be squeezed"
    w, b = rng(81).normal(size=(2, 1, 1, 2)), rng(82).normal(size=2)
    w2, b2 = (array(v) for v in s.fold(w, b, np.full(2, 3.0), np.zeros(2), b, np.zeros(2), 1e-4))
    assert near(w2, 300 * w) and near(b2, np.zeros(2)), "eps keeps a variance of 0 finite"


# %% tags=["wrong", "q9"]
# expect: you forgot the work of the 1 x 1
def bottleneck_macs(channels, out, k, squeeze, height, width):
    return height * width * squeeze * out * k * k


def largest_squeeze(channels, out, k):
    return (channels * out * k * k - 1) // (channels + out * k * k)


def fold(w, b, gamma, beta, mean, var, eps):
    scale = gamma / np.sqrt(var + eps)
    return w * scale[:, None, None, None], (b - mean) * scale + beta


# %% tags=["wrong", "q9"]
# expect: are exactly as much work
def bottleneck_macs(channels, out, k, squeeze, height, width):
    return height * width * (channels * squeeze + squeeze * out * k * k)


def largest_squeeze(channels, out, k):
    return channels * out * k * k // (channels + out * k * k)


def fold(w, b, gamma, beta, mean, var, eps):
    scale = gamma / np.sqrt(var + eps)
    return w * scale[:, None, None, None], (b - mean) * scale + beta


# %% tags=["wrong", "q9"]
# expect: the old bias is scaled too
def bottleneck_macs(channels, out, k, squeeze, height, width):
    return height * width * (channels * squeeze + squeeze * out * k * k)


def largest_squeeze(channels, out, k):
    return (channels * out * k * k - 1) // (channels + out * k * k)


def fold(w, b, gamma, beta, mean, var, eps):
    scale = gamma / np.sqrt(var + eps)
    return w * scale[:, None, None, None], b - mean * scale + beta


# %% tags=["wrong", "q9"]
# expect: divide by the *root* of the variance
def bottleneck_macs(channels, out, k, squeeze, height, width):
    return height * width * (channels * squeeze + squeeze * out * k * k)


def largest_squeeze(channels, out, k):
    return (channels * out * k * k - 1) // (channels + out * k * k)


def fold(w, b, gamma, beta, mean, var, eps):
    scale = gamma / (var + eps)
    return w * scale[:, None, None, None], (b - mean) * scale + beta


# %% [markdown] tags=["q10", "outcome-5"]
# ## Question 10 · Where did it look?
#
# Write
#
# - `activation_map(maps, weight, bias, q)`: a network ends with maps $A$, `maps` of shape `(K, h, w)`, their
#   global average and a dense layer with `weight` `(Q, K)` and `bias` `(Q,)`. Return the tuple
#   `(logit, M)`: the logit of class `q`, and its class activation map of shape `(h, w)`, whose *mean* plus
#   the bias is the logit;
# - `occlusion(score, x, size, step, fill)`: `x` has the shape `(C, h, w)` and `score` gives a number for
#   such an array. For every square of `size` × `size` pixels whose corner lies at multiples of `step` and
#   that lies wholly inside, return by how much the score *falls* when all channels of the square are set
#   to `fill`: an array of rows and columns.


# %% tags=["answer", "q10"]
def activation_map(maps, weight, bias, q):
    """Return the logit of class q and its class activation map."""
    # BEGIN SOLUTION
    m = np.einsum("k,krc->rc", weight[q], maps)
    return float(m.mean() + bias[q]), m
    # END SOLUTION


def occlusion(score, x, size, step, fill):
    """Return the fall of the score for each covered square."""
    # BEGIN SOLUTION
    rows, cols = (range(0, side - size + 1, step) for side in x.shape[1:])
    whole, falls = score(x), np.zeros((len(rows), len(cols)))
    for i, r in enumerate(rows):
        for j, c in enumerate(cols):
            covered = x.copy()
            covered[:, r : r + size, c : c + size] = fill
            falls[i, j] = whole - score(covered)
    return falls
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q10"]
# **Why.** The mean over places and the sum over channels can be exchanged:
# $\sum_k w_{qk}\,\overline{A_k} = \overline{\sum_k w_{qk} A_k}$. So the logit is a mean over places, and the
# places that make it large are visible. Occlusion needs nothing but the score; each square starts from a
# fresh copy of the picture, or the squares would add up.


# %% tags=["test"]
@test("q10", 1, hint="a weighted sum of the maps, with the weights of class q")
def map_and_logit(s):
    maps, weight, bias = (
        rng(90).normal(size=(5, 3, 4)),
        rng(91).normal(size=(7, 5)),
        rng(92).normal(size=7),
    )
    with unchanged(maps=maps, weight=weight, bias=bias):
        logit, m = several(s.activation_map(maps, weight, bias, 4), "activation_map", 2)
    m, expected = array(m), np.tensordot(weight[4], maps, 1)
    same_shape(m, expected, "the map")
    assert not near(m, expected / 12), (
        "the *mean* of the map plus the bias is the logit, not its sum"
    )
    assert not near(m, expected + bias[4]), "the bias belongs to no place: leave it out of the map"
    assert near(m, expected), "the map is the sum of weight[q, k] times map k"
    right = weight[4] @ maps.mean((1, 2)) + bias[4]
    assert not near(float(logit), right - bias[4]), "the logit includes the bias"
    assert near(float(logit), right), f"logit {float(logit):.4f}, expected {right:.4f}"


def occlusion_case(s, seed, shape, size, step, fill):
    x, v = rng(seed).normal(size=shape), rng(seed + 1).normal(size=shape)
    rows, cols = (range(0, side - size + 1, step) for side in shape[1:])
    expected = np.array([
        [(v * (x - fill))[:, r : r + size, c : c + size].sum() for c in cols] for r in rows
    ])  # fmt: skip
    with unchanged(x=x):
        falls = array(
            given(s.occlusion(lambda p: float((v * p).sum()), x, size, step, fill), "occlusion")
        )
    same_shape(falls, expected, "the map of falls")
    assert not near(falls, -expected), (
        "a *fall* is positive: score of the whole less score of the covered"
    )
    return x, v, falls, expected


@test("q10", 1, hint="a new copy of the picture for each square")
def falls_of_the_score(s):
    _, _, falls, expected = occlusion_case(s, 93, (2, 7, 6), 3, 2, 0.5)
    assert near(falls[0, 0], expected[0, 0]), "cover all channels of the square with `fill`"
    assert near(falls, expected), (
        "the first square is right, later ones are not: start from a fresh copy"
    )


@test("q10", 1, hint="the last square may end at the border; step may exceed size", hidden=True)
def squares_at_the_border(s):
    for seed, shape, size, step in [
        (95, (1, 5, 9), 5, 1),
        (97, (3, 8, 8), 2, 3),
        (99, (1, 4, 4), 1, 1),
    ]:
        _, _, falls, expected = occlusion_case(s, seed, shape, size, step, -1.0)
        assert near(falls, expected), f"shape {shape}, size {size}, step {step}"


# %% tags=["wrong", "q10"]
# expect: the *mean* of the map plus the bias
def activation_map(maps, weight, bias, q):
    m = np.einsum("k,krc->rc", weight[q], maps) / maps[0].size
    return float(m.sum() + bias[q]), m


def occlusion(score, x, size, step, fill):
    rows, cols = (range(0, side - size + 1, step) for side in x.shape[1:])
    whole, falls = score(x), np.zeros((len(rows), len(cols)))
    for i, r in enumerate(rows):
        for j, c in enumerate(cols):
            covered = x.copy()
            covered[:, r : r + size, c : c + size] = fill
            falls[i, j] = whole - score(covered)
    return falls


# %% tags=["wrong", "q10"]
# expect: start from a fresh copy
def activation_map(maps, weight, bias, q):
    m = np.einsum("k,krc->rc", weight[q], maps)
    return float(m.mean() + bias[q]), m


def occlusion(score, x, size, step, fill):
    rows, cols = (range(0, side - size + 1, step) for side in x.shape[1:])
    whole, falls = score(x), np.zeros((len(rows), len(cols)))
    covered = x.copy()
    for i, r in enumerate(rows):
        for j, c in enumerate(cols):
            covered[:, r : r + size, c : c + size] = fill
            falls[i, j] = whole - score(covered)
    return falls


# %% tags=["wrong", "q10"]
# expect: a *fall* is positive
def activation_map(maps, weight, bias, q):
    m = np.einsum("k,krc->rc", weight[q], maps)
    return float(m.mean() + bias[q]), m


def occlusion(score, x, size, step, fill):
    rows, cols = (range(0, side - size + 1, step) for side in x.shape[1:])
    whole, falls = score(x), np.zeros((len(rows), len(cols)))
    for i, r in enumerate(rows):
        for j, c in enumerate(cols):
            covered = x.copy()
            covered[:, r : r + size, c : c + size] = fill
            falls[i, j] = score(covered) - whole
    return falls


# %% tags=["wrong", "q10"]
# expect: the logit includes the bias
def activation_map(maps, weight, bias, q):
    m = np.einsum("k,krc->rc", weight[q], maps)
    return float(m.mean()), m


def occlusion(score, x, size, step, fill):
    rows, cols = (range(0, side - size + 1, step) for side in x.shape[1:])
    whole, falls = score(x), np.zeros((len(rows), len(cols)))
    for i, r in enumerate(rows):
        for j, c in enumerate(cols):
            covered = x.copy()
            covered[:, r : r + size, c : c + size] = fill
            falls[i, j] = whole - score(covered)
    return falls


# %% [markdown] tags=["q11", "outcome-6"]
# ## Question 11 · Frozen features, several heads, sentences (an experiment and an open challenge)
#
# Write
#
# - `probe(features, labels, classes, penalty)`: a linear classifier on frozen features, `features` of
#   shape `(n, d)`, `labels` `(n,)`, in closed form. With $F$ the features with a column of ones *behind*
#   them and $T$ the one-hot labels, return $V$ of shape `(d + 1, classes)` that minimises
#   $\lVert FV - T\rVert^2 + \lambda \lVert V'\rVert^2$, where $V'$ is $V$ without its last row: biases are
#   not penalised; $\lambda$ = `penalty` > 0;
# - `heads_loss(z, t, known)`: logits `z`, targets `t` (0 or 1) and `known` (bool), all `(n, T)`: for some
#   pictures, some answers are not known. Return `(loss, dz)`: the mean binary cross-entropy over the *known*
#   answers (0 where none is known), and its gradient. Logits may be as large as ±1000;
# - `sentence_features(x, w, b)`: `x` `(n, length, d)` word vectors, `w` `(F, k, d)` and `b` `(F,)`: the largest
#   response of each kernel over the sentence after ReLU, shape `(n, F)`. Sentences shorter than `k` get
#   zeros at the end.
#
# The last cell of the question lets you compare your probe on raw pixels with one on convolutional features
# that nobody trained. **Challenge** (not graded): find features that beat both with 5 labels a class.


# %% tags=["answer", "q11"]
def probe(features, labels, classes, penalty):
    """Return the weights (d + 1, classes) of a ridge classifier, biases in the last row."""
    # BEGIN SOLUTION
    f = np.column_stack([features, np.ones(len(features))])
    ridge = penalty * np.eye(f.shape[1])
    ridge[-1, -1] = 0
    return np.linalg.solve(f.T @ f + ridge, f.T @ np.eye(classes)[labels])
    # END SOLUTION


def heads_loss(z, t, known):
    """Return the mean binary cross-entropy over the known answers, and its gradient."""
    # BEGIN SOLUTION
    count = max(1, known.sum())
    losses = np.logaddexp(0, z) - t * z
    sigma = 0.5 + 0.5 * np.tanh(z / 2)
    return float((losses * known).sum() / count), (sigma - t) * known / count
    # END SOLUTION


def sentence_features(x, w, b):
    """Return the largest response of each kernel over each sentence, (n, F)."""
    # BEGIN SOLUTION
    k = w.shape[1]
    short = max(0, k - x.shape[1])
    x = np.pad(x, ((0, 0), (0, short), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, k, axis=1)  # (n, places, d, k)
    answers = np.einsum("npdk,fkd->npf", windows, w) + b
    return np.maximum(answers, 0).max(1)
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q11"]
# **Why.** Setting the gradient of the penalised squares to zero gives
# $(F^\top F + \lambda I')\,V = F^\top T$ with a zero in the bias' place of $I'$. In the loss of the heads,
# what is not known is multiplied by 0, in the loss, in the gradient *and* in the count; $\log(1+e^z) - tz$
# never overflows. A kernel over words is a sum over $k$ words and $d$ numbers; the maximum over places says
# whether its phrase occurs anywhere. ReLU before or after the maximum is the same, since it is monotone.


# %% tags=["test"]
@test("q11", 1, hint="(F'F + λ I') V = F'T, with a zero for the bias")
def ridge_in_closed_form(s):
    f, labels = rng(110).normal(size=(30, 4)) + 2, rng(111).integers(0, 3, 30)
    with unchanged(f=f, labels=labels):
        v = array(given(s.probe(f, labels, 3, 5.0), "probe"))
    ones = np.column_stack([f, np.ones(30)])
    t = np.eye(3)[labels]
    ridge = np.diag([5.0] * 4 + [0.0])
    expected = np.linalg.solve(ones.T @ ones + ridge, ones.T @ t)
    same_shape(v, expected, "V")
    assert not near(v, np.linalg.solve(ones.T @ ones + 5.0 * np.eye(5), ones.T @ t)), (
        "the biases (last row) must not be penalised"
    )
    assert not near(v, np.roll(expected, 1, axis=0)), (
        "the column of ones stands *behind* the features"
    )
    gradient = ones.T @ (ones @ v - t) + ridge @ v
    assert near(gradient, np.zeros_like(v), atol=1e-6), (
        "the gradient of the penalised squares is not 0 there"
    )


@test("q11", 1, hint="count the known answers only; log(1 + exp(z)) - t z")
def loss_of_the_heads(s):
    z, t, known = (
        rng(112).normal(size=(6, 3)),
        rng(113).integers(0, 2, (6, 3)).astype(float),
        rng(114).random((6, 3)) < 0.6,
    )
    with unchanged(z=z, t=t, known=known):
        loss, dz = several(s.heads_loss(z, t, known), "heads_loss", 2)
    losses = np.where(t == 1, np.log1p(np.exp(-z)), np.log1p(np.exp(z)))
    assert not near(float(loss), losses.mean()), "answers that are not known must not count"
    assert not near(float(loss), (losses * known).mean()), "divide by the number of *known* answers"
    assert near(float(loss), losses[known].mean()), (
        f"loss {float(loss):.4f}, expected {losses[known].mean():.4f}"
    )
    expected = (1 / (1 + np.exp(-z)) - t) * known / known.sum()
    assert near(array(dz), expected), "dz is (σ(z) - t) / number of known answers, and 0 elsewhere"


@test("q11", 1, hint="k words times d numbers; the maximum over places")
def features_of_sentences(s):
    x, w, b = (
        rng(115).normal(size=(3, 8, 5)),
        rng(116).normal(size=(4, 3, 5)),
        rng(117).normal(size=4),
    )
    with unchanged(x=x, w=w, b=b):
        f = array(given(s.sentence_features(x, w, b), "sentence_features"))
    maps = kernels.conv1d(x.swapaxes(1, 2), w.swapaxes(1, 2), b)
    expected = np.maximum(maps, 0).max(2)
    same_shape(f, expected, "the features")
    assert not near(f, np.maximum(maps, 0).mean(2)), "take the largest response, not the mean"
    assert near(f, expected), "wrong values: the word comes first in w, then the number"


@test(
    "q11", 1, hint="logits of ±1000, nothing known, sentences shorter than the kernel", hidden=True
)
def awkward_inputs(s):
    z = np.array([[1000.0, -1000.0, 3.0]])
    loss, dz = s.heads_loss(z, np.array([[0.0, 0.0, 1.0]]), np.array([[True, True, False]]))
    assert np.isfinite(float(loss)) and near(float(loss), 500.0), (
        "exp(1000) overflows: use np.logaddexp"
    )
    assert near(array(dz), np.array([[0.5, 0.0, 0.0]])), "the gradient at ±1000"
    loss, dz = s.heads_loss(z, np.zeros((1, 3)), np.zeros((1, 3), bool))
    assert float(loss) == 0 and near(array(dz), np.zeros((1, 3))), (
        "nothing known: loss 0, gradient 0"
    )
    x, w, b = (
        rng(118).normal(size=(2, 2, 3)),
        rng(119).normal(size=(5, 4, 3)),
        rng(120).normal(size=5),
    )
    expected = np.maximum(np.einsum("npd,fpd->nf", x, w[:, :2]) + b, 0)
    assert near(array(s.sentence_features(x, w, b)), expected), (
        "short sentences get zeros at the end"
    )


# %% tags=["wrong", "q11"]
# expect: the biases (last row) must not be penalised
def probe(features, labels, classes, penalty):
    f = np.column_stack([features, np.ones(len(features))])
    return np.linalg.solve(f.T @ f + penalty * np.eye(f.shape[1]), f.T @ np.eye(classes)[labels])


def heads_loss(z, t, known):
    count = max(1, known.sum())
    losses = np.logaddexp(0, z) - t * z
    return float((losses * known).sum() / count), (0.5 + 0.5 * np.tanh(z / 2) - t) * known / count


def sentence_features(x, w, b):
    x = np.pad(x, ((0, 0), (0, max(0, w.shape[1] - x.shape[1])), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[1], axis=1)
    return np.maximum(np.einsum("npdk,fkd->npf", windows, w) + b, 0).max(1)


# %% tags=["wrong", "q11"]
# expect: divide by the number of *known* answers
def probe(features, labels, classes, penalty):
    f = np.column_stack([features, np.ones(len(features))])
    ridge = penalty * np.eye(f.shape[1])
    ridge[-1, -1] = 0
    return np.linalg.solve(f.T @ f + ridge, f.T @ np.eye(classes)[labels])


def heads_loss(z, t, known):
    losses = np.logaddexp(0, z) - t * z
    return float((losses * known).mean()), (0.5 + 0.5 * np.tanh(z / 2) - t) * known / z.size


def sentence_features(x, w, b):
    x = np.pad(x, ((0, 0), (0, max(0, w.shape[1] - x.shape[1])), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[1], axis=1)
    return np.maximum(np.einsum("npdk,fkd->npf", windows, w) + b, 0).max(1)


# %% tags=["wrong", "q11"]
# expect: take the largest response, not the mean
def probe(features, labels, classes, penalty):
    f = np.column_stack([features, np.ones(len(features))])
    ridge = penalty * np.eye(f.shape[1])
    ridge[-1, -1] = 0
    return np.linalg.solve(f.T @ f + ridge, f.T @ np.eye(classes)[labels])


def heads_loss(z, t, known):
    count = max(1, known.sum())
    losses = np.logaddexp(0, z) - t * z
    return float((losses * known).sum() / count), (0.5 + 0.5 * np.tanh(z / 2) - t) * known / count


def sentence_features(x, w, b):
    x = np.pad(x, ((0, 0), (0, max(0, w.shape[1] - x.shape[1])), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[1], axis=1)
    return np.maximum(np.einsum("npdk,fkd->npf", windows, w) + b, 0).mean(1)


# %% tags=["wrong", "q11"]
# expect: exp(1000) overflows
def probe(features, labels, classes, penalty):
    f = np.column_stack([features, np.ones(len(features))])
    ridge = penalty * np.eye(f.shape[1])
    ridge[-1, -1] = 0
    return np.linalg.solve(f.T @ f + ridge, f.T @ np.eye(classes)[labels])


def heads_loss(z, t, known):
    count = max(1, known.sum())
    with np.errstate(all="ignore"):
        sigma = np.exp(z) / (1 + np.exp(z))
        losses = np.log(1 + np.exp(z)) - t * z
    return float((losses * known).sum() / count), (sigma - t) * known / count


def sentence_features(x, w, b):
    x = np.pad(x, ((0, 0), (0, max(0, w.shape[1] - x.shape[1])), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[1], axis=1)
    return np.maximum(np.einsum("npdk,fkd->npf", windows, w) + b, 0).max(1)


# %% [markdown] tags=["q11"]
# Pixels, or features of 64 random kernels that nobody trained, max-pooled to $4\times4$: which are better for
# your probe, with 5 and with 50 labels a class?

# %% tags=["look"]
from dlnotes import data, kernels

digits = data.load("digits")
pixels = {name: getattr(digits, name).x.reshape(-1, 64) / 16.0 for name in ("train", "test")}
random_kernels = np.random.default_rng(0).normal(size=(64, 1, 3, 3)).astype(np.float32)


def random_features(x):
    maps = np.maximum(kernels.conv2d(x.reshape(-1, 1, 8, 8) - 0.5, random_kernels, None, 1, 1), 0)
    return kernels.max_pool2d(maps, 2).reshape(len(x), -1) / 8


try:
    for per_class in (5, 50):
        rows = np.concatenate([np.flatnonzero(digits.train.y == c)[:per_class] for c in range(10)])
        for name, make in {"pixels": lambda x: x, "random features": random_features}.items():
            v = probe(make(pixels["train"][rows]), digits.train.y[rows], 10, 1.0)
            scores = np.column_stack([make(pixels["test"]), np.ones(len(pixels["test"]))]) @ v
            right = (scores.argmax(1) == digits.test.y).mean()
            print(f"{per_class:3} labels a class, {name:16}: {right:.2f} right")
except NotImplementedError:
    print("Write probe first; this cell then compares.")


# %% [markdown] tags=["q12", "outcome-6", "outcome-4"]
# ## Question 12 · What is wrong with these training runs? (bug clinic)
#
# The next cell trains a small convolutional network (eight $3\times3$ kernels, ReLU, max pooling, a dense
# layer) on handwritten digits, six times. Five runs have a fault. The rows of panels show, by epoch: the
# cross-entropy of the training data ($\ln 10 \approx 2.3$ is guessing), that of 200 validation images, the
# norm of the kernels' gradient, and how far the kernels are from their start.
#
# Write `diagnosis()`: a dictionary from the runs `"A"` … `"F"` to **one** word each; two are not needed.
#
# - `"healthy"`;
# - `"axes_swapped"`: validation images have rows and columns exchanged, training images do not;
# - `"labels_mixed"`: the training images were shuffled, their labels were not;
# - `"kernels_frozen"`: the optimiser does not have the kernels;
# - `"rate_too_high"`: the learning rate is far too large;
# - `"too_few_images"`: it was trained on 25 images;
# - `"no_activation"`: the ReLU is missing;
# - `"not_deep_enough"`: one convolution cannot learn digits.

# %% tags=["look"]
import matplotlib.pyplot as plt

from dlnotes import viz
from dlnotes.course import clinic

viz.use_style()
runs = clinic.convolution_runs()

labels = ["training loss", "validation loss", "kernel gradient", "way of kernels"]
fig, axes = plt.subplots(4, 6, figsize=(11, 8), layout="constrained", sharex=True, sharey="row")
for column, (name, run) in enumerate(runs.items()):
    axes[0, column].set_title(f"run {name}")
    for row, curve in enumerate(run.T):
        axes[row, column].plot(curve)
        axes[row, column].set_yscale("log" if row == 2 else "symlog" if row == 3 else "linear")
    axes[3, column].set_xlabel("epoch")
for row, label in enumerate(labels):
    axes[row, 0].set_ylabel(label)
viz.show(
    fig,
    alt="Six runs A to F by epoch: training loss in the first row, validation loss in the second, norm "
    "of the gradient of the kernels in the third, distance of the kernels from their start in the fourth.",
)


# %% tags=["answer", "q12"]
def diagnosis():
    """Return a dictionary from "A" … "F" to one word each."""
    # BEGIN SOLUTION
    return {
        "A": "axes_swapped",
        "B": "kernels_frozen",
        "C": "rate_too_high",
        "D": "healthy",
        "E": "too_few_images",
        "F": "labels_mixed",
    }
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q12"]
# **Why.** D falls in both losses. A has *exactly* D's training curve, so training is sound and the fault is in
# the validation images. B learns too, since a dense layer on random kernels is not bad (question 11), but
# its kernels do not move although their gradient is not zero. C's kernels are thrown far away in the first
# epoch, and the loss crawls afterwards. E's training loss falls while its validation loss is high from the
# first epoch on: like A, but its training curve is not D's, and 25 images are one batch. F stays near the
# loss of guessing with small gradients: there is nothing in the images that goes with the labels.


# %% tags=["test"]
ILLNESSES = {
    "healthy", "axes_swapped", "labels_mixed", "kernels_frozen", "rate_too_high", "too_few_images",
    "no_activation", "not_deep_enough",
}  # fmt: skip


def illness(s, run):
    answer = given(s.diagnosis(), "diagnosis")
    assert run in answer, f"run {run} has no diagnosis"
    assert answer[run] in ILLNESSES, f"{answer[run]!r} is not one of {', '.join(sorted(ILLNESSES))}"
    return answer[run]


@test("q12", 1, hint="compare the training curves of A, D and E")
def patients_a_and_d(s):
    assert illness(s, "A") != "too_few_images", (
        "A: its training curve is that of another run to the last digit, so its training images are the same"
    )
    assert illness(s, "A") == "axes_swapped", (
        "A: the training is sound; what about the validation images?"
    )
    assert illness(s, "D") == "healthy", "D: both losses fall, side by side"


@test("q12", 1, hint="the fourth row: do the kernels move, and how far?")
def patients_b_and_c(s):
    assert illness(s, "B") != "healthy", "B: both losses fall, but look at the fourth row"
    assert illness(s, "B") == "kernels_frozen", "B: the gradient is not zero, the way is"
    assert illness(s, "C") != "labels_mixed", (
        "C: its kernels have gone ten times as far as any other's"
    )
    assert illness(s, "C") == "rate_too_high", (
        "C: look at the way of the kernels in the first epoch"
    )


@test("q12", 1, hint="training loss low or high? validation loss?", hidden=True)
def patients_e_and_f(s):
    assert illness(s, "E") != "axes_swapped", "E: its training curve is not that of the healthy run"
    assert illness(s, "E") == "too_few_images", "E: learns what it is given, and nothing else"
    assert illness(s, "F") != "not_deep_enough", "F: the same network learns digits in other runs"
    assert illness(s, "F") == "labels_mixed", "F: not even the training images can be learnt"


# %% tags=["wrong", "q12"]
# expect: its training curve is that of another run
def diagnosis():
    return {
        "A": "too_few_images", "B": "kernels_frozen", "C": "rate_too_high", "D": "healthy",
        "E": "axes_swapped", "F": "labels_mixed",
    }  # fmt: skip


# %% tags=["wrong", "q12"]
# expect: both losses fall, but look at the fourth row
def diagnosis():
    return {
        "A": "axes_swapped", "B": "healthy", "C": "rate_too_high", "D": "healthy",
        "E": "too_few_images", "F": "labels_mixed",
    }  # fmt: skip


# %% tags=["wrong", "q12"]
# expect: the same network learns digits in other runs
def diagnosis():
    return {
        "A": "axes_swapped", "B": "kernels_frozen", "C": "rate_too_high", "D": "healthy",
        "E": "too_few_images", "F": "not_deep_enough",
    }  # fmt: skip


# %% tags=["wrong", "q12"]
# expect: ten times as far as any other's
def diagnosis():
    return {
        "A": "axes_swapped", "B": "kernels_frozen", "C": "labels_mixed", "D": "healthy",
        "E": "too_few_images", "F": "rate_too_high",
    }  # fmt: skip
