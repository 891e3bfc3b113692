"""Every rung of every CUDA ladder against the NumPy kernels: on the CPU, checked, and on a GPU."""

import functools

import numpy as np
import pytest
import torch
from cuda_helpers import each_device, normal, run  # noqa: F401  (runs the tests on each device)
from hypothesis import given, settings
from hypothesis import strategies as st

from dlnotes import cuda, kernels
from dlnotes.cuda.ladders import IGNORED

f32 = np.float32
sizes = st.one_of(st.sampled_from([1, 2, 31, 32, 33, 64, 65]), st.integers(1, 40))
seeds = st.integers(0, 2**32 - 1)
some = functools.partial(settings, deadline=None, max_examples=6, derandomize=True)


def each_rung(*ladders: str):
    """Run a test for every rung of some ladders that takes float32."""
    pairs = [
        (name, rung.name)
        for name in ladders
        for rung in cuda.LADDERS[name].rungs
        if rung.dtype == "float32"
    ]
    return pytest.mark.parametrize(("ladder", "rung"), pairs, ids=[f"{n}-{r}" for n, r in pairs])


def check(outputs, expected, tolerance=2e-6):
    """Compare up to a few roundings of the largest number; integers must be the same."""
    assert len(outputs) == len(expected)
    for given_, wanted in zip(outputs, expected, strict=True):
        assert given_.shape == wanted.shape
        if given_.dtype.kind in "iu":
            np.testing.assert_array_equal(given_, wanted)
            continue
        assert given_.dtype == f32
        finite = np.abs(wanted[np.isfinite(wanted)])
        scale = max(1.0, float(finite.max(initial=0)))
        np.testing.assert_allclose(given_, wanted, rtol=tolerance, atol=tolerance * scale)


def double(*arrays):
    return [a.astype(np.float64) if a.dtype == f32 else a for a in arrays]


@each_rung("linear", "linear_backward")
@some(max_examples=5)
@given(m=sizes, n=sizes, k=sizes, seed=seeds, scale=st.sampled_from([1.0, 1e4]))
def test_linear(ladder, rung, m, n, k, seed, scale):
    x, weight, bias = normal(seed, m, k, scale=scale), normal(seed + 1, n, k), normal(seed + 2, n)
    dy = normal(seed + 3, m, n)
    if ladder == "linear":
        inputs, expected = (x, weight, bias), (kernels.linear(*double(x, weight, bias)),)
    else:
        inputs, expected = (dy, x, weight), kernels.linear_backward(*double(dy, x, weight, bias))
    check(run(ladder, rung, *inputs), expected, tolerance=2e-6 * max(4, np.sqrt(max(m, n, k))))


# Parts of other tensors, as vector_to_parameters makes them; sizes are those of whole float4s.
BEGINNING = {
    "linear": (normal(0, 8, 12), normal(1, 16, 12), normal(2, 16)),
    "linear_backward": (normal(3, 8, 16), normal(0, 8, 12), normal(1, 16, 12)),
    "box_iou": [np.sort(normal(i, 40, 2, 2), 1).reshape(40, 4) for i in (4, 5)],
    "nms": (np.sort(normal(6, 70, 2, 2), 1).reshape(70, 4), normal(7, 70), 0.4),
    "adam": (*(normal(i, 1028) for i in (8, 9, 10)), np.abs(normal(11, 1028)), 3),
    "attention": [normal(i, 2, 12, 16) for i in (12, 13, 14)],
}


@each_rung(*BEGINNING)
def test_arrays_that_begin_anywhere(ladder, rung):
    """At no multiple of 16 bytes, where a float4 cannot be read."""
    inputs = BEGINNING[ladder]
    expected = run(ladder, rung, *inputs)
    for offset in (1, 2, 3):
        check(run(ladder, rung, *inputs, offset=offset), expected, tolerance=1e-5)


@each_rung("linear")
def test_linear_without_bias_rows_or_inner_size(ladder, rung):
    x, weight = normal(0, 3, 5), normal(1, 4, 5)
    check(run(ladder, rung, x, weight), (kernels.linear(x, weight),))
    for shape in [(0, 5), (3, 0)]:
        x, weight = normal(0, *shape), normal(1, 4, shape[1])
        check(run(ladder, rung, x, weight), (kernels.linear(x, weight),))


