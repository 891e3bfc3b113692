"""Each check returns what it was given and names the argument when it refuses."""

import numpy as np
import pytest
import torch

from dlnotes import _validate as v
from dlnotes import autograd


def test_checked_values_come_back():
    x = np.zeros((2, 3), np.float32)
    assert v.floats("x", x, ndim=2, min_ndim=1) is x
    assert v.floats("x", np.float64(2)).shape == ()
    assert v.has_shape("x", x, (2, 3)) is x
    assert v.finite("x", x) is x
    assert v.probabilities("x", x) is x
    assert v.integer("n", np.int64(3), low=3, high=3) == 3
    assert v.number("lr", 1, low=0) == 1.0
    assert v.one_of("mode", "a", ["a", "b"]) == "a"
    assert [v.dimension("dim", d, 3) for d in (-3, -1, 0, 2)] == [0, 2, 0, 2]
    assert v.same_dtype(a=x, b=None, c=x) is None
    assert v.same_shape(a=x, b=x) is None
    for given in (x, torch.tensor(x, requires_grad=True), autograd.tensor(x, requires_grad=True)):
        np.testing.assert_array_equal(v.without_tensor(given), x)
    labels = np.array([0, 2], np.uint8)
    assert v.labels("y", labels, classes=3, shape=(2,)) is labels


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: v.floats("x", [1.0]), TypeError, "x must be a NumPy array of floats, got list"),
        (lambda: v.floats("x", np.ones(2, int)), TypeError, "x must be float32 or float64, got"),
        (lambda: v.floats("x", np.ones(2, np.float16)), TypeError, "got float16"),
        (lambda: v.floats("x", np.ones(2), ndim=2), ValueError, r"x must have 2 axes.*\(2,\)"),
        (lambda: v.floats("x", np.ones(()), min_ndim=1), ValueError, "at least 1 axis"),
        (
            lambda: v.same_dtype(a=np.ones(1), b=np.ones(1, np.float32)),
            TypeError,
            "a and b must have the same dtype, but a is float64, b is float32",
        ),
        (
            lambda: v.same_shape(a=np.ones(1), b=np.ones(2)),
            ValueError,
            r"a has \(1,\), b has \(2,\)",
        ),
        (
            lambda: v.has_shape("b", np.ones(2), (3,), "one for each unit"),
            ValueError,
            r"b must have shape \(3,\) \(one for each unit\), got \(2,\)",
        ),
        (lambda: v.finite("x", np.array([0, np.nan])), ValueError, r"got nan at index \[1\]"),
        (lambda: v.finite("x", np.float64(np.inf)), ValueError, "x must be finite, got inf"),
        (
            lambda: v.probabilities("p", np.array([[0.5], [1.5]])),
            ValueError,
            r"p must hold probabilities in \[0, 1\], got 1.5 at index \[1, 0\]",
        ),
        (lambda: v.probabilities("p", np.array([np.nan])), ValueError, "got nan"),
        (lambda: v.probabilities("p", np.float64(-1)), ValueError, "got -1.0"),
        (lambda: v.labels("y", [0], classes=2, shape=(1,)), TypeError, "y must be a NumPy array"),
        (lambda: v.labels("y", np.ones(1), classes=2, shape=(1,)), TypeError, "integer labels"),
        (lambda: v.labels("y", np.array([True]), classes=2, shape=(1,)), TypeError, "got bool"),
        (
            lambda: v.labels("y", np.array([0, 2]), classes=2, shape=(2,)),
            ValueError,
            "0 … 1, got 2",
        ),
        (lambda: v.labels("y", np.array([-1]), classes=2, shape=(1,)), ValueError, "got -1"),
        (lambda: v.labels("y", np.array([0]), classes=2, shape=(2,)), ValueError, "shape"),
        (lambda: v.dimension("dim", 3, 3), ValueError, "dim must be in -3 … 2, got 3"),
        (lambda: v.dimension("dim", 0, 0), ValueError, "without axes"),
        (lambda: v.integer("n", 1.0), TypeError, "n must be an int, got float"),
        (lambda: v.integer("n", True), TypeError, "got bool"),
        (lambda: v.integer("n", 0, low=1), ValueError, "n must be at least 1, got 0"),
        (lambda: v.number("lr", "1"), TypeError, "lr must be a number, got str"),
        (lambda: v.number("lr", True), TypeError, "got bool"),
        (lambda: v.number("lr", float("nan")), ValueError, "lr must be finite, got nan"),
        (lambda: v.number("lr", 2, high=1), ValueError, "lr must be at most 1, got 2"),
        (lambda: v.number("lr", 2, low=0, high=1), ValueError, "in 0 … 1, got 2"),
        (lambda: v.one_of("mode", "c", ["a", "b"]), ValueError, "one of 'a', 'b', got 'c'"),
    ],
)
def test_refusals_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()
