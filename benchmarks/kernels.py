"""How fast the NumPy kernels are: each against PyTorch on the CPU, in one table.

    python benchmarks/kernels.py                     # all kernels, one thread
    python benchmarks/kernels.py --only conv pool    # those whose name has one of these words
    python benchmarks/kernels.py --rounds 40 --cpu-time --json kernels.json
    python benchmarks/kernels.py --rounds 40 --cpu-time --write "A shared machine."
    python benchmarks/kernels.py --page              # docs/kernels.md anew from the numbers

Both sides run in one process with the same number of threads, turn by turn, so that whatever
else the machine does meets both. A ratio is time here over time in torch: below 1 is faster than
torch. It is the median over the rounds; the spread behind it is the quartiles of the rounds. A
step is forward and backward together; update rules have steps only, and kernels without gradients
forward passes only. The goals are for forward, backward and step, where there are any. Where torch
has no function of that name, a few lines of torch are what the kernel is held against.
The memory peak is what a step allocates at its height, beyond its inputs, the results included;
next to it stands the size of inputs and results together.

--write measures every kernel, and stores the numbers as the data set "kernel_times" and as
docs/kernels.md, with date, processor, versions and a remark on the conditions.
"""

import argparse
import datetime
import functools
import hashlib
import inspect
import json
import math
import os
import platform
import re
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dlnotes import kernels

BLAS_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "kernels.md"
DATA = ROOT / "src" / "dlnotes" / "data"
NUMBERS = DATA / "files" / "kernel_times.json"


class Goals(NamedTuple):
    """What the ratios may be: a quarter above what was found to be reachable in NumPy."""

    forward: float | None
    backward: float | None
    step: float | None


def reachable(forward=None, backward=None, step=None) -> Goals:
    return Goals(*(None if ratio is None else 1.25 * ratio for ratio in (forward, backward, step)))


@dataclass
class Case:
    """One kernel at one size.

    `shapes` are those of the arrays that get gradients: by position, the last of them by the
    names in `names`. `constants` makes, from a generator, arrays that get none, by name. `torch` is
    the name of torch's function, if it is another, or a function of tensors.
    """

    name: str
    kernel: str
    shapes: list[tuple[int, ...]]
    settings: dict[str, Any] = field(default_factory=dict)
    goals: Goals | None = None
    names: tuple[str, ...] = ()
    constants: Callable[[np.random.Generator], dict[str, np.ndarray]] = lambda rng: {}
    torch: str | Callable | None = None
    torch_settings: dict[str, Any] | None = None  # where torch takes others
    make: Callable[[np.random.Generator, tuple], np.ndarray] | None = None  # the first array


