"""The matrix product and the linear layer: rungs of linear.cu."""

from dlnotes.cuda.ladders._base import Ladder, Rung, Session, blocks

# kernel without layout, extra template arguments, tile (rows, columns), block
_PRODUCTS = {
    "matmul_naive": ("", (8, 32), (32, 8)),
    "matmul_tiled": (", 16", (16, 16), (16, 16)),
    "matmul_blocked": (", 64, 64, 8, 4, 4", (64, 64), 256),
    "matmul_vectorised": (", 128, 64, 8, 8, 4", (128, 64), 256),
}
_PRODUCT_REASONS = {
    "matmul_naive": "One thread for each entry of the result, all operands from global memory.",
    "matmul_tiled": "Tiles in shared memory: a number is fetched once and used 16 times.",
    "matmul_blocked": "Several results a thread, in registers: fewer reads of shared memory.",
    "matmul_vectorised": "Four numbers to a load or store: fewer instructions for the same bytes.",
}


def _product(s: Session, name: str, a, b, bias, m: int, n: int, k: int, layout: str):
    extra, (rows, columns), block = _PRODUCTS[name]
    c = s.empty((m, n), a)
    kernel = f"{name}<{layout}{extra}>"
    s.launch(kernel, (blocks(n, columns), blocks(m, rows)), block, m, n, k, a, b, bias, c)
    return c


def _linear(name: str) -> Rung:
    def run(s, x, weight, bias=None):
        return _product(s, name, x, weight, bias, len(x), *weight.shape, "false, true")

    kernels = (f"{name}<false, true{_PRODUCTS[name][0]}>",)
    return Rung(name, _PRODUCT_REASONS[name], run, kernels)


def _linear_backward(name: str) -> Rung:
    def run(s, dy, x, weight):
        (batch, n_in), n_out = x.shape, len(weight)
        dx = _product(s, name, dy, weight, None, batch, n_in, n_out, "false, false")
        dweight = _product(s, name, dy, x, None, n_out, n_in, batch, "true, false")
        dbias = s.empty((n_out,), dy)
        s.launch("column_sums", blocks(n_out, 32), (32, 8), batch, n_out, dy, dbias)
        return dx, dweight, dbias

    extra = _PRODUCTS[name][0]
    kernels = (f"{name}<false, false{extra}>", f"{name}<true, false{extra}>", "column_sums")
    return Rung(name, _PRODUCT_REASONS[name], run, kernels)


FAMILY = (
    Ladder("linear", "linear.cu", "linear", tuple(map(_linear, _PRODUCTS))),
    Ladder(
        "linear_backward", "linear.cu", "linear_backward", tuple(map(_linear_backward, _PRODUCTS))
    ),
)
