"""Every activation against torch and against numeric gradients, on awkward inputs."""

import core_helpers as h
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from dlnotes import kernels

# name: (settings, torch's function, does backward take the output?)
ELEMENTWISE = {
    "sigmoid": ({}, torch.sigmoid, True),
    "tanh": ({}, torch.tanh, True),
    "relu": ({}, F.relu, False),
    "leaky_relu": ({}, F.leaky_relu, False),
    "leaky_relu 0.3": ({"negative_slope": 0.3}, F.leaky_relu, False),
    "leaky_relu -0.3": ({"negative_slope": -0.3}, F.leaky_relu, False),
    "leaky_relu 1.5": ({"negative_slope": 1.5}, F.leaky_relu, False),
    "hardtanh": ({}, F.hardtanh, False),
    "hardtanh 0 6": ({"min_val": 0.0, "max_val": 6.0}, F.hardtanh, False),
    "elu": ({}, F.elu, False),
    "elu 0.7": ({"alpha": 0.7}, F.elu, False),
    "gelu": ({}, F.gelu, False),
    "gelu tanh": ({"approximate": "tanh"}, F.gelu, False),
    "softplus": ({}, F.softplus, False),
    "softplus 2": ({"beta": 2.0, "threshold": 5.0}, F.softplus, False),
    "silu": ({}, F.silu, False),
}


def pair(case):
    """Return forward, backward (with their settings), torch's function, takes_output."""
    keywords, torch_function, takes_output = ELEMENTWISE[case]
    name = case.split()[0]
    forward, backward = getattr(kernels, name), getattr(kernels, f"{name}_backward")
    return (
        lambda x: forward(x, **keywords),
        lambda dy, saved: backward(dy, saved, **keywords),
        lambda x: torch_function(x, **keywords),
        takes_output,
    )


def check_against_torch(forward, backward, torch_function, takes_output, x, seed):
    y = h.assert_pure(forward, x)
    dy = h.draw(seed, np.shape(y), x.dtype)
    dx = h.assert_pure(backward, dy, np.asarray(y) if takes_output else x)
    tensor = torch.tensor(x.copy(order="C"), requires_grad=True)
    expected = torch_function(tensor)
    expected.backward(torch.tensor(dy.copy(order="C")))
    largest = float(np.abs(x).max(initial=1))
    # float32's own result is uncertain by the rounding of x: the derivative of gelu and silu at a
    # large x multiplies a tiny number by x.
    h.assert_close(y, expected, x.dtype, largest)
    h.assert_close(dx, tensor.grad, x.dtype, 3)


@pytest.mark.parametrize("case", ELEMENTWISE)
@settings(deadline=None, max_examples=15)
@given(h.shapes(), h.dtypes, h.scales, h.layouts, h.seeds)
def test_elementwise_parity_with_torch(case, shape, dtype, scale, layout, seed):
    x = h.draw(seed, shape, dtype, scale, layout)
    check_against_torch(*pair(case), x, seed + 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", ELEMENTWISE)
def test_extremes_saturate_without_warnings(case, dtype):
    x = np.array([-1e4, -500, -90, -20.5, -1e-30, 0.0, 1e-30, 20.5, 90, 500, 1e4], dtype)
    check_against_torch(*pair(case), x, 0)


@pytest.mark.parametrize("case", ELEMENTWISE)
def test_nan_stays_nan(case):
    forward, _, _, _ = pair(case)
    y = forward(np.array([np.nan, 1.0]))
    assert np.isnan(y[0])
    assert np.isfinite(y[1])


def test_sigmoid_keeps_its_digits_in_the_tail():
    x = np.array([-20, -50, -80], np.float32)
    np.testing.assert_allclose(kernels.sigmoid(x), np.exp(x.astype(float)), rtol=1e-5)


@pytest.mark.parametrize("case", ELEMENTWISE)
def test_elementwise_numeric_gradient(case):
    forward, backward, _, takes_output = pair(case)
    rng = np.random.default_rng(3)
    x = rng.standard_normal((3, 4)) * 3
    for kink in (-1, 0, 1, 6):
        x = np.where(np.abs(x - kink) < 0.01, 0.5, x)
    dy = rng.standard_normal(x.shape)
    dx = backward(dy, forward(x) if takes_output else x)
    numeric = h.numeric_gradient(lambda value: np.sum(dy * forward(value)), x)
    np.testing.assert_allclose(dx, numeric, rtol=1e-6, atol=1e-8)


# ---- over an axis ----------------------------------------------------------------------------

AXIS = {
    "softmax": (kernels.softmax, kernels.softmax_backward, torch.softmax),
    "log_softmax": (kernels.log_softmax, kernels.log_softmax_backward, torch.log_softmax),
}


@pytest.mark.parametrize("name", AXIS)
@settings(deadline=None, max_examples=40)
@given(
    h.shapes(1, 4),
    st.integers(-4, 3),
    h.dtypes,
    h.scales,
    h.layouts,
    h.seeds,
)
@example((0, 3), 1, np.float32, 1.0, "contiguous", 0)
@example((3, 0), 1, np.float64, 1.0, "contiguous", 0)
def test_softmax_parity_with_torch(name, shape, dim, dtype, scale, layout, seed):
    dim = max(-len(shape), min(dim, len(shape) - 1))
    x = h.draw(seed, shape, dtype, scale, layout)
    forward, backward, torch_function = AXIS[name]
    y = h.assert_pure(lambda a: forward(a, dim), x)
    dy = h.draw(seed + 1, shape, dtype)
    dx = h.assert_pure(lambda a, b: backward(a, b, dim), dy, y)
    tensor = torch.tensor(x.copy(order="C"), requires_grad=True)
    expected = torch_function(tensor, dim)
    expected.backward(torch.tensor(dy.copy(order="C")))
    h.assert_close(y, expected, dtype, scale * 3)
    # The derivative of log_softmax sums dy over the axis.
    h.assert_close(dx, tensor.grad, dtype, 10)


@pytest.mark.parametrize("name", AXIS)
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_softmax_numeric_gradient(name, dim):
    forward, backward, _ = AXIS[name]
    rng = np.random.default_rng(4)
    x, dy = rng.standard_normal((2, 3, 4))
    numeric = h.numeric_gradient(lambda value: np.sum(dy * forward(value, dim)), x)
    np.testing.assert_allclose(backward(dy, forward(x, dim), dim), numeric, rtol=1e-6, atol=1e-9)


def test_softmax_is_a_distribution_and_ignores_a_shift():
    x = h.draw(0, (5, 7), np.float64, 1e4)
    y = kernels.softmax(x)
    np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-14)
    np.testing.assert_allclose(kernels.softmax(x + 1e4), y, atol=1e-11)


