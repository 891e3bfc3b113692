"""Slim networks compute and train on NumPy step by step as on torch, from the same weights."""

import core_helpers as h
import numpy as np
import pytest
import torch

from dlnotes import models, nn, optim

# name: network, settings without dropout (its masks differ), shape of a batch, classes
IMAGES = {
    "mlp": (models.MLP, {"sizes": (12, 7, 6, 3), "activation": "elu"}, (4, 3, 2, 2), 3),
    "mlp, batch": (models.MLP, {"sizes": (5, 7, 3), "normalization": "batch"}, (6, 5), 3),
    "mlp, layer": (models.MLP, {"sizes": (5, 7, 3), "normalization": "layer"}, (6, 5), 3),
    "lenet": (models.LeNet5, {"image_size": 12}, (4, 1, 12, 12), 10),
    "lenet, relu": (
        models.LeNet5,
        {"activation": "relu", "pool": "max", "width": 0.5, "num_classes": 3},
        (4, 1, 28, 28),
        3,
    ),
    "lenet of the paper": (models.LeNet5Paper, {}, (2, 1, 32, 32), 10),
    "alexnet": (
        models.AlexNet,
        {"width": 0.05, "num_classes": 3, "dropout": 0.0, "small_input": True},
        (4, 3, 28, 28),
        3,
    ),
    "alexnet of the paper": (
        models.AlexNetPaper,
        {"width": 0.02, "num_classes": 3, "dropout": 0.0},
        (2, 3, 227, 227),
        3,
    ),
    "zfnet": (
        models.ZFNet,
        {"width": 0.05, "num_classes": 3, "dropout": 0.0, "small_input": True},
        (4, 3, 28, 28),
        3,
    ),
    "vgg": (
        models.vgg11,
        {"width": 0.05, "num_classes": 3, "dropout": 0.0, "small_input": True},
        (4, 3, 28, 28),
        3,
    ),
    "vgg, batch norm": (
        models.vgg13,
        {"width": 0.05, "num_classes": 3, "dropout": 0.0, "small_input": True, "batch_norm": True},
        (4, 3, 32, 32),
        3,
    ),
    "googlenet": (
        models.GoogLeNet,
        {"width": 0.05, "num_classes": 3, "dropout": 0.0, "dropout_aux": 0.0, "small_input": True},
        (3, 3, 32, 32),
        3,
    ),
    "googlenet of the paper": (
        models.GoogLeNet,
        {"width": 0.05, "num_classes": 3, "dropout": 0.0, "aux_logits": False, "form": "paper"},
        (2, 3, 65, 65),
        3,
    ),
    "resnet18": (
        models.resnet18,
        {"width": 0.05, "num_classes": 3, "small_input": True},
        (4, 3, 16, 16),
        3,
    ),
    "resnet50": (models.resnet50, {"width": 0.1, "num_classes": 3}, (6, 3, 48, 48), 3),
    "cifar, A": (models.CifarResNet, {"depth": 14, "width": 0.25}, (4, 3, 12, 12), 10),
    "cifar, B": (models.CifarResNet, {"depth": 8, "shortcut": "B"}, (2, 3, 8, 8), 10),
    "cifar, plain": (models.CifarResNet, {"depth": 8, "shortcut": None}, (2, 3, 8, 8), 10),
    "densenet": (
        models.DenseNet,
        {"growth_rate": 3, "block_config": (2, 3), "num_init_features": 6, "num_classes": 3},
        (2, 3, 32, 32),
        3,
    ),
    "mobilenet": (
        models.MobileNetV2,
        {"width_mult": 0.1, "num_classes": 3, "dropout": 0.0, "small_input": True},
        (4, 3, 16, 16),
        3,
    ),
}
OPTIMIZERS = {
    "SGD": {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-3},
    # A bias before a batch norm has the gradient 0, up to rounding: the default eps of 1e-8 would
    # turn that noise into steps.
    "Adam": {"lr": 1e-3, "eps": 1e-4},
}


def pair(network, settings, dtype):
    """Return the network on both engines with the same weights, drawn by torch."""
    torch.manual_seed(0)
    ours, theirs = network(**settings), network(nn=torch.nn, **settings)
    if dtype == np.float64:
        ours, theirs = ours.double(), theirs.double()
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    assert list(ours.state_dict()) == list(theirs.state_dict())
    return ours, theirs


def logits(output):
    """Return all logits of an output, GoogLeNet's side heads among them."""
    return list(output) if isinstance(output, tuple) else [output]


def total_loss(engine, output, target):
    losses = [engine.functional.cross_entropy(y, target) for y in logits(output)]
    return sum(losses[1:], start=losses[0])


def assert_same(actual, expected, tolerance, name=""):
    expected = expected.detach().numpy()
    assert actual.dtype == expected.dtype, name
    scale = np.abs(expected).max(initial=1e-3)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale, err_msg=name)


