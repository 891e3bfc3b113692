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
exponential count one each; small sums, over a row's statistics say, are left out. What a kernel
adds to both is its own doing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from dlnotes import _validate
from dlnotes._validate import Number
from dlnotes.cuda.ladders import conv_sizes, conv_transpose_sizes, pool_sizes

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
        return float(min(self.rate, self.bandwidth * intensity))

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


def _result_bytes(x) -> int:
    """Return the bytes of a number of a matrix product's result: of bfloat16 it is float32."""
    return max(_bytes(x), 4)


def _linear(x, weight, bias=None) -> Cost:
    (rows, n_in), n_out = x.shape, len(weight)
    y = (rows, n_out), _result_bytes(x)
    return _count(
        *(x, weight, y, *([] if bias is None else [bias])),
        operations=2 * rows * n_in * n_out + (bias is not None) * rows * n_out,
    )


def _linear_backward(dy, x, weight) -> Cost:
    (rows, n_in), n_out = x.shape, len(weight)
    # dx, dweight: a product each; dbias: a sum. Each gradient has the shape of what it belongs to.
    gradients = [(shape, _result_bytes(x)) for shape in (x.shape, weight.shape, (n_out,))]
    return _count(
        *(dy, x, weight, *gradients),
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


def _batch_norm(x, running_mean=None, running_var=None, weight=None, bias=None, *settings) -> Cost:
    channels = _present(running_mean, running_var, weight, bias)
    statistics = (2, x.shape[1]), _bytes(x)
    new = _present(running_mean, running_var)
    # the mean: 1 for each entry, the variance: 3, the result: 4
    return _count(x, *channels, x, statistics, *new, operations=8 * prod(x.shape))


def _batch_norm_inference(x, running_mean, running_var, weight=None, bias=None, eps=1e-5) -> Cost:
    channels = _present(running_mean, running_var, weight, bias)
    return _count(x, *channels, x, operations=4 * prod(x.shape))


def _batch_norm_backward(dy, x, weight, mean, scale, training=True) -> Cost:
    gradients = (2, x.shape[1]), _bytes(x)
    # n: 2, the sums of dy and of dy n: 3, dx: 4, which in evaluation is one product
    each = 9 if training else 6
    channels = _present(weight, mean, scale)
    return _count(dy, x, *channels, x, gradients, operations=each * prod(x.shape))


def _rms_norm(x, weight=None, eps=1e-5) -> Cost:
    scale = (len(x),), _bytes(x)
    # the mean of squares: 2 for each entry, the result: 2
    return _count(x, *_present(weight), x, scale, operations=4 * prod(x.shape))


def _rms_norm_backward(dy, x, weight, scale) -> Cost:
    dweight = x.shape[1:], _bytes(x)
    # g: 1, n: 1, the sum of g n: 2, dx: 3, dweight: 2
    moved = (dy, x, *_present(weight), scale, x, dweight)
    return _count(*moved, operations=9 * prod(x.shape))


def _group_norm(x, num_groups, weight=None, bias=None, eps=1e-5) -> Cost:
    statistics = (2, len(x), num_groups), _bytes(x)
    # as for layer norm
    return _count(x, *_present(weight, bias), x, statistics, operations=8 * prod(x.shape))


def _group_norm_backward(dy, x, num_groups, weight, mean, scale) -> Cost:
    gradients = (2, x.shape[1]), _bytes(x)
    moved = (dy, x, *_present(weight), mean, scale, x, gradients)
    return _count(*moved, operations=13 * prod(x.shape))


def _local_response(x, size, *settings) -> Cost:
    # each square: 1, the sum: size, the denominator: 2, the power and the product: 2
    return _count(x, x, x, operations=(5 + size) * prod(x.shape))


def _local_response_backward(dy, x, d, size, *settings) -> Cost:
    # each term: 4, the sum: size, dx: 4
    return _count(dy, x, d, x, operations=(8 + size) * prod(x.shape))


def _present(*arrays) -> list:
    return [array for array in arrays if array is not None]


def _pool(indices: bool, x, *settings) -> Cost:
    p = pool_sizes(x.shape, *settings)
    shape = (*x.shape[:2], p.out_h, p.out_w)
    moved = [(shape, _bytes(x)), *[(shape, 8)] * indices]
    return _count(x, *moved, operations=prod(shape) * p.kernel_h * p.kernel_w)


def _max_pool_backward(dy, indices, shape, kernel_size, stride, padding) -> Cost:
    return _count(dy, indices, (tuple(shape), _bytes(dy)), operations=prod(dy.shape))


def _avg_pool_backward(dy, shape, kernel_size, stride, padding) -> Cost:
    p = pool_sizes(shape, kernel_size, stride, padding)
    windows = p.kernel_h * p.kernel_w
    return _count(dy, (tuple(shape), _bytes(dy)), operations=prod(dy.shape) * windows)


def _adaptive(x, output_size) -> Cost:
    out = (output_size,) * 2 if isinstance(output_size, int) else tuple(output_size)
    shape = (*x.shape[:2], *out), _bytes(x)
    return _count(x, shape, operations=prod(x.shape))  # rectangles share few entries


def _adaptive_backward(dy, shape) -> Cost:
    return _count(dy, (tuple(shape), _bytes(dy)), operations=prod(shape))


def _conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Cost:
    p = conv_sizes(x.shape, weight.shape, stride, padding, dilation, groups)
    shape = p.n, p.c_out, p.out_h, p.out_w
    products = prod(shape) * prod(weight.shape[1:])  # those with padding among them
    return _count(
        *(x, weight, (shape, _result_bytes(x)), *([] if bias is None else [bias])),
        operations=2 * products + (bias is not None) * prod(shape),
    )


def _conv2d_backward(dy, x, weight, stride=1, padding=0, dilation=1, groups=1) -> Cost:
    gradients = [(shape, _result_bytes(x)) for shape in (x.shape, weight.shape, weight.shape[:1])]
    return _count(
        *(dy, x, weight, *gradients),
        operations=4 * prod(dy.shape) * prod(weight.shape[1:]) + prod(dy.shape),
    )


def _conv_transpose2d(x, weight, bias=None, *settings) -> Cost:
    p = conv_transpose_sizes(x.shape, weight.shape, *settings)
    y = p.n, p.c_in, p.h, p.w
    products = prod(x.shape) * prod(weight.shape[1:])  # those beyond the output's edges among them
    return _count(
        *(x, weight, (y, _result_bytes(x)), *_present(bias)),
        operations=2 * products + (bias is not None) * prod(y),
    )


def _conv_transpose2d_backward(dy, x, weight, *settings) -> Cost:
    gradients = [(shape, _result_bytes(x)) for shape in (x.shape, weight.shape, dy.shape[1:2])]
    return _count(
        *(dy, x, weight, *gradients),
        operations=4 * prod(x.shape) * prod(weight.shape[1:]) + prod(dy.shape),
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


def _skip_gram_step(
    input_weight, output_weight, center, context, noise, lr, remove_hits=False
) -> Cost:
    pairs, words = len(center), 1 + noise.shape[1]
    width, size = input_weight.shape[1], _bytes(input_weight)
    rows = (pairs, 1 + words, width), size  # as if no word occurred twice
    losses = (pairs,), size
    # a score: 2, its share of both gradients: 4, for each number; then the step: 2
    each = (2 + 4) * words + 2 * (1 + words)
    return _count(center, context, noise, rows, rows, losses, operations=each * pairs * width)


def _negative_sampling(hidden, weight, target, noise, remove_hits=False) -> Cost:
    samples, words = len(hidden), 1 + noise.shape[1]
    width, size = hidden.shape[1], _bytes(hidden)
    rows, losses = ((samples, words, width), size), ((samples,), size)
    # dweight is as large as the table, zeros and all
    return _count(
        *(hidden, rows, target, noise, losses, hidden, weight),
        operations=6 * samples * words * width,
    )


def _gram(x) -> Cost:
    n, channels, *size = x.shape
    y = (n, channels, channels), _bytes(x)
    # half of the entries are enough: the matrix is symmetric
    return _count(x, y, operations=n * channels * (channels + 1) * prod(size))


def _gram_backward(dy, x) -> Cost:
    channels = x.shape[1]
    return _count(dy, x, x, operations=2 * prod(x.shape) * channels + prod(dy.shape))


def _attention(query, key, value, attn_mask=None, is_causal=False, scale=None) -> Cost:
    shape, size = (*query.shape[:-1], value.shape[-1]), _result_bytes(query)
    log_sum = query.shape[:-1], size
    pairs = _pairs(query, key, is_causal)
    # two products for each pair, and the softmax
    each = 2 * (query.shape[-1] + value.shape[-1]) + 5
    mask = _present(attn_mask)
    return _count(query, key, value, *mask, (shape, size), log_sum, operations=each * pairs)


def _attention_backward(
    dy, query, key, value, y, log_sum, attn_mask=None, is_causal=False, scale=None
) -> Cost:
    # scores again, dquery and dkey, each as wide as a query; dweights and dvalue
    each = 2 * (3 * query.shape[-1] + 2 * value.shape[-1]) + 6
    gradients = [(x.shape, _result_bytes(x)) for x in (query, key, value)]
    return _count(
        *(dy, query, key, value, y, log_sum, *_present(attn_mask), *gradients),
        operations=each * _pairs(query, key, is_causal),
    )


def _pairs(query, key, is_causal: bool) -> int:
    """Return how many scores there are; with is_causal those that count."""
    queries, keys = query.shape[-2], key.shape[-2]
    seen = sum(min(i + 1, keys) for i in range(queries)) if is_causal else queries * keys
    return prod(query.shape[:-2]) * seen


_GATES = {"lstm": (4, 9), "gru": (3, 10)}  # gates, and operations after the products for each unit


def _cell(kind: str, x, *rest) -> Cost:
    states, weights = rest[: 2 if kind == "lstm" else 1], rest[2 if kind == "lstm" else 1 :]
    (gates, each), units = _GATES[kind], states[0].shape[1]
    kept = (len(x), 4 * units), _bytes(x)
    products = len(x) * gates * units * (x.shape[1] + units)
    biases = len(_present(*weights[2:])) * len(x) * gates * units
    return _count(
        *(x, *states, *_present(*weights), *states, kept),
        operations=2 * products + biases + each * len(x) * units,
    )


def _cell_backward(kind: str, *inputs) -> Cost:
    *rest, weight_ih, weight_hh = inputs
    start = 2 if kind == "lstm" else 1  # behind the gradients from above
    x, h = rest[start : start + 2]
    gates, units = _GATES[kind][0], h.shape[1]
    biases = (2, gates * units), _bytes(x)
    results = (x, *[h] * start, weight_ih, weight_hh, biases)
    products = len(x) * gates * units * (x.shape[1] + units)
    # Each product has two gradients; then the biases' sums, and the gates' gradients.
    elementwise = 2 * len(x) * gates * units + (25 if kind == "lstm" else 20) * len(x) * units
    moved = (*_present(*rest), weight_ih, weight_hh, *results)
    return _count(*moved, operations=4 * products + elementwise)


COSTS: dict[str, Callable[..., Cost]] = {
    "linear": _linear,
    "linear_backward": _linear_backward,
    "softmax": _softmax,
    "softmax_backward": _softmax_backward,
    "cross_entropy": _cross_entropy,
    "sum": _sum,
    "layer_norm": _layer_norm,
    "layer_norm_backward": _layer_norm_backward,
    "batch_norm": _batch_norm,
    "batch_norm_inference": _batch_norm_inference,
    "batch_norm_backward": _batch_norm_backward,
    "rms_norm": _rms_norm,
    "rms_norm_backward": _rms_norm_backward,
    "group_norm": _group_norm,
    "group_norm_backward": _group_norm_backward,
    "local_response_norm": _local_response,
    "local_response_norm_backward": _local_response_backward,
    "max_pool2d": lambda *inputs: _pool(True, *inputs),
    "avg_pool2d": lambda *inputs: _pool(False, *inputs),
    "max_pool2d_backward": _max_pool_backward,
    "avg_pool2d_backward": _avg_pool_backward,
    "adaptive_avg_pool2d": _adaptive,
    "adaptive_avg_pool2d_backward": _adaptive_backward,
    "conv2d": _conv2d,
    "conv2d_backward": _conv2d_backward,
    "conv_transpose2d": _conv_transpose2d,
    "conv_transpose2d_backward": _conv_transpose2d_backward,
    "attention": _attention,
    "attention_backward": _attention_backward,
    "lstm_cell": lambda *inputs: _cell("lstm", *inputs),
    "lstm_cell_backward": lambda *inputs: _cell_backward("lstm", *inputs),
    "gru_cell": lambda *inputs: _cell("gru", *inputs),
    "gru_cell_backward": lambda *inputs: _cell_backward("gru", *inputs),
    "skip_gram_negative_sampling_step": _skip_gram_step,
    "negative_sampling_loss": _negative_sampling,
    "gram_matrix": _gram,
    "gram_matrix_backward": _gram_backward,
    "box_iou": _box_iou,
    "nms": _nms,
    "embedding": _embedding,
    "embedding_backward": _embedding_backward,
    "adam": _adam,
}
