"""Losses: names, arguments and values as in torch.nn.functional, and the losses on a margin.

Each takes reduction="mean" (default), "sum" or "none"; `*_backward(dy, …)` takes the gradient dy
with respect to the loss (a number for "mean" and "sum", an array of the loss's shape for "none")
and returns the gradient with respect to `input`. As in torch, the mean over an empty batch is NaN.
In most, `reduction` is the third argument, where torch has a weight or deprecated ones, and weights
are for keywords only; dlnotes.nn.functional has torch's order.

In each: TypeError for arrays that are not float32 or float64 or differ in dtype; ValueError for
shapes that do not fit (nothing is broadcast), labels or probabilities out of range or NaN, and an
unknown reduction.

Cost: a few operations for each entry of `input`. Logarithms are natural, so that cross-entropies
and divergences are in nats.
"""

import math

import numpy as np
from jaxtyping import Float, Integer

from dlnotes import _validate
from dlnotes._validate import Number
from dlnotes.kernels import activations
from dlnotes.kernels.distance import _sum_to

Array = np.ndarray | np.floating
Loss = np.ndarray | np.floating  # a number for "mean" and "sum", an array for "none"
Upstream = np.ndarray | Number

# ---- regression ------------------------------------------------------------------------------


def mse_loss(
    input: Float[Array, "*shape"], target: Float[Array, "*shape"], reduction: str = "mean"
) -> Loss:
    """Return the squared error (input - target)² (least squares: Legendre, 1805)."""
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


def smooth_l1_loss(
    input: Float[Array, "*shape"],
    target: Float[Array, "*shape"],
    reduction: str = "mean",
    *,
    beta: Number = 1.0,
) -> Loss:
    """Return d²/(2 beta) where |d| < beta and |d| - beta/2 elsewhere, d = input - target.

    beta=0 is the absolute error (Girshick, 2015, with beta = 1).
    """
    input, target = _floats_like(input, target)
    beta = _validate.number("beta", beta, low=0)
    if beta == 0:
        return l1_loss(input, target, reduction)
    return _reduce(_huber(input - target, beta) / beta, reduction)


def smooth_l1_loss_backward(
    dy: Upstream,
    input: Float[Array, "*shape"],
    target: Float[Array, "*shape"],
    reduction: str = "mean",
    *,
    beta: Number = 1.0,
) -> Float[Array, "*shape"]:
    """Return dinput = dy · (d / beta cut off at ±1)."""
    input, target = _floats_like(input, target)
    beta = _validate.number("beta", beta, low=0)
    if beta == 0:
        return l1_loss_backward(dy, input, target, reduction)
    slope = np.clip(input - target, -beta, beta) / beta
    return _spread(dy, input.shape, input.dtype, reduction) * slope


def huber_loss(
    input: Float[Array, "*shape"],
    target: Float[Array, "*shape"],
    reduction: str = "mean",
    *,
    delta: Number = 1.0,
) -> Loss:
    """Return d²/2 where |d| < delta and delta (|d| - delta/2) elsewhere (Huber, 1964)."""
    input, target = _floats_like(input, target)
    return _reduce(_huber(input - target, _above_zero("delta", delta)), reduction)


def huber_loss_backward(
    dy: Upstream,
    input: Float[Array, "*shape"],
    target: Float[Array, "*shape"],
    reduction: str = "mean",
    *,
    delta: Number = 1.0,
) -> Float[Array, "*shape"]:
    """Return dinput = dy · (input - target cut off at ±delta)."""
    input, target = _floats_like(input, target)
    delta = _above_zero("delta", delta)
    slope = np.clip(input - target, -delta, delta)
    return _spread(dy, input.shape, input.dtype, reduction) * slope


# ---- two classes -----------------------------------------------------------------------------


