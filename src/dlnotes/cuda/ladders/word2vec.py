"""Negative sampling: rungs of word2vec.cu.

The step changes both tables in place and returns them and the loss of each pair, whose mean the
NumPy function returns. `negative_sampling_loss` returns the loss of each sample and, as
`cross_entropy` does, the gradients of their mean: (losses, dhidden, dweight).
"""

from dataclasses import dataclass

import numpy as np

from dlnotes.cuda.ladders._base import WARPS, Ladder, Rung, Session, blocks

_WARP_ROWS = (32 * WARPS, WARPS)  # threads of a block, and samples or questions that it has


@dataclass(frozen=True)
class _Way:
    """How slopes and changes are computed: a kernel, its block, and what a block has of each."""

    slopes: tuple[str, int, int]
    changes: tuple[str, int, int]

    def ask(self, s: Session, scale, remove_hits, hidden, rows, weight, asked) -> tuple:
        """Return (losses, slopes, dhidden)."""
        name, block, each = self.slopes
        (samples, questions), width = asked.shape, weight.shape[1]
        losses, slopes = s.empty((samples,), weight), s.empty(asked.shape, weight)
        dhidden = s.empty((samples, width), weight)
        sizes = (samples, questions, width, scale, int(remove_hits))
        arrays = (hidden, rows, weight, asked, losses, slopes, dhidden)
        s.launch(name, blocks(samples, each), block, *sizes, *arrays)
        return losses, slopes, dhidden

    def add(self, s: Session, factor, ids, weights, sources, rows, table) -> None:
        """Add factor · weights · sources to the rows `ids` (n, each) of a table, in place."""
        name, block, each = self.changes
        ids = ids.reshape(-1, 1) if len(ids.shape) == 1 else ids
        count, first = ids.shape[0] * ids.shape[1], ()
        if name == "add_rows_sorted":
            first = _sorted(ids.reshape(-1))
            count = len(first[1]) - 1
        sizes = (count, ids.shape[1], table.shape[1], factor)
        arrays = (*first, ids, weights, sources, rows, table)
        s.launch(name, blocks(count, each), block, *sizes, *arrays)


def _sorted(ids) -> tuple:
    """Return the order that sorts ids, and where each distinct one starts in it, and the end."""
    if isinstance(ids, np.ndarray):
        order = np.argsort(ids, kind="stable")
        starts = np.flatnonzero(np.diff(ids[order], prepend=-1, append=-1))
        return order, starts.astype(np.int64)
    import torch

    order = ids.argsort(stable=True)
    counts = torch.unique_consecutive(ids[order], return_counts=True)[1]
    return order, torch.nn.functional.pad(counts.cumsum(0), (1, 0))


def _asked(target, noise):
    """Return the words that each sample asks about, (n, 1 + k): its own first."""
    if isinstance(target, np.ndarray):
        return np.concatenate([target[:, None], noise], axis=1)
    import torch

    return torch.cat([target[:, None], noise], dim=1)


def _step(name: str, reason: str, way: _Way) -> Rung:
    def run(s, input_weight, output_weight, center, context, noise, lr, remove_hits=False):
        asked = _asked(context, noise)
        losses, slopes, dhidden = way.ask(
            s, 1.0, remove_hits, input_weight, center, output_weight, asked
        )
        way.add(s, -lr, asked, slopes, input_weight, center, output_weight)
        way.add(s, -lr, center, None, dhidden, None, input_weight)
        return input_weight, output_weight, losses

    return Rung(name, reason, run, (way.slopes[0], way.changes[0]))


def _loss(name: str, reason: str, way: _Way) -> Rung:
    def run(s, hidden, weight, target, noise, remove_hits=False):
        asked, dweight = _asked(target, noise), s.zeros(weight.shape, weight)
        scale = 1 / max(1, len(target))
        losses, slopes, dhidden = way.ask(s, scale, remove_hits, hidden, None, weight, asked)
        way.add(s, 1.0, asked, slopes, hidden, None, dweight)
        return losses, dhidden, dweight

    return Rung(name, reason, run, (way.slopes[0], way.changes[0]))


_NAIVE = _Way(("negative_sampling_naive", 64, 64), ("add_rows_naive", 64, 64))
_WARP = _Way(("negative_sampling_warp", *_WARP_ROWS), ("add_rows_warp", *_WARP_ROWS))
_SORTED = _Way(("negative_sampling_warp", *_WARP_ROWS), ("add_rows_sorted", *_WARP_ROWS))
_WAYS = (
    ("naive", "One thread a sample, one a question; changes by atomics.", _NAIVE),
    ("warp", "A warp a sample or question: the lanes read, and add to, neighbours.", _WARP),
    ("sorted", "Questions sorted by word: one write a row, no atomics.", _SORTED),
)

FAMILY = (
    Ladder(
        "skip_gram_negative_sampling_step",
        "word2vec.cu",
        "skip_gram_negative_sampling_step",
        tuple(_step(f"skip_gram_{name}", reason, way) for name, reason, way in _WAYS),
    ),
    Ladder(
        "negative_sampling_loss",
        "word2vec.cu",
        "negative_sampling_loss",
        tuple(_loss(f"negative_sampling_{name}", reason, way) for name, reason, way in _WAYS),
    ),
)
