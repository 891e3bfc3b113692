"""SGD equals torch's step by step; its state can be saved, restored and exchanged."""

import core_helpers as h
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlnotes import nn, optim


def pair(shapes, dtype, seed=0):
    """Return the same parameters on both engines."""
    values = [h.draw(seed + i, shape, dtype) for i, shape in enumerate(shapes)]
    ours = [nn.Parameter(value.copy()) for value in values]
    return ours, [torch.nn.Parameter(torch.tensor(value)) for value in values]


def step_both(ours, theirs, optimizers, seed, skip=()):
    """Give both the same random gradients (none to the skipped), and take one step each."""
    for i, (mine, torchs) in enumerate(zip(ours, theirs, strict=True)):
        g = None if i in skip else h.draw(seed + i, mine.shape, mine.dtype)
        mine.grad = g
        torchs.grad = None if g is None else torch.tensor(g)
    for optimizer in optimizers:
        optimizer.step()


def assert_same(ours, theirs, dtype):
    for mine, torchs in zip(ours, theirs, strict=True):
        h.assert_close(mine.data, torchs, dtype, 10)


@st.composite
def sgd_settings(draw):
    settings = {
        "lr": draw(st.sampled_from([0, 1, 0.1, 1e-3])),
        "momentum": draw(st.sampled_from([0, 0.5, 0.9])),
        "weight_decay": draw(st.sampled_from([0, 0.01, 0.5])),
    }
    if settings["momentum"] and draw(st.booleans()):
        settings["nesterov"] = True
    else:
        settings["dampening"] = draw(st.sampled_from([0, 0.1, 1]))
    return settings


@settings(deadline=None, max_examples=50)
@given(sgd_settings(), st.lists(h.shapes(0, 3), min_size=1, max_size=3), h.dtypes, h.seeds)
def test_equal_to_torch_step_by_step(keywords, shapes, dtype, seed):
    ours, theirs = pair(shapes, dtype, seed)
    optimizers = optim.SGD(ours, **keywords), torch.optim.SGD(theirs, **keywords)
    for step in range(6):
        skip = {step % len(shapes)} if step in (0, 3) else ()  # a parameter without a gradient
        step_both(ours, theirs, optimizers, seed + 10 * step, skip)
        assert_same(ours, theirs, dtype)


def test_defaults_are_torchs():
    ours, theirs = pair([(2,)], np.float32)
    defaults = torch.optim.SGD(theirs).defaults
    for name, value in optim.SGD(ours).defaults.items():
        assert defaults[name] == value


def test_groups_and_a_changed_learning_rate():
    ours, theirs = pair([(2,), (3,), ()], np.float64)

    def groups(p):
        return [{"params": p[:1], "lr": 0.5}, {"params": p[1:], "weight_decay": 0.1}]

    optimizers = (
        optim.SGD(groups(ours), lr=0.1, momentum=0.9),
        torch.optim.SGD(groups(theirs), lr=0.1, momentum=0.9),
    )
    for step in range(4):
        step_both(ours, theirs, optimizers, step)
        assert_same(ours, theirs, np.float64)
        for optimizer in optimizers:
            optimizer.param_groups[1]["lr"] = np.float64(0.05)  # must not turn into float64 data
    assert ours[0].dtype == np.float64


def test_numpy_settings_keep_float32():
    p = nn.Parameter(np.ones(3, np.float32))
    sgd = optim.SGD([p], lr=np.float64(0.1), momentum=np.float64(0.9), weight_decay=np.float64(0.1))
    for _ in range(2):
        p.grad = np.ones(3, np.float32)
        sgd.step()
    assert p.dtype == np.float32
    assert sgd.state[p]["momentum_buffer"].dtype == np.float32


def test_steps_are_in_place_and_leave_the_gradient():
    p = nn.Parameter(np.ones(3))
    data, g = p.data, np.full(3, 2.0)
    p.grad = g
    sgd = optim.SGD([p], lr=0.1, momentum=0.9, weight_decay=0.5)
    for _ in range(3):
        sgd.step()
    assert p.data is data
    np.testing.assert_array_equal(g, 2)
    sgd.zero_grad()
    assert p.grad is None
    before = data.copy()
    sgd.step()  # no gradient, no change
    np.testing.assert_array_equal(data, before)


