"""Activation functions: element by element (sigmoid … silu), in groups (maxout), over an axis.

The backward functions of sigmoid, tanh, softmax and log_softmax take the OUTPUT y, since their
derivative is cheapest in terms of it; all others take the INPUT x. All are exact or saturate
cleanly, without overflow, for inputs of any size that the dtype holds.

In each: TypeError for an array that is not float32 or float64, or for dy of another dtype;
ValueError for shapes that differ or a setting out of range. Cost: a few operations for each entry.
"""

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from dlnotes import _validate
from dlnotes._validate import Number

Array = np.ndarray | np.floating  # NumPy gives a scalar where the input has no axes
_BLOCK_ENTRIES = 2**17  # entries that are worked on together, in the second-level cache
_SMALL_BLOCK = 2**15  # the same, for formulas with many temporaries
# P(u) with Φ(x) = (1 + tanh(x P(x²))) / 2, by powers of u: a minimax fit for |x| ≤ 6.
_TANH_ARGUMENT = np.array(
    [
        7.978849414607393e-1,
        3.6333084572147296e-2,
        -3.259497339556122e-5,
        -5.530619471034378e-5,
        3.964744617200863e-6,
        -1.3226335674459164e-7,
        1.756171254117349e-9,
    ],
    np.float32,
)

# ---- element by element ----------------------------------------------------------------------


def sigmoid(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return σ(x) = 1 / (1 + e⁻ˣ), between 0 and 1."""
    return _in_blocks(_sigmoid, _validate.floats("x", x))


def sigmoid_backward(
    dy: Float[Array, "*shape"], y: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Return dx = dy · y (1 - y), where `y` is the output of `sigmoid`."""
    dy, y = _pair(dy, "y", y)
    return dy * (y * (1 - y))


def tanh(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return tanh(x) = (eˣ - e⁻ˣ) / (eˣ + e⁻ˣ), between -1 and 1."""
    return np.tanh(_validate.floats("x", x))


def tanh_backward(dy: Float[Array, "*shape"], y: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return dx = dy · (1 - y²), where `y` is the output of `tanh`."""
    dy, y = _pair(dy, "y", y)
    return dy * (1 - y * y)


def relu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return max(x, 0) (Nair and Hinton, 2010)."""
    return np.maximum(_validate.floats("x", x), 0)


def relu_backward(dy: Float[Array, "*shape"], x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return dx = dy where x > 0 and 0 elsewhere; at the kink x = 0 it is 0, as in torch."""
    dy, x = _pair(dy, "x", x)
    return _without(dy, x <= 0)


def leaky_relu(x: Float[Array, "*shape"], negative_slope: Number = 0.01) -> Float[Array, "*shape"]:
    """Return x where x > 0 and negative_slope · x elsewhere (Maas et al., 2013)."""
    x, slope = _validate.floats("x", x), _validate.number("negative_slope", negative_slope)
    if 0 < slope <= 1:
        return np.maximum(x, slope * x)
    return np.maximum(x, 0) + slope * np.minimum(x, 0)  # no 0 · ∞ where x = ∞


def leaky_relu_backward(
    dy: Float[Array, "*shape"], x: Float[Array, "*shape"], negative_slope: Number = 0.01
) -> Float[Array, "*shape"]:
    """Return dx = dy where x > 0 and negative_slope · dy elsewhere."""
    (dy, x), slope = _pair(dy, "x", x), _validate.number("negative_slope", negative_slope)
    return dy * _one_above_zero(x, slope)


def hardtanh(
    x: Float[Array, "*shape"], min_val: Number = -1.0, max_val: Number = 1.0
) -> Float[Array, "*shape"]:
    """Return x cut off below min_val and above max_val (Collobert, 2004).

    With 0 and 6 it is ReLU6 (Krizhevsky, 2010; used in MobileNets).
    """
    x, low, high = _hardtanh_arguments(x, min_val, max_val)
    return np.clip(x, low, high)


def hardtanh_backward(
    dy: Float[Array, "*shape"],
    x: Float[Array, "*shape"],
    min_val: Number = -1.0,
    max_val: Number = 1.0,
) -> Float[Array, "*shape"]:
    """Return dx = dy where min_val < x < max_val, 0 elsewhere and, as in torch, at both ends."""
    dy, x = _pair(dy, "x", x)
    x, low, high = _hardtanh_arguments(x, min_val, max_val)
    return _without(dy, (x <= low) | (x >= high))


def elu(x: Float[Array, "*shape"], alpha: Number = 1.0) -> Float[Array, "*shape"]:
    """Return x where x > 0 and alpha · (eˣ - 1) elsewhere (Clevert et al., 2016)."""
    x, alpha = _validate.floats("x", x), _validate.number("alpha", alpha)
    # One of the two terms is 0; the exponential sees no positive number, so it cannot overflow.
    return _in_blocks(lambda x: np.maximum(x, 0) + alpha * np.expm1(np.minimum(x, 0)), x)


def elu_backward(
    dy: Float[Array, "*shape"], x: Float[Array, "*shape"], alpha: Number = 1.0
) -> Float[Array, "*shape"]:
    """Return dx = dy where x > 0 and dy · alpha · eˣ elsewhere."""
    (dy, x), alpha = _pair(dy, "x", x), _validate.number("alpha", alpha)
    return dy * (np.exp(np.minimum(x, 0)) * _one_above_zero(x, alpha))


def gelu(x: Float[Array, "*shape"], approximate: str = "none") -> Float[Array, "*shape"]:
    """Return x · Φ(x), Φ the standard normal distribution function (Hendrycks and Gimpel, 2016).

    approximate="tanh" replaces Φ(x) by (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2.
    """
    x = _validate.floats("x", x)
    if _validate.one_of("approximate", approximate, ["none", "tanh"]) == "tanh":
        return _in_blocks(lambda x: x * (0.5 * (1 + np.tanh(_gelu_inner(x)))), x)
    return _in_blocks(lambda x: x * _normal_cdf(x), x)


def gelu_backward(
    dy: Float[Array, "*shape"], x: Float[Array, "*shape"], approximate: str = "none"
) -> Float[Array, "*shape"]:
    """Return dx = dy · (Φ(x) + x φ(x)), φ the standard normal density; or that of the tanh form."""
    dy, x = _pair(dy, "x", x)
    if _validate.one_of("approximate", approximate, ["none", "tanh"]) == "tanh":
        return _in_blocks(_gelu_tanh_backward, dy, x)
    return _in_blocks(_gelu_backward, dy, x)


def softplus(
    x: Float[Array, "*shape"], beta: Number = 1.0, threshold: Number = 20.0
) -> Float[Array, "*shape"]:
    """Return log(1 + e^(beta x)) / beta, a smooth ReLU (Dugas et al., 2001).

    Where beta · x > threshold it returns x itself, as torch does (the difference is below 2e-9).
    """
    x, beta, threshold = _softplus_arguments(x, beta, threshold)
    with np.errstate(over="ignore"):  # ±∞ is then right
        z = beta * x
    # log(1 + eᶻ) = max(z, 0) + log(1 + e^-|z|): no exponential of a positive number.
    y = (np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))) / beta
    return np.where(z > threshold, x, y)[()]