@each_rung("softmax", "softmax_backward")
@some()
@given(rows=sizes, columns=sizes, seed=seeds, scale=st.sampled_from([1.0, 30.0, 1e4]))
def test_softmax(ladder, rung, rows, columns, seed, scale):
    x, dy = normal(seed, rows, columns, scale=scale), normal(seed + 1, rows, columns)
    x[np.random.default_rng(seed).random(x.shape) < 0.1] = -np.inf
    x[:, 0] = np.where(np.isfinite(x[:, 0]), x[:, 0], 0)  # an entry in each row
    y = kernels.softmax(x.astype(np.float64))
    if ladder == "softmax":
        check(run(ladder, rung, x), (y,))
    else:
        expected = kernels.softmax_backward(dy.astype(np.float64), y)
        check(run(ladder, rung, dy, y.astype(f32)), (expected,))


@each_rung("softmax_backward")
def test_gradient_of_softmax_over_rows_too_long_for_registers(ladder, rung):
    dy, y = normal(0, 3, 1025), kernels.softmax(normal(1, 3, 1025))
    check(run(ladder, rung, dy, y), (kernels.softmax_backward(*double(dy, y)),))


@each_rung("cross_entropy")
@some()
@given(rows=sizes, classes=sizes, seed=seeds, scale=st.sampled_from([1.0, 30.0, 1e4]))
def test_cross_entropy(ladder, rung, rows, classes, seed, scale):
    x, rng = normal(seed, rows, classes, scale=scale), np.random.default_rng(seed)
    target = np.where(rng.random(rows) < 0.2, IGNORED, rng.integers(0, classes, rows))
    target[0] = 0
    wide = x.astype(np.float64)
    expected = (
        kernels.cross_entropy(wide, target, "none"),
        kernels.cross_entropy_backward(np.float64(1), wide, target),
    )
    check(run(ladder, rung, x, target), expected)


@each_rung("sum")
@some()
@given(n=st.one_of(st.sampled_from([1, 255, 256, 257, 1000]), st.integers(1, 600)), seed=seeds)
def test_sum(ladder, rung, n, seed):
    x = normal(seed, n)
    check(run(ladder, rung, x), (x.sum(dtype=np.float64).reshape(1),), tolerance=2e-6 * np.sqrt(n))


@each_rung("layer_norm", "layer_norm_backward")
@some()
@given(rows=sizes, columns=sizes, seed=seeds, scale=st.sampled_from([1.0, 1e4]))
def test_layer_norm(ladder, rung, rows, columns, seed, scale):
    x, dy = normal(seed, rows, columns, scale=scale), normal(seed + 1, rows, columns)
    weight, bias = normal(seed + 2, columns), normal(seed + 3, columns)
    if columns <= 2:  # two entries that are nearly equal lose all their digits
        x = np.tile(f32([[-1], [1]]), (1, rows)).T[:, :columns] * f32(scale)
        x = np.ascontiguousarray(x)
    wide = double(x, weight, bias)
    mean = wide[0].mean(axis=1)
    inverse = 1 / np.sqrt(wide[0].var(axis=1) + 1e-5)
    if ladder == "layer_norm":
        y = kernels.layer_norm(wide[0], columns, *wide[1:])
        check(run(ladder, rung, x, weight, bias), (y, mean, inverse), tolerance=1e-5)
    else:
        expected = kernels.layer_norm_backward(dy.astype(np.float64), wide[0], columns, *wide[1:])
        inputs = (dy, x, weight, mean.astype(f32), inverse.astype(f32))
        check(run(ladder, rung, *inputs), expected, tolerance=2e-5)


