"""Sequences of different lengths in one batch, padded or packed, as in torch.nn.utils.rnn.

Padded, every sequence is filled up to the longest: simple, but the filling is computed with.
Packed, the steps stand one after another without filling: first the first steps of all sequences,
the longest sequence first, then the second steps of those that have one, and so on.

In each: TypeError for arguments of the wrong kind, ValueError for shapes and lengths that do not
fit. Cost: one copy of the steps.
"""

from typing import NamedTuple

import numpy as np

from dlnotes import _validate
from dlnotes.autograd import Tensor, cat, stack
from dlnotes.kernels.recurrent import packed_rows


class PackedSequence(NamedTuple):
    """Sequences of different lengths without padding, as the recurrent layers take and give them.

    data: (n, …), the steps in order of time; batch_sizes: (t,), how many sequences have each step.
    sorted_indices puts the sequences in falling order of length, unsorted_indices back; both are
    None where that is their order anyway. All four are tensors, integers but for data. Nothing is
    checked.
    """

    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None = None
    unsorted_indices: Tensor | None = None


def pack_padded_sequence(
    input, lengths, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Return the steps that count of padded sequences (t, b, …), or (b, t, …) with batch_first.

    lengths: b integers in 1 … t. With enforce_sorted they must not rise; without, the sequences are
    sorted, and `pad_packed_sequence` and the layers put them back in order. input: a tensor or
    array of 2 axes or more. TypeError for lengths that are no integers, ValueError for others than
    b of them in 1 … t.
    """
    input = input if isinstance(input, Tensor) else Tensor(input)
    if input.ndim < 2:
        raise ValueError(f"input must have at least 2 axes, got shape {input.shape}")
    input = input.transpose(0, 1) if batch_first else input
    steps, batch = input.shape[:2]
    lengths = _lengths(lengths, batch, steps)
    if enforce_sorted and (np.diff(lengths) > 0).any():
        raise ValueError(
            f"lengths must not rise, got {lengths}; with enforce_sorted=False any order will do"
        )
    rows, batch_sizes, order = packed_rows(lengths, int(lengths.max(initial=0)))
    data = input.reshape(steps * batch, *input.shape[2:])[rows]
    if enforce_sorted:
        return PackedSequence(data, Tensor(batch_sizes))
    return PackedSequence(data, Tensor(batch_sizes), Tensor(order), Tensor(np.argsort(order)))


def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float | int = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return (padded, lengths): (t, b, …), or (b, t, …) with batch_first, and b integers.

    t is the largest length, or total_length, which may not be smaller. padding_value: what stands
    behind the end of a sequence. TypeError for what is no PackedSequence, ValueError for a smaller
    total_length.
    """
    if not isinstance(sequence, PackedSequence):
        raise TypeError(f"sequence must be a PackedSequence, got {type(sequence).__name__}")
    data, batch_sizes = sequence.data, sequence.batch_sizes.data
    longest, batch = len(batch_sizes), int(batch_sizes.max(initial=0))
    steps = longest
    if total_length is not None:
        steps = _validate.integer("total_length", total_length, low=longest)
    lengths = np.count_nonzero(batch_sizes[:, None] > np.arange(batch), axis=0)
    if sequence.unsorted_indices is not None:
        lengths = lengths[sequence.unsorted_indices.data]
    # Each place takes its row of the data, or the row of padding behind them.
    rows, _, _ = packed_rows(lengths, longest)
    places = np.full(steps * batch, len(data))
    places[rows] = np.arange(len(data))
    padded = cat([data, _filled(data, 1, padding_value)])[places]
    padded = padded.reshape(steps, batch, *data.shape[1:])
    return padded.transpose(0, 1) if batch_first else padded, Tensor(lengths)


def pad_sequence(
    sequences,
    batch_first: bool = False,
    padding_value: float | int = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Return a list of sequences (t_i, …) side by side: (t, b, …), or (b, t, …) with batch_first.

    t is the largest length; shorter ones are filled up behind (or, with "left", before). All have
    the same axes but the first. TypeError for no list or an empty one, ValueError for numbers
    without an axis and another padding_side.
    """
    _validate.one_of("padding_side", padding_side, ["right", "left"])
    if not isinstance(sequences, list | tuple) or not sequences:
        kind = type(sequences).__name__
        raise TypeError(f"sequences must be a list or tuple with at least one, got {kind}")
    sequences = [one if isinstance(one, Tensor) else Tensor(one) for one in sequences]
    if any(not one.ndim for one in sequences):
        raise ValueError("sequences must have at least 1 axis, got a number")
    steps, padded = max(len(one) for one in sequences), []
    for one in sequences:
        parts = [one, _filled(one, steps - len(one), padding_value)]
        padded.append(cat(parts if padding_side == "right" else parts[::-1]))
    return stack(padded, dim=0 if batch_first else 1)


def _filled(like: Tensor, rows: int, value) -> Tensor:
    """Return that many rows like those of the tensor, filled with one value."""
    return Tensor(np.full((rows, *like.shape[1:]), value, like.dtype))


def _lengths(lengths, batch: int, steps: int) -> np.ndarray:
    lengths = np.asarray(_validate.without_tensor(lengths))
    lengths = lengths.data if isinstance(lengths, Tensor) else lengths
    if lengths.dtype.kind not in "iu" and lengths.size:
        raise TypeError(f"lengths must hold integers, got {lengths.dtype}")
    _validate.has_shape("lengths", lengths, (batch,), "one for each sequence")
    if lengths.size and (lengths.min() < 1 or lengths.max() > steps):
        raise ValueError(f"lengths must be in 1 … {steps}, got {lengths}")
    return lengths.astype(np.int64)
