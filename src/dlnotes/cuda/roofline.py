"""How many bytes and operations each ladder needs, and how fast a machine could do them.

The roofline (Williams, Waterman and Patterson, 2009): a task that moves B bytes and does F
operations takes at least as long as the slower of the two, max(B / bandwidth, F / rate). Below
rate / bandwidth operations a byte memory decides, above it arithmetic.

>>> from dlnotes.cuda.roofline import Machine, cost
>>> x = np.broadcast_to(np.float32(0), (4096, 4096))  # a shape, without its memory
>>> needed = cost("linear", x, x)                     # y = x xᵀ
>>> needed.bytes, needed.operations
(201326592, 137438953472)
>>> Machine(bandwidth=3e12, rate=60e12).seconds(needed)
0.0022906492245333334

Bytes are the least there can be: each number of the inputs that is needed is read once, each of the
results written once. Operations are those of the formula; a comparison, a square root and an
exponential count one each. What a kernel adds to both is its own doing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from dlnotes import _validate
from dlnotes._validate import Number
from dlnotes.cuda.ladders import conv_sizes, pool_sizes

__all__ = ["Cost", "Machine", "cost"]


@dataclass(frozen=True)
class Cost:
    """What a task needs: bytes moved to or from memory, and floating-point operations."""

    bytes: int
    operations: int

    @property
    def intensity(self) -> float:
        """Operations for each byte."""
        return self.operations / self.bytes


@dataclass(frozen=True)
class Machine:
    """What a machine does in a second: `bandwidth` bytes moved, `rate` operations done."""

    bandwidth: Number
    rate: Number

    @property
    def ridge(self) -> float:
        """The intensity at which memory and arithmetic take equally long."""
        return self.rate / self.bandwidth

    def attainable(self, intensity: Number) -> float:
        """Return the operations a second that a task of this intensity can reach: the roof."""
        return min(self.rate, self.bandwidth * intensity)

    def seconds(self, cost: Cost) -> float:
        """Return the least time that the task can take."""
        return max(cost.bytes / self.bandwidth, cost.operations / self.rate)


def cost(ladder: str, *inputs) -> Cost:
    """Return what a ladder of `dlnotes.cuda.LADDERS` needs for `inputs`, those of its `run`.

    Of arrays (NumPy's or torch's) the shape and the dtype's size alone are looked at.

    Raises ValueError for a ladder that has no count.
    """
    count = COSTS[_validate.one_of("ladder", ladder, COSTS)]
    return count(*inputs)


# ---- counting ------------------------------------------------------------------------------------


def _count(*moved, operations) -> Cost:
    """Return the cost of moving arrays, or (shape, bytes of a number), and of the operations."""
    return Cost(sum(prod(shape) * size for shape, size in map(_sized, moved)), int(operations))


def _sized(array) -> tuple[tuple[int, ...], int]:
    if isinstance(array, tuple):
        return array
    size = array.itemsize if isinstance(array, np.ndarray) else array.element_size()
    return tuple(array.shape), size


def _bytes(x) -> int:
    return _sized(x)[1]


def _linear(x, weight, bias=None) -> Cost:
    (rows, n_in), n_out = x.shape, len(weight)
    y = (rows, n_out), _bytes(x)
    return _count(
        *(x, weight, y, *([] if bias is None else [bias])),
        operations=2 * rows * n_in * n_out + (bias is not None) * rows * n_out,
    )


def _linear_backward(dy, x, weight) -> Cost:
    (rows, n_in), n_out = x.shape, len(weight)
    dbias = (n_out,), _bytes(x)
    # dx, dweight: a product each; dbias: a sum. Each gradient is as large as what it belongs to.
    return _count(
        *(dy, x, weight, x, weight, dbias),
        operations=4 * rows * n_in * n_out + rows * n_out,
    )


def _softmax(x) -> Cost:
    return _count(x, x, operations=5 * prod(x.shape))  # maximum, difference, exp, sum, quotient


def _softmax_backward(dy, y) -> Cost:
    return _count(dy, y, y, operations=4 * prod(y.shape))


def _cross_entropy(x, target) -> Cost:
    losses = (len(x),), _bytes(x)
    return _count(x, target, losses, x, operations=7 * prod(x.shape))  # softmax, - onehot, scale


def _sum(x) -> Cost:
    return _count(x, ((1,), _bytes(x)), operations=prod(x.shape))


def _layer_norm(x, weight, bias, eps=1e-5) -> Cost:
    statistics = (2, len(x)), _bytes(x)
    # the mean: 1 for each entry, the variance: 3, the result: 4
    return _count(x, weight, bias, x, statistics, operations=8 * prod(x.shape))


def _layer_norm_backward(dy, x, weight, mean, scale) -> Cost:
    # g: 1, n: 2, the sums of g and of g n: 3, dx: 4, dweight: 2, dbias: 1
    return _count(dy, x, weight, mean, scale, x, weight, weight, operations=13 * prod(x.shape))


def _pool(indices: bool, x, kernel_size, stride=None, padding=0) -> Cost:
    p = pool_sizes(x.shape, kernel_size, stride, padding)
    shape = (*x.shape[:2], p.out_h, p.out_w)
    moved = [(shape, _bytes(x)), *[(shape, 8)] * indices]
    return _count(x, *moved, operations=prod(shape) * p.kernel_h * p.kernel_w)


def _max_pool_backward(dy, indices, shape, kernel_size, stride, padding) -> Cost:
    return _count(dy, indices, (tuple(shape), _bytes(dy)), operations=prod(dy.shape))


def _avg_pool_backward(dy, shape, kernel_size, stride, padding) -> Cost:
    p = pool_sizes(shape, kernel_size, stride, padding)
    windows = p.kernel_h * p.kernel_w
    return _count(dy, (tuple(shape), _bytes(dy)), operations=prod(dy.shape) * windows)


def _conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1) -> Cost:
    p = conv_sizes(x.shape, weight.shape, stride, padding, dilation)
    shape = p.n, p.c_out, p.out_h, p.out_w
    products = prod(shape) * prod(weight.shape[1:])  # those with padding among them
    return _count(
        *(x, weight, (shape, _bytes(x)), *([] if bias is None else [bias])),
        operations=2 * products + (bias is not None) * prod(shape),
    )


def _conv2d_backward(dy, x, weight, stride=1, padding=0, dilation=1) -> Cost:
    dbias = weight.shape[:1], _bytes(x)
    return _count(
        *(dy, x, weight, x, weight, dbias),
        operations=4 * prod(dy.shape) * prod(weight.shape[1:]) + prod(dy.shape),
    )


_IOU = 12  # operations: corners 4, sides 2, not below 0: 2, area 1, union 2, quotient 1


def _box_iou(a, b) -> Cost:
    pairs = len(a), len(b)
    areas = 3 * sum(pairs)
    return _count(a, b, (pairs, _bytes(a)), operations=_IOU * prod(pairs) + areas)


def _nms(boxes, scores, iou_threshold) -> Cost:
    n = len(boxes)
    # Each box with each later one, as if none were suppressed; sorting is not counted.
    return _count(boxes, scores, ((n,), 4), operations=_IOU * n * (n - 1) // 2)


def _embedding(ids, table) -> Cost:
    rows = (len(ids), table.shape[1]), _bytes(table)
    return _count(ids, rows, rows, operations=0)


def _embedding_backward(dy, ids, rows) -> Cost:
    dtable = (rows, dy.shape[1]), _bytes(dy)
    return _count(dy, ids, dtable, operations=prod(dy.shape))


def _adam(p, g, m, v, *settings) -> Cost:
    # decay: 2, mean: 3, square: 4, the step: 5
    return _count(p, g, m, v, p, m, v, operations=14 * prod(p.shape))


COSTS: dict[str, Callable[..., Cost]] = {
    "linear": _linear,
    "linear_backward": _linear_backward,
    "softmax": _softmax,
    "softmax_backward": _softmax_backward,
    "cross_entropy": _cross_entropy,
    "sum": _sum,
    "layer_norm": _layer_norm,
    "layer_norm_backward": _layer_norm_backward,
    "max_pool2d": lambda *inputs: _pool(True, *inputs),
    "avg_pool2d": lambda *inputs: _pool(False, *inputs),
    "max_pool2d_backward": _max_pool_backward,
    "avg_pool2d_backward": _avg_pool_backward,
    "conv2d": _conv2d,
    "conv2d_backward": _conv2d_backward,
    "box_iou": _box_iou,
    "nms": _nms,
    "embedding": _embedding,
    "embedding_backward": _embedding_backward,
    "adam": _adam,
}
