"""Convolution, transposed convolution, unfold and fold against torch, loops and differences."""

import itertools
import math
import warnings

import core_helpers as h
import numpy as np
import pytest
import torch
import torch.nn.functional as torch_F
from hypothesis import given, settings
from hypothesis import strategies as st

from dlnotes import check, kernels
from dlnotes.kernels import _winograd, conv

CONV = {1: "conv1d", 2: "conv2d", 3: "conv3d"}
TRANSPOSED = {1: "conv_transpose1d", 2: "conv_transpose2d"}


def per_axis(draw, axes, low, high):
    return tuple(draw(st.integers(low, high)) for _ in range(axes))


@st.composite
def convolutions(draw, axes):
    """Shapes and settings of a convolution that has at least one window."""
    groups = draw(st.integers(1, 3))
    limits = [(1, 3), (1, 3), (1, 2)]
    kernel, stride, dilation = (per_axis(draw, axes, *limit) for limit in limits)
    padding = draw(st.sampled_from(["same", "valid", "numbers"]))
    if padding == "same":
        stride = (1,) * axes
    elif padding == "numbers":
        padding = per_axis(draw, axes, 0, 2)
    pad = (0,) * axes if isinstance(padding, str) else padding
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    least = [max(1, span - 2 * p) for span, p in zip(spans, pad, strict=True)]
    # Kernels as large as the input are frequent: an extra length of 0.
    size = tuple(low + draw(st.integers(0, 4)) for low in least)
    channels, outs = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    x = (draw(st.integers(0, 3)), channels, *size)
    weight = (outs, channels // groups, *kernel)
    return x, weight, {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


def with_torch(function, arrays, dy, **keywords):
    """Return torch's value and its gradients."""
    tensors = [torch.tensor(a.copy(order="C"), requires_grad=True) for a in arrays]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using padding='same' with even kernel")
        y = function(*tensors, **keywords)
    y.backward(torch.tensor(dy.copy(order="C")))
    return y, [tensor.grad for tensor in tensors]


def check_layer(name, shapes, keywords, dtype, scale, layout, seed, bias_shape=None):
    """Hold a layer with weights against torch, forward and backward."""
    scales = (scale, 1.0, scale)
    wanted = [*shapes, bias_shape] if bias_shape else shapes
    arrays = [h.draw(seed + i, shape, dtype, scales[i], layout) for i, shape in enumerate(wanted)]
    forward, backward = getattr(kernels, name), getattr(kernels, f"{name}_backward")
    y = h.assert_pure(lambda *a: forward(*a, **keywords), *arrays)
    dy = h.draw(seed + 3, y.shape, dtype, 1, layout)
    gradients = h.assert_pure(lambda g, *a: backward(g, *a, **keywords), dy, *arrays)
    expected, expected_gradients = with_torch(getattr(torch_F, name), arrays, dy, **keywords)
    terms = math.prod(shapes[1][1:])
    h.assert_close(y, expected, dtype, 10 * scale * math.sqrt(terms))
    assert (gradients[2] is None) == (bias_shape is None)
    summed = math.sqrt(max(1, dy.size // dy.shape[1]))  # how large sums of so many numbers are
    outs = math.sqrt(math.prod(shapes[1]) / shapes[1][1])
    magnitudes = (10 * outs, 10 * scale * summed, summed)
    for gradient, wanted, size in zip(gradients, expected_gradients, magnitudes, strict=False):
        h.assert_close(gradient, wanted, dtype, size)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("wrapped", [1, 1000], ids=["without wrapped windows", "wide rows"])
@settings(deadline=None, max_examples=40)
@given(st.data())
def test_parity_with_torch(axes, wrapped, data):
    """Both layouts of the columns, in one span and in many, with one sample in a block or more."""
    x, weight, keywords = data.draw(convolutions(axes))
    dtype, scale = data.draw(h.dtypes), data.draw(h.scales)
    layout, seed = data.draw(h.layouts), data.draw(h.seeds)
    bias = data.draw(st.sampled_from([None, (weight[0],)]))
    small = data.draw(st.booleans())
    before = conv._MOST_WRAPPED, conv._COLUMN_BYTES, conv._MIN_COLUMNS
    conv._MOST_WRAPPED = wrapped
    if small:
        conv._COLUMN_BYTES, conv._MIN_COLUMNS = 1, 5
    try:
        check_layer(CONV[axes], (x, weight), keywords, dtype, scale, layout, seed, bias)
    finally:
        conv._MOST_WRAPPED, conv._COLUMN_BYTES, conv._MIN_COLUMNS = before


@settings(deadline=None, max_examples=30)
@given(convolutions(2), h.dtypes, st.booleans(), h.seeds)
def test_equals_the_loops_and_the_plain_columns(case, dtype, with_bias, seed):
    x_shape, weight_shape, keywords = case
    x, weight = h.draw(seed, x_shape, dtype), h.draw(seed + 1, weight_shape, dtype)
    bias = h.draw(seed + 2, weight_shape[:1], dtype) if with_bias else None
    expected = kernels.conv2d_loops(x, weight, bias, **keywords)
    given_arrays = (x, weight) if bias is None else (x, weight, bias)
    for function in (kernels.conv2d, kernels.conv2d_unfold):
        y = h.assert_pure(lambda *a, f=function: f(*a, **keywords), *given_arrays)
        h.assert_close(y, expected, dtype, 5)


@pytest.mark.parametrize("axes", [1, 2])
@settings(deadline=None, max_examples=50)
@given(st.data())
def test_transposed_parity_with_torch(axes, data):
    ints = [(1, 3), (1, 3), (1, 2), (0, 2)]
    kernel, stride, dilation, padding = (per_axis(data.draw, axes, *limits) for limits in ints)
    extra = tuple(
        data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)
    )
    geometry = zip(kernel, stride, dilation, padding, extra, strict=True)
    # As small as an input may be for an output of at least one entry, or a little larger.
    size = tuple(
        max(1, -((d * (k - 1) + e - 2 * p) // s) + 1) + data.draw(st.integers(0, 3))
        for k, s, d, p, e in geometry
    )
    groups = data.draw(st.integers(1, 2))
    channels, outs = groups * data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2))
    shapes = ((data.draw(st.integers(0, 3)), channels, *size), (channels, outs, *kernel))
    bias = data.draw(st.sampled_from([None, (outs * groups,)]))
    keywords = {"stride": stride, "padding": padding, "output_padding": extra}
    keywords |= {"groups": groups, "dilation": dilation}
    draws = [data.draw(s) for s in (h.dtypes, h.scales, h.layouts, h.seeds)]
    check_layer(TRANSPOSED[axes], shapes, keywords, *draws, bias)


@settings(deadline=None, max_examples=40)
@given(convolutions(2), h.dtypes, h.layouts, h.seeds)
def test_unfold_and_fold_parity_with_torch(case, dtype, layout, seed):
    (n, channels, *size), weight_shape, keywords = case
    keywords = dict(keywords, kernel_size=weight_shape[2:])
    keywords.pop("groups")
    if isinstance(keywords["padding"], str):
        keywords["padding"] = 0
        size = [s + 4 for s in size]
    if n == 0:  # torch refuses an empty batch: compare with a batch of one
        columns = kernels.unfold(np.zeros((0, channels, *size), dtype), **keywords)
        one = kernels.unfold(np.zeros((1, channels, *size), dtype), **keywords)
        assert columns.shape == (0, *one.shape[1:])
        return
    x = h.draw(seed, (n, channels, *size), dtype, 1, layout)
    columns = h.assert_pure(lambda a: kernels.unfold(a, **keywords), x)
    dy = h.draw(seed + 1, columns.shape, dtype, 1, layout)
    dx = h.assert_pure(lambda g, a: kernels.unfold_backward(g, a, **keywords), dy, x)
    expected, (gradient,) = with_torch(torch_F.unfold, [x], dy, **keywords)
    h.assert_close(columns, expected, dtype)
    h.assert_close(dx, gradient, dtype, 5)

    folded = h.assert_pure(lambda a: kernels.fold(a, tuple(size), **keywords), dy)
    back = h.assert_pure(lambda g, a: kernels.fold_backward(g, a, tuple(size), **keywords), x, dy)
    expected, (gradient,) = with_torch(torch_F.fold, [dy], x, output_size=size, **keywords)
    h.assert_close(folded, expected, dtype, 5)
    h.assert_close(back, gradient, dtype)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 3),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(4, 11), st.integers(4, 11)),
    st.sampled_from([0, 1, 2, (1, 0), "same"]),
    st.booleans(),
    h.scales,
    h.layouts,
    h.seeds,
)
def test_minimal_filtering(n, channels, out, padding, with_bias, scale, layout, seed):
    """Winograd's way gives the same, to the digits that its transforms leave."""
    pads = {"same": (1, 1)}.get(padding, padding if isinstance(padding, tuple) else (padding,) * 2)
    size = tuple(max(1, o + 2 - 2 * p) for o, p in zip(out, pads, strict=True))
    x = h.draw(seed, (n, channels[0], *size), np.float32, scale, layout)
    weight = h.draw(seed + 1, (channels[1], channels[0], 3, 3), np.float32, 1, layout)
    bias = h.draw(seed + 2, channels[1:], np.float32, scale) if with_bias else None
    given_arrays = [a for a in (x, weight, bias) if a is not None]
    limits = ("_LEAST_CHANNELS", "_WORK_BYTES", "_LARGEST_SHARE")
    before = [getattr(_winograd, name) for name in limits]
    # With few channels one entry may be nearly all that there is.
    _winograd._LEAST_CHANNELS, _winograd._WORK_BYTES, _winograd._LARGEST_SHARE = 1, 20_000, 1.001
    try:
        windows = conv._conv_windows(size, (3, 3), 1, padding, 1)
        assert _winograd.fits(x, weight, windows, 1)
        y = h.assert_pure(lambda *a: kernels.conv2d(*a, padding=padding), *given_arrays)
        dy = h.draw(seed + 3, y.shape, np.float32, 1, layout)
        gradients = h.assert_pure(
            lambda *a: kernels.conv2d_backward(*a, padding=padding), dy, *given_arrays
        )
    finally:
        for name, value in zip(limits, before, strict=True):
            setattr(_winograd, name, value)
    doubles = [a.astype(np.float64) for a in given_arrays]
    expected, wanted = with_torch(torch_F.conv2d, doubles, dy.astype(np.float64), padding=padding)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, expected.detach(), rtol=1e-5, atol=1e-4 * max(1, scale))
    for gradient, exact in zip(gradients, wanted, strict=False):
        assert gradient.dtype == np.float32
        atol = 1e-5 * max(1.0, float(exact.abs().max()) if exact.numel() else 0)
        np.testing.assert_allclose(gradient, exact, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e8])
