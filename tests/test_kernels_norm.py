"""Normalisation against torch and against numeric gradients."""

import math

import core_helpers as h
import numpy as np
import pytest
import torch
import torch.nn.functional as torch_F
from hypothesis import given, settings
from hypothesis import strategies as st

from dlnotes import check, kernels

shapes = h.shapes(0, 3, 1, 4).flatmap(  # (n, c, *size), the batch and the channels apart
    lambda size: st.tuples(st.integers(0, 3), st.integers(1, 6)).map(lambda head: (*head, *size))
)
scales = st.sampled_from([1.0, 30.0, 1e4])
AFFINE = st.sampled_from([(), ("weight",), ("bias",), ("weight", "bias")])


def check_against_torch(name, x, arguments, parameters, spread, seed):
    """Hold a normalisation against torch; `spread` is the least deviation that it divides by.

    float32 loses digits where the deviation is far smaller than the values, in torch as well as
    here: the reference is torch in float64, and the tolerance grows by their ratio.
    """
    dtype = x.dtype
    forward, backward = getattr(kernels, name), getattr(kernels, f"{name}_backward")
    names = ["x", *parameters]
    given_arrays = [x, *parameters.values()]

    def call(function, *arrays):
        x, *rest = arrays
        return function(x, **arguments, **dict(zip(names[1:], rest, strict=True)))

    y = h.assert_pure(lambda *a: call(forward, *a), *given_arrays)
    dy = h.draw(seed, y.shape, dtype)

    def pull_back(dy, *arrays):
        x, *rest = arrays
        return backward(dy, x, **arguments, **dict(zip(names[1:], rest, strict=True)))

    gradients = h.assert_pure(pull_back, dy, *given_arrays)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    if not x.size:  # torch itself fails on some empty batches
        assert y.shape == x.shape
        assert not any(gradient.any() for gradient in gradients if gradient is not None)
        return
    tensors = [
        torch.tensor(a.astype(np.float64, order="C"), requires_grad=True) for a in given_arrays
    ]
    constants = {
        key: torch.tensor(value.astype(np.float64)) if isinstance(value, np.ndarray) else value
        for key, value in arguments.items()
    }
    function = getattr(torch_F, name)
    expected = function(tensors[0], **constants, **dict(zip(names[1:], tensors[1:], strict=True)))
    expected.backward(torch.tensor(dy.astype(np.float64)))
    largest = float(np.abs(x).max(initial=0))
    factor = 20 * max(1.0, largest / spread)
    assert y.dtype == dtype
    h.assert_close(y.astype(np.float64), expected, np.float64, 1, _rounding(dtype, factor))
    present = [gradient for gradient in gradients if gradient is not None]
    assert len(present) == len(tensors)
    for gradient, tensor in zip(present, tensors, strict=True):
        assert gradient.dtype == dtype
        scale = max(1.0, float(tensor.grad.abs().max()) if tensor.grad.numel() else 1.0)
        allowed = _rounding(dtype, factor * max(1.0, 1 / spread))
        h.assert_close(gradient.astype(np.float64), tensor.grad, np.float64, scale, allowed)


def _rounding(dtype, factor):
    """Return the factor on float64's tolerance that a result of `dtype` may need."""
    return factor * h.TOLERANCE[np.dtype(dtype)] / h.TOLERANCE[np.dtype(np.float64)]


def spread(x, axes):
    """Return the smallest standard deviation that occurs, with the eps of the default."""
    return math.sqrt(float(x.astype(np.float64).var(axis=axes).min(initial=1e30)) + 1e-5)


def parameters(names, shape, dtype, seed):
    return {name: h.draw(seed + i, shape, dtype) for i, name in enumerate(names)}


