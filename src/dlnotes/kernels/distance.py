"""How long vectors are, and how far apart: norms, cosines and distances.

Names, arguments, defaults and values are those of torch (`torch.linalg.vector_norm`,
`torch.cdist`, and `normalize`, `cosine_similarity` and `pairwise_distance` of
torch.nn.functional). Vectors lie along `dim`; p, the kind of norm, is at least 0 or infinite:
(Σ |x|^p)^(1/p), the number of entries that are not 0 (p = 0), or the largest |x| (p = ∞).

In each: TypeError for arrays that are not float32 or float64 or differ in dtype; ValueError for
shapes that do not broadcast, an axis that is not there and a setting out of range. Where a norm has
no derivative, at 0, its gradient is 0; entries that are all the largest share that of p = ∞. Cost
and memory O(size of the inputs) for each but `cdist`.
"""

import math

import numpy as np
from jaxtyping import Float

from dlnotes import _validate
from dlnotes._validate import Number

Array = np.ndarray | np.floating
Dim = int | np.integer | tuple[int, ...] | list[int] | None
BY_PRODUCTS, NEVER_BY_PRODUCTS = "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist"
COMPUTE_MODES = ("use_mm_for_euclid_dist_if_necessary", BY_PRODUCTS, NEVER_BY_PRODUCTS)
_FEW = 25  # so few points are compared coordinate by coordinate, as torch does
_BLOCK_ENTRIES = 2**18  # differences that are worked on together

# ---- norms -----------------------------------------------------------------------------------


def vector_norm(
    x: Float[Array, "*shape"], ord: Number = 2, dim: Dim = None, keepdim: bool = False
) -> Float[Array, "*reduced"]:
    """Return the norm of order `ord` of the vectors along `dim`: one axis, several, or all (None).

    No entries have norm 0.
    """
    x, p, axes = _check_norm(x, ord, dim)
    return _norm(x, p, axes, keepdim)


def vector_norm_backward(
    dy: Float[Array, "*reduced"],
    x: Float[Array, "*shape"],
    ord: Number = 2,
    dim: Dim = None,
    keepdim: bool = False,
) -> Float[Array, "*shape"]:
    """Return dx = dy · sign(x) · (|x| / norm)^(p - 1), 0 where the norm is 0."""
    x, p, axes = _check_norm(x, ord, dim)
    dy, norm = _validate.floats("dy", dy), _norm(x, p, axes, keepdims=True)
    _validate.same_dtype(dy=dy, x=x)
    shape = norm.shape if keepdim else tuple(n for i, n in enumerate(x.shape) if i not in axes)
    _validate.has_shape("dy", dy, shape, "the shape of the norms")
    return dy.reshape(norm.shape) * _slope(x, norm, p, axes)


def normalize(
    x: Float[np.ndarray, "*shape"], p: Number = 2.0, dim: Dim = 1, eps: Number = 1e-12
) -> Float[np.ndarray, "*shape"]:
    """Return x / max(|x|, eps): vectors of length 1 along `dim`, but for those shorter than eps."""
    x, p, axes = _check_norm(x, p, dim)
    return x / np.maximum(_norm(x, p, axes, keepdims=True), _small(eps, x))


def normalize_backward(
    dy: Float[np.ndarray, "*shape"],
    x: Float[np.ndarray, "*shape"],
    p: Number = 2.0,
    dim: Dim = 1,
    eps: Number = 1e-12,
) -> Float[np.ndarray, "*shape"]:
    """Return dx = (dy - (dy · y) ∂|x|/∂x) / |x|, and dy / eps for vectors shorter than eps.

    For p = 2, ∂|x|/∂x is y itself: what points along the vector is taken out of dy.
    """
    x, p, axes = _check_norm(x, p, dim)
    dy = _validate.floats("dy", dy)
    _validate.same_dtype(dy=dy, x=x)
    _validate.has_shape("dy", dy, x.shape, "the shape of x")
    norm, eps = _norm(x, p, axes, keepdims=True), _small(eps, x)
    length = np.maximum(norm, eps)
    along = (dy * x).sum(axis=axes, keepdims=True) / length * (norm >= eps)
    return (dy - along * _slope(x, norm, p, axes)) / length


# ---- two vectors -----------------------------------------------------------------------------


def cosine_similarity(
    x1: Float[Array, "..."], x2: Float[Array, "..."], dim: int = 1, eps: Number = 1e-8
) -> Float[Array, "..."]:
    """Return the cosine x1 · x2 / (max(|x1|, eps) max(|x2|, eps)) of the vectors along `dim`.

    x1 and x2 broadcast to one shape, whose axis `dim` goes.
    """
    x1, x2, dim = _check_two(x1, x2, dim)
    unit1, unit2 = (x / _length(x, dim, eps)[0] for x in (x1, x2))
    return (unit1 * unit2).sum(axis=dim)


