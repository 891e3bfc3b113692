"""Normalisation: rungs of norm.cu.

Backward rungs take what forward rungs return beside y: the mean and 1 / √(variance + eps) of each
row, channel, or group of channels (RMS norm: the second alone).
"""

import ctypes
import math

from dlnotes.cuda.ladders._base import WARPS, Ladder, Record, Rung, blocks, ints


def _layer_norm(name: str, reason: str, block: int, rows_a_block: int, kept: bool = False) -> Rung:
    def run(s, x, weight, bias, eps=1e-5):
        rows, columns = x.shape
        y, mean, scale = s.empty(x.shape, x), s.empty((rows,), x), s.empty((rows,), x)
        s.launch(
            name,
            blocks(rows, rows_a_block),
            block,
            rows,
            columns,
            eps,
            x,
            weight,
            bias,
            y,
            mean,
            scale,
            shared_bytes=4 * columns if kept else 0,
        )
        return y, mean, scale

    return Rung(name, reason, run, (name,))


def _layer_norm_backward_naive(s, dy, x, weight, mean, scale):
    rows, columns = x.shape
    dx, dweight, dbias = s.empty(x.shape, x), s.zeros((columns,), x), s.zeros((columns,), x)
    s.launch(
        "layer_norm_backward_naive",
        blocks(rows, 64),
        64,
        rows,
        columns,
        dy,
        x,
        weight,
        mean,
        scale,
        dx,
        dweight,
        dbias,
    )
    return dx, dweight, dbias


def _layer_norm_backward_warp(s, dy, x, weight, mean, scale):
    rows, columns = x.shape
    dx, dweight, dbias = s.empty(x.shape, x), s.empty((columns,), x), s.empty((columns,), x)
    grid = blocks(rows, WARPS)
    s.launch(
        "layer_norm_backward_warp", grid, 32 * WARPS, rows, columns, dy, x, weight, mean, scale, dx
    )
    s.launch(
        "layer_norm_backward_columns",
        blocks(columns, 32),
        (32, 8),
        rows,
        columns,
        dy,
        x,
        mean,
        scale,
        dweight,
        dbias,
    )
    return dx, dweight, dbias


class Batch(Record):
    """The struct Batch of norm.cu."""

    _fields_ = (
        *ints("images channels length"),
        ("momentum", ctypes.c_float),
        ("eps", ctypes.c_float),
    )


def batch_sizes(shape, momentum=0.0, eps=0.0) -> Batch:
    """Return the sizes of batch norm of x of `shape` (n, c, *size)."""
    return Batch(*shape[:2], math.prod(shape[2:]), momentum, eps)


def _batch_norm(name: str, reason: str, block: int, channels_a_block: int) -> Rung:
    """→ (y, mean, scale, the new running mean and variance, None where there are none)."""

    def run(
        s, x, running_mean=None, running_var=None, weight=None, bias=None, momentum=0.1, eps=1e-5
    ):
        p = batch_sizes(x.shape, momentum, eps)
        if p.images * p.length == 1:
            raise ValueError(
                f"x must have more than one value for each channel, got shape {tuple(x.shape)}"
            )
        y, (mean, scale) = s.empty(x.shape, x), (s.empty((p.channels,), x) for _ in range(2))
        running = (running_mean, running_var)
        new = [None if old is None else s.empty((p.channels,), x) for old in running]
        grid = blocks(p.channels, channels_a_block)
        s.launch(name, grid, block, p, x, weight, bias, *running, y, mean, scale, *new)
        return y, mean, scale, *new

    return Rung(name, reason, run, (name,))


def _batch_norm_inference_naive(s, x, running_mean, running_var, weight=None, bias=None, eps=1e-5):
    y, p = s.empty(x.shape, x), batch_sizes(x.shape, eps=eps)
    grid = blocks(p.images * p.channels * p.length, 128)
    arrays = (x, running_mean, running_var, weight, bias, y)
    s.launch("batch_norm_inference_naive", grid, 128, p, *arrays)
    return y


def _batch_norm_inference_plane(s, x, running_mean, running_var, weight=None, bias=None, eps=1e-5):
    y, p = s.empty(x.shape, x), batch_sizes(x.shape, eps=eps)
    arrays = (x, running_mean, running_var, weight, bias, y)
    s.launch("batch_norm_inference_plane", p.images * p.channels, 128, p, *arrays)
    return y


def _batch_norm_backward(name: str, reason: str, block: int, channels_a_block: int) -> Rung:
    def run(s, dy, x, weight, mean, scale, training=True):
        p = batch_sizes(x.shape)
        dx, (dweight, dbias) = s.empty(x.shape, x), (s.empty((p.channels,), x) for _ in range(2))
        arrays = (dy, x, weight, mean, scale, dx, dweight, dbias)
        s.launch(name, blocks(p.channels, channels_a_block), block, p, int(training), *arrays)
        return dx, dweight, dbias

    return Rung(name, reason, run, (name,))


