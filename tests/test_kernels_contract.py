"""What holds for every kernel, in one place: a table with a call of each, and what must be true.

The values are held against torch elsewhere. Here: the dtype stays, inputs are left alone and
nothing shares their memory, the layout of the memory does not matter, other dtypes are refused
with the argument's name, and where samples are independent an empty batch, a batch of one and a
sample with NaN are what they should be. A kernel that is missing in the table fails a test.
"""

import inspect
from itertools import chain

import core_helpers as h
import numpy as np
import pytest

from dlnotes import kernels

RNG = np.random.default_rng(20)


def normal(*shape):
    return RNG.standard_normal(shape)


def positive(*shape):
    return RNG.uniform(0.1, 0.9, shape)


def signs(*shape):
    return np.where(RNG.random(shape) < 0.5, -1.0, 1.0)


def boxes(n):
    corners = RNG.uniform(0, 8, (n, 2))
    return np.concatenate([corners, corners + RNG.uniform(1, 8, (n, 2))], axis=1)


def labels(n, classes):
    return RNG.integers(0, classes, n)


def regions(n):
    return np.concatenate([RNG.integers(0, 3, (n, 1)), boxes(n)], axis=1)


TREE = kernels.huffman_codes(np.array([9, 1, 5, 2, 2, 1]))

