"""Every loss against torch and against numeric gradients; errors name what is wrong."""

import core_helpers as h
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dlnotes import kernels

PAIRED = [
    "mse_loss",
    "l1_loss",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "kl_div",
]
reductions = st.sampled_from(["mean", "sum", "none"])


def uniform(seed, shape, dtype, layout="contiguous"):
    """Return numbers in [0, 1], both ends among them."""
    values = np.random.default_rng(seed).uniform(-0.2, 1.2, shape).clip(0, 1)
    return h.laid_out(np.asarray(values, dtype), layout)


def check_against_torch(name, input, target, reduction, seed, scale=1.0, factor=1.0):
    """Compare value and gradient; torch's target is int64 where it holds labels."""
    forward, backward = getattr(kernels, name), getattr(kernels, f"{name}_backward")
    loss = h.assert_pure(lambda a, b: forward(a, b, reduction), input, target)
    dy = h.draw(seed, np.shape(loss), input.dtype)
    dinput = h.assert_pure(lambda a, b, c: backward(a, b, c, reduction), dy, input, target)
    tensor = torch.tensor(np.array(input, order="C"), requires_grad=True)
    labels = torch.tensor(np.array(target, order="C"))
    labels = labels if labels.is_floating_point() else labels.long()
    expected = getattr(F, name)(tensor, labels, reduction=reduction)
    expected.backward(torch.tensor(dy))
    count = max(1, input.size) if reduction == "sum" else 1
    h.assert_close(loss, expected, input.dtype, scale * count, factor)
    h.assert_close(dinput, tensor.grad, input.dtype, factor=factor)


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides the total loss:UserWarning")
@pytest.mark.parametrize("name", PAIRED)
@settings(deadline=None, max_examples=30)
@given(
    h.shapes(),
    h.dtypes,
    h.scales,
    h.layouts,
    st.sampled_from(["mean", "sum", "none", "batchmean"]),
    h.seeds,
)
def test_parity_with_torch(name, shape, dtype, scale, layout, reduction, seed):
    if reduction == "batchmean" and (name != "kl_div" or 0 in shape or not shape):
        reduction = "mean"
    factor = 1.0
    if name in ("mse_loss", "l1_loss"):
        input, target = (h.draw(seed + i, shape, dtype, scale, layout) for i in range(2))
        factor = 10 * scale if name == "mse_loss" else 1
    else:
        target = uniform(seed + 1, shape, dtype, layout)
        input = h.draw(seed, shape, dtype, scale, layout)
        if name == "binary_cross_entropy":
            input = dtype(0.001) + dtype(0.998) * uniform(seed, shape, dtype, layout)
            scale, factor = 100, 10
    check_against_torch(name, input, target, reduction, seed + 2, scale * factor, factor)


label_types = st.sampled_from([np.int64, np.int32, np.uint8])


@pytest.mark.parametrize("name", ["nll_loss", "cross_entropy"])
@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 6),
    st.integers(1, 6),
    h.shapes(0, 2),
    h.dtypes,
    label_types,
    h.scales,
    h.layouts,
    reductions,
    h.seeds,
)
def test_labels_parity_with_torch(
    name, n, classes, rest, dtype, label_type, scale, layout, reduction, seed
):
    input = h.draw(seed, (n, classes, *rest), dtype, scale, layout)
    target = np.random.default_rng(seed).integers(0, classes, (n, *rest)).astype(label_type)
    check_against_torch(name, input, h.laid_out(target, layout), reduction, seed + 1, 3 * scale)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 6),
    st.integers(1, 6),
    h.shapes(0, 2, 1),
    h.dtypes,
    h.scales,
    h.layouts,
    reductions,
    h.seeds,
)
def test_soft_targets_parity_with_torch(n, classes, rest, dtype, scale, layout, reduction, seed):
    input = h.draw(seed, (n, classes, *rest), dtype, scale, layout)
    target = uniform(seed + 1, input.shape, dtype, layout)  # rows need not sum to 1
    check_against_torch("cross_entropy", input, target, reduction, seed + 2, 10 * scale, 4)


def test_one_hot_targets_equal_labels():
    logits = h.draw(0, (5, 3), np.float64, 10)
    labels = np.array([0, 2, 1, 1, 0])
    one_hot = np.eye(3)[labels]
    np.testing.assert_allclose(
        kernels.cross_entropy(logits, labels), kernels.cross_entropy(logits, one_hot), rtol=1e-14
    )
    np.testing.assert_allclose(
        kernels.cross_entropy_backward(1, logits, labels),
        kernels.cross_entropy_backward(1, logits, one_hot),
        rtol=1e-12,
    )


