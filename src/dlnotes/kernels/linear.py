"""The linear (fully connected) layer, y = x Wᵀ + b, and the bilinear one, y_k = x₁ᵀ W_k x₂ + b_k.

Weights are stored as in torch: (out, in) and (out, in1, in2).
"""

import numpy as np
from jaxtyping import Float

from dlnotes import _validate


def linear(
    x: Float[np.ndarray, "*batch n_in"],
    weight: Float[np.ndarray, "n_out n_in"],
    bias: Float[np.ndarray, " n_out"] | None = None,
) -> Float[np.ndarray, "*batch n_out"]:
    """Return x Wᵀ + b for each row of `x`.

    x: (…, in), weight: (out, in), bias: (out,) or None, all of one dtype → (…, out).
    Cost: 2·batch·in·out floating-point operations, in one matrix product.

    Raises TypeError for a dtype that is not float32 or float64 or not the same for all, and
    ValueError for shapes that do not fit together.
    """
    x, weight, bias = _check(x, weight, bias)
    y = x.reshape(_rows(x), x.shape[-1]) @ weight.T
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], weight.shape[0])


def linear_loops(
    x: Float[np.ndarray, "*batch n_in"],
    weight: Float[np.ndarray, "n_out n_in"],
    bias: Float[np.ndarray, " n_out"] | None = None,
) -> Float[np.ndarray, "*batch n_out"]:
    """Return what `linear` returns, one product at a time: the formula, and the tests' oracle."""
    x, weight, bias = _check(x, weight, bias)
    n_out, n_in = weight.shape
    y = np.zeros((*x.shape[:-1], n_out), x.dtype)
    for sample in np.ndindex(x.shape[:-1]):
        for j in range(n_out):
            for i in range(n_in):
                y[(*sample, j)] += x[(*sample, i)] * weight[j, i]
            if bias is not None:
                y[(*sample, j)] += bias[j]
    return y


def linear_backward(
    dy: Float[np.ndarray, "*batch n_out"],
    x: Float[np.ndarray, "*batch n_in"],
    weight: Float[np.ndarray, "n_out n_in"],
    bias: Float[np.ndarray, " n_out"] | None = None,
) -> tuple[
    Float[np.ndarray, "*batch n_in"],
    Float[np.ndarray, "n_out n_in"],
    Float[np.ndarray, " n_out"] | None,
]:
    """Return (dx, dweight, dbias): dx = dy W, dW = dyᵀ x, db = the sum of dy over the batch.

    `dy` has the shape of the output, `x`, `weight` and `bias` are the inputs of `linear`; dbias is
    None when bias is. Errors as in `linear`.
    """
    x, weight, bias = _check(x, weight, bias)
    dy = _validate.floats("dy", dy)
    _validate.same_dtype(dy=dy, x=x)
    n_out, n_in = weight.shape
    _validate.has_shape("dy", dy, (*x.shape[:-1], n_out), "the shape of the output")
    n = _rows(x)
    dy_rows, x_rows = dy.reshape(n, n_out), x.reshape(n, n_in)
    dx = (dy_rows @ weight).reshape(x.shape)
    dweight = dy_rows.T @ x_rows
    # A product with ones is about three times as fast as dy_rows.sum(axis=0).
    dbias = None if bias is None else np.ones(n, dy.dtype) @ dy_rows
    return dx, dweight, dbias


def bilinear(
    x1: Float[np.ndarray, "*batch n_1"],
    x2: Float[np.ndarray, "*batch n_2"],
    weight: Float[np.ndarray, "n_out n_1 n_2"],
    bias: Float[np.ndarray, " n_out"] | None = None,
) -> Float[np.ndarray, "*batch n_out"]:
    """Return y_k = x1ᵀ W_k x2 + b_k for each pair of rows of `x1` and `x2`.

    x1: (…, in1), x2: (…, in2), weight: (out, in1, in2), bias: (out,) or None → (…, out).
    Cost: 2·batch·in1·in2·out operations. Errors as in `linear`.
    """
    x1, x2, weight, bias = _check_bilinear(x1, x2, weight, bias)
    y = np.einsum("nkj,nj->nk", _first_product(_as_rows(x1), weight), _as_rows(x2))
    if bias is not None:
        y += bias
    return y.reshape(*x1.shape[:-1], weight.shape[0])


