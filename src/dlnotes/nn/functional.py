"""The operations of the layers as functions on tensors: `import dlnotes.nn.functional as F`.

Inputs are tensors (arrays are taken as constants); values, arguments and errors are those of the
kernel of the same name in `dlnotes.kernels`. Gradients flow to every tensor but the targets.
"""

import numpy as np

from dlnotes import _validate, kernels, random
from dlnotes._validate import Number
from dlnotes.autograd import Tensor, apply


def linear(input, weight, bias=None) -> Tensor:
    """Return input Wᵀ + b; weight: (out, in), bias: (out,) or None."""
    return apply("linear", input, weight) if bias is None else apply("linear", input, weight, bias)


def bilinear(input1, input2, weight, bias=None) -> Tensor:
    """Return input1ᵀ W_k input2 + b_k; weight: (out, in1, in2), bias: (out,) or None."""
    inputs = (input1, input2, weight) if bias is None else (input1, input2, weight, bias)
    return apply("bilinear", *inputs)


def one_hot(tensor, num_classes: int = -1) -> Tensor:
    """Return int64 rows that are 1 at the label and 0 elsewhere."""
    return Tensor(kernels.one_hot(_constant("tensor", tensor), num_classes))


def embedding(
    input, weight, padding_idx: int | None = None, *, scale_grad_by_freq: bool = False
) -> Tensor:
    """Return the rows of weight (rows, d) that the integers `input` name."""
    settings = {"padding_idx": padding_idx, "scale_grad_by_freq": scale_grad_by_freq}
    return apply("embedding", weight, input=_constant("input", input), **settings)


