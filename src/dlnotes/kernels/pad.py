"""Padding: entries in front of and behind each axis, of a constant or taken from the array.

TypeError for arrays that are not float32 or float64 or differ in dtype, ValueError for shapes that
do not fit or a setting out of range.

Cost: the entries of the result are written once for each axis that is padded.
"""

import numpy as np
from jaxtyping import Float

from dlnotes import _validate
from dlnotes._validate import Number

MODES = ("constant", "reflect", "replicate", "circular")
Pads = tuple[int, ...] | list[int]


def pad(
    x: Float[np.ndarray, "*shape"], pad: Pads, mode: str = "constant", value: Number | None = None
) -> Float[np.ndarray, "*padded"]:
    """Return x with pad[0] entries in front of its last axis and pad[1] behind it, and so on.

    pad[2] and pad[3] are for the last axis but one, as in torch; negative numbers cut off. What is
    added is `value` ("constant"; None is 0), the entries mirrored at the edge, which is not
    repeated ("reflect"), the edge itself ("replicate"), or what lies at the other end ("circular").
    """
    x, pairs, value = _check(x, pad, mode, value)
    y = x if pairs else x.copy()
    for axis, (front, behind) in pairs:
        source, inside, kept, copies = _source(y.shape[axis], front, behind, mode)
        x, y = y, np.full((*y.shape[:axis], len(source), *y.shape[axis + 1 :]), value, y.dtype)
        before = (slice(None),) * axis
        y[*before, inside] = x[*before, kept]
        if mode != "constant":
            y[*before, copies] = x[*before, source[copies]]
    return y


def pad_backward(
    dy: Float[np.ndarray, "*padded"],
    x: Float[np.ndarray, "*shape"],
    pad: Pads,
    mode: str = "constant",
    value: Number | None = None,
) -> Float[np.ndarray, "*shape"]:
    """Return dx: each entry of dy is added to the entry of x that it was taken from."""
    x, pairs, _ = _check(x, pad, mode, value)
    dy = _validate.floats("dy", dy)
    _validate.same_dtype(dy=dy, x=x)
    sizes = dict(pairs)
    shape = [n + sum(sizes.get(axis, (0, 0))) for axis, n in enumerate(x.shape)]
    _validate.has_shape("dy", dy, tuple(shape), "the shape of the output")
    dx = dy if pairs else dy.copy()
    for axis, (front, behind) in reversed(pairs):
        source, inside, kept, copies = _source(x.shape[axis], front, behind, mode)
        before = (slice(None),) * axis
        dy, dx = dx, np.zeros((*dx.shape[:axis], x.shape[axis], *dx.shape[axis + 1 :]), x.dtype)
        dx[*before, kept] = dy[*before, inside]  # each entry once; then the copies
        for place in () if mode == "constant" else copies:
            dx[*before, source[place]] += dy[*before, place]
    return dx


def _source(size, front, behind, mode):
    """Return which entry of an axis stands at each place after padding.

    Also the slice of the places that are no copies, the slice of the entries that stand there, and
    the other places.
    """
    first, left = max(0, -front), size + min(0, front) + min(0, behind)
    kept = slice(first, first + left)
    inside = slice(max(0, front), max(0, front) + left)
    places = np.arange(-front, size + behind)
    copies = np.delete(np.arange(len(places)), inside)
    if mode == "reflect":
        last = size - 1
        source = last - np.abs(last - np.abs(places))
    elif mode == "circular":  # goes round what is left where entries are cut off
        source = (places - first) % max(1, left) + first
    else:
        source = np.clip(places, 0, size - 1)
    return source, inside, kept, copies


def _check(x, pad, mode, value):
    """Return x, [(axis, (in front, behind))] of the axes that change, and the value."""
    x = _validate.floats("x", x)
    _validate.one_of("mode", mode, MODES)
    pad = [_validate.integer("pad", entry) for entry in pad]
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise ValueError(f"pad must have two ints for each axis from the last on, got {pad}")
    pairs = []
    for axis, pair in enumerate(zip(pad[::2], pad[1::2], strict=True), start=1):
        size = x.shape[-axis]
        if min(*pair, sum(pair)) < -size:
            raise ValueError(f"pad must not cut more off than the {size} entries, got {pair}")
        # A mirror does not repeat the edge; once round is no more than all entries.
        left = size + sum(min(0, p) for p in pair)
        most = {"reflect": size - 1, "circular": left, "replicate": size and np.inf}.get(mode)
        if most is not None and max(pair) > max(0, most):
            raise ValueError(f"pad must be at most {most} for mode={mode!r} here, got {pair}")
        if pair != (0, 0):
            pairs.append((x.ndim - axis, pair))
    value = 0.0 if value is None else value
    if not isinstance(value, Number):  # it may be infinite: for a maximum, -∞ is nothing
        raise TypeError(f"value must be a number, got {type(value).__name__}")
    return x, pairs, x.dtype.type(value)