# ---- margins ---------------------------------------------------------------------------------

MARGIN = {
    "zero_one_loss": lambda m: (m <= 0).to(m.dtype) + 0 * m,
    "perceptron_loss": lambda m: F.relu(-m),
    "hinge_loss": lambda m: F.relu(1 - m),
    "logistic_loss": lambda m: F.binary_cross_entropy_with_logits(
        m, torch.ones_like(m), reduction="none"
    ),
}
TORCH_REDUCTION = {"mean": torch.mean, "sum": torch.sum, "none": lambda loss: loss}


@pytest.mark.parametrize("name", MARGIN)
@settings(deadline=None, max_examples=20)
@given(h.shapes(), h.dtypes, h.scales, h.layouts, reductions, h.seeds)
def test_margin_losses_against_torch(name, shape, dtype, scale, layout, reduction, seed):
    forward, backward = getattr(kernels, name), getattr(kernels, f"{name}_backward")
    margin = h.draw(seed, shape, dtype, scale, layout)
    loss = h.assert_pure(lambda m: forward(m, reduction), margin)
    dy = h.draw(seed + 1, np.shape(loss), dtype)
    dmargin = h.assert_pure(lambda a, m: backward(a, m, reduction), dy, margin)
    tensor = torch.tensor(np.array(margin, order="C"), requires_grad=True)
    expected = TORCH_REDUCTION[reduction](MARGIN[name](tensor))
    expected.backward(torch.tensor(dy))
    h.assert_close(loss, expected, dtype, scale * (margin.size + 1))
    h.assert_close(dmargin, tensor.grad, dtype)


def test_margin_losses_by_hand():
    margin = np.array([-2.0, 0.0, 0.5, 3.0])
    for name, expected in {
        "zero_one_loss": [1, 1, 0, 0],
        "perceptron_loss": [2, 0, 0, 0],
        "hinge_loss": [3, 1, 0.5, 0],
        "logistic_loss": np.log1p(np.exp(-margin)),
    }.items():
        np.testing.assert_allclose(getattr(kernels, name)(margin, "none"), expected, rtol=1e-15)


# ---- gradients, numerically ------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "name",
    [
        *("mse_loss", "l1_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits"),
        *("kl_div", "nll_loss", "cross_entropy", "cross_entropy soft"),
        *("perceptron_loss", "hinge_loss", "logistic_loss"),
    ],
)
def test_numeric_gradient(name, reduction):
    rng = np.random.default_rng(5)
    input = rng.standard_normal((4, 3))
    target = (rng.uniform(size=(4, 3)),)
    if name in ("nll_loss", "cross_entropy"):
        target = (np.array([0, 2, 1, 1]),)
    elif name == "binary_cross_entropy":
        input = rng.uniform(0.05, 0.95, (4, 3))
    elif name in MARGIN:
        target = ()
    name = name.split()[0]
    forward, backward = getattr(kernels, name), getattr(kernels, f"{name}_backward")
    dy = rng.standard_normal(np.shape(forward(input, *target, reduction)))
    numeric = h.numeric_gradient(lambda x: np.sum(dy * forward(x, *target, reduction)), input)
    gradient = backward(dy, input, *target, reduction)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-9)


# ---- extremes --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits_stay_finite(dtype):
    logits = np.array([[1e4, -1e4, 0.0]], dtype)
    assert kernels.cross_entropy(logits, np.array([1])) == 2e4
    np.testing.assert_array_equal(
        kernels.cross_entropy_backward(1.0, logits, np.array([1])), [[1, -1, 0]]
    )
    loss = kernels.binary_cross_entropy_with_logits(logits, np.array([[0, 1, 1]], dtype), "none")
    np.testing.assert_allclose(loss, [[1e4, 1e4, np.log(2)]], rtol=1e-6)
    # Certain and wrong: the logarithm is cut off at -100.
    certain = np.array([0.0, 1.0, 0.0, 1.0], dtype)
    target = np.array([1.0, 0.0, 0.0, 1.0], dtype)
    loss = kernels.binary_cross_entropy(certain, target, "none")
    np.testing.assert_array_equal(loss, [100, 100, 0, 0])
    slope = kernels.binary_cross_entropy_backward(1.0, certain, target, "sum")
    # torch keeps its smallest denominator, 1e-12, in float32.
    np.testing.assert_allclose(slope, [-1e12, 1e12, 0, 0], rtol=1e-8)


