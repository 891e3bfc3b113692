"""Convolution: rungs of conv.cu."""

import ctypes
from math import gcd, prod

from dlnotes.cuda.ladders._base import Ladder, Rung, blocks, ints, out_sizes, pair


class Conv(ctypes.Structure):
    """The struct Conv of conv.cu."""

    _fields_ = ints(
        "n c_in h w c_out out_h out_w kernel_h kernel_w stride_h stride_w padding_h padding_w "
        "dilation_h dilation_w groups"
    )


def conv_sizes(x_shape, weight_shape, stride=1, padding=0, dilation=1, groups=1) -> Conv:
    """Return the sizes of a convolution of images (n, c, h, w).

    The kernels have shape (out, c / groups, kh, kw).
    """
    stride, padding, dilation = pair(stride), pair(padding), pair(dilation)
    kernel = weight_shape[2:]
    out = out_sizes(x_shape[2:], kernel, stride, padding, dilation)
    return Conv(*x_shape, weight_shape[0], *out, *kernel, *stride, *padding, *dilation, groups)


def _cells(columns: int, rows: int, groups: int) -> tuple[int, int, int]:
    """Return the grid of a product for each group, `rows` being those of all groups."""
    return blocks(columns, 16), blocks(rows // groups, 16), groups


def _conv_direct(s, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    p = conv_sizes(x.shape, weight.shape, stride, padding, dilation, groups)
    y = s.empty((p.n, p.c_out, p.out_h, p.out_w), x)
    s.launch(
        "conv_direct", blocks(p.n * p.c_out * p.out_h * p.out_w, 128), 128, p, x, weight, bias, y
    )
    return y


def _conv_implicit(s, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    p = conv_sizes(x.shape, weight.shape, stride, padding, dilation, groups)
    y = s.empty((p.n, p.c_out, p.out_h, p.out_w), x)
    s.launch(
        "conv_implicit<16>",
        _cells(p.n * p.out_h * p.out_w, p.c_out, p.groups),
        (16, 16),
        p,
        x,
        weight,
        bias,
        y,
    )
    return y


MMA = "conv_mma<64, 128, 32, 32, 64>"
MMA_INPUT = ("conv_sort_weights", "conv_backward_input_mma<64, 128, 32, 32, 64>")
MMA_WEIGHT = ("conv_backward_weight_mma<64, 128, 32, 32, 64>", "conv_add_parts")
_BUSY = 512  # blocks: about what an H100 runs at once, four on each of 132 multiprocessors
_SHORTEST = 8  # tiles of a sum that are worth a block of their own


def output_mma(s, p: Conv, x, weight, bias=None):
    """Return a convolution's output by tensor cores."""
    y = s.empty((p.n, p.c_out, p.out_h, p.out_w), x, "float32")
    grid = blocks(p.n * p.out_h * p.out_w, 128), blocks(p.c_out // p.groups, 64), p.groups
    s.launch(MMA, grid, 128, p, x, weight, bias, y)
    return y


def _conv_mma(s, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    p = conv_sizes(x.shape, weight.shape, stride, padding, dilation, groups)
    return output_mma(s, p, x, weight, bias)


def _conv_backward(s, dy, x, weight, p, launch_input, launch_weight):
    dx, dweight, dbias = s.empty(x.shape, x), s.empty(weight.shape, x), s.empty((p.c_out,), x)
    launch_input(dx)
    launch_weight(dweight)
    s.launch("conv_backward_bias<float>", p.c_out, 128, p, dy, dbias)
    return dx, dweight, dbias


def _conv_backward_direct(s, dy, x, weight, stride=1, padding=0, dilation=1, groups=1):
    p = conv_sizes(x.shape, weight.shape, stride, padding, dilation, groups)
    n, m = (
        blocks(p.n * p.c_in * p.h * p.w, 128),
        blocks(p.c_out * (p.c_in // p.groups) * p.kernel_h * p.kernel_w, 128),
    )
    return _conv_backward(
        s,
        dy,
        x,
        weight,
        p,
        lambda dx: s.launch("conv_backward_input_direct", n, 128, p, dy, weight, None, dx),
        lambda dw: s.launch("conv_backward_weight_direct", m, 128, p, dy, x, dw),
    )


def _conv_backward_implicit(s, dy, x, weight, stride=1, padding=0, dilation=1, groups=1):
    p = conv_sizes(x.shape, weight.shape, stride, padding, dilation, groups)
    inputs, taps = (
        _cells(p.n * p.h * p.w, p.c_in, p.groups),
        _cells(p.c_in // p.groups * p.kernel_h * p.kernel_w, p.c_out, p.groups),
    )
    return _conv_backward(
        s,
        dy,
        x,
        weight,
        p,
        lambda dx: s.launch(
            "conv_backward_input_implicit<16>", inputs, (16, 16), p, dy, weight, None, dx
        ),
        lambda dw: s.launch("conv_backward_weight_implicit<16>", taps, (16, 16), p, dy, x, dw),
    )


def input_gradient_mma(s, p: Conv, dy, weight, bias=None):
    """Return the gradient of a convolution's input by tensor cores, plus `bias` for each channel.

    Inputs that lie a stride apart go through the same taps. Each such phase is a product of its own
    with these taps alone, so that no zeros are multiplied where the stride is above 1.
    """
    phases = min(p.stride_h, p.h) * min(p.stride_w, p.w)
    axes = (p.kernel_h, p.stride_h, p.dilation_h), (p.kernel_w, p.stride_w, p.dilation_w)
    taps = prod(blocks(kernel, stride // gcd(stride, d)) for kernel, stride, d in axes)
    length = 8 * blocks(p.c_out // p.groups * taps, 8)  # copies take 8 numbers
    sorted_ = s.empty((p.groups, phases, p.c_in // p.groups, length), weight)
    grid = blocks(p.c_in * phases * length, 128)
    s.launch(MMA_INPUT[0], grid, 128, p, length, weight, sorted_)
    dx = s.empty((p.n, p.c_in, p.h, p.w), dy, "float32")
    inputs = p.n * blocks(p.h, p.stride_h) * blocks(p.w, p.stride_w)
    grid = blocks(inputs, 128) * phases, blocks(p.c_in // p.groups, 64), p.groups
    s.launch(MMA_INPUT[1], grid, 128, p, length, dy, sorted_, bias, dx)
    return dx


def weight_gradient_mma(s, p: Conv, dy, x):
    """Return the gradient of a convolution's weight by tensor cores.

    Its sums run over all positions of all images, and there are few of them: so many blocks share
    each sum that a card has enough to do. The same sizes are shared in the same way on every card,
    and the parts added up in order: the result is the same each time.
    """
    shape = p.c_out, p.c_in // p.groups, p.kernel_h, p.kernel_w
    taps, outs = blocks(prod(shape[1:]), 128), blocks(p.c_out // p.groups, 64)
    tiles = blocks(p.n * 8 * blocks(p.out_h * p.out_w, 8), 32)  # each image begins a chunk of 8
    splits = max(1, min(_BUSY // (taps * outs * p.groups), tiles // _SHORTEST))
    parts = s.empty((splits, *shape), dy, "float32")
    s.launch(MMA_WEIGHT[0], (taps, outs, splits * p.groups), 128, p, splits, dy, x, parts)
    if splits == 1:
        return parts[0]
    dweight = s.empty(shape, dy, "float32")
    s.launch(MMA_WEIGHT[1], blocks(prod(shape), 128), 128, prod(shape), splits, parts, dweight)
    return dweight


def _conv_backward_mma(s, dy, x, weight, stride=1, padding=0, dilation=1, groups=1):
    p = conv_sizes(x.shape, weight.shape, stride, padding, dilation, groups)
    dbias = s.empty((p.c_out,), dy, "float32")
    s.launch("conv_backward_bias<nv_bfloat16>", p.c_out, 128, p, dy, dbias)
    return input_gradient_mma(s, p, dy, weight), weight_gradient_mma(s, p, dy, x), dbias


FAMILY = (
    Ladder(
        "conv2d",
        "conv.cu",
        "conv2d",
        (
            Rung(
                "conv_direct",
                "One thread for each output: the formula.",
                _conv_direct,
                ("conv_direct",),
            ),
            Rung(
                "conv_implicit",
                "A tiled matrix product whose columns are looked up, not stored.",
                _conv_implicit,
                ("conv_implicit<16>",),
            ),
            Rung(
                "conv_mma",
                "The same on tensor cores: 2048 products of bfloat16 are one instruction.",
                _conv_mma,
                (MMA,),
                needs="sm_80",
                dtype="bfloat16",
            ),
        ),
    ),
    Ladder(
        "conv2d_backward",
        "conv.cu",
        "conv2d_backward",
        (
            Rung(
                "conv_backward_direct",
                "One thread for each entry of dx and of dweight.",
                _conv_backward_direct,
                (
                    "conv_backward_input_direct",
                    "conv_backward_weight_direct",
                    "conv_backward_bias<float>",
                ),
            ),
            Rung(
                "conv_backward_implicit",
                "Both gradients as tiled matrix products.",
                _conv_backward_implicit,
                (
                    "conv_backward_input_implicit<16>",
                    "conv_backward_weight_implicit<16>",
                    "conv_backward_bias<float>",
                ),
            ),
            Rung(
                "conv_backward_mma",
                "Tensor cores: no zeros between strides, and long sums are shared by many blocks.",
                _conv_backward_mma,
                (*MMA_INPUT, *MMA_WEIGHT, "conv_backward_bias<nv_bfloat16>"),
                needs="sm_80",
                dtype="bfloat16",
            ),
        ),
    ),
)