def conv(name, n, channels, outs, size, kernel, goals=None, axes=2, **settings):
    groups = settings.get("groups", 1)
    weight = (outs, channels // groups, *[kernel] * axes)
    shapes = [(n, channels, *[size] * axes), weight, (outs,)]
    return Case(name, f"conv{axes}d", shapes, settings, goals)


def transposed(name, n, channels, outs, size, kernel, axes=2, **settings):
    shapes = [(n, channels, *[size] * axes), (channels, outs, *[kernel] * axes), (outs,)]
    return Case(name, f"conv_transpose{axes}d", shapes, settings)


def labels(n, classes, name="target"):
    return lambda rng: {name: rng.integers(0, classes, n)}


def numbers(shape, name="target"):
    return lambda rng: {name: rng.standard_normal(shape).astype(np.float32)}


def signs(n):
    return lambda rng: {"target": np.where(rng.random(n) < 0.5, -1, 1).astype(np.float32)}


def probabilities(rng, shape):
    return rng.uniform(0.05, 0.95, shape).astype(np.float32)


def shares(shape):
    return lambda rng: {"target": probabilities(rng, shape)}


def boxes(n, size):
    """Return n boxes with sides up to `size` in a square of 1000."""

    def make(rng):
        corners = rng.uniform(0, 1000, (n, 2))
        sides = rng.uniform(1, size, (n, 2))
        return np.concatenate([corners, corners + sides], axis=1).astype(np.float32)

    return make


def scored(n, size):
    def make(rng):
        return {"boxes": boxes(n, size)(rng), "scores": rng.random(n).astype(np.float32)}

    return make


def torch_iou(boxes1, boxes2):
    a, b = boxes1[:, None], boxes2[None]
    overlap = (a[..., 2:].minimum(b[..., 2:]) - a[..., :2].maximum(b[..., :2])).clamp(min=0)
    intersection = overlap[..., 0] * overlap[..., 1]
    area1, area2 = ((x[..., 2:] - x[..., :2]).prod(-1) for x in (a, b))
    return intersection / (area1 + area2 - intersection)


def torch_hull_iou(boxes1, boxes2):
    a, b = boxes1[:, None], boxes2[None]
    overlap = (a[..., 2:].minimum(b[..., 2:]) - a[..., :2].maximum(b[..., :2])).clamp(min=0)
    intersection = overlap[..., 0] * overlap[..., 1]
    area1, area2 = ((x[..., 2:] - x[..., :2]).prod(-1) for x in (a, b))
    union = area1 + area2 - intersection
    hull = (a[..., 2:].maximum(b[..., 2:]) - a[..., :2].minimum(b[..., :2])).prod(-1)
    return intersection / union - (hull - union) / hull


def torch_nms(boxes, scores, iou_threshold):
    order = scores.argsort(descending=True, stable=True)
    kept = []
    while len(order):
        best, rest = order[:1], order[1:]
        kept.append(best)
        order = rest[torch_iou(boxes[best], boxes[rest])[0] <= iou_threshold]
    return kept[0].new_tensor([int(best) for best in kept])


def torch_gram(x):
    n, c, h, w = x.shape
    rows = x.reshape(n, c, h * w)
    return rows.bmm(rows.transpose(1, 2)) / (c * h * w)


def torch_total_variation(x):
    down, right = x[:, :, 1:] - x[:, :, :-1], x[..., 1:] - x[..., :-1]
    return down.abs().sum() + right.abs().sum()


def torch_style(x, target):
    return (torch_gram(x) - target).square().mean()


def torch_contrastive(input1, input2, target):
    distance = (input1 - input2).square().sum(-1).sqrt()
    like = distance.square() / 2
    unlike = (1 - distance).clamp(min=0).square() / 2
    return like.where(target > 0, unlike).mean()


def torch_gaussian_kl(mean, log_variance):
    return (mean.square() + log_variance.exp() - 1 - log_variance).mean() / 2


def torch_attention_weights(query, key):
    return (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).softmax(-1)


def torch_norm(x, dim):
    return x.norm(dim=dim)


def torch_logsumexp(x, dim):
    return x.logsumexp(dim)


def torch_cdist(x1, x2):
    import torch

    return torch.cdist(x1, x2)


def torch_scatter_add(values, indices, size):
    return values.new_zeros(size, values.shape[1]).index_add(0, indices, values)


def torch_negative_sampling(hidden, weight, target, noise):
    from torch.nn.functional import logsigmoid

    right = (weight[target] * hidden).sum(-1)
    wrong = (weight[noise] @ hidden[..., None])[..., 0]
    return -(logsigmoid(right) + logsigmoid(-wrong).sum(-1)).mean()


def torch_hierarchical_softmax(hidden, weight, target, codes, points):
    from torch.nn.functional import logsigmoid

    codes, scores = codes[target], (weight[points[target]] @ hidden[..., None])[..., 0]
    return -(logsigmoid((1 - 2 * codes) * scores) * (codes >= 0)).sum(-1).mean()


def torch_glove(center, context, center_bias, context_bias, counts):
    error = (center * context).sum(-1) + center_bias + context_bias - counts.log()
    return ((counts / 100).clamp(max=1) ** 0.75 * error.square()).mean()


def torch_one_hot(labels, num_classes):
    from torch.nn.functional import one_hot

    return one_hot(labels, num_classes)


def tree(n, words):
    """Return labels and the Huffman tree of words with frequencies by Zipf's law."""

    def make(rng):
        codes, points = kernels.huffman_codes(10**6 // np.arange(1, words + 1))
        return {"target": rng.integers(0, words, n), "codes": codes, "points": points}

    return make


IMAGES = (32, 32, 32, 32)
SQUARE = (1000, 1000)
HEADS = [(8, 8, 128, 64)] * 3
AFFINE = ("weight", "bias")
RUNNING = {"running_mean": None, "running_var": None, "training": True}
LAST = {"normalized_shape": (256,)}
PAIRS = [(4096, 256)] * 2
CASES = [
    Case(
        "linear 256×1024→1024",
        "linear",
        [(256, 1024), (1024, 1024), (1024,)],
        goals=reachable(0.84, 0.75, 0.84),
    ),
    Case("bilinear 256, 64×64→64", "bilinear", [(256, 64), (256, 64), (64, 64, 64), (64,)]),
    conv("conv 3×3 pad 1, N32 16→32 32²", 32, 16, 32, 32, 3, reachable(1.8, 1.9, 2.0), padding=1),
    conv("conv 3×3 wide, N16 64→64 32²", 16, 64, 64, 32, 3, reachable(1.3, 0.84, 0.89), padding=1),
    conv("conv 1×1, N32 16→32 32²", 32, 16, 32, 32, 1, reachable(0.86, 0.74, 0.62)),
    conv(
        "conv 5×5 stride 2, N32 16→32 32²",
        *(32, 16, 32, 32, 5, reachable(1.9, 2.4, 2.4)),
        padding=2,
        stride=2,
    ),
    conv("conv LeNet C1, N32 1→6 32²", 32, 1, 6, 32, 5, reachable(1.2, 0.57, 0.64)),
    conv("conv LeNet C3, N32 6→16 14²", 32, 6, 16, 14, 5, reachable(2.7, 2.9, 2.7)),
    conv("conv 3×3 deep, N16 128→128 8²", 16, 128, 128, 8, 3, padding=1),
    conv("conv 3×3 depthwise, N16 64 32²", 16, 64, 64, 32, 3, padding=1, groups=64),
    conv("conv1d 5, N32 64→64 256", 32, 64, 64, 256, 5, axes=1, padding=2),
    conv("conv3d 3³, N4 8→16 16³", 4, 8, 16, 16, 3, axes=3, padding=1),
    transposed("conv transposed 4×4 stride 2, N16 32→16 16²", 16, 32, 16, 16, 4, stride=2),
    transposed("conv1d transposed 4 stride 2, N32 32→16 128", 32, 32, 16, 128, 4, axes=1, stride=2),
    Case("pad 1, 32×32×32²", "pad", [IMAGES], {"pad": (1, 1, 1, 1)}),
    Case("unfold 3×3, N32 16 32²", "unfold", [(32, 16, 32, 32)], {"kernel_size": 3}),
    Case(
        "fold 3×3, N32 16 32²",
        "fold",
        [(32, 144, 900)],
        {"output_size": (32, 32), "kernel_size": 3},
    ),
    Case(
        "max-pool 2×2, 32×32×32²",
        "max_pool2d",
        [IMAGES],
        {"kernel_size": 2},
        reachable(0.20, 1.9, 0.30),
    ),
    Case(
        "max-pool 3×3 stride 2, 32×32×32²",
        "max_pool2d",
        [IMAGES],
        {"kernel_size": 3, "stride": 2, "padding": 1},
    ),
    Case("max-pool 1d 2, 32×32×1024", "max_pool1d", [(32, 32, 1024)], {"kernel_size": 2}),
    Case(
        "max-unpool 2×2, 32×32×16²",
        "max_unpool2d",
        [(32, 32, 16, 16)],
        {"kernel_size": 2},
        constants=lambda rng: {
            "indices": kernels.max_pool2d(
                rng.standard_normal(IMAGES).astype(np.float32), 2, return_indices=True
            )[1]
        },
    ),
    Case("average-pool 2×2, 32×32×32²", "avg_pool2d", [IMAGES], {"kernel_size": 2}),
    Case("average-pool 1d 2, 32×32×1024", "avg_pool1d", [(32, 32, 1024)], {"kernel_size": 2}),
    Case("global average, 32×32×32²", "adaptive_avg_pool2d", [IMAGES], {"output_size": 1}),
    Case(
        "adaptive average 1d →16, 32×32×1024",
        "adaptive_avg_pool1d",
        [(32, 32, 1024)],
        {"output_size": 16},
    ),
    Case("adaptive max-pool →8², 32×32×32²", "adaptive_max_pool2d", [IMAGES], {"output_size": 8}),
    Case(
        "adaptive max-pool 1d →16, 32×32×1024",
        "adaptive_max_pool1d",
        [(32, 32, 1024)],
        {"output_size": 16},
    ),
    Case("power pool 2×2, 32×32×32²", "lp_pool2d", [IMAGES], {"norm_type": 2, "kernel_size": 2}),
    Case(
        "power pool 1d 2, 32×32×1024",
        "lp_pool1d",
        [(32, 32, 1024)],
        {"norm_type": 2, "kernel_size": 2},
    ),
    Case(
        "batch norm, 32×32×32²",
        "batch_norm",
        [IMAGES, (32,), (32,)],
        RUNNING,
        reachable(0.57, 0.86, 0.72),
        AFFINE,
    ),
    Case(
        "layer norm, 4096×256",
        "layer_norm",
        [(4096, 256), (256,), (256,)],
        LAST,
        reachable(2.8, 2.9, 2.9),
        AFFINE,
    ),
    Case(
        "group norm 8, 32×32×32²",
        "group_norm",
        [IMAGES, (32,), (32,)],
        {"num_groups": 8},
        names=AFFINE,
    ),
    Case("instance norm, 32×32×32²", "instance_norm", [IMAGES]),
    Case("RMS norm, 4096×256", "rms_norm", [(4096, 256), (256,)], LAST, names=("weight",)),
    Case("local response norm, 32×32×32²", "local_response_norm", [IMAGES], {"size": 5}),
    *(
        Case(f"{name}, 10⁶", name, [SQUARE])
        for name in (
            "sigmoid",
            "tanh",
            "relu",
            "leaky_relu",
            "elu",
            "gelu",
            "softplus",
            "silu",
            "hardtanh",
        )
    ),
    Case(
        "maxout 4, 10⁶",
        "maxout",
        [SQUARE],
        {"pool_size": 4},
        torch=lambda x, pool_size: x.reshape(1000, 250, pool_size).max(-1).values,
    ),
    Case("softmax, 1024×1000", "softmax", [(1024, 1000)], {"dim": 1}),
    Case("log-softmax, 1024×1000", "log_softmax", [(1024, 1000)], {"dim": 1}),
    *(
        Case(f"{name}, 10⁶", name, [SQUARE], constants=numbers(SQUARE))
        for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
    ),
    Case(
        "binary_cross_entropy, 10⁶",
        "binary_cross_entropy",
        [SQUARE],
        constants=shares(SQUARE),
        make=probabilities,
    ),
    Case(
        "binary_cross_entropy_with_logits, 10⁶",
        "binary_cross_entropy_with_logits",
        [SQUARE],
        constants=shares(SQUARE),
    ),
    Case(
        "softmax cross-entropy, 1024×1000",
        "cross_entropy",
        [(1024, 1000)],
        goals=reachable(1.7, 0.71, 1.3),
        constants=labels(1024, 1000),
    ),
    Case("nll_loss, 1024×1000", "nll_loss", [(1024, 1000)], constants=labels(1024, 1000)),
    Case("kl_div, 10⁶", "kl_div", [SQUARE], {"reduction": "sum"}, constants=shares(SQUARE)),
    Case("gaussian_kl, 10⁶", "gaussian_kl", [SQUARE, SQUARE], torch=torch_gaussian_kl),
    Case(
        "multi_margin_loss, 1024×100",
        "multi_margin_loss",
        [(1024, 100)],
        constants=labels(1024, 100),
    ),
    Case("hinge_embedding_loss, 10⁶", "hinge_embedding_loss", [SQUARE], constants=signs(SQUARE)),
    Case(
        "margin_ranking_loss, 10⁶", "margin_ranking_loss", [SQUARE, SQUARE], constants=signs(SQUARE)
    ),
    Case(
        "cosine_embedding_loss, 4096×256",
        "cosine_embedding_loss",
        [(4096, 256)] * 2,
        constants=signs(4096),
    ),
    Case(
        "contrastive_loss, 4096×256",
        "contrastive_loss",
        [(4096, 256)] * 2,
        constants=signs(4096),
        torch=torch_contrastive,
    ),
    Case("triplet_margin_loss, 4096×256", "triplet_margin_loss", [(4096, 256)] * 3),
    Case(
        "embedding, 8192 tokens, V50k D128",
        "embedding",
        [(50_000, 128)],
        goals=reachable(0.56, 1.0, 0.87),
        names=("weight",),
        constants=labels(8192, 50_000, "input"),
    ),
    Case(
        "embedding bag, 1024×8 tokens, V50k D128",
        "embedding_bag",
        [(50_000, 128)],
        {"mode": "mean"},
        names=("weight",),
        constants=labels((1024, 8), 50_000, "input"),
    ),
    Case(
        "scatter-add, 8192 rows, 50k×128",
        "scatter_add",
        [(8192, 128)],
        {"size": 50_000},
        constants=labels(8192, 50_000, "indices"),
        torch=torch_scatter_add,
    ),
    Case(
        "one-hot, 8192 labels of 1000",
        "one_hot",
        [],
        {"num_classes": 1000},
        constants=labels(8192, 1000, "labels"),
        torch=torch_one_hot,
    ),
    Case(
        "attention, B8 H8 T128 D64",
        "scaled_dot_product_attention",
        HEADS,
        goals=reachable(1.1, 0.71, 0.80),
    ),
    Case(
        "attention, causal, B8 H8 T128 D64",
        "scaled_dot_product_attention",
        HEADS,
        {"is_causal": True},
    ),
    Case(
        "attention in blocks, B1 H8 T1024 D64",
        "blocked_attention",
        [(1, 8, 1024, 64)] * 3,
        torch="scaled_dot_product_attention",
    ),
    Case(
        "attention weights, B8 H8 T128 D64",
        "attention_weights",
        HEADS[:2],
        torch=torch_attention_weights,
    ),
    Case("LSTM, T64 B32 H128", "lstm", [(64, 32, 128)], goals=reachable(2.2, 1.8, 2.0)),
    Case("GRU, T64 B32 H128", "gru", [(64, 32, 128)]),
    Case("RNN, T64 B32 H128", "rnn", [(64, 32, 128)]),
    Case("dropout ½, 10⁶", "dropout", [SQUARE], {"p": 0.5}),
    Case(
        "negative sampling, B1024 K5 V50k D100",
        "negative_sampling_loss",
        [(1024, 100), (50_000, 100)],
        constants=lambda rng: {
            "target": rng.integers(0, 50_000, 1024),
            "noise": rng.integers(0, 50_000, (1024, 5)),
        },
        torch=torch_negative_sampling,
    ),
    Case(
        "hierarchical softmax, B1024 V10k D100",
        "hierarchical_softmax_loss",
        [(1024, 100), (9_999, 100)],
        constants=tree(1024, 10_000),
        torch=torch_hierarchical_softmax,
    ),
    Case(
        "glove_loss, 8192 pairs D100",
        "glove_loss",
        [(8192, 100), (8192, 100), (8192,), (8192,)],
        constants=lambda rng: {"counts": rng.integers(1, 200, 8192).astype(np.float32)},
        torch=torch_glove,
    ),
    Case(
        "skip-gram step, B1024 K5 V50k D100",
        "skip_gram_negative_sampling_step",
        [(50_000, 100)] * 2,
        {"lr": 0.025},
        reachable(step=0.41),
    ),
    Case(
        "pairwise IoU, 2000²",
        "box_iou",
        [],
        goals=reachable(0.34),
        constants=lambda rng: {"boxes1": boxes(2000, 200)(rng), "boxes2": boxes(2000, 200)(rng)},
        torch=torch_iou,
    ),
    Case(
        "pairwise generalised IoU, 1000²",
        "generalized_box_iou",
        [],
        constants=lambda rng: {"boxes1": boxes(1000, 200)(rng), "boxes2": boxes(1000, 200)(rng)},
        torch=torch_hull_iou,
    ),
    Case(
        "NMS, 2000 boxes, dense",
        "nms",
        [],
        {"iou_threshold": 0.3},
        constants=scored(2000, 500),
        torch=torch_nms,
    ),
    Case(
        "NMS, 2000 boxes, sparse",
        "nms",
        [],
        {"iou_threshold": 0.5},
        constants=scored(2000, 30),
        torch=torch_nms,
    ),
    Case(
        "Gram matrix, C128 HW4096",
        "gram_matrix",
        [(1, 128, 64, 64)],
        goals=reachable(0.51, 0.35, 0.45),
        torch=torch_gram,
    ),
    Case(
        "total variation, 3×512²",
        "total_variation",
        [(1, 3, 512, 512)],
        torch=torch_total_variation,
    ),
    Case(
        "content_loss, C128 64²",
        "content_loss",
        [(1, 128, 64, 64)],
        torch="mse_loss",
        constants=numbers((1, 128, 64, 64)),
    ),
    Case(
        "style_loss, C128 64²",
        "style_loss",
        [(1, 128, 64, 64)],
        torch=torch_style,
        constants=numbers((1, 128, 128)),
    ),
    Case("normalize, 4096×256", "normalize", PAIRS[:1]),
    Case("vector_norm, 4096×256", "vector_norm", PAIRS[:1], {"dim": 1}, torch=torch_norm),
    Case("logsumexp, 1024×1000", "logsumexp", [(1024, 1000)], {"dim": 1}, torch=torch_logsumexp),
    Case("cosine_similarity, 4096×256", "cosine_similarity", PAIRS),
    Case("pairwise_distance, 4096×256", "pairwise_distance", PAIRS),
    Case("cdist, 512 × 512 points, D64", "cdist", [(512, 64)] * 2, torch=torch_cdist),
    Case("glu, 1000×2000", "glu", [(1000, 2000)]),
    Case(
        "interpolate ×2 bilinear, 32×32×32²",
        "interpolate",
        [IMAGES],
        {"scale_factor": 2, "mode": "bilinear"},
    ),
    Case(
        "reparameterize, 10⁶",
        "reparameterize",
        [SQUARE] * 3,
        torch=lambda mean, log_var, noise: mean + (log_var / 2).exp() * noise,
    ),
    Case("Adam step, 10⁶", "adam_step", [], goals=reachable(step=0.88), torch="Adam"),
    Case("SGD step with momentum, 10⁶", "sgd_step", [], {"momentum": 0.9}, torch="SGD"),
    Case("Adagrad step, 10⁶", "adagrad_step", [], torch="Adagrad"),
    Case("RMSprop step, 10⁶", "rmsprop_step", [], torch="RMSprop"),
    Case("Adadelta step, 10⁶", "adadelta_step", [], torch="Adadelta"),
]

# Public kernels without a row, and why.
_OTHER_WAY = "the same result as {}, more slowly: the formula, and the tests' oracle"
_VISION = "what torchvision has under this name; torchvision is not needed by this book"
_SAME_TWICE = (
    "linear",
    "conv2d",
    "scatter_add",
    "nms",
    "scaled_dot_product_attention",
    "rnn",
    "lstm",
    "gru",
    "simple_gru",
    "negative_sampling_loss",
    "hierarchical_softmax_loss",
    "max_pool2d",
    "avg_pool2d",
    "conv_transpose2d",
    "box_iou",
    "roi_pool",
    "roi_align",
)
WITHOUT_ROW = {
    "conv2d_unfold": _OTHER_WAY.format("conv2d"),
    "batch_norm_statistics": "the running statistics, which torch updates in batch_norm itself",
    "instance_norm_statistics": "as batch_norm_statistics",
    **dict.fromkeys(
        ("zero_one_loss", "perceptron_loss", "hinge_loss", "logistic_loss"),
        "torch has no losses on a margin",
    ),
    **{f"{name}_loops": _OTHER_WAY.format(name) for name in _SAME_TWICE},
    **{f"{name}_cell": f"one step of {name}" for name in ("lstm", "gru", "rnn")},
    **dict.fromkeys(("simple_gru", "simple_gru_cell"), "torch has the full GRU only"),
    **dict.fromkeys(
        ("sinusoidal_positions", "anchor_boxes", "alias_table", "huffman_codes"),
        "a table that is computed once",
    ),
    "alias_sample": "draws; torch's multinomial builds its table at every call",
    "embedding_renorm": "changes its table at the first call and has nothing to do at the next",
    "glove_weight": "a part of glove_loss",
    "gaussian_nll_loss": "a few operations on each entry, as gaussian_kl",
    "hierarchical_softmax_log_probs": "torch has no tree of words",
    **dict.fromkeys(
        ("cbow_negative_sampling_step", "cbow_hierarchical_softmax_step",
         "skip_gram_hierarchical_softmax_step"),
        "the same step as skip_gram_negative_sampling_step, with other rows",
    ),
    **dict.fromkeys(
        ("box_area", "box_convert", "clip_boxes_to_image", "remove_small_boxes", "batched_nms",
         "roi_align", "roi_pool"),
        _VISION,
    ),
    **dict.fromkeys(
        ("encode_boxes", "decode_boxes", "match_anchors", "soft_nms"),
        "torch and torchvision have no public function for it",
    ),
}  # fmt: skip


# ---- the two sides ---------------------------------------------------------------------------


class Sides(NamedTuple):
    """What is timed on both sides: forward and backward, forward alone, or a step alone."""

    here: list[Callable]
    there: list[Callable]
    data: int  # bytes of inputs and results


def prepare(case: Case, torch) -> Sides:
    """Return what is timed, after a check that both sides compute the same."""
    rng = np.random.default_rng(0)
    if case.kernel == "skip_gram_negative_sampling_step":
        return prepare_skip_gram(case, torch, rng)
    if case.kernel.endswith("_step"):
        return prepare_step(case, torch, rng)
    if case.kernel == "dropout":
        return prepare_dropout(case, torch, rng)
    if case.kernel in ("rnn", "lstm", "gru"):
        return prepare_recurrent(case, torch, rng)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in case.shapes]
    if case.make:
        arrays[0] = case.make(rng, case.shapes[0])
    # The scale of trained weights, so that no result is far out of range.
    for i, array in enumerate(arrays[1:], start=1):
        arrays[i] = array / np.float32(math.sqrt(max(1, math.prod(array.shape[1:]))))
    constants = case.constants(rng)

    def call(function, arrays, constants, settings, first=()):
        count = len(arrays) - len(case.names)  # the first arrays go by position
        named = dict(zip(case.names, arrays[count:], strict=True))
        return function(*first, *arrays[:count], **named, **constants, **settings)

    forward = getattr(kernels, case.kernel)
    settings, residuals = case.settings, {}
    if "return_residuals" in inspect.signature(forward).parameters:  # as in a network
        forward = functools.partial(forward, return_residuals=True)
        y, residuals["residuals"] = call(forward, arrays, constants, settings)
    else:
        y = call(forward, arrays, constants, settings)
    y = np.asarray(y)

    there = torch_function(case, torch)
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    torch_constants = {name: torch.tensor(array) for name, array in constants.items()}
    torch_settings = settings if case.torch_settings is None else case.torch_settings
    graph = call(there, tensors, torch_constants, torch_settings)
    check_equal(case, y, graph.detach().numpy())

    def torch_forward():
        with torch.no_grad():
            return call(there, tensors, torch_constants, torch_settings)

    here = [lambda: call(forward, arrays, constants, settings)]
    data = sum(array.nbytes for array in (*arrays, *constants.values(), y))
    backward = getattr(kernels, f"{case.kernel}_backward", None)
    if backward is None:
        return Sides(here, [torch_forward], data)

    dy = np.float32(rng.standard_normal(y.shape))
    torch_dy = torch.tensor(dy)
    if list(inspect.signature(backward).parameters)[1] == "y":  # it takes the output
        here.append(lambda: backward(dy, y, **settings))
    else:
        more = {**settings, **residuals}
        here.append(lambda: call(backward, arrays, constants, more, (dy,)))

    def torch_backward():
        return torch.autograd.grad(graph, tensors, torch_dy, retain_graph=True)

    gradients = here[1]()
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    given = [gradient for gradient in gradients if gradient is not None]
    for ours, theirs in zip(given, torch_backward(), strict=True):
        check_equal(case, ours, theirs.numpy())
    return Sides(here, [torch_forward, torch_backward], data)


def torch_function(case: Case, torch) -> Callable:
    if callable(case.torch):
        return case.torch
    return getattr(torch.nn.functional, case.torch or case.kernel)


def prepare_step(case: Case, torch, rng) -> Sides:
    """Prepare one step of an optimiser for one parameter of 10⁶ numbers."""
    param, grad = rng.standard_normal((2, 10**6)).astype(np.float32)
    step = getattr(kernels, case.kernel)
    parameters = inspect.signature(step).parameters
    needed = [name for name, p in parameters.items() if p.default is p.empty]
    names = [name for name in needed if name not in ("param", "grad", "step")]
    state = {name: np.zeros_like(param) for name in names or ["momentum_buffer"]}
    count = {"step": 1} if "step" in needed else {}
    tensor = torch.tensor(param, requires_grad=True)
    tensor.grad = torch.tensor(grad)
    optimiser = getattr(torch.optim, case.torch)([tensor], **case.settings)
    optimiser.step()
    first = {"first": True} if "first" in parameters else {}
    step(param, grad, **state, **count, **first, **case.settings)
    check_equal(case, param, tensor.detach().numpy())
    data = sum(array.nbytes for array in (param, grad, *state.values()))
    return Sides(
        [lambda: step(param, grad, **state, **count, **case.settings)], [optimiser.step], data
    )


def prepare_skip_gram(case: Case, torch, rng) -> Sides:
    """Prepare one step on a batch of pairs; torch's takes sparse gradients, as it should."""
    (words, dim), n = case.shapes[0], 1024
    tables = [rng.uniform(-0.5, 0.5, (words, dim)).astype(np.float32) for _ in range(2)]
    center, context = rng.integers(0, words, (2, n))
    noise = rng.integers(0, words, (n, 5))
    parameters = [torch.tensor(table, requires_grad=True) for table in tables]
    optimiser = torch.optim.SGD(parameters, lr=case.settings["lr"])
    F, torch_center = torch.nn.functional, torch.tensor(center)
    rows = torch.tensor(np.concatenate([context[:, None], noise], axis=1))
    signs = torch.ones(rows.shape)
    signs[:, 1:] = -1

    def torch_step():
        optimiser.zero_grad()
        hidden = F.embedding(torch_center, parameters[0], sparse=True)
        asked = F.embedding(rows, parameters[1], sparse=True)
        loss = -F.logsigmoid(signs * (asked @ hidden[..., None])[..., 0]).sum()
        loss.backward()
        optimiser.step()

    def step():
        kernels.skip_gram_negative_sampling_step(*tables, center, context, noise, **case.settings)

    step()
    torch_step()
    for ours, theirs in zip(tables, parameters, strict=True):
        check_equal(case, ours, theirs.detach().numpy())
    data = sum(array.nbytes for array in (*tables, center, context, noise))
    return Sides([step], [torch_step], data)


def prepare_recurrent(case: Case, torch, rng) -> Sides:
    """Prepare all steps of a recurrent layer, from states that are 0, as a module runs it."""
    (shape,) = case.shapes
    module = getattr(torch.nn, case.kernel.upper())(shape[2], shape[2])
    weights = [parameter.detach().numpy().copy() for parameter in module.parameters()]
    x, dy = rng.standard_normal((2, *shape)).astype(np.float32)
    states = [np.zeros(shape[1:], np.float32)] * (2 if case.kernel == "lstm" else 1)
    arrays = (x, *states, *weights)
    tensor = torch.tensor(x, requires_grad=True)
    tensors, torch_dy = [tensor, *module.parameters()], torch.tensor(dy)
    forward = functools.partial(getattr(kernels, case.kernel), return_residuals=True)
    backward = getattr(kernels, f"{case.kernel}_backward")
    y, *_, residuals = forward(*arrays)
    graph = module(tensor)[0]
    # The first states are constants on both sides.
    mask = tuple(not 0 < i <= len(states) for i in range(len(arrays)))

    def torch_forward():
        with torch.no_grad():
            return module(tensor)

    here = [
        lambda: forward(*arrays),
        lambda: backward(dy, *arrays, residuals=residuals, output_mask=mask),
    ]
    there = [
        torch_forward,
        lambda: torch.autograd.grad(graph, tensors, torch_dy, retain_graph=True),
    ]
    check_equal(case, y, graph.detach().numpy())
    given = [gradient for gradient in here[1]() if gradient is not None]
    for ours, theirs in zip(given, there[1](), strict=True):
        check_equal(case, ours, theirs.numpy())
    return Sides(here, there, sum(array.nbytes for array in (*arrays, y)))


def prepare_dropout(case: Case, torch, rng) -> Sides:
    """Prepare dropout, which draws its own mask: only how much is kept can be compared."""
    (shape,), p = case.shapes, case.settings["p"]
    x, dy = rng.standard_normal((2, *shape)).astype(np.float32)
    tensor, torch_dy = torch.tensor(x, requires_grad=True), torch.tensor(dy)

    def draw():
        return rng.random(shape, dtype=np.float32) >= p

    keep = draw()
    graph = torch.nn.functional.dropout(tensor, p)
    y = kernels.dropout(x, keep, p)
    for result in (y, graph.detach().numpy()):
        kept = result != 0
        assert abs(kept.mean() - (1 - p)) < 0.01, case.name
        check_equal(case, result[kept], x[kept] / (1 - p))

    def torch_forward():
        with torch.no_grad():
            return torch.nn.functional.dropout(tensor, p)

    return Sides(
        [lambda: kernels.dropout(x, draw(), p), lambda: kernels.dropout_backward(dy, keep, p)],
        [torch_forward, lambda: torch.autograd.grad(graph, tensor, torch_dy, retain_graph=True)],
        x.nbytes + y.nbytes,
    )


def check_equal(case: Case, ours, theirs) -> None:
    """Raise AssertionError unless both sides have computed the same."""
    scale = float(np.abs(theirs).max(initial=1))
    assert np.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * scale), case.name


