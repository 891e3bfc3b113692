"""Pooling: rungs of pool.cu."""

import ctypes

from dlnotes.cuda.ladders._base import WARPS, Ladder, Rung, blocks, ints, out_sizes, pair


class Pool(ctypes.Structure):
    """The struct Pool of pool.cu."""

    _fields_ = ints("h w out_h out_w kernel_h kernel_w stride_h stride_w padding_h padding_w")


def pool_sizes(shape, kernel_size, stride=None, padding=0, ceil_mode=False) -> Pool:
    """Return the sizes of a pooling of images of `shape` (n, c, h, w).

    ceil_mode adds a last window where entries are left over for it; the kernels cut it off.
    """
    kernel, padding = pair(kernel_size), pair(padding)
    stride = pair(kernel_size if stride is None else stride)
    out = out_sizes(shape[2:], kernel, stride, padding)
    if ceil_mode:
        axes = zip(out, shape[2:], kernel, stride, padding, strict=True)
        out = [
            n + (n * s < size + p and (n - 1) * s + k < size + 2 * p) for n, size, k, s, p in axes
        ]
    return Pool(*shape[2:], *out, *kernel, *stride, *padding)


_TILE = (16, 8)  # outputs of a block, across and down


def _tiled(s, name, p: Pool, images: int, *arrays):
    across, down = _TILE
    tile_h, tile_w = (down - 1) * p.stride_h + p.kernel_h, (across - 1) * p.stride_w + p.kernel_w
    grid = (blocks(p.out_w, across), blocks(p.out_h, down), images)
    s.launch(name, grid, _TILE, p, images, *arrays, shared_bytes=4 * tile_h * tile_w)


def _max_pool(name: str, reason: str, tiled: bool) -> Rung:
    def run(s, x, kernel_size, stride=None, padding=0, ceil_mode=False):
        p = pool_sizes(x.shape, kernel_size, stride, padding, ceil_mode)
        images = x.shape[0] * x.shape[1]
        shape = (*x.shape[:2], p.out_h, p.out_w)
        y, indices = s.empty(shape, x), s.empty(shape, x, "int64")
        if tiled:
            _tiled(s, name, p, images, x, y, indices)
        else:
            s.launch(name, blocks(images * p.out_h * p.out_w, 128), 128, p, images, x, y, indices)
        return y, indices

    return Rung(name, reason, run, (name,))


def _avg_pool(name: str, reason: str, tiled: bool) -> Rung:
    def run(s, x, kernel_size, stride=None, padding=0):
        p, images = pool_sizes(x.shape, kernel_size, stride, padding), x.shape[0] * x.shape[1]
        y = s.empty((*x.shape[:2], p.out_h, p.out_w), x)
        if tiled:
            _tiled(s, name, p, images, x, y)
        else:
            s.launch(name, blocks(images * p.out_h * p.out_w, 128), 128, p, images, x, y)
        return y

    return Rung(name, reason, run, (name,))


def _pool_backward(name: str, reason: str, gather: bool) -> Rung:
    """`indices` comes right after dy for the maximum, and is left out for the mean."""

    def run(s, dy, *rest):
        *indices, shape, kernel_size, stride, padding = rest
        p, images = pool_sizes(shape, kernel_size, stride, padding), shape[0] * shape[1]
        p.out_h, p.out_w = dy.shape[2:]  # one more with ceil_mode
        dx = s.empty(shape, dy) if gather else s.zeros(shape, dy)
        entries = p.h * p.w if gather else p.out_h * p.out_w
        s.launch(name, blocks(images * entries, 128), 128, p, images, dy, *indices, dx)
        return dx

    return Rung(name, reason, run, (name,))


def _adaptive(name: str, reason: str, block: int, outputs_a_block: int) -> Rung:
    def run(s, x, output_size):
        (n, channels, *size), out = x.shape, pair(output_size)
        y, images = s.empty((n, channels, *out), x), n * channels
        grid = blocks(images * out[0] * out[1], outputs_a_block)
        s.launch(name, grid, block, images, *size, *out, x, y)
        return y

    return Rung(name, reason, run, (name,))


def _adaptive_backward(name: str, reason: str, gather: bool) -> Rung:
    def run(s, dy, shape):
        dx = s.empty(shape, dy) if gather else s.zeros(shape, dy)
        size, out, images = shape[2:], dy.shape[2:], shape[0] * shape[1]
        height, width = size if gather else out
        grid = blocks(images * height * width, 128)
        s.launch(name, grid, 128, images, *size, *out, dy, dx)
        return dx

    return Rung(name, reason, run, (name,))


FAMILY = (
    Ladder(
        "max_pool2d",
        "pool.cu",
        "max_pool2d",
        (
            _max_pool(
                "max_pool_naive", "One thread for each output reads its window.", tiled=False
            ),
            _max_pool(
                "max_pool_tiled", "Windows overlap: a block fetches their union once.", tiled=True
            ),
        ),
    ),
    Ladder(
        "avg_pool2d",
        "pool.cu",
        "avg_pool2d",
        (
            _avg_pool(
                "avg_pool_naive", "One thread for each output reads its window.", tiled=False
            ),
            _avg_pool(
                "avg_pool_tiled", "Windows overlap: a block fetches their union once.", tiled=True
            ),
        ),
    ),
    Ladder(
        "max_pool2d_backward",
        "pool.cu",
        "max_pool2d_backward",
        (
            _pool_backward(
                "max_pool_backward_scatter",
                "Each output adds to its winner, by atomics.",
                gather=False,
            ),
            _pool_backward(
                "max_pool_backward_gather", "Each input collects: no atomics.", gather=True
            ),
        ),
    ),
    Ladder(
        "avg_pool2d_backward",
        "pool.cu",
        "avg_pool2d_backward",
        (
            _pool_backward(
                "avg_pool_backward_scatter",
                "Each output adds to its window, by atomics.",
                gather=False,
            ),
            _pool_backward(
                "avg_pool_backward_gather", "Each input collects: no atomics.", gather=True
            ),
        ),
    ),
    Ladder(
        "adaptive_avg_pool2d",
        "pool.cu",
        "adaptive_avg_pool2d",
        (
            _adaptive("adaptive_avg_pool_naive", "One thread for each output.", 128, 128),
            _adaptive(
                "adaptive_avg_pool_warp",
                "A warp for each output: rectangles are large, and lanes read neighbours.",
                32 * WARPS,
                WARPS,
            ),
        ),
    ),
    Ladder(
        "adaptive_avg_pool2d_backward",
        "pool.cu",
        "adaptive_avg_pool2d_backward",
        (
            _adaptive_backward(
                "adaptive_avg_pool_backward_scatter",
                "Each output adds to its rectangle, by atomics.",
                gather=False,
            ),
            _adaptive_backward(
                "adaptive_avg_pool_backward_gather",
                "Each input collects: no atomics.",
                gather=True,
            ),
        ),
    ),
)