@each_rung("batch_norm", "batch_norm_inference", "batch_norm_backward")
@some(max_examples=8)
@given(
    shape=st.sampled_from(
        [(9, 33), (5, 3, 7), (12, 40, 1), (2, 3, 9, 31), (1, 2, 2, 3, 4), (301, 2)]
    ),
    seed=seeds,
    mean=st.sampled_from([0.0, 100.0]),
    affine=st.booleans(),
    training=st.booleans(),
)
def test_batch_norm(ladder, rung, shape, seed, mean, affine, training):
    x, dy = normal(seed, *shape) + f32(mean), normal(seed + 1, *shape)
    running = normal(seed + 2, shape[1]) + f32(mean), np.abs(normal(seed + 3, shape[1])) + f32(0.5)
    weight, bias = (
        (normal(seed + 4, shape[1]), normal(seed + 5, shape[1])) if affine else (None,) * 2
    )
    affine64 = double(weight, bias) if affine else (None, None)
    x64, running64 = x.astype(np.float64), double(*running)
    residuals = kernels.batch_norm(x64, *running64, training=True, return_residuals=True)[1]
    if ladder == "batch_norm_inference":
        expected = kernels.batch_norm(x64, *running64, *affine64)
        check(run(ladder, rung, x, *running, weight, bias), (expected,), tolerance=3e-5)
        return
    if ladder == "batch_norm":
        y = kernels.batch_norm(x64, None, None, *affine64, training=True)
        new = kernels.batch_norm_statistics(x64, *running64, 0.3)
        expected = (y, residuals[0], 1 / np.sqrt(residuals[1] + 1e-5), *new)
        outputs = run(ladder, rung, x, *running, weight, bias, 0.3)
        check(outputs, expected, tolerance=3e-5)
        *outputs, none, also_none = run(ladder, rung, x)
        assert none is also_none is None
        y = kernels.batch_norm(x64, None, None, training=True)
        check(outputs, (y, *expected[1:3]), tolerance=3e-5)
        return
    mean, var = residuals if training else running64
    statistics = mean.astype(f32), (1 / np.sqrt(var + 1e-5)).astype(f32)
    expected = kernels.batch_norm_backward(
        dy.astype(np.float64), x64, *running64, np.ones(shape[1]), np.zeros(shape[1]), training
    )
    if affine:
        dx = kernels.batch_norm_backward(
            dy.astype(np.float64), x64, *running64, *affine64, training
        )[0]
        expected = (dx, *expected[1:])
    check(run(ladder, rung, dy, x, weight, *statistics, training), expected, tolerance=5e-5)


@each_rung("batch_norm")
def test_batch_norm_of_one_value_is_refused(ladder, rung):
    with pytest.raises(ValueError, match=r"more than one value .* got shape \(1, 3, 1\)"):
        run(ladder, rung, normal(0, 1, 3, 1))


@each_rung("rms_norm", "rms_norm_backward")
@some()
@given(
    rows=sizes, columns=sizes, seed=seeds, scaled=st.booleans(), eps=st.sampled_from([1e-5, 0.5])
)
def test_rms_norm(ladder, rung, rows, columns, seed, scaled, eps):
    x, dy = normal(seed, rows, columns), normal(seed + 1, rows, columns)
    weight = normal(seed + 2, columns) if scaled else None
    x64, ones = x.astype(np.float64), np.ones(columns)
    weight64 = ones if weight is None else weight.astype(np.float64)
    inverse = 1 / np.sqrt((x64 * x64).mean(axis=1) + eps)
    if ladder == "rms_norm":
        expected = kernels.rms_norm(x64, columns, weight64, eps), inverse
        check(run(ladder, rung, x, weight, eps), expected, tolerance=5e-6)
    else:
        expected = kernels.rms_norm_backward(*double(dy, x), columns, weight64, eps)
        inputs = (dy, x, weight, inverse.astype(f32))
        check(run(ladder, rung, *inputs), expected, tolerance=2e-5)


@each_rung("group_norm", "group_norm_backward")
@some(max_examples=8)
@given(
    shape=st.sampled_from([(2, 6, 7), (1, 4, 3, 3), (3, 2, 31), (5, 12, 2, 2), (2, 33, 9)]),
    data=st.data(),
    seed=seeds,
    affine=st.booleans(),
)
def test_group_norm(ladder, rung, shape, data, seed, affine):
    groups = data.draw(st.sampled_from([n for n in range(1, shape[1] + 1) if shape[1] % n == 0]))
    x, dy = normal(seed, *shape), normal(seed + 1, *shape)
    weight, bias = normal(seed + 2, shape[1]), normal(seed + 3, shape[1])
    weight, bias = (weight, bias) if affine else (None, None)
    x64, dy64 = double(x, dy)
    affine64 = double(weight, bias) if affine else (np.ones(shape[1]), np.zeros(shape[1]))
    rows = x64.reshape(shape[0], groups, -1)
    statistics = rows.mean(axis=2), 1 / np.sqrt(rows.var(axis=2) + 1e-5)
    if ladder == "group_norm":
        expected = (kernels.group_norm(x64, groups, *affine64), *statistics)
        check(run(ladder, rung, x, groups, weight, bias), expected, tolerance=1e-5)
    else:
        expected = kernels.group_norm_backward(dy64, x64, groups, *affine64)
        inputs = (dy, x, groups, weight, *(s.astype(f32) for s in statistics))
        check(run(ladder, rung, *inputs), expected, tolerance=2e-5)