# ---- measuring -------------------------------------------------------------------------------

Ratio = tuple[float, float, float]  # median, lower and upper quartile


@dataclass
class Row:
    """What was measured of one case; None where there is no such pass or no goal."""

    name: str
    kernel: str
    forward: Ratio | None
    backward: Ratio | None
    step: Ratio | None
    goals: Goals | None
    milliseconds: float  # of a step here, or of the one pass there is
    torch_milliseconds: float
    peak: int
    data: int


def measure(case: Case, rounds: int, clock: Callable[[], float]) -> Row:
    import torch

    sides = prepare(case, torch)
    tracemalloc.start()
    for function in sides.here:
        function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    functions = [*sides.here, *sides.there]
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, taken in zip(functions, times, strict=True):
            start = clock()
            function()
            taken.append(clock() - start)
    here, there = times[: len(sides.here)], times[len(sides.here) :]
    ratios = [ratio(ours, theirs) for ours, theirs in zip(here, there, strict=True)]
    all_here, all_there = ([sum(each) for each in zip(*one, strict=True)] for one in (here, there))
    if len(ratios) == 2:
        ratios.append(ratio(all_here, all_there))
    elif case.kernel.endswith("_step"):
        ratios = [None, None, *ratios]
    else:
        ratios = [*ratios, None, None]
    ours, theirs = (round(1000 * statistics.median(one), 3) for one in (all_here, all_there))
    return Row(case.name, case.kernel, *ratios, case.goals, ours, theirs, peak, sides.data)