def _rms_norm(name: str, reason: str, block: int, rows_a_block: int) -> Rung:
    def run(s, x, weight=None, eps=1e-5):
        rows, columns = x.shape
        y, scale, grid = s.empty(x.shape, x), s.empty((rows,), x), blocks(rows, rows_a_block)
        s.launch(name, grid, block, rows, columns, eps, x, weight, y, scale)
        return y, scale

    return Rung(name, reason, run, (name,))


def _rms_norm_backward_naive(s, dy, x, weight, scale):
    (rows, columns), dx = x.shape, s.empty(x.shape, x)
    dweight, arrays = s.zeros((columns,), x), (dy, x, weight, scale, dx)
    s.launch("rms_norm_backward_naive", blocks(rows, 64), 64, rows, columns, *arrays, dweight)
    return dx, dweight


def _rms_norm_backward_warp(s, dy, x, weight, scale):
    (rows, columns), dx, block = x.shape, s.empty(x.shape, x), 32 * WARPS
    dweight, arrays = s.empty((columns,), x), (dy, x, weight, scale, dx)
    s.launch("rms_norm_backward_warp", blocks(rows, WARPS), block, rows, columns, *arrays)
    arrays = (dy, x, scale, dweight)
    grid, block = blocks(columns, 32), (32, 8)
    s.launch("rms_norm_backward_columns", grid, block, rows, columns, *arrays)
    return dx, dweight


class Groups(ctypes.Structure):
    """The struct Groups of norm.cu."""

    _fields_ = ints("images channels length groups")


def _group_norm(name: str, reason: str, block: int, rows_a_block: int) -> Rung:
    def run(s, x, num_groups, weight=None, bias=None, eps=1e-5):
        p = Groups(*x.shape[:2], math.prod(x.shape[2:]), num_groups)
        y, (mean, scale) = s.empty(x.shape, x), (s.empty((p.images, p.groups), x) for _ in range(2))
        grid = blocks(p.images * p.groups, rows_a_block)
        s.launch(name, grid, block, p, eps, x, weight, bias, y, mean, scale)
        return y, mean, scale

    return Rung(name, reason, run, (name,))


def _group_norm_backward(name: str, reason: str, block: int, rows_a_block: int) -> Rung:
    """`name` computes dx; the kernel for the channels' gradients has a block of the same kind."""
    of_channels = name.replace("backward", "backward_channels")

    def run(s, dy, x, num_groups, weight, mean, scale):
        p = Groups(*x.shape[:2], math.prod(x.shape[2:]), num_groups)
        dx, (dweight, dbias) = s.empty(x.shape, x), (s.empty((p.channels,), x) for _ in range(2))
        grid = blocks(p.images * p.groups, rows_a_block)
        s.launch(name, grid, block, p, dy, x, weight, mean, scale, dx)
        grid = blocks(p.channels, rows_a_block)
        s.launch(of_channels, grid, block, p, dy, x, mean, scale, dweight, dbias)
        return dx, dweight, dbias

    return Rung(name, reason, run, (name, of_channels))


class Response(Record):
    """The struct Response of norm.cu."""

    _fields_ = (
        *ints("images channels length size"),
        ("alpha", ctypes.c_float),
        ("beta", ctypes.c_float),
        ("k", ctypes.c_float),
    )


_RESPONSES = (32, 8)  # places and channels of a block


def _respond(s, name: str, tiled: bool, p: Response, entries: int, *arrays) -> None:
    """Launch a thread for each entry."""
    if not tiled:
        s.launch(name, blocks(entries, 128), 128, p, *arrays)
        return
    across, down = _RESPONSES
    grid = p.images * blocks(p.length, across), blocks(p.channels, down)
    shared_bytes = 4 * across * (down + p.size - 1)
    s.launch(name, grid, _RESPONSES, p, *arrays, shared_bytes=shared_bytes)


def _local_response(name: str, reason: str, tiled: bool) -> Rung:
    """→ (y, d), the denominators before the power, which the backward rungs take."""

    def run(s, x, size, alpha=1e-4, beta=0.75, k=1.0):
        p = Response(*x.shape[:2], math.prod(x.shape[2:]), size, alpha, beta, k)
        y, d = s.empty(x.shape, x), s.empty(x.shape, x)
        _respond(s, name, tiled, p, math.prod(x.shape), x, y, d)
        return y, d

    return Rung(name, reason, run, (name,))


def _local_response_backward(name: str, reason: str, tiled: bool) -> Rung:
    def run(s, dy, x, d, size, alpha=1e-4, beta=0.75, k=1.0):
        p = Response(*x.shape[:2], math.prod(x.shape[2:]), size, alpha, beta, k)
        dx = s.empty(x.shape, x)
        _respond(s, name, tiled, p, math.prod(x.shape), dy, x, d, dx)
        return dx

    return Rung(name, reason, run, (name,))


