"""Gram matrices: rungs of style.cu."""

from dlnotes.cuda.ladders._base import Ladder, Rung, blocks

_TILE = 16
_PIECE = 1024  # entries of a sum that a block adds up, where blocks share sums


def _sizes(x) -> tuple[int, int, int, float]:
    """Return samples, channels, length and what sums are multiplied by."""
    n, channels, height, width = x.shape
    return n, channels, height * width, 1 / max(1, channels * height * width)


def _gram_naive(s, x):
    n, channels, length, factor = _sizes(x)
    y, grid = s.empty((n, channels, channels), x), blocks(n * channels * channels, 128)
    s.launch("gram_naive", grid, 128, n, channels, length, factor, x, y)
    return y


def _gram_tiled(s, x):
    n, channels, length, factor = _sizes(x)
    y, tiles = s.empty((n, channels, channels), x), blocks(channels, _TILE)
    kernel, block = f"gram_tiled<{_TILE}>", (_TILE, _TILE)
    s.launch(kernel, n * tiles * tiles, block, channels, length, factor, x, y)
    return y


def _gram_symmetric(s, x):
    n, channels, length, factor = _sizes(x)
    y, tiles = s.empty((n, channels, channels), x), blocks(channels, _TILE)
    kernel, block = f"gram_symmetric<{_TILE}>", (_TILE, _TILE)
    s.launch(kernel, n * tiles * (tiles + 1) // 2, block, channels, length, factor, x, y)
    return y


def _gram_split(s, x):
    n, channels, length, factor = _sizes(x)
    y, tiles = s.zeros((n, channels, channels), x), blocks(channels, _TILE)
    # A grid has at most 65535 blocks along y.
    piece = max(_PIECE, blocks(length, 65535))
    grid, block = (n * tiles * (tiles + 1) // 2, blocks(length, piece)), (_TILE, _TILE)
    s.launch(f"gram_split<{_TILE}>", grid, block, channels, length, piece, factor, x, y)
    return y


def _gram_backward_naive(s, dy, x):
    n, channels, length, factor = _sizes(x)
    dx, grid = s.empty(x.shape, x), blocks(n * channels * length, 128)
    s.launch("gram_backward_naive", grid, 128, n, channels, length, factor, dy, x, dx)
    return dx


def _gram_backward_tiled(s, dy, x):
    n, channels, length, factor = _sizes(x)
    dx, tiles = s.empty(x.shape, x), blocks(channels, _TILE) * blocks(length, _TILE)
    kernel, block = f"gram_backward_tiled<{_TILE}>", (_TILE, _TILE)
    s.launch(kernel, n * tiles, block, channels, length, factor, dy, x, dx)
    return dx


FAMILY = (
    Ladder(
        "gram_matrix",
        "style.cu",
        "gram_matrix",
        (
            Rung("gram_naive", "One thread for each entry.", _gram_naive, ("gram_naive",)),
            Rung(
                "gram_tiled",
                "Tiles in shared memory: a number is fetched once and used 16 times.",
                _gram_tiled,
                (f"gram_tiled<{_TILE}>",),
            ),
            Rung(
                "gram_symmetric",
                "The matrix is symmetric: half of the tiles are enough.",
                _gram_symmetric,
                (f"gram_symmetric<{_TILE}>",),
            ),
            Rung(
                "gram_split",
                "Few tiles, long sums: several blocks share a tile's sums, so none is idle.",
                _gram_split,
                (f"gram_split<{_TILE}>",),
            ),
        ),
    ),
    Ladder(
        "gram_matrix_backward",
        "style.cu",
        "gram_matrix_backward",
        (
            Rung(
                "gram_backward_naive",
                "One thread for each entry.",
                _gram_backward_naive,
                ("gram_backward_naive",),
            ),
            Rung(
                "gram_backward_tiled",
                "Tiles in shared memory, dy + dyᵀ added up as it is fetched.",
                _gram_backward_tiled,
                (f"gram_backward_tiled<{_TILE}>",),
            ),
        ),
    ),
)