@settings(deadline=None, max_examples=60)
@given(shapes, st.booleans(), AFFINE, h.dtypes, scales, h.layouts, h.seeds)
def test_batch_norm_parity_with_torch(shape, training, names, dtype, scale, layout, seed):
    if training and math.prod(shape) // shape[1] == 1:
        shape = (2, *shape[1:])
    x = h.draw(seed, shape, dtype, scale, layout)
    mean, var = h.draw(seed + 1, shape[1], dtype), np.abs(h.draw(seed + 2, shape[1], dtype)) + 0.1
    arguments = {"running_mean": mean, "running_var": var.astype(dtype), "training": training}
    axes = (0, *range(2, len(shape)))
    least = spread(x, axes) if training and x.size else 0.3
    affine = parameters(names, shape[1], dtype, seed + 3)
    check_against_torch("batch_norm", x, arguments, affine, least, seed + 5)

    if training:
        running = kernels.batch_norm_statistics(x, mean, arguments["running_var"], 0.3)
        expected = [torch.tensor(a.copy()) for a in (mean, arguments["running_var"])]
        torch_F.batch_norm(torch.tensor(x.copy(order="C")), *expected, training=True, momentum=0.3)
        for ours, theirs, size in zip(running, expected, (scale, scale**2), strict=True):
            h.assert_close(ours, theirs, dtype, size, factor=5)


@settings(deadline=None, max_examples=50)
@given(shapes, st.booleans(), AFFINE, h.dtypes, scales, h.layouts, h.seeds)
def test_instance_norm_parity_with_torch(shape, own, names, dtype, scale, layout, seed):
    if len(shape) < 3 or math.prod(shape[2:]) == 1:
        shape = (*shape[:2], 3, *shape[3:])
    x = h.draw(seed, shape, dtype, scale, layout)
    mean, var = h.draw(seed + 1, shape[1], dtype), np.abs(h.draw(seed + 2, shape[1], dtype)) + 0.1
    var = var.astype(dtype)
    arguments = {"use_input_stats": own}
    if not own:
        arguments |= {"running_mean": mean, "running_var": var}
    affine = parameters(names, shape[1], dtype, seed + 3)
    least = spread(x, tuple(range(2, x.ndim))) if own and x.size else 0.3
    check_against_torch("instance_norm", x, arguments, affine, least, seed + 5)

    if x.size:
        running = kernels.instance_norm_statistics(x, mean, var, 0.3)
        expected = [torch.tensor(a.copy()) for a in (mean, var)]
        torch_F.instance_norm(torch.tensor(x.copy(order="C")), *expected, momentum=0.3)
        for ours, theirs, size in zip(running, expected, (scale, scale**2), strict=True):
            h.assert_close(ours, theirs, dtype, size, factor=5)


@settings(deadline=None, max_examples=50)
@given(shapes, st.data(), AFFINE, h.dtypes, scales, h.layouts, h.seeds)
def test_group_norm_parity_with_torch(shape, data, names, dtype, scale, layout, seed):
    groups = data.draw(st.sampled_from([g for g in range(1, 7) if shape[1] % g == 0]))
    if shape[0] * math.prod(shape[2:]) * shape[1] // groups <= shape[0]:
        shape = (*shape[:2], 3, *shape[3:])  # torch refuses one value a group
    x = h.draw(seed, shape, dtype, scale, layout)
    least = spread(x.reshape(len(x) * groups, -1), 1) if x.size else 1.0
    names = ("weight", "bias") if names == ("bias",) else names  # alone, it is beyond torch
    affine = parameters(names, shape[1], dtype, seed + 3)
    check_against_torch("group_norm", x, {"num_groups": groups}, affine, least, seed + 5)


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
@settings(deadline=None, max_examples=50)
@given(h.shapes(1, 4, 0, 5), st.data(), AFFINE, h.dtypes, scales, h.layouts, h.seeds)
def test_layer_norm_parity_with_torch(name, shape, data, names, dtype, scale, layout, seed):
    count = data.draw(st.integers(1, len(shape)))
    last = shape[-count:]
    if math.prod(last) == 0:
        shape = last = (*shape[:-1], 3) if 0 not in shape[:-1] else (3,)
    x = h.draw(seed, shape, dtype, scale, layout)
    arguments = {"normalized_shape": last}
    rows = x.reshape(-1, math.prod(last)) if x.size else np.ones((1, 1), dtype)
    if name == "rms_norm":
        names = [n for n in names if n == "weight"]
        arguments["eps"] = 1e-5
        least = math.sqrt(float((rows.astype(np.float64) ** 2).mean(axis=1).min()) + 1e-5)
    else:
        least = spread(rows, 1)
    affine = parameters(names, last, dtype, seed + 3)
    check_against_torch(name, x, arguments, affine, least, seed + 5)