def binary_cross_entropy(
    input: Float[Array, "*shape"],
    target: Float[Array, "*shape"],
    reduction: str = "mean",
    *,
    weight: Float[Array, "..."] | None = None,
) -> Loss:
    """Return -(t log p + (1 - t) log(1 - p)) for probabilities p = input and targets t in [0, 1].

    Logarithms are cut off at -100, as in torch, so that p = 0 or 1 gives a finite loss. `weight`,
    which broadcasts to the shape, multiplies the entries; the mean is over them all the same.
    (Goodfellow, Bengio and Courville, 2016, section 6.2.2.)
    """
    input, target = _floats_like(input, target)
    weight = _entry_weight("weight", weight, input)
    _validate.probabilities("input", input)
    _validate.probabilities("target", target)
    with np.errstate(divide="ignore"):  # log 0 = -∞ is cut off
        log_p = np.maximum(np.log(input), -100)
        log_not_p = np.maximum(np.log1p(-input), -100)
    loss = -(target * log_p + (1 - target) * log_not_p)
    return _reduce(loss if weight is None else loss * weight, reduction)


def binary_cross_entropy_backward(
    dy: Upstream,
    input: Float[Array, "*shape"],
    target: Float[Array, "*shape"],
    reduction: str = "mean",
    *,
    weight: Float[Array, "..."] | None = None,
) -> Float[Array, "*shape"]:
    """Return dinput = dy · (p - t) / (p (1 - p)), the denominator at least 1e-12, as in torch."""
    input, target = _floats_like(input, target)
    weight = _entry_weight("weight", weight, input)
    _validate.probabilities("input", input)
    _validate.probabilities("target", target)
    slope = (input - target) / np.maximum(input * (1 - input), 1e-12)
    slope = slope if weight is None else slope * weight
    return _spread(dy, input.shape, input.dtype, reduction) * slope


def binary_cross_entropy_with_logits(
    input: Float[Array, "*shape"],
    target: Float[Array, "*shape"],
    reduction: str = "mean",
    *,
    weight: Float[Array, "..."] | None = None,
    pos_weight: Float[Array, "..."] | None = None,
) -> Loss:
    """Return the binary cross-entropy of σ(input), computed from the logits without overflow.

    log(1 + eˣ) - t x = max(x, 0) - t x + log(1 + e^-|x|), with targets t in [0, 1]. `weight`
    multiplies the entries, `pos_weight` only their part -t log σ(x); both broadcast to the shape,
    and the mean is over all entries all the same.
    """
    input, target = _floats_like(input, target)
    weight = _entry_weight("weight", weight, input)
    pos_weight = _entry_weight("pos_weight", pos_weight, input)
    _validate.probabilities("target", target)
    loss = np.maximum(input, 0) - target * input + np.log1p(np.exp(-np.abs(input)))
    if pos_weight is not None:
        loss = loss + (pos_weight - 1) * target * logistic_loss(input, "none")
    return _reduce(loss if weight is None else loss * weight, reduction)


def binary_cross_entropy_with_logits_backward(
    dy: Upstream,
    input: Float[Array, "*shape"],
    target: Float[Array, "*shape"],
    reduction: str = "mean",
    *,
    weight: Float[Array, "..."] | None = None,
    pos_weight: Float[Array, "..."] | None = None,
) -> Float[Array, "*shape"]:
    """Return dinput = dy · weight · (σ(x) - t - (pos_weight - 1) t σ(-x)), x = input."""
    input, target = _floats_like(input, target)
    weight = _entry_weight("weight", weight, input)
    pos_weight = _entry_weight("pos_weight", pos_weight, input)
    _validate.probabilities("target", target)
    slope = activations.sigmoid(input) - target
    if pos_weight is not None:
        slope = slope - (pos_weight - 1) * target * activations.sigmoid(-input)
    slope = slope if weight is None else slope * weight
    return _spread(dy, input.shape, input.dtype, reduction) * slope


# ---- several classes -------------------------------------------------------------------------


def nll_loss(
    input: Float[np.ndarray, " n classes *rest"],
    target: Integer[np.ndarray, " n *rest"],
    reduction: str = "mean",
    *,
    weight: Float[np.ndarray, " classes"] | None = None,
    ignore_index: int = -100,
) -> Loss:
    """Return the negative log-likelihood -input[i, target[i]].

    input: log-probabilities (n, classes, …); target: integer labels (n, …). `weight` multiplies
    the loss of each class's samples, and samples labelled `ignore_index` count nothing; the mean
    divides by the sum of the weights that were used.
    (Maximum likelihood: Goodfellow, Bengio and Courville, 2016, section 5.5.)
    """
    input, target, scale, ignored = _with_labels(input, target, weight, ignore_index)
    return _reduce_scaled(-_pick(input, target), scale, ignored, reduction)


