"""Where the windows of a convolution or a pooling lie, whatever the number of axes.

Window o of an axis holds, for each offset i = 0 … kernel - 1, the input's entry
o · stride + i · dilation - padding. Convolution, unfold, fold and pooling all walk over the
offsets: for a fixed offset, the entries of all windows form one strided slice of the input.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dlnotes import _validate

Size = int | np.integer | tuple[int, ...] | list[int]  # one number for every axis, or one for each


class Windows(NamedTuple):
    """Input size, kernel, stride, dilation, padding in front, and number of windows, by axis."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]
    out: tuple[int, ...]

    def offsets(self) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...], tuple[slice, ...]]]:
        """Yield (offset, windows, entries) for each offset in the kernel, row by row.

        `windows` are slices of the windows whose entry at this offset lies inside the input, and
        `entries` the slices of those entries: out[windows] and x[entries] have one shape.
        """
        for offset in itertools.product(*map(range, self.kernel)):
            starts = (
                i * d - p for i, d, p in zip(offset, self.dilation, self.padding, strict=True)
            )
            pairs = [
                inside(*axis) for axis in zip(self.size, self.stride, starts, self.out, strict=True)
            ]
            yield offset, tuple(w for w, _ in pairs), tuple(e for _, e in pairs)


def inside(size: int, stride: int, start: int, count: int) -> tuple[slice, slice]:
    """Return which of the positions start + stride · (0 … count - 1) lie in 0 … size - 1.

    The first slice picks them among the positions, the second among the entries.
    """
    first = max(0, -(start // stride))
    last = min(count - 1, (size - 1 - start) // stride)
    if last < first:
        return slice(0, 0), slice(0, 0)
    begin = start + first * stride
    return slice(first, last + 1), slice(begin, start + last * stride + 1, stride)


def sizes(name: str, value, count: int, *, low: int) -> tuple[int, ...]:
    """Return `value` as `count` ints: one, also in a tuple, stands for all axes."""
    entries = value if isinstance(value, tuple | list) else (value,)
    if len(entries) not in (1, count):
        raise ValueError(f"{name} must be an int or {count} ints, got {value}")
    entries = tuple(_validate.integer(name, entry, low=low) for entry in entries)
    return entries if len(entries) == count else entries * count


def same_padding(kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Return the padding (in front, behind) of each axis that keeps its length at stride 1."""
    totals = (d * (k - 1) for k, d in zip(kernel, dilation, strict=True))
    return tuple((total // 2, total - total // 2) for total in totals)


def extent(kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[int, ...]:
    """Return how many entries a window spans along each axis: dilation · (kernel - 1) + 1."""
    return tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
