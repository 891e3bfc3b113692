"""Scaled dot-product attention, softmax(Q Kᵀ · scale + mask) V, and sinusoidal positions.

Attention stands here three times: `scaled_dot_product_attention_loops` is the formula;
`scaled_dot_product_attention` is two matrix products and a softmax over all scores at once
(Vaswani et al., 2017); `blocked_attention` goes through the keys block by block with a running
maximum and sum (online softmax: Milakov and Gimelshein, 2018; attention without the matrix of
scores: Rabe and Staats, 2021; Dao et al., 2022), so that its memory grows with the block only.

Shapes: query (…, l, e), key (…, s, e), value (…, s, v) → (…, l, v), with the same leading axes
(batch, heads) for all three. `attn_mask` broadcasts to the scores (…, l, s): bool, True where a
query may look at a key, or floats that are added to the scores, -∞ where it may not. With
`is_causal` query i sees the keys 0 … i. `scale` is 1/√e by default. A query that may look at
nothing gets 0, and gives no gradient, as in torch.

Cost: 2 · l · s · (e + v) operations for each batch and head forward, about twice that backward.

In each: TypeError for arrays that are not float32 or float64 or differ in dtype, or a mask that
holds integers; ValueError for shapes that do not fit, or a mask together with is_causal.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from dlnotes import _validate
from dlnotes._validate import Number

Int = int | np.integer
_BLOCK_ENTRIES = 2**17  # scores that are worked on together, in the second-level cache
_SMALL = 16  # scores whose exponentials neither overflow nor vanish, with room for their sum
Mask = Bool[np.ndarray, "..."] | Float[np.ndarray, "..."]


# ---- all scores at once ----------------------------------------------------------------------


def attention_weights(
    query: Float[np.ndarray, "*batch l e"],
    key: Float[np.ndarray, "*batch s e"],
    attn_mask: Mask | None = None,
    is_causal: bool = False,
    scale: Number | None = None,
) -> Float[np.ndarray, "*batch l s"]:
    """Return softmax(Q Kᵀ · scale + mask): how much each query looks at each key.

    The rows sum to 1; a row in which everything is masked is 0.
    """
    query, key, _, attn_mask, scale = _check(query, key, None, attn_mask, is_causal, scale)
    weights = np.empty((*query.shape[:-1], key.shape[-2]), query.dtype)
    for block, mask in _samples(query, key, attn_mask):
        _softmax(_scores(query[block], key[block], mask, is_causal, scale, out=weights[block]))
    return weights


def attention_weights_backward(
    dy: Float[np.ndarray, "*batch l s"],
    query: Float[np.ndarray, "*batch l e"],
    key: Float[np.ndarray, "*batch s e"],
    attn_mask: Mask | None = None,
    is_causal: bool = False,
    scale: Number | None = None,
) -> tuple[
    Float[np.ndarray, "*batch l e"],
    Float[np.ndarray, "*batch s e"],
    Float[np.ndarray, "..."] | None,
]:
    """Return (dquery, dkey, dmask); dmask is None unless the mask holds floats."""
    query, key, _, attn_mask, scale = _check(query, key, None, attn_mask, is_causal, scale)
    dy = _check_gradient(dy, query, (*query.shape[:-1], key.shape[-2]))
    dquery, dkey, dmask = _gradients(query, key, attn_mask)
    for block, mask in _samples(query, key, attn_mask):
        q, k = query[block], key[block]
        weights = _softmax(_scores(q, k, mask, is_causal, scale))
        dscores = _softmax_backward(dy[block], weights)
        _scores_backward(dscores, q, k, scale, None, (dquery[block], dkey[block]))
        _add_to_mask(dmask, block, dscores)
    return dquery, dkey, dmask


def scaled_dot_product_attention(
    query: Float[np.ndarray, "*batch l e"],
    key: Float[np.ndarray, "*batch s e"],
    value: Float[np.ndarray, "*batch s v"],
    attn_mask: Mask | None = None,
    is_causal: bool = False,
    scale: Number | None = None,
    *,
    return_residuals: bool = False,
) -> Float[np.ndarray, "*batch l v"] | tuple[Float[np.ndarray, "*batch l v"], tuple]:
    """Return softmax(Q Kᵀ · scale + mask) V: for each query a weighted mean of the values.

    Work memory: the l × s weights of the heads of a few samples, which stay in the cache.
    return_residuals=True returns (y, the exponentials of all scores and their sums), which save the
    backward function computing them again.

    The exponentials E are divided by their sums S only after the product with V, which has fewer
    columns than E where there are more keys than features: E V / S instead of (E / S) V.
    """
    query, key, value, attn_mask, scale = _check(query, key, value, attn_mask, is_causal, scale)
    y = np.empty((*query.shape[:-1], value.shape[-1]), query.dtype)
    kept = [], []
    if return_residuals:
        kept = [np.empty((*query.shape[:-1], n), query.dtype) for n in (key.shape[-2], 1)]
    scaled, *_ = _room(query, key, attn_mask)
    for block, mask in _samples(query, key, attn_mask):
        q, k = query[block], key[block]
        out = (array[block] for array in kept) if return_residuals else (None, None)
        e, total = _exponentials(q, k, mask, is_causal, scale, scaled[: len(q)], *out)
        np.matmul(e, value[block], out=y[block])
        y[block] /= total
    return (y, tuple(kept)) if return_residuals else y


def scaled_dot_product_attention_backward(
    dy: Float[np.ndarray, "*batch l v"],
    query: Float[np.ndarray, "*batch l e"],
    key: Float[np.ndarray, "*batch s e"],
    value: Float[np.ndarray, "*batch s v"],
    attn_mask: Mask | None = None,
    is_causal: bool = False,
    scale: Number | None = None,
    *,
    residuals: tuple | None = None,
) -> tuple[
    Float[np.ndarray, "*batch l e"],
    Float[np.ndarray, "*batch s e"],
    Float[np.ndarray, "*batch s v"],
    Float[np.ndarray, "..."] | None,
]:
    """Return (dquery, dkey, dvalue, dmask); dmask is None unless the mask holds floats.

    `residuals` are those that `scaled_dot_product_attention` returned, or None.

    With the weights P = E / S: dV = Pᵀ dy, dP = dy Vᵀ, and the softmax turns dP into the gradient
    of the scores, dA = P (dP - Σ P dP), which gives dQ = dA K · scale and dK = dAᵀ Q · scale.
    The division by S is again done where it costs least, on dy.
    """
    query, key, value, attn_mask, scale = _check(query, key, value, attn_mask, is_causal, scale)
    dy = _check_gradient(dy, query, (*query.shape[:-1], value.shape[-1]))
    dquery, dkey, dmask = _gradients(query, key, attn_mask)
    dvalue = np.empty(value.shape, value.dtype)
    scaled, room, gradient = _room(query, key, attn_mask, dy)
    for block, mask in _samples(query, key, attn_mask):
        q, k = query[block], key[block]
        if residuals is None:
            e, total = _exponentials(q, k, mask, is_causal, scale, scaled[: len(q)])
        else:
            e, total = (array[block] for array in residuals)
        divided = np.divide(dy[block], total, out=gradient[: len(q)])
        np.matmul(e.swapaxes(-1, -2), divided, out=dvalue[block])
        dscores = np.matmul(divided, value[block].swapaxes(-1, -2), out=room[: len(q)])
        dscores -= np.vecdot(e, dscores)[..., None] / total
        dscores *= e
        _scores_backward(dscores, q, k, scale, scaled[: len(q)], (dquery[block], dkey[block]))
        _add_to_mask(dmask, block, dscores)
    return dquery, dkey, dvalue, dmask


def scaled_dot_product_attention_loops(
    query: Float[np.ndarray, "*batch l e"],
    key: Float[np.ndarray, "*batch s e"],
    value: Float[np.ndarray, "*batch s v"],
    attn_mask: Mask | None = None,
    is_causal: bool = False,
    scale: Number | None = None,
) -> Float[np.ndarray, "*batch l v"]:
    """Return what `scaled_dot_product_attention` returns, one query and key at a time."""
    query, key, value, attn_mask, scale = _check(query, key, value, attn_mask, is_causal, scale)
    y = np.zeros((*query.shape[:-1], value.shape[-1]), query.dtype)
    for *batch, i in np.ndindex(query.shape[:-1]):
        scores = {}  # of the keys that query i may look at
        for j in range(key.shape[-2]):
            score = sum(a * b for a, b in zip(query[*batch, i], key[*batch, j], strict=True))
            score *= scale
            allowed = j <= i or not is_causal
            if attn_mask is not None:
                entry = np.broadcast_to(attn_mask, (*query.shape[:-1], key.shape[-2]))[*batch, i, j]
                allowed = bool(entry) if attn_mask.dtype == np.bool_ else entry != -np.inf
                score = score if attn_mask.dtype == np.bool_ else score + entry
            if allowed:
                scores[j] = score
        largest = max(scores.values(), default=0.0)
        total = sum(math.exp(score - largest) for score in scores.values())
        for j, score in scores.items():
            y[*batch, i] += (math.exp(score - largest) / total) * value[*batch, j]
    return y


# ---- block by block --------------------------------------------------------------------------


def blocked_attention(
    query: Float[np.ndarray, "*batch l e"],
    key: Float[np.ndarray, "*batch s e"],
    value: Float[np.ndarray, "*batch s v"],
    attn_mask: Mask | None = None,
    is_causal: bool = False,
    scale: Number | None = None,
    block_size: Int = 128,
) -> Float[np.ndarray, "*batch l v"]:
    """Return what `scaled_dot_product_attention` returns, `block_size` keys at a time.

    Where a block brings a larger score than all before it, the sums so far are scaled down to the
    new maximum. Work memory: l × block_size scores instead of l × s.
    """
    query, key, value, attn_mask, scale = _check(query, key, value, attn_mask, is_causal, scale)
    block_size = _validate.integer("block_size", block_size, low=1)
    return _online(query, key, value, attn_mask, is_causal, scale, block_size)[0]


def blocked_attention_backward(
    dy: Float[np.ndarray, "*batch l v"],
    query: Float[np.ndarray, "*batch l e"],
    key: Float[np.ndarray, "*batch s e"],
    value: Float[np.ndarray, "*batch s v"],
    attn_mask: Mask | None = None,
    is_causal: bool = False,
    scale: Number | None = None,
    block_size: Int = 128,
) -> tuple[
    Float[np.ndarray, "*batch l e"],
    Float[np.ndarray, "*batch s e"],
    Float[np.ndarray, "*batch s v"],
    Float[np.ndarray, "..."] | None,
]:
    """Return (dquery, dkey, dvalue, dmask) as `scaled_dot_product_attention_backward` does.

    The weights are computed again block by block from the maximum and the sum of each row. The
    softmax needs Σ P dP over all keys, which is Σ dy · y, known before the first block.
    """
    query, key, value, attn_mask, scale = _check(query, key, value, attn_mask, is_causal, scale)
    block_size = _validate.integer("block_size", block_size, low=1)
    dy = _check_gradient(dy, query, (*query.shape[:-1], value.shape[-1]))
    y, largest, total = _online(query, key, value, attn_mask, is_causal, scale, block_size)
    row = (dy * y).sum(axis=-1, keepdims=True)
    dquery, dkey, dvalue = np.zeros_like(query), np.empty_like(key), np.empty_like(value)
    dmask = np.zeros_like(attn_mask) if _is_additive(attn_mask) else None
    for block, scores in _score_blocks(query, key, attn_mask, is_causal, scale, block_size):
        with np.errstate(invalid="ignore"):  # infinite input gives NaN, as in torch
            weights = np.exp(scores - largest) / total
        dvalue[..., block, :] = weights.swapaxes(-1, -2) @ dy
        dscores = weights * (dy @ value[..., block, :].swapaxes(-1, -2) - row)
        dquery += dscores @ key[..., block, :]
        dkey[..., block, :] = dscores.swapaxes(-1, -2) @ query
        if dmask is not None:
            part = dmask[..., block] if dmask.ndim and dmask.shape[-1] != 1 else dmask
            part += _sum_to_shape(dscores, part.shape)
    dquery *= query.dtype.type(scale)
    dkey *= query.dtype.type(scale)
    return dquery, dkey, dvalue, dmask


def _online(query, key, value, attn_mask, is_causal, scale, block_size):
    """Return the output, and the maximum and the sum of exponentials of each row of scores."""
    dtype = query.dtype
    largest = np.full((*query.shape[:-1], 1), -np.inf, dtype)
    total = np.zeros((*query.shape[:-1], 1), dtype)
    y = np.zeros((*query.shape[:-1], value.shape[-1]), dtype)
    for block, scores in _score_blocks(query, key, attn_mask, is_causal, scale, block_size):
        new_largest = np.maximum(largest, scores.max(axis=-1, keepdims=True))
        finite = _finite_maximum(new_largest)
        with np.errstate(invalid="ignore"):
            shrink = np.exp(largest - finite)  # 0 before the first allowed key
            e = np.exp(scores - finite)
        total = total * shrink + e.sum(axis=-1, keepdims=True)
        y = y * shrink + e @ value[..., block, :]
        largest = new_largest
    total = np.where(total == 0, dtype.type(1), total)
    return y / total, _finite_maximum(largest), total


def _score_blocks(
    query, key, attn_mask, is_causal, scale, block_size
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the slice of keys and the scores (…, l, block) of each block."""
    length = key.shape[-2]
    for start in range(0, length, block_size):
        block = slice(start, min(start + block_size, length))
        mask = attn_mask
        if mask is not None and mask.ndim and mask.shape[-1] != 1:
            mask = mask[..., block]
        yield block, _scores(query, key[..., block, :], mask, is_causal, scale, start)