@settings(deadline=None, max_examples=50)
@given(shapes, st.integers(1, 8), h.dtypes, scales, h.layouts, h.seeds)
def test_local_response_parity_with_torch(shape, size, dtype, scale, layout, seed):
    shape = shape if len(shape) > 2 else (*shape, 2)
    x = h.draw(seed, shape, dtype, scale, layout)
    arguments = {"size": size, "alpha": 0.1, "beta": 0.75, "k": 2.0}
    if not x.size:  # torch refuses
        assert kernels.local_response_norm(x, **arguments).shape == shape
        return
    # The values are divided, not subtracted from one another: nothing is lost.
    check_against_torch("local_response_norm", x, arguments, {}, max(1.0, scale), seed + 5)


# ---- numeric gradients -----------------------------------------------------------------------

running = {"running_mean": np.array([0.5, -0.5, 1]), "running_var": np.array([0.5, 2, 1.0])}
CASES = {
    "batch_norm training": ((3, 3, 2), 3, {**running, "training": True}),
    "batch_norm evaluation": ((2, 3, 2), 3, {**running, "training": False}),
    "batch_norm of a matrix": ((4, 3), 3, {**running, "training": True}),
    "instance_norm": ((2, 3, 2, 2), 3, {}),
    "instance_norm evaluation": ((2, 3, 2), 3, {**running, "use_input_stats": False}),
    "group_norm": ((2, 4, 2), 4, {"num_groups": 2}),
    "layer_norm": ((2, 3, 4), (3, 4), {"normalized_shape": (3, 4)}),
    "rms_norm": ((2, 3, 4), 4, {"normalized_shape": 4}),
    "local_response_norm": ((2, 5, 2), None, {"size": 4, "alpha": 0.5, "beta": 0.75}),
}


@pytest.mark.parametrize("case", CASES)
def test_numeric_gradient(case):
    shape, weights, keywords = CASES[case]
    name = case.split()[0]
    rng = np.random.default_rng(0)
    count = 0 if weights is None else 1 if name == "rms_norm" else 2
    inputs = [rng.standard_normal(shape), *(rng.standard_normal(weights) for _ in range(count))]
    function, backward = getattr(kernels, name), getattr(kernels, f"{name}_backward")

    def named(rest):
        return dict(zip(("weight", "bias"), rest, strict=False))

    constants = {
        key: torch.tensor(value) if isinstance(value, np.ndarray) else value
        for key, value in keywords.items()
    }
    if name in ("rms_norm", "layer_norm"):
        constants["normalized_shape"] = np.atleast_1d(keywords["normalized_shape"]).tolist()
    tensors = [torch.tensor(a) for a in inputs]
    expected = getattr(torch_F, name)(tensors[0], **constants, **named(tensors[1:])).numpy()

    def forward(*arrays):
        return function(arrays[0], **keywords, **named(arrays[1:]))

    def pull_back(dy, *arrays):
        return backward(dy, arrays[0], **keywords, **named(arrays[1:]))

    check.gradcheck(forward, tuple(inputs), backward=pull_back, expected=expected)


# ---- what normalisation promises ---------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_mean_far_from_zero_costs_few_digits(dtype):
    """Values 10000 ± 1: the variance is of the differences, not mean of squares less square."""
    x = (1e4 + np.random.default_rng(0).standard_normal((64, 3, 8))).astype(dtype)
    for y in (
        kernels.batch_norm(x, None, None, training=True),
        kernels.instance_norm(x),
        kernels.group_norm(x, 3),
        kernels.layer_norm(x, (3, 8)),
    ):
        assert abs(float(y.std(dtype=np.float64)) - 1) < 2e-3
        assert abs(float(y.mean(dtype=np.float64))) < 2e-3


def test_batch_norm_by_hand():
    x = np.array([[1.0], [3.0]])
    y = kernels.batch_norm(x, None, None, np.array([10.0]), np.array([5.0]), True, eps=0)
    np.testing.assert_allclose(y, [[-5], [15]])
    mean, var = kernels.batch_norm_statistics(x, np.array([0.0]), np.array([1.0]), 0.5)
    np.testing.assert_allclose([mean, var], [[1.0], [1.5]])  # unbiased variance: 2