@pytest.mark.parametrize("place", ["x", "dy", "weight"])
def test_many_channels_keep_a_bad_number_where_it_belongs(place, bad):
    """NaN, infinity and a huge number spoil what sees them, as in torch, and nothing else."""
    arrays = {
        "x": h.draw(0, (1, 32, 12, 12), np.float32),
        "weight": h.draw(1, (32, 32, 3, 3), np.float32),
        "dy": h.draw(2, (1, 32, 12, 12), np.float32),
    }
    arrays[place][0, 0, 1, 1] = bad
    x, weight, dy = arrays.values()
    with np.errstate(invalid="ignore"):
        y = kernels.conv2d(x, weight, padding=1)
        gradients = kernels.conv2d_backward(dy, x, weight, padding=1)[:2]
    doubles = [a.astype(np.float64) for a in (x, weight)]
    expected, wanted = with_torch(torch_F.conv2d, doubles, dy.astype(np.float64), padding=1)
    for actual, exact in zip((y, *gradients), (expected.detach(), *wanted), strict=True):
        exact = exact.numpy()
        spoilt = ~(np.abs(exact) < 1e5)  # what has the bad number among its terms
        assert not spoilt.all()
        np.testing.assert_array_equal(np.isfinite(actual), np.isfinite(exact))
        np.testing.assert_allclose(actual[~spoilt], exact[~spoilt], rtol=1e-4, atol=1e-3)


