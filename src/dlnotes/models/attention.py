"""Attention for long sequences: to neighbours only, and to what hashes alike (Reformer).

Both take tensors of any engine, (…, length, features), and cost O(length) instead of O(length²);
gradients flow through them as through any other function. ValueError for shapes and settings that
do not fit.
"""

import numpy as np

from dlnotes import _validate, random
from dlnotes.models import _engine

_ITSELF = -1e5  # added to the score of a position with itself: only where there is nothing else


def local_attention(query, key, value, window: int, is_causal: bool = False):
    """Return attention in which position i sees the keys i - window … i + window only.

    query and key (…, length, e), value (…, length, v) → (…, length, v); with is_causal, i sees the
    keys i - window … i. The sequence is cut into blocks of `window`, and the queries of a block are
    held against the keys of three blocks (two, if causal), so that no more than 3 · window scores
    of each query are computed (Parmar et al., 2018; Beltagy, Peters and Cohan, 2020). Cost and
    memory O(length · window).
    """
    window = _validate.integer("window", window, low=1)
    if not len(query.shape) == len(key.shape) == len(value.shape) >= 2 or not (
        tuple(query.shape) == tuple(key.shape)
        and tuple(query.shape[:-1]) == tuple(value.shape[:-1])
    ):
        raise ValueError(
            "query and key must have one shape, and value but for its last axis, got "
            f"{tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}"
        )
    F, (*leading, length, _) = _engine.functional(query), query.shape
    extra = -length % window
    query, key, value = (
        F.pad(x.reshape(-1, *x.shape[-2:]), (0, 0, 0, extra)) for x in (query, key, value)
    )
    count = (length + extra) // window
    query, key, value = (x.reshape(-1, count, window, x.shape[2]) for x in (query, key, value))
    around = (-1, 0) if is_causal else (-1, 0, 1)
    key, value = (_neighbours(F, x, around) for x in (key, value))
    here = np.arange(count * window).reshape(count, window, 1)
    there = (np.arange(count) * window)[:, None] + np.arange(
        around[0] * window, (around[-1] + 1) * window
    )
    distance = here - there[:, None, :]
    seen = (np.abs(distance) <= window) & (there >= 0)[:, None] & (there < length)[:, None]
    if is_causal:
        seen &= distance >= 0
    y = F.scaled_dot_product_attention(query, key, value, _engine.constant(seen, query))
    return y.reshape(-1, count * window, y.shape[3])[:, :length].reshape(*leading, length, -1)


