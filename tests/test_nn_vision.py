"""Convolution, pooling and normalisation layers: equal to torch.nn in names, values and state."""

import inspect

import core_helpers as h
import numpy as np
import pytest
import torch

import dlnotes
from dlnotes import check, nn, optim
from dlnotes.autograd import Tensor, tensor
from dlnotes.nn import functional as F

IMAGES, SEQUENCES, VOLUMES = (3, 4, 6, 8), (3, 4, 8), (2, 4, 3, 4, 5)
LAYERS = {
    "Conv1d": [((4, 6, 3), {}, SEQUENCES), ((4, 6, 3, 2, "valid"), {"groups": 2}, SEQUENCES)],
    "Conv2d": [
        ((4, 6, 3), {"padding": 1, "stride": 2, "bias": False}, IMAGES),
        ((4, 6, (3, 2), (2, 1), (1, 0), 2, 2), {}, IMAGES),
        ((4, 2, 3), {"padding": "same", "dilation": 2}, IMAGES),
        ((4, 2, 3), {"padding": (2, 1), "padding_mode": "reflect", "stride": 2}, IMAGES),
        ((4, 2, (2, 3)), {"padding": "same", "padding_mode": "replicate"}, IMAGES),
        ((4, 2, 3), {"padding": "valid", "padding_mode": "circular"}, IMAGES),
    ],
    "Conv3d": [
        ((4, 2, (1, 2, 3)), {"padding": 1}, VOLUMES),
        ((4, 2, 3), {"padding": (1, 2, 1), "padding_mode": "circular"}, VOLUMES),
    ],
    "ConvTranspose1d": [((4, 6, 3), {"stride": 2, "output_padding": 1}, SEQUENCES)],
    "ConvTranspose2d": [
        ((4, 6, 3, 2, 1, 1, 2), {}, IMAGES),
        ((4, 3, (2, 3)), {"bias": False, "dilation": 2}, IMAGES),
    ],
    "Unfold": [((2,), {"stride": 2, "padding": 1}, IMAGES)],
    "Fold": [(((5, 4), 2), {}, (2, 8, 12))],
    "MaxPool1d": [((3, 2, 1), {"ceil_mode": True}, SEQUENCES)],
    "MaxPool2d": [((2,), {}, IMAGES), (((3, 2), 2, (1, 0), 2), {}, IMAGES)],
    "AvgPool1d": [((3, 2), {"padding": 1}, SEQUENCES)],
    "AvgPool2d": [((2,), {}, IMAGES), ((3, 2, 1, True, False), {}, IMAGES)],
    "LPPool1d": [((2, 3), {"stride": 2}, SEQUENCES)],
    "LPPool2d": [((2, 3), {"ceil_mode": True}, IMAGES)],
    "AdaptiveAvgPool1d": [((3,), {}, SEQUENCES)],
    "AdaptiveAvgPool2d": [((1,), {}, IMAGES), (((2, None),), {}, IMAGES)],
    "AdaptiveMaxPool1d": [((3,), {}, SEQUENCES)],
    "AdaptiveMaxPool2d": [((1,), {}, IMAGES), (((2, None),), {}, IMAGES)],
    "Upsample": [
        (((9, 3),), {}, IMAGES),
        ((None, 2, "bilinear"), {"align_corners": True}, IMAGES),
        ((), {"scale_factor": 1.5, "mode": "linear"}, SEQUENCES),
    ],
    "ReflectionPad1d": [((2,), {}, SEQUENCES)],
    "ReflectionPad2d": [((2,), {}, IMAGES), (((1, 2, 0, 3),), {}, IMAGES[1:])],
    "ReplicationPad1d": [(((1, 2),), {}, SEQUENCES)],
    "ReplicationPad2d": [((2,), {}, IMAGES)],
    "CircularPad1d": [((2,), {}, SEQUENCES)],
    "CircularPad2d": [((2,), {}, IMAGES)],
    "ZeroPad1d": [((2,), {}, SEQUENCES)],
    "ZeroPad2d": [(((2, 0, 1, 1),), {}, IMAGES)],
    "ConstantPad1d": [((2, 1.5), {}, SEQUENCES)],
    "ConstantPad2d": [((2, -1.0), {}, IMAGES)],
    "GLU": [((1,), {}, IMAGES)],
    "Unflatten": [((1, (2, 2)), {}, SEQUENCES), ((-1, (-1, 4)), {}, IMAGES)],
    "InstanceNorm1d": [
        ((4,), {}, SEQUENCES),
        ((4,), {"affine": True, "track_running_stats": True}, SEQUENCES),
    ],
    "BatchNorm1d": [((4,), {}, SEQUENCES), ((4, 1e-3, None), {}, (5, 4))],
    "BatchNorm2d": [
        ((4,), {}, IMAGES),
        ((4,), {"affine": False, "momentum": 0.3}, IMAGES),
        ((4,), {"track_running_stats": False}, IMAGES),
    ],
    "InstanceNorm2d": [
        ((4,), {}, IMAGES),
        ((4,), {"affine": True, "track_running_stats": True}, IMAGES),
        ((4,), {"affine": True, "track_running_stats": True}, IMAGES[1:]),
    ],
    "GroupNorm": [((2, 4), {}, IMAGES), ((4, 4), {"affine": False}, SEQUENCES)],
    "LayerNorm": [((8,), {}, IMAGES), (((6, 8), 1e-3), {"bias": False}, IMAGES)],
    "RMSNorm": [((8,), {}, IMAGES), (([6, 8], 1e-3, False), {}, IMAGES)],
    "LocalResponseNorm": [((3, 0.1), {}, IMAGES)],
}
CASES = [(name, *case) for name, cases in LAYERS.items() for case in cases]