def test_minimal_filtering_is_for_entries_of_like_size():
    windows = conv._conv_windows((4, 4), (3, 3), 1, 1, 1)
    x, weight = h.draw(0, (3, 32, 4, 4), np.float32), h.draw(1, (32, 32, 3, 3), np.float32)
    x *= np.float32([1, 0, 1e6])[:, None, None, None]  # samples do not mix
    assert _winograd.fits(x, weight, windows, 1)
    for place, count in ((x[0], 1), (x[0], 3), (weight[5], 1)):
        before = place.copy()
        place.reshape(-1)[:count] = 1e4
        assert not _winograd.fits(x, weight, windows, 1)
        place[...] = before
    x[0] = 3e38  # whose sum overflows
    assert not _winograd.fits(x, weight, windows, 1)


def test_minimal_filtering_is_for_many_channels_in_float32():
    windows = conv._conv_windows((8, 8), (3, 3), 1, 1, 1)
    x, weight = np.ones((1, 32, 8, 8), np.float32), np.ones((32, 32, 3, 3), np.float32)
    assert _winograd.fits(x, weight, windows, 1)
    assert not _winograd.fits(x.astype(np.float64), weight.astype(np.float64), windows, 1)
    assert not _winograd.fits(x, weight[:31], windows, 1)
    assert not _winograd.fits(x, weight, windows, 2)
    assert not _winograd.fits(x, weight, windows._replace(stride=(1, 2)), 1)
    assert not _winograd.fits(x, weight, windows._replace(out=(3, 8)), 1)
    y = kernels.conv2d(x, weight, padding=1)
    np.testing.assert_allclose(y[0, 0, 1:-1, 1:-1], 288, rtol=1e-5)


