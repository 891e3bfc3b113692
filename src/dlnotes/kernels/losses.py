"""Losses: names, arguments and values as in torch.nn.functional, and the losses on a margin.

Each takes reduction="mean" (default), "sum" or "none"; `*_backward(dy, …)` takes the gradient dy
with respect to the loss (a number for "mean" and "sum", an array of the loss's shape for "none")
and returns the gradient with respect to `input`. As in torch, the mean over an empty batch is NaN.

In each: TypeError for arrays that are not float32 or float64 or differ in dtype; ValueError for
shapes that do not fit (nothing is broadcast), labels or probabilities out of range or NaN, and an
unknown reduction.
"""

import numpy as np
from jaxtyping import Float, Integer

from dlnotes import _validate
from dlnotes._validate import Number
from dlnotes.kernels import activations

Array = np.ndarray | np.floating
Loss = np.ndarray | np.floating  # a number for "mean" and "sum", an array for "none"
Upstream = np.ndarray | Number

# ---- regression ------------------------------------------------------------------------------


def mse_loss(
    input: Float[Array, "*shape"], target: Float[Array, "*shape"], reduction: str = "mean"
) -> Loss:
    """Return the squared error (input - target)²."""
    input, target = _floats_like(input, target)
    return _reduce((input - target) ** 2, reduction)


def mse_loss_backward(
    dy: Upstream,
    input: Float[Array, "*shape"],
    target: Float[Array, "*shape"],
    reduction: str = "mean",
) -> Float[Array, "*shape"]:
    """Return dinput = dy · 2 (input - target)."""
    input, target = _floats_like(input, target)
    return _spread(dy, input.shape, input.dtype, reduction) * (2 * (input - target))


def l1_loss(
    input: Float[Array, "*shape"], target: Float[Array, "*shape"], reduction: str = "mean"
) -> Loss:
    """Return the absolute error |input - target|."""
    input, target = _floats_like(input, target)
    return _reduce(np.abs(input - target), reduction)


def l1_loss_backward(
    dy: Upstream,
    input: Float[Array, "*shape"],
    target: Float[Array, "*shape"],
    reduction: str = "mean",
) -> Float[Array, "*shape"]:
    """Return dinput = dy · sign(input - target); 0 where they are equal."""
    input, target = _floats_like(input, target)
    return _spread(dy, input.shape, input.dtype, reduction) * np.sign(input - target)


# ---- two classes -----------------------------------------------------------------------------


def binary_cross_entropy(
    input: Float[Array, "*shape"], target: Float[Array, "*shape"], reduction: str = "mean"
) -> Loss:
    """Return -(t log p + (1 - t) log(1 - p)) for probabilities p = input and targets t in [0, 1].

    Logarithms are cut off at -100, as in torch, so that p = 0 or 1 gives a finite loss.
    """
    input, target = _floats_like(input, target)
    _validate.probabilities("input", input)
    _validate.probabilities("target", target)
    with np.errstate(divide="ignore"):  # log 0 = -∞ is cut off
        log_p = np.maximum(np.log(input), -100)
        log_not_p = np.maximum(np.log1p(-input), -100)
    return _reduce(-(target * log_p + (1 - target) * log_not_p), reduction)


def binary_cross_entropy_backward(
    dy: Upstream,
    input: Float[Array, "*shape"],
    target: Float[Array, "*shape"],
    reduction: str = "mean",
) -> Float[Array, "*shape"]:
    """Return dinput = dy · (p - t) / (p (1 - p)), the denominator at least 1e-12, as in torch."""
    input, target = _floats_like(input, target)
    _validate.probabilities("input", input)
    _validate.probabilities("target", target)
    slope = (input - target) / np.maximum(input * (1 - input), 1e-12)
    return _spread(dy, input.shape, input.dtype, reduction) * slope


def binary_cross_entropy_with_logits(
    input: Float[Array, "*shape"], target: Float[Array, "*shape"], reduction: str = "mean"
) -> Loss:
    """Return the binary cross-entropy of σ(input), computed from the logits without overflow.

    log(1 + eˣ) - t x = max(x, 0) - t x + log(1 + e^-|x|), with targets t in [0, 1].
    """
    input, target = _floats_like(input, target)
    _validate.probabilities("target", target)
    loss = np.maximum(input, 0) - target * input + np.log1p(np.exp(-np.abs(input)))
    return _reduce(loss, reduction)


def binary_cross_entropy_with_logits_backward(
    dy: Upstream,
    input: Float[Array, "*shape"],
    target: Float[Array, "*shape"],
    reduction: str = "mean",
) -> Float[Array, "*shape"]:
    """Return dinput = dy · (σ(input) - target)."""
    input, target = _floats_like(input, target)
    _validate.probabilities("target", target)
    slope = activations.sigmoid(input) - target
    return _spread(dy, input.shape, input.dtype, reduction) * slope


