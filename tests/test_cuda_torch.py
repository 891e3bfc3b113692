"""dlnotes.cuda.functional against torch's own functions, on the CPU engine and on a GPU."""

import subprocess
import sys

import pytest
import torch
from cuda_helpers import TILES_OF_DOUBLES, each_device  # noqa: F401  (runs tests on each device)
from cuda_torch_helpers import TF, assert_close, bf16, draw, f32, f64, integers, noise, visible

from dlnotes import cuda
from dlnotes.cuda import functional as F
from dlnotes.cuda import nn, optim
from dlnotes.cuda._source import double_text, read


def statistics(like):
    """Return a running mean and variance for the channels of `like`."""
    channels = like.shape[1]
    return noise(channels, like=like), noise(channels, like=like).abs() + 0.5


# name: shapes of the differentiable inputs, and of these and a namespace (F or TF) the result.
# Inputs that get no gradient are made inside.
CASES = {
    "linear": ([(5, 7), (3, 7), (3,)], lambda f, x, w, b: f.linear(x, w, b)),
    "linear, no bias, more axes": ([(2, 3, 7), (4, 7)], lambda f, x, w: f.linear(x, w)),
    "linear, one row": ([(7,), (4, 7), (4,)], lambda f, x, w, b: f.linear(x, w, b)),
    "conv2d": ([(2, 2, 3, 4), (2, 2, 3, 2), (2,)], lambda f, x, w, b: f.conv2d(x, w, b)),
    "conv2d, all settings": (
        [(1, 2, 6, 5), (2, 2, 3, 3)],
        lambda f, x, w: f.conv2d(x, w, None, (2, 1), (1, 2), (1, 2)),
    ),
    "conv2d, same": (
        [(1, 2, 3, 5), (2, 2, 2, 3), (2,)],
        lambda f, x, w, b: f.conv2d(x, w, b, padding="same", dilation=(1, 2)),
    ),
    "conv2d, one image": (
        [(2, 4, 4), (3, 2, 3, 3), (3,)],
        lambda f, x, w, b: f.conv2d(x, w, b, padding="valid"),
    ),
    "conv2d, groups": (
        [(1, 4, 3, 3), (2, 2, 3, 2), (2,)],
        lambda f, x, w, b: f.conv2d(x, w, b, padding=1, groups=2),
    ),
    "conv1d, all settings": (
        [(2, 4, 9), (4, 2, 3), (4,)],
        lambda f, x, w, b: f.conv1d(x, w, b, 2, 3, 2, 2),
    ),
    "conv1d, same": ([(3, 6), (2, 3, 4)], lambda f, x, w: f.conv1d(x, w, padding="same")),
    "adaptive_avg_pool2d": ([(2, 2, 5, 7)], lambda f, x: f.adaptive_avg_pool2d(x, (3, 2))),
    "adaptive_avg_pool2d, one image": (
        [(2, 3, 4)],
        lambda f, x: f.adaptive_avg_pool2d(x, (None, 6)),
    ),
    "adaptive_avg_pool2d, all": ([(2, 3, 4, 4)], lambda f, x: f.adaptive_avg_pool2d(x, 1)),
    "conv_transpose2d": (
        [(2, 2, 3, 4), (2, 3, 3, 2), (3,)],
        lambda f, x, w, b: f.conv_transpose2d(x, w, b),
    ),
    "conv_transpose2d, all settings": (
        [(1, 4, 3, 2), (4, 2, 3, 2)],
        lambda f, x, w: f.conv_transpose2d(x, w, None, (2, 1), 1, (1, 1), 2, (1, 2)),
    ),
    "conv_transpose2d, one image": (
        [(2, 3, 3), (2, 1, 2, 2), (1,)],
        lambda f, x, w, b: f.conv_transpose2d(x, w, b, 2),
    ),
    "max_pool2d": ([(2, 2, 4, 5)], lambda f, x: f.max_pool2d(x, 2)),
    "max_pool2d, overlapping": ([(1, 2, 6, 5)], lambda f, x: f.max_pool2d(x, 3, 2, 1)),
    "max_pool2d, ceil": ([(1, 2, 6, 4)], lambda f, x: f.max_pool2d(x, 3, 2, 1, ceil_mode=True)),
    "max_pool2d, one image": ([(2, 4, 5)], lambda f, x: f.max_pool2d(x, (2, 3), (1, 2))),
    "avg_pool2d": ([(2, 2, 4, 5)], lambda f, x: f.avg_pool2d(x, 2)),
    "avg_pool2d, overlapping": ([(1, 2, 6, 5)], lambda f, x: f.avg_pool2d(x, 3, 2, 1)),
    "avg_pool2d, one image": ([(2, 4, 5)], lambda f, x: f.avg_pool2d(x, (2, 3), (1, 2))),
    "max_pool1d, all settings": (
        [(2, 2, 7)],
        lambda f, x: f.max_pool1d(x, 3, 2, 1, ceil_mode=True),
    ),
    "avg_pool1d, one sequence": ([(2, 7)], lambda f, x: f.avg_pool1d(x, (3,), None, 1)),
    "softmax": ([(2, 33)], lambda f, x: f.softmax(x, dim=-1)),
    "softmax, first axis": ([(5, 3, 2)], lambda f, x: f.softmax(x, dim=0)),
    "group_norm": (
        [(2, 4, 3, 2), (4,), (4,)],
        lambda f, x, w, b: f.group_norm(x, 2, w, b, 1e-3),
    ),
    "group_norm, plain": ([(2, 3, 4)], lambda f, x: f.group_norm(x, 3)),
    "group_norm, no bias": ([(3, 6), (6,)], lambda f, x, w: f.group_norm(x, 1, w)),
    "local_response_norm": (
        [(2, 5, 3, 2)],
        lambda f, x: f.local_response_norm(x, 3, 0.5, 0.7, 2.0),
    ),
    "local_response_norm, even": ([(2, 4, 3)], lambda f, x: f.local_response_norm(x, 4, 1.0)),
    "rms_norm": ([(5, 33), (33,)], lambda f, x, w: f.rms_norm(x, (33,), w, 1e-3)),
    "rms_norm, two axes, plain": ([(4, 2, 3)], lambda f, x: f.rms_norm(x, (2, 3))),
    "layer_norm": (
        [(2, 33), (33,), (33,)],
        lambda f, x, w, b: f.layer_norm(x, (33,), w, b, 1e-3),
    ),
    "layer_norm, two axes, no bias": (
        [(2, 2, 2, 3), (2, 3)],
        lambda f, x, w: f.layer_norm(x, (2, 3), w),
    ),
    "layer_norm, plain": ([(3, 6)], lambda f, x: f.layer_norm(x, [6])),
    "cross_entropy": (
        [(6, 5)],
        lambda f, x: f.cross_entropy(x, integers(0, 5, 6, device=x.device)),
    ),
    "cross_entropy, ignoring": (
        [(9, 4)],
        lambda f, x: f.cross_entropy(x, integers(0, 4, 9, device=x.device), ignore_index=2),
    ),
    "cross_entropy, sum": (
        [(9, 4)],
        lambda f, x: f.cross_entropy(
            x, integers(0, 4, 9, device=x.device), ignore_index=1, reduction="sum"
        ),
    ),
    "cross_entropy, each": (
        [(9, 4)],
        lambda f, x: f.cross_entropy(
            x, integers(0, 4, 9, device=x.device), ignore_index=1, reduction="none"
        ),
    ),
    "cross_entropy, pixels": (
        [(2, 4, 3, 2)],
        lambda f, x: f.cross_entropy(x, integers(0, 4, 2, 3, 2, device=x.device)),
    ),
    "cross_entropy, one": (
        [(4,)],
        lambda f, x: f.cross_entropy(x, integers(0, 4, device=x.device)),
    ),
    "embedding": ([(6, 3)], lambda f, w: f.embedding(integers(0, 6, 2, 5, device=w.device), w)),
    "embedding, padding": (
        [(6, 3)],
        lambda f, w: f.embedding(integers(0, 6, 20, device=w.device), w, -6),
    ),
    "attention": (
        [(2, 5, 3), (2, 4, 3), (2, 4, 2)],
        lambda f, *qkv: f.scaled_dot_product_attention(*qkv),
    ),
    "attention, causal": (
        [(2, 1, 4, 3), (2, 1, 5, 3), (2, 1, 5, 3)],
        lambda f, *qkv: f.scaled_dot_product_attention(*qkv, is_causal=True, scale=0.7),
    ),
    "attention, bool mask": (
        [(1, 2, 3, 2), (1, 2, 4, 2), (1, 2, 4, 2)],
        lambda f, *qkv: f.scaled_dot_product_attention(*qkv, visible(1, 1, 3, 4, like=qkv[0])),
    ),
    "attention, float mask, more axes": (
        [(2, 1, 2, 2, 2), (2, 1, 2, 3, 2), (2, 1, 2, 3, 2)],
        lambda f, *qkv: f.scaled_dot_product_attention(*qkv, noise(1, 2, 2, 1, like=qkv[0])),
    ),
    "batch_norm": (
        [(3, 2, 2, 3), (2,), (2,)],
        lambda f, x, w, b: f.batch_norm(x, *statistics(x), w, b, training=True),
    ),
    "batch_norm, rows, no bias": (
        [(5, 3), (3,)],
        lambda f, x, w: f.batch_norm(x, None, None, w, training=True, eps=1e-3),
    ),
    "batch_norm, inference": (
        [(3, 2, 4), (2,), (2,)],
        lambda f, x, w, b: f.batch_norm(x, *statistics(x), w, b),
    ),
    "batch_norm, plain": ([(3, 2, 4)], lambda f, x: f.batch_norm(x, *statistics(x), eps=1e-3)),
    "lstm_cell": (
        [(2, 3), (2, 2), (2, 2), (8, 3), (8, 2), (8,), (8,)],
        lambda f, x, h, c, *w: torch.cat(f.lstm_cell(x, (h, c), *w)),
    ),
    "lstm_cell, no bias, c alone": (
        [(2, 3), (2, 2), (2, 2), (8, 3), (8, 2)],
        lambda f, x, h, c, *w: f.lstm_cell(x, (h, c), *w)[1],
    ),
    "gru_cell": (
        [(2, 3), (2, 2), (6, 3), (6, 2), (6,), (6,)],
        lambda f, *inputs: f.gru_cell(*inputs),
    ),
    "gru_cell, no bias": (
        [(2, 3), (2, 2), (6, 3), (6, 2)],
        lambda f, *inputs: f.gru_cell(*inputs),
    ),
    "gram_matrix": ([(2, 3, 2, 3)], lambda f, x: f.gram_matrix(x)),
    "negative_sampling_loss": (
        [(4, 3), (6, 3)],
        lambda f, h, w: f.negative_sampling_loss(
            h, w, integers(0, 6, 4, device=w.device), integers(1, 6, 4, 2, device=w.device)
        ),
    ),
    "negative_sampling_loss, sum without hits": (
        [(4, 3), (2, 3)],
        lambda f, h, w: f.negative_sampling_loss(
            h,
            w,
            integers(0, 2, 4, device=w.device),
            integers(1, 2, 4, 3, device=w.device),
            "sum",
            remove_accidental_hits=True,
        ),
    ),
    "attention, wide": (
        [(1, 130), (2, 130), (2, 1)],
        lambda f, *qkv: f.scaled_dot_product_attention(*qkv),
    ),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch's, of how it does it
@pytest.mark.parametrize(
    ("dtype", "layout"),
    [(f32, "transposed"), (f64, "contiguous")],
    ids=["float32, checked, transposed", "float64"],
)
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_torchs(name, dtype, layout, device):
    shapes, function = CASES[name]
    inputs = [draw(i, *s, dtype=dtype, device=device, layout=layout) for i, s in enumerate(shapes)]
    before = [x.detach().clone() for x in inputs]
    with F.choose(mode="checked" if dtype == f32 else "fast"):
        y = function(F, *inputs)
        expected = function(TF, *inputs)
        assert_close(y, expected, dtype)
        # Seen transposed, what comes from above is not contiguous.
        dy = draw(9, *y.shape, dtype=dtype, device=device, layout="transposed").detach()
        gradients = torch.autograd.grad(y, inputs, dy)
    for mine, theirs in zip(gradients, torch.autograd.grad(expected, inputs, dy), strict=True):
        assert_close(mine, theirs, dtype)
    for x, old in zip(inputs, before, strict=True):
        assert torch.equal(x, old)


# The row padding_idx gets no gradient, by agreement, though the result depends on it. Wide vectors
# take the naive rungs, which are checked with narrow ones.
LEFT_OUT = {"embedding, padding", "attention, wide"}


# The plain cases follow with every rung.
@pytest.mark.parametrize("name", [name for name in CASES if "," in name and name not in LEFT_OUT])
def test_gradients_are_those_of_the_values(name, device):
    """At gradcheck's own tolerances: float64, steps of 1e-6."""
    shapes, function = CASES[name]
    inputs = [draw(i, *shape, device=device) for i, shape in enumerate(shapes)]
    assert torch.autograd.gradcheck(lambda *given: function(F, *given), inputs)


def test_gradcheck_sees_a_wrong_gradient(device, monkeypatch):
    x = draw(0, 4, 5, device=device)
    right = F.run

    def wrong(ladder, *inputs, **settings):
        y = right(ladder, *inputs, **settings)
        return y * 1.01 if ladder == "softmax_backward" else y

    monkeypatch.setattr(F, "run", wrong)
    with pytest.raises(torch.autograd.gradcheck.__globals__["GradcheckError"]):
        torch.autograd.gradcheck(lambda x: F.softmax(x, 1), [x])


def rungs_with_gradients():
    """Each rung of each ladder that the differentiable functions run, and a case that runs it."""
    plain = [name for name in CASES if "," not in name]
    pairs = [(name, ladder) for name in plain for ladder in (name, f"{name}_backward")]
    pairs += [("batch_norm, inference", "batch_norm_inference"), ("cross_entropy", "sum")]
    for name, ladder in pairs:
        for rung in getattr(cuda.LADDERS.get(ladder), "rungs", ()):
            if rung.dtype == "float32":
                yield pytest.param(name, ladder, rung.name, id=f"{ladder}-{rung.name}")


@pytest.mark.parametrize(("name", "ladder", "rung"), list(rungs_with_gradients()))
def test_gradients_of_every_rung(name, ladder, rung, device):
    if device == "cuda" and rung in TILES_OF_DOUBLES:
        pytest.skip("tiles of doubles do not fit a block of a GPU")
    shapes, function = CASES[name]
    inputs = [draw(i, *shape, device=device) for i, shape in enumerate(shapes)]
    # On a GPU atomics add in any order, so the last bits differ from one backward pass to another.
    differ = 0.0 if device == "cpu" else 1e-12
    with F.choose(**{ladder: rung}):
        assert torch.autograd.gradcheck(
            lambda *given: function(F, *given), inputs, nondet_tol=differ
        )


def test_every_ladder_with_a_backward_pass_is_checked():
    backward = {name.removesuffix("_backward") for name in cuda.LADDERS if "_backward" in name}
    assert backward <= {name.partition(",")[0] for name in CASES}


def test_return_indices_and_ties(device):
    x = integers(0, 3, 2, 3, 7, 7, device=device).float()
    for given in (x, x[0]):
        y, indices = F.max_pool2d(given, 3, 2, 1, return_indices=True)
        expected = TF.max_pool2d(given, 3, 2, 1, return_indices=True)
        assert torch.equal(y, expected[0])
        assert torch.equal(indices, expected[1])
        assert not indices.requires_grad


def test_the_last_window_of_ceil_mode_is_torchs(device):
    for size in range(3, 10):
        x = draw(size, 1, 1, size, size + 1, dtype=f32, device=device).detach()
        for kernel, stride, padding in ((2, 2, 0), (2, 3, 1), (3, 2, 0), (3, 2, 1), (3, 4, 1)):
            ours, theirs = (
                f.max_pool2d(x, kernel, stride, padding, ceil_mode=True) for f in (F, TF)
            )
            assert torch.equal(ours, theirs)


def test_poolings_too_wide_for_a_tile_and_too_many_for_the_grid(device):
    x = draw(0, 1, 1, 200, 200, dtype=f32, device=device)
    assert F._pool_rung("max", x, (60, 60), (59, 59)) == "max_pool_naive"
    assert_close(F.avg_pool2d(x, 60, 59), TF.avg_pool2d(x, 60, 59), f32)
    many = draw(1, 70_000, 1, 3, 3, dtype=f32, device=device)
    assert F._pool_rung("max", many, (3, 3), (1, 1)) == "max_pool_naive"
    assert torch.equal(F.max_pool2d(many, 3, 1), TF.max_pool2d(many, 3, 1))
    assert F._pool_rung("max", many[:7], (3, 3), (1, 1)) == "max_pool_tiled"


def test_running_statistics_are_torchs(device):
    x = draw(0, 4, 3, 5, device=device).detach()
    ours, theirs = ([s.clone() for s in statistics(x)] for _ in range(2))
    assert_close(F.batch_norm(x, *ours, training=True, momentum=0.3),
                 TF.batch_norm(x, *theirs, training=True, momentum=0.3), f64)  # fmt: skip
    for mine, torchs in zip(ours, theirs, strict=True):
        assert_close(mine, torchs, f64)


# 12,288 columns are 48 KiB, which a block has with its other 128 bytes only if it asks for more.
@pytest.mark.parametrize("columns", [12_256, 12_288, 13_000])
def test_a_row_that_fills_shared_memory_or_is_too_long_for_it(columns, device):
    x = draw(0, 2, columns, dtype=f32, device=device)
    assert_close(F.layer_norm(x, columns), TF.layer_norm(x, (columns,)), f32)


def test_neighbours_too_many_for_a_tile(device):
    x = draw(0, 1, 3, 2, dtype=f32, device=device)
    assert_close(F.local_response_norm(x, 700), TF.local_response_norm(x, 700), f32)


def test_all_labels_ignored(device):
    target = torch.full((3,), -100, device=device)
    for reduction in ("mean", "sum", "none"):
        x, y = draw(0, 3, 4, device=device), draw(0, 3, 4, device=device)
        loss, expected = (
            f.cross_entropy(z, target, reduction=reduction) for f, z in ((F, x), (TF, y))
        )
        torch.testing.assert_close(loss, expected, equal_nan=True)
        loss.sum().backward()
        expected.sum().backward()
        if reduction != "mean":  # 0 / 0: torch's gradient is NaN or 0, by version
            assert torch.equal(x.grad, y.grad)


def test_empty_batches(device):
    x, w = draw(0, 0, 7, device=device), draw(1, 3, 7, device=device)
    F.linear(x, w).sum().backward()
    assert torch.equal(w.grad, torch.zeros_like(w))
    images, kernels = draw(0, 0, 2, 5, 5, device=device), draw(1, 3, 2, 3, 3, device=device)
    assert F.conv2d(images, kernels).shape == (0, 3, 3, 3)
    assert F.softmax(draw(0, 0, 4, device=device), 1).shape == (0, 4)
    assert F.embedding(integers(0, 1, 0, device=device), w).shape == (0, 7)


def test_kernels_have_no_second_derivative(device):
    x = draw(0, 3, 4, device=device)
    (gradient,) = torch.autograd.grad(F.softmax(x, 1).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


# ---------------------------------------------------------------- wrong arguments

X, W = torch.zeros(2, 3), torch.zeros(4, 3)
IMAGES, FILTERS = torch.zeros(1, 2, 5, 5), torch.zeros(3, 2, 3, 3)
IDS, attend = torch.zeros(3, dtype=torch.int64), F.scaled_dot_product_attention


def half_precision(function, *inputs):
    with torch.autocast("cpu", dtype=torch.float16):
        return function(*inputs)


WRONG = [
    (lambda: F.linear(X.numpy(), W), TypeError, "input must be a torch tensor, got ndarray"),
    (lambda: F.linear(X.half(), W), TypeError, "input must be bfloat16, float32 or float64, got float16"),  # noqa: E501
    (lambda: F.linear(X.bfloat16(), W), TypeError, "input is bfloat16 and weight is float32"),
    (lambda: F.linear(X, W, W[:, 0].bfloat16()), TypeError, "float32 and bias is bfloat16"),
    (lambda: F.conv2d(IMAGES.bfloat16(), FILTERS), TypeError, "and weight is float32"),
    (lambda: F.softmax(X.bfloat16(), 1), TypeError, "input must be float32 or float64, got bfloat16"),  # noqa: E501
    (lambda: F.batch_norm(X, X[0], X[0].bfloat16()), TypeError, "running_var must be float32 or"),
    (lambda: half_precision(F.linear, X, W), ValueError, "torch.autocast must have dtype=torch.bfloat16, got float16"),  # noqa: E501
    (lambda: half_precision(F.softmax, X, 1), ValueError, "got float16: the kernels have no other"),
    (lambda: F.linear(X, W.double()), TypeError, "input is float32 and weight is float64"),
    (lambda: F.linear(X.to("meta"), W), ValueError, "input must be a dense tensor on the CPU or"),
    (lambda: F.linear(X, W.T), ValueError, r"input must have shape \(…, 4\)"),
    (lambda: F.linear(X, W[0]), ValueError, r"weight must be a matrix \(out, in\)"),
    (lambda: F.linear(X, W, X), ValueError, r"bias must have shape \(4,\)"),
    (lambda: F.conv2d(X, FILTERS), ValueError, r"input must be images \(n, c, h, w\)"),
    (lambda: F.conv2d(IMAGES, FILTERS[:, :1]), ValueError, "weight must have the 2 channels"),
    (lambda: F.conv2d(IMAGES, FILTERS, groups=2), ValueError, "groups must divide the 2 channels"),
    (lambda: F.conv1d(IMAGES, FILTERS), ValueError, r"input must be sequences \(n, c, length\)"),
    (lambda: F.conv1d(X, FILTERS[0], stride=(1, 1)), ValueError, "stride must be one number"),
    (lambda: F.conv3d(X, W), AttributeError, "dlnotes.cuda.functional has no conv3d"),
    (lambda: F.gram_matrix(X), ValueError, r"x must be images \(n, c, h, w\)"),
    (lambda: F.negative_sampling_loss(X, W, IDS[:2], IDS[:2, None] + 4), ValueError, "noise must hold"),  # noqa: E501
    (lambda: F.negative_sampling_loss(X, W, IDS, IDS[:2, None]), ValueError, r"target must have shape \(2,\)"),  # noqa: E501
    (lambda: F.negative_sampling_loss(X, W, IDS[:2], IDS[:2]), ValueError, "noise must be"),
    (lambda: F.conv2d(IMAGES, FILTERS, X[0][:2]), ValueError, r"bias must have shape \(3,\)"),
    (lambda: F.conv2d(IMAGES, FILTERS, dilation=3), ValueError, "input must be at least as large"),
    (lambda: F.conv2d(IMAGES, FILTERS, stride=0), ValueError, "stride must be at least 1"),
    (lambda: F.conv2d(IMAGES, FILTERS, stride=(1, 1, 1)), ValueError, "stride must be one number or"),  # noqa: E501
    (lambda: F.conv_transpose2d(IMAGES, FILTERS), ValueError, "weight must have kernels for the 2 channels"),  # noqa: E501
    (lambda: F.conv_transpose2d(IMAGES, FILTERS, groups=3), ValueError, "groups must divide the 2 channels"),  # noqa: E501
    (lambda: F.conv_transpose2d(IMAGES, FILTERS[:2], X[0]), ValueError, "bias must have shape"),
    (lambda: F.conv_transpose2d(IMAGES, FILTERS[:2], output_padding=1), ValueError, "output_padding must be below"),  # noqa: E501
    (lambda: F.conv_transpose2d(IMAGES, FILTERS[:2], padding=9), ValueError, "padding must leave an output"),  # noqa: E501
    (lambda: F.conv2d(IMAGES, FILTERS, padding="full"), ValueError, "padding must be one of"),
    (lambda: F.conv2d(IMAGES, FILTERS, padding="same", stride=2), ValueError, "needs stride 1"),
    (lambda: F.max_pool2d(IMAGES, 6), ValueError, "input must be at least as large"),
    (lambda: F.max_pool2d(IMAGES, 2, padding=2), ValueError, "padding must be at most half"),
    (lambda: F.max_pool2d(IMAGES, 2, dilation=2), ValueError, r"dilation must be \(1, 1\)"),
    (lambda: F.avg_pool2d(IMAGES, 2, ceil_mode=True), ValueError, "ceil_mode must be False"),
    (lambda: F.avg_pool2d(IMAGES, 2, count_include_pad=False), ValueError, "count_include_pad"),
    (lambda: F.adaptive_avg_pool2d(IMAGES, 0), ValueError, "output_size must be at least 1"),
    (lambda: F.adaptive_avg_pool2d(IMAGES[..., :0], 1), ValueError, "no empty axis"),
    (lambda: F.max_pool1d(IMAGES, 2), ValueError, "input must be sequences"),
    (lambda: F.avg_pool1d(X, (2, 2)), ValueError, "kernel_size must be one number"),
    (lambda: F.softmax(X, 2), ValueError, "dim must be in -2 … 1, got 2"),
    (lambda: F.conv1d(X, W), ValueError, r"weight must be kernels \(out, c, kernel\)"),
    (lambda: F.conv1d(X, W[None], stride=(1, 1)), ValueError, "stride must be one number, got"),
    (lambda: F.conv1d(X[0], W[None]), ValueError, r"input must be sequences \(n, c, length\)"),
    (lambda: F.adaptive_avg_pool2d(X, 1), ValueError, "input must be images"),
    (lambda: F.adaptive_avg_pool2d(IMAGES, (1, 1, 1)), ValueError, "output_size must be one"),
    (lambda: F.local_response_norm(X, 3), ValueError, r"input must have shape \(n, c, …\)"),
    (lambda: F.local_response_norm(IMAGES, 0), ValueError, "size must be at least 1"),
    (lambda: F.rms_norm(X, (2,)), ValueError, r"input must end with the axes \(2,\)"),
    (lambda: F.rms_norm(X, (3,), X[:, 0]), ValueError, r"weight must have shape \(3,\)"),
    (lambda: F.group_norm(IMAGES, 3), ValueError, "num_groups must divide the 2 channels"),
    (lambda: F.group_norm(X[0], 1), ValueError, r"input must have shape \(n, c, …\)"),
    (lambda: F.group_norm(IMAGES, 2, X[0]), ValueError, "weight must have shape"),
    (lambda: F.layer_norm(X, (2,)), ValueError, r"input must end with the axes \(2,\)"),
    (lambda: F.layer_norm(X, (3,), X[:, 0]), ValueError, r"weight must have shape \(3,\)"),
    (lambda: F.cross_entropy(X, X), TypeError, "target must hold integers, got float32"),
    (lambda: F.cross_entropy(X[:, :0], IDS[:2]), ValueError, "input must have an axis of classes"),
    (lambda: F.cross_entropy(X, IDS), ValueError, r"target must have shape \(2,\)"),
    (lambda: F.cross_entropy(X, IDS[:2] + 3), ValueError, "target must hold classes in 0 … 2, got 3"),  # noqa: E501
    (lambda: F.cross_entropy(X, IDS[:2] - 1), ValueError, "got -1"),
    (lambda: F.cross_entropy(X, IDS[:2], weight=X[0]), ValueError, "weight must be None"),
    (lambda: F.cross_entropy(X, IDS[:2], label_smoothing=0.1), ValueError, "label_smoothing must"),
    (lambda: F.cross_entropy(X, IDS[:2], reduction="max"), ValueError, "reduction must be one of"),
    (lambda: F.embedding(IDS + 4, W), ValueError, "input must hold rows of weight in 0 … 3, got 4"),
    (lambda: F.embedding(IDS.float(), W), TypeError, "input must hold integers"),
    (lambda: F.embedding(IDS, W, 4), ValueError, "padding_idx must be in -4 … 3"),
    (lambda: F.embedding(IDS, W, max_norm=1.0), ValueError, "max_norm must be None"),
    (lambda: F.batch_norm(X, X[0], None), ValueError, "must be given together"),
    (lambda: F.batch_norm(X, None, None), ValueError, "must be given with training=False"),
    (lambda: F.batch_norm(X[:1], None, None, training=True), ValueError, "more than one value"),
    (lambda: F.batch_norm(X[0], None, None), ValueError, r"input must have shape \(n, c, …\)"),
    (lambda: F.batch_norm(X, None, None, X[:, 0]), ValueError, r"weight must have shape \(3,\)"),
    (lambda: F.lstm_cell(X, (W[:2, :2], X[:, :2]), W, W), ValueError, r"w_ih must have shape \(8, 3\)"),  # noqa: E501
    (lambda: F.gru_cell(X, W, W, W), ValueError, r"h must have shape \(2, 3\)"),
    (lambda: F.gru_cell(X, X.double(), W, W), TypeError, "input is float32 and h is float64"),
    (lambda: attend(X, W, X), ValueError, r"value must have shape \(4, 3\)"),
    (lambda: attend(X, W.T, X), ValueError, r"key must have shape \(3, 3\)"),
    (lambda: attend(X, W[None], W), ValueError, "the same leading axes"),
    (lambda: attend(X, W, W, X), ValueError, r"attn_mask must broadcast to \(2, 4\)"),
    (lambda: attend(X, W, W, IDS), TypeError, "attn_mask must be bool or"),
    (lambda: attend(X, W, W, X > 0, is_causal=True), ValueError, "not both"),
    (lambda: attend(X, W, W, dropout_p=0.1), ValueError, "dropout_p must"),
    (lambda: F.choose(linear="matmul").__enter__(), ValueError, "rung must be one of"),
    (lambda: F.choose(no_ladder="x").__enter__(), ValueError, "ladder must be one of"),
    (lambda: F.choose("trace").__enter__(), ValueError, "mode must be one of 'fast', 'checked'"),
    (lambda: optim.Adam([X.requires_grad_()], amsgrad=True), ValueError, "amsgrad must be False"),
    (lambda: nn.Conv3d(1, 1, 1), AttributeError, "dlnotes.cuda.nn has no Conv3d"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_wrong_arguments_are_refused_before_a_launch(call, error, message, monkeypatch):
    monkeypatch.setattr(F, "run", lambda *a, **k: pytest.fail("launched"))
    with pytest.raises(error, match=message):
        call()


def test_too_many_entries():
    big = torch.zeros(1).expand(2**31)  # takes no memory
    with pytest.raises(ValueError, match="input must have fewer than 2³¹ entries, got 2147483648"):
        F.softmax(big, 0)


@pytest.mark.gpu
@pytest.mark.skipif(not cuda.available(), reason="no GPU")
def test_two_devices_are_refused():
    with pytest.raises(ValueError, match="input is on cuda:0 and weight on cpu"):
        F.linear(X.cuda(), W)


def test_choose_takes_another_rung_and_goes_back(monkeypatch):
    seen = []
    record = cuda.Ladder.record

    def watch(self, *inputs, rung=None, **settings):
        seen.append((self.name, rung, settings["mode"]))
        return record(self, *inputs, rung=rung, **settings)

    monkeypatch.setattr(cuda.Ladder, "record", watch)
    with F.choose("checked", linear="matmul_naive"):
        F.linear(X, W)
        with F.choose(linear="matmul_tiled"):
            F.linear(X, W)
    F.linear(X, W)
    assert seen == [
        ("linear", "matmul_naive", "checked"),
        ("linear", "matmul_tiled", "checked"),
        ("linear", None, "fast"),
    ]


def rounded(x):
    return x.to(torch.bfloat16).to(f32)


def test_rungs_of_tensor_cores_make_mixed_precision(device):
    """The matrices are rounded, the sums and the bias are float32: as torch on rounded inputs."""
    if device == "cuda" and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("tensor cores multiply bfloat16 from sm_80 on")
    x, w, b = (
        draw(i, *s, dtype=f32, device=device) for i, s in enumerate([(5, 20), (9, 20), (9,)])
    )
    dy = draw(3, 5, 9, dtype=f32, device=device).detach()
    with F.choose(linear="matmul_mma", linear_backward="matmul_mma"):
        y = F.linear(x, w, b)
        gradients = torch.autograd.grad(y, (x, w, b), dy)
    expected = TF.linear(rounded(x), rounded(w), b)
    assert_close(y, expected, f32)
    assert not torch.equal(y, TF.linear(x, w, b))
    wanted = rounded(dy) @ rounded(w), rounded(dy).T @ rounded(x), rounded(dy).sum(0)
    for mine, theirs in zip(gradients, wanted, strict=True):
        assert_close(mine, theirs, f32)
    images, filters = (
        draw(i, *s, dtype=f32, device=device) for i, s in enumerate([(2, 3, 6, 5), (4, 3, 3, 3)])
    )
    dy = draw(4, 2, 4, 6, 5, dtype=f32, device=device).detach()
    with F.choose(conv2d="conv_mma", conv2d_backward="conv_backward_mma"):
        y = F.conv2d(images, filters, padding=1)
        gradients = torch.autograd.grad(y, (images, filters), dy)
    leaves = [rounded(x).detach().requires_grad_() for x in (images, filters)]
    expected = TF.conv2d(*leaves, padding=1)
    assert_close(y, expected, f32)
    wanted = torch.autograd.grad(expected, leaves, rounded(dy))
    for mine, theirs in zip(gradients, wanted, strict=True):
        assert_close(mine, theirs, f32)
    with (
        F.choose(linear="matmul_mma"),
        pytest.raises(TypeError, match="takes bfloat16, got float64"),
    ):
        F.linear(x.double(), w.double())


@pytest.mark.parametrize("masks", ["none", "causal", "bool", "float"])
def test_attention_on_tensor_cores_is_mixed_precision(masks, device):
    """As torch on rounded inputs, but for the weights and their gradients, rounded to 2⁻⁸."""
    if device == "cuda" and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("tensor cores multiply bfloat16 from sm_80 on")
    shapes = [(2, 3, 9, 20), (2, 3, 11, 20), (2, 3, 11, 24)]
    q, k, v = (draw(i, *s, dtype=f32, device=device) for i, s in enumerate(shapes))
    dy = draw(3, 2, 3, 9, 24, dtype=f32, device=device).detach()
    mask = {
        "bool": lambda: visible(9, 11, like=q),
        "float": lambda: 100 + noise(2, 1, 9, 11, like=q),  # bfloat16 would lose the noise
    }.get(masks, lambda: None)()
    settings = {"attn_mask": mask, "is_causal": masks == "causal"}
    with F.choose(attention="attention_mma", attention_backward="attention_backward_mma"):
        y = F.scaled_dot_product_attention(q, k, v, **settings)
        gradients = torch.autograd.grad(y, (q, k, v), dy)
    exact = [rounded(x).detach().requires_grad_() for x in (q, k, v)]
    expected = TF.scaled_dot_product_attention(*exact, **settings)
    wanted = torch.autograd.grad(expected, exact, rounded(dy))
    expected = expected.detach()
    assert y.dtype == gradients[0].dtype == f32
    assert not torch.equal(y, F.scaled_dot_product_attention(q, k, v, **settings))
    for mine, theirs in zip((y, *gradients), (expected, *wanted), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=2**-7 * float(theirs.abs().max()))
    with (
        F.choose(attention="attention_mma"),
        pytest.raises(TypeError, match="attention_mma takes bfloat16, got float64"),
    ):
        F.scaled_dot_product_attention(q.double(), k.double(), v.double())


# ---------------------------------------------------------------- bfloat16

# What multiplies on tensor cores: one product, or one after another.
PRODUCTS = {"linear", "conv2d", "conv1d", "conv_transpose2d"}
OF_PRODUCTS = [name for name in CASES if name.partition(",")[0] in PRODUCTS]
ATTENTION = [name for name in CASES if name.startswith("attention")]


@pytest.fixture(name="tensor_cores")
def skip_without_tensor_cores(device):
    if device == "cuda" and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("tensor cores multiply bfloat16 from sm_80 on")


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.usefixtures("tensor_cores")
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
@pytest.mark.parametrize("name", OF_PRODUCTS)
def test_products_of_bfloat16_are_rounded_once(name, layout, device):
    """Rounding loses 2⁻⁸ of a number at most, the sums in float32 before it next to nothing.

    Torch's functions round as well, and some of them the sums of groups on the way.
    """
    shapes, function = CASES[name]
    inputs = [draw(i, *s, dtype=bf16, device=device, layout=layout) for i, s in enumerate(shapes)]
    wide = [x.detach().double().requires_grad_() for x in inputs]
    sizes = [x.detach().abs().requires_grad_() for x in wide]
    with F.choose("checked"):
        y = function(F, *inputs)
        dy = draw(9, *y.shape, dtype=bf16, device=device, layout="transposed").detach()
        mine = y, *torch.autograd.grad(y, inputs, dy)
    results = []
    for given, upstream in ((inputs, dy), (wide, dy.double()), (sizes, dy.double().abs())):
        value = function(TF, *given)
        results.append((value, *torch.autograd.grad(value, given, upstream)))
    for ours, torchs, exact, size in zip(mine, *results, strict=True):
        assert ours.dtype == torchs.dtype == bf16
        assert ours.shape == torchs.shape
        off = (ours.double() - exact).abs()
        assert bool((off <= 2**-8 * exact.abs() + 1e-5 * size).all())
        assert bool(((ours - torchs).double().abs() <= 2**-7 * size).all())


@pytest.mark.usefixtures("tensor_cores")
@pytest.mark.parametrize("name", ATTENTION)
def test_attention_of_bfloat16(name, device):
    """Scores and sums are float32; weights, their gradients and the results are rounded to 2⁻⁸."""
    shapes, function = CASES[name]
    inputs = [draw(i, *s, dtype=bf16, device=device) for i, s in enumerate(shapes)]
    wide = [x.detach().double().requires_grad_() for x in inputs]
    with F.choose("checked"):
        y = function(F, *inputs)
        dy = draw(9, *y.shape, dtype=bf16, device=device).detach()
        mine = y, *torch.autograd.grad(y, inputs, dy)
    value = function(TF, *wide)
    exact = value, *torch.autograd.grad(value, wide, dy.double())
    for ours, wanted in zip(mine, exact, strict=True):
        assert ours.dtype == bf16
        assert ours.shape == wanted.shape
        assert bool(((ours.double() - wanted).abs() <= 2**-6 * wanted.abs().max()).all())


def in_autocast(function, *inputs):
    with torch.autocast(inputs[0].device.type, dtype=bf16):
        return function(F, *inputs)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.usefixtures("tensor_cores")
@pytest.mark.parametrize("name", CASES)
def test_autocast_gives_products_bfloat16_and_the_others_float32(name, device):
    shapes, function = CASES[name]
    inputs = [draw(i, *s, dtype=f32, device=device) for i, s in enumerate(shapes)]
    dtype = bf16 if name in {*OF_PRODUCTS, *ATTENTION} else f32
    y = in_autocast(function, *inputs)
    assert y.dtype == dtype
    by_hand = [x.detach().to(dtype).requires_grad_() for x in inputs]
    expected = function(F, *by_hand)
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
    dy = draw(9, *y.shape, dtype=dtype, device=device).detach()
    # On a GPU atomics add in any order.
    room = {"rtol": 0, "atol": 0} if device == "cpu" else {"rtol": 1e-5, "atol": 1e-5}
    wanted = torch.autograd.grad(expected, by_hand, dy)
    for gradient, theirs in zip(torch.autograd.grad(y, inputs, dy), wanted, strict=True):
        assert gradient.dtype == f32
        torch.testing.assert_close(gradient, theirs.float(), **room)
    halves = [x.detach().to(bf16) for x in inputs]
    assert in_autocast(function, *halves).dtype == dtype
    assert in_autocast(function, halves[0], *inputs[1:]).dtype == dtype  # one rule for a mixture


def test_autocast_leaves_float64_alone_and_ends(device):
    x, w = draw(0, 5, 7, device=device), draw(1, 3, 7, device=device)
    assert in_autocast(lambda f, x, w: f.linear(x, w), x, w).dtype == f64
    with pytest.raises(TypeError, match="input is bfloat16 and weight is float64"):
        in_autocast(lambda f, x, w: f.linear(x, w), x.float(), w)
    with torch.autocast(x.device.type, dtype=bf16), torch.autocast(x.device.type, enabled=False):
        assert F.linear(x.float(), w.float()).dtype == f32


@pytest.mark.usefixtures("tensor_cores")
def test_autocast_moves_the_running_statistics_that_it_was_given(device):
    x = draw(0, 4, 3, 5, dtype=f32, device=device).detach()
    running = [statistic.to(bf16) for statistic in statistics(x)]
    before = [statistic.clone() for statistic in running]
    in_autocast(lambda f, x: f.batch_norm(x, *running, training=True, momentum=0.3), x)
    expected = [statistic.float() for statistic in before]
    TF.batch_norm(x, *expected, training=True, momentum=0.3)
    for moved, wanted, old in zip(running, expected, before, strict=True):
        assert not torch.equal(moved, old)
        torch.testing.assert_close(moved, wanted.to(bf16))


@pytest.mark.usefixtures("tensor_cores")
def test_masks_in_autocast(device):
    qkv = [draw(i, 2, 4, 8, dtype=f32, device=device).detach() for i in range(3)]
    mask = noise(4, 4, like=qkv[0])
    expected = in_autocast(lambda f, *x: f.scaled_dot_product_attention(*x, mask), *qkv)
    attend = lambda f, *x: f.scaled_dot_product_attention(*x, mask.to(bf16))  # noqa: E731
    torch.testing.assert_close(in_autocast(attend, *qkv), expected, rtol=0.02, atol=0.02)


@pytest.mark.usefixtures("tensor_cores")
def test_bfloat16_that_begins_anywhere(device):
    """Rows of a larger matrix begin at no multiple of 16 bytes, where TMA would want them to."""
    joined = draw(0, 3, 9, dtype=bf16, device=device).detach()
    x, w = joined[:1], joined[1:]
    assert w.data_ptr() % 16
    assert torch.equal(F.linear(x, w), F.linear(x.clone(), w.clone()))


# ---------------------------------------------------------------- floats read as doubles


def test_text_in_double():
    cases = {
        "const float* x = 1.f + .5f - 1e-5f + 2.5e+3F;": (
            "const double* x = 1. + .5 - 1e-5 + 2.5e+3;"
        ),
        "float4 v = make_float4(expf(x), __expf(y), rsqrtf(z), fmaxf(0.f, w));": (
            "double4 v = make_double4(exp(x), exp(y), rsqrt(z), fmax(0., w));"
        ),
        "0xff + a.f + x1f; // a float is 1.f\n0.f": "0xff + a.f + x1f; // a float is 1.f\n0.",
        "__half h; float_like y; myexpf(x)": "__half h; float_like y; myexpf(x)",
        "#include <float.h>\n#define HALF .5f": "#include <float.h>\n#define HALF .5",
    }
    for text, expected in cases.items():
        assert double_text(text) == expected


def test_files_with_machine_code_stay_as_they_are(tmp_path):
    inline = '__device__ void add(float& d) { asm("add.f32 %0, %0, %0;" : "+f"(d)); }\n'
    (tmp_path / "ptx.cuh").write_text(inline)
    (tmp_path / "k.cu").write_text('#include "ptx.cuh"\n__global__ void f(float* x) {}  // asm\n')
    text = read(tmp_path / "k.cu", "float64").text
    assert inline in text
    assert "f(double* x)" in text


def test_a_kernel_in_double(device):
    source = """
template <class T> __global__ void f(int n, float a, const T* x, float* y) {
  extern __shared__ float kept[];
  const int i = threadIdx.x;
  kept[i] = a / 3.f * x[i];
  __syncthreads();
  if (i < n) y[i] = expf(kept[n - 1 - i]);
}"""
    module = cuda.load(source=source, device=device, dtype="float64")
    kernel = module.kernel("f<float>")
    assert [p.dtype for p in kernel.parameters] == ["int32", "float64", "float64", "float64"]
    x = torch.linspace(-1, 1, 5, dtype=f64, device=device)
    y = torch.empty_like(x)
    kernel[1, 5, 40](5, 0.1, x, y)
    torch.testing.assert_close(y, (0.1 / 3 * x.flip(0)).exp(), rtol=1e-15, atol=0)
    with pytest.raises(TypeError, match="x must have dtype float64"):
        kernel[1, 5, 40](5, 0.1, x.float(), y)
    with pytest.raises(ValueError, match="dtype must be one of 'float32', 'float64'"):
        cuda.load(source=source, dtype="float16")


def test_nothing_is_imported_or_compiled_before_it_is_used(tmp_path):
    code = """
import sys, dlnotes.cuda
assert "torch" not in sys.modules
from dlnotes.cuda import nn
assert "torch" in sys.modules
import dlnotes.cuda.optim
"""
    environment = {"DLNOTES_KERNELS": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert not list(tmp_path.iterdir())