def nll_loss_backward(
    dy: Upstream,
    input: Float[np.ndarray, " n classes *rest"],
    target: Integer[np.ndarray, " n *rest"],
    reduction: str = "mean",
    *,
    weight: Float[np.ndarray, " classes"] | None = None,
    ignore_index: int = -100,
) -> Float[np.ndarray, " n classes *rest"]:
    """Return dinput: -dy · weight at the labelled class of each sample, 0 elsewhere."""
    input, target, scale, ignored = _with_labels(input, target, weight, ignore_index)
    dinput = np.zeros(input.shape, input.dtype)
    dloss = _spread_scaled(dy, target.shape, input.dtype, scale, ignored, reduction)
    np.put_along_axis(dinput, target[:, None], -dloss[:, None], axis=1)
    return dinput


def cross_entropy(
    input: Float[np.ndarray, " n classes *rest"],
    target: Integer[np.ndarray, " n *rest"] | Float[np.ndarray, " n classes *rest"],
    reduction: str = "mean",
    *,
    weight: Float[np.ndarray, " classes"] | None = None,
    ignore_index: int = -100,
    label_smoothing: Number = 0.0,
    return_residuals: bool = False,
) -> Loss | tuple[Loss, tuple | None]:
    """Return -log softmax(input) at the target, or its mean under target probabilities.

    input: logits (n, classes, …). target: integer labels (n, …), or probabilities of the
    shape of input. The mean is over samples, not over classes.

    `label_smoothing` ε mixes the target with equal probabilities: (1 - ε) target + ε / classes
    (Szegedy et al., 2016). `weight` multiplies each class's part of the sum. With labels, those
    that are `ignore_index` count nothing, and the mean divides by the sum of the labels' weights;
    with probabilities it divides by the number of samples, weights or not.

    return_residuals=True returns (loss, the exponentials of the softmax and their sums), which save
    `cross_entropy_backward` computing them again; (loss, None) with probabilities or smoothing.
    """
    smoothing = _validate.number("label_smoothing", label_smoothing, low=0, high=1)
    if _holds_probabilities(target) or smoothing:
        input, counts, divisor, ignored = _class_targets(
            input, target, weight, ignore_index, smoothing
        )
        log_p = activations.log_softmax(input, dim=1)
        loss = -np.einsum("nc...,nc...->n...", counts, log_p)  # no array of products
        loss = _reduce(_without(ignored, loss), reduction, divisor=divisor)
        return (loss, None) if return_residuals else loss
    input, target, scale, ignored = _with_labels(input, target, weight, ignore_index)
    e = np.empty(input.shape, input.dtype) if return_residuals else None
    largest, total = activations.sum_exponentials(input, dim=1, out=e)
    loss = np.log(total[:, 0]) - (_pick(input, target) - largest[:, 0])
    loss = _reduce_scaled(loss, scale, ignored, reduction)
    return (loss, (e, total)) if return_residuals else loss


def cross_entropy_backward(
    dy: Upstream,
    input: Float[np.ndarray, " n classes *rest"],
    target: Integer[np.ndarray, " n *rest"] | Float[np.ndarray, " n classes *rest"],
    reduction: str = "mean",
    *,
    weight: Float[np.ndarray, " classes"] | None = None,
    ignore_index: int = -100,
    label_smoothing: Number = 0.0,
    residuals: tuple | None = None,
) -> Float[np.ndarray, " n classes *rest"]:
    """Return dinput = dy · (softmax(input) - target), labels counting as one-hot rows.

    Targets that sum to s instead of 1, by their weights say, give dy · (s · softmax(input) -
    target). `residuals` are those that `cross_entropy` returned, or None.
    """
    smoothing = _validate.number("label_smoothing", label_smoothing, low=0, high=1)
    if _holds_probabilities(target) or smoothing:
        input, counts, divisor, ignored = _class_targets(
            input, target, weight, ignore_index, smoothing
        )
        samples = (input.shape[0], *input.shape[2:])
        dloss = _spread(dy, samples, input.dtype, reduction, divisor=divisor)
        dloss = _without(ignored, dloss)[:, None]
        dinput = activations.softmax(input, dim=1)
        dinput *= dloss * counts.sum(axis=1, keepdims=True)
        dinput -= dloss * counts
        return dinput
    input, target, scale, ignored = _with_labels(input, target, weight, ignore_index)
    dloss = _spread_scaled(dy, target.shape, input.dtype, scale, ignored, reduction)[:, None]
    if residuals is None:
        e = np.empty(input.shape, input.dtype)
        residuals = e, activations.sum_exponentials(input, dim=1, out=e)[1]
    e, total = residuals
    dinput = e * (dloss / total)  # dloss · softmax
    label = target[:, None]
    at_label = np.take_along_axis(dinput, label, axis=1) - dloss
    np.put_along_axis(dinput, label, at_label, axis=1)
    return dinput