# Kernel: the arguments of one call. Floats are cast to the dtype under test.
CALLS = {
    **{name: {"x": normal(3, 6, 5)} for name in (
        "sigmoid", "tanh", "relu", "leaky_relu", "hardtanh", "elu", "gelu", "silu", "softplus",
        "softmax", "log_softmax",
    )},
    "maxout": {"x": normal(3, 4, 6), "pool_size": 3},
    "attention_weights": {"query": normal(3, 5, 4), "key": normal(3, 7, 4)},
    **{name: {"query": normal(3, 5, 4), "key": normal(3, 7, 4), "value": normal(3, 7, 2)}
       for name in ("scaled_dot_product_attention", "scaled_dot_product_attention_loops")},
    "blocked_attention": {
        "query": normal(3, 5, 4), "key": normal(3, 7, 4), "value": normal(3, 7, 2), "block_size": 2,
    },
    "conv1d": {"x": normal(3, 4, 9), "weight": normal(6, 2, 3), "bias": normal(6), "groups": 2},
    **{name: {"x": normal(3, 4, 7, 6), "weight": normal(6, 4, 3, 2), "bias": normal(6),
              "stride": (2, 1), "padding": 1}
       for name in ("conv2d", "conv2d_loops", "conv2d_unfold")},
    "conv3d": {"x": normal(3, 2, 5, 4, 6), "weight": normal(3, 2, 3, 2, 3), "bias": normal(3)},
    "conv_transpose1d": {"x": normal(3, 4, 5), "weight": normal(4, 3, 3), "bias": normal(3),
                         "stride": 2},
    **{name: {"x": normal(3, 4, 5, 3), "weight": normal(4, 3, 3, 2), "bias": normal(3),
              "stride": 2}
       for name in ("conv_transpose2d", "conv_transpose2d_loops")},
    "unfold": {"x": normal(3, 2, 5, 6), "kernel_size": 3, "padding": 1},
    "fold": {"x": normal(3, 8, 20), "output_size": (5, 6), "kernel_size": 2},
    **{name: {"x": normal(3, 4, 9), "kernel_size": 3} for name in ("max_pool1d", "avg_pool1d")},
    **{name: {"x": normal(3, 4, 7, 6), "kernel_size": 3, "stride": 2, "padding": 1}
       for name in ("max_pool2d", "avg_pool2d", "max_pool2d_loops", "avg_pool2d_loops")},
    "max_unpool2d": {
        "x": normal(3, 2, 2, 3),
        "indices": np.tile(np.array([[0, 3, 5], [12, 14, 17]]), (3, 2, 1, 1)),
        "kernel_size": 2,
    },
    "lp_pool1d": {"x": positive(3, 4, 9), "norm_type": 2, "kernel_size": 3},
    "lp_pool2d": {"x": positive(3, 4, 7, 6), "norm_type": 2, "kernel_size": 3},
    "adaptive_avg_pool1d": {"x": normal(3, 4, 9), "output_size": 4},
    "adaptive_avg_pool2d": {"x": normal(3, 4, 7, 6), "output_size": (3, 4)},
    "adaptive_max_pool1d": {"x": normal(3, 4, 9), "output_size": 4},
    "adaptive_max_pool2d": {"x": normal(3, 4, 7, 6), "output_size": (3, 4)},
    "interpolate": {"x": normal(3, 4, 7, 6), "size": (9, 4), "mode": "bilinear"},
    "glu": {"x": normal(3, 4, 6), "dim": -1},
    "logsumexp": {"x": normal(3, 4, 6), "dim": (1, 2)},
    "vector_norm": {"x": normal(3, 4, 6), "ord": 3, "dim": (1, 2)},
    "normalize": {"x": normal(3, 4, 6)},
    "cosine_similarity": {"x1": normal(3, 4, 6), "x2": normal(3, 4, 6)},
    "pairwise_distance": {"x1": normal(3, 6), "x2": normal(3, 6)},
    "cdist": {"x1": normal(3, 4, 6), "x2": normal(3, 5, 6)},
    "batch_norm": {"x": normal(3, 4, 5), "running_mean": normal(4), "running_var": positive(4),
                   "weight": normal(4), "bias": normal(4)},
    "batch_norm_statistics": {"x": normal(3, 4, 5), "running_mean": normal(4),
                              "running_var": positive(4)},
    "instance_norm": {"x": normal(3, 4, 5), "weight": normal(4), "bias": normal(4)},
    "instance_norm_statistics": {"x": normal(3, 4, 5), "running_mean": normal(4),
                                 "running_var": positive(4)},
    "group_norm": {"x": normal(3, 4, 5), "num_groups": 2, "weight": normal(4), "bias": normal(4)},
    "layer_norm": {"x": normal(3, 4, 5), "normalized_shape": (5,), "weight": normal(5),
                   "bias": normal(5)},
    "rms_norm": {"x": normal(3, 4, 5), "normalized_shape": (4, 5), "weight": normal(4, 5)},
    "local_response_norm": {"x": normal(3, 6, 5), "size": 3},
    "dropout": {"x": normal(3, 4), "keep": RNG.random((3, 4)) < 0.5, "p": 0.5},
    "pad": {"x": normal(3, 2, 5), "pad": (2, 1), "mode": "reflect"},
    **{name: {"x": normal(3, 2, 5), "weight": normal(4, 5), "bias": normal(4)}
       for name in ("linear", "linear_loops")},
    "bilinear": {"x1": normal(3, 5), "x2": normal(3, 4), "weight": normal(2, 5, 4),
                 "bias": normal(2)},
    "embedding": {"input": labels((3, 4), 6), "weight": normal(6, 5)},
    "embedding_bag": {"input": labels((3, 4), 6), "weight": normal(6, 5)},
    "scatter_add": {"values": normal(9, 4), "indices": labels(9, 5), "size": 5},
    "scatter_add_loops": {"values": normal(9, 4), "indices": labels(9, 5), "size": 5},
    **{name: {"hidden": normal(3, 4), "weight": normal(6, 4), "target": labels(3, 6),
              "noise": labels((3, 2), 6), "reduction": "none"}
       for name in ("negative_sampling_loss", "negative_sampling_loss_loops")},
    **{name: {"hidden": normal(3, 4), "weight": normal(5, 4), "target": labels(3, 6),
              "codes": TREE[0], "points": TREE[1], "reduction": "none"}
       for name in ("hierarchical_softmax_loss", "hierarchical_softmax_loss_loops")},
    "hierarchical_softmax_log_probs": {"hidden": normal(3, 4), "weight": normal(5, 4),
                                       "codes": TREE[0], "points": TREE[1]},
    "glove_loss": {"center": normal(3, 4), "context": normal(3, 4), "center_bias": normal(3),
                   "context_bias": normal(3), "counts": 90 * positive(3), "reduction": "none"},
    "glove_weight": {"counts": 90 * positive(3)},
    "alias_table": {"probabilities": positive(5)},
    **{name: {"input": normal(3, 4), "target": normal(3, 4), "reduction": "none"}
       for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")},
    "kl_div": {"input": normal(3, 4), "target": positive(3, 4), "reduction": "none"},
    "binary_cross_entropy": {"input": positive(3, 4), "target": positive(3, 4),
                             "reduction": "none", "weight": positive(4)},
    "binary_cross_entropy_with_logits": {
        "input": normal(3, 4), "target": positive(3, 4), "reduction": "none",
        "weight": positive(4), "pos_weight": positive(4),
    },
    **{name: {"input": normal(3, 4, 2), "target": labels((3, 2), 4), "reduction": "none"}
       for name in ("nll_loss", "cross_entropy")},
    "multi_margin_loss": {"input": normal(3, 4), "target": labels(3, 4), "reduction": "none"},
    "gaussian_kl": {"mean": normal(3, 4), "log_variance": normal(3, 4), "reduction": "none"},
    "gaussian_nll_loss": {"input": normal(3, 4), "target": normal(3, 4), "var": positive(3, 4),
                          "reduction": "none"},
    **{name: {"margin": normal(3, 4), "reduction": "none"}
       for name in ("zero_one_loss", "perceptron_loss", "hinge_loss", "logistic_loss")},
    "hinge_embedding_loss": {"input": normal(3, 4), "target": signs(3, 4), "reduction": "none"},
    "margin_ranking_loss": {"input1": normal(3), "input2": normal(3), "target": signs(3),
                            "reduction": "none"},
    "cosine_embedding_loss": {"input1": normal(3, 4), "input2": normal(3, 4), "target": signs(3),
                              "reduction": "none"},
    "contrastive_loss": {"input1": normal(3, 4), "input2": normal(3, 4),
                         "target": np.array([1.0, -1.0, 1.0]), "reduction": "none"},
    "triplet_margin_loss": {"anchor": normal(3, 4), "positive": normal(3, 4),
                            "negative": normal(3, 4), "reduction": "none"},
    "gram_matrix": {"x": normal(3, 4, 5, 2)},
    "total_variation": {"x": normal(3, 2, 5, 4)},
    "content_loss": {"x": normal(3, 4, 5, 2), "target": normal(3, 4, 5, 2)},
    "style_loss": {"x": normal(3, 4, 5, 2), "target": normal(3, 4, 4)},
    "reparameterize": {"mean": normal(3, 4), "log_var": normal(3, 4), "noise": normal(3, 4)},
    **{f"{kind}{form}": {
           "x": normal(3, 4) if form == "_cell" else normal(2, 3, 4),
           **{f"{state}{'' if form == '_cell' else 0}": normal(3, 5) for state in states},
           "weight_ih": normal(gates * 5, 4), "weight_hh": normal(gates * 5, 5),
           "bias_ih": normal(gates * 5), "bias_hh": normal(gates * 5),
       }
       for kind, gates, states in (("rnn", 1, "h"), ("simple_gru", 2, "h"), ("gru", 3, "h"),
                                   ("lstm", 4, "hc"))
       for form in ("", "_loops", "_cell")},
    "box_area": {"boxes": boxes(5)},
    "box_convert": {"boxes": boxes(5), "in_fmt": "xyxy", "out_fmt": "cxcywh"},
    **{name: {"boxes1": boxes(5), "boxes2": boxes(4)}
       for name in ("box_iou", "box_iou_loops", "generalized_box_iou")},
    "clip_boxes_to_image": {"boxes": boxes(5), "size": (7, 6)},
    "remove_small_boxes": {"boxes": boxes(5), "min_size": 3.0},
    "encode_boxes": {"boxes": boxes(5), "anchors": boxes(5)},
    "decode_boxes": {"codes": 0.3 * normal(5, 4), "anchors": boxes(5)},
    **{name: {"boxes": boxes(9), "scores": positive(9), "iou_threshold": 0.3}
       for name in ("nms", "nms_loops", "soft_nms")},
    "batched_nms": {"boxes": boxes(9), "scores": positive(9), "idxs": labels(9, 3),
                    "iou_threshold": 0.3},
    "match_anchors": {"anchors": boxes(9), "boxes": boxes(4)},
    **{name: {"x": normal(3, 2, 9, 8), "boxes": regions(4), "output_size": 3,
              "spatial_scale": 0.5}
       for name in ("roi_align", "roi_align_loops", "roi_pool", "roi_pool_loops")},
}  # fmt: skip

# Kernels without a call above, and why.
EXCUSED = {
    "one_hot": "takes and gives integers only",
    "anchor_boxes": "takes no arrays",
    "sinusoidal_positions": "takes no arrays",
    "embedding_renorm": "works in place, as its docstring says; tested with the embeddings",
    "huffman_codes": "takes and gives integers only",
    "alias_sample": "gives integers, drawn at random",
    **dict.fromkeys(
        ("sgd_step", "adagrad_step", "rmsprop_step", "adadelta_step", "adam_step"),
        "update rules work in place, as their docstrings say; tested with the optimisers",
    ),
    **dict.fromkeys(
        (
            f"{model}_{loss}_step"
            for model in ("skip_gram", "cbow")
            for loss in ("negative_sampling", "hierarchical_softmax")
        ),
        "steps work in place, as their docstrings say; tested with the losses of words",
    ),
}

# What the forward pass keeps for the backward pass, if asked to.
KEEPING = {
    "adaptive_max_pool1d": {},
    "adaptive_max_pool2d": {},
    "batch_norm": {"training": True},
    "cross_entropy": {},
    "max_pool1d": {},
    "max_pool2d": {},
    "scaled_dot_product_attention": {},
}

# One sample of the batch (axis 0 of these arguments) does not touch another.
PER_SAMPLE = {
    **dict.fromkeys(
        ("sigmoid", "tanh", "relu", "leaky_relu", "hardtanh", "elu", "gelu", "silu", "softplus",
         "softmax", "log_softmax", "maxout", "conv1d", "conv2d", "conv2d_loops", "conv2d_unfold",
         "conv3d",
         "conv_transpose1d", "conv_transpose2d", "conv_transpose2d_loops", "max_pool2d_loops",
         "avg_pool2d_loops", "unfold", "fold", "max_pool1d", "avg_pool1d",
         "adaptive_max_pool1d", "adaptive_max_pool2d", "interpolate", "glu", "logsumexp",
         "vector_norm", "normalize", "max_pool2d", "avg_pool2d", "lp_pool1d", "lp_pool2d",
         "adaptive_avg_pool1d",
         "adaptive_avg_pool2d", "batch_norm", "instance_norm", "group_norm", "layer_norm",
         "rms_norm", "local_response_norm", "linear", "linear_loops", "gram_matrix", "pad"),
        ("x",),
    ),
    **dict.fromkeys(("cosine_similarity", "pairwise_distance", "cdist"), ("x1", "x2")),
    "max_unpool2d": ("x", "indices"),
    "dropout": ("x", "keep"),
    "bilinear": ("x1", "x2"),
    "attention_weights": ("query", "key"),
    **dict.fromkeys(
        ("scaled_dot_product_attention", "scaled_dot_product_attention_loops", "blocked_attention"),
        ("query", "key", "value"),
    ),
    **dict.fromkeys(
        ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div", "binary_cross_entropy",
         "binary_cross_entropy_with_logits", "nll_loss", "cross_entropy", "multi_margin_loss",
         "hinge_embedding_loss"),
        ("input", "target"),
    ),
    "gaussian_kl": ("mean", "log_variance"),
    "gaussian_nll_loss": ("input", "target", "var"),
    **dict.fromkeys(
        ("zero_one_loss", "perceptron_loss", "hinge_loss", "logistic_loss"), ("margin",)
    ),
    **dict.fromkeys(
        ("margin_ranking_loss", "cosine_embedding_loss", "contrastive_loss"),
        ("input1", "input2", "target"),
    ),
    "triplet_margin_loss": ("anchor", "positive", "negative"),
    **dict.fromkeys(("rnn_cell", "gru_cell", "simple_gru_cell"), ("x", "h")),
    "lstm_cell": ("x", "h", "c"),
    "reparameterize": ("mean", "log_var", "noise"),
    **dict.fromkeys(
        ("negative_sampling_loss", "negative_sampling_loss_loops"), ("hidden", "target", "noise")
    ),
    **dict.fromkeys(
        ("hierarchical_softmax_loss", "hierarchical_softmax_loss_loops"), ("hidden", "target")
    ),
    "hierarchical_softmax_log_probs": ("hidden",),
    "glove_loss": ("center", "context", "center_bias", "context_bias", "counts"),
    "glove_weight": ("counts",),
    "box_area": ("boxes",),
    "box_convert": ("boxes",),
    "clip_boxes_to_image": ("boxes",),
    "encode_boxes": ("boxes", "anchors"),
    "decode_boxes": ("codes", "anchors"),
}  # fmt: skip

