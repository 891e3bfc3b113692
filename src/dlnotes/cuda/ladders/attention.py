"""Attention: rungs of attention.cu.

query (…, l, e), key (…, s, e), value (…, s, v), all with the same leading axes, and the mask as in
`dlnotes.kernels.attention`: bool or float32, broadcast to the scores, with at most four axes. The
forward rungs return (y, log Σ e^score of each query), the backward rungs, which take both,
(dquery, dkey, dvalue); a mask gets no gradient here. The rungs on tensor cores take query, key and
value (and dy) of bfloat16, all else and all results are float32.
"""

import ctypes
import math

from dlnotes.cuda.ladders._base import WARPS, Ladder, Record, Rung, blocks, ints

# Widest vectors: queries (or keys) of a block and of a tile, forward and backward.
_FORWARD = {32: (64, 32), 64: (64, 32), 128: (32, 16)}
_BACKWARD = {32: (32, 32), 64: (32, 32), 128: (16, 16)}
# The same on tensor cores, and how many times 16 rows a warp has.
_FORWARD_MMA = {32: (128, 64, 2), 64: (128, 64, 2), 128: (128, 64, 1)}
_BACKWARD_MMA = {32: (128, 32, 2), 64: (128, 32, 2), 128: (128, 32, 1)}


class Attention(Record):
    """The struct Attention of attention.cu."""

    _fields_ = (
        *ints("samples heads queries keys e v causal"),
        ("scale", ctypes.c_float),
        *ints("mask_batch mask_head mask_query mask_key"),
    )


def attention_sizes(query, key, value, attn_mask=None, is_causal=False, scale=None) -> Attention:
    """Return the sizes of attention; the mask's strides are 0 along axes of length 1."""
    *leading, queries, e = query.shape
    keys, v = value.shape[-2:]
    strides = [0] * 4
    if attn_mask is not None:
        if len(attn_mask.shape) > 4:
            raise ValueError(f"attn_mask must have at most 4 axes, got {tuple(attn_mask.shape)}")
        step = 1
        for axis, size in zip((3, 2, 1, 0), attn_mask.shape[::-1], strict=False):
            strides[axis] = 0 if size == 1 else step
            step *= size
    scale = 1 / math.sqrt(max(1, e)) if scale is None else scale
    heads = leading[-1] if leading else 1
    samples = math.prod(leading)
    return Attention(samples, heads, queries, keys, e, v, is_causal, scale, *strides)


def _masks(attn_mask) -> tuple:
    """Return (where a query may look, what is added to its scores), None for what is not given."""
    if attn_mask is None:
        return None, None
    return (attn_mask, None) if "bool" in str(attn_mask.dtype) else (None, attn_mask)


def _width(rung: str, p: Attention) -> int:
    """Return how wide the vectors are once they are filled up by zeros."""
    widest = max(p.e, p.v)
    if widest > 128:
        raise ValueError(
            f"{rung} takes queries, keys and values of at most 128 numbers, got {widest}"
        )
    return next(width for width in _FORWARD if widest <= width)


def _weights(s, p, query, key, attn_mask):
    """Return the matrix of weights and log Σ e^score."""
    rows = p.samples * p.queries
    weights, log_sum = s.empty((rows, p.keys), query), s.empty(query.shape[:-1], query)
    grid = blocks(rows * p.keys, 128)
    s.launch("attention_scores_naive", grid, 128, p, query, key, *_masks(attn_mask), weights)
    s.launch("attention_softmax_naive", blocks(rows, 64), 64, p, weights, log_sum)
    return weights, log_sum


def _product(s, p, weights, x, like, factor=1.0, transposed=False):
    """Return factor · W X, or factor · Wᵀ X, in the shape of `like`, or with the columns of x."""
    out = s.empty((*like.shape[:-1], x.shape[-1]), like)
    rows = p.samples * (p.keys if transposed else p.queries)
    name = "attention_product_transposed_naive" if transposed else "attention_product_naive"
    s.launch(name, blocks(rows * x.shape[-1], 128), 128, p, x.shape[-1], factor, weights, x, out)
    return out


