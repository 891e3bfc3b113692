"""The linear layer against torch, against its loops, and against numeric gradients."""

import core_helpers as h
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlnotes import kernels

sizes = st.integers(0, 6)


@settings(deadline=None, max_examples=50)
@given(h.shapes(0, 3), sizes, sizes, h.dtypes, h.scales, h.layouts, st.booleans(), h.seeds)
def test_parity_with_torch(batch, n_in, n_out, dtype, scale, layout, with_bias, seed):
    x = h.draw(seed, (*batch, n_in), dtype, scale, layout)
    weight = h.draw(seed + 1, (n_out, n_in), dtype, 1, layout)
    bias = h.draw(seed + 2, (n_out,), dtype, scale, layout) if with_bias else None
    dy = h.draw(seed + 3, (*batch, n_out), dtype, 1, layout)
    given_arrays = (x, weight) if bias is None else (x, weight, bias)

    y = h.assert_pure(kernels.linear, *given_arrays)
    gradients = h.assert_pure(kernels.linear_backward, dy, *given_arrays)

    tensors = [torch.tensor(a.copy(order="C"), requires_grad=True) for a in given_arrays]
    expected = torch.nn.functional.linear(*tensors)
    expected.backward(torch.tensor(dy.copy(order="C")))
    h.assert_close(y, expected, dtype, 10 * scale)
    assert (gradients[2] is None) == (bias is None)
    for gradient, tensor in zip(gradients, tensors, strict=False):
        h.assert_close(gradient, tensor.grad, dtype, 100 * scale)


@settings(deadline=None, max_examples=25)
@given(h.shapes(0, 2, 0, 3), sizes, sizes, h.dtypes, st.booleans(), h.seeds)
def test_equals_the_loops(batch, n_in, n_out, dtype, with_bias, seed):
    x = h.draw(seed, (*batch, n_in), dtype)
    weight = h.draw(seed + 1, (n_out, n_in), dtype)
    bias = h.draw(seed + 2, (n_out,), dtype) if with_bias else None
    h.assert_close(kernels.linear(x, weight, bias), kernels.linear_loops(x, weight, bias), dtype, 5)


def test_gradients_are_the_numeric_ones():
    rng = np.random.default_rng(1)
    x, weight, bias, dy = (rng.standard_normal(s) for s in ((2, 1, 3), (4, 3), (4,), (2, 1, 4)))
    arguments = [x, weight, bias]
    for i, gradient in enumerate(kernels.linear_backward(dy, x, weight, bias)):

        def loss(value, i=i):
            return np.sum(dy * kernels.linear(*arguments[:i], value, *arguments[i + 1 :]))

        np.testing.assert_allclose(gradient, h.numeric_gradient(loss, arguments[i]), rtol=1e-7)


@pytest.mark.parametrize("name", ["linear", "bilinear"])
def test_only_the_gradients_asked_for(name):
    shapes = [(5, 3), (4, 3), (4,)] if name == "linear" else [(5, 3), (5, 2), (4, 3, 2), (4,)]
    arrays = [h.draw(i, shape, np.float64) for i, shape in enumerate(shapes)]
    h.check_output_mask(getattr(kernels, f"{name}_backward"), h.draw(9, (5, 4), np.float64), arrays)


x, w, b = np.ones((5, 3)), np.ones((4, 3)), np.ones(4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[1.0]], w), TypeError, "x must be a NumPy array"),
        ((x.astype(int), w), TypeError, "x must be float32 or float64, got int64"),
        ((x.astype(np.float16), w.astype(np.float16)), TypeError, "float16"),
        ((np.float64(1), w), ValueError, "x must have at least 1 axis"),
        ((x, np.ones(3)), ValueError, "weight must have 2 axes"),
        ((x, w.T), ValueError, r"weight's 4 input features, got x \(5, 3\) and weight \(3, 4\)"),
        ((x, w, np.ones((1, 4))), ValueError, "bias must have 1 axis"),
        ((x, w, np.ones(3)), ValueError, r"bias must have shape \(4,\)"),
        ((x.astype(np.float32), w, b), TypeError, "x is float32, weight is float64"),
        ((x, w, b.astype(np.float32)), TypeError, "bias is float32"),
    ],
)
def test_bad_input(arguments, error, message):
    with h.shapes_unchecked():
        for function in (kernels.linear, kernels.linear_loops):
            with pytest.raises(error, match=message):
                function(*arguments)
        with pytest.raises(error, match=message):
            kernels.linear_backward(np.ones((5, 4)), *arguments)


def test_bad_upstream_gradient():
    with h.shapes_unchecked():
        with pytest.raises(ValueError, match=r"dy must have shape \(5, 4\)"):
            kernels.linear_backward(np.ones((4, 5)), x, w, b)
        with pytest.raises(TypeError, match="dy is float32"):
            kernels.linear_backward(np.ones((5, 4), np.float32), x, w, b)
        for mask, error in (((True, True), ValueError), ((1, 0, 0), TypeError), (True, TypeError)):
            with pytest.raises(error, match="output_mask must"):
                kernels.linear_backward(np.ones((5, 4)), x, w, b, output_mask=mask)