# Labels, which may have any real dtype.
LABELS = {
    (name, "target")
    for name in ("hinge_embedding_loss", "margin_ranking_loss", "cosine_embedding_loss",
                 "contrastive_loss")
}  # fmt: skip
REFUSES_NAN = (
    "binary_cross_entropy", "box_area", "box_convert", "clip_boxes_to_image", "encode_boxes",
    "decode_boxes", "glove_weight",
)  # fmt: skip
FROM_OUTPUT = ("sigmoid", "tanh", "softmax", "log_softmax")  # backward(dy, y), not (dy, x)

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
every = pytest.mark.parametrize("name", sorted(CALLS))


def call(name, dtype, change=lambda argument, value: value):
    """Return the arguments of a call, floats in the dtype, each passed through `change`."""
    arguments = {}
    for argument, value in CALLS[name].items():
        if isinstance(value, np.ndarray):
            value = change(argument, value.astype(dtype) if value.dtype.kind == "f" else value)
        arguments[argument] = value
    return arguments


def flat(results):
    """Return the arrays among the results of a kernel."""
    results = results if isinstance(results, tuple) else (results,)
    return [result for result in results if result is not None]


def with_backward(name, arguments):
    """Yield (function, arguments) of the kernel and, where there is one, of its backward."""
    forward = getattr(kernels, name)
    yield forward, arguments
    backward = getattr(kernels, f"{name}_backward", None)
    if backward is not None:
        y = flat(forward(**arguments))[0]
        dy = np.asarray(np.cos(np.arange(y.size)).reshape(np.shape(y)), y.dtype)
        given = {k: v for k, v in arguments.items() if k in inspect.signature(backward).parameters}
        if name in FROM_OUTPUT:
            given["y"] = y
        yield backward, {"dy": dy, **given}