@each_rung("local_response_norm", "local_response_norm_backward")
@some(max_examples=8)
@given(
    shape=st.sampled_from([(2, 5, 7), (1, 17, 3, 11), (3, 1, 2), (2, 8, 33)]),
    size=st.integers(1, 9),
    seed=seeds,
    settings_=st.sampled_from([(1e-4, 0.75, 1.0), (2.0, 0.5, 2.0), (1.0, 1.3, 0.5)]),
)
def test_local_response_norm(ladder, rung, shape, size, seed, settings_):
    x, dy = normal(seed, *shape), normal(seed + 1, *shape)
    x64, dy64 = double(x, dy)
    alpha, _, k = settings_
    padded = np.pad(x64**2, [(0, 0), (size // 2, size), *[(0, 0)] * (x.ndim - 2)])
    d = k + alpha / size * sum(padded[:, i : i + shape[1]] for i in range(size))
    if ladder == "local_response_norm":
        expected = kernels.local_response_norm(x64, size, *settings_), d
        check(run(ladder, rung, x, size, *settings_), expected, tolerance=1e-5)
    else:
        expected = kernels.local_response_norm_backward(dy64, x64, size, *settings_)
        inputs = (dy, x, d.astype(f32), size, *settings_)
        check(run(ladder, rung, *inputs), (expected,), tolerance=1e-5)


@st.composite
def poolings(draw):
    """Image sizes, kernel, stride and padding (at most half a kernel) that leave an output."""
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    size = tuple(
        draw(st.integers(max(1, k - 2 * p), 21)) for k, p in zip(kernel, padding, strict=True)
    )
    images = draw(st.sampled_from([(1, 1), (2, 3)]))
    return (*images, *size), kernel, stride, padding


@each_rung("max_pool2d", "max_pool2d_backward")
@some()
@given(case=poolings(), seed=seeds)
def test_max_pool(ladder, rung, case, seed):
    shape, *window = case
    x = np.random.default_rng(seed).integers(-3, 4, shape).astype(f32)  # ties are frequent
    y, indices = kernels.max_pool2d(x, *window, return_indices=True)
    if ladder == "max_pool2d":
        check(run(ladder, rung, x, *window), (y, indices))
    else:
        dy = normal(seed, *y.shape)
        expected = kernels.max_pool2d_backward(dy, x, *window)
        check(run(ladder, rung, dy, indices, shape, *window), (expected,))


@each_rung("max_pool2d")
def test_max_pool_of_nan_and_infinity(ladder, rung):
    x = np.full((1, 1, 4, 6), -np.inf, f32)
    x[0, 0, 1, 2:4] = np.nan
    expected = torch.nn.functional.max_pool2d(torch.from_numpy(x), 3, 2, 1, return_indices=True)
    check(run(ladder, rung, x, 3, 2, 1), [t.numpy() for t in expected])


@each_rung("avg_pool2d", "avg_pool2d_backward")
@some()
@given(case=poolings(), seed=seeds)
def test_avg_pool(ladder, rung, case, seed):
    shape, *window = case
    x = normal(seed, *shape)
    y = kernels.avg_pool2d(x.astype(np.float64), *window)
    if ladder == "avg_pool2d":
        check(run(ladder, rung, x, *window), (y,))
    else:
        dy = normal(seed, *y.shape)
        expected = kernels.avg_pool2d_backward(dy.astype(np.float64), x.astype(np.float64), *window)
        check(run(ladder, rung, dy, shape, *window), (expected,))


@each_rung("adaptive_avg_pool2d", "adaptive_avg_pool2d_backward")
@some(max_examples=10)
@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    out=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    seed=seeds,
)
def test_adaptive_pooling(ladder, rung, size, out, seed):
    x, dy = normal(seed, 2, 3, *size), normal(seed + 1, 2, 3, *out)
    if ladder == "adaptive_avg_pool2d":
        check(run(ladder, rung, x, out), (kernels.adaptive_avg_pool2d(*double(x), out),))
    else:
        expected = kernels.adaptive_avg_pool2d_backward(*double(dy, x), out)
        check(run(ladder, rung, dy, x.shape), (expected,))


@st.composite
def convolutions(draw):
    """Shapes of images and kernels, stride, padding, dilation and groups that leave an output."""
    pair = lambda low, high: draw(st.tuples(st.integers(low, high), st.integers(low, high)))  # noqa: E731
    kernel, stride, padding, dilation = pair(1, 3), pair(1, 3), pair(0, 2), pair(1, 2)
    size = tuple(
        draw(st.integers(max(1, d * (k - 1) + 1 - 2 * p), 11))
        for k, p, d in zip(kernel, padding, dilation, strict=True)
    )
    n, c_in, c_out, groups = draw(
        st.sampled_from(
            [(1, 1, 1, 1), (2, 3, 5, 1), (1, 2, 17, 1), (3, 1, 2, 1), (2, 3, 6, 3), (2, 4, 2, 2)]
        )
    )
    return (n, c_in, *size), (c_out, c_in // groups, *kernel), stride, padding, dilation, groups


@each_rung("conv2d", "conv2d_backward")
@some(max_examples=10)
@given(case=convolutions(), seed=seeds)
def test_convolution(ladder, rung, case, seed):
    x_shape, weight_shape, *settings_ = case
    x, weight = normal(seed, *x_shape), normal(seed + 1, *weight_shape)
    bias = normal(seed + 2, weight_shape[0])
    wide = double(x, weight, bias)
    y = kernels.conv2d(*wide, *settings_)
    if ladder == "conv2d":
        check(run(ladder, rung, x, weight, bias, *settings_), (y,), tolerance=5e-6)
        check(
            run(ladder, rung, x, weight, None, *settings_),
            (kernels.conv2d(*wide[:2], None, *settings_),),
            5e-6,
        )
    else:
        dy = normal(seed + 3, *y.shape)
        expected = kernels.conv2d_backward(dy.astype(np.float64), *wide, *settings_)
        check(run(ladder, rung, dy, x, weight, *settings_), expected, tolerance=1e-5)


@each_rung("conv_transpose2d", "conv_transpose2d_backward")
@some(max_examples=10)
@given(case=convolutions(), seed=seeds, data=st.data())
def test_transposed_convolution(ladder, rung, case, seed, data):
    (images, channels, *size), (c_out, per_group, *kernel), stride, padding, dilation, groups = case
    more = tuple(
        data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)
    )
    # The input has the output channels of the convolution whose gradient this is.
    x, weight = normal(seed, images, c_out, *size), normal(seed + 1, c_out, per_group, *kernel)
    bias, settings_ = normal(seed + 2, channels), (stride, padding, more, groups, dilation)
    axes = zip(size, kernel, stride, padding, more, dilation, strict=True)
    if min((n - 1) * s - 2 * p + d * (k - 1) + 1 + m for n, k, s, p, m, d in axes) < 1:
        settings_ = (stride, 0, more, groups, dilation)  # else nothing would be left
    wide = double(x, weight, bias)
    y = kernels.conv_transpose2d(*wide, *settings_)
    if ladder == "conv_transpose2d":
        check(run(ladder, rung, x, weight, bias, *settings_), (y,), tolerance=5e-6)
        y = kernels.conv_transpose2d(*wide[:2], None, *settings_)
        check(run(ladder, rung, x, weight, None, *settings_), (y,), tolerance=5e-6)
    else:
        dy = normal(seed + 3, *y.shape)
        expected = kernels.conv_transpose2d_backward(dy.astype(np.float64), *wide, *settings_)
        check(run(ladder, rung, dy, x, weight, *settings_), expected, tolerance=1e-5)


@st.composite
def attentions(draw):
    """Shapes of query, key and value, and the kind of mask."""
    leading = draw(st.sampled_from([(), (2,), (2, 3), (3, 1)]))
    queries, keys = draw(sizes), draw(sizes)
    e, v = (draw(st.sampled_from([1, 4, 31, 33, 64, 65, 128])) for _ in range(2))
    shapes = [(*leading, queries, e), (*leading, keys, e), (*leading, keys, v)]
    scores = (*leading, queries, keys)
    kind = draw(st.sampled_from(["none", "causal", "bool", "float"]))
    mask = tuple(draw(st.sampled_from([1, n])) for n in scores)
    return shapes, kind, mask[draw(st.integers(0, len(mask))) :]


def mask_of(kind: str, shape: tuple[int, ...], seed: int) -> np.ndarray | None:
    allowed = np.random.default_rng(seed).random(shape) < 0.7
    masks = {"bool": allowed, "float": np.where(allowed, normal(seed, *shape), f32(-np.inf))}
    return np.asarray(masks[kind]) if kind in masks else None


@each_rung("attention", "attention_backward")
@some(max_examples=12)
@given(case=attentions(), seed=seeds, scale=st.sampled_from([None, 0.7]))
def test_attention(ladder, rung, case, seed, scale):
    shapes, kind, mask_shape = case
    query, key, value = (normal(seed + i, *shape) for i, shape in enumerate(shapes))
    settings_ = (mask_of(kind, mask_shape, seed), kind == "causal", scale)
    wide = double(query, key, value)
    wide_settings = (double(*settings_[:1])[0] if kind == "float" else settings_[0], *settings_[1:])
    y = kernels.scaled_dot_product_attention(*wide, *wide_settings)
    scores = wide[0] @ wide[1].swapaxes(-1, -2) * (scale or query.shape[-1] ** -0.5)
    if kind == "causal":
        scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)
    elif kind == "bool":
        scores = np.where(settings_[0], scores, -np.inf)
    elif kind == "float":
        scores = scores + settings_[0]
    log_sum = np.logaddexp.reduce(scores, axis=-1)
    if ladder == "attention":
        expected = (y, log_sum)
        check(run(ladder, rung, query, key, value, *settings_), expected, tolerance=5e-6)
    else:
        dy = normal(seed + 3, *y.shape)
        inputs = (dy, query, key, value, y.astype(f32), log_sum.astype(f32), *settings_)
        expected = kernels.scaled_dot_product_attention_backward(
            dy.astype(np.float64), *wide, *wide_settings
        )
        check(run(ladder, rung, *inputs), expected[:3], tolerance=1e-5)


@each_rung("attention")
def test_attention_to_no_key_at_all_is_zero(ladder, rung):
    query, key, value = normal(0, 3, 5), normal(1, 4, 5), normal(2, 4, 6)
    expected = np.zeros((3, 6), f32), np.full(3, -np.inf, f32)
    check(run(ladder, rung, query, key, value, np.zeros((3, 4), bool)), expected)
    check(run(ladder, rung, query, key[:0], value[:0]), expected)


@pytest.mark.parametrize("transposed_b", ["false", "true"])
@pytest.mark.parametrize("transposed_a", ["false", "true"])
@pytest.mark.parametrize("tile", [8, 16, 32])
def test_tiles_of_the_matrix_product_meet_no_bank_conflict(tile, transposed_a, transposed_b):
    m = n = k = 2 * tile
    operand, c = np.ones((m, k), np.float32), np.empty((m, n), np.float32)
    kernel = cuda.load("linear.cu", mode="trace").kernel(
        f"matmul_tiled<{transposed_a}, {transposed_b}, {tile}>"
    )
    trace = kernel[(2, 2), (tile, tile)](m, n, k, operand, operand, None, c)
    ways = [line.ways for line in trace.report() if line.space == "shared"]
    assert len(ways) == 4  # two tiles, each written and read
    assert max(ways) == 1


@pytest.mark.parametrize("ladder", ["conv2d", "conv2d_backward"])
def test_tiles_of_convolution_meet_no_bank_conflict(ladder):
    inputs = normal(0, 1, 16, 4, 4), normal(1, 16, 16, 1, 1)
    if ladder == "conv2d_backward":
        inputs = normal(2, 1, 16, 4, 4), *inputs
    traces = cuda.LADDERS[ladder].record(*inputs, rung=ladder.replace("2d", "") + "_implicit")[1]
    ways = [line.ways for trace in traces for line in trace.report() if line.name in ("As", "Bs")]
    assert len(ways) == 4 * (1 if ladder == "conv2d" else 2)  # two tiles, each written and read
    assert max(ways) == 1


@pytest.mark.parametrize(("width", "length"), [(32, 32), (128, 16)])
def test_tiles_of_attention_meet_no_bank_conflict(width, length):
    query, key, value, dy = (normal(i, 1, length, width) for i in range(4))
    forward, backward = cuda.LADDERS["attention"], cuda.LADDERS["attention_backward"]
    outputs, records = forward.record(query, key, value, rung="attention_tiled")
    inputs = (dy, query, key, value, *outputs)
    records += backward.record(*inputs, rung="attention_backward_tiled")[1]
    ways = [line.ways for trace in records for line in trace.report() if line.space == "shared"]
    assert len(ways) > 20
    assert max(ways) == 1


@pytest.mark.parametrize("rung", ["attention_online", "attention_tiled"])
def test_attention_in_registers_refuses_wide_vectors(rung):
    query, key, value = normal(0, 3, 129), normal(1, 4, 129), normal(2, 4, 6)
    with pytest.raises(ValueError, match=f"{rung} takes .* at most 128 numbers, got 129"):
        run("attention", rung, query, key, value)
    with pytest.raises(
        ValueError, match=r"attn_mask must have at most 4 axes, got \(1, 1, 1, 3, 4\)"
    ):
        run("attention", rung, query, key, value, np.ones((1, 1, 1, 3, 4), bool))


@each_rung("lstm_cell", "lstm_cell_backward", "gru_cell", "gru_cell_backward")
@some()
@given(
    batch=sizes,
    n_in=sizes,
    units=sizes,
    seed=seeds,
    biased=st.booleans(),
    scale=st.sampled_from([1, 20]),
)
def test_recurrent_cell(ladder, rung, batch, n_in, units, seed, biased, scale):
    lstm, gates = ladder.startswith("lstm"), 4 if ladder.startswith("lstm") else 3
    x, *states = (normal(seed + i, batch, (n_in, units, units)[i]) for i in range(3 if lstm else 2))
    weights = [
        normal(seed + 3 + i, gates * units, n, scale=scale / n) for i, n in enumerate((n_in, units))
    ]
    biases = [normal(seed + 5 + i, gates * units) for i in range(2)] if biased else []
    inputs, wide = (x, *states, *weights, *biases), double(x, *states, *weights, *biases)
    new = getattr(kernels, ladder.removesuffix("_backward"))(*wide)
    new = new if lstm else (new,)
    # The cuda rungs return the gates too; from them a gradient is taken below.
    *outputs, held = run(ladder.removesuffix("_backward"), rung.replace("_backward", ""), *inputs)
    if not ladder.endswith("_backward"):
        check(outputs, new, tolerance=1e-5)
        assert held.shape == (batch, 4 * units)
        assert np.isfinite(held).all()
        return
    dy, dc = normal(seed + 7, batch, units), normal(seed + 8, batch, units)
    zeros = [np.zeros(gates * units)] * (0 if biased else 2)
    wide = [*wide, *zeros]
    backward = getattr(kernels, ladder)
    if not lstm:
        expected = backward(dy.astype(np.float64), *wide)
        check(run(ladder, rung, dy, x, *states, held, *weights), expected, tolerance=5e-5)
        return
    for upstream in (dc, None):
        dc64 = None if upstream is None else upstream.astype(np.float64)
        expected = backward(dy.astype(np.float64), *wide, dc=dc64)
        inputs = (dy, upstream, x, *states, new[1].astype(f32), held, *weights)
        check(run(ladder, rung, *inputs), expected, tolerance=5e-5)


def boxes_of(seed: int, n: int, grid: int):
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.integers(-grid, grid + 1, (n, 2, 2)), axis=1).reshape(n, 4)
    return corners.astype(f32), (rng.integers(0, 6, n) / 5).astype(f32)