def test_mean_over_nothing_is_nan_as_in_torch():
    empty = np.zeros((0, 3))
    assert np.isnan(kernels.mse_loss(empty, empty))
    assert kernels.mse_loss(empty, empty, "sum") == 0
    assert np.isnan(kernels.cross_entropy(empty, np.zeros(0, int)))
    assert kernels.cross_entropy_backward(1.0, empty, np.zeros(0, int)).shape == (0, 3)


def test_python_and_numpy_numbers_as_upstream_gradient():
    x, t = np.float32([[1, 2]]), np.float32([[0, 0]])
    for dy in (2, 2.0, np.float32(2), np.array(2, np.float32)):
        dx = kernels.mse_loss_backward(dy, x, t)
        assert dx.dtype == np.float32
        np.testing.assert_array_equal(dx, [[2, 4]])


# ---- bad input -------------------------------------------------------------------------------

x, y = np.full((4, 3), 0.5), np.array([0, 1, 2, 0])
nan = np.full((4, 3), np.nan)


def refused(name, error, message, *arguments):
    """Both directions must refuse the same arguments with the same words."""
    with h.shapes_unchecked():
        with pytest.raises(error, match=message):
            getattr(kernels, name)(*arguments)
        with pytest.raises(error, match=message):
            getattr(kernels, f"{name}_backward")(1.0, *arguments)


@pytest.mark.parametrize("name", PAIRED)
def test_bad_pairs(name):
    refused(name, TypeError, "^input must be a NumPy array of floats, got list", [0.5], x)
    refused(name, TypeError, "^input must be float32 or float64", x.astype(np.float16), x)
    refused(name, TypeError, "^target must be float32 or float64", x, np.ones((4, 3), int))
    refused(name, TypeError, "input is float64, target is float32", x, x.astype(np.float32))
    refused(name, ValueError, r"input has \(4, 3\), target has \(4, 1\)", x, x[:, :1])
    refused(name, ValueError, "reduction must be one of 'mean', 'sum', 'none'", x, x, "average")


@pytest.mark.parametrize("name", PAIRED[2:])
def test_targets_must_be_probabilities(name):
    for bad in (nan, x + 1, x - 1):
        refused(name, ValueError, r"^target must hold probabilities in \[0, 1\], got", x, bad)


def test_probabilities_must_be_probabilities():
    name = "binary_cross_entropy"
    for bad in (nan, x + 1, x - 1):
        refused(name, ValueError, r"^input must hold probabilities in \[0, 1\], got", bad, x)


@pytest.mark.parametrize("name", ["nll_loss", "cross_entropy"])
def test_bad_labels(name):
    refused(name, ValueError, r"target must hold labels in 0 … 2, got 3 at index \[1\]", x, y * 3)
    refused(name, ValueError, "got -1", x, y - 1)
    refused(name, ValueError, r"target must have shape \(4,\)", x, y[:3])
    refused(name, ValueError, r"target must have shape \(4,\)", x, y[:, None])
    refused(name, ValueError, "input must have at least 2 axes", x[0], y[:1])
    refused(
        name, TypeError, "target must hold integer labels, got float64|integer labels", x, x[:, 0]
    )
    refused(name, TypeError, "target must hold integer labels, got bool", x, y > 0)
    refused(name, TypeError, "target must be a NumPy array of integer labels, got list", x, [0] * 4)
    refused(name, TypeError, "input must be float32 or float64, got int64", y[:, None], y)
    refused(name, ValueError, "reduction must be one of", x, y, None)


def test_bad_soft_targets():
    refused("cross_entropy", ValueError, "target must hold probabilities", x, nan)
    refused("cross_entropy", ValueError, r"target has \(4, 2\)", x, x[:, :2])
    refused("cross_entropy", TypeError, "target is float32", x, x.astype(np.float32))


@pytest.mark.parametrize("name", MARGIN)
def test_bad_margins(name):
    refused(name, TypeError, "margin must be float32 or float64, got int64", np.array([1, -1]))
    refused(name, TypeError, "margin must be a NumPy array", [1.0])
    refused(name, ValueError, "reduction must be one of", x, "batchmean")


def test_bad_upstream_gradients():
    backward = kernels.mse_loss_backward
    with h.shapes_unchecked():
        with pytest.raises(ValueError, match=r"dy must have shape \(\) \(a number"):
            backward(np.ones((4, 3)), x, x)
        with pytest.raises(ValueError, match=r"dy must have shape \(4, 3\)"):
            backward(1.0, x, x, "none")
        with pytest.raises(TypeError, match="dy and input must have the same dtype"):
            backward(np.float32(1), x, x)
        with pytest.raises(TypeError, match="dy must be a number, got str"):
            backward("1", x, x)