def ratio(here: list[float], there: list[float]) -> Ratio:
    each = [a / b for a, b in zip(here, there, strict=True)]
    low, middle, high = statistics.quantiles(each, n=4, method="inclusive")
    return round(middle, 3), round(low, 3), round(high, 3)


def conditions(arguments) -> dict[str, Any]:
    """Return what the numbers depend on."""
    import torch

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "measured": datetime.date.today().isoformat(),
        "processor": processor(),
        "threads": arguments.threads,
        "clock": "processor time" if arguments.cpu_time else "wall time",
        "rounds": arguments.rounds,
        "remark": arguments.write or "",
        "versions": {
            "Python": platform.python_version(),
            "NumPy": np.__version__,
            "BLAS": f"{blas['name']} {blas['version']}",
            "PyTorch": torch.__version__,
        },
    }


def processor() -> str:
    try:
        described = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except FileNotFoundError:  # not Linux
        return platform.processor()
    found = re.search(r"^model name\s*: (.+)$", described, re.MULTILINE)
    return found[1] if found else platform.machine()


# ---- the table and the page ------------------------------------------------------------------


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table; ratios above their goal are bold."""
    head = ["kernel, float32", "forward", "backward", "step", "goals"]
    head += ["ms", "torch ms", "peak MiB", "data MiB"]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for row in rows:
        goals = row["goals"] or (None, None, None)
        cells = [
            cell(row[one], goal)
            for one, goal in zip(("forward", "backward", "step"), goals, strict=True)
        ]
        wanted = " / ".join("–" if goal is None else f"{goal:.2f}" for goal in goals)
        times = [f"{row[one]:.2f}" for one in ("milliseconds", "torch_milliseconds")]
        sizes = [f"{row[one] / 2**20:.1f}" for one in ("peak", "data")]
        lines.append([row["name"], *cells, wanted if row["goals"] else "", *times, *sizes])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(ratios: list[float] | None, goal: float | None) -> str:
    if ratios is None:
        return "–"
    middle, low, high = ratios
    text = f"{middle:.2f} ({low:.2f}–{high:.2f})"
    return f"**{text}**" if goal is not None and round(middle, 2) > round(goal, 2) else text


def page(numbers: dict[str, Any]) -> str:
    """Return docs/kernels.md for these numbers."""
    versions = ", ".join(f"{name} {version}" for name, version in numbers["versions"].items())
    threads = "one thread" if numbers["threads"] == 1 else f"{numbers['threads']} threads"
    paragraphs = __doc__.split("\n\n")
    missing = "\n".join(f"- `{name}`: {why}." for name, why in WITHOUT_ROW.items())
    return f"""\
