"""The rungs on tensor cores against the NumPy kernels: on the CPU, checked, and on a GPU."""

import functools

import numpy as np
import pytest
from cuda_helpers import each_device, normal, run  # noqa: F401  (runs the tests on each device)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_cuda_kernels import convolutions

from dlnotes import cuda, kernels
from dlnotes.cuda import _gpu

f32 = np.float32


def bf(seed: int, *shape: int) -> np.ndarray:
    return cuda.to_bfloat16(normal(seed, *shape))


def wide(*bits: np.ndarray) -> list[np.ndarray]:
    return [cuda.from_bfloat16(b).astype(np.float64) for b in bits]


@pytest.fixture(autouse=True)
def device_has_the_instructions(device, ladder, rung):
    if device == "cuda" and not cuda.LADDERS[ladder].rung(rung).runs_on(_gpu.device_architecture()):
        pytest.skip("this GPU has not what the rung needs")


sizes = st.one_of(st.sampled_from([1, 8, 64, 65, 128, 129]), st.integers(1, 70))
some = functools.partial(settings, deadline=None, derandomize=True)


def rungs_of(*ladders: str):
    """Run a test for every rung of some ladders that takes bfloat16 and that the device has."""
    chosen = [
        (name, rung.name)
        for name in ladders
        for rung in cuda.LADDERS[name].rungs
        if rung.dtype == "bfloat16"
    ]
    return pytest.mark.parametrize(("ladder", "rung"), chosen, ids=map("-".join, chosen))


def within_rounding(given_, expected, magnitudes, terms: int):
    """Compare sums of `terms` products: each float32 addition loses at most 2⁻²³ of what it has.

    Rounding loses half of that, but tensor cores cut off. The products themselves are exact: two
    fractions of 8 bits have 16, and float32 holds 24. magnitudes: the same sums of the products'
    absolute values, which no partial sum exceeds.
    """
    assert given_.dtype == f32
    assert given_.shape == expected.shape
    assert (np.abs(given_ - expected) <= (terms + 1) * 2.0**-23 * magnitudes).all()


@rungs_of("linear", "linear_backward")
@some(max_examples=6)
@given(m=sizes, n=sizes, k=sizes, seed=st.integers(0, 2**32 - 1))
def test_linear(ladder, rung, m, n, k, seed):
    x, weight, dy, bias = bf(seed, m, k), bf(seed + 1, n, k), bf(seed + 2, m, n), normal(seed, n)
    X, W, DY = wide(x, weight, dy)
    if ladder == "linear":
        (y,) = run(ladder, rung, x, weight, bias)
        expected = kernels.linear(X, W, bias.astype(np.float64))
        within_rounding(y, expected, abs(X) @ abs(W).T + abs(bias), k + 1)
        return
    expected = kernels.linear_backward(DY, X, W, bias.astype(np.float64))
    sums = abs(DY) @ abs(W), abs(DY).T @ abs(X), abs(DY).sum(0)
    for given_, wanted, magnitudes, terms in zip(
        run(ladder, rung, dy, x, weight), expected, sums, (n, m, m), strict=True
    ):
        within_rounding(given_, wanted, magnitudes, terms)


@rungs_of("linear")
def test_linear_without_bias_rows_or_inner_size(ladder, rung):
    for m, k in [(3, 5), (0, 5), (3, 0)]:
        x, weight = bf(0, m, k), bf(1, 4, k)
        X, W = wide(x, weight)
        within_rounding(*run(ladder, rung, x, weight), X @ W.T, abs(X) @ abs(W).T, k)


@rungs_of("linear_backward")
@pytest.mark.parametrize(("m", "n", "k"), [(0, 4, 5), (3, 4, 0), (3, 0, 5)])
def test_gradients_of_nothing(ladder, rung, m, n, k):
    """Sums of no terms are zero, and there is no map of an empty matrix."""
    x, weight, dy = bf(0, m, k), bf(1, n, k), bf(2, m, n)
    X, W, DY = wide(x, weight, dy)
    for given_, wanted in zip(
        run(ladder, rung, dy, x, weight), (DY @ W, DY.T @ X, DY.sum(0)), strict=True
    ):
        assert given_.shape == wanted.shape
        np.testing.assert_allclose(given_, wanted, atol=1e-4)


@rungs_of("linear")
def test_matrices_that_begin_anywhere(ladder, rung, device):
    """Two bytes into an array no line begins at a multiple of 16, which copies of 16 bytes need."""
    if device == "cuda":
        pytest.skip("how memory is aligned is seen on the CPU")
    room = np.zeros(1 + 3 * 8, np.uint16)
    x, weight = room[1:].reshape(3, 8), bf(1, 4, 8)
    x[...] = bf(0, 3, 8)
    ladder = cuda.LADDERS[ladder]
    if rung == "matmul_wgmma":
        with pytest.raises(ValueError, match="array must begin at a multiple of 16 bytes"):
            ladder.run(x, weight, rung=rung)
        return
    X, W = wide(x, weight)
    within_rounding(ladder.run(x, weight, rung=rung), X @ W.T, abs(X) @ abs(W).T, 8)


@rungs_of("linear")
def test_linear_of_many_tiles(ladder, rung):
    """More tiles along the sum than the ring has stages, several blocks, in fast mode."""
    x, weight, bias = bf(0, 200, 1000), bf(1, 300, 1000), normal(2, 300)
    X, W = wide(x, weight)
    (y,) = run(ladder, rung, x, weight, bias, mode="fast")
    within_rounding(y, X @ W.T + bias, abs(X) @ abs(W).T + abs(bias), 1001)


@rungs_of("conv2d")
@some(max_examples=8)
@given(case=convolutions(), seed=st.integers(0, 2**32 - 1))
@example(case=((2, 8, 9, 7), (70, 8, 3, 3), (1, 1), (1, 1), (1, 1), 1), seed=0)  # whole chunks
@example(case=((1, 16, 6, 5), (130, 8, 3, 3), (2, 1), (0, 2), (1, 1), 2), seed=1)
def test_convolution(ladder, rung, case, seed):
    x_shape, weight_shape, *settings_ = case
    x, weight, bias = bf(seed, *x_shape), bf(seed + 1, *weight_shape), normal(seed, weight_shape[0])
    X, W = wide(x, weight)
    sizes_ = kernels.conv2d(abs(X), abs(W), abs(bias).astype(np.float64), *settings_)
    terms = int(np.prod(weight_shape[1:])) + 1
    for shift in (bias, None):
        wide_shift = None if shift is None else shift.astype(np.float64)
        (y,) = run(ladder, rung, x, weight, shift, *settings_)
        within_rounding(y, kernels.conv2d(X, W, wide_shift, *settings_), sizes_, terms)