@pytest.mark.parametrize("source", ["ours", "torch"])
def test_state_restored_continues_the_run(source):
    ours, theirs = pair([(2, 3), (4,)], np.float64)
    keywords = {"lr": 0.1, "momentum": 0.9, "nesterov": True}
    first, reference = optim.SGD(ours, **keywords), torch.optim.SGD(theirs, **keywords)
    for step in range(3):
        step_both(ours, theirs, (first, reference), step)
    state = first.state_dict() if source == "ours" else reference.state_dict()
    if source == "torch":
        assert set(first.state_dict()["state"]) == set(state["state"])
        assert first.state_dict()["param_groups"][0]["params"] == state["param_groups"][0]["params"]

    fresh = [nn.Parameter(p.data.copy()) for p in ours]
    second = optim.SGD(fresh, lr=1e9)
    second.load_state_dict(state)
    assert second.param_groups[0]["lr"] == 0.1
    for step in range(3):
        step_both(fresh, theirs, (second, reference), 100 + step)
    assert_same(fresh, theirs, np.float64)


def test_state_dict_is_a_copy():
    p = nn.Parameter(np.ones(2))
    sgd = optim.SGD([p], lr=0.1, momentum=0.9)
    p.grad = np.ones(2)
    sgd.step()
    state = sgd.state_dict()
    state["state"][0]["momentum_buffer"][...] = 99
    state["param_groups"][0]["lr"] = 99
    np.testing.assert_array_equal(sgd.state[p]["momentum_buffer"], 1)
    assert sgd.param_groups[0]["lr"] == 0.1
    sgd.load_state_dict(state)
    state["state"][0]["momentum_buffer"][...] = 0
    np.testing.assert_array_equal(sgd.state[p]["momentum_buffer"], 99)


def test_state_that_does_not_fit_changes_nothing():
    p = nn.Parameter(np.ones(2))
    sgd = optim.SGD([p], lr=0.1, momentum=0.9)
    state = sgd.state_dict()
    other = optim.SGD([nn.Parameter(np.ones(2)), nn.Parameter(np.ones(2))], lr=3)
    with pytest.raises(ValueError, match=r"parameter groups of sizes \[1\], got \[2\]"):
        sgd.load_state_dict(other.state_dict())
    state["state"] = {0: {"momentum_buffer": np.ones(3)}}
    state["param_groups"][0]["lr"] = 7
    with pytest.raises(ValueError, match=r"momentum_buffer of parameter 0 must have shape \(2,\)"):
        sgd.load_state_dict(state)
    assert sgd.param_groups[0]["lr"] == 0.1
    assert sgd.state == {}


def test_frozen_parameters_stay():
    frozen, free = nn.Parameter([1.0], requires_grad=False), nn.Parameter([1.0])
    sgd = optim.SGD([frozen, free], lr=0.5, weight_decay=0.1)
    (frozen * free).sum().backward()
    sgd.step()
    assert frozen.item() == 1
    assert free.item() == pytest.approx(1 - 0.5 * (1 + 0.1))


def test_repr_names_the_settings():
    text = repr(optim.SGD([nn.Parameter(np.ones(1))], lr=0.25))
    assert text.startswith("SGD (\nParameter Group 0\n")
    assert "    lr: 0.25\n" in text


p = nn.Parameter(np.ones(2))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: optim.SGD(p), TypeError, "params must be an iterable of tensors or of dicts"),
        (lambda: optim.SGD([]), ValueError, "params must hold at least one parameter"),
        (lambda: optim.SGD([np.ones(2)]), TypeError, "params must hold tensors, got ndarray"),
        (lambda: optim.SGD([p * 2]), ValueError, "must hold leaf tensors, got the result of 'mul'"),
        (lambda: optim.SGD([p, p]), ValueError, "the same parameter twice"),
        (lambda: optim.SGD([{"params": [p]}, {"params": [p]}]), ValueError, "twice"),
        (lambda: optim.SGD([{"lr": 1}]), TypeError, "a dict with the key 'params'"),
        (lambda: optim.SGD([{"params": [p], "rate": 1}]), ValueError, r"unknown .*\['rate'\]"),
        (lambda: optim.SGD([p], lr=-1), ValueError, "lr must be at least 0, got -1"),
        (lambda: optim.SGD([p], lr=float("nan")), ValueError, "lr must be finite"),
        (lambda: optim.SGD([p], lr="1"), TypeError, "lr must be a number, got str"),
        (lambda: optim.SGD([p], momentum=-1), ValueError, "momentum must be at least 0"),
        (lambda: optim.SGD([p], weight_decay=-1), ValueError, "weight_decay must be at least 0"),
        (lambda: optim.SGD([p], nesterov=True), ValueError, "nesterov needs momentum above 0"),
        (
            lambda: optim.SGD([p], momentum=0.9, dampening=0.1, nesterov=True),
            ValueError,
            "and dampening 0",
        ),
    ],
)
def test_bad_input(call, error, message):
    with h.shapes_unchecked(), pytest.raises(error, match=message):
        call()
