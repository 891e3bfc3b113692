"""Dropout: a mask of what is kept, and the rest scaled up so that the mean stays.

The mask is an argument, so the kernels are pure; `dlnotes.nn.functional` draws it.
(Srivastava et al., 2014; whole channels: Tompson et al., 2015.)

Cost: one product for each entry. TypeError for x that is not float32 or float64 or a mask that is
not bool, ValueError for a mask that does not fit or p outside 0 … 1.
"""

import numpy as np
from jaxtyping import Bool, Float

from dlnotes import _validate
from dlnotes._validate import Number

Array = np.ndarray | np.floating
Mask = np.ndarray | np.bool_


def dropout(
    x: Float[Array, "*shape"], keep: Bool[Mask, "..."], p: Number = 0.5
) -> Float[Array, "*shape"]:
    """Return x / (1 - p) where `keep` is true and 0 elsewhere; p is the probability of dropping.

    keep: of x's shape, or of length 1 along the axes that are kept or dropped as a whole. p = 1
    gives 0 throughout.
    """
    x, factor = _validate.floats("x", x), _factor("x", x, keep, p)
    return x * factor


def dropout_backward(
    dy: Float[Array, "*shape"], keep: Bool[Mask, "..."], p: Number = 0.5
) -> Float[Array, "*shape"]:
    """Return dx: dy / (1 - p) where `keep` is true and 0 elsewhere; arguments as in `dropout`."""
    dy, factor = _validate.floats("dy", dy), _factor("dy", dy, keep, p)
    return dy * factor


def _factor(name, x, keep, p):
    """Return 1 / (1 - p) or 0 for each entry, in x's dtype."""
    x = _validate.floats(name, x)
    p = _validate.number("p", p, low=0, high=1)
    if not isinstance(keep, np.ndarray | np.bool_) or keep.dtype != np.bool_:
        kind = getattr(keep, "dtype", type(keep).__name__)
        raise TypeError(f"keep must be a NumPy array of bool, got {kind}")
    fits = keep.ndim == x.ndim and all(
        k in (1, n) for k, n in zip(keep.shape, x.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"keep must have {name}'s shape {x.shape}, or 1 there, got {keep.shape}")
    return keep * x.dtype.type(0 if p == 1 else 1 / (1 - p))
