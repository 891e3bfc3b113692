"""The rungs on tensor cores against the NumPy kernels: on the CPU, checked, and on a GPU."""

import functools

import numpy as np
import pytest
from cuda_helpers import each_device, normal, run  # noqa: F401  (runs the tests on each device)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_cuda_kernels import attentions, convolutions, mask_of

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


@rungs_of("linear", "linear_backward")
@pytest.mark.parametrize("offset", [1, 4])
def test_matrices_that_begin_anywhere(ladder, rung, offset):
    """Two bytes into an array no line begins at a multiple of 16, which copies of 16 bytes need."""
    x, weight, dy = bf(0, 8, 16), bf(1, 24, 16), bf(2, 8, 24)
    X, W, DY = wide(x, weight, dy)
    if ladder == "linear":
        (y,) = run(ladder, rung, x, weight, offset=offset)
        within_rounding(y, X @ W.T, abs(X) @ abs(W).T, 16)
        return
    dx, dweight, _ = run(ladder, rung, dy, x, weight, offset=offset)
    within_rounding(dx, DY @ W, abs(DY) @ abs(W), 24)
    within_rounding(dweight, DY.T @ X, abs(DY).T @ abs(X), 8)


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


# ------------------------------------------------ attention

BF16, F32 = 2.0**-8, 2.0**-23  # what rounding to bfloat16, and a float32 operation, may cost


class Exact:
    """Attention in float64 of the numbers that a rung is given, and how far the rung may be off.

    Relative errors of factors multiply: what is known up to a relative r and is rounded to bfloat16
    is off by (1 + r) (1 + 2⁻⁸) - 1. Sums of n terms lose n 2⁻²³ of their terms' sizes, as above.
    """

    def __init__(self, query, key, value, attn_mask=None, is_causal=False, scale=None):
        self.q, self.k, self.v = wide(query, key, value)
        (queries, self.e), self.keys = query.shape[-2:], key.shape[-2]
        self.scale = 1 / np.sqrt(self.e) if scale is None else scale
        seen, added = np.ones((queries, self.keys), bool), 0.0
        if is_causal:
            seen = np.tri(queries, self.keys, dtype=bool)
        elif attn_mask is not None and attn_mask.dtype == bool:
            seen = attn_mask
        elif attn_mask is not None:
            seen, added = np.isfinite(attn_mask), np.where(np.isfinite(attn_mask), attn_mask, 0.0)
        scores = self.q @ self.k.mT * self.scale + added
        sizes_ = abs(self.q) @ abs(self.k).mT * abs(self.scale) + abs(added)
        seen = np.broadcast_to(seen, scores.shape)
        scores = np.where(seen, scores, -np.inf)
        self.log_sum = np.logaddexp.reduce(scores, axis=-1, keepdims=True, initial=-np.inf)
        finite = np.where(np.isfinite(self.log_sum), self.log_sum, 0)
        self.log_sum_or_0 = finite
        self.weights = np.exp(scores - finite)
        self.y = self.weights @ self.v
        # Of a score: its e products and sums, mask, scale, largest score and the factor of base 2.
        largest = np.max(sizes_, axis=-1, where=seen, keepdims=True, initial=0)
        self.of_scores = (self.e + 16) * F32 * largest + 4 * F32  # 2^x has 2⁻²² itself
        self.of_log_sum = self.of_scores + self.keys * F32 + 2 * F32 * abs(finite)

    def forward(self):
        """Return (y, its error), (log_sum, its error)."""
        sums = (2 * self.keys + 8) * F32  # of weights and of their products, shrunk for each tile
        off = np.exp(2 * self.of_scores) * (1 + BF16) * (1 + sums) - 1
        y = self.y, off * (self.weights @ abs(self.v))
        return y, (self.log_sum[..., 0], self.of_log_sum[..., 0])

    def backward(self, dy):
        """Return (dquery, its error) and the same for key and value, given y and log_sum."""
        (dy,) = wide(dy)
        queries, v = dy.shape[-2:]
        off = np.exp(self.of_scores + F32 * abs(self.log_sum_or_0)) * (
            1 + BF16
        )  # a weight's factor
        sums = lambda n: (n + 8) * F32  # noqa: E731
        dvalue = self.weights.mT @ dy
        of_dvalue = (self.weights * (off * (1 + sums(queries)) - 1)).mT @ abs(dy)
        slopes = dy @ self.v.mT - (dy * self.y).sum(-1, keepdims=True)
        sizes_ = (
            abs(dy) @ abs(self.v).mT
            + (abs(dy) @ abs(self.y).mT).diagonal(axis1=-2, axis2=-1)[..., None]
        )
        dscores = self.weights * slopes
        of_dscores = self.weights * (off * (abs(slopes) + sums(v) * sizes_) - abs(slopes))
        most = abs(dscores) + of_dscores
        dquery, dkey = dscores @ self.k * self.scale, dscores.mT @ self.q * self.scale
        of_dquery = (of_dscores + sums(self.keys) * most) @ abs(self.k) * abs(self.scale)
        of_dkey = (of_dscores + sums(queries) * most).mT @ abs(self.q) * abs(self.scale)
        return (dquery, of_dquery), (dkey, of_dkey), (dvalue, of_dvalue)


def within(given_, expected, error):
    assert given_.dtype == f32
    assert given_.shape == expected.shape
    infinite = np.isinf(expected)
    np.testing.assert_array_equal(given_[infinite], expected[infinite])
    off = np.abs(given_[~infinite] - expected[~infinite])
    assert (off <= error[~infinite] + 1e-30).all()


def bits_of(shapes, seed: int) -> list[np.ndarray]:
    return [bf(seed + i, *shape) for i, shape in enumerate(shapes)]