FAMILY = (
    Ladder(
        "layer_norm",
        "norm.cu",
        "layer_norm",
        (
            _layer_norm("layer_norm_naive", "One thread a row.", 64, 64),
            _layer_norm(
                "layer_norm_warp",
                "A warp a row: neighbouring lanes read neighbours.",
                32 * WARPS,
                WARPS,
            ),
            _layer_norm(
                "layer_norm_kept",
                "The row stays in shared memory: x is read once.",
                128,
                1,
                kept=True,
            ),
        ),
    ),
    Ladder(
        "layer_norm_backward",
        "norm.cu",
        "layer_norm_backward",
        (
            Rung(
                "layer_norm_backward_naive",
                "One thread a row; weights' gradients by atomics.",
                _layer_norm_backward_naive,
                ("layer_norm_backward_naive",),
            ),
            Rung(
                "layer_norm_backward_warp",
                "A warp a row; weights' gradients as sums of columns, no atomics.",
                _layer_norm_backward_warp,
                ("layer_norm_backward_warp", "layer_norm_backward_columns"),
            ),
        ),
    ),
    Ladder(
        "batch_norm",
        "norm.cu",
        "batch_norm",
        (
            _batch_norm("batch_norm_naive", "One thread a channel.", 32, 32),
            _batch_norm(
                "batch_norm_block", "A block a channel: neighbours read neighbours.", 256, 1
            ),
            _batch_norm(
                "batch_norm_welford",
                "Mean and variance in one pass: x is read twice, not three times.",
                256,
                1,
            ),
        ),
    ),
    Ladder(
        "batch_norm_inference",
        "norm.cu",
        "batch_norm",
        (
            Rung(
                "batch_norm_inference_naive",
                "One thread an entry.",
                _batch_norm_inference_naive,
                ("batch_norm_inference_naive",),
            ),
            Rung(
                "batch_norm_inference_plane",
                "A block a plane: the channel, its factor and shift are found once.",
                _batch_norm_inference_plane,
                ("batch_norm_inference_plane",),
            ),
        ),
    ),
    Ladder(
        "batch_norm_backward",
        "norm.cu",
        "batch_norm_backward",
        (
            _batch_norm_backward("batch_norm_backward_naive", "One thread a channel.", 32, 32),
            _batch_norm_backward(
                "batch_norm_backward_block",
                "A block a channel: neighbours read neighbours.",
                256,
                1,
            ),
        ),
    ),
    Ladder(
        "rms_norm",
        "norm.cu",
        "rms_norm",
        (
            _rms_norm("rms_norm_naive", "One thread a row.", 64, 64),
            _rms_norm(
                "rms_norm_warp",
                "A warp a row: neighbouring lanes read neighbours.",
                32 * WARPS,
                WARPS,
            ),
        ),
    ),
    Ladder(
        "rms_norm_backward",
        "norm.cu",
        "rms_norm_backward",
        (
            Rung(
                "rms_norm_backward_naive",
                "One thread a row; the weight's gradient by atomics.",
                _rms_norm_backward_naive,
                ("rms_norm_backward_naive",),
            ),
            Rung(
                "rms_norm_backward_warp",
                "A warp a row; the weight's gradient as sums of columns, no atomics.",
                _rms_norm_backward_warp,
                ("rms_norm_backward_warp", "rms_norm_backward_columns"),
            ),
        ),
    ),
    Ladder(
        "group_norm",
        "norm.cu",
        "group_norm",
        (
            _group_norm("group_norm_naive", "One thread a group.", 64, 64),
            _group_norm("group_norm_block", "A block a group: neighbours read neighbours.", 256, 1),
        ),
    ),
    Ladder(
        "group_norm_backward",
        "norm.cu",
        "group_norm_backward",
        (
            _group_norm_backward(
                "group_norm_backward_naive", "One thread a group, and one a channel.", 64, 64
            ),
            _group_norm_backward(
                "group_norm_backward_block",
                "A block a group, and one a channel: neighbours read neighbours.",
                256,
                1,
            ),
        ),
    ),
    Ladder(
        "local_response_norm",
        "norm.cu",
        "local_response_norm",
        (
            _local_response("local_response_naive", "One thread an entry.", tiled=False),
            _local_response(
                "local_response_tiled",
                "Neighbourhoods overlap: a block squares each entry once.",
                tiled=True,
            ),
        ),
    ),
    Ladder(
        "local_response_norm_backward",
        "norm.cu",
        "local_response_norm_backward",
        (
            _local_response_backward(
                "local_response_backward_naive", "One thread an entry.", tiled=False
            ),
            _local_response_backward(
                "local_response_backward_tiled",
                "Neighbourhoods overlap: a block takes each power once.",
                tiled=True,
            ),
        ),
    ),
)