@each_rung("box_iou")
@some()
@given(n=sizes, m=sizes, seed=seeds, grid=st.sampled_from([2, 5, 20]))
def test_box_iou(ladder, rung, n, m, seed, grid):
    a, b = boxes_of(seed, n, grid)[0], boxes_of(seed + 1, m, grid)[0]
    check(run(ladder, rung, a, b), (kernels.box_iou(a, b),))


@each_rung("nms")
@some(max_examples=8)
@given(
    n=st.one_of(st.sampled_from([0, 1, 63, 64, 65, 128, 130]), st.integers(0, 150)),
    seed=seeds,
    grid=st.sampled_from([2, 5, 20]),
    threshold=st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]),
)
def test_nms(ladder, rung, n, seed, grid, threshold):
    boxes, scores = boxes_of(seed, n, grid)
    (keep,) = run(ladder, rung, boxes, scores, threshold)
    np.testing.assert_array_equal(keep, kernels.nms(boxes, scores, threshold))


@each_rung("embedding", "embedding_backward")
@some()
@given(tokens=sizes, width=sizes, rows=sizes, seed=seeds)
def test_embedding(ladder, rung, tokens, width, rows, seed):
    ids = np.random.default_rng(seed).integers(0, rows, tokens)
    table, dy = normal(seed, rows, width), normal(seed + 1, tokens, width)
    if ladder == "embedding":
        check(run(ladder, rung, ids, table), (kernels.embedding(ids, table),))
    else:
        expected = kernels.embedding_backward(dy.astype(np.float64), ids, table.astype(np.float64))
        check(run(ladder, rung, dy, ids, rows), (expected,))


