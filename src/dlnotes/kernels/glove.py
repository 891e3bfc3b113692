"""GloVe: vectors whose products fit the logarithms of co-occurrence counts.

J = f(x) (w·w̃ + b + b̃ - log x)², f(x) = min(1, (x / x_max)^α), for a pair of words that occurred
together x times (Pennington, Socher and Manning, 2014). Reduction and dy are those of
`dlnotes.kernels.losses`, but the paper's J is reduction="sum". TypeError for arrays that are not
float32 or float64 or differ in dtype, ValueError for shapes that do not fit and counts that are not
above 0.

Cost: O(n d) operations for n pairs of vectors of length d.

center (n, d) holds the vectors w, context the w̃, center_bias and context_bias (n,) their biases b
and b̃, counts (n,) the x; x_max, above 0, and alpha, at least 0, are those of f.
"""

import numpy as np
from jaxtyping import Float

from dlnotes import _validate
from dlnotes._validate import Number
from dlnotes.kernels.losses import Array, Loss, Upstream, _reduce, _spread

Vectors = Float[np.ndarray, "n d"]
Biases = Float[np.ndarray, "n"]


def glove_weight(
    counts: Float[Array, "*shape"], x_max: Number = 100.0, alpha: Number = 0.75
) -> Float[Array, "*shape"]:
    """Return f(x) = min(1, (x / x_max)^α): rare pairs, which are noisy, count less."""
    counts = _positive(_validate.floats("counts", counts))
    x_max = _validate.number("x_max", x_max)
    if x_max <= 0:
        raise ValueError(f"x_max must be above 0, got {x_max}")
    return np.minimum(counts / x_max, 1) ** _validate.number("alpha", alpha, low=0)


def glove_loss(
    center: Vectors,
    context: Vectors,
    center_bias: Biases,
    context_bias: Biases,
    counts: Biases,
    reduction: str = "mean",
    *,
    x_max: Number = 100.0,
    alpha: Number = 0.75,
) -> Loss:
    """Return f(x) (w·w̃ + b + b̃ - log x)² of each pair; rows and biases are those of its words."""
    error = _error(center, context, center_bias, context_bias, counts)
    return _reduce(glove_weight(counts, x_max, alpha) * error**2, reduction)


def glove_loss_backward(
    dy: Upstream,
    center: Vectors,
    context: Vectors,
    center_bias: Biases,
    context_bias: Biases,
    counts: Biases,
    reduction: str = "mean",
    *,
    x_max: Number = 100.0,
    alpha: Number = 0.75,
) -> tuple[Vectors, Vectors, Biases, Biases]:
    """Return (dcenter, dcontext, dcenter_bias, dcontext_bias) = 2 f(x) error · (w̃, w, 1, 1)."""
    error = _error(center, context, center_bias, context_bias, counts)
    dloss = _spread(dy, error.shape, error.dtype, reduction)
    dbias = dloss * (2 * glove_weight(counts, x_max, alpha) * error)
    return dbias[:, None] * context, dbias[:, None] * center, dbias, dbias.copy()


def _error(center, context, center_bias, context_bias, counts):
    """Return w·w̃ + b + b̃ - log x of each pair."""
    vectors = {"center": center, "context": context}
    numbers = {"center_bias": center_bias, "context_bias": context_bias, "counts": counts}
    for name, array in vectors.items():
        _validate.floats(name, array, ndim=2)
    for name, array in numbers.items():
        _validate.floats(name, array)
        _validate.has_shape(name, array, center.shape[:1], "one for each pair")
    _validate.same_dtype(**vectors, **numbers)
    _validate.same_shape(**vectors)
    product = np.einsum("nd,nd->n", center, context)
    return product + center_bias + context_bias - np.log(_positive(counts))


def _positive(counts):
    _validate.finite("counts", counts)
    if counts.size and counts.min() <= 0:
        raise ValueError(f"counts must be above 0, got {counts.min()}: leave those pairs out")
    return counts