@pytest.mark.parametrize(("name", "arguments", "keywords", "shape"), CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layer_as_torchs(name, arguments, keywords, shape, dtype):
    """Training twice, evaluation, gradients, state both ways, repr."""
    ours = getattr(nn, name)(*arguments, **keywords)
    theirs = getattr(torch.nn, name)(*arguments, **keywords)
    if dtype == np.float64:
        ours, theirs = ours.double(), theirs.double()
    for parameter in ours.parameters():
        parameter.data += h.draw(9, parameter.shape, dtype, 0.1)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(nn.to_torch(ours.state_dict()))
    for seed in (0, 1, 2):
        if seed == 2:
            ours.eval(), theirs.eval()
        x = tensor(h.draw(seed, shape, dtype), requires_grad=True)
        torch_x = torch.tensor(x.data, requires_grad=True)
        y, expected = ours(x), theirs(torch_x)
        h.assert_close(y.data, expected, dtype, 3, factor=2)
        dy = h.draw(seed + 3, y.shape, dtype)
        y.backward(dy)
        expected.backward(torch.tensor(dy))
        h.assert_close(x.grad, torch_x.grad, dtype, 10, factor=2)
        state = ours.state_dict()
        for key, value in theirs.state_dict().items():
            h.assert_close(state[key], value, value.numpy().dtype, 3) if value.ndim else None
            np.testing.assert_allclose(state[key], value, rtol=1e-5, atol=1e-6)
            assert state[key].dtype == value.numpy().dtype
    for mine, torchs in zip(ours.parameters(), theirs.parameters(), strict=True):
        h.assert_close(mine.grad, torchs.grad, dtype, 100, factor=2)
    # Newer versions of torch say more.
    assert set(_words(ours)) <= set(_words(theirs))
    fresh = getattr(nn, name)(*arguments, **keywords)
    fresh.load_state_dict(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(fresh.state_dict()[key], value, rtol=1e-6)


def _words(module):
    return repr(module).rstrip(")").replace("(", ", ", 1).split(", ")


@pytest.mark.parametrize("name", LAYERS)
def test_arguments_as_torchs(name):
    """The same names in the same order with the same defaults, as far as they go."""
    ours = list(inspect.signature(getattr(nn, name).__init__).parameters.values())[1:]
    theirs = inspect.signature(getattr(torch.nn, name).__init__).parameters
    ordered = [p for p in theirs if p != "self"]
    for i, parameter in enumerate(p for p in ours if p.kind is not p.KEYWORD_ONLY):
        assert ordered[i] == parameter.name
        assert theirs[parameter.name].default == parameter.default


def small_network(engine):
    return engine.Sequential(
        engine.Conv2d(1, 4, 3, padding=1, bias=False),
        engine.BatchNorm2d(4),
        engine.ReLU(),
        engine.MaxPool2d(2),
        engine.Conv2d(4, 6, 3, groups=2),
        engine.GroupNorm(3, 6),
        engine.ReLU(),
        engine.AdaptiveAvgPool2d(1),
        engine.Flatten(),
        engine.Linear(6, 3),
    )


def test_a_network_trains_as_torchs():
    ours, theirs = small_network(nn).double(), small_network(torch.nn).double()
    theirs.load_state_dict(nn.to_torch(ours.state_dict()))
    optimizer = optim.SGD(ours.parameters(), lr=0.1, momentum=0.9)
    reference = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    for step in range(5):
        x, y = h.draw(step, (8, 1, 8, 8), np.float64), np.arange(8) % 3
        loss = nn.CrossEntropyLoss()(ours(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected = torch.nn.CrossEntropyLoss()(theirs(torch.tensor(x)), torch.tensor(y))
        reference.zero_grad()
        expected.backward()
        reference.step()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-10)
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name], value, rtol=1e-8, atol=1e-10)
    assert ours.state_dict()["1.num_batches_tracked"] == 5
    ours.eval(), theirs.eval()
    h.assert_close(ours(x).data, theirs(torch.tensor(x)), np.float64, 10, factor=10)


def test_weights_start_as_torchs():
    dlnotes.manual_seed(0)
    for name, bound in (("Conv2d", 1 / np.sqrt(8 * 9)), ("ConvTranspose2d", 1 / np.sqrt(32 * 9))):
        layer = getattr(nn, name)(16, 64, 3, groups=2)
        reference = getattr(torch.nn, name)(16, 64, 3, groups=2).weight.detach().numpy()
        for values in (layer.weight.data, layer.bias.data, reference):
            assert 0.95 * bound < np.abs(values).max() <= bound * (1 + 1e-6)
        assert layer.weight.data.var() == pytest.approx(bound**2 / 3, rel=0.05)


# ---- buffers ---------------------------------------------------------------------------------


def test_buffers_are_state_but_not_parameters():
    layer = nn.BatchNorm2d(3)
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    assert [name for name, _ in layer.named_buffers()] == [
        "running_mean",
        "running_var",
        "num_batches_tracked",
    ]
    assert len(list(nn.Sequential(layer, layer).buffers())) == 3  # shared ones once
    assert layer.double().running_var.dtype == np.float64
    assert layer.num_batches_tracked.dtype == np.int64
    layer.running_mean = Tensor(np.ones(3))
    assert layer.state_dict()["running_mean"][0] == 1
    layer.running_mean = None
    assert "running_mean" not in layer.state_dict()
    assert "running_mean" in dir(layer)
    layer.note = Tensor(np.ones(3))  # an ordinary attribute
    assert "note" not in layer.state_dict()
    del layer.running_var
    with pytest.raises(AttributeError, match="no attribute 'running_var'"):
        _ = layer.running_var


def test_a_count_takes_integers_only():
    layer = nn.BatchNorm1d(2)
    state = layer.state_dict()
    state["num_batches_tracked"] = np.array(7)
    layer.load_state_dict(state)
    assert layer.num_batches_tracked.item() == 7
    state["num_batches_tracked"] = np.array(7.5)
    with pytest.raises(TypeError, match="num_batches_tracked must hold integers, got float64"):
        layer.load_state_dict(state)
    state["num_batches_tracked"] = np.zeros(2, int)
    with pytest.raises(ValueError, match=r"num_batches_tracked must have shape \(\)"):
        layer.load_state_dict(state)


def test_a_refused_batch_leaves_the_statistics():
    layer = nn.BatchNorm1d(2)
    with pytest.raises(ValueError, match="more than one value for each channel in training"):
        layer(np.ones((1, 2), np.float32))
    assert layer.num_batches_tracked.item() == 0
    np.testing.assert_array_equal(layer.running_mean.data, 0)
    assert layer(np.ones((0, 2), np.float32)).shape == (0, 2)
    np.testing.assert_array_equal(layer.running_var.data, 1)


def test_gradients_see_the_statistics_of_their_own_pass():
    """Evaluation mode: running statistics that change before `backward` make no difference."""
    layer = nn.BatchNorm1d(2).double().eval()
    x = tensor(h.draw(0, (3, 2), np.float64), requires_grad=True)
    y = layer(x)
    layer.running_var.data[...] = 100
    y.backward(np.ones((3, 2)))
    np.testing.assert_allclose(x.grad, 1 / np.sqrt(1 + 1e-5))


# ---- functional ------------------------------------------------------------------------------


def test_bias_without_weight():
    x, bias = h.draw(0, (2, 3, 4), np.float64), np.array([1.0, 2, 3])
    expected = F.group_norm(x, 3).data + bias[:, None]
    np.testing.assert_allclose(F.group_norm(x, 3, None, tensor(bias)).data, expected)


def test_gradcheck_through_the_tape():
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(s) for s in ((2, 2, 4, 4), (2, 2, 3, 3), (2,)))

    def network(x, weight, bias):
        y = F.conv2d(x, weight, bias, padding=1)
        y = F.batch_norm(y, None, None, training=True)
        y = F.avg_pool2d(y, 2)
        return F.layer_norm(F.lp_pool2d(y * y + 1, 2, 2, 1), (2, 1, 1), None, None, 1.0)

    # A batch norm takes the bias away again: its gradient is 0 but for rounding.
    check.gradcheck(network, (x, weight, bias), wrt=["x", "weight"], rtol=1e-5, atol=1e-6)