@each_rung("skip_gram_negative_sampling_step", "negative_sampling_loss")
@some()
@given(n=sizes, k=st.integers(0, 6), width=sizes, words=sizes, seed=seeds, remove=st.booleans())
def test_negative_sampling(ladder, rung, n, k, width, words, seed, remove):
    rng = np.random.default_rng(seed)
    context, noise = rng.integers(0, words, n), rng.integers(0, words, (n, k))
    weight, scale = normal(seed, words, width), width**-0.5
    arguments = {"remove_accidental_hits": remove}
    if ladder == "negative_sampling_loss":
        hidden = normal(seed + 1, n, width, scale=scale)
        wide = (*double(hidden, weight), context, noise)
        losses = kernels.negative_sampling_loss(*wide, "none", **arguments)
        expected = kernels.negative_sampling_loss_backward(np.float64(1), *wide, **arguments)
        outputs = run(ladder, rung, hidden, weight, context, noise, remove)
        check(outputs, (losses, *expected), tolerance=5e-6)
        return
    inputs, center = normal(seed + 1, words + 3, width, scale=scale), rng.integers(0, words + 3, n)
    wide = double(inputs, weight)
    losses = kernels.negative_sampling_loss(
        wide[0][center], wide[1], context, noise, "none", **arguments
    )
    kernels.skip_gram_negative_sampling_step(*wide, center, context, noise, lr=0.2, **arguments)
    outputs = run(ladder, rung, inputs, weight, center, context, noise, 0.2, remove)
    check(outputs, (*wide, losses), tolerance=5e-6)