def test_masked_logits():
    x = np.array([[0.0, -np.inf, 0.0]])
    np.testing.assert_array_equal(kernels.softmax(x), [[0.5, 0, 0.5]])


# ---- maxout ----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(h.shapes(0, 3), st.integers(0, 4), st.integers(1, 4), h.dtypes, h.layouts, h.seeds)
def test_maxout_parity_with_torch(batch, groups, pool_size, dtype, layout, seed):
    x = h.draw(seed, (*batch, groups * pool_size), dtype, 1, layout)
    dy = h.draw(seed + 1, (*batch, groups), dtype, 1, layout)
    y = h.assert_pure(lambda a: kernels.maxout(a, pool_size), x)
    dx = h.assert_pure(lambda a, b: kernels.maxout_backward(a, b, pool_size), dy, x)
    tensor = torch.tensor(x.copy(order="C"), requires_grad=True)
    expected = tensor.reshape(*batch, groups, pool_size).max(-1).values
    expected.backward(torch.tensor(dy.copy(order="C")))
    h.assert_close(y, expected, dtype)
    h.assert_close(dx, tensor.grad, dtype)


def test_maxout_by_hand():
    x = np.array([[1.0, 3.0, 2.0, 2.0]])
    np.testing.assert_array_equal(kernels.maxout(x, 2), [[3, 2]])
    dx = kernels.maxout_backward(np.array([[5.0, 7.0]]), x, 2)
    np.testing.assert_array_equal(dx, [[0, 5, 7, 0]])  # a tie goes to the first


# ---- bad input -------------------------------------------------------------------------------

NAMES = ["sigmoid", "tanh", "relu", "leaky_relu", "hardtanh", "elu", "gelu"]
NAMES += ["softplus", "silu"]


@pytest.mark.parametrize("name", [*NAMES, "softmax", "log_softmax"])
def test_bad_arrays(name):
    forward, backward = getattr(kernels, name), getattr(kernels, f"{name}_backward")
    saved = "y" if name in ("sigmoid", "tanh", "softmax", "log_softmax") else "x"
    x = np.ones((2, 3))
    with h.shapes_unchecked():
        for bad in ([1.0, 2.0], np.ones(2, int), np.ones(2, np.float16), None):
            with pytest.raises(TypeError, match=r"^x must be"):
                forward(bad)
            with pytest.raises(TypeError, match=r"^dy must be"):
                backward(bad, x)
            with pytest.raises(TypeError, match=rf"^{saved} must be"):
                backward(x, bad)
        with pytest.raises(ValueError, match=f"dy and {saved} must have the same shape"):
            backward(np.ones((3, 2)), x)
        with pytest.raises(TypeError, match=f"dy is float32, {saved} is float64"):
            backward(x.astype(np.float32), x)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: kernels.softmax(x, 2), ValueError, "dim must be in -2 … 1, got 2"),
        (lambda x: kernels.log_softmax(x, 0.5), TypeError, "dim must be an int"),
        (lambda x: kernels.softmax(np.float64(1)), ValueError, "x must have at least 1 axis"),
        (lambda x: kernels.maxout(x, 2), ValueError, "pool_size must divide .* got 2 for 3"),
        (lambda x: kernels.maxout(x, 0), ValueError, "pool_size must be at least 1"),
        (lambda x: kernels.maxout(x, 1.0), TypeError, "pool_size must be an int"),
        (lambda x: kernels.maxout_backward(x, x, 3), ValueError, r"dy must have shape \(2, 1\)"),
        (lambda x: kernels.gelu(x, "exact"), ValueError, "approximate must be one of"),
        (lambda x: kernels.leaky_relu(x, "a"), TypeError, "negative_slope must be a number"),
        (lambda x: kernels.hardtanh(x, 2, 1), ValueError, "must not be above max_val, got 2 and 1"),
        (lambda x: kernels.elu(x, float("nan")), ValueError, "alpha must be finite"),
        (lambda x: kernels.softplus(x, 0), ValueError, "beta must be positive, got 0"),
    ],
)
def test_bad_settings(call, error, message):
    with h.shapes_unchecked(), pytest.raises(error, match=message):
        call(np.ones((2, 3)))


