"""Rows of a table by number: rungs of embedding.cu."""

import numpy as np

from dlnotes.cuda.ladders._base import WARPS, Ladder, Rung, blocks


def _embedding(name: str, reason: str, block: int, tokens_a_block: int) -> Rung:
    def run(s, ids, table):
        y = s.empty((len(ids), table.shape[1]), table)
        s.launch(name, blocks(len(ids), tokens_a_block), block, *y.shape, ids, table, y)
        return y

    return Rung(name, reason, run, (name,))


def _embedding_backward(name: str, reason: str, block: int, tokens_a_block: int) -> Rung:
    def run(s, dy, ids, rows):
        dtable = s.zeros((rows, dy.shape[1]), dy)
        s.launch(name, blocks(len(ids), tokens_a_block), block, *dy.shape, ids, dy, dtable)
        return dtable

    return Rung(name, reason, run, (name,))


def _embedding_backward_sorted(s, dy, ids, rows):
    if isinstance(ids, np.ndarray):
        order = np.argsort(ids, kind="stable")
        starts = np.searchsorted(ids[order], np.arange(rows + 1)).astype(np.int64)
    else:
        import torch

        order = ids.argsort(stable=True)
        starts = torch.searchsorted(ids[order], torch.arange(rows + 1, device=ids.device))
    dtable = s.empty((rows, dy.shape[1]), dy)
    grid = blocks(rows, WARPS)
    s.launch(
        "embedding_backward_sorted", grid, 32 * WARPS, *dtable.shape, order, starts, dy, dtable
    )
    return dtable


FAMILY = (
    Ladder(
        "embedding",
        "embedding.cu",
        "embedding",
        (
            _embedding("embedding_naive", "One thread a token.", 64, 64),
            _embedding(
                "embedding_wide", "A warp a token: the lanes read neighbours.", 32 * WARPS, WARPS
            ),
        ),
    ),
    Ladder(
        "embedding_backward",
        "embedding.cu",
        "embedding_backward",
        (
            _embedding_backward(
                "embedding_backward_naive", "One thread a token, by atomics.", 64, 64
            ),
            _embedding_backward(
                "embedding_backward_wide",
                "A warp a token: atomics on neighbours.",
                32 * WARPS,
                WARPS,
            ),
            Rung(
                "embedding_backward_sorted",
                "Tokens sorted: sums in registers, one write, no atomics.",
                _embedding_backward_sorted,
                ("embedding_backward_sorted",),
            ),
        ),
    ),
)
