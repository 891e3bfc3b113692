"""Containers, distances as modules, hooks in front, and spectral normalisation."""

import copy

import core_helpers as h
import numpy as np
import pytest
import torch

from dlnotes import nn
from dlnotes.autograd import Tensor, tensor


def test_module_dict_as_torchs():
    def filled(nn):
        modules = nn.ModuleDict({"b": nn.Linear(2, 3)})
        modules["a"] = nn.Linear(3, 1)
        modules.update([("c", nn.ReLU()), ("b", nn.Linear(2, 2))])
        return modules

    ours, theirs = filled(nn), filled(torch.nn)
    assert list(ours) == list(ours.keys()) == list(theirs) == ["b", "a", "c"]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert len(ours) == 3
    assert "a" in ours
    assert repr(ours) == repr(theirs)
    assert [name for name, _ in ours.items()] == list(ours)
    assert next(iter(ours.values())) is ours["b"]
    assert ours.pop("a").out_features == 1
    del ours["c"]
    assert list(ours) == ["b"]
    ours.clear()
    assert len(ours) == len(nn.ModuleDict()) == 0
    with h.shapes_unchecked(), pytest.raises(TypeError, match="module a must be a Module, got int"):
        ours["a"] = 3
    with h.shapes_unchecked(), pytest.raises(KeyError, match="is an attribute of ModuleDict"):
        ours["keys"] = nn.ReLU()
    with h.shapes_unchecked(), pytest.raises(TypeError, match="key must be a name without dots"):
        ours["a.b"] = nn.ReLU()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("CosineSimilarity", (1, 1e-6)), ("PairwiseDistance", (3, 1e-4, True))],
)
def test_distances_as_torchs(name, arguments):
    a, b = h.draw(0, (4, 3), np.float64), h.draw(1, (4, 3), np.float64)
    ours, theirs = (getattr(lib, name)(*arguments) for lib in (nn, torch.nn))
    x = tensor(a, requires_grad=True)
    torch_x = torch.tensor(a, requires_grad=True)
    y, expected = ours(x, b), theirs(torch_x, torch.tensor(b))
    h.assert_close(y.data, expected, np.float64)
    y.sum().backward()
    expected.sum().backward()
    h.assert_close(x.grad, torch_x.grad, np.float64)


def test_unflatten_refuses():
    for sizes in ((2, 3), (-1, 3), (-1, -1)):
        with (
            h.shapes_unchecked(),
            pytest.raises(ValueError, match="unflattened_size must hold axis 1's 4"),
        ):
            nn.Unflatten(1, sizes)(np.ones((2, 4)))
    with h.shapes_unchecked(), pytest.raises(TypeError, match="unflattened_size must be a tuple"):
        nn.Unflatten(1, 4)


def test_padding_refuses():
    with h.shapes_unchecked(), pytest.raises(ValueError, match="padding must be an int or 4 ints"):
        nn.ReflectionPad2d((1, 2))
    with h.shapes_unchecked(), pytest.raises(ValueError, match="input must have 3 or 4 axes"):
        nn.ReflectionPad2d(1)(np.ones((4, 4)))
    with h.shapes_unchecked(), pytest.raises(ValueError, match="pad must be at most 3"):
        nn.ReflectionPad2d(4)(np.ones((1, 1, 4, 4)))


def test_a_hook_in_front_sees_and_changes_the_input():
    seen, layer = [], nn.Linear(2, 2)
    handle = layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    doubled = layer.register_forward_pre_hook(lambda module, inputs: inputs[0] * 2)
    x = tensor([[1.0, 2.0]])
    np.testing.assert_allclose(layer(x).data, (2 * x).data @ layer.weight.data.T + layer.bias.data)
    assert seen == [(1, 2)]
    handle.remove()
    with doubled:
        layer(x)
    np.testing.assert_allclose(layer(x).data, x.data @ layer.weight.data.T + layer.bias.data)
    assert seen == [(1, 2)]
    with h.shapes_unchecked(), pytest.raises(TypeError, match="hook must be a function, got int"):
        layer.register_forward_pre_hook(3)


