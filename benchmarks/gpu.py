"""How fast the CUDA kernels are: each rung against torch's own, and against the card's limits.

    python benchmarks/gpu.py                          # all ladders; needs a GPU
    python benchmarks/gpu.py --only conv attention    # those whose name has one of these words
    python benchmarks/gpu.py --list                   # what there is; needs no GPU
    python benchmarks/gpu.py --report benchmarks/gpu/CARD.json    # the table of a file; likewise

Times are the card's own (events on torch's stream). Before each sample a buffer larger than the L2
cache is filled, so that the caches hold nothing of use, and the inputs rotate through copies that
together are larger than it. Then the card spins until Python has queued the whole sample: how long
that takes is measured first, for each rung, and whether it was long enough is looked at each time.
A rung that waits for the card itself, to look at a result, cannot be queued whole; its times, with
a * in the table, include Python's. All rungs of a ladder and the library take turns in one run. A
time is the median of the rounds, with the quartiles behind it.

"of library": the library's time over the rung's, round by round; 1 is as fast as torch (cuBLAS,
cuDNN, fused kernels), float32 in full precision on both sides. "of roof": the least time that the
task can take over the rung's; the roofline's bandwidth and rates are measured in the same run, by
copying and by torch's matrix products. Both sides' results are compared before they are timed.

The numbers go to benchmarks/gpu/CARD.json, whole or not at all, after each ladder, with date, card,
versions and commit. The ladders that most depends on come first; what --minutes leaves no time for
is named in the file, as is what fails. Exit codes: 0 all is well, 1 a ladder failed, 69 no GPU.
"""

import argparse
import datetime
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dlnotes import cuda
from dlnotes.cuda.roofline import Machine, cost

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks" / "gpu"
NO_GPU = 69  # EX_UNAVAILABLE of sysexits.h
MOST_COPIES = 32
FEWEST_ROUNDS = 5
FIRST = (  # where there is little time: what networks spend most of theirs on
    *("linear", "conv2d", "attention", "softmax", "layer_norm", "adam"),
    *("linear_backward", "conv2d_backward", "attention_backward", "layer_norm_backward"),
)


# ---- what is measured ----------------------------------------------------------------------------


class Draw:
    """Random tensors on a device, the same at each run."""

    def __init__(self, torch, device: str, seed: int = 0):
        self.torch, self.device = torch, device
        self.generator = torch.Generator(device).manual_seed(seed)

    def normal(self, *shape):
        """Return standard normal numbers."""
        return self.torch.randn(*shape, device=self.device, generator=self.generator)

    def integers(self, high: int, *shape):
        """Return integers in 0 … high - 1."""
        drawn = {"device": self.device, "generator": self.generator}
        return self.torch.randint(high, shape, **drawn)

    def boxes(self, n: int):
        """Return n boxes with sides up to 100 in a square of 1000."""
        corners = self.torch.rand(n, 2, device=self.device, generator=self.generator) * 1000
        sides = self.torch.rand(n, 2, device=self.device, generator=self.generator) * 99 + 1
        return self.torch.cat([corners, corners + sides], 1)


@dataclass(frozen=True)
class Case:
    """One ladder at one size.

    make(draw, *sizes) → the inputs of the ladder's `run`. library(torch, *inputs) → a function
    without arguments that does the same with torch; None where torch has nothing of the kind. Its
    results are compared with the first outputs of each rung. `tiny` are sizes for tests.
    """

    ladder: str
    sizes: tuple[int, ...]
    tiny: tuple[int, ...]
    make: Callable
    library: Callable | None
    tolerance: float = 1e-4

    @property
    def name(self) -> str:
        """The ladder and its sizes."""
        return f"{self.ladder} {'×'.join(map(str, self.sizes))}"


def now(function: Callable) -> Callable:
    """Turn a function of torch and the inputs into a `library` of a Case."""
    return lambda torch, *inputs: lambda: function(torch, *inputs)


def graph(forward: Callable, wanted: slice, place: slice) -> Callable:
    """Return a `library` that only does the backward pass of `forward`.

    inputs[place] are the forward's inputs, in front of them stand the gradients from above; the
    gradients of the inputs in `wanted` are asked for.
    """

    def prepare(torch, *inputs):
        above = [g for g in inputs[: place.start] if g is not None]
        leaves = [x.clone().requires_grad_() if _floats(x) else x for x in inputs[place]]
        with torch.enable_grad():
            outputs = forward(torch, *leaves)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        asked = leaves[wanted]
        return lambda: torch.autograd.grad(outputs, asked, above, retain_graph=True)

    return prepare


def _floats(x) -> bool:
    return hasattr(x, "is_floating_point") and x.is_floating_point()


def linear(draw, rows, n_in, n_out):
    return draw.normal(rows, n_in), draw.normal(n_out, n_in) / n_in**0.5, draw.normal(n_out)


def linear_backward(draw, rows, n_in, n_out):
    return draw.normal(rows, n_out), *linear(draw, rows, n_in, n_out)[:2]


def torch_linear_backward(torch, dy, x, weight):
    return dy @ weight, dy.T @ x, dy.sum(0)


def softmax_backward(draw, rows, columns):
    return draw.normal(rows, columns), draw.normal(rows, columns).softmax(1)


def labelled(draw, rows, classes):
    return draw.normal(rows, classes), draw.integers(classes, rows)


