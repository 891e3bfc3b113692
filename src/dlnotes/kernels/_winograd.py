"""Convolution of images with 3×3 kernels at stride 1 by Winograd's minimal filtering.

Four outputs of a 3-tap filter need twelve products by the formula, but six suffice (Winograd,
1980): y = Aᵀ [(G w) ⊙ (Bᵀ x)], with x six inputs and the constant matrices below. In two
dimensions, a tile of 6×6 inputs gives 4×4 outputs with 36 products instead of 144 (Lavin and
Gray, 2016). Over channels the products become 36 matrix products; the transforms are matrix
products with 6×6 matrices, and cost little when there are many channels. Each step is linear in
x and in w, so the backward pass is the same steps transposed, in reverse.

The transforms cost digits: float32 results are off by about 5e-6 of the largest, not 5e-7. So it
is used for float32 only, where channels are many enough that it pays. They also mix all entries of
a tile: one that is NaN, infinite or far larger than the rest would spoil outputs that do not see
it. Where there is such a one, `fits` says no.
"""

import math
from collections.abc import Iterator

import numpy as np

TILE = 4  # outputs along each side
_LEAST_CHANNELS = 32
_WORK_BYTES = 2**20
_BLOCK_ENTRIES = 2**15
# How many times the mean size in its sample (or filter) an entry may be: up to here its neighbours'
# errors hardly grow. Training was seen to reach 100. Of a small sample an entry is a large share.
_LARGEST, _LARGEST_SHARE = 256, 1 / 8

# fmt: off
INPUT = np.array([  # Bᵀ
    [4,  0, -5,  0, 1, 0],
    [0, -4, -4,  1, 1, 0],
    [0,  4, -4, -1, 1, 0],
    [0, -2, -1,  2, 1, 0],
    [0,  2, -1, -2, 1, 0],
    [0,  4,  0, -5, 0, 1],
], np.float32)
KERNEL = np.array([  # G
    [ 1/4,     0,    0],
    [-1/6,  -1/6, -1/6],
    [-1/6,   1/6, -1/6],
    [1/24,  1/12,  1/6],
    [1/24, -1/12,  1/6],
    [   0,     0,    1],
], np.float32)
OUTPUT = np.array([  # Aᵀ
    [1, 1,  1, 1,  1, 0],
    [0, 1, -1, 2, -2, 0],
    [0, 1,  1, 4,  4, 0],
    [0, 1, -1, 8, -8, 1],
], np.float32)
# fmt: on


def fits(x, weight, g, groups, *others) -> bool:
    """Say whether a convolution of these arrays can be computed like this, and should."""
    plain = g.kernel == (3, 3) and {*g.stride, *g.dilation, groups} == {1}
    worthwhile = min(weight.shape[:2]) >= _LEAST_CHANNELS and min(g.out) >= TILE
    if not (plain and worthwhile and x.dtype == np.float32):
        return False
    return all(_is_even(array) for array in (x, weight, *others))


