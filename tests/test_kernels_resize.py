"""Resizing against torch, numeric gradients, and by hand; adaptive max-pooling likewise."""

import core_helpers as h
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dlnotes import check, kernels


@st.composite
def resized(draw):
    """Return (shape, settings) that torch takes, too."""
    axes = draw(st.integers(1, 2))
    shape = (*draw(h.shapes(2, 2, 1, 3)), *draw(h.shapes(axes, axes, 1, 9)))
    linear = {1: "linear", 2: "bilinear"}[axes]
    mode = draw(st.sampled_from(["nearest", "nearest-exact", linear]))
    given = {"mode": mode}
    if mode == linear:
        given["align_corners"] = draw(st.sampled_from([None, False, True]))
    if draw(st.booleans()):
        given["size"] = tuple(draw(st.lists(st.integers(1, 20), min_size=axes, max_size=axes)))
    else:
        given["scale_factor"] = draw(st.sampled_from([1.0, 1.3, 2, 2.5, 3]))
        given["recompute_scale_factor"] = draw(st.sampled_from([None, True]))
    return shape, given


@settings(deadline=None, max_examples=150)
@given(resized(), h.dtypes, h.layouts, h.seeds)
def test_parity_with_torch(drawn, dtype, layout, seed):
    shape, given = drawn
    if torch_differs_from_torch(given, shape):
        return
    x = h.draw(seed, shape, dtype, layout=layout)
    tensor = torch.tensor(np.array(x), requires_grad=True)
    expected = F.interpolate(tensor, **given)
    y = h.assert_pure(lambda a: kernels.interpolate(a, **given), x)
    h.assert_close(y, expected, dtype, 10)
    dy = h.draw(seed + 1, y.shape, dtype, layout=layout)
    dx = h.assert_pure(lambda a, b: kernels.interpolate_backward(a, b, **given), dy, x)
    expected.backward(torch.tensor(np.array(dy)))
    h.assert_close(dx, tensor.grad, dtype, 10)


def torch_differs_from_torch(given, shape) -> bool:
    """Whether torch's nearest mode takes other entries for images, or backward.

    Where the size stays or doubles although the factor is not 1 or 2, it sometimes forgets it.
    """
    factor = given.get("scale_factor")
    if given["mode"] != "nearest" or factor is None or given["recompute_scale_factor"]:
        return False
    return any(int(n * factor) in (n, 2 * n) and factor not in (1, 2) for n in shape[2:])


def test_a_nearest_gradient_goes_where_the_value_came_from():
    x = np.array([[[3.0, 5.0]]])
    assert kernels.interpolate(x, scale_factor=1.3).tolist() == [[[3, 3]]]
    dx = kernels.interpolate_backward(np.array([[[1.0, 10.0]]]), x, scale_factor=1.3)
    assert dx.tolist() == [[[11, 0]]]


@pytest.mark.parametrize("align_corners", [False, True])
def test_numeric_gradient(align_corners):
    given = {"size": (5, 2), "mode": "bilinear", "align_corners": align_corners}
    x = np.random.default_rng(0).standard_normal((2, 1, 3, 4))
    check.gradcheck(
        lambda x: kernels.interpolate(x, **given),
        (x,),
        backward=lambda dy, x: kernels.interpolate_backward(dy, x, **given),
    )


def test_by_hand():
    x = np.array([[[0.0, 10.0]]])
    assert kernels.interpolate(x, 4).tolist() == [[[0, 0, 10, 10]]]
    assert kernels.interpolate(x, 4, mode="linear").tolist() == [[[0, 2.5, 7.5, 10]]]
    aligned = kernels.interpolate(x, 3, mode="linear", align_corners=True)
    assert aligned.tolist() == [[[0, 5, 10]]]
    three = np.array([[[1.0, 2.0, 3.0]]])
    assert kernels.interpolate(three, 2).tolist() == [[[1, 2]]]
    assert kernels.interpolate(three, 1, mode="nearest-exact").tolist() == [[[2]]]


def test_a_bad_pixel_stays_where_it_is():
    x = np.zeros((1, 1, 4, 4), np.float32)
    x[0, 0, 0, 0] = np.inf
    assert np.isinf(kernels.interpolate(x, scale_factor=2)).sum() == 4
    dy = np.zeros((1, 1, 8, 8), np.float32)
    dy[0, 0, 7, 7] = np.nan
    dx = kernels.interpolate_backward(dy, x, scale_factor=2)
    assert np.isnan(dx).sum() == 1