def test_an_empty_batch_leaves_the_statistics():
    mean, var = np.array([3.0]), np.array([4.0])
    for function in (kernels.batch_norm_statistics, kernels.instance_norm_statistics):
        new = function(np.zeros((0, 1, 2)), mean, var)
        np.testing.assert_array_equal(new, [[3], [4]])
        assert not np.shares_memory(new[0], mean)


def test_constant_input_gives_the_bias():
    x = np.full((2, 4, 3), 7.0)
    bias = np.arange(4.0)
    for y in (
        kernels.batch_norm(x, None, None, None, bias, True),
        kernels.group_norm(x, 2, bias=bias),
        kernels.instance_norm(x, bias=bias),
    ):
        np.testing.assert_allclose(y, np.broadcast_to(bias[:, None], x.shape), atol=1e-12)


# ---- bad input -------------------------------------------------------------------------------

x, v = np.ones((2, 4, 3)), np.ones(4)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("batch_norm", (v, v)),
        ("instance_norm", ()),
        ("group_norm", (2,)),
        ("layer_norm", (3,)),
        ("rms_norm", (3,)),
        ("local_response_norm", (2,)),
    ],
)
def test_bad_arrays(name, arguments):
    forward, backward = getattr(kernels, name), getattr(kernels, f"{name}_backward")
    with h.shapes_unchecked():
        for bad in ([1.0], x.astype(int), x.astype(np.float16), None):
            with pytest.raises(TypeError, match=r"^x must be"):
                forward(bad, *arguments)
            with pytest.raises(TypeError, match=r"^dy must be"):
                backward(bad, x, *arguments)
        with pytest.raises(ValueError, match=r"dy must have shape \(2, 4, 3\)"):
            backward(x[:1], x, *arguments)
        with pytest.raises(TypeError, match="dy is float32"):
            backward(x.astype(np.float32), x, *arguments)
        with pytest.raises(ValueError, match="x must have at least"):
            forward(np.float64(1), *arguments)


K = kernels


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: K.batch_norm(x, None, None), ValueError, "unless training=True"),
        (lambda: K.batch_norm(x, v, v[:3]), ValueError, r"running_var must have shape \(4,\)"),
        (lambda: K.batch_norm(x, v, v, v[:3]), ValueError, r"weight must have shape \(4,\)"),
        (lambda: K.batch_norm(x, v, v, v, x), ValueError, "bias must have 1 axis"),
        (lambda: K.batch_norm(x, v, v, v.astype(np.float32)), TypeError, "weight is float32"),
        (lambda: K.batch_norm(x, v, v, eps=-1), ValueError, "eps must be at least 0"),
        (lambda: K.batch_norm(x, v, v, momentum=2), ValueError, "momentum must be in 0 … 1"),
        (lambda: K.batch_norm(x[:1, :, :1], v, v, training=True), ValueError, "more than one val"),
        (lambda: K.batch_norm_statistics(x[:1, :, 0], v, v), ValueError, "more than one value"),
        (lambda: K.instance_norm(x[..., 0]), ValueError, "x must have at least 3 axes"),
        (lambda: K.instance_norm(x[..., :1]), ValueError, "more than one value for each sample"),
        (lambda: K.instance_norm(x, use_input_stats=False), ValueError, "running_mean and runn"),
        (lambda: K.group_norm(x, 3), ValueError, "num_groups must divide .* got 3 for 4"),
        (lambda: K.group_norm(x, 2, v[:2]), ValueError, "weight must have shape"),
        (lambda: K.layer_norm(x, 4), ValueError, r"lengths of the last axes of x, got \(4,\)"),
        (lambda: K.layer_norm(x, ()), ValueError, "normalized_shape must be the lengths"),
        (lambda: K.layer_norm(x, (2, 4, 3, 1)), ValueError, "normalized_shape must be the"),
        (lambda: K.layer_norm(x, 3.0), TypeError, "normalized_shape must be an int"),
        (lambda: K.layer_norm(x, (4, 3), v), ValueError, r"weight must have shape \(4, 3\)"),
        (lambda: K.rms_norm(x, 3, v), ValueError, r"weight must have shape \(3,\)"),
        (lambda: K.local_response_norm(x, 0), ValueError, "size must be at least 1"),
        (lambda: K.local_response_norm(x, 2, "a"), TypeError, "alpha must be a number"),
    ],
)
def test_bad_settings(call, error, message):
    with h.shapes_unchecked(), pytest.raises(error, match=message):
        call()