def test_indices_travel_as_a_tensor():
    x = tensor(h.draw(0, (1, 2, 4, 4), np.float32), requires_grad=True)
    y, indices = nn.MaxPool2d(2, return_indices=True)(x)
    assert indices.dtype == np.int64
    back = nn.MaxUnpool2d(2)(y, indices)
    assert back.shape == x.shape
    back.backward(np.ones(x.shape, np.float32))
    np.testing.assert_array_equal(x.grad, back.data != 0)
    np.testing.assert_array_equal(back.data[back.data != 0], x.data[x.grad == 1])
    sequence = h.draw(0, (1, 2, 4), np.float32)
    assert nn.MaxPool1d(2, return_indices=True)(sequence)[1].shape == (1, 2, 2)
    larger = nn.MaxUnpool2d(2)(y.detach(), indices, output_size=(5, 4))
    assert larger.shape == (1, 2, 5, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.Conv2d(0, 1, 1), ValueError, "in_channels must be at least 1"),
        (lambda: nn.Conv2d(1, 1.5, 1), TypeError, "out_channels must be an int"),
        (lambda: nn.Conv2d(1, 1, 0), ValueError, "kernel_size must be at least 1"),
        (lambda: nn.Conv2d(1, 1, (1, 2, 3)), ValueError, "kernel_size must be an int or 2 ints"),
        (lambda: nn.Conv2d(3, 4, 1, groups=2), ValueError, "groups must divide in_channels"),
        (lambda: nn.Conv2d(4, 3, 1, groups=2), ValueError, "groups must divide out_channels"),
        (lambda: nn.Conv2d(1, 1, 3, padding="full"), ValueError, "padding must be one of"),
        (lambda: nn.Conv2d(1, 1, 3, 2, "same"), ValueError, 'padding="same" needs stride 1'),
        (lambda: nn.Conv2d(1, 1, 1, dtype=np.float16), TypeError, "float16"),
        (lambda: nn.ConvTranspose2d(1, 1, 3, padding="same"), TypeError, "padding must be an int"),
        (lambda: nn.MaxPool2d(2, 0), ValueError, "stride must be at least 1"),
        (lambda: nn.AvgPool1d((2, 2)), ValueError, "kernel_size must be an int or 1 int"),
        (lambda: nn.BatchNorm2d(0), ValueError, "num_features must be at least 1"),
        (lambda: nn.BatchNorm2d(2, momentum=2), ValueError, "momentum must be in 0 … 1"),
        (lambda: nn.BatchNorm2d(2)(np.ones((2, 2))), ValueError, "input must have 4 axes, got sha"),
        (lambda: nn.BatchNorm1d(2)(np.ones(2)), ValueError, "input must have 2 or 3 axes"),
        (lambda: nn.GroupNorm(2, 3), ValueError, "num_groups must divide num_channels"),
        (lambda: nn.LayerNorm(0), ValueError, "normalized_shape must be at least 1"),
        (lambda: nn.RMSNorm(2.0), TypeError, "normalized_shape must be an int"),
        (lambda: nn.LocalResponseNorm(0), ValueError, "size must be at least 1"),
    ],
)
def test_bad_input(call, error, message):
    with h.shapes_unchecked(), pytest.raises(error, match=message):
        call()
