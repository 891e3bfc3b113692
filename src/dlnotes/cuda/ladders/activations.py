"""Softmax over rows: rungs of activations.cu."""

from dlnotes.cuda.ladders._base import WARPS, Ladder, Rung, blocks


def _rows(name: str, reason: str, block: int, rows_a_block: int, shared: bool = False) -> Rung:
    def run(s, x):
        rows, columns = x.shape
        y = s.empty(x.shape, x)
        shared_bytes = 4 * block if shared else 0
        s.launch(
            name, blocks(rows, rows_a_block), block, rows, columns, x, y, shared_bytes=shared_bytes
        )
        return y

    return Rung(name, reason, run, (name,))


def _softmax_backward(s, dy, y):
    dx = s.empty(y.shape, y)
    s.launch("softmax_backward", blocks(len(y), WARPS), 32 * WARPS, *y.shape, dy, y, dx)
    return dx


FAMILY = (
    Ladder(
        "softmax",
        "activations.cu",
        "softmax",
        (
            _rows("softmax_naive", "One thread a row.", 64, 64),
            _rows(
                "softmax_block",
                "A block a row: neighbouring threads read neighbouring numbers.",
                128,
                1,
                True,
            ),
            _rows(
                "softmax_warp",
                "A warp a row: shuffles in place of shared memory and barriers.",
                32 * WARPS,
                WARPS,
            ),
            _rows(
                "softmax_online",
                "Maximum and sum in one pass: x is read twice, not three times.",
                32 * WARPS,
                WARPS,
            ),
        ),
    ),
    Ladder(
        "softmax_backward",
        "activations.cu",
        "softmax_backward",
        (Rung("softmax_backward", "A warp a row.", _softmax_backward, ("softmax_backward",)),),
    ),
)