def _attention_naive(s, query, key, value, attn_mask=None, is_causal=False, scale=None):
    p = attention_sizes(query, key, value, attn_mask, is_causal, scale)
    weights, log_sum = _weights(s, p, query, key, attn_mask)
    return _product(s, p, weights, value, query), log_sum


def _attention_online(s, query, key, value, attn_mask=None, is_causal=False, scale=None):
    p = attention_sizes(query, key, value, attn_mask, is_causal, scale)
    y, log_sum = s.empty((*query.shape[:-1], p.v), query), s.empty(query.shape[:-1], query)
    kernel = f"attention_online<{_width('attention_online', p)}>"
    grid = blocks(p.samples * p.queries, WARPS)
    inputs = (query, key, value, *_masks(attn_mask))
    s.launch(kernel, grid, 32 * WARPS, p, *inputs, y, log_sum)
    return y, log_sum


def _attention_tiled(s, query, key, value, attn_mask=None, is_causal=False, scale=None):
    p = attention_sizes(query, key, value, attn_mask, is_causal, scale)
    y, log_sum = s.empty((*query.shape[:-1], p.v), query), s.empty(query.shape[:-1], query)
    width = _width("attention_tiled", p)
    rows, columns = _FORWARD[width]
    kernel, grid = (
        f"attention_tiled<{width}, {rows}, {columns}>",
        p.samples * blocks(p.queries, rows),
    )
    s.launch(kernel, grid, 2 * rows, p, query, key, value, *_masks(attn_mask), y, log_sum)
    return y, log_sum


def _attention_mma(s, query, key, value, attn_mask=None, is_causal=False, scale=None):
    p = attention_sizes(query, key, value, attn_mask, is_causal, scale)
    y = s.empty((*query.shape[:-1], p.v), query, "float32")
    log_sum = s.empty(query.shape[:-1], query, "float32")
    width = _width("attention_mma", p)
    rows, columns, each = _FORWARD_MMA[width]
    kernel = f"attention_mma<{width}, {rows}, {columns}, {each}>"
    grid, block = p.samples * blocks(p.queries, rows), rows // each * 2
    shared_bytes = 2 * width * (rows + 4 * columns)  # a tile of queries, two of keys and of values
    inputs = (query, key, value, *_masks(attn_mask))
    s.launch(kernel, grid, block, p, *inputs, y, log_sum, shared_bytes=shared_bytes)
    return y, log_sum


def _dots(s, p, dy, y, of: str = "float"):
    dots = s.empty(y.shape[:-1], y)
    grid = blocks(p.samples * p.queries, WARPS)
    s.launch(f"attention_backward_dots<{of}>", grid, 32 * WARPS, p, dy, y, dots)
    return dots


def _backward_naive(
    s, dy, query, key, value, y, log_sum, attn_mask=None, is_causal=False, scale=None
):
    p = attention_sizes(query, key, value, attn_mask, is_causal, scale)
    weights, _ = _weights(s, p, query, key, attn_mask)
    dots, dscores = _dots(s, p, dy, y), s.empty(weights.shape, weights)
    s.launch(
        "attention_backward_scores_naive",
        blocks(p.samples * p.queries * p.keys, 128),
        128,
        p,
        dy,
        value,
        weights,
        dots,
        dscores,
    )
    dquery = _product(s, p, dscores, key, query, p.exact("scale"))
    dkey = _product(s, p, dscores, query, key, p.exact("scale"), transposed=True)
    return dquery, dkey, _product(s, p, weights, dy, value, transposed=True)


def _backward_tiled(
    s, dy, query, key, value, y, log_sum, attn_mask=None, is_causal=False, scale=None
):
    p = attention_sizes(query, key, value, attn_mask, is_causal, scale)
    width = _width("attention_backward_tiled", p)
    rows, columns = _BACKWARD[width]
    dquery, dkey, dvalue = (s.empty(x.shape, x) for x in (query, key, value))
    inputs = (dy, query, key, value, *_masks(attn_mask), log_sum, _dots(s, p, dy, y))
    sizes, samples, block = f"<{width}, {rows}, {columns}>", p.samples, 4 * rows
    kernel, grid = f"attention_backward_query_tiled{sizes}", samples * blocks(p.queries, rows)
    s.launch(kernel, grid, block, p, *inputs, dquery)
    kernel, grid = f"attention_backward_key_value_tiled{sizes}", samples * blocks(p.keys, rows)
    s.launch(kernel, grid, block, p, *inputs, dkey, dvalue)
    return dquery, dkey, dvalue