def softplus_backward(
    dy: Float[Array, "*shape"],
    x: Float[Array, "*shape"],
    beta: Number = 1.0,
    threshold: Number = 20.0,
) -> Float[Array, "*shape"]:
    """Return dx = dy · σ(beta x), or dy where beta · x > threshold."""
    dy, x = _pair(dy, "x", x)
    x, beta, threshold = _softplus_arguments(x, beta, threshold)
    with np.errstate(over="ignore"):
        z = beta * x
    return dy * np.where(z > threshold, x.dtype.type(1), _sigmoid(z))


def silu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return x · σ(x), also called swish (Elfwing et al., 2018; Ramachandran et al., 2017)."""
    x = _validate.floats("x", x)
    return _in_blocks(lambda x: x * _sigmoid(x), x)


def silu_backward(dy: Float[Array, "*shape"], x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return dx = dy · σ(x) (1 + x (1 - σ(x)))."""
    dy, x = _pair(dy, "x", x)
    return _in_blocks(_silu_backward, dy, x)


def _silu_backward(dy, x):
    s = _sigmoid(x)
    return dy * (s * (1 + x * (1 - s)))


# ---- in groups of features -------------------------------------------------------------------


def maxout(
    x: Float[np.ndarray, "*batch features"], pool_size: int
) -> Float[Array, "*batch groups"]:
    """Return the largest of each `pool_size` consecutive features (Goodfellow et al., 2013).

    x: (…, groups · pool_size) → (…, groups). ValueError if pool_size does not divide the last axis.
    """
    return _groups(x, pool_size).max(axis=-1)