def test_every_kernel_has_a_call_or_an_excuse():
    forward = {name for name in kernels.__all__ if not name.endswith("_backward")}
    assert forward == CALLS.keys() | EXCUSED.keys()
    assert not CALLS.keys() & EXCUSED.keys()
    assert PER_SAMPLE.keys() <= CALLS.keys()
    stray = {name.removesuffix("_backward") for name in kernels.__all__} - forward
    assert not stray, f"backward functions without a kernel: {stray}"


@every
@dtypes
def test_dtype_stays_and_inputs_are_left_alone(name, dtype):
    def read_only(argument, value):
        value = value.copy()
        value.setflags(write=False)
        return value

    for function, arguments in with_backward(name, call(name, dtype, read_only)):
        before = {k: np.copy(v) for k, v in arguments.items() if isinstance(v, np.ndarray)}
        results = flat(function(**arguments))
        assert results
        for result in results:
            kind = np.asarray(result).dtype
            assert kind == dtype or kind.kind in "iub", f"{function.__name__} returned {kind}"
            for argument in before:
                assert not np.shares_memory(result, arguments[argument]), f"aliases {argument}"
        for argument, copy in before.items():
            np.testing.assert_array_equal(arguments[argument], copy)


@every
@pytest.mark.parametrize("layout", ["transposed", "reversed", "every second"])
def test_the_layout_of_memory_does_not_matter(name, layout):
    plain = with_backward(name, call(name, np.float64))
    laid_out = with_backward(
        name, call(name, np.float64, lambda argument, value: h.laid_out(value, layout))
    )
    for (function, arguments), (_, others) in zip(plain, laid_out, strict=True):
        pairs = zip(flat(function(**arguments)), flat(function(**others)), strict=True)
        for expected, actual in pairs:
            np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