# ---- several classes -------------------------------------------------------------------------


def nll_loss(
    input: Float[np.ndarray, "n classes *rest"],
    target: Integer[np.ndarray, "n *rest"],
    reduction: str = "mean",
) -> Loss:
    """Return the negative log-likelihood -input[i, target[i]].

    input: log-probabilities (n, classes, …); target: integer labels (n, …).
    """
    input, target = _with_labels(input, target)
    return _reduce(-_pick(input, target), reduction)


def nll_loss_backward(
    dy: Upstream,
    input: Float[np.ndarray, "n classes *rest"],
    target: Integer[np.ndarray, "n *rest"],
    reduction: str = "mean",
) -> Float[np.ndarray, "n classes *rest"]:
    """Return dinput: -dy at the labelled class of each sample, 0 elsewhere."""
    input, target = _with_labels(input, target)
    dinput = np.zeros(input.shape, input.dtype)
    dloss = _spread(dy, target.shape, input.dtype, reduction)
    np.put_along_axis(dinput, target[:, None], -dloss[:, None], axis=1)
    return dinput


def cross_entropy(
    input: Float[np.ndarray, "n classes *rest"],
    target: Integer[np.ndarray, "n *rest"] | Float[np.ndarray, "n classes *rest"],
    reduction: str = "mean",
) -> Loss:
    """Return -log softmax(input) at the target, or its mean under target probabilities.

    input: logits (n, classes, …). target: integer labels (n, …), or probabilities of the
    shape of input. The mean is over samples, not over classes.
    """
    input, target = _with_labels_or_probabilities(input, target)
    if target.ndim < input.ndim:
        largest, log_sum = activations.log_sum_exp(input, dim=1)
        return _reduce(log_sum[:, 0] - (_pick(input, target) - largest[:, 0]), reduction)
    log_p = activations.log_softmax(input, dim=1)
    return _reduce(-(target * log_p).sum(axis=1), reduction)


def cross_entropy_backward(
    dy: Upstream,
    input: Float[np.ndarray, "n classes *rest"],
    target: Integer[np.ndarray, "n *rest"] | Float[np.ndarray, "n classes *rest"],
    reduction: str = "mean",
) -> Float[np.ndarray, "n classes *rest"]:
    """Return dinput = dy · (softmax(input) - target), labels counting as one-hot rows.

    Probabilities that sum to s instead of 1 give dy · (s · softmax(input) - target).
    """
    input, target = _with_labels_or_probabilities(input, target)
    samples = (input.shape[0], *input.shape[2:])
    dloss = _spread(dy, samples, input.dtype, reduction)[:, None]
    dinput = activations.softmax(input, dim=1)
    if target.ndim < input.ndim:
        dinput *= dloss
        label = target[:, None]
        at_label = np.take_along_axis(dinput, label, axis=1) - dloss
        np.put_along_axis(dinput, label, at_label, axis=1)
    else:
        dinput *= dloss * target.sum(axis=1, keepdims=True)
        dinput -= dloss * target
    return dinput


def kl_div(
    input: Float[Array, "*shape"], target: Float[Array, "*shape"], reduction: str = "mean"
) -> Loss:
    """Return t (log t - input) with input = log q, t = target: summed over classes, KL(t ‖ q).

    0 log 0 counts as 0. reduction="mean" divides by all entries, as in torch; "batchmean"
    divides by the first axis, which is the divergence of the definition.
    """
    input, target = _floats_like(input, target)
    _validate.probabilities("target", target)
    log_target = np.log(np.where(target > 0, target, target.dtype.type(1)))
    return _reduce(target * (log_target - input), reduction, batchmean=True)


def kl_div_backward(
    dy: Upstream,
    input: Float[Array, "*shape"],
    target: Float[Array, "*shape"],
    reduction: str = "mean",
) -> Float[Array, "*shape"]:
    """Return dinput = -dy · target."""
    input, target = _floats_like(input, target)
    _validate.probabilities("target", target)
    return -_spread(dy, input.shape, input.dtype, reduction, batchmean=True) * target


# ---- on the margin: m = y f(x) with labels y = ±1, positive when the sign is right ------------


def zero_one_loss(margin: Float[Array, "*shape"], reduction: str = "mean") -> Loss:
    """Return 1 where margin ≤ 0 (wrong or undecided) and 0 elsewhere: the error rate."""
    margin = _validate.floats("margin", margin)
    return _reduce((margin <= 0).astype(margin.dtype), reduction)


def zero_one_loss_backward(
    dy: Upstream, margin: Float[Array, "*shape"], reduction: str = "mean"
) -> Float[Array, "*shape"]:
    """Return zeros: the 0-1 loss is flat wherever it has a derivative, so it cannot teach."""
    margin = _validate.floats("margin", margin)
    return _spread(dy, margin.shape, margin.dtype, reduction) * np.zeros_like(margin)


