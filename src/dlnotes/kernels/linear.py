"""The linear (fully connected) layer, y = x Wᵀ + b, and the bilinear one, y_k = x₁ᵀ W_k x₂ + b_k.

Weights are stored as in torch: (out, in) and (out, in1, in2).

In each: TypeError for arrays that are not float32 or float64 or differ in dtype, ValueError for
shapes that do not fit. The backward functions cost about as much again for each gradient of x, x1,
x2 and weight.
"""

import math

import numpy as np
from jaxtyping import Float

from dlnotes import _validate
from dlnotes._validate import Mask


def linear(
    x: Float[np.ndarray, "*batch n_in"],
    weight: Float[np.ndarray, "n_out n_in"],
    bias: Float[np.ndarray, " n_out"] | None = None,
) -> Float[np.ndarray, "*batch n_out"]:
    """Return x Wᵀ + b for each row of `x`.

    x: (…, in), weight: (out, in), bias: (out,) or None, all of one dtype → (…, out). Cost:
    2·batch·in·out floating-point operations, in one matrix product (the weighted sums of
    Rosenblatt's perceptron, 1958).

    Raises TypeError for a dtype that is not float32 or float64 or not the same for all, and
    ValueError for shapes that do not fit together.
    """
    x, weight, bias = _check(x, weight, bias)
    y = _as_rows(x) @ weight.T
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
    *,
    output_mask: Mask = (True, True, True),
) -> tuple[
    Float[np.ndarray, "*batch n_in"] | None,
    Float[np.ndarray, "n_out n_in"] | None,
    Float[np.ndarray, " n_out"] | None,
]:
    """Return (dx, dweight, dbias): dx = dy W, dW = dyᵀ x, db = the sum of dy over the batch.

    `dy` has the shape of the output; `x`, `weight` and `bias` are the inputs of `linear`. Where
    `output_mask`, an entry for each of them, is False, the gradient is left out: None, as dbias is
    where bias is None. Errors as in `linear`.
    """
    x, weight, bias = _check(x, weight, bias)
    dy = _validate.floats("dy", dy)
    _validate.same_dtype(dy=dy, x=x)
    _validate.has_shape("dy", dy, (*x.shape[:-1], len(weight)), "the shape of the output")
    for_x, for_weight, for_bias = _validate.output_mask(output_mask, 3)
    dy_rows, x_rows = _as_rows(dy), _as_rows(x)
    dx = (dy_rows @ weight).reshape(x.shape) if for_x else None
    dweight = dy_rows.T @ x_rows if for_weight else None
    dbias = _sum_rows(dy_rows) if for_bias and bias is not None else None
    return dx, dweight, dbias


def bilinear(
    x1: Float[np.ndarray, "*batch n_1"],
    x2: Float[np.ndarray, "*batch n_2"],
    weight: Float[np.ndarray, "n_out n_1 n_2"],
    bias: Float[np.ndarray, " n_out"] | None = None,
) -> Float[np.ndarray, "*batch n_out"]:
    """Return y_k = x1ᵀ W_k x2 + b_k for each pair of rows of `x1` and `x2`.

    x1: (…, in1), x2: (…, in2), weight: (out, in1, in2), bias: (out,) or None → (…, out). Cost:
    2·batch·in1·in2·out operations. Errors as in `linear`. (In neural tensor networks: Socher, Chen,
    Manning and Ng, 2013.)
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
    *,
    output_mask: Mask = (True, True, True, True),
) -> tuple[
    Float[np.ndarray, "*batch n_1"] | None,
    Float[np.ndarray, "*batch n_2"] | None,
    Float[np.ndarray, "n_out n_1 n_2"] | None,
    Float[np.ndarray, " n_out"] | None,
]:
    """Return (dx1, dx2, dweight, dbias); those that `output_mask` does not ask for are None.

    dx1 = Σ_k dy_k W_k x2, dx2 = Σ_k dy_k W_kᵀ x1, dW_k = Σ over the batch of dy_k x1 x2ᵀ.
    """
    x1, x2, weight, bias = _check_bilinear(x1, x2, weight, bias)
    dy = _validate.floats("dy", dy)
    _validate.same_dtype(dy=dy, x1=x1)
    _validate.has_shape("dy", dy, (*x1.shape[:-1], len(weight)), "the shape of the output")
    for_x1, for_x2, for_weight, for_bias = _validate.output_mask(output_mask, 4)
    dy_rows, rows1, rows2 = _as_rows(dy), _as_rows(x1), _as_rows(x2)
    dx1 = dx2 = dweight = dbias = None
    if for_x1:
        by_x2 = weight.transpose(0, 2, 1).reshape(len(weight) * weight.shape[2], weight.shape[1])
        dx1 = (_outer(dy_rows, rows2) @ by_x2).reshape(x1.shape)
    if for_x2:
        product = _first_product(rows1, weight)
        dx2 = np.einsum("nk,nkj->nj", dy_rows, product).reshape(x2.shape)
    if for_weight:
        dweight = (_outer(dy_rows, rows1).T @ rows2).reshape(weight.shape)
    if for_bias and bias is not None:
        dbias = _sum_rows(dy_rows)
    return dx1, dx2, dweight, dbias


def _outer(a, b):
    """Return the products a_k b_i of each row for all k and i: (n, K · I)."""
    return (a[:, :, None] * b[:, None, :]).reshape(len(a), a.shape[1] * b.shape[1])


def _first_product(rows1, weight):
    """Return x1ᵀ W_k for each row and each k: (n, out, in2), in one matrix product."""
    n_out, n_1, n_2 = weight.shape
    product = rows1 @ weight.transpose(1, 0, 2).reshape(n_1, n_out * n_2)
    return product.reshape(len(rows1), n_out, n_2)


def _as_rows(x: np.ndarray) -> np.ndarray:
    """Return x as (samples, features), all axes but the last in one."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _sum_rows(x: np.ndarray) -> np.ndarray:
    # A product with ones is about three times as fast as x.sum(axis=0).
    return np.ones(len(x), x.dtype) @ x


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