def a_batch(seed, shape, classes, dtype):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape).astype(dtype), rng.integers(0, classes, shape[0])


@pytest.mark.parametrize("name", IMAGES)
def test_values_and_gradients_in_float32(name):
    network, settings, shape, classes = IMAGES[name]
    ours, theirs = pair(network, settings, np.float32)
    x, y = a_batch(0, shape, classes, np.float32)
    output, expected = ours(x), theirs(torch.tensor(x))
    for mine, torchs in zip(logits(output), logits(expected), strict=True):
        assert mine.shape == (shape[0], classes)
        assert_same(mine.data, torchs, 1e-4)
    total_loss(nn, output, y).backward()
    total_loss(torch.nn, expected, torch.tensor(y)).backward()
    # One scale for all: a gradient that is 0 but for rounding has none of its own.
    largest = max(float(p.grad.abs().max()) for p in theirs.parameters())
    for (key, mine), torchs in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert mine.grad.dtype == np.float32
        np.testing.assert_allclose(mine.grad, torchs.grad, rtol=0, atol=1e-3 * largest, err_msg=key)


# The deep ones with one optimiser each: its steps are tested in test_optim.
DEEP = ("googlenet", "resnet50", "mobilenet", "googlenet of the paper", "alexnet of the paper")
RUNS = [(n, o) for n in IMAGES for o in OPTIMIZERS if n not in DEEP or o == "SGD"]


@pytest.mark.parametrize(("name", "optimizer"), RUNS)
@h.shapes_unchecked()  # they are checked in float32; here they take most of the time
def test_training_in_float64(name, optimizer):
    """Losses, weights and running statistics, step by step, then the outputs in evaluation."""
    network, settings, shape, classes = IMAGES[name]
    ours, theirs = pair(network, settings, np.float64)
    mine = getattr(optim, optimizer)(ours.parameters(), **OPTIMIZERS[optimizer])
    torchs = getattr(torch.optim, optimizer)(theirs.parameters(), **OPTIMIZERS[optimizer])
    steps = 2 if name in DEEP else 3
    for step in range(steps):
        x, y = a_batch(step, shape, classes, np.float64)
        loss = total_loss(nn, ours(x), y)
        expected = total_loss(torch.nn, theirs(torch.tensor(x)), torch.tensor(y))
        assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
        for optimiser, value in ((mine, loss), (torchs, expected)):
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
    state = ours.state_dict()
    for key, value in theirs.state_dict().items():
        assert_same(state[key], value, 1e-7, key)
    ours.eval(), theirs.eval()
    assert_same(ours(x).data, theirs(torch.tensor(x)), 1e-7)
    for key, value in ours.state_dict().items():  # evaluation has changed nothing
        np.testing.assert_array_equal(value, state[key])
    if any("num_batches_tracked" in key for key in state):
        assert all(v == steps for k, v in state.items() if k.endswith("num_batches_tracked"))


@pytest.mark.parametrize("freeze", [False, True])
def test_textcnn(freeze):
    vectors = h.draw(0, (11, 4), np.float64)
    settings = {
        "vocabulary": 11,
        "num_classes": 3,
        "embedding_dim": 4,
        "filters": 3,
        "dropout": 0.0,
    }
    ours, theirs = pair(
        models.TextCNN, {**settings, "vectors": vectors, "freeze": freeze}, np.float64
    )
    tokens, y = np.random.default_rng(0).integers(0, 11, (5, 8)), np.array([0, 1, 2, 0, 1])
    for engine, net in ((nn, ours), (torch.nn, theirs)):
        Optimizer = optim.Adam if engine is nn else torch.optim.Adam
        optimizer = Optimizer([p for p in net.parameters() if p.requires_grad], lr=0.01)
        for _ in range(3):
            given = (tokens, y) if engine is nn else (torch.tensor(tokens), torch.tensor(y))
            loss = engine.functional.cross_entropy(net(given[0]), given[1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    state = ours.state_dict()
    for key, value in theirs.state_dict().items():
        assert_same(state[key], value, 1e-9, key)
    moved = not np.array_equal(ours.embedding.weight.data, vectors)
    assert moved == (not freeze)


def test_googlenets_outputs_have_names():
    net = models.GoogLeNet(5, width=0.05, small_input=True)
    x = h.draw(0, (2, 3, 32, 32), np.float32)
    output = net(x)
    assert isinstance(output, models.GoogLeNetOutputs)
    assert [y.shape for y in output] == [(2, 5)] * 3
    assert net.eval()(x).shape == (2, 5)
    assert models.GoogLeNet(5, aux_logits=False, width=0.05, small_input=True)(x).shape == (2, 5)
