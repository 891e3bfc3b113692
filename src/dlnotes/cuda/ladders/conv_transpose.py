"""Transposed convolution: rungs of conv.cu.

It is the gradient of a convolution with respect to its input, and its own gradients are that
convolution and the gradient of its weight: here are the kernels of `conv2d`, in other roles.
"""

from dlnotes.cuda.ladders._base import Ladder, Rung, blocks, pair
from dlnotes.cuda.ladders.conv import (
    MMA,
    MMA_INPUT,
    MMA_WEIGHT,
    Conv,
    _cells,
    conv_sizes,
    input_gradient_mma,
    output_mma,
    weight_gradient_mma,
)


def conv_transpose_sizes(
    x_shape, weight_shape, stride=1, padding=0, output_padding=0, groups=1, dilation=1
) -> Conv:
    """Return the sizes of the convolution whose output has the shape of x (n, c, h, w).

    weight has shape (c, out / groups, kh, kw). The transposed convolution's output is this
    convolution's input, (p.n, p.c_in, p.h, p.w).
    """
    n, _, *sizes = x_shape
    settings = zip(
        sizes,
        weight_shape[2:],
        *map(pair, (stride, padding, output_padding, dilation)),
        strict=True,
    )
    out = [(size - 1) * s - 2 * p + d * (k - 1) + 1 + more for size, k, s, p, more, d in settings]
    y_shape = (n, weight_shape[1] * groups, *out)
    sizes_of = conv_sizes(y_shape, weight_shape, stride, padding, dilation, groups)
    sizes_of.out_h, sizes_of.out_w = sizes  # not what output_padding may add
    return sizes_of


def _transpose_direct(s, x, weight, bias=None, *settings):
    p = conv_transpose_sizes(x.shape, weight.shape, *settings)
    y = s.empty((p.n, p.c_in, p.h, p.w), x)
    grid = blocks(p.n * p.c_in * p.h * p.w, 128)
    s.launch("conv_backward_input_direct", grid, 128, p, x, weight, bias, y)
    return y


def _transpose_implicit(s, x, weight, bias=None, *settings):
    p = conv_transpose_sizes(x.shape, weight.shape, *settings)
    y, grid = s.empty((p.n, p.c_in, p.h, p.w), x), _cells(p.n * p.h * p.w, p.c_in, p.groups)
    s.launch("conv_backward_input_implicit<16>", grid, (16, 16), p, x, weight, bias, y)
    return y


def _transpose_mma(s, x, weight, bias=None, *settings):
    p = conv_transpose_sizes(x.shape, weight.shape, *settings)
    return input_gradient_mma(s, p, x, weight, bias)


def _bias(s, p: Conv, dy, kind: str = "float"):
    """Return the sums of dy, for which dy is the output of a convolution."""
    dbias = s.empty((p.c_in,), dy, None if kind == "float" else "float32")
    sums = Conv(n=p.n, c_out=p.c_in, out_h=p.h, out_w=p.w)
    s.launch(f"conv_backward_bias<{kind}>", p.c_in, 128, sums, dy, dbias)
    return dbias


def _backward_direct(s, dy, x, weight, *settings):
    p = conv_transpose_sizes(x.shape, weight.shape, *settings)
    dx, dweight = s.empty(x.shape, x), s.empty(weight.shape, x)
    grid = blocks(p.n * p.c_out * p.out_h * p.out_w, 128)
    s.launch("conv_direct", grid, 128, p, dy, weight, None, dx)
    grid = blocks(p.c_out * (p.c_in // p.groups) * p.kernel_h * p.kernel_w, 128)
    s.launch("conv_backward_weight_direct", grid, 128, p, x, dy, dweight)
    return dx, dweight, _bias(s, p, dy)


def _backward_implicit(s, dy, x, weight, *settings):
    p = conv_transpose_sizes(x.shape, weight.shape, *settings)
    dx, dweight = s.empty(x.shape, x), s.empty(weight.shape, x)
    grid = _cells(p.n * p.out_h * p.out_w, p.c_out, p.groups)
    s.launch("conv_implicit<16>", grid, (16, 16), p, dy, weight, None, dx)
    grid = _cells(p.c_in // p.groups * p.kernel_h * p.kernel_w, p.c_out, p.groups)
    s.launch("conv_backward_weight_implicit<16>", grid, (16, 16), p, x, dy, dweight)
    return dx, dweight, _bias(s, p, dy)


def _backward_mma(s, dy, x, weight, *settings):
    p = conv_transpose_sizes(x.shape, weight.shape, *settings)
    gradients = output_mma(s, p, dy, weight), weight_gradient_mma(s, p, x, dy)
    return *gradients, _bias(s, p, dy, "nv_bfloat16")


FAMILY = (
    Ladder(
        "conv_transpose2d",
        "conv.cu",
        "conv_transpose2d",
        (
            Rung(
                "conv_transpose_direct",
                "One thread for each output collects what the inputs spread to it.",
                _transpose_direct,
                ("conv_backward_input_direct",),
            ),
            Rung(
                "conv_transpose_implicit",
                "A tiled matrix product, weightᵀ times the inputs looked up tap by tap.",
                _transpose_implicit,
                ("conv_backward_input_implicit<16>",),
            ),
            Rung(
                "conv_transpose_mma",
                "Tensor cores: outputs a stride apart are a product without the other taps.",
                _transpose_mma,
                MMA_INPUT,
                needs="sm_80",
                dtype="bfloat16",
            ),
        ),
    ),
    Ladder(
        "conv_transpose2d_backward",
        "conv.cu",
        "conv_transpose2d_backward",
        (
            Rung(
                "conv_transpose_backward_direct",
                "One thread for each entry: a convolution, and the gradient of its weight.",
                _backward_direct,
                ("conv_direct", "conv_backward_weight_direct", "conv_backward_bias<float>"),
            ),
            Rung(
                "conv_transpose_backward_implicit",
                "Both gradients as tiled matrix products.",
                _backward_implicit,
                (
                    "conv_implicit<16>",
                    "conv_backward_weight_implicit<16>",
                    "conv_backward_bias<float>",
                ),
            ),
            Rung(
                "conv_transpose_backward_mma",
                "The same on tensor cores; long sums are shared by many blocks.",
                _backward_mma,
                (MMA, *MMA_WEIGHT, "conv_backward_bias<nv_bfloat16>"),
                needs="sm_80",
                dtype="bfloat16",
            ),
        ),
    ),
)