# ---- numeric gradients -----------------------------------------------------------------------

CASES = {
    "conv1d": ((2, 2, 5), (4, 1, 2), 4, (2, 1, 2, 2)),
    "conv2d": ((2, 2, 4, 3), (2, 1, 3, 2), 2, ((1, 2), (2, 0), (1, 2), 2)),
    "conv2d same": ((1, 1, 3, 4), (2, 1, 2, 3), 2, (1, "same", 1, 1)),
    "conv3d": ((1, 2, 3, 2, 3), (1, 2, 2, 1, 2), 1, (2, 1, 1, 1)),
    "conv_transpose1d": ((2, 2, 3), (2, 2, 3), 4, (2, 1, 1, 2, 1)),
    "conv_transpose2d": ((1, 2, 2, 3), (2, 1, 2, 3), 1, ((2, 1), 1, 0, 1, 2)),
}


@pytest.mark.parametrize("case", CASES)
def test_numeric_gradient(case):
    x, weight, outs, extra = CASES[case]
    name = case.split()[0]
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in (x, weight, (outs,))]
    function, backward = getattr(kernels, name), getattr(kernels, f"{name}_backward")
    expected = getattr(torch_F, name)(*map(torch.tensor, arrays), *extra).numpy()
    check.gradcheck(
        lambda x, weight, bias: function(x, weight, bias, *extra),
        tuple(arrays),
        backward=lambda dy, *inputs: backward(dy, *inputs, *extra),
        expected=expected,
    )


@pytest.mark.parametrize("name", ["unfold", "fold"])
def test_numeric_gradient_of_columns(name):
    rng = np.random.default_rng(0)
    settings = {"kernel_size": (2, 3), "dilation": 1, "padding": 1, "stride": 2}
    x = rng.standard_normal((1, 2, 4, 5))
    arguments = {}
    if name == "fold":
        x, arguments = rng.standard_normal((1, 12, 9)), {"output_size": (4, 5)}
    function, backward = getattr(kernels, name), getattr(kernels, f"{name}_backward")
    expected = getattr(torch_F, name)(torch.tensor(x), **arguments, **settings).numpy()
    check.gradcheck(
        lambda x: function(x, **arguments, **settings),
        (x,),
        backward=lambda dy, x: backward(dy, x, **arguments, **settings),
        expected=expected,
    )


