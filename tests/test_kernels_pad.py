"""Padding in all its modes against torch and numeric gradients."""

import core_helpers as h
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dlnotes import check, kernels

MODES = ["constant", "reflect", "replicate", "circular"]


@st.composite
def padded(draw):
    """Return (shape, pad, mode, value) that torch takes, too."""
    mode = draw(st.sampled_from(MODES))
    if mode == "constant":
        shape = draw(h.shapes(1, 4))
        pairs = [
            (draw(st.integers(-n, 3)), draw(st.integers(0, 3)))
            for n in shape[: draw(st.integers(0, len(shape)))]
        ]
        shape = shape[::-1]
    else:
        axes = draw(st.integers(1, 3))
        shape = (*draw(h.shapes(2, 2)), *draw(h.shapes(axes, axes, 1)))
        most = {"reflect": lambda n: n - 1, "circular": lambda n: n, "replicate": lambda n: 4}[mode]
        pairs = [[draw(st.integers(0, most(n))) for _ in range(2)] for n in reversed(shape[2:])]
    value = draw(st.sampled_from([None, 0.5, -1e4, 2])) if mode == "constant" else None
    return shape, [entry for pair in pairs for entry in pair], mode, value


@settings(deadline=None, max_examples=200)
@given(padded(), h.dtypes, h.layouts, h.seeds)
def test_parity_with_torch(drawn, dtype, layout, seed):
    shape, pad, mode, value = drawn
    x = h.draw(seed, shape, dtype, layout=layout)
    tensor = torch.tensor(np.array(x), requires_grad=True)
    try:
        expected = F.pad(tensor, pad, mode, value)
    except RuntimeError:  # torch wants no empty batches here
        assert mode != "constant"
        assert 0 in shape
        return
    y = h.assert_pure(lambda a: kernels.pad(a, pad, mode, value), x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, expected.detach().numpy())
    dy = h.draw(seed + 1, y.shape, dtype, layout=layout)
    dx = h.assert_pure(lambda a, b: kernels.pad_backward(a, b, pad, mode, value), dy, x)
    expected.backward(torch.tensor(np.array(dy)))
    h.assert_close(dx, tensor.grad, dtype, 10)


@pytest.mark.parametrize("mode", MODES)
def test_numeric_gradient(mode):
    x = np.random.default_rng(0).standard_normal((2, 1, 3, 4))
    pad = (3, 2, 2, 1)
    check.gradcheck(
        lambda x: kernels.pad(x, pad, mode),
        (x,),
        backward=lambda dy, x: kernels.pad_backward(dy, x, pad, mode),
        expected=F.pad(torch.tensor(x), pad, mode).numpy(),
    )


def test_by_hand():
    x = np.array([1.0, 2.0, 3.0])
    assert kernels.pad(x, (2, 1)).tolist() == [0, 0, 1, 2, 3, 0]
    assert kernels.pad(x, (2, 1), "reflect").tolist() == [3, 2, 1, 2, 3, 2]
    assert kernels.pad(x, (2, 1), "replicate").tolist() == [1, 1, 1, 2, 3, 3]
    assert kernels.pad(x, (2, 1), "circular").tolist() == [2, 3, 1, 2, 3, 1]
    assert kernels.pad(x, (-1, 2), "constant", 7).tolist() == [2, 3, 7, 7]
    assert kernels.pad(x, (1, 0), "constant", -np.inf).tolist() == [-np.inf, 1, 2, 3]
    dy = np.array([10.0, 20, 1, 2, 3, 30])
    assert kernels.pad_backward(dy, x, (2, 1), "circular").tolist() == [31, 12, 23]


X = np.ones((2, 3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: kernels.pad(X, (1,)), ValueError, "pad must have two ints for each axis"),
        (lambda: kernels.pad(X, (1,) * 6), ValueError, "pad must have two ints for each axis"),
        (lambda: kernels.pad(X, (1.5, 1)), TypeError, "pad must be an int"),
        (lambda: kernels.pad(X, (-2, -2)), ValueError, "pad must not cut more off than the 3"),
        (lambda: kernels.pad(X, (0, 3), "reflect"), ValueError, "pad must be at most 2"),
        (lambda: kernels.pad(X, (4, 0), "circular"), ValueError, "pad must be at most 3"),
        (lambda: kernels.pad(X[:, :0], (1, 0), "replicate"), ValueError, "pad must be at most 0"),
        (lambda: kernels.pad(X, (1, 1), "mirror"), ValueError, "mode must be one of"),
        (lambda: kernels.pad(X, (1, 1), "constant", "0"), TypeError, "value must be a number"),
        (lambda: kernels.pad_backward(X, X, (1, 1)), ValueError, r"dy must have shape \(2, 5\)"),
    ],
)
def test_bad_input(call, error, message):
    with h.shapes_unchecked(), pytest.raises(error, match=message):
        call()