def cosine_similarity_backward(
    dy: Float[Array, "..."],
    x1: Float[Array, "..."],
    x2: Float[Array, "..."],
    dim: int = 1,
    eps: Number = 1e-8,
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Return (dx1, dx2), dx1 = dy (u2 - cos · u1) / |x1| with u = x / |x|, dx2 likewise.

    The second term is left out where |x| is cut off at eps.
    """
    shapes = np.shape(x1), np.shape(x2)
    x1, x2, dim = _check_two(x1, x2, dim)
    (length1, free1), (length2, free2) = (_length(x, dim, eps) for x in (x1, x2))
    unit1, unit2 = x1 / length1, x2 / length2
    cosine = (unit1 * unit2).sum(axis=dim, keepdims=True)
    dy = _upstream(dy, x1, cosine.squeeze(dim).shape).reshape(cosine.shape)
    dx1 = dy * (unit2 - free1 * cosine * unit1) / length1
    dx2 = dy * (unit1 - free2 * cosine * unit2) / length2
    return _sum_to(dx1, shapes[0]), _sum_to(dx2, shapes[1])


def pairwise_distance(
    x1: Float[Array, "..."],
    x2: Float[Array, "..."],
    p: Number = 2.0,
    eps: Number = 1e-6,
    keepdim: bool = False,
) -> Float[Array, "..."]:
    """Return |x1 - x2 + eps| of vectors (…, d), which broadcast: each to its partner.

    eps keeps the derivative of equal vectors finite.
    """
    x1, x2, _ = _check_two(x1, x2, -1)
    return _norm(x1 - x2 + _validate.number("eps", eps), _order(p), -1, keepdim)


def pairwise_distance_backward(
    dy: Float[Array, "..."],
    x1: Float[Array, "..."],
    x2: Float[Array, "..."],
    p: Number = 2.0,
    eps: Number = 1e-6,
    keepdim: bool = False,
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Return (dx1, dx2), of which the second is minus the first where nothing was broadcast."""
    shapes = np.shape(x1), np.shape(x2)
    x1, x2, _ = _check_two(x1, x2, -1)
    difference, p = x1 - x2 + _validate.number("eps", eps), _order(p)
    norm = _norm(difference, p, -1, keepdims=True)
    dy = _upstream(dy, x1, norm.shape if keepdim else norm.shape[:-1]).reshape(norm.shape)
    gradient = dy * _slope(difference, norm, p, -1)
    return _sum_to(gradient, shapes[0]), _sum_to(-gradient, shapes[1])


# ---- every pair ------------------------------------------------------------------------------


def cdist(
    x1: Float[np.ndarray, "*batch1 n d"],
    x2: Float[np.ndarray, "*batch2 m d"],
    p: Number = 2.0,
    compute_mode: str = COMPUTE_MODES[0],
) -> Float[np.ndarray, "*batch n m"]:
    """Return the distance |x1 - x2| of every pair of points; the axes of the batch broadcast.

    For p = 2 and more than 25 points on a side, |a|² + |b|² - 2 a · b with one matrix product is
    much faster than differences, but loses about half of the digits where points lie close
    together: compute_mode="donot_use_mm_for_euclid_dist" never does so, "use_mm_for_euclid_dist"
    always. Cost O(n m d), memory O(n m).
    """
    x1, x2, p, by_products = _check_pairs(x1, x2, p, compute_mode)
    if by_products:
        return _by_products(x1, x2)
    batch = np.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
    y = np.empty((*batch, x1.shape[-2], x2.shape[-2]), x1.dtype)
    for rows in _rows(y, x1):
        y[..., rows, :] = _norm(x1[..., rows, None, :] - x2[..., None, :, :], p)
    return y


def cdist_backward(
    dy: Float[np.ndarray, "*batch n m"],
    x1: Float[np.ndarray, "*batch1 n d"],
    x2: Float[np.ndarray, "*batch2 m d"],
    p: Number = 2.0,
    compute_mode: str = COMPUTE_MODES[0],
) -> tuple[Float[np.ndarray, "*batch1 n d"], Float[np.ndarray, "*batch2 m d"]]:
    """Return (dx1, dx2): each point is drawn along its differences to all others."""
    x1, x2, p, by_products = _check_pairs(x1, x2, p, compute_mode)
    batch = np.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
    dy = _upstream(dy, x1, (*batch, x1.shape[-2], x2.shape[-2]))
    if by_products:
        distance = _by_products(x1, x2)
        pull = np.divide(dy, distance, out=np.zeros_like(dy), where=distance > 0)
        dx1 = pull.sum(axis=-1)[..., None] * x1 - pull @ x2
        dx2 = pull.sum(axis=-2)[..., None] * x2 - pull.swapaxes(-1, -2) @ x1
    else:
        dx1 = np.zeros((*batch, *x1.shape[-2:]), x1.dtype)
        dx2 = np.zeros((*batch, *x2.shape[-2:]), x2.dtype)
        for rows in _rows(dy, x1):
            difference = x1[..., rows, None, :] - x2[..., None, :, :]
            norm = _norm(difference, p, -1, keepdims=True)
            gradient = dy[..., rows, :, None] * _slope(difference, norm, p, -1)
            dx1[..., rows, :] = gradient.sum(axis=-2)
            dx2 -= gradient.sum(axis=-3)
    return _sum_to(dx1, x1.shape), _sum_to(dx2, x2.shape)


def _by_products(x1, x2):
    square1, square2 = ((x * x).sum(axis=-1) for x in (x1, x2))
    square = square1[..., None] + square2[..., None, :] - 2 * (x1 @ x2.swapaxes(-1, -2))
    return np.sqrt(np.maximum(square, 0, out=square))


def _rows(y, x1):
    """Yield slices of the first points whose differences are worked on together."""
    one = max(1, math.prod(y.shape) // max(1, y.shape[-2]) * x1.shape[-1])
    step = max(1, _BLOCK_ENTRIES // one)
    return (slice(first, first + step) for first in range(0, y.shape[-2], step))


# ---- shared pieces ---------------------------------------------------------------------------


def _norm(x, p, axis=-1, keepdims=False):
    """Return the p-norm along one axis or several."""
    settings = {"axis": axis, "keepdims": keepdims}
    if p == 2:
        return np.sqrt((x * x).sum(**settings))
    if p == 1:
        return np.abs(x).sum(**settings)
    if p == 0:
        return (x != 0).sum(**settings, dtype=x.dtype)
    if p == math.inf:
        return np.abs(x).max(**settings, initial=0)
    return (np.abs(x) ** p).sum(**settings) ** (1 / p)


def _norm_backward(dnorm, x, norm, p):
    """Return dx for the norms of vectors along the last axis."""
    return dnorm[..., None] * _slope(x, norm[..., None], p, -1)


def _slope(x, norm, p, axis):
    """Return ∂norm/∂x = sign(x) (|x| / norm)^(p - 1), 0 where there is none; norm has all axes."""
    if p == 0:
        return np.zeros_like(x)
    if p == 1:
        return np.sign(x)
    if p == math.inf:
        largest = np.abs(x) == norm
        count = np.maximum(1, largest.sum(axis=axis, keepdims=True, dtype=x.dtype))
        return np.sign(x) * largest / count
    one = x.dtype.type(1)
    norm = np.where(norm == 0, one, norm)
    if p == 2:
        return x / norm
    size = np.abs(x) / norm
    if p < 1:  # steeper and steeper towards 0, where the derivative is infinite
        size = np.where(x == 0, one, size)
    return np.sign(x) * size ** (p - 1)


def _sum_to(gradient, shape):
    """Return a gradient summed over the axes along which an array of `shape` was broadcast."""
    new = gradient.ndim - len(shape)
    stretched = [new + i for i, n in enumerate(shape) if n == 1 and gradient.shape[new + i] != 1]
    if not new and not stretched:
        return gradient
    return gradient.sum(axis=(*range(new), *stretched)).reshape(shape)


def _length(x, dim, eps):
    """Return max(|x|, eps) along an axis, and whether |x| is the larger one."""
    norm, eps = _norm(x, 2, dim, keepdims=True), _small(eps, x)
    return np.maximum(norm, eps), norm >= eps


def _small(eps, x):
    return x.dtype.type(_validate.number("eps", eps, low=0))


def _order(p, name="p"):
    return math.inf if p == math.inf else _validate.number(name, p, low=0)


def _check_norm(x, p, dim):
    """Return x, p and the axes of the vectors as a tuple."""
    x = _validate.floats("x", x)
    return x, _order(p), _validate.dimensions("dim", dim, x.ndim)


def _check_two(x1, x2, dim):
    """Return both as views of one shape, and the axis of the vectors."""
    x1, x2 = _validate.floats("x1", x1), _validate.floats("x2", x2)
    _validate.same_dtype(x1=x1, x2=x2)
    try:
        x1, x2 = np.broadcast_arrays(x1, x2)
    except ValueError:
        raise ValueError(
            f"x1 and x2 must broadcast to one shape, got {x1.shape} and {x2.shape}"
        ) from None
    return x1, x2, _validate.dimension("dim", dim, x1.ndim)


def _check_pairs(x1, x2, p, compute_mode):
    x1 = _validate.floats("x1", x1, min_ndim=2)
    x2 = _validate.floats("x2", x2, min_ndim=2)
    _validate.same_dtype(x1=x1, x2=x2)
    _validate.one_of("compute_mode", compute_mode, COMPUTE_MODES)
    if x1.shape[-1] != x2.shape[-1]:
        raise ValueError(
            f"x1 and x2 must have points of one length, got shapes {x1.shape} and {x2.shape}"
        )
    try:
        np.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
    except ValueError:
        raise ValueError(
            f"the first axes of x1 and x2 must broadcast, got shapes {x1.shape} and {x2.shape}"
        ) from None
    many = max(x1.shape[-2], x2.shape[-2]) > _FEW
    wanted = compute_mode == BY_PRODUCTS or (many and compute_mode != NEVER_BY_PRODUCTS)
    return x1, x2, (p := _order(p)), p == 2 and wanted


def _upstream(dy, x, shape):
    dy = _validate.floats("dy", dy)
    _validate.same_dtype(dy=dy, x=x)
    return _validate.has_shape("dy", dy, shape, "the shape of the output")