def embedding_bag(
    input,
    weight,
    offsets=None,
    *,
    mode: str = "mean",
    per_sample_weights=None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Return the sum, mean or largest entries of the rows in each bag of indices."""
    inputs = (weight,) if per_sample_weights is None else (weight, per_sample_weights)
    return apply(
        *("embedding_bag", *inputs),
        input=_constant("input", input),
        offsets=_constant("offsets", offsets),
        mode=mode,
        include_last_offset=include_last_offset,
        padding_idx=padding_idx,
    )


def dropout(input, p: Number = 0.5, training: bool = True, *, generator=None) -> Tensor:
    """Return the input with each entry set to 0 with probability p, the rest times 1/(1 - p).

    The mask is drawn from `generator`, by default `dlnotes.random.generator()`. Without
    training=True, or with p = 0, nothing is drawn and the input is returned.
    """
    input = input if isinstance(input, Tensor) else Tensor(input)
    return _dropout(input, input.shape, p, training, generator)


def dropout2d(input, p: Number = 0.5, training: bool = True, *, generator=None) -> Tensor:
    """Return (n, channels, h, w) with whole channels of a sample set to 0 with probability p."""
    input = input if isinstance(input, Tensor) else Tensor(input)
    if input.ndim != 4:
        raise ValueError(f"input must have 4 axes (n, channels, h, w), got shape {input.shape}")
    return _dropout(input, (*input.shape[:2], 1, 1), p, training, generator)


def sigmoid(input) -> Tensor:
    """Return 1 / (1 + e⁻ˣ)."""
    return apply("sigmoid", input)


def tanh(input) -> Tensor:
    """Return tanh x."""
    return apply("tanh", input)


def relu(input) -> Tensor:
    """Return max(x, 0)."""
    return apply("relu", input)


def leaky_relu(input, negative_slope: Number = 0.01) -> Tensor:
    """Return x where x > 0, else negative_slope · x."""
    return apply("leaky_relu", input, negative_slope=negative_slope)


def elu(input, alpha: Number = 1.0) -> Tensor:
    """Return x where x > 0, else alpha · (eˣ - 1)."""
    return apply("elu", input, alpha=alpha)


def gelu(input, approximate: str = "none") -> Tensor:
    """Return x · Φ(x), or its approximation by tanh."""
    return apply("gelu", input, approximate=approximate)


def softplus(input, beta: Number = 1.0, threshold: Number = 20.0) -> Tensor:
    """Return log(1 + e^(beta x)) / beta."""
    return apply("softplus", input, beta=beta, threshold=threshold)


def silu(input) -> Tensor:
    """Return x · σ(x)."""
    return apply("silu", input)


def maxout(input, pool_size: int) -> Tensor:
    """Return the largest of each `pool_size` consecutive features."""
    return apply("maxout", input, pool_size=pool_size)


def softmax(input, dim: int = -1) -> Tensor:
    """Return eˣ / Σ eˣ along `dim`."""
    return apply("softmax", input, dim=dim)


def log_softmax(input, dim: int = -1) -> Tensor:
    """Return x - log Σ eˣ along `dim`."""
    return apply("log_softmax", input, dim=dim)


def mse_loss(input, target, reduction: str = "mean") -> Tensor:
    """Return the squared error."""
    return _loss("mse_loss", input, target, reduction)


def l1_loss(input, target, reduction: str = "mean") -> Tensor:
    """Return the absolute error."""
    return _loss("l1_loss", input, target, reduction)


def binary_cross_entropy(input, target, reduction: str = "mean") -> Tensor:
    """Return the cross-entropy of probabilities and targets in [0, 1]."""
    return _loss("binary_cross_entropy", input, target, reduction)


def binary_cross_entropy_with_logits(input, target, reduction: str = "mean") -> Tensor:
    """Return the cross-entropy of σ(input) and targets in [0, 1]."""
    return _loss("binary_cross_entropy_with_logits", input, target, reduction)


def smooth_l1_loss(input, target, reduction: str = "mean", beta: Number = 1.0) -> Tensor:
    """Return the squared error where it is small and the absolute error where it is large."""
    return _loss("smooth_l1_loss", input, target, reduction, beta=beta)


def huber_loss(input, target, reduction: str = "mean", delta: Number = 1.0) -> Tensor:
    """Return delta times the smooth absolute error."""
    return _loss("huber_loss", input, target, reduction, delta=delta)


def nll_loss(
    input, target, reduction: str = "mean", *, weight=None, ignore_index: int = -100
) -> Tensor:
    """Return minus the log-probability of each sample's label."""
    settings = {"weight": _constant("weight", weight), "ignore_index": ignore_index}
    return _loss("nll_loss", input, target, reduction, **settings)


def cross_entropy(
    input,
    target,
    reduction: str = "mean",
    *,
    weight=None,
    ignore_index: int = -100,
    label_smoothing: Number = 0.0,
) -> Tensor:
    """Return the cross-entropy of softmax(input) and labels or target probabilities."""
    settings = {"weight": _constant("weight", weight), "ignore_index": ignore_index}
    settings["label_smoothing"] = label_smoothing
    return _loss("cross_entropy", input, target, reduction, **settings)


def multi_margin_loss(
    input, target, p: int = 1, margin: Number = 1.0, weight=None, reduction: str = "mean"
) -> Tensor:
    """Return the hinge loss of several classes."""
    settings = {"p": p, "margin": margin, "weight": _constant("weight", weight)}
    return _loss("multi_margin_loss", input, target, reduction, **settings)


def kl_div(input, target, reduction: str = "mean", *, log_target: bool = False) -> Tensor:
    """Return the divergence of target probabilities from log-probabilities `input`."""
    return _loss("kl_div", input, target, reduction, log_target=log_target)


def gaussian_kl(mean, log_variance, reduction: str = "mean") -> Tensor:
    """Return the divergence of normal distributions from the standard one."""
    return apply("gaussian_kl", mean, log_variance, reduction=reduction)


def margin_ranking_loss(
    input1, input2, target, margin: Number = 0.0, reduction: str = "mean"
) -> Tensor:
    """Return how far the pair is from the order that target (±1) says, with a margin."""
    settings = {"target": _constant("target", target), "margin": margin, "reduction": reduction}
    return apply("margin_ranking_loss", input1, input2, **settings)


def hinge_embedding_loss(input, target, margin: Number = 1.0, reduction: str = "mean") -> Tensor:
    """Return the distance `input` of like pairs, and what unlike ones lack to the margin."""
    return _loss("hinge_embedding_loss", input, target, reduction, margin=margin)


def cosine_embedding_loss(
    input1, input2, target, margin: Number = 0.0, reduction: str = "mean"
) -> Tensor:
    """Return 1 - cos of like pairs, and what the cosine of unlike ones has above the margin."""
    settings = {"target": _constant("target", target), "margin": margin, "reduction": reduction}
    return apply("cosine_embedding_loss", input1, input2, **settings)


def contrastive_loss(
    input1, input2, target, margin: Number = 1.0, reduction: str = "mean"
) -> Tensor:
    """Return half the squared distance of like pairs, or what unlike ones lack to the margin."""
    settings = {"target": _constant("target", target), "margin": margin, "reduction": reduction}
    return apply("contrastive_loss", input1, input2, **settings)


def triplet_margin_loss(
    anchor,
    positive,
    negative,
    margin: Number = 1.0,
    p: Number = 2.0,
    eps: Number = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """Return max(0, d(anchor, positive) - d(anchor, negative) + margin)."""
    settings = {"margin": margin, "p": p, "eps": eps, "swap": swap, "reduction": reduction}
    return apply("triplet_margin_loss", anchor, positive, negative, **settings)


def zero_one_loss(margin, reduction: str = "mean") -> Tensor:
    """Return 1 where the margin is not positive."""
    return apply("zero_one_loss", margin, reduction=reduction)


def perceptron_loss(margin, reduction: str = "mean") -> Tensor:
    """Return max(0, -margin)."""
    return apply("perceptron_loss", margin, reduction=reduction)


def hinge_loss(margin, reduction: str = "mean") -> Tensor:
    """Return max(0, 1 - margin)."""
    return apply("hinge_loss", margin, reduction=reduction)


def logistic_loss(margin, reduction: str = "mean") -> Tensor:
    """Return log(1 + e^-margin)."""
    return apply("logistic_loss", margin, reduction=reduction)


def _dropout(input: Tensor, shape: tuple, p, training: bool, generator) -> Tensor:
    p = _validate.number("p", p, low=0, high=1)
    if not isinstance(training, bool):
        raise TypeError(f"training must be True or False, got {type(training).__name__}")
    if not training or p == 0:
        return input
    generator = random.generator() if generator is None else generator
    keep = np.asarray(generator.random(shape, dtype=np.float32) >= p)
    return apply("dropout", input, keep=keep, p=p)


def _loss(op: str, input, target, reduction: str, **settings) -> Tensor:
    target = _constant("target", target)
    return apply(op, input, target=target, reduction=reduction, **settings)


def _constant(name: str, value) -> np.ndarray | None:
    """Return the array of what gets no gradient; ValueError for a tensor that wants one."""
    if isinstance(value, Tensor):
        if value.requires_grad:
            raise ValueError(f"{name} gets no gradient: pass {name}.detach()")
        value = value.data
    return None if value is None else np.asarray(value)