def multi_margin_loss(
    input: Float[np.ndarray, "n classes"],
    target: Integer[np.ndarray, " n"],
    p: int = 1,
    margin: Number = 1.0,
    weight: Float[np.ndarray, " classes"] | None = None,
    reduction: str = "mean",
) -> Loss:
    """Return Σ over wrong classes j of max(0, margin - x_label + x_j)^p / classes.

    The hinge loss of several classes (Weston and Watkins, 1999); p is 1 or 2. `weight` multiplies
    the loss by the weight of the label's class; the mean is over samples all the same.
    """
    input, target, excess, scale = _margins(input, target, p, margin, weight)
    loss = (excess**p).sum(axis=1) / input.dtype.type(input.shape[1])
    return _reduce(loss if scale is None else loss * scale, reduction)


def multi_margin_loss_backward(
    dy: Upstream,
    input: Float[np.ndarray, "n classes"],
    target: Integer[np.ndarray, " n"],
    p: int = 1,
    margin: Number = 1.0,
    weight: Float[np.ndarray, " classes"] | None = None,
    reduction: str = "mean",
) -> Float[np.ndarray, "n classes"]:
    """Return dinput: p · max(0, …)^(p - 1) / classes, and at the label minus the sum of them."""
    input, target, excess, scale = _margins(input, target, p, margin, weight)
    dloss = _spread(dy, target.shape, input.dtype, reduction)
    dloss = (dloss if scale is None else dloss * scale) / input.dtype.type(input.shape[1])
    dinput = dloss[:, None] * ((excess > 0) if p == 1 else 2 * excess)
    np.put_along_axis(dinput, target[:, None], -dinput.sum(axis=1, keepdims=True), axis=1)
    return dinput


# ---- divergences -----------------------------------------------------------------------------


def kl_div(
    input: Float[Array, "*shape"],
    target: Float[Array, "*shape"],
    reduction: str = "mean",
    *,
    log_target: bool = False,
) -> Loss:
    """Return t (log t - input) with input = log q, t = target: summed over classes, KL(t ‖ q).

    0 log 0 counts as 0. With log_target, target holds log t. reduction="mean" divides by all
    entries, as in torch; "batchmean" divides by the first axis, which is the divergence of the
    definition (Kullback and Leibler, 1951).
    """
    input, target = _floats_like(input, target)
    if log_target:
        # Where t is 0 its logarithm is -∞: 0 · (-∞) counts as 0 here, too.
        difference = np.where(target > -np.inf, target, input) - input
        return _reduce(np.exp(target) * difference, reduction, batchmean=True)
    _validate.probabilities("target", target)
    log_target = np.log(np.where(target > 0, target, target.dtype.type(1)))
    return _reduce(target * (log_target - input), reduction, batchmean=True)


def kl_div_backward(
    dy: Upstream,
    input: Float[Array, "*shape"],
    target: Float[Array, "*shape"],
    reduction: str = "mean",
    *,
    log_target: bool = False,
) -> Float[Array, "*shape"]:
    """Return dinput = -dy · t."""
    input, target = _floats_like(input, target)
    t = np.exp(target) if log_target else _validate.probabilities("target", target)
    return -_spread(dy, input.shape, input.dtype, reduction, batchmean=True) * t