def torch_cross_entropy(torch, x, target):
    aten, ignored = torch.ops.aten, -100
    logs = aten._log_softmax(x, 1, False)
    losses, counted = aten.nll_loss_forward(logs, target, None, 0, ignored)
    mean = x.new_full((len(x),), 1 / len(x))
    dlogs = aten.nll_loss_backward(mean, logs, target, None, 0, ignored, counted)
    return losses, aten._log_softmax_backward_data(dlogs, logs, 1, x.dtype)


def layer_norm(draw, rows, columns):
    return draw.normal(rows, columns), draw.normal(columns), draw.normal(columns)


def layer_norm_backward(draw, rows, columns):
    dy, (x, weight, _) = draw.normal(rows, columns), layer_norm(draw, rows, columns)
    return dy, x, weight, x.mean(1), (x.var(1, correction=0) + 1e-5).rsqrt()


def torch_layer_norm(torch, x, weight, bias):
    return torch.nn.functional.layer_norm(x, weight.shape, weight, bias)


def torch_layer_norm_backward(torch, dy, x, weight, mean, scale):
    statistics_ = mean[:, None], scale[:, None]
    backward = torch.ops.aten.native_layer_norm_backward
    return backward(dy, x, weight.shape, *statistics_, weight, weight, [True] * 3)


def images(draw, n, channels, height, width):
    return draw.normal(n, channels, height, width)


def batch_norm(draw, n, channels, *size):
    affine = draw.normal(channels), draw.normal(channels)
    return images(draw, n, channels, *size), None, None, *affine


def batch_norm_inference(draw, n, channels, *size):
    running = draw.normal(channels), draw.normal(channels).abs() + 0.5
    affine = draw.normal(channels), draw.normal(channels)
    return images(draw, n, channels, *size), *running, *affine


def batch_norm_backward(draw, *sizes):
    x, _, _, weight, _ = batch_norm(draw, *sizes)
    mean, scale = x.mean((0, 2, 3)), (x.var((0, 2, 3), correction=0) + 1e-5).rsqrt()
    return images(draw, *sizes), x, weight, mean, scale


def torch_batch_norm(torch, x, mean, variance, weight, bias):
    return torch.nn.functional.batch_norm(x, mean, variance, weight, bias, mean is None)


def torch_batch_norm_backward(torch, dy, x, weight, mean, scale):
    backward = torch.ops.aten.native_batch_norm_backward
    return backward(dy, x, weight, None, None, mean, scale, True, 1e-5, [True] * 3)


def rms_norm(draw, rows, columns):
    return draw.normal(rows, columns), draw.normal(columns), 1e-5


def rms_norm_backward(draw, rows, columns):
    dy, (x, weight, eps) = draw.normal(rows, columns), rms_norm(draw, rows, columns)
    return dy, x, weight, ((x * x).mean(1) + eps).rsqrt()


def torch_rms_norm(torch, x, weight, eps=1e-5):
    return torch.nn.functional.rms_norm(x, weight.shape, weight, eps)


def rms_norm_graph(torch, dy, x, weight, scale):
    return graph(torch_rms_norm, slice(None), slice(1, None))(torch, dy, x, weight)


def group_norm(draw, n, channels, *size):
    groups, affine = channels // 8 or channels, (draw.normal(channels), draw.normal(channels))
    return images(draw, n, channels, *size), groups, *affine


def group_norm_backward(draw, *sizes):
    x, groups, weight, _ = group_norm(draw, *sizes)
    rows = x.reshape(len(x), groups, -1)
    scale = (rows.var(2, correction=0) + 1e-5).rsqrt()
    return images(draw, *sizes), x, groups, weight, rows.mean(2), scale


def torch_group_norm(torch, x, groups, weight, bias):
    return torch.nn.functional.group_norm(x, groups, weight, bias)


def torch_group_norm_backward(torch, dy, x, groups, weight, mean, scale):
    n, channels, *size = x.shape
    sizes = n, channels, size[0] * size[1], groups
    backward = torch.ops.aten.native_group_norm_backward
    return backward(dy, x, mean, scale, weight, *sizes, [True] * 3)


RESPONSE = (5, 1e-4, 0.75, 2.0)  # AlexNet's: channels, alpha, beta, k


def local_response(draw, *sizes):
    return images(draw, *sizes), *RESPONSE