@pytest.mark.parametrize("case", [*CASES, "minimal filtering"])
def test_only_the_gradients_asked_for(case):
    many = ((1, 32, 5, 4), (32, 32, 3, 3), 32, (1, 1))
    x, weight, outs, extra = CASES.get(case, many)
    name = "conv2d" if case == "minimal filtering" else case.split()[0]
    arrays = [h.draw(i, shape, np.float32) for i, shape in enumerate((x, weight, (outs,)))]
    y = getattr(kernels, name)(*arrays, *extra)
    backward = getattr(kernels, f"{name}_backward")
    h.check_output_mask(
        lambda dy, *inputs, **mask: backward(dy, *inputs, *extra, **mask),
        h.draw(9, y.shape, np.float32),
        arrays,
    )


# ---- by hand ---------------------------------------------------------------------------------


def test_an_edge_by_hand():
    image = np.array([[[[0.0, 0, 1, 1], [0, 0, 1, 1]]]])
    edge = np.array([[[[-1.0, 1.0]]]])
    np.testing.assert_array_equal(kernels.conv2d(image, edge), [[[[0, 1, 0], [0, 1, 0]]]])


def test_transposed_is_the_gradient_of_convolution():
    x, weight = h.draw(0, (2, 3, 5, 5), np.float64), h.draw(1, (4, 3, 3, 3), np.float64)
    y = kernels.conv2d(x, weight, stride=2, padding=1)
    dy = h.draw(2, y.shape, np.float64)
    dx, _, _ = kernels.conv2d_backward(dy, x, weight, stride=2, padding=1)
    np.testing.assert_array_equal(kernels.conv_transpose2d(dy, weight, stride=2, padding=1), dx)


def test_pointwise_with_output_padding():
    keywords = {"output_padding": 1, "dilation": 2}
    check_layer("conv_transpose1d", ((2, 3, 4), (3, 2, 1)), keywords, np.float32, 1.0, "", 0, (2,))


def test_fold_counts_the_windows_of_unfold():
    ones = np.ones((1, 1, 3, 3))
    counts = kernels.fold(kernels.unfold(ones, 2), 3, 2)
    np.testing.assert_array_equal(counts[0, 0], [[1, 2, 1], [2, 4, 2], [1, 2, 1]])