@st.composite
def pooled(draw):
    axes = draw(st.integers(1, 2))
    shape = (*draw(h.shapes(2, 2, 0, 3)), *draw(h.shapes(axes, axes, 1, 9)))
    return shape, tuple(draw(st.lists(st.integers(1, 10), min_size=axes, max_size=axes)))


@settings(deadline=None, max_examples=80)
@given(pooled(), h.dtypes, h.layouts, h.seeds)
def test_adaptive_max_pooling_as_torch(drawn, dtype, layout, seed):
    shape, size = drawn
    axes = len(size)
    x = np.round(h.draw(seed, shape, dtype, 2, layout))  # rounded: maxima tie
    ours = getattr(kernels, f"adaptive_max_pool{axes}d")
    y, indices = ours(x, size, return_indices=True)
    np.testing.assert_array_equal(h.assert_pure(lambda a: ours(a, size), x), y)
    dy = h.draw(seed + 1, y.shape, dtype)
    backward = getattr(kernels, f"adaptive_max_pool{axes}d_backward")
    dx = h.assert_pure(lambda a, b: backward(a, b, size), dy, x)
    if 0 in shape:
        return  # torch wants channels
    tensor = torch.tensor(np.array(x), requires_grad=True)
    theirs = getattr(F, f"adaptive_max_pool{axes}d")
    expected, places = theirs(tensor, size, return_indices=True)
    h.assert_close(y, expected, dtype)
    np.testing.assert_array_equal(indices, places)
    expected.backward(torch.tensor(dy))
    h.assert_close(dx, tensor.grad, dtype, 10)


def test_the_last_nan_is_the_largest():
    x = np.array([[[0.0, np.nan, np.nan, 1.0]]])
    y, indices = kernels.adaptive_max_pool1d(x, 1, return_indices=True)
    expected, places = F.adaptive_max_pool1d(torch.tensor(x), 1, return_indices=True)
    assert np.isnan(y).all()
    assert torch.isnan(expected).all()
    assert indices.tolist() == places.tolist() == [[[2]]]


X = np.ones((2, 3, 4, 5))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: kernels.interpolate(X), ValueError, "size or scale_factor must be given, not"),
        (lambda: kernels.interpolate(X, 2, 2), ValueError, "size or scale_factor must be given"),
        (lambda: kernels.interpolate(X, 0), ValueError, "size must be at least 1, got 0"),
        (lambda: kernels.interpolate(X, (2, 3, 4)), ValueError, "size must be an int or 2 ints"),
        (lambda: kernels.interpolate(X, 2, mode="linear"), ValueError, "mode must be 'bilinear'"),
        (lambda: kernels.interpolate(X, 2, mode="bicubic"), ValueError, "mode must be one of"),
        (lambda: kernels.interpolate(X, 2, align_corners=True), ValueError, "is for linear modes"),
        (lambda: kernels.interpolate(X, scale_factor=-1), ValueError, "must be a positive number"),
        (lambda: kernels.interpolate(X, scale_factor=0.1), ValueError, "leaves no output"),
        (lambda: kernels.interpolate(X[0, 0], 2), ValueError, "x must have 3 or 4 axes"),
        (
            lambda: kernels.interpolate(X, 2, recompute_scale_factor=True),
            ValueError,
            "needs scale_factor",
        ),
        (
            lambda: kernels.interpolate(X, 2, mode="bilinear", align_corners=1),
            TypeError,
            "align_corners must be True, False or None",
        ),
        (
            lambda: kernels.interpolate_backward(X, X, 2),
            ValueError,
            r"dy must have shape \(2, 3, 2, 2\)",
        ),
        (lambda: kernels.adaptive_max_pool2d(X, 0), ValueError, "output_size must be at least 1"),
        (
            lambda: kernels.adaptive_max_pool2d_backward(X, X, 2),
            ValueError,
            r"dy must have shape \(2, 3, 2, 2\)",
        ),
    ],
)
def test_bad_input(call, error, message):
    with h.shapes_unchecked(), pytest.raises(error, match=message):
        call()
