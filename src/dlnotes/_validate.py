"""Checks at the public door: each error names the argument, what was given and what is allowed.

Every function returns its checked argument, so that a kernel can write
`x = _validate.floats("x", x)`. TypeError means a wrong type or dtype, ValueError a wrong
shape, range or choice.
"""

import math
import numbers
from collections.abc import Iterable

import numpy as np

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
Number = int | float | np.integer | np.floating  # what counts as a number in annotations
Mask = tuple[bool, ...] | list[bool]  # for each input, whether its gradient is wanted


def floats(name: str, value, *, ndim: int | None = None, min_ndim: int = 0) -> np.ndarray:
    """Return `value`, an array (or NumPy scalar) of float32 or float64, as an array.

    `ndim` asks for exactly that many axes, `min_ndim` for at least that many.
    """
    if not isinstance(value, np.ndarray | np.floating):
        raise TypeError(f"{name} must be a NumPy array of floats, got {_kind(value)}")
    if value.dtype not in FLOATS:
        raise TypeError(f"{name} must be float32 or float64, got {value.dtype}")
    value = np.asarray(value)
    if ndim is not None and value.ndim != ndim:
        raise ValueError(f"{name} must have {_axes(ndim)}, got shape {value.shape}")
    if value.ndim < min_ndim:
        raise ValueError(f"{name} must have at least {_axes(min_ndim)}, got shape {value.shape}")
    return value


def without_tensor(value):
    """Return the array inside a tensor of dlnotes or torch (torch is not imported), or `value`."""
    if hasattr(value, "detach"):
        value = value.detach()
        return (value.cpu() if hasattr(value, "cpu") else value).numpy()
    return value


def same_dtype(**arrays: np.ndarray | None) -> None:
    """Raise TypeError unless all arrays (None is skipped) have one dtype."""
    given = {name: array.dtype for name, array in arrays.items() if array is not None}
    if len(set(given.values())) > 1:
        listed = ", ".join(f"{name} is {dtype}" for name, dtype in given.items())
        raise TypeError(
            f"{' and '.join(given)} must have the same dtype, but {listed}; convert with .astype"
        )


def same_shape(**arrays: np.ndarray) -> None:
    """Raise ValueError unless all arrays have one shape (nothing is broadcast)."""
    if len({array.shape for array in arrays.values()}) > 1:
        listed = ", ".join(f"{name} has {array.shape}" for name, array in arrays.items())
        raise ValueError(f"{' and '.join(arrays)} must have the same shape, but {listed}")


def has_shape(name: str, value: np.ndarray, shape: tuple[int, ...], why: str = "") -> np.ndarray:
    """Return `value` if it has exactly `shape`; `why` says where that shape comes from."""
    if value.shape != tuple(shape):
        reason = f" ({why})" if why else ""
        raise ValueError(f"{name} must have shape {tuple(shape)}{reason}, got {value.shape}")
    return value


def finite(name: str, value: np.ndarray | np.floating) -> np.ndarray | np.floating:
    """Return `value` if it holds neither NaN nor infinity."""
    bad = ~np.isfinite(value)
    if np.any(bad):
        raise ValueError(f"{name} must be finite, got {value[bad][0]}{_first(bad)}")
    return value


def probabilities(name: str, value: np.ndarray | np.floating) -> np.ndarray | np.floating:
    """Return `value` if all entries lie in [0, 1]; NaN does not."""
    if value.size and not (value.min() >= 0 and value.max() <= 1):
        bad = ~((value >= 0) & (value <= 1))
        raise ValueError(
            f"{name} must hold probabilities in [0, 1], got {value[bad][0]}{_first(bad)}"
        )
    return value


def labels(name: str, value, *, classes: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return `value`, integer class labels in 0 … classes - 1, of exactly `shape`."""
    if not isinstance(value, np.ndarray | np.integer):
        raise TypeError(f"{name} must be a NumPy array of integer labels, got {_kind(value)}")
    if not np.issubdtype(value.dtype, np.integer):
        raise TypeError(f"{name} must hold integer labels, got {value.dtype}")
    value = has_shape(name, np.asarray(value), shape, "one label for each sample")
    if value.size and (value.min() < 0 or value.max() >= classes):
        bad = (value < 0) | (value >= classes)
        raise ValueError(
            f"{name} must hold labels in 0 … {classes - 1}, got {value[bad][0]}{_first(bad)}"
        )
    return value


def dimension(name: str, value, ndim: int) -> int:
    """Return the axis `value` (negative counts from the end) as an index in 0 … ndim - 1."""
    value = integer(name, value)
    if not -ndim <= value < ndim:
        allowed = f"in {-ndim} … {ndim - 1}" if ndim else "impossible for an array without axes"
        raise ValueError(f"{name} must be {allowed}, got {value}")
    return value % ndim


def integer(name: str, value, *, low: int | None = None, high: int | None = None) -> int:
    """Return `value` as an int; `low` and `high` are the smallest and largest allowed."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an int, got {_kind(value)}")
    return int(_in_range(name, value, low, high))


def number(name: str, value, *, low: Number | None = None, high: Number | None = None) -> float:
    """Return `value` as a finite float; `low` and `high` are the smallest and largest allowed."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {_kind(value)}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    return float(_in_range(name, value, low, high))


def generator(name: str, value) -> np.random.Generator:
    """Return `value` if it is a generator of NumPy's."""
    if not isinstance(value, np.random.Generator):
        raise TypeError(
            f"{name} must be a numpy.random.Generator (np.random.default_rng(seed)), "
            f"got {_kind(value)}"
        )
    return value


def output_mask(value, count: int) -> tuple[bool, ...]:
    """Return `value`: True or False for each of `count` inputs, whether its gradient is wanted."""
    if not isinstance(value, tuple | list) or any(not isinstance(entry, bool) for entry in value):
        raise TypeError(f"output_mask must be a tuple of True and False, got {value!r}")
    if len(value) != count:
        raise ValueError(f"output_mask must have {count} entries, got {len(value)}")
    return tuple(value)


def one_of(name: str, value, allowed: Iterable[str]) -> str:
    """Return `value` if it is one of the allowed words; TypeError for an array."""
    allowed = list(allowed)
    if isinstance(value, np.ndarray):  # which == compares entry by entry
        listed = ", ".join(repr(word) for word in allowed)
        raise TypeError(f"{name} must be one of {listed}, got {_kind(value)}")
    if value not in allowed:
        listed = ", ".join(repr(word) for word in allowed)
        raise ValueError(f"{name} must be one of {listed}, got {value!r}")
    return value


def _in_range(name, value, low, high):
    if (low is not None and value < low) or (high is not None and value > high):
        if high is None:
            allowed = f"at least {low}"
        elif low is None:
            allowed = f"at most {high}"
        else:
            allowed = f"in {low} … {high}"
        raise ValueError(f"{name} must be {allowed}, got {value}")
    return value


def _kind(value) -> str:
    return f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__


def _axes(n: int) -> str:
    return f"{n} axis" if n == 1 else f"{n} axes"


def _first(bad: np.ndarray | np.bool_) -> str:
    """Say where the first bad entry stands."""
    if bad.ndim == 0:
        return ""
    position = ", ".join(str(i) for i in np.argwhere(bad)[0])
    return f" at index [{position}]"
