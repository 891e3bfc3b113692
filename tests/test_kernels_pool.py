"""Pooling against torch and against numeric gradients, on generated windows."""

import core_helpers as h
import numpy as np
import pytest
import torch
import torch.nn.functional as torch_F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dlnotes import check, kernels


@st.composite
def windows(draw, axes, *, with_dilation=False, with_padding=True):
    """Shape and settings of a pooling that has at least one window."""
    kernel = tuple(draw(st.integers(1, 4)) for _ in range(axes))
    dilation = tuple(draw(st.integers(1, 2)) if with_dilation else 1 for _ in kernel)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    padding = tuple(draw(st.integers(0, k // 2)) if with_padding else 0 for k in kernel)
    # A kernel as large as the padded input is frequent.
    size = tuple(
        max(1, span - 2 * p) + draw(st.integers(0, 4))
        for span, p in zip(spans, padding, strict=True)
    )
    keywords = {"kernel_size": kernel, "ceil_mode": draw(st.booleans())}
    keywords["stride"] = draw(st.one_of(st.none(), st.tuples(*[st.integers(1, 3) for _ in kernel])))
    if with_padding:
        keywords["padding"] = padding
    if with_dilation:
        keywords["dilation"] = dilation
    return (draw(st.integers(0, 3)), draw(st.integers(1, 2)), *size), keywords


def check_against_torch(name, shape, keywords, dtype, scale, layout, seed, change=None):
    x = h.draw(seed, shape, dtype, scale, layout)
    x = x if change is None else h.laid_out(change(x), layout)
    forward, backward = getattr(kernels, name), getattr(kernels, f"{name}_backward")
    y = h.assert_pure(lambda a: forward(a, **keywords), x)
    dy = h.draw(seed + 1, y.shape, dtype, 1, layout)
    dx = h.assert_pure(lambda g, a: backward(g, a, **keywords), dy, x)
    tensor = torch.tensor(x.copy(order="C"), requires_grad=True)
    expected = getattr(torch_F, name)(tensor, **keywords)
    expected.backward(torch.tensor(dy.copy(order="C")))
    h.assert_close(y, expected, dtype, scale, factor=3)
    h.assert_close(dx, tensor.grad, dtype, 10)


draws = st.tuples(h.dtypes, h.scales, h.layouts, h.seeds)


@pytest.mark.parametrize("axes", [1, 2])
@settings(deadline=None, max_examples=60)
@given(st.data(), draws)
def test_max_parity_with_torch(axes, data, drawn):
    shape, keywords = data.draw(windows(axes, with_dilation=True))
    # torch's backward writes out of bounds where a window has no entry inside the input.
    assume(np.isfinite(getattr(kernels, f"max_pool{axes}d")(np.zeros(shape), **keywords)).all())
    # Few different values: ties are frequent, and the gradient must go to the same entry.
    change = data.draw(st.sampled_from([None, np.sign]))
    check_against_torch(f"max_pool{axes}d", shape, keywords, *drawn, change)

    x = h.draw(drawn[-1], shape, drawn[0])
    x = x if change is None else change(x)
    y, indices = getattr(kernels, f"max_pool{axes}d")(x, **keywords, return_indices=True)
    function = getattr(torch_F, f"max_pool{axes}d")
    expected, positions = function(torch.tensor(x), **keywords, return_indices=True)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(indices, positions)
    assert indices.dtype == np.int64


@pytest.mark.parametrize("axes", [1, 2])
@settings(deadline=None, max_examples=50)
@given(st.data(), draws)
def test_average_parity_with_torch(axes, data, drawn):
    shape, keywords = data.draw(windows(axes))
    keywords["count_include_pad"] = data.draw(st.booleans())
    if axes == 2:
        keywords["divisor_override"] = data.draw(st.sampled_from([None, 1, 3]))
    check_against_torch(f"avg_pool{axes}d", shape, keywords, *drawn)


@pytest.mark.parametrize("axes", [1, 2])
@settings(deadline=None, max_examples=40)
@given(st.data(), draws)
def test_power_mean_parity_with_torch(axes, data, drawn):
    shape, keywords = data.draw(windows(axes, with_padding=False))
    if axes == 1:  # torch takes no tuple there
        keywords["kernel_size"] = keywords["kernel_size"][0]
    keywords["norm_type"] = norm_type = data.draw(st.sampled_from([1, 2, 3.0, 4]))
    change = None if norm_type in (2, 4) else np.abs
    check_against_torch(f"lp_pool{axes}d", shape, keywords, *drawn, change)


@pytest.mark.parametrize("axes", [1, 2])
@settings(deadline=None, max_examples=40)
@given(st.data(), draws)
def test_adaptive_parity_with_torch(axes, data, drawn):
    shape = tuple(data.draw(st.integers(low, 7)) for low in (0, 1, *[1] * axes))
    sizes = st.tuples(*[st.integers(1, 8) for _ in range(axes)])
    output_size = data.draw(st.one_of(st.integers(1, 8), sizes))
    if axes == 2 and data.draw(st.booleans()):
        output_size = (None, data.draw(st.integers(1, 8)))
    check_against_torch(f"adaptive_avg_pool{axes}d", shape, {"output_size": output_size}, *drawn)


@settings(deadline=None, max_examples=40)
@given(windows(2), st.sampled_from([None, 0, 1]), h.dtypes, h.layouts, h.seeds)
def test_unpool_parity_with_torch(case, larger, dtype, layout, seed):
    shape, keywords = case
    keywords["ceil_mode"] = False
    # Windows that do not overlap, so that every index occurs once.
    keywords["stride"] = None
    x, indices = kernels.max_pool2d(h.draw(seed, shape, dtype), **keywords, return_indices=True)
    x = h.laid_out(x, layout)
    keywords.pop("ceil_mode")
    output_size = shape[2:] if larger is None else tuple(s + larger for s in shape[2:])
    y = h.assert_pure(
        lambda a, i: kernels.max_unpool2d(a, i, **keywords, output_size=output_size), x, indices
    )
    dy = h.draw(seed + 1, y.shape, dtype, 1, layout)
    dx = kernels.max_unpool2d_backward(dy, x, indices, **keywords, output_size=output_size)
    # torch allows fewer sizes than we do, so the oracle is the definition.
    expected = np.zeros((*shape[:2], output_size[0] * output_size[1]), dtype)
    for n, c, *place in np.ndindex(x.shape):
        expected[n, c, indices[n, c, *place]] = x[n, c, *place]
    np.testing.assert_array_equal(y, expected.reshape(y.shape))
    picked = (
        np.take_along_axis(dy.reshape(expected.shape), indices.reshape(*x.shape[:2], -1), 2)
        if x.size
        else dx
    )
    np.testing.assert_array_equal(dx, picked.reshape(x.shape))


def test_unpool_default_size_as_torch():
    x = h.draw(0, (2, 3, 6, 8), np.float32)
    y, indices = kernels.max_pool2d(x, 2, return_indices=True)
    expected = torch_F.max_unpool2d(torch.tensor(y), torch.tensor(indices), 2)
    np.testing.assert_array_equal(kernels.max_unpool2d(y, indices, 2), expected)


# ---- numeric gradients -----------------------------------------------------------------------

CASES = {
    "max_pool1d": ((1, 2, 7), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "max_pool2d": ((2, 1, 5, 4), {"kernel_size": (3, 2), "stride": 2, "ceil_mode": True}),
    "avg_pool1d": ((1, 2, 7), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "avg_pool2d": (
        (1, 2, 5, 4),
        {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True,
         "count_include_pad": False},
    ),
    "adaptive_avg_pool1d": ((1, 2, 7), {"output_size": 3}),
    "adaptive_avg_pool2d": ((1, 2, 5, 4), {"output_size": (2, 3)}),
    "lp_pool1d": ((1, 2, 7), {"norm_type": 2, "kernel_size": 3}),
    "lp_pool2d": ((1, 2, 5, 4), {"norm_type": 4, "kernel_size": 2, "stride": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_numeric_gradient(name):
    shape, keywords = CASES[name]
    rng = np.random.default_rng(0)
    x = rng.permutation(np.arange(np.prod(shape)) * 0.1 + 0.1).reshape(shape)  # no ties
    function, backward = getattr(kernels, name), getattr(kernels, f"{name}_backward")
    check.gradcheck(
        lambda x: function(x, **keywords),
        (x,),
        backward=lambda dy, x: backward(dy, x, **keywords),
        expected=getattr(torch_F, name)(torch.tensor(x), **keywords).numpy(),
    )


def test_numeric_gradient_of_unpool():
    x = np.random.default_rng(0).standard_normal((1, 2, 4, 4))
    x, indices = kernels.max_pool2d(x, 2, return_indices=True)
    check.gradcheck(
        lambda x: kernels.max_unpool2d(x, indices, 2),
        (x,),
        backward=lambda dy, x: kernels.max_unpool2d_backward(dy, x, indices, 2),
        expected=torch_F.max_unpool2d(torch.tensor(x), torch.tensor(indices), 2).numpy(),
    )


# ---- by hand ---------------------------------------------------------------------------------


def test_overlapping_windows_by_hand():
    x = np.array([[[1.0, 4, 2, 3, 5]]])
    np.testing.assert_array_equal(kernels.max_pool1d(x, 3, 2), [[[4, 5]]])
    dx = kernels.max_pool1d_backward(np.array([[[10.0, 7.0]]]), x, 3, 2)
    np.testing.assert_array_equal(dx, [[[0, 10, 0, 0, 7]]])
    twice = kernels.max_pool1d_backward(
        np.array([[[10.0, 7.0, 1.0]]]), x[..., [0, 2, 1, 3, 4]], 3, 1
    )
    np.testing.assert_array_equal(twice, [[[0, 0, 17, 0, 1]]])  # one entry may win twice


def test_ties_go_to_the_first():
    x = np.zeros((1, 1, 2, 2))
    dx = kernels.max_pool2d_backward(np.ones((1, 1, 1, 1)), x, 2)
    np.testing.assert_array_equal(dx, [[[[1, 0], [0, 0]]]])


def test_a_dilated_window_may_miss_the_input():
    x = np.ones((1, 1, 1))
    y, indices = kernels.max_pool1d(x, 2, 1, 1, 2, return_indices=True)
    np.testing.assert_array_equal(y, [[[-np.inf]]])
    np.testing.assert_array_equal(indices, [[[-1]]])
    np.testing.assert_array_equal(kernels.max_pool1d_backward(y, x, 2, 1, 1, 2), [[[0]]])


def test_nan_is_seen():
    x = np.array([[[1.0, np.nan, 2, 3]]])
    y, indices = kernels.max_pool1d(x, 2, return_indices=True)
    np.testing.assert_array_equal(y, [[[np.nan, 3]]])
    np.testing.assert_array_equal(indices, [[[1, 3]]])


@pytest.mark.parametrize("axes", [1, 2])
@settings(deadline=None, max_examples=30)
@given(st.data(), h.seeds)
def test_winners_among_nan_are_torchs(axes, data, seed):
    name = f"max_pool{axes}d"
    shape, keywords = data.draw(windows(axes))
    rng = np.random.default_rng(seed)
    x = rng.choice(np.array([-np.inf, 0, 1, 2, np.nan], np.float32), shape)
    y, indices = getattr(kernels, name)(x, **keywords, return_indices=True)
    dx = getattr(kernels, f"{name}_backward")(np.ones_like(y), x, **keywords)
    tensor = torch.tensor(x, requires_grad=True)
    expected = getattr(torch_F, name)(tensor, **keywords, return_indices=True)
    expected[0].sum().backward()
    np.testing.assert_array_equal(y, expected[0].detach().numpy())
    np.testing.assert_array_equal(indices, expected[1].numpy())
    np.testing.assert_array_equal(dx, tensor.grad.numpy())


@pytest.mark.parametrize("arguments", [(2, 2, 0), (3, 2, 1), ((1, 2), (1, 2), 0)])
def test_more_samples_than_are_worked_on_together(arguments, monkeypatch):
    x, results = h.draw(0, (7, 3, 10, 9), np.float32), []
    for entries in (2**20, 600):  # all samples, and two at a time
        monkeypatch.setattr("dlnotes.kernels.pool._BLOCK_ENTRIES", entries)
        y, indices = kernels.max_pool2d(x, *arguments, return_indices=True)
        dy = h.draw(1, y.shape, np.float32)
        results.append((y, indices, kernels.max_pool2d_backward(dy, x, *arguments)))
    for whole, by_two in zip(*results, strict=True):
        np.testing.assert_array_equal(whole, by_two)


@pytest.mark.parametrize(
    ("size", "arguments"),
    [
        ((6,), {"kernel_size": 3, "padding": 1}),  # as many places in windows as entries
        ((4,), {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True}),
        ((4,), {"kernel_size": 2, "dilation": 2}),
        ((6, 4), {"kernel_size": (3, 2), "padding": (1, 0)}),
        ((4, 4), {"kernel_size": 2}),
        ((5, 4), {"kernel_size": 2}),
    ],
)
def test_entries_outside_all_windows_have_gradient_zero(size, arguments):
    """And a gradient that is infinite stays at its winner."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, *size)).astype(np.float32)
    name = f"max_pool{len(size)}d"
    tensor = torch.tensor(x, requires_grad=True)
    y = getattr(torch_F, name)(tensor, **arguments)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    dy.flat[0] = np.inf
    y.backward(torch.tensor(dy))
    backward = getattr(kernels, f"{name}_backward")
    np.testing.assert_array_equal(backward(dy, x, **arguments), tensor.grad.numpy())


def test_infinite_entries():
    x = np.array([[[-np.inf, -np.inf, np.inf, 3]]], np.float32)
    y, indices = kernels.max_pool1d(x, 2, return_indices=True)
    np.testing.assert_array_equal(y, [[[-np.inf, np.inf]]])
    np.testing.assert_array_equal(indices, [[[0, 2]]])
    dx = kernels.max_pool1d_backward(np.array([[[2, 5]]], np.float32), x, 2)
    np.testing.assert_array_equal(dx, [[[2, 0, 5, 0]]])


def test_global_average():
    x = h.draw(0, (2, 3, 5, 7), np.float64)
    np.testing.assert_allclose(
        kernels.adaptive_avg_pool2d(x, 1)[..., 0, 0], x.mean(axis=(2, 3)), rtol=1e-13, atol=1e-15
    )


def test_power_mean_of_zeros_has_gradient_zero():
    x = np.zeros((1, 1, 4))
    np.testing.assert_array_equal(kernels.lp_pool1d(x, 2, 2), np.zeros((1, 1, 2)))
    np.testing.assert_array_equal(kernels.lp_pool1d_backward(np.ones((1, 1, 2)), x, 2, 2), x)
    assert np.isnan(kernels.lp_pool1d(x - 1, 3, 2)).all()  # as torch


# ---- bad input -------------------------------------------------------------------------------

x, dy = np.ones((2, 3, 5, 6)), np.ones((2, 3, 2, 3))


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d", "lp_pool2d", "adaptive_avg_pool2d"])
def test_bad_arrays(name):
    forward, backward = getattr(kernels, name), getattr(kernels, f"{name}_backward")
    extra = {"lp_pool2d": (2, 2), "adaptive_avg_pool2d": ((2, 3),)}.get(name, (2,))
    with h.shapes_unchecked():
        for bad in ([[1.0]], x.astype(int), x.astype(np.float16)):
            with pytest.raises(TypeError, match=r"^x must be"):
                forward(bad, *extra)
            with pytest.raises(TypeError, match=r"^x must be"):
                backward(dy, bad, *extra)
            with pytest.raises(TypeError, match=r"^dy must be"):
                backward(bad, x, *extra)
        with pytest.raises(ValueError, match="x must have 4 axes"):
            forward(x[0], *extra)
        with pytest.raises(ValueError, match=r"dy must have shape \(2, 3, 2, 3\)"):
            backward(x, x, *extra)
        with pytest.raises(TypeError, match="dy is float32"):
            backward(dy.astype(np.float32), x, *extra)
        with pytest.raises(ValueError, match=r"windows must fit|must have entries"):
            forward(x[..., :0], *extra)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: kernels.max_pool2d(x, 0), ValueError, "kernel_size must be at least 1"),
        (lambda: kernels.max_pool2d(x, 2.0), TypeError, "kernel_size must be an int"),
        (lambda: kernels.max_pool2d(x, (2, 2, 2)), ValueError, "kernel_size must be an int or 2"),
        (lambda: kernels.max_pool2d(x, 6), ValueError, r"windows must fit .* span \(6, 6\)"),
        (lambda: kernels.max_pool2d(x, 2, 0), ValueError, "stride must be at least 1"),
        (lambda: kernels.max_pool2d(x, 2, 2, 2), ValueError, "padding must be at most half of"),
        (lambda: kernels.max_pool2d(x, 2, 2, -1), ValueError, "padding must be at least 0"),
        (lambda: kernels.max_pool2d(x, 2, dilation=0), ValueError, "dilation must be at least 1"),
        (
            lambda: kernels.avg_pool2d(x, 2, divisor_override=0),
            ValueError,
            "divisor_override must be at least 1",
        ),
        (lambda: kernels.lp_pool2d(x, 0, 2), ValueError, "norm_type must be positive"),
        (lambda: kernels.lp_pool2d(x, "2", 2), TypeError, "norm_type must be a number"),
        (lambda: kernels.lp_pool2d(x, np.inf, 2), ValueError, "norm_type must be finite"),
        (lambda: kernels.adaptive_avg_pool2d(x, 0), ValueError, "output_size must be at least 1"),
        (
            lambda: kernels.adaptive_avg_pool2d(x, (1, 2, 3)),
            ValueError,
            "output_size must be an int or",
        ),
        (
            lambda: kernels.max_unpool2d(x, np.zeros(x.shape), 2),
            TypeError,
            "indices must hold integer labels",
        ),
        (
            lambda: kernels.max_unpool2d(x, np.full(x.shape, 120), 2),
            ValueError,
            r"indices must hold labels in 0 … 119, got 120",
        ),
        (
            lambda: kernels.max_unpool2d(x, np.zeros((2, 3, 5, 5), int), 2),
            ValueError,
            r"indices must have shape \(2, 3, 5, 6\)",
        ),
        (
            lambda: kernels.max_unpool2d_backward(x, x, np.zeros(x.shape, int), 2),
            ValueError,
            r"dy must have shape \(2, 3, 10, 12\)",
        ),
    ],
)
def test_bad_settings(call, error, message):
    with h.shapes_unchecked(), pytest.raises(error, match=message):
        call()
