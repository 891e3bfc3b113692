"""The operations of the layers as functions on tensors: `import dlnotes.nn.functional as F`.

Inputs are tensors (arrays are taken as constants); values, arguments and errors are those of the
kernel of the same name in `dlnotes.kernels`. Gradients flow to every tensor but the targets.
"""

import numpy as np

from dlnotes._validate import Number
from dlnotes.autograd import Tensor, apply


def linear(input, weight, bias=None) -> Tensor:
    """Return input Wᵀ + b; weight: (out, in), bias: (out,) or None."""
    return apply("linear", input, weight) if bias is None else apply("linear", input, weight, bias)


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


def nll_loss(input, target, reduction: str = "mean") -> Tensor:
    """Return minus the log-probability of each sample's label."""
    return _loss("nll_loss", input, target, reduction)


def cross_entropy(input, target, reduction: str = "mean") -> Tensor:
    """Return the cross-entropy of softmax(input) and labels or target probabilities."""
    return _loss("cross_entropy", input, target, reduction)


def kl_div(input, target, reduction: str = "mean") -> Tensor:
    """Return the divergence of target probabilities from log-probabilities `input`."""
    return _loss("kl_div", input, target, reduction)


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


def _loss(op: str, input, target, reduction: str) -> Tensor:
    if isinstance(target, Tensor):
        if target.requires_grad:
            raise ValueError("target gets no gradient: pass target.detach()")
        target = target.data
    return apply(op, input, target=np.asarray(target), reduction=reduction)