def gaussian_kl(
    mean: Float[Array, "*shape"], log_variance: Float[Array, "*shape"], reduction: str = "mean"
) -> Loss:
    """Return KL(N(μ, σ²) ‖ N(0, 1)) = (μ² + σ² - 1 - log σ²) / 2 of each entry.

    The term that keeps a variational autoencoder's code near its prior (Kingma and Welling, 2014);
    reduction="batchmean" sums over the code and divides by the first axis, as their bound does.
    """
    mean, log_variance = _means_and_variances(mean, log_variance)
    with np.errstate(over="ignore"):  # σ² may be ∞, as in torch
        # expm1(x) - x = σ² - 1 - log σ² keeps its digits near σ = 1.
        kl = (mean * mean + (np.expm1(log_variance) - log_variance)) / 2
    return _reduce(kl, reduction, batchmean=True)


def gaussian_kl_backward(
    dy: Upstream,
    mean: Float[Array, "*shape"],
    log_variance: Float[Array, "*shape"],
    reduction: str = "mean",
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Return (dmean, dlog_variance) = dy · (μ, (σ² - 1) / 2)."""
    mean, log_variance = _means_and_variances(mean, log_variance)
    dloss = _spread(dy, mean.shape, mean.dtype, reduction, batchmean=True)
    with np.errstate(over="ignore"):
        return dloss * mean, dloss * (np.expm1(log_variance) / 2)


def gaussian_nll_loss(
    input: Float[Array, "*shape"],
    target: Float[Array, "*shape"],
    var: Float[Array, "..."],
    full: bool = False,
    eps: Number = 1e-6,
    reduction: str = "mean",
) -> Loss:
    """Return -log N(target; input, var) = (log var + (input - target)² / var) / 2 of each entry.

    The likelihood of a network that gives a mean and a variance (Nix and Weigend, 1994). var is at
    least 0, counts as eps at least, and broadcasts to the input: (n, 1) or (n,), of the
    input's first axes, is one for each sample.
    full=True adds the constant log(2π) / 2, without which it is no likelihood.
    """
    input, target, var = _gaussian(input, target, var, eps)
    loss = (np.log(var) + (input - target) ** 2 / var) / 2
    return _reduce(loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction)


def gaussian_nll_loss_backward(
    dy: Upstream,
    input: Float[Array, "*shape"],
    target: Float[Array, "*shape"],
    var: Float[Array, "..."],
    full: bool = False,
    eps: Number = 1e-6,
    reduction: str = "mean",
) -> tuple[Float[Array, "*shape"], Float[Array, "..."]]:
    """Return (dinput, dvar), dvar = dy · (1 - (input - target)² / var) / (2 var).

    As in torch, what is cut off at eps gets the gradient at eps.
    """
    shape, wide = np.shape(var), _with_last_axis(np.shape(var), np.shape(input))
    input, target, var = _gaussian(input, target, var, eps)
    dloss, error = _spread(dy, input.shape, input.dtype, reduction), input - target
    dvar = dloss * (1 - error * error / var) / (2 * var)
    return dloss * error / var, _sum_to(dvar, wide).reshape(shape)


def _with_last_axis(shape, full):
    """Return a variance's shape, with an axis of length 1 where it lacks the last one of `full`."""
    return (*shape, 1) if shape == full[:-1] != full else shape


def _gaussian(input, target, var, eps):
    input, target = _floats_like(input, target)
    var = _validate.floats("var", var)
    _validate.same_dtype(input=input, var=var)
    try:
        var = np.broadcast_to(var.reshape(_with_last_axis(var.shape, input.shape)), input.shape)
    except ValueError:
        raise ValueError(
            f"var must broadcast to the shape {input.shape} of input, got {var.shape}"
        ) from None
    eps = _validate.number("eps", eps)
    if eps <= 0:
        raise ValueError(f"eps must be above 0, got {eps}")
    if (var < 0).any():
        raise ValueError(f"var must be at least 0, got {var.min()}")
    return input, target, np.maximum(var, var.dtype.type(eps))


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
    _spread(dy, margin.shape, margin.dtype, reduction)  # checks
    return np.zeros_like(margin)[()]


def perceptron_loss(margin: Float[Array, "*shape"], reduction: str = "mean") -> Loss:
    """Return max(0, -margin) (the criterion that Rosenblatt's 1958 rule descends)."""
    return _reduce(np.maximum(-_validate.floats("margin", margin), 0), reduction)


def perceptron_loss_backward(
    dy: Upstream, margin: Float[Array, "*shape"], reduction: str = "mean"
) -> Float[Array, "*shape"]:
    """Return dmargin = -dy where margin < 0 and 0 elsewhere."""
    margin = _validate.floats("margin", margin)
    dloss = _spread(dy, margin.shape, margin.dtype, reduction)
    return np.where(margin < 0, -dloss, margin.dtype.type(0))[()]


def hinge_loss(margin: Float[Array, "*shape"], reduction: str = "mean") -> Loss:
    """Return max(0, 1 - margin), the loss of support vector machines (Cortes and Vapnik, 1995)."""
    return _reduce(np.maximum(1 - _validate.floats("margin", margin), 0), reduction)


def hinge_loss_backward(
    dy: Upstream, margin: Float[Array, "*shape"], reduction: str = "mean"
) -> Float[Array, "*shape"]:
    """Return dmargin = -dy where margin < 1 and 0 elsewhere."""
    margin = _validate.floats("margin", margin)
    dloss = _spread(dy, margin.shape, margin.dtype, reduction)
    return np.where(margin < 1, -dloss, margin.dtype.type(0))[()]


def logistic_loss(margin: Float[Array, "*shape"], reduction: str = "mean") -> Loss:
    """Return log(1 + e^-margin), the log loss in nats, without overflow (Cox, 1958)."""
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


def _reduce(loss, reduction, *, batchmean=False, divisor=None):
    """Return the loss itself, its sum, or its mean (the sum by `divisor` where there is one)."""
    _check_reduction(reduction, batchmean)
    if reduction == "none":
        return loss
    count = _divisor(loss.shape, reduction, divisor)
    # 0 / 0, the mean over an empty batch, is NaN without a warning, as in torch.
    return loss.sum() / loss.dtype.type(count) if count else loss.dtype.type(np.nan)


def _spread(dy, shape, dtype, reduction, *, batchmean=False, divisor=None):
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
    # 1: with an empty batch there is no entry to divide for.
    share = dy / dtype.type(_divisor(shape, reduction, divisor) or 1)
    return np.broadcast_to(share, shape)


def _reduce_scaled(loss, scale, ignored, reduction):
    """Reduce losses that count by `scale` each (None: all alike)."""
    if scale is None:
        return _reduce(loss, reduction)
    return _reduce(_without(ignored, loss) * scale, reduction, divisor=scale.sum())


def _spread_scaled(dy, shape, dtype, scale, ignored, reduction):
    """Return the gradient with respect to each sample's loss before it was scaled."""
    if scale is None:
        return _spread(dy, shape, dtype, reduction)
    dloss = _spread(dy, shape, dtype, reduction, divisor=scale.sum())
    return _without(ignored, dloss) * scale


def _without(ignored, values):
    """Return the samples' values with 0 for the ignored: a product with 0 would keep NaN and ∞."""
    return values if ignored is None else np.where(ignored, values.dtype.type(0), values)


def _divisor(shape, reduction, given):
    return given if given is not None and reduction == "mean" else _count(shape, reduction)


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


def _entry_weight(name, weight, input):
    """Return a weight of the entries, checked, or None."""
    if weight is None:
        return None
    weight = _validate.floats(name, weight)
    _validate.same_dtype(**{"input": input, name: weight})
    try:
        fits = np.broadcast_shapes(weight.shape, input.shape) == input.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{name} must broadcast to {input.shape}, got shape {weight.shape}")
    return weight


def _with_labels(input, target, weight=None, ignore_index=-100):
    """Return input, labels (0 where ignored), what each sample counts, and which are ignored.

    The last two are None where all samples count alike and none is ignored.
    """
    input = _validate.floats("input", input, min_ndim=2)
    weight = _class_weight(weight, input)
    ignore_index = _validate.integer("ignore_index", ignore_index)
    samples, ignored = (input.shape[0], *input.shape[2:]), None
    if isinstance(target, np.ndarray) and np.issubdtype(target.dtype, np.integer):
        ignored = target == ignore_index
        if ignored.any():
            target = np.where(ignored, 0, target)
        else:
            ignored = None
    target = _validate.labels("target", target, classes=input.shape[1], shape=samples)
    scale = None if weight is None else weight[target]
    if ignored is not None:
        scale = np.ones(samples, input.dtype) if scale is None else scale
        scale = _without(ignored, scale)
    return input, target, scale, ignored


def _holds_probabilities(target):
    return isinstance(target, np.ndarray) and np.issubdtype(target.dtype, np.floating)


def _class_targets(input, target, weight, ignore_index, smoothing):
    """Return input, what each class of each sample counts, the mean's divisor, and the ignored.

    The last two may be None, as in `_with_labels`.
    """
    ignore_index, divisor = _validate.integer("ignore_index", ignore_index), None
    ignored = None
    if _holds_probabilities(target):
        if ignore_index >= 0:
            raise ValueError(
                f"ignore_index={ignore_index} is for integer labels, but target holds probabilities"
            )
        input, counts = _with_probabilities(input, target)
        if smoothing:
            counts = (1 - smoothing) * counts + smoothing / max(1, input.shape[1])
    else:
        input, labels, scale, ignored = _with_labels(input, target, weight, ignore_index)
        divisor = None if scale is None else scale.sum()
        others = smoothing / max(1, input.shape[1])
        counts = np.full(input.shape, others, input.dtype)
        np.put_along_axis(counts, labels[:, None], 1 - smoothing + others, axis=1)
        if ignored is not None:
            counts *= ~ignored[:, None]
    if weight is not None:
        weight = _class_weight(weight, input)
        counts = counts * weight.reshape(-1, *[1] * (input.ndim - 2))
    return input, counts, divisor, ignored


def _with_probabilities(input, target):
    input = _validate.floats("input", input, min_ndim=2)
    if target.ndim == input.ndim - 1:
        raise TypeError(
            f"target of shape {target.shape} must hold integer labels, got {target.dtype}; "
            f"target probabilities must have input's shape {input.shape}"
        )
    input, target = _floats_like(input, target)
    return input, _validate.probabilities("target", target)


def _class_weight(weight, input):
    """Return the weights of the classes, checked, or None."""
    if weight is None:
        return None
    weight = _validate.floats("weight", weight)
    _validate.same_dtype(input=input, weight=weight)
    return _validate.has_shape("weight", weight, input.shape[1:2], "one for each class")


def _margins(input, target, p, margin, weight):
    """Return the checked arrays, max(0, margin - x_label + x_j) with 0 at the label, and scale."""
    input = _validate.floats("input", input, ndim=2)
    if _validate.integer("p", p) not in (1, 2):
        raise ValueError(f"p must be 1 or 2, got {p}")
    margin = _validate.number("margin", margin)
    # No label is ignored here: one of -1 is wrong.
    target = _validate.labels("target", target, classes=input.shape[1], shape=input.shape[:1])
    input, target, scale, _ = _with_labels(input, target, weight)
    excess = np.maximum(input - _pick(input, target)[:, None] + margin, 0)
    np.put_along_axis(excess, target[:, None], 0, axis=1)
    return input, target, excess, scale


def _huber(difference, delta):
    size = np.abs(difference)
    square = np.minimum(size, delta)  # the part of |d| below delta: no square of a large number
    return square * (size - square / 2)


def _above_zero(name, value):
    value = _validate.number(name, value, low=0)
    if value == 0:
        raise ValueError(f"{name} must be above 0, got 0")
    return value


def _means_and_variances(mean, log_variance):
    mean = _validate.floats("mean", mean)
    log_variance = _validate.floats("log_variance", log_variance)
    _validate.same_dtype(mean=mean, log_variance=log_variance)
    _validate.same_shape(mean=mean, log_variance=log_variance)
    return mean, log_variance


def _pick(values, target):
    """Return values[i, target[i]] for each sample."""
    return np.take_along_axis(values, target[:, None], axis=1)[:, 0]
