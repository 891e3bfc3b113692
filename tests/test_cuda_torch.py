"""dlnotes.cuda.functional, nn and optim against torch's own, on the CPU engine and on a GPU."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from cuda_helpers import each_device  # noqa: F401  (runs the tests on each device)

from dlnotes import cuda, models
from dlnotes.cuda import functional as F
from dlnotes.cuda import nn, optim
from dlnotes.cuda._source import double_text, read


class TF:
    """Functions of torch: those of torch.nn.functional, and the cells, which are elsewhere."""

    lstm_cell, gru_cell = torch.lstm_cell, torch.gru_cell

    def __getattr__(self, name):
        return getattr(torch.nn.functional, name)


TF = TF()
f32, f64 = torch.float32, torch.float64


def draw(seed, *shape, dtype=f64, device="cpu", layout="contiguous"):
    """Return normal numbers that want a gradient, transposed in memory if asked for."""
    values = np.random.default_rng(seed).standard_normal(shape)
    x = torch.tensor(values, dtype=dtype, device=device)
    if layout == "transposed":
        x = x.transpose(0, -1).contiguous().transpose(0, -1)
    return x.requires_grad_()


def integers(seed, high, *shape, device="cpu", dtype=torch.int64):
    values = np.random.default_rng(seed).integers(0, high, shape)
    return torch.tensor(values, dtype=dtype, device=device)


def visible(*shape, like):
    """Return a mask that leaves each query a key."""
    mask = integers(0, 2, *shape, device=like.device).bool()
    mask[..., 0] = True
    return mask


def noise(*shape, like):
    return draw(7, *shape, dtype=like.dtype, device=like.device).detach()


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
    "conv2d": ([(2, 2, 4, 5), (3, 2, 3, 2), (3,)], lambda f, x, w, b: f.conv2d(x, w, b)),
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
    "max_pool2d": ([(2, 2, 4, 5)], lambda f, x: f.max_pool2d(x, 2)),
    "max_pool2d, overlapping": ([(1, 2, 6, 5)], lambda f, x: f.max_pool2d(x, 3, 2, 1)),
    "max_pool2d, one image": ([(2, 4, 5)], lambda f, x: f.max_pool2d(x, (2, 3), (1, 2))),
    "avg_pool2d": ([(2, 2, 4, 5)], lambda f, x: f.avg_pool2d(x, 2)),
    "avg_pool2d, overlapping": ([(1, 2, 6, 5)], lambda f, x: f.avg_pool2d(x, 3, 2, 1)),
    "avg_pool2d, one image": ([(2, 4, 5)], lambda f, x: f.avg_pool2d(x, (2, 3), (1, 2))),
    "softmax": ([(2, 33)], lambda f, x: f.softmax(x, dim=-1)),
    "softmax, first axis": ([(5, 3, 2)], lambda f, x: f.softmax(x, dim=0)),
    "layer_norm": (
        [(2, 33), (33,), (33,)],
        lambda f, x, w, b: f.layer_norm(x, (33,), w, b, 1e-3),
    ),
    "layer_norm, two axes, no bias": (
        [(3, 2, 4, 5), (4, 5)],
        lambda f, x, w: f.layer_norm(x, (4, 5), w),
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
        [(2, 2, 3, 3), (2, 2, 4, 3), (2, 2, 4, 3)],
        lambda f, *qkv: f.scaled_dot_product_attention(*qkv, visible(2, 1, 1, 4, like=qkv[0])),
    ),
    "attention, float mask, more axes": (
        [(2, 1, 2, 3, 3), (2, 1, 2, 4, 3), (2, 1, 2, 4, 3)],
        lambda f, *qkv: f.scaled_dot_product_attention(*qkv, noise(1, 2, 3, 1, like=qkv[0])),
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
        [(2, 3), (2, 4), (2, 4), (16, 3), (16, 4), (16,), (16,)],
        lambda f, x, h, c, *w: torch.cat(f.lstm_cell(x, (h, c), *w)),
    ),
    "lstm_cell, no bias, c alone": (
        [(2, 3), (2, 2), (2, 2), (8, 3), (8, 2)],
        lambda f, x, h, c, *w: f.lstm_cell(x, (h, c), *w)[1],
    ),
    "gru_cell": (
        [(2, 3), (2, 4), (12, 3), (12, 4), (12,), (12,)],
        lambda f, *inputs: f.gru_cell(*inputs),
    ),
    "gru_cell, no bias": (
        [(2, 3), (2, 2), (6, 3), (6, 2)],
        lambda f, *inputs: f.gru_cell(*inputs),
    ),
    "attention, wide": (
        [(1, 130), (2, 130), (2, 1)],
        lambda f, *qkv: f.scaled_dot_product_attention(*qkv),
    ),
}


def assert_close(actual, expected, dtype):
    """Same shape and dtype, the same values up to some roundings of the largest."""
    assert actual.dtype == expected.dtype == dtype
    assert actual.shape == expected.shape
    scale = float(expected.detach().abs().max()) if expected.numel() else 1.0
    atol = (1e-5 if dtype == f32 else 1e-13) * max(1.0, scale)
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch's, of how it does it
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
@pytest.mark.parametrize("dtype", [f32, f64], ids=["float32", "float64"])
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


# The row padding_idx gets no gradient, by agreement, though the result depends on it.
AGREED = {"embedding, padding"}


@pytest.mark.parametrize("name", [name for name in CASES if name not in AGREED])
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
    for name in CASES:
        base = name.partition(",")[0]
        for ladder in (base, f"{base}_backward"):
            if "," in name or ladder not in cuda.LADDERS:
                continue
            for rung in cuda.LADDERS[ladder].rungs:
                yield pytest.param(name, ladder, rung.name, id=f"{ladder}-{rung.name}")


@pytest.mark.parametrize(("name", "ladder", "rung"), list(rungs_with_gradients()))
def test_gradients_of_every_rung(name, ladder, rung, device):
    shapes, function = CASES[name]
    inputs = [draw(i, *shape, device=device) for i, shape in enumerate(shapes)]
    with F.choose(**{ladder: rung}):
        assert torch.autograd.gradcheck(lambda *given: function(F, *given), inputs)


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


def test_a_row_too_long_for_shared_memory(device):
    x = draw(0, 2, 13_000, dtype=f32, device=device)
    assert_close(F.layer_norm(x, 13_000), TF.layer_norm(x, (13_000,)), f32)


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
WRONG = [
    (lambda: F.linear(X.numpy(), W), TypeError, "input must be a torch tensor, got ndarray"),
    (lambda: F.linear(X.half(), W), TypeError, "input must be float32 or float64, got float16"),
    (lambda: F.linear(X, W.double()), TypeError, "input is float32 and weight is float64"),
    (lambda: F.linear(X.to("meta"), W), ValueError, "input must be a dense tensor on the CPU or"),
    (lambda: F.linear(X, W.T), ValueError, r"input must have shape \(…, 4\)"),
    (lambda: F.linear(X, W[0]), ValueError, r"weight must be a matrix \(out, in\)"),
    (lambda: F.linear(X, W, X), ValueError, r"bias must have shape \(4,\)"),
    (lambda: F.conv2d(X, FILTERS), ValueError, r"input must be images \(n, c, h, w\)"),
    (lambda: F.conv2d(IMAGES, FILTERS[:, :1]), ValueError, "weight must have the 2 channels"),
    (lambda: F.conv2d(IMAGES, FILTERS, X[0][:2]), ValueError, r"bias must have shape \(3,\)"),
    (lambda: F.conv2d(IMAGES, FILTERS, dilation=3), ValueError, "input must be at least as large"),
    (lambda: F.conv2d(IMAGES, FILTERS, stride=0), ValueError, "stride must be at least 1"),
    (lambda: F.conv2d(IMAGES, FILTERS, stride=(1, 1, 1)), ValueError, "stride must be one number or"),  # noqa: E501
    (lambda: F.conv2d(IMAGES, FILTERS, padding="full"), ValueError, "padding must be one of"),
    (lambda: F.conv2d(IMAGES, FILTERS, padding="same", stride=2), ValueError, "needs stride 1"),
    (lambda: F.max_pool2d(IMAGES, 6), ValueError, "input must be at least as large"),
    (lambda: F.max_pool2d(IMAGES, 2, padding=2), ValueError, "padding must be at most half"),
    (lambda: F.max_pool2d(IMAGES, 2, dilation=2), ValueError, r"dilation must be \(1, 1\)"),
    (lambda: F.max_pool2d(IMAGES, 2, ceil_mode=True), ValueError, "ceil_mode must be False"),
    (lambda: F.avg_pool2d(IMAGES, 2, count_include_pad=False), ValueError, "count_include_pad"),
    (lambda: F.softmax(X, 2), ValueError, "dim must be in -2 … 1, got 2"),
    (lambda: F.layer_norm(X, (2,)), ValueError, r"input must end with the axes \(2,\)"),
    (lambda: F.layer_norm(X, (3,), X[:, 0]), ValueError, r"weight must have shape \(3,\)"),
    (lambda: F.cross_entropy(X, X), TypeError, "target must hold integers, got float32"),
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


# ---------------------------------------------------------------- networks

NETWORKS = {
    "mlp": (models.MLP, {"sizes": (12, 7, 6, 3), "activation": "elu"}, (4, 3, 2, 2), 3),
    "mlp, layer": (models.MLP, {"sizes": (5, 7, 3), "normalization": "layer"}, (6, 5), 3),
    "lenet": (models.LeNet5, {"image_size": 12}, (4, 1, 12, 12), 10),
    "lenet, relu": (
        models.LeNet5,
        {"activation": "relu", "pool": "max", "width": 0.5, "num_classes": 3},
        (4, 1, 28, 28),
        3,
    ),
}
OPTIMIZERS = {
    "SGD": (torch.optim.SGD, torch.optim.SGD, {"lr": 0.01, "momentum": 0.9}),
    "Adam": (optim.Adam, torch.optim.Adam, {"lr": 1e-3, "eps": 1e-4, "weight_decay": 1e-3}),
}


def pair(network, settings, dtype, device):
    """Return the network on this book's kernels and on torch's, with the same weights."""
    torch.manual_seed(0)
    ours, theirs = (network(**settings, nn=engine).to(device, dtype) for engine in (nn, torch.nn))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert str(ours.load_state_dict(theirs.state_dict())) == "<All keys matched successfully>"
    return ours, theirs


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_training_is_torchs_step_by_step(name, optimizer, device):
    network, settings, shape, classes = NETWORKS[name]
    ours, theirs = pair(network, settings, f64, device)
    Ours, Theirs, options = OPTIMIZERS[optimizer]
    mine, torchs = Ours(ours.parameters(), **options), Theirs(theirs.parameters(), **options)
    for step in range(3):
        x = draw(step, *shape, device=device).detach()
        y = integers(step, classes, shape[0], device=device)
        losses = F.cross_entropy(ours(x), y), TF.cross_entropy(theirs(x), y)
        assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-12)
        for optimiser, loss in zip((mine, torchs), losses, strict=True):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    for (key, value), expected in zip(
        ours.state_dict().items(), theirs.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-10, msg=key)


def test_layers_are_torchs_with_another_forward(device):
    layers = {
        "Linear": ((5, 3), {}, (2, 5)),
        "Conv2d": ((2, 4, 3), {"padding": 1, "padding_mode": "reflect", "stride": 2}, (1, 2, 7, 7)),
        "MaxPool2d": ((3,), {"stride": 2, "padding": 1}, (1, 2, 7, 7)),
        "AvgPool2d": ((2,), {}, (1, 2, 7, 7)),
        "LayerNorm": (((4, 3),), {}, (2, 4, 3)),
        "Softmax": ((1,), {}, (2, 5)),
    }
    for name, (arguments, settings, shape) in layers.items():
        torch.manual_seed(0)
        ours = getattr(nn, name)(*arguments, **settings).to(device)
        torch.manual_seed(0)
        theirs = getattr(torch.nn, name)(*arguments, **settings).to(device)
        assert isinstance(ours, type(theirs))
        assert repr(ours) == repr(theirs)
        x = draw(0, *shape, dtype=f32, device=device)
        assert_close(ours(x), theirs(x), f32)
    table, ids = nn.Embedding(7, 3, padding_idx=2, device=device), integers(0, 7, 4, device=device)
    assert torch.equal(table(ids), table.weight[ids])
    x, y = draw(0, 4, 5, dtype=f32, device=device), integers(0, 5, 4, device=device)
    assert_close(nn.CrossEntropyLoss()(x, y), TF.cross_entropy(x, y), f32)


def test_no_layer_of_torch_computes_unawares():
    """All that is passed through works entry by entry, holds other layers, or computes nothing."""
    for name in nn.FROM_TORCH:
        assert getattr(nn, name) is getattr(torch.nn, name)
    assert not {"Linear", "Conv2d", "LayerNorm", "Conv1d", "LSTM"} & set(nn.FROM_TORCH)
    network = models.LeNet5(nn=nn)
    for module in network.modules():
        if list(module.parameters(recurse=False)):
            assert type(module).__module__ == "dlnotes.cuda.nn"


def test_adam_goes_on_from_torchs_state(device):
    start, gradients = draw(0, 5, 4, device=device), [draw(i, 5, 4, device=device) for i in (1, 2)]
    results = []
    for first, second in ((torch.optim.Adam, optim.Adam), (optim.Adam, torch.optim.Adam)):
        p = start.detach().clone().requires_grad_()
        before = first([p], lr=0.1)
        p.grad = gradients[0].detach()
        before.step()
        after = second([p], lr=0.5)
        after.load_state_dict(before.state_dict())
        p.grad = gradients[1].detach().T.contiguous().T
        version = p._version
        assert after.step(lambda: 5) == 5
        assert p._version > version
        results.append(p)
    assert_close(results[0].detach(), results[1].detach(), f64)
    assert not torch.equal(results[0], start)


def test_adam_of_transposed_parameters(device):
    ours, theirs = (draw(0, 5, 4, device=device, layout="transposed") for _ in range(2))
    assert not ours.is_contiguous()
    for p, Optimizer in ((ours, optim.Adam), (theirs, torch.optim.Adam)):
        optimiser = Optimizer([p], lr=0.1)
        for seed in (1, 2):
            p.grad = draw(seed, 5, 4, device=device).detach()
            optimiser.step()
    assert_close(ours.detach(), theirs.detach(), f64)


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