# ---- positions -------------------------------------------------------------------------------


def sinusoidal_positions(
    length: Int, dim: Int, dtype: type[np.floating] | np.dtype = np.float32
) -> Float[np.ndarray, "length dim"]:
    """Return the table p[t, 2i] = sin(t / 10000^(2i/dim)), p[t, 2i + 1] = cos of the same.

    Each pair of columns is a hand of a clock, the first quick and the last slow, so that the row of
    t + k is a rotation of the row of t (Vaswani et al., 2017). With odd `dim` the last column is a
    sine. Computed in float64 and rounded to `dtype`: (length, dim).
    """
    length = _validate.integer("length", length, low=0)
    dim = _validate.integer("dim", dim, low=1)
    if np.dtype(dtype) not in _validate.FLOATS:
        raise TypeError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
    angles = np.arange(length)[:, None] / 10000.0 ** (np.arange(0, dim, 2) / dim)
    table = np.empty((length, dim), dtype)
    table[:, 0::2] = np.sin(angles)
    table[:, 1::2] = np.cos(angles[:, : dim // 2])
    return table


# ---- shared pieces ---------------------------------------------------------------------------


def _scores(query, key, attn_mask, is_causal, scale, first_key=0, out=None):
    """Return Q Kᵀ · scale + mask, -∞ where a query may not look; key 0 stands at `first_key`."""
    scores = _products(query, key, scale, None, out)
    _mask(scores, attn_mask, is_causal, first_key)
    return scores


def _products(query, key, scale, scaled, out):
    """Return Q Kᵀ · scale in `out`; `scaled` is work memory for Q · scale. Or None for either."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.multiply(query, query.dtype.type(scale), out=scaled)
        return np.matmul(scaled, key.swapaxes(-1, -2), out=out)


def _mask(scores, attn_mask, is_causal, first_key=0):
    """Add the mask in place: -∞ where a query may not look; key 0 stands at `first_key`."""
    if _is_additive(attn_mask):
        with np.errstate(over="ignore", invalid="ignore"):
            scores += attn_mask
    elif attn_mask is not None:
        np.copyto(scores, -np.inf, where=~attn_mask)
    if is_causal:
        positions = np.arange(first_key, first_key + scores.shape[-1])
        np.copyto(scores, -np.inf, where=positions > np.arange(scores.shape[-2])[:, None])


def _samples(query, key, attn_mask) -> Iterator[tuple[Any, np.ndarray | None]]:
    """Yield indices of a few samples, whose scores stay in the cache, and the mask there."""
    if query.ndim == 2:  # one sample, without an axis for it
        yield ..., attn_mask
        return
    scores = math.prod(query.shape[1:-1]) * key.shape[-2]
    step = max(1, _BLOCK_ENTRIES // max(1, scores))
    for first in range(0, len(query), step):
        block = slice(first, first + step)
        yield block, attn_mask[block] if _by_sample(attn_mask, query) else attn_mask


def _room(query, key, attn_mask, dy=None):
    """Return work memory for one block of samples: shaped as queries, as scores, as `dy`.

    The same memory for all blocks stays in the cache.
    """
    for block, _ in _samples(query, key, attn_mask):
        q = query[block]
        shapes = [q.shape, (*q.shape[:-1], key.shape[-2]), () if dy is None else dy[block].shape]
        return [np.empty(shape, query.dtype) for shape in shapes]
    return [np.empty(0, query.dtype)] * 3


def _by_sample(attn_mask, query) -> bool:
    """Say whether the mask has an entry for each sample of its own."""
    return attn_mask is not None and attn_mask.ndim == query.ndim > 2 and len(attn_mask) > 1


def _softmax(scores):
    """Return the softmax over the last axis, 0 where a row is -∞ throughout; overwrites it."""
    with np.errstate(invalid="ignore"):  # infinite input gives NaN, as in torch
        scores -= _finite_maximum(scores.max(axis=-1, keepdims=True, initial=-np.inf))
        np.exp(scores, out=scores)
        total = _sum_last(scores)
        scores /= np.where(total == 0, scores.dtype.type(1), total)
    return scores


def _exponentials(query, key, attn_mask, is_causal, scale, scaled, out=None, total=None):
    """Return e^(scores - shift) and its sum over the keys, 1 where it is 0; softmax is their ratio.

    The shift keeps e from overflowing: the largest score of each row, as in `_softmax`. A head all
    of whose scores are small needs none.
    """
    scores = _products(query, key, scale, scaled, out)
    small = scores.max(axis=(-2, -1), initial=0) < _SMALL
    small &= scores.min(axis=(-2, -1), initial=0) > -_SMALL
    small &= not _is_additive(attn_mask)
    _mask(scores, attn_mask, is_causal)
    with np.errstate(invalid="ignore"):  # infinite input gives NaN, as in torch
        if not small.all():
            shift = _finite_maximum(scores.max(axis=-1, keepdims=True, initial=-np.inf))
            shift[small] = 0
            scores -= shift
        np.exp(scores, out=scores)
        total = np.matmul(scores, np.ones((scores.shape[-1], 1), scores.dtype), out=total)
    np.copyto(total, 1, where=total == 0)
    return scores, total


def _sum_last(x):
    # A product with ones is about three times as fast as x.sum(axis=-1).
    return (x @ np.ones(x.shape[-1], x.dtype))[..., None]


def _finite_maximum(largest):
    """Return the maximum, with 0 for a row that is -∞ throughout: -∞ - 0 is then -∞, not NaN."""
    return np.where(largest == -np.inf, largest.dtype.type(0), largest)


def _softmax_backward(dweights, weights):
    """Return the gradient of the scores, P (dP - Σ P dP)."""
    dscores = dweights - np.vecdot(weights, dweights)[..., None]
    dscores *= weights
    return dscores


def _scores_backward(dscores, query, key, scale, scaled, out):
    """Write (dquery, dkey) from the gradient of the scores into `out`; `scaled`: work memory."""
    dquery, dkey = out
    scale = query.dtype.type(scale)
    np.matmul(dscores, key, out=dquery)
    dquery *= scale
    scaled = np.multiply(query, scale, out=scaled)
    np.matmul(dscores.swapaxes(-1, -2), scaled, out=dkey)


def _gradients(query, key, attn_mask):
    """Return room for the gradients: of a mask, to which samples add, zeros; or None."""
    dmask = np.zeros_like(attn_mask) if _is_additive(attn_mask) else None
    return np.empty(query.shape, query.dtype), np.empty(key.shape, key.dtype), dmask


def _add_to_mask(dmask, block, dscores):
    """Add the gradient of some samples' scores to that of the mask, if it has one."""
    if dmask is not None:
        part = dmask[block] if _by_sample(dmask, dscores) else dmask
        part += _sum_to_shape(dscores, part.shape)


def _sum_to_shape(gradient, shape):
    """Return `gradient` summed over the axes along which a mask of `shape` was broadcast."""
    new_axes = gradient.ndim - len(shape)
    stretched = [new_axes + i for i, n in enumerate(shape) if n == 1]
    summed = gradient.sum(axis=(*range(new_axes), *stretched), keepdims=True)
    return summed.reshape(shape)


def _is_additive(attn_mask) -> bool:
    return attn_mask is not None and attn_mask.dtype != np.bool_


def _check_gradient(dy, query, shape):
    dy = _validate.floats("dy", dy)
    _validate.same_dtype(dy=dy, query=query)
    return _validate.has_shape("dy", dy, shape, "the shape of the output")


def _check(query, key, value, attn_mask, is_causal, scale):
    query = _validate.floats("query", query, min_ndim=2)
    key = _validate.floats("key", key, min_ndim=2)
    if query.shape[:-2] != key.shape[:-2] or query.shape[-1] != key.shape[-1]:
        raise ValueError(
            "query (…, l, e) and key (…, s, e) must have the same leading axes and features, "
            f"got {query.shape} and {key.shape}"
        )
    if value is not None:
        value = _validate.floats("value", value, min_ndim=2)
        if value.shape[:-1] != key.shape[:-1]:
            raise ValueError(
                f"value must have one row for each key, {(*key.shape[:-1], '…')}, got {value.shape}"
            )
    _validate.same_dtype(query=query, key=key, value=value)
    if attn_mask is not None:
        attn_mask = _check_mask(attn_mask, query, key, is_causal)
    if scale is None:
        scale = 1 / math.sqrt(max(1, query.shape[-1]))
    return query, key, value, attn_mask, _validate.number("scale", scale)


def _check_mask(attn_mask, query, key, is_causal):
    if is_causal:
        raise ValueError("give either attn_mask or is_causal=True, not both")
    if not isinstance(attn_mask, np.ndarray):
        raise TypeError(f"attn_mask must be a NumPy array, got {type(attn_mask).__name__}")
    if attn_mask.dtype != np.bool_:
        if attn_mask.dtype not in _validate.FLOATS:
            raise TypeError(f"attn_mask must hold bool or floats, got {attn_mask.dtype}")
        _validate.same_dtype(attn_mask=attn_mask, query=query)
    scores = (*query.shape[:-1], key.shape[-2])
    fits = attn_mask.ndim <= len(scores) and all(
        n in (1, m) for n, m in zip(attn_mask.shape[::-1], scores[::-1], strict=False)
    )
    if not fits:
        raise ValueError(
            f"attn_mask must broadcast to the scores {scores}, got shape {attn_mask.shape}"
        )
    return attn_mask