# How fast the NumPy kernels are

Each kernel of `dlnotes.kernels` against PyTorch on the CPU, float32, {threads} on both sides.
This page is written by `python benchmarks/kernels.py --write`; do not edit it. The same numbers
are the data set `dlnotes.data.load("kernel_times")`.

{paragraphs[2]}

Bold: above the goal.

{table(numbers["rows"])}

## Conditions

Measured on {numbers["measured"]}: {numbers["processor"]}, {threads}, {numbers["clock"]},
{numbers["rounds"]} rounds; {versions}.
{numbers["remark"]}

Ratios of memory-bound kernels change with the size of the processor's caches, and on another
processor, or with other threads at work beside it, all of them do.

## Kernels without a row

{missing}
"""


def write(numbers: dict[str, Any]) -> None:
    """Store the numbers as a data set, in the manifest, and as a page."""
    NUMBERS.write_text(json.dumps(numbers, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    path = DATA / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    content = NUMBERS.read_bytes()
    manifest["sets"]["kernel_times"]["files"] = [
        {
            "name": NUMBERS.name,
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    ]
    path.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    write_page()


def write_page() -> None:
    numbers = json.loads(NUMBERS.read_text(encoding="utf-8"))
    PAGE.write_text(page(numbers), encoding="utf-8")


def main() -> None:
    description, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=details, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="WORD", help="kernels with one of the words")
    parser.add_argument("--rounds", type=int, default=25, help="rounds for each kernel (25)")
    parser.add_argument("--threads", type=int, default=1, help="threads on both sides (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there, too")
    parser.add_argument("--write", metavar="REMARK", help="store them as data set and page")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="measure time on the processor, not on the wall: for a busy machine, one thread",
    )
    arguments = parser.parse_args()
    if arguments.rounds < 2 or arguments.threads < 1:
        parser.error("--rounds must be at least 2 and --threads at least 1")
    if arguments.cpu_time and arguments.threads > 1:
        parser.error("--cpu-time adds up over threads: it needs --threads 1")
    if arguments.write is not None and arguments.only:
        parser.error("--write is for all kernels: leave --only out")
    if arguments.page:
        write_page()
        return
    words = arguments.only or [""]
    cases = [case for case in CASES if any(word in case.name for word in words)]
    if not cases:
        parser.error(f"no kernel has one of {words} in its name")

    threads = str(arguments.threads)
    if any(os.environ.get(name) != threads for name in BLAS_THREADS):
        # NumPy's BLAS reads these when it is loaded, so start once more with them.
        environment = dict(os.environ, **dict.fromkeys(BLAS_THREADS, threads))
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)

    import torch

    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    rows = []
    for case in cases:
        print(f"{case.name} …", file=sys.stderr, flush=True)
        rows.append(asdict(measure(case, arguments.rounds, clock)))
    numbers = {**conditions(arguments), "rows": rows}
    print(table(rows))
    versions = (f"{name} {version}" for name, version in numbers["versions"].items())
    print(f"\n{', '.join(versions)}, threads: {threads}.")
    if arguments.json:
        arguments.json.write_text(json.dumps(numbers, indent=1) + "\n")
    if arguments.write is not None:
        write(numbers)


if __name__ == "__main__":
    main()
