"""Losses of style transfer (Gatys et al., 2016) and the sampling step of autoencoders.

Features have shape (n, c, h, w). TypeError for arrays that are not float32 or float64 or differ
in dtype, ValueError for shapes that do not fit.

Cost: a few operations for each entry; the Gram matrix, and what is made of it, 2 · n · c² · h · w,
and as many again backward.
"""

import numpy as np
from jaxtyping import Float

from dlnotes import _validate
from dlnotes._validate import Number

Images = Float[np.ndarray, "n c h w"]
Grams = Float[np.ndarray, "n c c"]
Loss = np.floating
Upstream = Float[np.ndarray, ""] | np.floating | Number
Values = Float[np.ndarray, "*shape"]


def gram_matrix(x: Images) -> Grams:
    """Return G = F Fᵀ / (c h w) of each sample, F (c, h w) being its channels: their agreement."""
    features = _features(x)
    return features @ features.swapaxes(1, 2) / x.dtype.type(_count(x))


def gram_matrix_backward(dy: Grams, x: Images) -> Images:
    """Return dx = (dy + dyᵀ) F / (c h w)."""
    features = _features(x)
    dy = _validate.floats("dy", dy)
    _validate.same_dtype(dy=dy, x=x)
    n, c = x.shape[:2]
    _validate.has_shape("dy", dy, (n, c, c), "the shape of the output")
    both = (dy + dy.swapaxes(1, 2)) / x.dtype.type(_count(x))
    return (both @ features).reshape(x.shape)


def total_variation(x: Images) -> Loss:
    """Return the sum of |differences| between neighbours below and beside each other.

    The anisotropic form of Rudin, Osher and Fatemi's (1992) measure of noise.
    """
    x = _validate.floats("x", x, ndim=4)
    return np.abs(np.diff(x, axis=2)).sum() + np.abs(np.diff(x, axis=3)).sum()


def total_variation_backward(dy: Upstream, x: Images) -> Images:
    """Return dx: ±dy for each neighbour that is smaller or larger, 0 for one that is equal."""
    x = _validate.floats("x", x, ndim=4)
    dy = _scalar(dy, x.dtype)
    dx = np.zeros_like(x)
    for axis in (2, 3):
        slope = dy * np.sign(np.diff(x, axis=axis))
        view, slope = np.moveaxis(dx, axis, 0), np.moveaxis(slope, axis, 0)
        view[1:] += slope
        view[:-1] -= slope
    return dx


def content_loss(x: Images, target: Images) -> Loss:
    """Return the mean of (x - target)², x and target being features of two images."""
    return _mean_square(_difference(x, target))


def content_loss_backward(dy: Upstream, x: Images, target: Images) -> Images:
    """Return dx = 2 dy (x - target) / entries."""
    difference = _difference(x, target)
    return _scalar(dy, x.dtype) * difference * x.dtype.type(2 / max(1, difference.size))


def style_loss(x: Images, target: Grams) -> Loss:
    """Return the mean of (gram_matrix(x) - target)², target being a Gram matrix."""
    return _mean_square(_difference(gram_matrix(x), target))


def style_loss_backward(dy: Upstream, x: Images, target: Grams) -> Images:
    """Return dx, through the Gram matrix."""
    difference = _difference(gram_matrix(x), target)
    slope = _scalar(dy, x.dtype) * difference * x.dtype.type(2 / max(1, difference.size))
    return gram_matrix_backward(slope, x)


def reparameterize(mean: Values, log_var: Values, noise: Values) -> Values:
    """Return μ + σ ε with σ = e^(log_var / 2): a sample through which gradients flow.

    noise ε comes from a standard normal distribution (Kingma and Welling, 2014).
    """
    _check_same(mean=mean, log_var=log_var, noise=noise)
    with np.errstate(over="ignore", invalid="ignore"):  # σ may be ∞, as in torch
        return mean + np.exp(log_var / 2) * noise


def reparameterize_backward(
    dy: Values, mean: Values, log_var: Values, noise: Values
) -> tuple[Values, Values, Values]:
    """Return (dmean, dlog_var, dnoise) = dy · (1, σ ε / 2, σ)."""
    _check_same(dy=dy, mean=mean, log_var=log_var, noise=noise)
    with np.errstate(over="ignore", invalid="ignore"):
        dnoise = dy * np.exp(log_var / 2)
        return dy.copy(), dnoise * noise / 2, dnoise


def _features(x):
    x = _validate.floats("x", x, ndim=4)
    return x.reshape(*x.shape[:2], x.shape[2] * x.shape[3])


def _count(x):
    return max(1, x.shape[1] * x.shape[2] * x.shape[3])


def _check_same(**arrays):
    for name, array in arrays.items():
        _validate.floats(name, array)
    _validate.same_dtype(**arrays)
    _validate.same_shape(**arrays)


def _difference(x, target):
    _check_same(x=x, target=target)
    return x - target


def _mean_square(difference):
    return (difference * difference).sum() / difference.dtype.type(max(1, difference.size))


def _scalar(dy, dtype):
    if isinstance(dy, np.ndarray | np.floating):
        dy = _validate.has_shape("dy", _validate.floats("dy", dy), (), "the loss is a number")
        if dy.dtype != dtype:
            raise TypeError(f"dy and x must have the same dtype, got {dy.dtype} and {dtype}")
        return dtype.type(dy)
    return dtype.type(_validate.number("dy", dy))