@every
def test_float32_and_float64_agree(name):
    single, double = (
        [flat(f(**a)) for f, a in with_backward(name, call(name, d))]
        for d in (np.float32, np.float64)
    )
    for left, right in zip(chain(*single), chain(*double), strict=True):
        np.testing.assert_allclose(left, right, rtol=2e-4, atol=2e-5)


@every
@pytest.mark.parametrize("dtype", [np.float16, np.complex64])
def test_other_dtypes_are_refused_by_name(name, dtype):
    with h.shapes_unchecked():
        for function, arguments in with_backward(name, call(name, np.float32)):
            for argument, value in arguments.items():
                if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
                    continue
                if (name, argument) in LABELS and dtype == np.float16:
                    continue
                with pytest.raises(TypeError) as error:
                    function(**{**arguments, argument: value.astype(dtype)})
                assert argument in str(error.value), f"{function.__name__}: {error.value}"


def samples(name, rows):
    """Return a call in float64 with these rows of the batch."""

    def chosen(argument, value):
        return value[rows] if argument in PER_SAMPLE[name] else value

    return call(name, np.float64, chosen)


@pytest.mark.parametrize("name", sorted(PER_SAMPLE))
def test_a_batch_of_one_is_one_row_of_a_batch(name):
    kernel = getattr(kernels, name)
    whole = flat(kernel(**samples(name, slice(None))))[0]
    assert len(whole) == len(CALLS[name][PER_SAMPLE[name][0]])
    for i in range(len(whole)):
        alone = flat(kernel(**samples(name, slice(i, i + 1))))[0]
        np.testing.assert_allclose(alone[0], whole[i], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", sorted(PER_SAMPLE))
def test_an_empty_batch_is_empty_and_has_zero_gradients(name):
    whole = [flat(f(**a)) for f, a in with_backward(name, samples(name, slice(None)))]
    empty = [flat(f(**a)) for f, a in with_backward(name, samples(name, slice(0, 0)))]
    batch = len(whole[0][0])
    for expected, actual in zip(chain(*whole), chain(*empty), strict=True):
        if actual.shape == expected.shape:  # of a weight: nothing was seen, so nothing is learnt
            assert not actual.any()
        else:
            assert actual.shape == (0, *expected.shape[1:])
            assert len(expected) == batch


@pytest.mark.parametrize("name", sorted(PER_SAMPLE.keys() - {"zero_one_loss"}))
def test_nan_is_neither_hidden_nor_spread_to_other_samples(name):
    first = PER_SAMPLE[name][0]
    arguments = samples(name, slice(None))
    before = flat(getattr(kernels, name)(**arguments))[0]
    spoilt = arguments[first].copy()
    spoilt[1] = np.nan
    arguments[first] = spoilt
    if name in REFUSES_NAN:
        with pytest.raises(ValueError, match=f"{first} must .* got nan"):
            getattr(kernels, name)(**arguments)
        return
    with np.errstate(invalid="ignore"):
        after = flat(getattr(kernels, name)(**arguments))[0]
    assert np.isnan(after[1]).any()
    np.testing.assert_array_equal(np.delete(after, 1, axis=0), np.delete(before, 1, axis=0))


@pytest.mark.parametrize("name", sorted(KEEPING))
@dtypes
def test_residuals_save_work_and_change_nothing(name, dtype):
    for change in ({}, {"kernel_size": 2, "stride": 2, "padding": 0}):
        arguments = {**call(name, dtype), **KEEPING[name]}
        arguments |= {key: value for key, value in change.items() if "kernel_size" in arguments}
        plain = getattr(kernels, name)(**arguments)
        y, residuals = getattr(kernels, name)(**arguments, return_residuals=True)
        np.testing.assert_array_equal(y, plain)
        backward, dy = getattr(kernels, f"{name}_backward"), np.cos(np.asarray(y))
        expected = flat(backward(dy, **arguments))
        for _ in range(2):  # the residuals stay as they are
            for one, other in zip(
                flat(backward(dy, **arguments, residuals=residuals)), expected, strict=True
            ):
                np.testing.assert_array_equal(one, other)


def test_every_kernel_that_keeps_residuals_is_tested_for_it():
    keeping = {
        name
        for name in kernels.__all__
        if "return_residuals" in inspect.signature(getattr(kernels, name)).parameters
    }
    elsewhere = {"rnn", "lstm", "gru", "simple_gru"}  # tests/test_kernels_recurrent.py
    assert keeping == KEEPING.keys() | elsewhere