CLOSED = {"relu": 0, "hardtanh": 0, "leaky_relu": np.inf, "elu": np.inf, "leaky_relu -0.3": -np.inf}


@pytest.mark.parametrize("case", CLOSED)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_infinite_gradient_is_stopped_where_the_slope_is_0(case, dtype):
    _, backward, torch_function, _ = pair(case)
    x = np.array([[-2.0, 0.5, -1.5], [0.25, np.nan, -3.0]], dtype)
    dy = np.array([[np.inf, np.inf, -2.0], [-np.inf, 2.0, np.nan]], dtype)
    for layout in ("contiguous", "transposed", "every second"):
        dx = backward(h.laid_out(dy, layout), h.laid_out(x, layout))
        tensor = torch.tensor(x, requires_grad=True)
        torch_function(tensor).backward(torch.tensor(dy))
        known = ~np.isnan(x)
        np.testing.assert_allclose(dx[known], tensor.grad.numpy()[known], rtol=1e-6)
        assert dx[0, 0] == CLOSED[case]
    number = backward(dtype(np.inf), dtype(-1.5))
    assert number.dtype == dtype
    assert number == CLOSED[case]


@pytest.mark.parametrize("case", [case for case in ELEMENTWISE if case != "leaky_relu 1.5"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_largest_numbers_and_infinities_as_torch_without_warnings(case, dtype):
    forward, backward, torch_function, takes_output = pair(case)
    large = float(np.finfo(dtype).max)
    x = np.array([-np.inf, -large, large, np.inf, -1e20, -1e4, 0, 1e4, 1e20], dtype)
    y = forward(x)
    dx = backward(np.ones_like(x), y if takes_output else x)
    y, dx, x = y[4:], dx[4:], x[4:]  # torch's gelu is NaN at +∞ in float32, ours is not
    tensor = torch.tensor(x, requires_grad=True)
    expected = torch_function(tensor)
    expected.backward(torch.ones_like(tensor))
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-6)
    # x³ in the derivative of the approximation to gelu overflows in torch, too: NaN there.
    np.testing.assert_allclose(dx, tensor.grad.numpy(), rtol=1e-6)


def test_leaky_relu_without_a_slope_and_hardtanh_without_a_width():
    """0 · ∞ is not met, and one value may be both ends."""
    x = np.array([-3.0, 0.0, 2.0, np.inf])
    np.testing.assert_array_equal(kernels.leaky_relu(x, 0), [0, 0, 2, np.inf])
    np.testing.assert_array_equal(kernels.hardtanh(x, 1, 1), 1)
    np.testing.assert_array_equal(kernels.hardtanh_backward(np.ones(4), x, 1, 1), 0)


@pytest.mark.parametrize(
    "name", ["gelu", "gelu_backward", "sigmoid", "silu", "silu_backward", "elu"]
)
def test_a_long_array_is_worked_out_in_blocks_without_a_seam(name):
    function = getattr(kernels, name)
    count = 2 if name.endswith("backward") else 1
    x = np.random.default_rng(0).standard_normal((count, 5, 20_000)).astype(np.float32)
    rows = np.stack([function(*part) for part in x.swapaxes(0, 1)])
    np.testing.assert_array_equal(function(*x), rows)
    np.testing.assert_array_equal(function(*x[..., ::-1]), rows[:, ::-1])


def test_gelu_in_float32_is_as_exact_as_float32_allows():
    x = np.concatenate([np.linspace(-12, 12, 200_001), [-1e4, 1e4, -3e38, 3e38]])
    x = x.astype(np.float32)
    exact = x * ndtr(x.astype(np.float64))
    assert np.abs((kernels.gelu(x) - exact) / np.maximum(1, np.abs(x))).max() < 1.5e-7
    assert kernels.gelu(x)[-4] == 0
    assert np.isnan(kernels.gelu(np.float32([np.nan]))).all()