LAYERS = [
    (lambda nn: nn.Linear(4, 3), (5, 4)),
    (lambda nn: nn.Conv2d(2, 3, 3, bias=False), (2, 2, 5, 5)),
    (lambda nn: nn.ConvTranspose2d(2, 3, 2), (2, 2, 5, 5)),
]


@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_spectral_norm_as_torchs(make, shape):
    ours = nn.utils.spectral_norm(make(nn).double(), n_power_iterations=2)
    theirs = torch.nn.utils.spectral_norm(make(torch.nn).double(), n_power_iterations=2)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(nn.to_torch(ours.state_dict()))
    for step in range(3):
        if step == 2:
            ours.eval(), theirs.eval()
        x = h.draw(step, shape, np.float64)
        y, expected = ours(x), theirs(torch.tensor(x))
        h.assert_close(y.data, expected, np.float64, factor=100)
        dy = h.draw(step + 9, y.shape, np.float64)
        for module in (ours, theirs):
            module.zero_grad()
        y.backward(dy)
        expected.backward(torch.tensor(dy))
        h.assert_close(ours.weight_orig.grad, theirs.weight_orig.grad, np.float64, factor=1000)
        for name, value in ours.state_dict().items():
            h.assert_close(value, theirs.state_dict()[name], np.float64, factor=100)


def test_spectral_norm_tends_to_one():
    layer = nn.utils.spectral_norm(nn.Linear(6, 5))
    for _ in range(200):
        layer(np.ones((1, 6), np.float32))
    assert np.linalg.svd(layer.weight.data)[1][0] == pytest.approx(1, abs=1e-4)
    names = [name for name, _ in layer.named_parameters()]
    assert names == ["bias", "weight_orig"]
    twin = copy.deepcopy(layer)
    before = twin(np.ones((1, 6), np.float32)).data
    assert nn.utils.remove_spectral_norm(twin) is twin
    assert [name for name, _ in twin.named_parameters()] == ["bias", "weight"]
    np.testing.assert_allclose(twin(np.ones((1, 6), np.float32)).data, before, rtol=1e-5)
    assert np.abs(layer.weight_orig.data - layer.weight.data).max() > 1e-3


def test_two_passes_keep_their_own_vectors():
    """As in a GAN, D(real) - D(fake): the second pass must not change the first one's gradient."""
    layer = nn.utils.spectral_norm(nn.Linear(3, 2, bias=False).double())
    start = layer.state_dict()
    x, z = h.draw(0, (4, 3), np.float64), h.draw(1, (4, 3), np.float64)
    first = layer(x).sum()
    layer(z)
    first.backward()
    together = layer.weight_orig.grad.copy()
    layer.load_state_dict(start)
    layer.zero_grad()
    layer(x).sum().backward()
    np.testing.assert_array_equal(layer.weight_orig.grad, together)


def test_spectral_norm_refuses():
    layer = nn.Linear(2, 2, bias=False)
    with (
        h.shapes_unchecked(),
        pytest.raises(ValueError, match="name must be a parameter of Linear, got 'bias'"),
    ):
        nn.utils.spectral_norm(layer, "bias")
    with h.shapes_unchecked(), pytest.raises(TypeError, match="module must be a dlnotes"):
        nn.utils.spectral_norm(Tensor(np.ones(2)))
    with (
        h.shapes_unchecked(),
        pytest.raises(ValueError, match="n_power_iterations must be at least 1"),
    ):
        nn.utils.spectral_norm(layer, n_power_iterations=0)
    with (
        h.shapes_unchecked(),
        pytest.raises(ValueError, match="'weight' is not normalised in Linear"),
    ):
        nn.utils.remove_spectral_norm(layer)
    nn.utils.spectral_norm(layer)
    with h.shapes_unchecked(), pytest.raises(ValueError, match="'weight' is normalised already"):
        nn.utils.spectral_norm(layer)