def local_response_backward(draw, *sizes):
    x, (size, alpha, _, k) = images(draw, *sizes), RESPONSE
    padded = draw.torch.nn.functional.pad(x * x, (0, 0, 0, 0, size // 2, size // 2))
    squares = sum(padded[:, i : i + x.shape[1]] for i in range(size))
    return images(draw, *sizes), x, k + alpha / size * squares, *RESPONSE


def torch_local_response(torch, x, *settings):
    return torch.nn.functional.local_response_norm(x, *settings)


def local_response_graph(torch, dy, x, d, *settings):
    return graph(torch_local_response, slice(0, 1), slice(1, None))(torch, dy, x, *settings)


POOL = (3, 2, 1)  # kernel, stride, padding


def pooled(draw, *sizes):
    return images(draw, *sizes), *POOL


def max_pool_backward(draw, *sizes):
    x = images(draw, *sizes)
    settings = {"return_indices": True}
    y, indices = draw.torch.nn.functional.max_pool2d(x, *POOL, **settings)
    return draw.normal(*y.shape), indices, tuple(x.shape), *POOL


def avg_pool_backward(draw, *sizes):
    x = images(draw, *sizes)
    y = draw.torch.nn.functional.avg_pool2d(x, *POOL)
    return draw.normal(*y.shape), tuple(x.shape), *POOL


def torch_max_pool_backward(torch, dy, indices, shape, kernel, stride, padding):
    pairs = ([value] * 2 for value in (kernel, stride, padding, 1))
    backward = torch.ops.aten.max_pool2d_with_indices_backward
    return backward(dy, dy.new_empty(shape), *pairs, False, indices)


def torch_avg_pool_backward(torch, dy, shape, kernel, stride, padding):
    pairs = ([value] * 2 for value in (kernel, stride, padding))
    backward = torch.ops.aten.avg_pool2d_backward
    return backward(dy, dy.new_empty(shape), *pairs, False, True, None)


def torch_adaptive_backward(torch, dy, shape):
    return torch.ops.aten._adaptive_avg_pool2d_backward(dy, dy.new_empty(shape))


def conv2d(draw, n, channels, outs, size, kernel):
    weight = draw.normal(outs, channels, kernel, kernel) / (channels * kernel**2) ** 0.5
    return images(draw, n, channels, size, size), weight, draw.normal(outs), 1, kernel // 2


def conv2d_backward(draw, n, channels, outs, size, kernel):
    x, weight, _, stride, padding = conv2d(draw, n, channels, outs, size, kernel)
    return images(draw, n, outs, size, size), x, weight, stride, padding


def torch_conv2d_backward(torch, dy, x, weight, stride, padding):
    settings = [weight.shape[0]], [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1
    return torch.ops.aten.convolution_backward(dy, x, weight, *settings, [True] * 3)


UP = (2, 1, 1)  # stride, padding, output padding: images twice as large


def conv_transpose2d(draw, n, channels, outs, size, kernel):
    weight = draw.normal(channels, outs, kernel, kernel) / (channels * kernel**2) ** 0.5
    return images(draw, n, channels, size, size), weight, draw.normal(outs), *UP


def conv_transpose2d_backward(draw, n, channels, outs, size, kernel):
    x, weight, _, *settings = conv_transpose2d(draw, n, channels, outs, size, kernel)
    return images(draw, n, outs, 2 * size, 2 * size), x, weight, *settings


def torch_conv_transpose2d_backward(torch, dy, x, weight, stride, padding, more):
    settings = [weight.shape[1]], [stride] * 2, [padding] * 2, [1, 1], True, [more] * 2, 1
    return torch.ops.aten.convolution_backward(dy, x, weight, *settings, [True] * 3)


def attention(draw, n, heads, length, width):
    return tuple(draw.normal(n, heads, length, width) for _ in range(3))


def attention_backward(draw, *sizes):
    query, key, value = attention(draw, *sizes)
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    y = scores.softmax(-1) @ value
    return draw.normal(*y.shape), query, key, value, y, scores.logsumexp(-1)


def torch_attention(torch, query, key, value, *_):
    return torch.nn.functional.scaled_dot_product_attention(query, key, value)


def cell(draw, states, gates, batch, units):
    h = [draw.normal(batch, units) for _ in range(states)]
    weights = [draw.normal(gates * units, units) / units**0.5 for _ in range(2)]
    biases = [draw.normal(gates * units) for _ in range(2)]
    return draw.normal(batch, units), *h, *weights, *biases


def lstm_backward(draw, batch, units):
    torch, (x, h, c, *weights) = draw.torch, cell(draw, 2, 4, batch, units)
    w_ih, w_hh = weights[:2]
    a = (x @ w_ih.T + h @ w_hh.T).unflatten(1, (4, units))
    i, f, g, o = a[:, 0].sigmoid(), a[:, 1].sigmoid(), a[:, 2].tanh(), a[:, 3].sigmoid()
    dy, dc = draw.normal(batch, units), draw.normal(batch, units)
    return dy, dc, x, h, c, f * c + i * g, torch.cat([i, f, g, o], 1), w_ih, w_hh


def gru_backward(draw, batch, units):
    torch, (x, h, *weights) = draw.torch, cell(draw, 1, 3, batch, units)
    w_ih, w_hh = weights[:2]
    from_x, from_h = (v @ w.T for v, w in ((x, w_ih), (h, w_hh)))
    a, product = from_x.chunk(3, 1), from_h.chunk(3, 1)
    r, z = ((a[i] + product[i]).sigmoid() for i in range(2))
    n = (a[2] + r * product[2]).tanh()
    gates = torch.cat([r, z, n, product[2]], 1)
    return draw.normal(batch, units), x, h, gates, w_ih, w_hh


def torch_lstm(torch, x, h, c, *weights):
    return torch.lstm_cell(x, (h, c), *weights)


def torch_gru(torch, x, h, *weights):
    return torch.gru_cell(x, h, *weights)


def lstm_graph(torch, dy, dc, x, h, c, new_c, gates, w_ih, w_hh):
    run = graph(torch_lstm, slice(None), slice(2, None))
    return run(torch, dy, dc, x, h, c, w_ih, w_hh)


def gru_graph(torch, dy, x, h, gates, w_ih, w_hh):
    return graph(torch_gru, slice(None), slice(1, None))(torch, dy, x, h, w_ih, w_hh)


def torch_iou(torch, a, b):
    a, b = a[:, None], b[None]
    overlap = (a[..., 2:].minimum(b[..., 2:]) - a[..., :2].maximum(b[..., :2])).clamp(min=0)
    areas = [(x[..., 2:] - x[..., :2]).prod(-1) for x in (a, b)]
    both = overlap.prod(-1)
    return both / (areas[0] + areas[1] - both)


def embedding(draw, tokens, rows, width):
    return draw.integers(rows, tokens), draw.normal(rows, width)


def embedding_backward(draw, tokens, rows, width):
    return draw.normal(tokens, width), draw.integers(rows, tokens), rows


def torch_embedding_backward(torch, dy, ids, rows):
    return torch.ops.aten.embedding_dense_backward(dy, ids, rows, -1, False)


def skip_gram(draw, pairs, noise, words, width):
    tables = (draw.normal(words, width) / width for _ in range(2))
    center, context = draw.integers(words, pairs), draw.integers(words, pairs)
    return *tables, center, context, draw.integers(words, pairs, noise), 0.025


def _slopes(torch, hidden, weight, target, noise):
    """Return the losses, the words, their rows, and the slope at each score."""
    asked = torch.cat([target[:, None], noise], 1)
    rows = weight[asked]
    scores = (rows @ hidden[..., None])[..., 0]
    signs = torch.ones_like(scores)
    signs[:, 1:] = -1
    losses = -torch.nn.functional.logsigmoid(signs * scores).sum(1)
    return losses, asked, rows, scores.sigmoid() - (signs > 0).float()


def torch_skip_gram(torch, input_weight, output_weight, center, context, noise, lr):
    hidden = input_weight[center]
    losses, asked, rows, slopes = _slopes(torch, hidden, output_weight, context, noise)
    changes = (slopes[..., None] * hidden[:, None]).flatten(0, 1)
    dhidden = (slopes[..., None] * rows).sum(1)
    output_weight.index_add_(0, asked.flatten(), changes, alpha=-lr)
    input_weight.index_add_(0, center, dhidden, alpha=-lr)
    return input_weight, output_weight, losses


def negative_sampling(draw, samples, noise, words, width):
    tables = draw.normal(samples, width), draw.normal(words, width) / width
    return *tables, draw.integers(words, samples), draw.integers(words, samples, noise)


def torch_negative_sampling(torch, hidden, weight, target, noise):
    losses, asked, rows, slopes = _slopes(torch, hidden, weight, target, noise)
    slopes = slopes / len(hidden)
    changes = (slopes[..., None] * hidden[:, None]).flatten(0, 1)
    dweight = torch.zeros_like(weight).index_add_(0, asked.flatten(), changes)
    return losses, (slopes[..., None] * rows).sum(1), dweight


def torch_gram(torch, x):
    rows = x.flatten(2)
    return rows.bmm(rows.transpose(1, 2)) / x[0].numel()


def torch_gram_backward(torch, dy, x):
    return ((dy + dy.transpose(1, 2)).bmm(x.flatten(2)) / x[0].numel()).reshape(x.shape)


def gram_backward(draw, n, channels, *size):
    return draw.normal(n, channels, channels), images(draw, n, channels, *size)


def adam(draw, n):
    return draw.normal(n), draw.normal(n), draw.normal(n), draw.normal(n).abs(), 7


def torch_adam(torch, p, g, m, v, step):
    steps = [torch.full((), float(step), device=p.device)]
    settings = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0, "eps": 1e-8}

    def run():
        torch._fused_adam_([p], [g], [m], [v], [], steps, amsgrad=False, maximize=False, **settings)
        return p, m, v

    return run


PLANES, SMALL_PLANES = (64, 256, 56, 56), (2, 3, 6, 7)
CELL, SMALL_CELL = (512, 1024), (3, 5)
SCORES, SMALL_SCORES = (4, 16, 2048, 64), (1, 2, 9, 16)
WORDS, SMALL_WORDS = (16384, 5, 50_000, 128), (6, 2, 7, 5)
CONV, SMALL_CONV = (64, 128, 128, 56, 3), (2, 3, 4, 6, 3)
SQUARE, SMALL_SQUARE = (4096, 4096, 4096), (5, 6, 7)
MATRIX, SMALL_MATRIX = (16384, 4096), (5, 9)
TOKENS, SMALL_TOKENS = (65536, 50_000, 768), (9, 6, 5)
CASES = [
    Case("linear", SQUARE, SMALL_SQUARE, linear,
         now(lambda torch, *i: torch.nn.functional.linear(*i))),
    Case("linear_backward", SQUARE, SMALL_SQUARE, linear_backward, now(torch_linear_backward)),
    Case("softmax", MATRIX, SMALL_MATRIX, lambda draw, *s: (draw.normal(*s),),
         now(lambda torch, x: x.softmax(1))),
    Case("softmax_backward", MATRIX, SMALL_MATRIX, softmax_backward,
         now(lambda torch, dy, y: torch.ops.aten._softmax_backward_data(dy, y, 1, y.dtype))),
    Case("cross_entropy", (8192, 32_000), (5, 9), labelled, now(torch_cross_entropy)),
    # Beside 0 the order of the atomics would decide: normal numbers alone have a sum of about √n.
    Case("sum", (2**26,), (700,), lambda draw, n: (draw.normal(n) + 0.01,),
         now(lambda torch, x: x.sum()[None]), tolerance=1e-3),
    Case("layer_norm", MATRIX, SMALL_MATRIX, layer_norm, now(torch_layer_norm)),
    Case("layer_norm_backward", MATRIX, SMALL_MATRIX, layer_norm_backward,
         now(torch_layer_norm_backward)),
    Case("batch_norm", PLANES, SMALL_PLANES, batch_norm, now(torch_batch_norm)),
    Case("batch_norm_inference", PLANES, SMALL_PLANES, batch_norm_inference,
         now(torch_batch_norm)),
    Case("batch_norm_backward", PLANES, SMALL_PLANES, batch_norm_backward,
         now(torch_batch_norm_backward)),
    Case("rms_norm", MATRIX, SMALL_MATRIX, rms_norm, now(torch_rms_norm)),
    Case("rms_norm_backward", MATRIX, SMALL_MATRIX, rms_norm_backward, rms_norm_graph),
    Case("group_norm", PLANES, SMALL_PLANES, group_norm, now(torch_group_norm)),
    Case("group_norm_backward", PLANES, SMALL_PLANES, group_norm_backward,
         now(torch_group_norm_backward)),
    Case("local_response_norm", PLANES, SMALL_PLANES, local_response, now(torch_local_response)),
    Case("local_response_norm_backward", PLANES, SMALL_PLANES, local_response_backward,
         local_response_graph),
    Case("max_pool2d", PLANES, SMALL_PLANES, pooled,
         now(lambda torch, *i: torch.nn.functional.max_pool2d(*i, return_indices=True))),
    Case("avg_pool2d", PLANES, SMALL_PLANES, pooled,
         now(lambda torch, *i: torch.nn.functional.avg_pool2d(*i))),
    Case("max_pool2d_backward", PLANES, SMALL_PLANES, max_pool_backward,
         now(torch_max_pool_backward)),
    Case("avg_pool2d_backward", PLANES, SMALL_PLANES, avg_pool_backward,
         now(torch_avg_pool_backward)),
    Case("adaptive_avg_pool2d", PLANES, SMALL_PLANES, lambda draw, *s: (images(draw, *s), (7, 7)),
         now(lambda torch, *i: torch.nn.functional.adaptive_avg_pool2d(*i))),
    Case("adaptive_avg_pool2d_backward", PLANES, SMALL_PLANES,
         lambda draw, *s: (images(draw, *s[:2], 7, 7), s), now(torch_adaptive_backward)),
    Case("conv2d", CONV, SMALL_CONV, conv2d,
         now(lambda torch, *i: torch.nn.functional.conv2d(*i))),
    Case("conv2d_backward", CONV, SMALL_CONV, conv2d_backward, now(torch_conv2d_backward)),
    Case("conv_transpose2d", CONV, SMALL_CONV, conv_transpose2d,
         now(lambda torch, *i: torch.nn.functional.conv_transpose2d(*i))),
    Case("conv_transpose2d_backward", CONV, SMALL_CONV, conv_transpose2d_backward,
         now(torch_conv_transpose2d_backward)),
    Case("attention", SCORES, SMALL_SCORES, attention, now(torch_attention)),
    Case("attention_backward", SCORES, SMALL_SCORES, attention_backward,
         lambda torch, dy, q, k, v, *_: graph(torch_attention, slice(None), slice(1, None))(
             torch, dy, q, k, v)),
    Case("lstm_cell", CELL, SMALL_CELL, lambda draw, *s: cell(draw, 2, 4, *s), now(torch_lstm)),
    Case("lstm_cell_backward", CELL, SMALL_CELL, lstm_backward, lstm_graph),
    Case("gru_cell", CELL, SMALL_CELL, lambda draw, *s: cell(draw, 1, 3, *s), now(torch_gru)),
    Case("gru_cell_backward", CELL, SMALL_CELL, gru_backward, gru_graph),
    Case("box_iou", (4096, 4096), (9, 5), lambda draw, n, m: (draw.boxes(n), draw.boxes(m)),
         now(torch_iou)),
    # torch has none; torchvision's is no part of this project.
    Case("nms", (4096,), (80,), lambda draw, n: (draw.boxes(n), draw.normal(n), 0.5), None),
    Case("embedding", TOKENS, SMALL_TOKENS, embedding,
         now(lambda torch, *i: torch.nn.functional.embedding(*i))),
    Case("embedding_backward", TOKENS, SMALL_TOKENS, embedding_backward,
         now(torch_embedding_backward)),
    Case("skip_gram_negative_sampling_step", WORDS, SMALL_WORDS, skip_gram,
         now(torch_skip_gram)),
    Case("negative_sampling_loss", WORDS, SMALL_WORDS, negative_sampling,
         now(torch_negative_sampling)),
    Case("gram_matrix", (8, 256, 64, 64), (2, 3, 4, 5), lambda draw, *s: (images(draw, *s),),
         now(torch_gram)),
    Case("gram_matrix_backward", (8, 256, 64, 64), (2, 3, 4, 5), gram_backward,
         now(torch_gram_backward)),
    Case("adam", (2**25,), (1030,), adam, torch_adam),
]  # fmt: skip


# ---- measuring -----------------------------------------------------------------------------------


SPIN = """
__global__ void spin(long long nanoseconds) {
  long long start, now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
  do asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now)); while (now - start < nanoseconds);
}"""
SHORTEST_LEAD, LONGEST_LEAD = 5e-5, 2e-2  # seconds


@dataclass(frozen=True)
class Sample:
    """A function queued between two events; late: the card was there before all was queued."""

    begin: Any
    end: Any
    late: bool


class Events:
    """The card's clock. `start` queues a function between two events, `seconds` reads them."""

    def __init__(self, torch, cache: int):
        self.torch = torch
        self.filler = torch.empty(4 * cache, dtype=torch.uint8, device="cuda")
        self.spin = cuda.load(source=SPIN, device="cuda").kernel("spin")

    def start(self, function: Callable, lead: float) -> Sample:
        """Queue `function`, behind what empties the caches and then spins for `lead` seconds."""
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.filler.zero_()
        self.spin[1, 1](int(1e9 * lead))
        begin.record()
        function()
        end.record()
        return Sample(begin, end, begin.query())

    def seconds(self, started: list[Sample]) -> list[float]:
        """Wait for the card, and return how long each took."""
        self.torch.cuda.synchronize()
        return [sample.begin.elapsed_time(sample.end) / 1000 for sample in started]


def lead_of(clock, function: Callable) -> tuple[float, float]:
    """Return how long the card must spin until `function` is queued whole, and its own seconds.

    Twice what was enough once, with nothing queued before. 0 where LONGEST_LEAD is not enough: then
    the function waits for the card, and no lead is.
    """
    lead = SHORTEST_LEAD
    while True:
        began = time.perf_counter()
        sample = clock.start(function, lead)
        host = time.perf_counter() - began
        (seconds,) = clock.seconds([sample])
        if not sample.late:
            return 2 * lead, seconds
        lead = max(2 * lead, 2 * host)
        if lead > LONGEST_LEAD:
            return 0.0, seconds


def copies(nbytes: int, cache: int) -> int:
    """Return how many copies of inputs of nbytes are together twice as large as the cache."""
    return min(MOST_COPIES, max(2, math.ceil(2 * cache / max(nbytes, 1))))


@dataclass(frozen=True)
class Taken:
    """The seconds of a side in each round, and how many of the samples were not queued in time."""

    seconds: list[float]
    late: int


def measure(clock, sides: dict[str, list[Callable]], rounds: int, budget: float) -> dict:
    """Return what each side has Taken, the sides taking turns.

    sides: for each its function on each copy of the inputs, of which each round takes the next.
    rounds: at most, and as many as its share of `budget` seconds allows a side, but not fewer than
    FEWEST_ROUNDS. The first calls, which compile and load, do not count.
    """
    for functions in sides.values():
        clock.seconds([clock.start(functions[0], 0.0)])
    leads, turns = {}, {}
    for name, functions in sides.items():
        leads[name], seconds = lead_of(clock, functions[0])
        share = budget / len(sides)
        turns[name] = min(rounds, max(FEWEST_ROUNDS, int(share / max(seconds, 1e-9))))
    started: dict[str, list] = {name: [] for name in sides}
    for turn in range(max(turns.values())):
        for name, functions in sides.items():
            if turn < turns[name]:
                function = functions[turn % len(functions)]
                started[name].append(clock.start(function, leads[name]))
    return {
        name: Taken(clock.seconds(samples), sum(sample.late for sample in samples))
        for name, samples in started.items()
    }


Spread = tuple[float, float, float]  # median, lower and upper quartile


def spread(values: Iterable[float]) -> Spread:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, low, high


@dataclass(frozen=True)
class Row:
    """One rung of one ladder. Times in seconds; of_library is None where torch has nothing."""

    ladder: str
    name: str
    rung: str
    dtype: str
    seconds: Spread
    library_seconds: Spread | None
    of_library: Spread | None
    of_roof: Spread
    bound: str  # what the roof is made of: "memory" or "arithmetic"
    bytes: int
    operations: int
    rounds: int
    late: int  # of the rung's rounds: those that Python did not queue in time
    library_late: int | None


def rows(case: Case, times: dict[str, Taken], needed, machine: Machine, dtype: str) -> list:
    """Return the rows of what `measure` measured; the side "library" is torch's."""
    library = times.get("library")
    roof = machine.seconds(needed)
    bound = "memory" if needed.intensity < machine.ridge else "arithmetic"
    result = []
    for rung, (taken, late) in ((name, (t.seconds, t.late)) for name, t in times.items()):
        if rung == "library":
            continue
        ratios = None
        if library is not None:  # in the rounds that both have
            ratios = spread([b / a for a, b in zip(taken, library.seconds, strict=False)])
        result.append(
            Row(
                case.ladder,
                case.name,
                rung,
                dtype,
                spread(taken),
                None if library is None else spread(library.seconds),
                ratios,
                spread([roof / a for a in taken]),
                bound,
                needed.bytes,
                needed.operations,
                len(taken),
                late,
                None if library is None else library.late,
            )
        )
    return result


def fresh(inputs: tuple) -> tuple:
    """Return copies of the tensors among the inputs."""
    return tuple(x.clone() if hasattr(x, "clone") else x for x in inputs)


def in_dtype(torch, inputs: tuple, dtype: str, ladder) -> tuple:
    """Return the inputs for rungs of a dtype: bfloat16 is for what is multiplied, not biases."""
    if dtype == "float32":
        return inputs
    wanted = getattr(torch, dtype)
    return tuple(
        x.to(wanted) if _floats(x) and ladder.multiplies(place, x) else x
        for place, x in enumerate(inputs)
    )


def check_equal(case: Case, rung: str, ours, theirs, tolerance: float) -> None:
    """Raise AssertionError unless both sides have computed the same."""
    ours, theirs = (x if isinstance(x, tuple | list) else (x,) for x in (ours, theirs))
    for mine, torchs in zip(ours, theirs, strict=False):
        if not mine.is_floating_point():
            assert mine.equal(torchs), f"{case.name}: {rung} differs from torch"
            continue
        wanted = torchs.float()
        scale = max(1.0, float(wanted.abs().max())) if wanted.numel() else 1.0
        off = float((mine.float() - wanted).abs().max()) if wanted.numel() else 0.0
        assert off <= tolerance * scale, f"{case.name}: {rung} differs from torch by {off:.2g}"


def prepare(torch, case: Case, device: str, dtype: str, rungs, sizes, cache: int) -> tuple:
    """Return (the inputs, the sides that `measure` wants), compared with each other first."""
    ladder = cuda.LADDERS[case.ladder]
    inputs = in_dtype(torch, case.make(Draw(torch, device), *sizes), dtype, ladder)

    def ours(rung, given):
        return lambda: ladder.run(*given, rung=rung.name, device=device)

    if case.library is not None:
        tolerance = case.tolerance if dtype == "float32" else 2e-2
        for rung in rungs:
            theirs = case.library(torch, *library_inputs(torch, fresh(inputs), dtype))()
            check_equal(case, rung.name, ours(rung, fresh(inputs))(), theirs, tolerance)
    nbytes = sum(x.numel() * x.element_size() for x in inputs if hasattr(x, "numel"))
    sets = [inputs, *(fresh(inputs) for _ in range(copies(nbytes, cache) - 1))]
    sides = {rung.name: [ours(rung, given) for given in sets] for rung in rungs}
    if case.library is not None:
        given = [library_inputs(torch, each, dtype) for each in sets]
        sides["library"] = [case.library(torch, *each) for each in given]
    return inputs, sides


def library_inputs(torch, inputs: tuple, dtype: str) -> tuple:
    """Return what torch is called with: it takes no inputs of different dtypes."""
    if dtype == "float32":
        return inputs
    return tuple(x.to(getattr(torch, dtype)) if _floats(x) else x for x in inputs)


def measure_machine(torch, clock, rounds: int) -> dict[str, Machine]:
    """Return what the card can do, for each dtype: bandwidth by copying, rate by torch.mm."""
    source = torch.empty(2**28, device="cuda")
    target = torch.empty_like(source)
    moved = 2 * source.numel() * source.element_size()
    n = 8192
    a, b = (torch.randn(n, n, device="cuda") for _ in range(2))
    halves = a.bfloat16(), b.bfloat16()
    sides = {
        "copy": [lambda: target.copy_(source)],
        "float32": [lambda: torch.mm(a, b)],
        "bfloat16": [lambda: torch.mm(*halves)],
    }
    times = measure(clock, sides, rounds, budget=10)
    middles = {name: spread(taken.seconds)[0] for name, taken in times.items()}
    return machines(middles, moved, 2 * n**3)


def machines(seconds: dict[str, float], moved: int, operations: int) -> dict[str, Machine]:
    """Return a Machine for each dtype, from the seconds of a copy and of the matrix products."""
    bandwidth = moved / seconds["copy"]
    dtypes = [name for name in seconds if name != "copy"]
    return {name: Machine(bandwidth, operations / seconds[name]) for name in dtypes}


# ---- what the numbers depend on, the file, the table ---------------------------------------------


def conditions(torch) -> dict[str, Any]:
    """Return date, card, versions and commit."""
    properties = torch.cuda.get_device_properties(0)
    return {
        "measured": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "card": torch.cuda.get_device_name(0),
        "architecture": cuda_architecture(torch),
        "memory_bytes": properties.total_memory,
        "cache_bytes": properties.L2_cache_size,
        "driver": command("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "versions": {
            "CUDA": torch.version.cuda,
            "PyTorch": torch.__version__,
            "Python": platform.python_version(),
        },
        "commit": commit(),
    }


def cuda_architecture(torch) -> str:
    from dlnotes.cuda import _gpu

    return _gpu.architecture(torch.cuda.get_device_capability(0))


def commit() -> str:
    """Return the commit that is measured, with a + where files differ from it."""
    changed = command("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return command("git", "-C", str(ROOT), "rev-parse", "HEAD") + ("+" if changed else "")


def command(*words: str) -> str:
    """Return the first line that a program prints, "unknown" where it is not there or fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.partition("\n")[0].strip()


def file_of(card: str) -> Path:
    """Return the file of a card: "NVIDIA H200" → nvidia_h200.json."""
    return FOLDER / (re.sub(r"[^a-z0-9]+", "_", card.lower()).strip("_") + ".json")


def write(path: Path, numbers: dict[str, Any]) -> None:
    """Store the numbers whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(numbers, indent=1, ensure_ascii=False) + "\n"
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def report(numbers: dict[str, Any]) -> str:
    """Return the numbers as Markdown: the conditions, and a table."""
    versions = ", ".join(f"{name} {version}" for name, version in numbers["versions"].items())
    machine = numbers["machine"]
    rates = ", ".join(f"{m['rate'] / 1e12:.1f} TFLOP/s {name}" for name, m in machine.items())
    bandwidth = next(iter(machine.values()))["bandwidth"]
    lines = [
        f"{numbers['card']}, driver {numbers['driver']}, {versions}; measured "
        f"{numbers['measured']} at commit {numbers['commit'][:12]}.",
        f"Measured limits: {bandwidth / 1e12:.2f} TB/s by copying; {rates} by matrix products.",
    ]
    if not numbers["complete"]:
        lines.append("**Not complete: not all ladders that were asked for have been measured.**")
    lines += [f"**{failed['name']} failed:** {failed['why']}" for failed in numbers["failed"]]
    if any(python_counts(row) for row in numbers["rows"]):
        lines.append("\\* with Python's time: the rung, or what it is compared with, waits itself.")
    head = ["ladder", "rung", "ms", "of library", "of roof", "bound by"]
    table = [head, ["---", "---", "---:", "---:", "---:", "---"]]
    for row in numbers["rows"]:
        kind = "" if row["dtype"] == "float32" else f" ({row['dtype']})"
        times = [1000 * t for t in row["seconds"]]
        times = shown(times, 4) + " \\*" * python_counts(row)
        table.append([row["name"], row["rung"] + kind, times, shown(row["of_library"], 2),
                      shown(row["of_roof"], 2), row["bound"]])  # fmt: skip
    lines += ["", *("| " + " | ".join(line) + " |" for line in table)]
    return "\n".join(lines)


def python_counts(row: dict[str, Any]) -> bool:
    """Return whether more than a few samples, of either side, were not queued in time."""
    return max(row["late"], row["library_late"] or 0) > row["rounds"] // 4


def shown(values: list[float] | None, digits: int) -> str:
    if values is None:
        return "–"
    middle, low, high = (f"{value:.{digits}f}" for value in values)
    return f"{middle} ({low}–{high})"


# ---- the command ---------------------------------------------------------------------------------


def chosen(words: list[str] | None) -> list[Case]:
    """Return the cases with one of the words in their names, those of FIRST in front."""
    cases = [case for case in CASES if any(word in case.name for word in words or [""])]
    place = {name: i for i, name in enumerate(FIRST)}
    return sorted(cases, key=lambda case: place.get(case.ladder, len(FIRST)))


def run_all(torch, cases: list[Case], arguments) -> tuple[Path, bool]:
    """Measure and write; return the file, and whether no ladder failed."""
    from tqdm import tqdm

    deadline = time.monotonic() + 60 * arguments.minutes
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    told = conditions(torch)
    path = file_of(told["card"]) if arguments.out is None else arguments.out
    clock = Events(torch, told["cache_bytes"])
    machine = measure_machine(torch, clock, arguments.rounds)
    numbers = {
        **told,
        "rounds": arguments.rounds,
        "machine": {name: asdict(limits) for name, limits in machine.items()},
        "complete": False,
        "left_out": [case.name for case in cases],
        "failed": [],
        "rows": [],
    }
    with torch.no_grad(), tqdm(cases, file=sys.stderr, disable=None, unit="ladder") as bar:
        for case in bar:
            if time.monotonic() > deadline:
                break
            bar.set_postfix_str(case.name)
            try:
                for found in measured(torch, case, clock, machine, told, arguments, deadline):
                    numbers["rows"] += map(asdict, found)
                    write(path, numbers)
            except (AssertionError, RuntimeError) as error:  # CudaError and torch's are of these
                why = str(error).partition("\n")[0]
                bar.write(f"{case.name} failed: {error}", file=sys.stderr)
                numbers["failed"].append({"name": case.name, "why": why})
            numbers["left_out"].remove(case.name)
            write(path, numbers)
            clock.seconds([])  # raises where the failure has cost the card's context
    all_of_them = len(cases) == len(CASES)
    numbers["complete"] = all_of_them and not numbers["left_out"] and not numbers["failed"]
    write(path, numbers)
    print(report(numbers))
    return path, not numbers["failed"]


def measured(torch, case: Case, clock, machine, told, arguments, deadline) -> Iterator[list[Row]]:
    """Yield the rows of a ladder, dtype by dtype."""
    for dtype, rungs in by_dtype(cuda.LADDERS[case.ladder], told["architecture"]).items():
        cache = told["cache_bytes"]
        inputs, sides = prepare(torch, case, "cuda", dtype, rungs, case.sizes, cache)
        budget = min(arguments.budget, max(deadline - time.monotonic(), 0))
        times = measure(clock, sides, arguments.rounds, budget)
        yield rows(case, times, cost(case.ladder, *inputs), machine[dtype], dtype)
        del inputs, sides
        torch.cuda.empty_cache()


def by_dtype(ladder, arch: str) -> dict[str, list]:
    """Return the rungs that the architecture can run, by the dtype of their inputs."""
    groups: dict[str, list] = {}
    for rung in ladder.rungs:
        if rung.runs_on(arch):
            groups.setdefault(rung.dtype, []).append(rung)
    return groups


def main() -> int:
    description, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=details, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="WORD", help="ladders with one of the words")
    parser.add_argument("--rounds", type=int, default=50, help="rounds at most (50)")
    parser.add_argument("--budget", type=float, default=5, help="seconds for each ladder (5)")
    parser.add_argument("--minutes", type=float, default=5, help="for all of them (5)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="in place of the card's own file")
    parser.add_argument("--list", action="store_true", help="name the ladders and their sizes")
    parser.add_argument("--report", type=Path, metavar="FILE", help="print the table of a file")
    arguments = parser.parse_args()
    if arguments.rounds < FEWEST_ROUNDS or min(arguments.budget, arguments.minutes) <= 0:
        least = f"--rounds must be at least {FEWEST_ROUNDS}"
        parser.error(f"{least}, --budget and --minutes above 0")
    cases = chosen(arguments.only)
    if not cases:
        parser.error(f"no ladder has one of {arguments.only} in its name")
    if arguments.only and arguments.out is None and not arguments.list:
        parser.error("--only measures a part: name its file with --out")
    if arguments.list:
        for case in cases:
            rungs = ", ".join(rung.name for rung in cuda.LADDERS[case.ladder].rungs)
            print(f"{case.name}: {rungs}")
        return 0
    if arguments.report:
        print(report(json.loads(arguments.report.read_text(encoding="utf-8"))))
        return 0
    if not cuda.available():
        print(
            "There is no GPU here that torch and NVIDIA's bindings can use: nothing was measured.",
            file=sys.stderr,
        )
        return NO_GPU
    import torch

    path, well = run_all(torch, cases, arguments)
    print(f"written to {path}", file=sys.stderr)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