def lsh_buckets(
    vectors, buckets: int, rounds: int = 1, generator: np.random.Generator | None = None
) -> np.ndarray:
    """Return (rounds, n, length): in which bucket each vector (n, length, e) falls, in each round.

    Vectors that point the same way fall into one bucket with high probability: the bucket is the
    largest entry of [x R, -x R] with a random R (e, buckets / 2) (Andoni et al., 2015). Draws come
    from `generator`, by default `dlnotes.random.generator()`.
    """
    x = np.asarray(_validate.without_tensor(vectors), np.float64)
    if x.ndim != 3:
        raise ValueError(f"vectors must have shape (n, length, e), got {x.shape}")
    buckets = _validate.integer("buckets", buckets, low=2)
    if buckets % 2:
        raise ValueError(f"buckets must be even, got {buckets}")
    rounds = _validate.integer("rounds", rounds, low=1)
    rng = random.generator() if generator is None else generator
    turned = x @ rng.standard_normal((rounds, 1, x.shape[2], buckets // 2))
    return np.concatenate([turned, -turned], axis=-1).argmax(axis=-1)


def lsh_attention(
    vectors,
    value,
    buckets: int,
    chunk: int,
    rounds: int = 1,
    is_causal: bool = False,
    generator: np.random.Generator | None = None,
):
    """Return the attention of Reformer (Kitaev, Kaiser and Levskaya, 2020): to like vectors only.

    vectors (n, length, e) are queries and, divided by their length, keys at once; value (n, length,
    v) → (n, length, v); heads may stand in n. In each round, positions are sorted by bucket
    (`lsh_buckets`) and cut into chunks of `chunk`, which must divide the length; a query sees the
    keys of its bucket in its own chunk and the one before, itself only if there is no other. The
    rounds are weighted by the sums of their exponentials. A key that several rounds find counts
    once in each; the paper divides that out. The buckets have no gradient. Cost and memory
    O(rounds · length · chunk), beside O(length²) for all pairs.
    """
    n, length, width = vectors.shape
    chunk = _validate.integer("chunk", chunk, low=1)
    if length % chunk or tuple(value.shape[:2]) != (n, length):
        raise ValueError(
            f"chunk must divide the length, and value have the shape ({n}, {length}, v), got "
            f"chunk={chunk} and {tuple(value.shape)}"
        )
    size = (vectors * vectors).sum(2).unsqueeze(2)
    keys = vectors / (size + 1e-12).sqrt()  # the small number: for vectors of 0
    outputs, sums = [], []
    for bucket in lsh_buckets(vectors, buckets, rounds, generator):
        order = np.argsort(bucket, axis=1, kind="stable")  # in a bucket, in order of position
        rows = np.arange(n)[:, None] * length + order
        queries, found, values = (
            _sorted(x, rows).reshape(n, length // chunk, chunk, -1) for x in (vectors, keys, value)
        )
        found, values = (_with_previous(x) for x in (found, values))
        scores = queries @ found.transpose(2, 3) / width**0.5
        seen, itself = _visible(np.take_along_axis(bucket, order, 1), order, chunk, is_causal)
        scores = scores + _engine.constant(np.where(itself, _ITSELF, 0.0), scores)
        scores = scores.masked_fill(_engine.constant(~seen, scores), -np.inf)
        total = scores.logsumexp(3)
        y = (scores - total.unsqueeze(3)).exp() @ values
        back = np.arange(n)[:, None] * length + np.argsort(order, axis=1)
        outputs.append(_sorted(y.reshape(n, length, -1), back))
        sums.append(_sorted(total.reshape(n, length, 1), back))
    share = _engine.functional(vectors).softmax(_engine.stack(sums), 0)
    return (share * _engine.stack(outputs)).sum(0)


def _neighbours(F, blocks, around):
    """Return each block (n, count, window, d) with the blocks around it, zeros past the ends."""
    count = blocks.shape[1]
    padded = F.pad(blocks, (0, 0, 0, 0, 1, 1))
    return _engine.cat([padded[:, 1 + shift : 1 + shift + count] for shift in around], 2)


def _sorted(x, rows):
    """Return x (n, length, d) with its positions in another order, rows (n, length) of all."""
    flat = x.reshape(-1, x.shape[2])
    return flat[_engine.constant(rows.reshape(-1), x)].reshape(*rows.shape, -1)


def _with_previous(chunks):
    """Return each chunk (n, count, chunk, d) behind the one before it; one alone stays alone."""
    if chunks.shape[1] == 1:
        return chunks
    before = _engine.cat([chunks[:, -1:], chunks[:, :-1]], 1)
    return _engine.cat([before, chunks], 2)


def _visible(bucket, place, chunk, is_causal):
    """Return which keys each query sees, (n, count, chunk, keys), and which of them it is itself.

    bucket and place (n, length): of each position, sorted by bucket.
    """
    n, length = bucket.shape
    own = [x.reshape(n, length // chunk, chunk) for x in (bucket, place)]
    keys = own
    if length > chunk:
        # Nothing comes before the first chunk.
        before = [np.roll(x, 1, axis=1) for x in own]
        before[0][:, 0] = -1
        keys = [np.concatenate(pair, axis=2) for pair in zip(before, own, strict=True)]
    seen = own[0][..., :, None] == keys[0][..., None, :]
    here, there = own[1][..., :, None], keys[1][..., None, :]
    if is_causal:
        seen &= there <= here
    return seen, here == there
