"""Cross-entropy and sums: rungs of losses.cu."""

from dlnotes.cuda.ladders._base import WARPS, Ladder, Rung, blocks

IGNORED = -100


def _counted(target) -> int:
    return max(int((target != IGNORED).sum()), 1)


def _cross_entropy_naive(s, x, target):
    rows, classes = x.shape
    losses, dx = s.empty((rows,), x), s.empty(x.shape, x)
    grid, scale = blocks(rows, 64), 1 / _counted(target)
    s.launch("cross_entropy_naive", grid, 64, rows, classes, x, target, IGNORED, losses)
    s.launch("cross_entropy_backward_naive", grid, 64, rows, classes, scale, x, target, IGNORED, dx)
    return losses, dx


def _cross_entropy_fused(s, x, target):
    rows, classes = x.shape
    losses, dx = s.empty((rows,), x), s.empty(x.shape, x)
    scale, grid = 1 / _counted(target), blocks(rows, WARPS)
    s.launch(
        "cross_entropy_fused",
        grid,
        32 * WARPS,
        rows,
        classes,
        scale,
        x,
        target,
        IGNORED,
        losses,
        dx,
    )
    return losses, dx


def _sum(name: str, reason: str, most_blocks: int) -> Rung:
    def run(s, x):
        total = s.zeros((1,), x)
        s.launch(name, min(blocks(len(x), 256), most_blocks), 256, len(x), x, total)
        return total

    return Rung(name, reason, run, (name,))


FAMILY = (
    Ladder(
        "cross_entropy",
        "losses.cu",
        "cross_entropy",
        (
            Rung(
                "cross_entropy_naive",
                "One thread a row; the gradient starts again.",
                _cross_entropy_naive,
                ("cross_entropy_naive", "cross_entropy_backward_naive"),
            ),
            Rung(
                "cross_entropy_fused",
                "Loss and gradient in one kernel, a warp a row.",
                _cross_entropy_fused,
                ("cross_entropy_fused",),
            ),
        ),
    ),
    Ladder(
        "sum",
        "losses.cu",
        "sum",
        (
            _sum("sum_atomic", "Every thread adds to one address.", 2**31 - 1),
            _sum("sum_block", "A block adds up first: one atomic per block.", 2**31 - 1),
            _sum("sum_grid", "Few blocks: each thread adds many numbers before any exchange.", 64),
        ),
    ),
)
