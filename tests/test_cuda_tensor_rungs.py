"""The rungs on tensor cores against the NumPy kernels: on the CPU, checked, and on a GPU."""

import functools

import numpy as np
import pytest
from cuda_helpers import each_device, normal, run  # noqa: F401  (runs the tests on each device)
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cuda_kernels import convolutions

from dlnotes import cuda, kernels
from dlnotes.cuda import _gpu
from dlnotes.cuda.ladders import _base

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


# What both directions must get right: whole chunks of 16 bytes, more channels than a block has,
# groups, one entry, a kernel as large as the images, strides of 2 and 3, longer than the kernel and
# not prime to the dilation, images of one row, and sums so long that several blocks share them.
CONVOLUTIONS = [
    ((2, 8, 9, 7), (70, 8, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((1, 16, 6, 5), (130, 8, 3, 3), (2, 1), (0, 2), (1, 1), 2),
    ((1, 1, 1, 1), (1, 1, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    ((1, 70, 5, 4), (3, 70, 5, 4), (1, 1), (0, 0), (1, 1), 1),
    ((2, 3, 9, 8), (5, 3, 3, 3), (2, 2), (1, 1), (1, 1), 1),
    ((1, 5, 7, 10), (7, 5, 1, 2), (3, 3), (0, 1), (1, 1), 1),
    ((1, 3, 13, 12), (4, 3, 3, 2), (2, 3), (2, 0), (2, 3), 1),
    ((1, 3, 1, 90), (9, 3, 1, 3), (1, 1), (0, 1), (1, 2), 1),
    ((3, 2, 24, 24), (3, 2, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((5, 2, 14, 14), (3, 2, 3, 3), (1, 1), (1, 1), (1, 1), 1),  # no whole chunks either
]


@pytest.mark.parametrize(
    "seed_and_case", list(enumerate(CONVOLUTIONS)), ids=lambda c: f"case {c[0]}"
)
@rungs_of("conv2d", "conv2d_backward")
def test_awkward_convolutions(ladder, rung, seed_and_case):
    seed, case = seed_and_case
    check_convolution(ladder, rung, case, seed)


@rungs_of("conv2d", "conv2d_backward")
@some(max_examples=8)
@given(case=convolutions(), seed=st.integers(0, 2**32 - 1))
def test_convolution(ladder, rung, case, seed):
    check_convolution(ladder, rung, case, seed)


def check_convolution(ladder, rung, case, seed):
    """Compare a rung with NumPy's convolution, or its gradients, of the same rounded numbers."""
    x_shape, weight_shape, *settings_ = case
    x, weight, bias = bf(seed, *x_shape), bf(seed + 1, *weight_shape), normal(seed, weight_shape[0])
    X, W = wide(x, weight)
    B = bias.astype(np.float64)
    magnitudes, terms = kernels.conv2d(abs(X), abs(W), abs(B), *settings_), W[0].size + 1
    if ladder == "conv2d":
        for shift, wide_shift in ((bias, B), (None, None)):
            (y,) = run(ladder, rung, x, weight, shift, *settings_)
            expected = kernels.conv2d(X, W, wide_shift, *settings_)
            within_rounding(y, expected, magnitudes, terms)
        return
    dy = bf(seed + 2, *magnitudes.shape)
    (DY,) = wide(dy)
    gradients = run(ladder, rung, dy, x, weight, *settings_)
    expected = kernels.conv2d_backward(DY, X, W, B, *settings_)
    sums = kernels.conv2d_backward(abs(DY), abs(X), abs(W), B, *settings_)
    positions = DY[:, 0].size
    terms = DY.shape[1] // settings_[-1] * W[0, 0].size, positions, positions
    for given_, wanted, largest, count in zip(gradients, expected, sums, terms, strict=True):
        within_rounding(given_, wanted, largest, count)


@rungs_of("conv_transpose2d", "conv_transpose2d_backward")
@some(max_examples=12)
@given(case=st.one_of(st.sampled_from(CONVOLUTIONS), convolutions()), more=st.integers(0, 2))
def test_transposed_convolution(ladder, rung, case, more):
    (n, channels, *size), (outs, per_group, *kernel), stride, padding, dilation, groups = case
    more = tuple(min(more, max(s, d) - 1) for s, d in zip(stride, dilation, strict=True))
    axes = zip(size, kernel, stride, padding, more, dilation, strict=True)
    if min((n - 1) * s - 2 * p + d * (k - 1) + 1 + m for n, k, s, p, m, d in axes) < 1:
        padding = 0, 0  # else nothing would be left
    settings_ = stride, padding, more, groups, dilation
    # The input has the output channels of the convolution whose gradient this is.
    x, weight, bias = bf(0, n, outs, *size), bf(1, outs, per_group, *kernel), normal(2, channels)
    (X, W), B = wide(x, weight), bias.astype(np.float64)
    operands = (X, W, B), tuple(map(abs, (X, W, B)))
    y, magnitudes = (kernels.conv_transpose2d(*given_, *settings_) for given_ in operands)
    if ladder == "conv_transpose2d":
        (outputs,) = run(ladder, rung, x, weight, bias, *settings_)
        within_rounding(outputs, y, magnitudes, outs // groups * W[0, 0].size + 1)
        return
    dy = bf(3, *y.shape)
    (DY,) = wide(dy)
    gradients = run(ladder, rung, dy, x, weight, *settings_)
    expected = kernels.conv_transpose2d_backward(DY, X, W, B, *settings_)
    sums = kernels.conv_transpose2d_backward(abs(DY), abs(X), abs(W), B, *settings_)
    terms = W[0].size, X[:, 0].size, DY[:, 0].size
    for given_, wanted, largest, count in zip(gradients, expected, sums, terms, strict=True):
        within_rounding(given_, wanted, largest, count)


@rungs_of("conv2d_backward")
def test_gradients_of_convolution_are_the_same_each_time(ladder, rung):
    """Also where several blocks share a sum: with 60 · 60 positions they do."""
    dy, x, weight = bf(0, 1, 3, 60, 60), bf(1, 1, 2, 60, 60), bf(2, 3, 2, 3, 3)
    first, second = (run(ladder, rung, dy, x, weight, 1, 1, mode="fast") for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@rungs_of("conv2d_backward")
def test_long_sums_are_shared(ladder, rung, monkeypatch):
    launches, launch = [], _base.Session.launch

    def watch(self, kernel, grid, *rest, **settings_):
        launches.append((kernel.partition("<")[0], grid))
        launch(self, kernel, grid, *rest, **settings_)

    monkeypatch.setattr(_base.Session, "launch", watch)
    for size, splits in ((24, 2 * 24 * 24 // 32 // 8), (8, 1)):
        dy, x = bf(0, 2, 3, size, size), bf(1, 2, 2, size, size)
        run(ladder, rung, dy, x, bf(2, 3, 2, 3, 3), 1, 1, mode="fast")
        assert ("conv_backward_weight_mma", (1, 1, splits)) in launches
        assert any(kernel == "conv_add_parts" for kernel, _ in launches) == (splits > 1)
        launches.clear()