def bilinear_backward(
    dy: Float[np.ndarray, "*batch n_out"],
    x1: Float[np.ndarray, "*batch n_1"],
    x2: Float[np.ndarray, "*batch n_2"],
    weight: Float[np.ndarray, "n_out n_1 n_2"],
    bias: Float[np.ndarray, " n_out"] | None = None,
) -> tuple[
    Float[np.ndarray, "*batch n_1"],
    Float[np.ndarray, "*batch n_2"],
    Float[np.ndarray, "n_out n_1 n_2"],
    Float[np.ndarray, " n_out"] | None,
]:
    """Return (dx1, dx2, dweight, dbias); dbias is None when bias is.

    dx1 = Σ_k dy_k W_k x2, dx2 = Σ_k dy_k W_kᵀ x1, dW_k = Σ over the batch of dy_k x1 x2ᵀ.
    """
    x1, x2, weight, bias = _check_bilinear(x1, x2, weight, bias)
    dy = _validate.floats("dy", dy)
    _validate.same_dtype(dy=dy, x1=x1)
    n_out, n_1, n_2 = weight.shape
    _validate.has_shape("dy", dy, (*x1.shape[:-1], n_out), "the shape of the output")
    dy_rows, rows1, rows2 = _as_rows(dy), _as_rows(x1), _as_rows(x2)
    dx2 = np.einsum("nk,nkj->nj", dy_rows, _first_product(rows1, weight))
    # dy_k x1_i for all k and i: what each entry of x2 is multiplied by.
    dy_x1 = (dy_rows[:, :, None] * rows1[:, None, :]).reshape(len(rows1), n_out * n_1)
    dweight = (dy_x1.T @ rows2).reshape(weight.shape)
    dy_x2 = (dy_rows[:, :, None] * rows2[:, None, :]).reshape(len(rows2), n_out * n_2)
    dx1 = dy_x2 @ weight.transpose(0, 2, 1).reshape(n_out * n_2, n_1)
    dbias = None if bias is None else np.ones(len(dy_rows), dy.dtype) @ dy_rows
    return dx1.reshape(x1.shape), dx2.reshape(x2.shape), dweight, dbias


def _first_product(rows1, weight):
    """Return x1ᵀ W_k for each row and each k: (n, out, in2), in one matrix product."""
    n_out, n_1, n_2 = weight.shape
    product = rows1 @ weight.transpose(1, 0, 2).reshape(n_1, n_out * n_2)
    return product.reshape(len(rows1), n_out, n_2)


def _as_rows(x: np.ndarray) -> np.ndarray:
    return x.reshape(_rows(x), x.shape[-1])


def _rows(x: np.ndarray) -> int:
    """Return how many samples `x` holds: the product of all axes but the last."""
    return int(np.prod(x.shape[:-1]))


def _check(x, weight, bias):
    x = _validate.floats("x", x, min_ndim=1)
    weight = _validate.floats("weight", weight, ndim=2)
    if x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"the last axis of x must have weight's {weight.shape[1]} input features, "
            f"got x {x.shape} and weight {weight.shape}"
        )
    if bias is not None:
        bias = _validate.floats("bias", bias, ndim=1)
        _validate.has_shape("bias", bias, (weight.shape[0],), "one for each output feature")
    _validate.same_dtype(x=x, weight=weight, bias=bias)
    return x, weight, bias


def _check_bilinear(x1, x2, weight, bias):
    x1 = _validate.floats("x1", x1, min_ndim=1)
    x2 = _validate.floats("x2", x2, min_ndim=1)
    weight = _validate.floats("weight", weight, ndim=3)
    if x1.shape[:-1] != x2.shape[:-1] or (x1.shape[-1], x2.shape[-1]) != weight.shape[1:]:
        raise ValueError(
            "x1 (…, in1) and x2 (…, in2) must have the same axes but the last, and weight "
            f"(out, in1, in2) theirs, got {x1.shape}, {x2.shape} and {weight.shape}"
        )
    if bias is not None:
        bias = _validate.floats("bias", bias, ndim=1)
        _validate.has_shape("bias", bias, weight.shape[:1], "one for each output feature")
    _validate.same_dtype(x1=x1, x2=x2, weight=weight, bias=bias)
    return x1, x2, weight, bias