def test_large_images_take_no_more_memory():
    """The columns of the whole image would be nine times 4 MB: work memory stays at about 2 MiB."""
    import tracemalloc

    x, weight = np.ones((1, 4, 512, 512), np.float32), np.ones((2, 4, 3, 3), np.float32)
    tracemalloc.start()
    y = kernels.conv2d(x, weight, padding=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The result, the padded sample, the results with wrapped windows, and the columns.
    assert peak < 2 * y.nbytes + 1.1 * x.nbytes + 1.5 * 2**20
    assert y[0, 0, 5, 5] == 36


# ---- bad input -------------------------------------------------------------------------------

x, w, b = np.ones((2, 4, 5, 6)), np.ones((6, 2, 3, 3)), np.ones(6)
BAD = [
    (([[1.0]], w), {}, TypeError, "x must be a NumPy array"),
    ((x.astype(np.float16), w), {}, TypeError, "x must be float32 or float64, got float16"),
    ((x[0], w), {}, ValueError, r"x must have 4 axes, got shape \(4, 5, 6\)"),
    ((x, w[0]), {}, ValueError, "weight must have 4 axes"),
    ((x, w), {}, ValueError, r"weight must take 4 input channels \(x has 4, groups=1\)"),
    ((x, w[:0]), {"groups": 2}, ValueError, "weight must not be empty"),
    ((x, w), {"groups": 4}, ValueError, "groups must divide the 4 channels of x and the 6 of"),
    ((x, w), {"groups": 0}, ValueError, "groups must be at least 1"),
    ((x, w, b[:5]), {"groups": 2}, ValueError, r"bias must have shape \(6,\)"),
    ((x, w.astype(np.float32)), {"groups": 2}, TypeError, "x is float64, weight is float32"),
    ((x, w, b.astype(np.float32)), {"groups": 2}, TypeError, "bias is float32"),
    ((x, w), {"groups": 2, "stride": 0}, ValueError, "stride must be at least 1, got 0"),
    ((x, w), {"groups": 2, "stride": 1.5}, TypeError, "stride must be an int"),
    ((x, w), {"groups": 2, "stride": (1, 2, 3)}, ValueError, "stride must be an int or 2 ints"),
    ((x, w), {"groups": 2, "padding": -1}, ValueError, "padding must be at least 0"),
    ((x, w), {"groups": 2, "padding": "full"}, ValueError, "padding must be one of 'same', 'val"),
    ((x, w), {"groups": 2, "padding": "same", "stride": 2}, ValueError, 'padding="same" needs st'),
    ((x, w), {"groups": 2, "dilation": 3}, ValueError, r"must fit into the padded input: it spans"),
]


@pytest.mark.parametrize(("arguments", "keywords", "error", "message"), BAD)
def test_bad_input(arguments, keywords, error, message):
    with h.shapes_unchecked():
        for function in (kernels.conv2d, kernels.conv2d_loops, kernels.conv2d_unfold):
            with pytest.raises(error, match=message):
                function(*arguments, **keywords)
        with pytest.raises(error, match=message):
            kernels.conv2d_backward(x, *arguments, **keywords)


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        ((x, w), {}, ValueError, "the first axis of weight must be the 4 channels of x"),
        ((x, w[:4], b), {}, ValueError, r"bias must have shape \(2,\)"),
        ((x, w[:4]), {"output_padding": 1}, ValueError, "output_padding must be smaller than st"),
        ((x, w[:4]), {"padding": 4}, ValueError, "too small: the output would have size"),
        ((x[..., :0], w[:4]), {}, ValueError, "too small"),
        ((x, w[:4]), {"padding": "same"}, TypeError, "padding must be an int, got str"),
    ],
)
def test_bad_transposed_input(arguments, keywords, error, message):
    with h.shapes_unchecked():
        for function in (
            kernels.conv_transpose2d,
            lambda *a, **k: kernels.conv_transpose2d_backward(x, *a, **k),
        ):
            with pytest.raises(error, match=message):
                function(*arguments, **keywords)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: kernels.conv2d_backward(x, x, w, groups=2), ValueError, r"dy must have shape \(2"),
        (
            lambda: kernels.conv2d_backward(np.ones((2, 6, 3, 4), np.float32), x, w, groups=2),
            TypeError,
            "dy is float32",
        ),
        (lambda: kernels.unfold(x, 7), ValueError, "the size of x is"),
        (lambda: kernels.unfold(x[0], 2), ValueError, "x must have 4 axes"),
        (lambda: kernels.unfold_backward(x[0], x, 2), ValueError, "dy must have shape"),
        (lambda: kernels.fold(np.ones((1, 5, 4)), 3, 2), ValueError, "a multiple of 4 rows"),
        (lambda: kernels.fold(np.ones((1, 4, 5)), 3, 2), ValueError, "and 4 windows"),
        (lambda: kernels.fold(np.ones((1, 4, 5)), 1, 2), ValueError, "output_size is"),
        (lambda: kernels.fold_backward(x, np.ones((1, 4, 4)), 3, 2), ValueError, "dy must have"),
    ],
)
def test_bad_calls(call, error, message):
    with h.shapes_unchecked(), pytest.raises(error, match=message):
        call()


def test_every_setting_may_be_one_number_or_several():
    expected = kernels.conv2d(x, w, b, (2, 2), (1, 1), (2, 2), 2)
    for stride, padding, dilation in itertools.product((2, [2, 2]), (1, (1, 1)), (2, np.int64(2))):
        y = kernels.conv2d(x, w, b, stride, padding, dilation, 2)
        np.testing.assert_array_equal(y, expected)