def perceptron_loss(margin: Float[Array, "*shape"], reduction: str = "mean") -> Loss:
    """Return max(0, -margin) (the criterion that Rosenblatt's 1958 rule descends)."""
    return _reduce(np.maximum(-_validate.floats("margin", margin), 0), reduction)


def perceptron_loss_backward(
    dy: Upstream, margin: Float[Array, "*shape"], reduction: str = "mean"
) -> Float[Array, "*shape"]:
    """Return dmargin = -dy where margin < 0 and 0 elsewhere."""
    margin = _validate.floats("margin", margin)
    return -_spread(dy, margin.shape, margin.dtype, reduction) * (margin < 0)


def hinge_loss(margin: Float[Array, "*shape"], reduction: str = "mean") -> Loss:
    """Return max(0, 1 - margin), the loss of support vector machines (Cortes and Vapnik, 1995)."""
    return _reduce(np.maximum(1 - _validate.floats("margin", margin), 0), reduction)


def hinge_loss_backward(
    dy: Upstream, margin: Float[Array, "*shape"], reduction: str = "mean"
) -> Float[Array, "*shape"]:
    """Return dmargin = -dy where margin < 1 and 0 elsewhere."""
    margin = _validate.floats("margin", margin)
    return -_spread(dy, margin.shape, margin.dtype, reduction) * (margin < 1)


def logistic_loss(margin: Float[Array, "*shape"], reduction: str = "mean") -> Loss:
    """Return log(1 + e^-margin), the log loss in nats, without overflow."""
    margin = _validate.floats("margin", margin)
    loss = np.maximum(-margin, 0) + np.log1p(np.exp(-np.abs(margin)))
    return _reduce(loss, reduction)


def logistic_loss_backward(
    dy: Upstream, margin: Float[Array, "*shape"], reduction: str = "mean"
) -> Float[Array, "*shape"]:
    """Return dmargin = -dy · σ(-margin)."""
    margin = _validate.floats("margin", margin)
    slope = activations.sigmoid(-margin)
    return -_spread(dy, margin.shape, margin.dtype, reduction) * slope


# ---- shared pieces ---------------------------------------------------------------------------


def _reduce(loss, reduction, *, batchmean=False):
    """Return the loss itself, its sum, or its mean."""
    _check_reduction(reduction, batchmean)
    if reduction == "none":
        return loss
    count = _count(loss.shape, reduction)
    # 0 / 0, the mean over an empty batch, is NaN without a warning, as in torch.
    return loss.sum() / loss.dtype.type(count) if count else loss.dtype.type(np.nan)


def _spread(dy, shape, dtype, reduction, *, batchmean=False):
    """Return the gradient with respect to each sample's loss: an array of `shape`."""
    _check_reduction(reduction, batchmean)
    if isinstance(dy, np.ndarray | np.floating):
        dy = _validate.floats("dy", dy)
        if dy.dtype != dtype:
            raise TypeError(f"dy and input must have the same dtype, got {dy.dtype} and {dtype}")
    else:
        dy = np.asarray(_validate.number("dy", dy), dtype)
    if reduction == "none":
        return _validate.has_shape("dy", dy, shape, 'the shape of the loss with reduction="none"')
    _validate.has_shape("dy", dy, (), f"a number, since reduction={reduction!r}")
    # max: with an empty batch there is no entry to divide for.
    return np.full(shape, dy / dtype.type(max(1, _count(shape, reduction))), dtype)


def _count(shape, reduction):
    """Return the number by which the reduction divides."""
    if reduction == "mean":
        return int(np.prod(shape))
    return shape[0] if reduction == "batchmean" and shape else 1


def _check_reduction(reduction, batchmean):
    allowed = ["mean", "sum", "none"] + (["batchmean"] if batchmean else [])
    _validate.one_of("reduction", reduction, allowed)


def _floats_like(input, target):
    input, target = _validate.floats("input", input), _validate.floats("target", target)
    _validate.same_dtype(input=input, target=target)
    _validate.same_shape(input=input, target=target)
    return input, target


def _with_labels(input, target):
    input = _validate.floats("input", input, min_ndim=2)
    samples = (input.shape[0], *input.shape[2:])
    return input, _validate.labels("target", target, classes=input.shape[1], shape=samples)


def _with_labels_or_probabilities(input, target):
    if not (isinstance(target, np.ndarray) and np.issubdtype(target.dtype, np.floating)):
        return _with_labels(input, target)
    input = _validate.floats("input", input, min_ndim=2)
    if target.ndim == input.ndim - 1:
        raise TypeError(
            f"target of shape {target.shape} must hold integer labels, got {target.dtype}; "
            f"target probabilities must have input's shape {input.shape}"
        )
    input, target = _floats_like(input, target)
    return input, _validate.probabilities("target", target)


def _pick(values, target):
    """Return values[i, target[i]] for each sample."""
    return np.take_along_axis(values, target[:, None], axis=1)[:, 0]
