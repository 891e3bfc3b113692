"""Drawing from many outcomes in constant time: the alias method (Walker, 1977; Vose, 1991)."""

import numpy as np
from jaxtyping import Float, Integer

from dlnotes import _validate

Table = tuple[Float[np.ndarray, " n"], Integer[np.ndarray, " n"]]


def alias_table(probabilities: Float[np.ndarray, " n"]) -> Table:
    """Return (keep, alias), floats and int64 of shape (n,), for `alias_sample`.

    Cut into n columns of equal width 1/n, the probabilities fill each column with at most two
    outcomes: column i holds outcome i up to the share keep[i], and alias[i] above it, so that
    p_i = (keep[i] + Σ of 1 - keep[j] over all j with alias[j] = i) / n. O(n) (Vose, 1991).

    `probabilities` are at least 0 and divided by their sum, which must be above 0, else ValueError.
    """
    p = _validate.finite("probabilities", _validate.floats("probabilities", probabilities, ndim=1))
    if not len(p) or p.min() < 0 or p.sum() == 0:
        raise ValueError("probabilities must be at least 0 and not all 0")
    filled = (p.astype(np.float64) / p.sum(dtype=np.float64) * len(p)).tolist()
    alias = list(range(len(p)))
    low = [i for i, share in enumerate(filled) if share < 1]
    high = [i for i, share in enumerate(filled) if share >= 1]
    while low and high:
        short, long = low.pop(), high[-1]
        alias[short] = long  # fills the column up with what `long` has too much
        filled[long] -= 1 - filled[short]
        if filled[long] < 1:
            low.append(high.pop())
    # Those left over differ from a full column by rounding alone.
    for i in low + high:
        filled[i] = 1
    return np.array(filled, p.dtype), np.array(alias, np.int64)


def alias_sample(
    table: Table, size: int | tuple[int, ...], generator: np.random.Generator
) -> Integer[np.ndarray, "..."]:
    """Return int64 outcomes of shape `size`, drawn independently: a column, then which half of it.

    `table` is what `alias_table` returned. Each draw takes two random numbers, however many
    outcomes there are. TypeError or ValueError for what cannot be such a table.
    """
    keep, alias = _check_table(table)
    for length in size if isinstance(size, tuple | list) else (size,):
        _validate.integer("size", length, low=0)
    _validate.generator("generator", generator)
    column = generator.integers(0, len(keep), size)
    return np.where(generator.random(size) < keep[column], column, alias[column])


def _check_table(table):
    """Return (keep, alias), of which kinds and shapes are checked: the rest would cost O(n)."""
    if not isinstance(table, tuple | list) or len(table) != 2:
        raise TypeError(
            f"table must be the pair (keep, alias) of alias_table, got {type(table).__name__}"
        )
    keep = _validate.floats("keep of table", table[0], ndim=1)
    alias = table[1]
    if not isinstance(alias, np.ndarray) or alias.dtype.kind not in "iu":
        kind = alias.dtype if isinstance(alias, np.ndarray) else type(alias).__name__
        raise TypeError(f"alias of table must be a NumPy array of integers, got {kind}")
    if not keep.size or alias.shape != keep.shape:
        raise ValueError(
            f"table must hold two arrays of one length above 0, got {keep.shape} and {alias.shape}"
        )
    return keep, alias
