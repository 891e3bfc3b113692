"""The matrix product and the linear layer: rungs of linear.cu."""

import numpy as np

from dlnotes.cuda._tensor import TensorMap
from dlnotes.cuda.ladders._base import Ladder, Rung, Session, blocks, wide

# kernel without layout, extra template arguments, tile (rows, columns), block
_PRODUCTS = {
    "matmul_naive": ("", (8, 32), (32, 8)),
    "matmul_tiled": (", 16", (16, 16), (16, 16)),
    "matmul_blocked": (", 64, 64, 8, 4, 4", (64, 64), 256),
    "matmul_vectorised": (", 128, 64, 8, 8, 4", (128, 64), 256),
    "matmul_mma": (", 128, 128, 32, 64, 64", (128, 128), 128),
    "matmul_wgmma": (", 128, 256, 4", (128, 256), 288),
}
_REASONS = {
    "matmul_naive": "One thread for each entry of the result, all operands from global memory.",
    "matmul_tiled": "Tiles in shared memory: a number is fetched once and used 16 times.",
    "matmul_blocked": "Several results a thread, in registers: fewer reads of shared memory.",
    "matmul_vectorised": "Four numbers to a load or store: fewer instructions for the same bytes.",
    "matmul_mma": "Tensor cores: 2048 products of bfloat16 are one instruction of a warp.",
    "matmul_wgmma": "Tensor cores read the tiles themselves, TMA brings them: no thread copies.",
}
_NEEDS = {"matmul_mma": "sm_80", "matmul_wgmma": "sm_90a"}
_DTYPES = {"matmul_mma": "bfloat16", "matmul_wgmma": "bfloat16"}
_UNALIGNED = "matmul_blocked"  # instead of matmul_vectorised for matrices that begin anywhere
_PANEL = 64  # entries on a side of what TMA copies at once
_STAGES, _STAGE_BYTES = 4, 2 * _PANEL * (128 + 256)  # of the ring of matmul_wgmma
_RING_BYTES = _STAGES * (_STAGE_BYTES + 2 * 8)  # each with two mbarriers


def _product(s: Session, name: str, a, b, bias, m: int, n: int, k: int, layout: str):
    if name == "matmul_vectorised" and not wide(a, b):
        name = _UNALIGNED
    extra, (rows, columns), block = _PRODUCTS[name]
    c = s.empty((m, n), a, _result(name))
    kernel, shared_bytes = f"{name}<{layout}{extra}>", 0
    if name == "matmul_wgmma":
        a, b, shared_bytes = _tensor_map(a), _tensor_map(b), _RING_BYTES
    grid = (blocks(n, columns), blocks(m, rows))
    s.launch(kernel, grid, block, m, n, k, a, b, bias, c, shared_bytes=shared_bytes)
    return c


def _result(name: str) -> str | None:
    """Return the dtype of a rung's results: float32 for bfloat16, else that of its inputs."""
    return "float32" if name in _DTYPES else None


def _tensor_map(matrix) -> TensorMap:
    """Return a map of a bfloat16 matrix in boxes of a panel.

    TMA needs rows of a multiple of 16 bytes that begin at one: where they do not, the map is of a
    copy that zeros fill up, which costs one pass over the matrix. There is no map of an empty
    matrix, either.
    """
    rows, columns = matrix.shape
    missing = int(rows == 0), -columns % 8 if columns else 8
    if any(missing) and isinstance(matrix, np.ndarray):
        matrix = np.pad(matrix, [(0, more) for more in missing])
    elif any(missing):
        import torch

        matrix = torch.nn.functional.pad(matrix, (0, missing[1], 0, missing[0]))
    elif not wide(matrix):
        matrix = matrix.copy() if isinstance(matrix, np.ndarray) else matrix.clone()
    return TensorMap(matrix, (_PANEL, _PANEL))


def _launched(name: str, *layouts: str) -> tuple[str, ...]:
    """Return the kernels that a rung's products launch, those of the rung's own name first."""
    names = (name, _UNALIGNED) if name == "matmul_vectorised" else (name,)
    return tuple(f"{n}<{layout}{_PRODUCTS[n][0]}>" for n in names for layout in layouts)


def _rung(name: str, run, *kernels: str) -> Rung:
    needs, dtype = _NEEDS.get(name, "sm_75"), _DTYPES.get(name, "float32")
    return Rung(name, _REASONS[name], run, kernels, needs, dtype)


def _linear(name: str) -> Rung:
    def run(s, x, weight, bias=None):
        return _product(s, name, x, weight, bias, len(x), *weight.shape, "false, true")

    return _rung(name, run, *_launched(name, "false, true"))


def _linear_backward(name: str) -> Rung:
    sums = "column_sums<nv_bfloat16>" if name in _DTYPES else "column_sums<float>"

    def run(s, dy, x, weight):
        (batch, n_in), n_out = x.shape, len(weight)
        dx = _product(s, name, dy, weight, None, batch, n_in, n_out, "false, false")
        dweight = _product(s, name, dy, x, None, n_out, n_in, batch, "true, false")
        dbias = s.empty((n_out,), dy, _result(name))
        s.launch(sums, blocks(n_out, 32), (32, 8), batch, n_out, dy, dbias)
        return dx, dweight, dbias

    return _rung(name, run, *_launched(name, "false, false", "true, false"), sums)


FAMILY = (
    Ladder("linear", "linear.cu", "linear", tuple(map(_linear, _PRODUCTS))),
    Ladder(
        "linear_backward", "linear.cu", "linear_backward", tuple(map(_linear_backward, _PRODUCTS))
    ),
)
