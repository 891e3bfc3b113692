"""What the tests of kernels, autograd and nn share: awkward inputs, oracles, error checks."""

import contextlib
import itertools

import jaxtyping
import numpy as np
from hypothesis import strategies as st

# A float32 result may differ by a few roundings of the largest number that occurs.
TOLERANCE = {np.dtype(np.float32): 2e-6, np.dtype(np.float64): 1e-13}

dtypes = st.sampled_from([np.float32, np.float64])
layouts = st.sampled_from(["contiguous", "transposed", "reversed", "every second", "read-only"])
scales = st.sampled_from([1.0, 1e-3, 30.0, 1e4])
seeds = st.integers(0, 2**32 - 1)


def shapes(min_dims=0, max_dims=4, min_side=0, max_side=5):
    """Shapes with batches of one, axes of length 1 and empty axes among them."""
    return st.lists(st.integers(min_side, max_side), min_size=min_dims, max_size=max_dims).map(
        tuple
    )


def laid_out(values: np.ndarray, layout: str) -> np.ndarray:
    """Return the same values in another memory layout."""
    if layout == "transposed":
        return np.ascontiguousarray(values.T).T
    if layout == "reversed" and values.ndim:
        return np.ascontiguousarray(values[..., ::-1])[..., ::-1]
    if layout == "every second" and values.ndim:
        return np.repeat(values, 2, axis=-1)[..., ::2]
    if layout == "read-only":
        values = values.copy()
        values.setflags(write=False)
    return values


def draw(seed, shape, dtype, scale=1.0, layout="contiguous") -> np.ndarray:
    """Return normal random numbers, the first of them set to 0 or ±scale now and then."""
    rng = np.random.default_rng(seed)
    values = np.asarray(scale * rng.standard_normal(shape), dtype)
    return laid_out(values, layout)


def assert_close(actual, expected, dtype, scale=1.0, factor=1.0):
    """Same shape, same dtype, same values up to a few roundings at the given scale."""
    expected = expected.detach().numpy() if hasattr(expected, "detach") else expected
    assert actual.dtype == np.dtype(dtype), f"dtype is {actual.dtype}, not {np.dtype(dtype)}"
    assert actual.shape == expected.shape
    tolerance = factor * TOLERANCE[np.dtype(dtype)]
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * max(1, scale))


def assert_pure(function, *arrays):
    """Call the function; its inputs stay as they are and its results share no memory with them."""
    before = [np.array(a, copy=True) for a in arrays]
    results = function(*arrays)
    for given, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(given, copy)
    flat = results if isinstance(results, tuple) else (results,)
    for result in flat:
        if result is not None:
            assert not any(np.shares_memory(result, a) for a in arrays), "result aliases an input"
    return results


def check_output_mask(backward, dy, arrays, **settings):
    """Whatever gradients are asked for, they are those of the full backward pass, the rest None."""
    every = backward(dy, *arrays, **settings)
    assert all(gradient is not None for gradient in every)
    for mask in itertools.product([True, False], repeat=len(arrays)):
        some = backward(dy, *arrays, **settings, output_mask=mask)
        for wanted, gradient, expected in zip(mask, some, every, strict=True):
            assert (gradient is not None) == wanted
            if wanted:
                np.testing.assert_array_equal(gradient, expected)


def numeric_gradient(function, x: np.ndarray, eps=1e-6) -> np.ndarray:
    """Return the derivative of a scalar function with respect to every entry of x, centrally."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += eps
        down[index] -= eps
        gradient[index] = (function(up) - function(down)) / (2 * eps)
    return gradient


@contextlib.contextmanager
def shapes_unchecked():
    """Switch the annotations' own checks off, so that the library's error is seen, as in use."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