LONGER = [(1, 2, 150, 64), (1, 2, 200, 64), (1, 2, 200, 64)]  # more than a block, than two tiles
WIDE = [(130, 128), (70, 128), (70, 121)]


@rungs_of("attention", "attention_backward")
@some(max_examples=10)
@given(
    case=attentions(),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([None, 0.7, -0.7, 0.0, 60.0]),
)
@example(case=(LONGER, "none", ()), seed=0, scale=None)
@example(case=(LONGER, "causal", ()), seed=1, scale=-0.3)
@example(case=(LONGER, "float", (1, 150, 200)), seed=2, scale=None)
@example(case=(WIDE, "causal", ()), seed=3, scale=None)
@example(case=([(20, 16), (300, 16), (300, 16)], "causal", ()), seed=5, scale=None)  # unseen keys
@example(case=(WIDE, "bool", (130, 1)), seed=4, scale=20.0)
def test_attention(ladder, rung, case, seed, scale):
    shapes, kind, mask_shape = case
    query, key, value = bits_of(shapes, seed)
    settings_ = (mask_of(kind, mask_shape, seed), kind == "causal", scale)
    exact = Exact(query, key, value, *settings_)
    mask = settings_[0].astype(np.float64) if kind == "float" else settings_[0]
    wide_inputs = *wide(query, key, value), mask, *settings_[1:]
    if ladder == "attention":
        reference, expected = [kernels.scaled_dot_product_attention(*wide_inputs)], exact.forward()
        inputs = query, key, value, *settings_
    else:
        dy = bf(seed + 3, *exact.y.shape)
        reference = kernels.scaled_dot_product_attention_backward(*wide(dy), *wide_inputs)
        inputs, expected = given_backward(dy, query, key, value, *settings_)
    for mine, theirs in zip(expected, reference, strict=False):
        np.testing.assert_allclose(mine[0], theirs, rtol=1e-9, atol=1e-9)
    for given_, wanted in zip(run(ladder, rung, *inputs), expected, strict=True):
        within(given_, *wanted)


def given_backward(dy, query, key, value, *settings_):
    """Return the inputs of a backward rung, and what it has to compute."""
    exact = Exact(query, key, value, *settings_)
    results = exact.y.astype(f32), exact.log_sum[..., 0].astype(f32)
    return (dy, query, key, value, *results, *settings_), exact.backward(dy)


@rungs_of("attention")
def test_attention_to_no_key_at_all_is_zero(ladder, rung):
    query, key, value = bits_of([(3, 16), (5, 16), (5, 8)], 0)
    mask = np.ones((3, 5), bool)
    mask[1] = False
    for given_mask in (mask, np.where(mask, f32(0), f32(-np.inf))):
        y, log_sum = run(ladder, rung, query, key, value, given_mask)
        assert (y[1] == 0).all()
        assert log_sum[1] == -np.inf
        assert np.isfinite(log_sum[[0, 2]]).all()
    for queries, keys in [(3, 0), (0, 5)]:
        y, log_sum = run(ladder, rung, query[:queries], key[:keys], value[:keys])
        assert (y == 0).all()
        assert (log_sum == -np.inf).all()
        assert y.shape == (queries, 8)


@rungs_of("attention_backward")
def test_gradients_of_attention_to_no_key_at_all_are_zero(ladder, rung):
    dy, query, key, value = bits_of([(3, 8), (3, 16), (5, 16), (5, 8)], 0)
    mask = np.ones((3, 5), bool)
    mask[1], mask[:, 2] = False, False
    for given_mask in (mask, np.where(mask, f32(0), f32(-np.inf))):
        inputs, expected = given_backward(dy, query, key, value, given_mask)
        outputs = run(ladder, rung, *inputs)
        assert (outputs[0][1] == 0).all()
        assert (outputs[1][2] == 0).all()
        assert (outputs[2][2] == 0).all()
        for given_, wanted in zip(outputs, expected, strict=True):
            within(given_, *wanted)
    for queries, keys in [(3, 0), (0, 5)]:
        inputs = dy[:queries], query[:queries], key[:keys], value[:keys]
        results = np.zeros((queries, 8), f32), np.full(queries, -np.inf, f32)
        for given_, x in zip(run(ladder, rung, *inputs, *results), inputs[1:], strict=True):
            np.testing.assert_array_equal(given_, np.zeros(x.shape, f32))


@rungs_of("attention", "attention_backward")
def test_attention_of_vectors_that_begin_anywhere(ladder, rung, device):
    if device == "cuda":
        pytest.skip("how memory is aligned is seen on the CPU")
    room = np.zeros(1 + 5 * 16, np.uint16)
    query, key = room[1:].reshape(5, 16), bf(1, 9, 16)
    query[...] = bf(0, 5, 16)
    inputs, expected = (query, key, key), Exact(query, key, key).forward()
    if ladder == "attention_backward":
        inputs, expected = given_backward(query, query, key, key)
    outputs = cuda.LADDERS[ladder].run(*inputs, rung=rung, mode="checked")
    for given_, wanted in zip(outputs, expected, strict=True):
        within(given_, *wanted)


@rungs_of("attention", "attention_backward")
def test_attention_on_tensor_cores_refuses_wide_vectors(ladder, rung):
    inputs = bits_of([(3, 130), (4, 130), (4, 2)], 0)
    if ladder == "attention_backward":
        inputs = bf(0, 3, 2), *inputs, np.zeros((3, 2), f32), np.zeros(3, f32)
    with pytest.raises(ValueError, match=f"{rung} takes .* at most 128 numbers, got 130"):
        run(ladder, rung, *inputs)
