"""Every CUDA kernel of the book, in ladders: the same task, each rung faster for one stated reason.

>>> from dlnotes.cuda import LADDERS
>>> ladder = LADDERS["softmax"]                                    # doctest: +SKIP
>>> [f"{rung.name}: {rung.reason}" for rung in ladder.rungs]       # doctest: +SKIP
>>> y = ladder.run(x, rung="softmax_warp", mode="checked")         # doctest: +SKIP

A rung says how its kernels are launched: `run(s, *inputs)` allocates what it returns and calls
`s.launch(kernel, grid, block, *arguments)`. The same function serves NumPy arrays on the CPU and
torch tensors on a GPU. Inputs are float32 and contiguous; each ladder computes what the NumPy
function `reference` of `dlnotes.kernels` does, in the subset that its rungs' arguments state.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dlnotes import _validate
from dlnotes.cuda import _kernel

Grid = int | tuple[int, ...]


class Session:
    """What a rung needs to run: launches into one module, and memory like that of its inputs."""

    def __init__(self, module: "_kernel.Module"):
        self.module, self.records = module, []

    def launch(
        self, kernel: str, grid: Grid, block: Grid, *arguments, shared_bytes: int = 0
    ) -> None:
        """Launch `kernel`; a grid without blocks has nothing to do."""
        if 0 in (grid if isinstance(grid, tuple) else (grid,)):
            return
        ready = self.module.kernel(kernel)
        record = ready.launch(grid, block, *arguments, shared_bytes=shared_bytes)
        if record is not None:
            self.records.append(record)

    def empty(self, shape: tuple[int, ...], like, dtype: str | None = None):
        """Return memory for a result; on the CPU it holds NaN (or all bits set), so gaps show."""
        if isinstance(like, np.ndarray):
            dtype = np.dtype(dtype or like.dtype)
            return np.full(shape, np.nan if dtype.kind == "f" else ~dtype.type(0), dtype)
        import torch

        return like.new_empty(shape, dtype=getattr(torch, dtype) if dtype else None)

    def zeros(self, shape: tuple[int, ...], like):
        """Return zeros, for results that are added up by atomics."""
        return (
            np.zeros(shape, like.dtype) if isinstance(like, np.ndarray) else like.new_zeros(shape)
        )


@dataclass(frozen=True)
class Rung:
    """One version of a task.

    name: its main kernel. reason: why it is faster than the rung below, or how the first one works.
    run(session, *inputs) → outputs. kernels: all that it launches, template arguments given.
    needs: the oldest architecture that has what it uses.
    """

    name: str
    reason: str
    run: Callable = field(repr=False)
    kernels: tuple[str, ...]
    needs: str = "sm_75"


@dataclass(frozen=True)
class Ladder:
    """A task, the NumPy function that it is held against, and its rungs from the simplest up."""

    name: str
    file: str
    reference: str
    rungs: tuple[Rung, ...]

    def rung(self, name: str) -> Rung:
        """Return the rung `name`."""
        _validate.one_of("rung", name, [rung.name for rung in self.rungs])
        return next(rung for rung in self.rungs if rung.name == name)

    def run(self, *inputs, rung: str | None = None, device: str = "cpu", mode: str = "fast"):
        """Return the outputs for `inputs` by one rung, the last if not given."""
        return self.record(*inputs, rung=rung, device=device, mode=mode)[0]

    def record(
        self, *inputs, rung: str | None = None, device: str = "cpu", mode: str = "trace"
    ) -> tuple:
        """Return the outputs, and a Trace or Steps for each launch."""
        chosen = self.rungs[-1] if rung is None else self.rung(rung)
        session = Session(_loaded(self.file, device, mode))
        outputs = chosen.run(session, *inputs)
        return outputs, session.records


_modules: dict[tuple[str, str, str], "_kernel.Module"] = {}


def _loaded(file: str, device: str, mode: str) -> "_kernel.Module":
    key = (file, device, mode)
    if key not in _modules:
        _modules[key] = _kernel.load(_kernel.KERNELS / file, device=device, mode=mode)
    return _modules[key]


def blocks(n: int, each: int) -> int:
    """Return how many blocks of `each` cover n: n / each, rounded up."""
    return -(-n // each)


# ---- linear ----------------------------------------------------------------------------------

# kernel without layout, extra template arguments, tile (rows, columns), block
_PRODUCTS = {
    "matmul_naive": ("", (8, 32), (32, 8)),
    "matmul_tiled": (", 16", (16, 16), (16, 16)),
    "matmul_blocked": (", 64, 64, 8, 4, 4", (64, 64), 256),
    "matmul_vectorised": (", 128, 64, 8, 8, 4", (128, 64), 256),
}
_PRODUCT_REASONS = {
    "matmul_naive": "One thread for each entry of the result, all operands from global memory.",
    "matmul_tiled": "Tiles in shared memory: a number is fetched once and used 16 times.",
    "matmul_blocked": "Several results a thread, in registers: fewer reads of shared memory.",
    "matmul_vectorised": "Four numbers to a load or store: fewer instructions for the same bytes.",
}


def _product(s: Session, name: str, a, b, bias, m: int, n: int, k: int, layout: str):
    extra, (rows, columns), block = _PRODUCTS[name]
    c = s.empty((m, n), a)
    kernel = f"{name}<{layout}{extra}>"
    s.launch(kernel, (blocks(n, columns), blocks(m, rows)), block, m, n, k, a, b, bias, c)
    return c


def _linear(name: str) -> Rung:
    def run(s, x, weight, bias=None):
        return _product(s, name, x, weight, bias, len(x), *weight.shape, "false, true")

    kernels = (f"{name}<false, true{_PRODUCTS[name][0]}>",)
    return Rung(name, _PRODUCT_REASONS[name], run, kernels)


def _linear_backward(name: str) -> Rung:
    def run(s, dy, x, weight):
        (batch, n_in), n_out = x.shape, len(weight)
        dx = _product(s, name, dy, weight, None, batch, n_in, n_out, "false, false")
        dweight = _product(s, name, dy, x, None, n_out, n_in, batch, "true, false")
        dbias = s.empty((n_out,), dy)
        s.launch("column_sums", blocks(n_out, 32), (32, 8), batch, n_out, dy, dbias)
        return dx, dweight, dbias

    extra = _PRODUCTS[name][0]
    kernels = (f"{name}<false, false{extra}>", f"{name}<true, false{extra}>", "column_sums")
    return Rung(name, _PRODUCT_REASONS[name], run, kernels)


# ---- rows: softmax, cross-entropy, layer norm ------------------------------------------------

_WARPS = 4  # rows of a block where a warp has one


def _rows(name: str, reason: str, block: int, rows_a_block: int, shared: bool = False) -> Rung:
    def run(s, x):
        rows, columns = x.shape
        y = s.empty(x.shape, x)
        shared_bytes = 4 * block if shared else 0
        s.launch(
            name, blocks(rows, rows_a_block), block, rows, columns, x, y, shared_bytes=shared_bytes
        )
        return y

    return Rung(name, reason, run, (name,))


def _softmax_backward(s, dy, y):
    dx = s.empty(y.shape, y)
    s.launch("softmax_backward", blocks(len(y), _WARPS), 32 * _WARPS, *y.shape, dy, y, dx)
    return dx


IGNORED = -100


def _counted(target) -> int:
    return max(int((target != IGNORED).sum()), 1)


def _cross_entropy_naive(s, x, target):
    rows, classes = x.shape
    losses, dx = s.empty((rows,), x), s.empty(x.shape, x)
    grid, scale = blocks(rows, 64), 1 / _counted(target)
    s.launch("cross_entropy_naive", grid, 64, rows, classes, x, target, IGNORED, losses)
    s.launch("cross_entropy_backward_naive", grid, 64, rows, classes, scale, x, target, IGNORED, dx)
    return losses, dx


def _cross_entropy_fused(s, x, target):
    rows, classes = x.shape
    losses, dx = s.empty((rows,), x), s.empty(x.shape, x)
    scale, grid = 1 / _counted(target), blocks(rows, _WARPS)
    s.launch(
        "cross_entropy_fused",
        grid,
        32 * _WARPS,
        rows,
        classes,
        scale,
        x,
        target,
        IGNORED,
        losses,
        dx,
    )
    return losses, dx


def _sum(name: str, reason: str, most_blocks: int) -> Rung:
    def run(s, x):
        total = s.zeros((1,), x)
        s.launch(name, min(blocks(len(x), 256), most_blocks), 256, len(x), x, total)
        return total

    return Rung(name, reason, run, (name,))


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
    grid = blocks(rows, _WARPS)
    s.launch(
        "layer_norm_backward_warp", grid, 32 * _WARPS, rows, columns, dy, x, weight, mean, scale, dx
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


# ---- images: pooling, convolution ------------------------------------------------------------


def _pair(value) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _out(sizes, kernel, stride, padding, dilation=(1, 1)) -> list[int]:
    """Return the height and width of what windows over an image give."""
    axes = zip(sizes, kernel, stride, padding, dilation, strict=True)
    return [(size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in axes]


def _ints(names: str) -> tuple[tuple[str, type], ...]:
    return tuple((name, ctypes.c_int) for name in names.split())


class Pool(ctypes.Structure):
    """The struct Pool of pool.cu."""

    _fields_ = _ints("h w out_h out_w kernel_h kernel_w stride_h stride_w padding_h padding_w")


def pool_sizes(shape, kernel_size, stride=None, padding=0) -> Pool:
    """Return the sizes of a pooling of images of `shape` (n, c, h, w)."""
    kernel, padding = _pair(kernel_size), _pair(padding)
    stride = _pair(kernel_size if stride is None else stride)
    out = _out(shape[2:], kernel, stride, padding)
    return Pool(*shape[2:], *out, *kernel, *stride, *padding)


_TILE = (16, 8)  # outputs of a block, across and down


def _tiled(s, name, p: Pool, images: int, *arrays):
    across, down = _TILE
    tile_h, tile_w = (down - 1) * p.stride_h + p.kernel_h, (across - 1) * p.stride_w + p.kernel_w
    grid = (blocks(p.out_w, across), blocks(p.out_h, down), images)
    s.launch(name, grid, _TILE, p, images, *arrays, shared_bytes=4 * tile_h * tile_w)


def _max_pool(name: str, reason: str, tiled: bool) -> Rung:
    def run(s, x, kernel_size, stride=None, padding=0):
        p, images = pool_sizes(x.shape, kernel_size, stride, padding), x.shape[0] * x.shape[1]
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
        dx = s.empty(shape, dy) if gather else s.zeros(shape, dy)
        entries = p.h * p.w if gather else p.out_h * p.out_w
        s.launch(name, blocks(images * entries, 128), 128, p, images, dy, *indices, dx)
        return dx

    return Rung(name, reason, run, (name,))


class Conv(ctypes.Structure):
    """The struct Conv of conv.cu."""

    _fields_ = _ints(
        "n c_in h w c_out out_h out_w kernel_h kernel_w stride_h stride_w padding_h padding_w "
        "dilation_h dilation_w"
    )


def conv_sizes(x_shape, weight_shape, stride=1, padding=0, dilation=1) -> Conv:
    """Return the sizes of a convolution of images (n, c, h, w) with kernels (out, c, kh, kw)."""
    stride, padding, dilation = _pair(stride), _pair(padding), _pair(dilation)
    kernel = weight_shape[2:]
    out = _out(x_shape[2:], kernel, stride, padding, dilation)
    return Conv(*x_shape, weight_shape[0], *out, *kernel, *stride, *padding, *dilation)


def _cells(columns: int, rows: int) -> tuple[int, int]:
    return blocks(columns, 16), blocks(rows, 16)


def _conv_direct(s, x, weight, bias=None, stride=1, padding=0, dilation=1):
    p = conv_sizes(x.shape, weight.shape, stride, padding, dilation)
    y = s.empty((p.n, p.c_out, p.out_h, p.out_w), x)
    s.launch(
        "conv_direct", blocks(p.n * p.c_out * p.out_h * p.out_w, 128), 128, p, x, weight, bias, y
    )
    return y


def _conv_implicit(s, x, weight, bias=None, stride=1, padding=0, dilation=1):
    p = conv_sizes(x.shape, weight.shape, stride, padding, dilation)
    y = s.empty((p.n, p.c_out, p.out_h, p.out_w), x)
    s.launch(
        "conv_implicit<16>",
        _cells(p.n * p.out_h * p.out_w, p.c_out),
        (16, 16),
        p,
        x,
        weight,
        bias,
        y,
    )
    return y


def _conv_backward(s, dy, x, weight, p, launch_input, launch_weight):
    dx, dweight, dbias = s.empty(x.shape, x), s.empty(weight.shape, x), s.empty((p.c_out,), x)
    launch_input(dx)
    launch_weight(dweight)
    s.launch("conv_backward_bias", p.c_out, 128, p, dy, dbias)
    return dx, dweight, dbias


def _conv_backward_direct(s, dy, x, weight, stride=1, padding=0, dilation=1):
    p = conv_sizes(x.shape, weight.shape, stride, padding, dilation)
    n, m = (
        blocks(p.n * p.c_in * p.h * p.w, 128),
        blocks(p.c_out * p.c_in * p.kernel_h * p.kernel_w, 128),
    )
    return _conv_backward(
        s,
        dy,
        x,
        weight,
        p,
        lambda dx: s.launch("conv_backward_input_direct", n, 128, p, dy, weight, dx),
        lambda dw: s.launch("conv_backward_weight_direct", m, 128, p, dy, x, dw),
    )


def _conv_backward_implicit(s, dy, x, weight, stride=1, padding=0, dilation=1):
    p = conv_sizes(x.shape, weight.shape, stride, padding, dilation)
    inputs, taps = (
        _cells(p.n * p.h * p.w, p.c_in),
        _cells(p.c_in * p.kernel_h * p.kernel_w, p.c_out),
    )
    return _conv_backward(
        s,
        dy,
        x,
        weight,
        p,
        lambda dx: s.launch(
            "conv_backward_input_implicit<16>", inputs, (16, 16), p, dy, weight, dx
        ),
        lambda dw: s.launch("conv_backward_weight_implicit<16>", taps, (16, 16), p, dy, x, dw),
    )


# ---- boxes, embedding, Adam ------------------------------------------------------------------


def _box_iou_naive(s, a, b):
    out = s.empty((len(a), len(b)), a)
    s.launch(
        "box_iou_naive", (blocks(len(b), 32), blocks(len(a), 8)), (32, 8), len(a), len(b), a, b, out
    )
    return out


def _box_iou_tiled(s, a, b):
    out = s.empty((len(a), len(b)), a)
    s.launch(
        "box_iou_tiled",
        (blocks(len(b), 32), blocks(len(a), 32)),
        (32, 8),
        len(a),
        len(b),
        a,
        b,
        out,
    )
    return out


def _suppression(overlap):
    """Sort boxes by falling score, ties in order; return which of them `overlap` keeps."""

    def run(s, boxes, scores, iou_threshold):
        if isinstance(boxes, np.ndarray):
            order = np.argsort(-scores, kind="stable")
            boxes = np.ascontiguousarray(boxes[order])
        else:
            order = (-scores).argsort(stable=True)
            boxes = boxes[order].contiguous()
        keep = s.empty((len(boxes),), boxes, "int32")
        overlap(s, boxes, float(iou_threshold), keep)
        return order[keep != 0]

    return run


def _nms_sequential(s, boxes, threshold, keep):
    s.launch("nms_sequential", min(len(boxes), 1), 256, len(boxes), threshold, boxes, keep)


def _nms_bitmask(s, boxes, threshold, keep):
    n, words = len(boxes), blocks(len(boxes), 64)
    mask = s.empty((n, words), boxes, "uint64")
    s.launch("nms_overlaps", (words, words), 64, n, threshold, boxes, mask)
    s.launch("nms_scan", min(n, 1), 32, n, mask, keep, shared_bytes=8 * words)


def _embedding(name: str, reason: str, block: int, tokens_a_block: int) -> Rung:
    def run(s, ids, table):
        y = s.empty((len(ids), table.shape[1]), table)
        s.launch(name, blocks(len(ids), tokens_a_block), block, *y.shape, ids, table, y)
        return y

    return Rung(name, reason, run, (name,))


def _embedding_backward(name: str, reason: str, block: int, tokens_a_block: int) -> Rung:
    def run(s, dy, ids, rows):
        dtable = s.zeros((rows, dy.shape[1]), dy)
        s.launch(name, blocks(len(ids), tokens_a_block), block, *dy.shape, ids, dy, dtable)
        return dtable

    return Rung(name, reason, run, (name,))


def _embedding_backward_sorted(s, dy, ids, rows):
    if isinstance(ids, np.ndarray):
        order = np.argsort(ids, kind="stable")
        starts = np.searchsorted(ids[order], np.arange(rows + 1)).astype(np.int64)
    else:
        import torch

        order = ids.argsort(stable=True)
        starts = torch.searchsorted(ids[order], torch.arange(rows + 1, device=ids.device))
    dtable = s.empty((rows, dy.shape[1]), dy)
    grid = blocks(rows, _WARPS)
    s.launch(
        "embedding_backward_sorted", grid, 32 * _WARPS, *dtable.shape, order, starts, dy, dtable
    )
    return dtable


def _adam_constants(step, lr, betas, eps):
    """As in kernels.adam_step: the correction of the first steps goes into rate and eps."""
    root = (1 - betas[1] ** step) ** 0.5
    return lr * root / (1 - betas[0] ** step), eps * root


def _adam_separate(s, p, g, m, v, step, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    n = p.size if isinstance(p, np.ndarray) else p.numel()
    rate, eps = _adam_constants(step, lr, betas, eps)
    grid = blocks(n, 256)
    s.launch("adam_mean", grid, 256, n, betas[0], weight_decay, p, g, m)
    s.launch("adam_square", grid, 256, n, betas[1], weight_decay, p, g, v)
    s.launch("adam_update", grid, 256, n, rate, eps, m, v, p)
    return p, m, v


def _adam(name: str, reason: str, each: int) -> Rung:
    def run(s, p, g, m, v, step, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        n = p.size if isinstance(p, np.ndarray) else p.numel()
        rate, eps = _adam_constants(step, lr, betas, eps)
        s.launch(name, blocks(n, 256 * each), 256, n, rate, eps, *betas, weight_decay, p, g, m, v)
        return p, m, v

    return Rung(name, reason, run, (name,))


# ---- the ladders -----------------------------------------------------------------------------

_ALL = [
    Ladder("linear", "linear.cu", "linear", tuple(map(_linear, _PRODUCTS))),
    Ladder(
        "linear_backward", "linear.cu", "linear_backward", tuple(map(_linear_backward, _PRODUCTS))
    ),
    Ladder(
        "softmax",
        "activations.cu",
        "softmax",
        (
            _rows("softmax_naive", "One thread a row.", 64, 64),
            _rows(
                "softmax_block",
                "A block a row: neighbouring threads read neighbouring numbers.",
                128,
                1,
                True,
            ),
            _rows(
                "softmax_warp",
                "A warp a row: shuffles in place of shared memory and barriers.",
                32 * _WARPS,
                _WARPS,
            ),
            _rows(
                "softmax_online",
                "Maximum and sum in one pass: x is read twice, not three times.",
                32 * _WARPS,
                _WARPS,
            ),
        ),
    ),
    Ladder(
        "softmax_backward",
        "activations.cu",
        "softmax_backward",
        (Rung("softmax_backward", "A warp a row.", _softmax_backward, ("softmax_backward",)),),
    ),
    Ladder(
        "cross_entropy",
        "losses.cu",
        "cross_entropy",
        (
            Rung(
                "cross_entropy_naive",
                "One thread a row; the gradient starts again.",
                _cross_entropy_naive,
                ("cross_entropy_naive", "cross_entropy_backward_naive"),
            ),
            Rung(
                "cross_entropy_fused",
                "Loss and gradient in one kernel, a warp a row.",
                _cross_entropy_fused,
                ("cross_entropy_fused",),
            ),
        ),
    ),
    Ladder(
        "sum",
        "losses.cu",
        "sum",
        (
            _sum("sum_atomic", "Every thread adds to one address.", 2**31 - 1),
            _sum("sum_block", "A block adds up first: one atomic a block.", 2**31 - 1),
            _sum("sum_grid", "Few blocks: each thread adds many numbers before any exchange.", 64),
        ),
    ),
    Ladder(
        "layer_norm",
        "norm.cu",
        "layer_norm",
        (
            _layer_norm("layer_norm_naive", "One thread a row.", 64, 64),
            _layer_norm(
                "layer_norm_warp",
                "A warp a row: neighbouring lanes read neighbours.",
                32 * _WARPS,
                _WARPS,
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
                ("conv_backward_input_direct", "conv_backward_weight_direct", "conv_backward_bias"),
            ),
            Rung(
                "conv_backward_implicit",
                "Both gradients as tiled matrix products.",
                _conv_backward_implicit,
                (
                    "conv_backward_input_implicit<16>",
                    "conv_backward_weight_implicit<16>",
                    "conv_backward_bias",
                ),
            ),
        ),
    ),
    Ladder(
        "box_iou",
        "boxes.cu",
        "box_iou",
        (
            Rung("box_iou_naive", "One thread a pair.", _box_iou_naive, ("box_iou_naive",)),
            Rung(
                "box_iou_tiled",
                "Boxes in shared memory, each fetched by one 16-byte load.",
                _box_iou_tiled,
                ("box_iou_tiled",),
            ),
        ),
    ),
    Ladder(
        "nms",
        "boxes.cu",
        "nms",
        (
            Rung(
                "nms_sequential",
                "One block, one box after another.",
                _suppression(_nms_sequential),
                ("nms_sequential",),
            ),
            Rung(
                "nms_bitmask",
                "All overlaps side by side, a bit each; then a walk over words.",
                _suppression(_nms_bitmask),
                ("nms_overlaps", "nms_scan"),
            ),
        ),
    ),
    Ladder(
        "embedding",
        "embedding.cu",
        "embedding",
        (
            _embedding("embedding_naive", "One thread a token.", 64, 64),
            _embedding(
                "embedding_wide", "A warp a token: the lanes read neighbours.", 32 * _WARPS, _WARPS
            ),
        ),
    ),
    Ladder(
        "embedding_backward",
        "embedding.cu",
        "embedding_backward",
        (
            _embedding_backward(
                "embedding_backward_naive", "One thread a token, by atomics.", 64, 64
            ),
            _embedding_backward(
                "embedding_backward_wide",
                "A warp a token: atomics on neighbours.",
                32 * _WARPS,
                _WARPS,
            ),
            Rung(
                "embedding_backward_sorted",
                "Tokens sorted: sums in registers, one write, no atomics.",
                _embedding_backward_sorted,
                ("embedding_backward_sorted",),
            ),
        ),
    ),
    Ladder(
        "adam",
        "optim.cu",
        "adam_step",
        (
            Rung(
                "adam_separate",
                "A kernel for each line of the formula.",
                _adam_separate,
                ("adam_mean", "adam_square", "adam_update"),
            ),
            _adam("adam_fused", "One kernel: 7 numbers moved for each parameter, not 12.", 1),
            _adam("adam_vectorised", "16 bytes to a load: fewer instructions.", 4),
        ),
    ),
]
LADDERS: dict[str, Ladder] = {ladder.name: ladder for ladder in _ALL}