@each_rung("gram_matrix", "gram_matrix_backward")
@some()
@given(
    n=st.integers(1, 3),
    channels=sizes,
    size=st.one_of(
        st.sampled_from([(1, 1), (5, 1), (31, 35)]), st.tuples(*[st.integers(1, 9)] * 2)
    ),
    seed=seeds,
)
def test_gram_matrix(ladder, rung, n, channels, size, seed):
    x, dy = normal(seed, n, channels, *size), normal(seed + 1, n, channels, channels)
    if ladder == "gram_matrix":
        check(run(ladder, rung, x), (kernels.gram_matrix(*double(x)),))
    else:
        check(run(ladder, rung, dy, x), (kernels.gram_matrix_backward(*double(dy, x)),))


@each_rung("adam")
@some()
@given(
    n=st.one_of(st.sampled_from([1, 3, 4, 5, 255, 1024, 1027]), st.integers(1, 600)),
    seed=seeds,
    step=st.integers(1, 100),
    weight_decay=st.sampled_from([0.0, 0.1]),
)
def test_adam(ladder, rung, n, seed, step, weight_decay):
    p, g, m, v = (normal(seed + i, n) for i in range(4))
    v = np.abs(v)
    wide = double(p, g, m, v)
    kernels.adam_step(*wide, step, lr=0.01, weight_decay=weight_decay)
    outputs = run(ladder, rung, p, g, m, v, step, 0.01, (0.9, 0.999), 1e-8, weight_decay)
    check(outputs, (wide[0], wide[2], wide[3]))