def _is_even(x) -> bool:
    """Say whether all entries are finite and none far larger than the mean size of its sample."""
    x = x.reshape(len(x), math.prod(x.shape[1:]))
    ones, limit = np.ones(x.shape[1], x.dtype), min(_LARGEST / x.shape[1], _LARGEST_SHARE)
    step = max(1, _BLOCK_ENTRIES // x.shape[1])
    for first in range(0, len(x), step):
        size = np.abs(x[first : first + step])  # stays in the cache
        with np.errstate(over="ignore", invalid="ignore"):
            total = size @ ones
        # Both are False where the total is NaN.
        if not ((size.max(axis=1) <= limit * total) & (total < math.inf)).all():
            return False
    return True


def forward(x, weight, bias, g):
    """Return the convolution; `g` are its windows, bias broadcasts against one sample."""
    y = np.empty((len(x), len(weight), *g.out), x.dtype)
    u = _kernels(weight)
    for block, tiles in _blocks(x, g):
        product = u @ _inputs(x[block], g, tiles)
        outputs = _transform(OUTPUT, product)
        for (i, j), part in _output_parts(y[block]):
            rows, columns = part.shape[2:]
            tile = outputs[i, j].reshape(len(weight), -1, *tiles)[..., :rows, :columns]
            np.add(tile.swapaxes(0, 1), bias, out=part)
    return y


def backward(dy, x, weight, g, for_x, for_weight):
    """Return (dx, dweight), None for one that is not wanted."""
    dx, u = np.empty(x.shape, x.dtype) if for_x else None, _kernels(weight)
    du = np.zeros_like(u)
    top, left = g.padding
    for block, tiles in _blocks(x, g):
        samples = len(x[block])
        outputs = np.zeros((TILE, TILE, len(weight), samples, *tiles), x.dtype)
        for (i, j), part in _output_parts(dy[block]):
            rows, columns = part.shape[2:]
            outputs[i, j, ..., :rows, :columns] = part.swapaxes(0, 1)
        outputs = outputs.reshape(TILE, TILE, len(weight), -1)
        product = _transform(OUTPUT.T, outputs).reshape(len(u), *outputs.shape[2:])
        if for_weight:
            du += product @ _inputs(x[block], g, tiles).swapaxes(-1, -2)
        if not for_x:
            continue
        inputs = _transform(INPUT.T, u.swapaxes(-1, -2) @ product)
        padded = np.zeros((samples, x.shape[1], *(TILE * n + 2 for n in tiles)), x.dtype)
        for (i, j), part in _input_parts(padded, tiles):
            part += inputs[i, j].reshape(x.shape[1], samples, *tiles).swapaxes(0, 1)
        dx[block] = padded[:, :, top : top + g.size[0], left : left + g.size[1]]
    if not for_weight:
        return dx, None
    dweight = _transform(KERNEL.T, du).transpose(2, 3, 0, 1)
    return dx, np.ascontiguousarray(dweight)


def _transform(matrix, x):
    """Return matrix · x · matrixᵀ for x of shape (k, k, rows, columns) or (k², rows, columns)."""
    n, k = matrix.shape
    rest = x.shape[-2:]
    first = (matrix @ x.reshape(k, -1)).reshape(n, k, -1)
    return np.matmul(matrix, first).reshape(n, n, *rest)


def _kernels(weight):
    """Return G w Gᵀ as (36, outs, channels)."""
    kernels = np.ascontiguousarray(weight.transpose(2, 3, 0, 1))
    return _transform(KERNEL, kernels).reshape(-1, *weight.shape[:2])


def _inputs(x, g, tiles):
    """Return Bᵀ x B of all tiles as (36, channels, tiles)."""
    samples, channels = x.shape[:2]
    padded = np.zeros((samples, channels, *(TILE * n + 2 for n in tiles)), x.dtype)
    top, left = g.padding
    padded[:, :, top : top + g.size[0], left : left + g.size[1]] = x
    inputs = np.empty((TILE + 2, TILE + 2, channels, samples, *tiles), x.dtype)
    for (i, j), part in _input_parts(padded, tiles):
        inputs[i, j] = part.swapaxes(0, 1)
    inputs = inputs.reshape(TILE + 2, TILE + 2, channels, -1)
    return _transform(INPUT, inputs).reshape(-1, *inputs.shape[2:])


def _input_parts(padded, tiles) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """Yield (i, j) and entry (i, j) of every tile, (samples, channels, *tiles)."""
    rows, columns = (TILE * n for n in tiles)
    for i, j in np.ndindex(TILE + 2, TILE + 2):
        yield (i, j), padded[:, :, i : i + rows : TILE, j : j + columns : TILE]


def _output_parts(y) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """Yield (i, j) and output (i, j) of every tile; the last tiles may reach past the end."""
    for i, j in np.ndindex(TILE, TILE):
        yield (i, j), y[:, :, i::TILE, j::TILE]


def _blocks(x, g) -> Iterator[tuple[slice, tuple[int, int]]]:
    """Yield slices of as many samples as the work memory is for, and the tiles of a sample."""
    tiles = tuple(-(-n // TILE) for n in g.out)
    entries = (TILE + 2) ** 2 * x.shape[1] * tiles[0] * tiles[1]
    step = max(1, _WORK_BYTES // (entries * x.itemsize))
    for first in range(0, len(x), step):
        yield slice(first, first + step), tiles
