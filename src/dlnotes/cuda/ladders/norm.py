"""Normalisation: rungs of norm.cu."""

from dlnotes.cuda.ladders._base import WARPS, Ladder, Rung, blocks


def _layer_norm(name: str, reason: str, block: int, rows_a_block: int, kept: bool = False) -> Rung:
    def run(s, x, weight, bias, eps=1e-5):
        rows, columns = x.shape
        y, mean, scale = s.empty(x.shape, x), s.empty((rows,), x), s.empty((rows,), x)
        s.launch(
            name,
            blocks(rows, rows_a_block),
            block,
            rows,
            columns,
            eps,
            x,
            weight,
            bias,
            y,
            mean,
            scale,
            shared_bytes=4 * columns if kept else 0,
        )
        return y, mean, scale

    return Rung(name, reason, run, (name,))


def _layer_norm_backward_naive(s, dy, x, weight, mean, scale):
    rows, columns = x.shape
    dx, dweight, dbias = s.empty(x.shape, x), s.zeros((columns,), x), s.zeros((columns,), x)
    s.launch(
        "layer_norm_backward_naive",
        blocks(rows, 64),
        64,
        rows,
        columns,
        dy,
        x,
        weight,
        mean,
        scale,
        dx,
        dweight,
        dbias,
    )
    return dx, dweight, dbias


def _layer_norm_backward_warp(s, dy, x, weight, mean, scale):
    rows, columns = x.shape
    dx, dweight, dbias = s.empty(x.shape, x), s.empty((columns,), x), s.empty((columns,), x)
    grid = blocks(rows, WARPS)
    s.launch(
        "layer_norm_backward_warp", grid, 32 * WARPS, rows, columns, dy, x, weight, mean, scale, dx
    )
    s.launch(
        "layer_norm_backward_columns",
        blocks(columns, 32),
        (32, 8),
        rows,
        columns,
        dy,
        x,
        mean,
        scale,
        dweight,
        dbias,
    )
    return dx, dweight, dbias


FAMILY = (
    Ladder(
        "layer_norm",
        "norm.cu",
        "layer_norm",
        (
            _layer_norm("layer_norm_naive", "One thread a row.", 64, 64),
            _layer_norm(
                "layer_norm_warp",
                "A warp a row: neighbouring lanes read neighbours.",
                32 * WARPS,
                WARPS,
            ),
            _layer_norm(
                "layer_norm_kept",
                "The row stays in shared memory: x is read once.",
                128,
                1,
                kept=True,
            ),
        ),
    ),
    Ladder(
        "layer_norm_backward",
        "norm.cu",
        "layer_norm_backward",
        (
            Rung(
                "layer_norm_backward_naive",
                "One thread a row; weights' gradients by atomics.",
                _layer_norm_backward_naive,
                ("layer_norm_backward_naive",),
            ),
            Rung(
                "layer_norm_backward_warp",
                "A warp a row; weights' gradients as sums of columns, no atomics.",
                _layer_norm_backward_warp,
                ("layer_norm_backward_warp", "layer_norm_backward_columns"),
            ),
        ),
    ),
)