def _backward_mma(
    s, dy, query, key, value, y, log_sum, attn_mask=None, is_causal=False, scale=None
):
    p = attention_sizes(query, key, value, attn_mask, is_causal, scale)
    width = _width("attention_backward_mma", p)
    rows, columns, each = _BACKWARD_MMA[width]
    dquery, dkey, dvalue = (s.empty(x.shape, x, "float32") for x in (query, key, value))
    dots = _dots(s, p, dy, y, "nv_bfloat16")
    inputs = (dy, query, key, value, *_masks(attn_mask), log_sum, dots)
    # A pair of tiles of its own rows, two pairs of the others'; then log_sum and dots of two tiles.
    of_tiles = 2 * width * (2 * rows + 4 * columns)
    sizes, samples, block = f"<{width}, {rows}, {columns}, {each}>", p.samples, rows // each * 2
    kernel, grid = f"attention_backward_query_mma{sizes}", samples * blocks(p.queries, rows)
    s.launch(kernel, grid, block, p, *inputs, dquery, shared_bytes=of_tiles)
    kernel, grid = f"attention_backward_key_value_mma{sizes}", samples * blocks(p.keys, rows)
    shared_bytes = of_tiles + 4 * 4 * columns
    s.launch(kernel, grid, block, p, *inputs, dkey, dvalue, shared_bytes=shared_bytes)
    return dquery, dkey, dvalue


FAMILY = (
    Ladder(
        "attention",
        "attention.cu",
        "scaled_dot_product_attention",
        (
            Rung(
                "attention_naive",
                "The matrix of scores stands in memory, a kernel for each step of the formula.",
                _attention_naive,
                ("attention_scores_naive", "attention_softmax_naive", "attention_product_naive"),
            ),
            Rung(
                "attention_online",
                "No matrix of scores: a running maximum and sum, one warp per query.",
                _attention_online,
                tuple(f"attention_online<{width}>" for width in _FORWARD),
            ),
            Rung(
                "attention_tiled",
                "Tiles of keys and values in shared memory serve all queries of a block.",
                _attention_tiled,
                tuple(f"attention_tiled<{d}, {m}, {n}>" for d, (m, n) in _FORWARD.items()),
            ),
            Rung(
                "attention_mma",
                "Both products on tensor cores: scores become weights without leaving registers.",
                _attention_mma,
                tuple(
                    f"attention_mma<{d}, {m}, {n}, {each}>"
                    for d, (m, n, each) in _FORWARD_MMA.items()
                ),
                needs="sm_80",
                dtype="bfloat16",
            ),
        ),
        operands=(0, 1, 2),
    ),
    Ladder(
        "attention_backward",
        "attention.cu",
        "scaled_dot_product_attention_backward",
        (
            Rung(
                "attention_backward_naive",
                "Weights and their gradients stand in memory.",
                _backward_naive,
                (
                    "attention_scores_naive",
                    "attention_softmax_naive",
                    "attention_backward_dots<float>",
                    "attention_backward_scores_naive",
                    "attention_product_naive",
                    "attention_product_transposed_naive",
                ),
            ),
            Rung(
                "attention_backward_tiled",
                "Scores are computed again from tiles: far fewer bytes, and no atomics.",
                _backward_tiled,
                (
                    "attention_backward_dots<float>",
                    *(
                        f"attention_backward_{of}_tiled<{d}, {m}, {n}>"
                        for of in ("query", "key_value")
                        for d, (m, n) in _BACKWARD.items()
                    ),
                ),
            ),
            Rung(
                "attention_backward_mma",
                "All products on tensor cores, the next tiles on their way meanwhile.",
                _backward_mma,
                (
                    "attention_backward_dots<nv_bfloat16>",
                    *(
                        f"attention_backward_{of}_mma<{d}, {m}, {n}, {each}>"
                        for of in ("query", "key_value")
                        for d, (m, n, each) in _BACKWARD_MMA.items()
                    ),
                ),
                needs="sm_80",
                dtype="bfloat16",
            ),
        ),
        operands=(0, 1, 2, 3),
    ),
)