def maxout_backward(
    dy: Float[np.ndarray, "*batch groups"], x: Float[np.ndarray, "*batch features"], pool_size: int
) -> Float[np.ndarray, "*batch features"]:
    """Return dx: dy goes to the largest feature of its group, on ties to the first."""
    groups = _groups(x, pool_size)
    dy = _validate.floats("dy", dy)
    _validate.same_dtype(dy=dy, x=x)
    _validate.has_shape("dy", dy, groups.shape[:-1], "the shape of the output")
    dx = np.zeros(groups.shape, x.dtype)
    winner = groups.argmax(axis=-1)[..., None]
    np.put_along_axis(dx, winner, dy[..., None], axis=-1)
    return dx.reshape(x.shape)


# ---- over an axis ----------------------------------------------------------------------------


def softmax(x: Float[np.ndarray, "*shape"], dim: int = -1) -> Float[np.ndarray, "*shape"]:
    """Return eˣ / Σ eˣ along the axis `dim`: positive numbers that sum to 1 (Bridle, 1990).

    The largest entry is subtracted first, which changes nothing in exact arithmetic and keeps
    the exponential from overflowing.
    """
    x, dim = _with_axis("x", x, dim)
    y = np.empty(x.shape, x.dtype)
    for _, e, _, total in exponentials(x, dim, out=y):
        e /= total
    return y


def softmax_backward(
    dy: Float[np.ndarray, "*shape"], y: Float[np.ndarray, "*shape"], dim: int = -1
) -> Float[np.ndarray, "*shape"]:
    """Return dx = y · (dy - Σ dy y), where `y` is the output of `softmax`."""
    dy, y = _pair(dy, "y", y)
    y, dim = _with_axis("y", y, dim)
    return y * (dy - _sum(dy * y, dim))


def log_softmax(x: Float[np.ndarray, "*shape"], dim: int = -1) -> Float[np.ndarray, "*shape"]:
    """Return log softmax(x) = x - log Σ eˣ along the axis `dim`, finite for large inputs too."""
    x, dim = _with_axis("x", x, dim)
    y = np.empty(x.shape, x.dtype)
    for block, part, largest, total in exponentials(x, dim, out=y):
        np.subtract(x[block], largest, out=part)
        with np.errstate(divide="ignore"):  # an axis of length 0 has the sum 0
            part -= np.log(total)
    return y


def log_softmax_backward(
    dy: Float[np.ndarray, "*shape"], y: Float[np.ndarray, "*shape"], dim: int = -1
) -> Float[np.ndarray, "*shape"]:
    """Return dx = dy - eʸ Σ dy, where `y` is the output of `log_softmax`."""
    dy, y = _pair(dy, "y", y)
    y, dim = _with_axis("y", y, dim)
    return dy - np.exp(y) * _sum(dy, dim)


# ---- shared pieces ---------------------------------------------------------------------------


def sum_exponentials(
    x: Float[np.ndarray, "*shape"], dim: int, out: Float[np.ndarray, "*shape"] | None = None
) -> tuple[Float[np.ndarray, "*reduced"], Float[np.ndarray, "*reduced"]]:
    """Return max x and Σ e^(x - max x) along `dim`, keeping the axis; the exponentials in `out`.

    Their log Σ eˣ = max x + log Σ e^(x - max x) is left to the caller: for large x the addition
    costs the second term its digits.
    """
    shape = (*x.shape[:dim], 1, *x.shape[dim + 1 :])
    largest, total = np.empty((2, *shape), x.dtype)
    for block, _, *both in exponentials(x, dim, out):
        largest[block], total[block] = both
    return largest, total