@pytest.mark.parametrize("name", ["linear", "softmax", "nms"])
def test_fast_mode_gives_the_same_at_larger_sizes(name):
    boxes, scores = boxes_of(0, 500, 20)
    inputs, expected = {
        "linear": ((normal(0, 150, 90), normal(1, 130, 90), normal(2, 130)), None),
        "softmax": ((normal(0, 300, 1000),), None),
        "nms": ((boxes, scores, 0.5), None),
    }[name]
    expected = getattr(kernels, name)(*inputs)
    for rung in cuda.LADDERS[name].rungs:
        if rung.dtype == "float32":
            check(run(name, rung.name, *inputs, mode="fast"), (expected,), tolerance=1e-5)


def test_ladders_are_told_in_full():
    for name, ladder in cuda.LADDERS.items():
        assert ladder.name == name
        assert ladder.reference == "sum" or hasattr(kernels, ladder.reference)
        assert len({rung.name for rung in ladder.rungs}) == len(ladder.rungs)
        for rung in ladder.rungs:
            assert rung.reason.endswith(".")
            on_tensor_cores = rung.name.endswith(("_mma", "_wgmma"))
            assert rung.runs_on("sm_75") != on_tensor_cores
            assert rung.dtype == ("bfloat16" if on_tensor_cores else "float32")
    with pytest.raises(ValueError, match="rung must be one of 'softmax_naive'"):
        cuda.LADDERS["softmax"].rung("softmax_fastest")


def test_every_kernel_of_the_book_stands_on_a_ladder():
    on_ladders = {
        (ladder.file, kernel.partition("<")[0])
        for ladder in cuda.LADDERS.values()
        for rung in ladder.rungs
        for kernel in rung.kernels
    }
    files = {ladder.file for ladder in cuda.LADDERS.values()}
    assert on_ladders == {(file, kernel) for file in files for kernel in cuda.load(file).kernels}
