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


_KEPT = (1, 4, 16, 32)  # entries of a row that a lane keeps in registers


def _softmax_backward(name: str, reason: str, block: int, rows_a_block: int) -> Rung:
    def run(s, dy, y):
        dx = s.empty(y.shape, y)
        s.launch(name, blocks(len(y), rows_a_block), block, *y.shape, dy, y, dx)
        return dx

    return Rung(name, reason, run, (name,))


def _softmax_backward_kept(s, dy, y):
    """Rows that are too long for the registers go to the rung below."""
    each = next((each for each in _KEPT if y.shape[1] <= 32 * each), None)
    if each is None:
        return _BACKWARD_WARP.run(s, dy, y)
    dx, kernel = s.empty(y.shape, y), f"softmax_backward_kept<{each}>"
    s.launch(kernel, blocks(len(y), WARPS), 32 * WARPS, *y.shape, dy, y, dx)
    return dx


_BACKWARD_WARP = _softmax_backward(
    "softmax_backward_warp", "A warp a row: neighbouring lanes read neighbours.", 32 * WARPS, WARPS
)

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
        (
            _softmax_backward("softmax_backward_naive", "One thread a row.", 64, 64),
            _BACKWARD_WARP,
            Rung(
                "softmax_backward_kept",
                "A row of up to 1024 waits in registers: dy and y are read once.",
                _softmax_backward_kept,
                (
                    *(f"softmax_backward_kept<{each}>" for each in _KEPT),
                    *_BACKWARD_WARP.kernels,  # for longer rows
                ),
            ),
        ),
    ),
)