def exponentials(x: np.ndarray, dim: int, out: np.ndarray | None = None) -> Iterator[tuple]:
    """Yield (block, e^(x - max x), max x, Σ e^(x - max x)) along `dim`, a few samples at a time.

    `block` is their slice of the first axis. A block stays in the cache while it is worked on.
    The exponentials are written into out[block], or into work memory that the next block takes.
    """
    step = max(1, len(x)) if dim == 0 else max(1, _BLOCK_ENTRIES // max(1, math.prod(x.shape[1:])))
    work = np.empty((min(step, len(x)), *x.shape[1:]), x.dtype) if out is None else None
    for first in range(0, len(x), step):
        block = slice(first, first + step)
        part = x[block]
        e = work[: len(part)] if out is None else out[block]
        largest = _max(part, dim)
        np.subtract(part, largest, out=e)
        np.exp(e, out=e)
        yield block, e, largest, _sum(e, dim)


def _without(dy, dropped):
    """Return dy with 0 where `dropped` is True: by its bits, for ∞ · 0 would be NaN."""
    kept = np.asarray(dropped).view(np.int8) - np.int8(1)  # all bits where it is False
    return np.bitwise_and(dy.view(f"i{dy.itemsize}"), kept).view(dy.dtype)


def _one_above_zero(x, slope):
    """Return 1 where x > 0 and `slope` elsewhere."""
    above = x > 0
    return above + x.dtype.type(slope) * ~above


def _sigmoid(x):
    # e⁻ˣ may overflow to infinity for x < -88 (float32); 1 / (1 + ∞) = 0 is then right.
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


def _normal_cdf(x):
    """Return Φ(x), in float32 to 1e-7.

    Φ(x) = (1 + tanh(x P(x²))) / 2 is exact for some function P. It is smooth, so a polynomial that
    is fitted to it does, up to |x| = 6, where Φ(x) rounds to 0 or 1. (SciPy's takes 15 times as
    long, for NumPy's tanh is vectorised.)
    """
    if x.dtype == np.float64:
        from scipy.special import ndtr  # imported here: only GELU needs SciPy

        return ndtr(x)
    z = np.minimum(np.maximum(x, -6), 6)
    square, p = z * z, _TANH_ARGUMENT[-1]
    for coefficient in _TANH_ARGUMENT[-2::-1]:
        p = p * square + coefficient
    return 0.5 + 0.5 * np.tanh(z * p)


def _in_blocks(formula, *arrays):
    """Return formula(*arrays), element by element: its temporaries stay in the cache."""
    # Squares of large numbers may overflow, where the result is saturated; ∞ may give NaN.
    with np.errstate(over="ignore", invalid="ignore"):
        if arrays[0].size <= _SMALL_BLOCK:
            return formula(*arrays)
        y = np.empty(arrays[0].shape, arrays[0].dtype)
        flat, out = [array.reshape(-1) for array in arrays], y.reshape(-1)
        for first in range(0, y.size, _SMALL_BLOCK):
            block = slice(first, first + _SMALL_BLOCK)
            out[block] = formula(*(array[block] for array in flat))
        return y


def _gelu_backward(dy, x):
    density = np.exp(-0.5 * (x * x)) / math.sqrt(2 * math.pi)
    return dy * (_normal_cdf(x) + x * density)


def _gelu_tanh_backward(dy, x):
    t = np.tanh(_gelu_inner(x))
    slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * (x * x))
    return dy * (0.5 * (1 + t) + 0.5 * x * ((1 - t * t) * slope))


def _gelu_inner(x):
    return math.sqrt(2 / math.pi) * (x * (1 + 0.044715 * (x * x)))


def _hardtanh_arguments(x, min_val, max_val):
    x = _validate.floats("x", x)
    low, high = _validate.number("min_val", min_val), _validate.number("max_val", max_val)
    if low > high:
        raise ValueError(f"min_val must not be above max_val, got {min_val} and {max_val}")
    return x, x.dtype.type(low), x.dtype.type(high)


def _softplus_arguments(x, beta, threshold):
    x = _validate.floats("x", x)
    beta = _validate.number("beta", beta)
    if beta <= 0:
        raise ValueError(f"beta must be positive, got {beta}")
    return x, beta, _validate.number("threshold", threshold)


def _groups(x, pool_size):
    """Return x as (…, groups, pool_size)."""
    x = _validate.floats("x", x, min_ndim=1)
    pool_size = _validate.integer("pool_size", pool_size, low=1)
    features = x.shape[-1]
    if features % pool_size:
        raise ValueError(
            f"pool_size must divide the last axis of x, got {pool_size} for {features} features"
        )
    return x.reshape(*x.shape[:-1], features // pool_size, pool_size)


def _pair(dy, name, value):
    """Check that dy fits the output or input that the backward function is given."""
    dy, value = _validate.floats("dy", dy), _validate.floats(name, value)
    arrays = {"dy": dy, name: value}
    _validate.same_dtype(**arrays)
    _validate.same_shape(**arrays)
    return dy, value


def _with_axis(name, value, dim):
    value = _validate.floats(name, value, min_ndim=1)
    return value, _validate.dimension("dim", dim, value.ndim)


def _max(x, dim):
    """Return the maximum along `dim`, keeping the axis; -∞ for an axis of length 0."""
    return x.max(axis=dim, keepdims=True, initial=-np.inf)


def _sum(x, dim):
    """Return the sum along `dim`, keeping the axis."""
    if dim == x.ndim - 1:
        # A product with ones is about three times as fast as x.sum(axis=-1).
        return (x @ np.ones(x.shape[-1], x.dtype))[..., None]
    return x.sum(axis=dim, keepdims=True)
