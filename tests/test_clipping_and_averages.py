"""Gradient clipping and averages of weights equal torch's."""

import math

import core_helpers as h
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlnotes import nn, optim
from dlnotes.nn import utils
from dlnotes.optim import swa_utils


def with_gradients(shapes, dtype, seed, scale):
    """Return parameters of both engines; the second, if there is one, has no gradient."""
    ours, theirs = [], []
    for i, shape in enumerate(shapes):
        g = h.draw(seed + i, shape, dtype, scale)
        ours.append(nn.Parameter(np.zeros(shape, dtype)))
        theirs.append(torch.nn.Parameter(torch.zeros(shape, dtype=torch.tensor(g).dtype)))
        if i != 1:
            ours[-1].grad, theirs[-1].grad = np.array(g), torch.tensor(g)
    return ours, theirs


some = st.lists(h.shapes(0, 3), min_size=1, max_size=3)


@settings(deadline=None, max_examples=40)
@given(
    some,
    h.dtypes,
    h.scales,
    h.seeds,
    st.sampled_from([1, 2, 2.0, 3, 0.5, math.inf]),
    st.sampled_from([0, 0.1, 1, 1e6]),
)
def test_clip_by_norm(shapes, dtype, scale, seed, norm_type, max_norm):
    if norm_type == math.inf:
        shapes = [tuple(n or 1 for n in shape) for shape in shapes]  # torch refuses empty arrays
    ours, theirs = with_gradients(shapes, dtype, seed, scale)
    held = [p.grad for p in ours]
    total = utils.clip_grad_norm_(ours, max_norm, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    np.testing.assert_allclose(total, expected, rtol=10 * h.TOLERANCE[np.dtype(dtype)])
    for mine, torchs, array in zip(ours, theirs, held, strict=True):
        assert mine.grad is array  # in place
        if array is not None:
            h.assert_close(mine.grad, torchs.grad, dtype, scale, 10)


@settings(deadline=None, max_examples=30)
@given(some, h.dtypes, h.scales, h.seeds, st.sampled_from([0, 0.5, 30]))
def test_clip_by_value(shapes, dtype, scale, seed, clip_value):
    ours, theirs = with_gradients(shapes, dtype, seed, scale)
    utils.clip_grad_value_(ours, clip_value)
    torch.nn.utils.clip_grad_value_(theirs, clip_value)
    for mine, torchs in zip(ours, theirs, strict=True):
        if mine.grad is not None:
            np.testing.assert_array_equal(mine.grad, torchs.grad)
            assert mine.grad.dtype == dtype


def test_directions_stay_and_small_gradients_do():
    p = nn.Parameter(np.zeros(2))
    p.grad = np.array([30.0, 40.0])
    assert utils.clip_grad_norm_(p, 5) == 50
    np.testing.assert_allclose(p.grad, [3, 4], rtol=1e-6)
    assert utils.clip_grad_norm_([p], 100) == pytest.approx(5)
    np.testing.assert_allclose(p.grad, [3, 4], rtol=1e-6)
    assert utils.clip_grad_norm_([], 1) == 0
    assert utils.get_total_norm([p.grad, nn.Parameter(np.array(12.0))]) == pytest.approx(13)


def test_nan_spreads_or_raises_as_in_torch():
    p, q = nn.Parameter(np.zeros(1)), nn.Parameter(np.zeros(1))
    p.grad, q.grad = np.array([np.nan]), np.array([1.0])
    with pytest.raises(ValueError, match=r"the total norm of order 2\.0 is nan, so nothing is"):
        utils.clip_grad_norm_([p, q], 1, error_if_nonfinite=True)
    assert q.grad == 1
    assert np.isnan(utils.clip_grad_norm_([p, q], 1))
    assert np.isnan(q.grad)
    q.grad = np.array([np.inf])
    assert utils.clip_grad_norm_([q], 1, math.inf) == math.inf


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize(
    "values", [([5, 1], [math.nan]), ([math.inf], [math.nan]), ([math.inf], [1]), ([1e20], [1e20])]
)
def test_the_norm_of_bad_or_huge_gradients_is_torchs(values, norm_type):
    """Wherever NaN stands, and without a warning."""
    for order in (values, values[::-1]):
        arrays = [np.float32(v) for v in order]
        expected = torch.nn.utils.get_total_norm([torch.tensor(a) for a in arrays], norm_type)
        norm = utils.get_total_norm(arrays, norm_type)
        np.testing.assert_allclose(norm, expected, rtol=1e-6)
        if not np.isfinite(norm):
            with pytest.raises(ValueError, match="nothing is clipped"):
                utils.get_total_norm(arrays, norm_type, error_if_nonfinite=True)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 3e38])
def test_averages_and_steps_of_bad_numbers_come_without_a_warning(bad):
    layer, theirs = nn.Linear(1, 2), torch.nn.Linear(1, 2)
    average_of = optim.swa_utils.get_ema_avg_fn, torch.optim.swa_utils.get_ema_avg_fn
    ours = swa_utils.AveragedModel(layer, avg_fn=average_of[0](0.5))
    torchs = torch.optim.swa_utils.AveragedModel(theirs, avg_fn=average_of[1](0.5))
    for value in (1, bad, 1):
        for model, average in ((layer, ours), (theirs, torchs)):
            model.weight.data[...] = value
            average.update_parameters(model)
    expected = torchs.module.weight.detach()
    np.testing.assert_allclose(ours.module.weight.data, expected, rtol=1e-6)
    for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta"):
        p = nn.Parameter(np.float32([1, 2]))
        p.grad = np.float32([bad, 1])
        getattr(optim, name)([p], lr=0.1).step()
        assert np.isfinite(p.data[1])


def test_clipping_refuses_bad_input():
    p = nn.Parameter(np.zeros(1))
    with h.shapes_unchecked():
        for call, error, message in [
            (lambda: utils.clip_grad_norm_([p], -1), ValueError, "max_norm must be at least 0"),
            (lambda: utils.clip_grad_norm_([p], 1, 0), ValueError, "norm_type must be above 0"),
            (lambda: utils.clip_grad_norm_([1], 1), TypeError, "parameters must hold tensors"),
            (lambda: utils.clip_grad_norm_(3, 1), TypeError, "an iterable of tensors, got int"),
            (lambda: utils.clip_grad_value_([p], -1), ValueError, "clip_value must be at least 0"),
            (lambda: utils.get_total_norm([[1.0]]), TypeError, "tensors must be a NumPy array"),
        ]:
            with pytest.raises(error, match=message):
                call()


# ---- averages --------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [None, 0.9, 0.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_averaged_model_equals_torchs(decay, dtype):
    mine = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    mine = mine.double() if dtype == np.float64 else mine
    torchs = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    torchs = torchs.double() if dtype == np.float64 else torchs
    settings = [{}, {}]
    if decay is not None:
        settings[0]["avg_fn"] = swa_utils.get_ema_avg_fn(decay)
        settings[1]["multi_avg_fn"] = torch.optim.swa_utils.get_ema_multi_avg_fn(decay)
    ours = swa_utils.AveragedModel(mine, **settings[0])
    theirs = torch.optim.swa_utils.AveragedModel(torchs, **settings[1])
    rng = np.random.default_rng(0)
    for _ in range(6):
        weights = {
            k: rng.standard_normal(v.shape).astype(dtype) for k, v in mine.state_dict().items()
        }
        mine.load_state_dict(weights)
        torchs.load_state_dict(nn.to_torch(weights))
        ours.update_parameters(mine)
        theirs.update_parameters(torchs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        if key == "n_averaged":
            assert ours.state_dict()[key] == value.numpy()
            assert ours.state_dict()[key].dtype == np.int64
        else:
            h.assert_close(ours.state_dict()[key], value, dtype)
    x = rng.standard_normal((2, 3)).astype(dtype)
    h.assert_close(ours(x).detach().numpy(), theirs(torch.tensor(x)), dtype, 10, 10)
    # The averages do not move with the model, and are restored from a state_dict.
    fresh = swa_utils.AveragedModel(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)))
    fresh.load_state_dict(theirs.state_dict())
    assert fresh.n_averaged == 6
    np.testing.assert_allclose(fresh.module[0].weight.data, ours.module[0].weight.data, rtol=1e-5)


def test_the_copy_is_of_its_own():
    model = nn.Linear(2, 1)
    averaged = swa_utils.AveragedModel(model)
    assert not np.shares_memory(model.weight.data, averaged.module.weight.data)
    averaged.update_parameters(model)
    before = averaged.module.weight.data.copy()
    model.weight.data += 1
    np.testing.assert_array_equal(averaged.module.weight.data, before)


def test_update_bn_equals_torchs():
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((n, 2, 5, 4)).astype(np.float32) for n in (4, 3, 6)]
    mine, theirs = (
        engine.Sequential(
            engine.BatchNorm2d(2),
            engine.Conv2d(2, 3, 3),
            engine.InstanceNorm2d(3, track_running_stats=True),
            engine.Flatten(),
            engine.BatchNorm1d(18),
        ).eval()
        for engine in (nn, torch.nn)
    )
    mine.load_state_dict(theirs.state_dict())
    for model, batch in ((mine, batches[0]), (theirs, torch.tensor(batches[0]))):
        model.train()(batch + 5)  # statistics that must be forgotten
        model.eval()[0].train()
    swa_utils.update_bn([(x, "label") for x in batches], mine)
    torch_batches = [(torch.tensor(x), "label") for x in batches]
    torch.optim.swa_utils.update_bn(torch_batches, theirs)
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(mine.state_dict()[key], value, rtol=1e-5, atol=1e-6)
    assert mine[0].momentum == mine[4].momentum == 0.1
    assert [m.training for m in mine] == [True, False, False, False, False]


def test_update_bn_puts_things_back_when_a_batch_fails():
    model = nn.Sequential(nn.BatchNorm1d(2)).eval()
    with h.shapes_unchecked(), pytest.raises(ValueError, match="running_mean must have"):
        swa_utils.update_bn([np.ones((3, 3), np.float32)], model)
    assert model[0].momentum == 0.1
    assert not model.training
    assert not model[0].training
    swa_utils.update_bn(iter([None]), nn.Linear(2, 1))  # nothing to do: the batch is not looked at


def test_averaging_refuses_bad_input():
    averaged = swa_utils.AveragedModel(nn.Linear(2, 1))
    with h.shapes_unchecked():
        for call, error, message in [
            (lambda: swa_utils.AveragedModel(3), TypeError, "model must be a Module, got int"),
            (lambda: swa_utils.AveragedModel(nn.Linear(1, 1), avg_fn=3), TypeError, "avg_fn must"),
            (lambda: swa_utils.get_ema_avg_fn(1.5), ValueError, r"decay must be in 0 … 1, got 1.5"),
            (
                lambda: averaged.update_parameters(nn.Linear(3, 1)),
                ValueError,
                "model must have the parameters",
            ),
            (lambda: averaged.load_state_dict({}), ValueError, "missing: n_averaged"),
        ]:
            with pytest.raises(error, match=message):
                call()


def test_an_exploding_run_is_rescued():
    def loss_after(clip):
        p = nn.Parameter(np.array([10.0]))
        sgd = optim.SGD([p], lr=0.1)
        for _ in range(100):
            sgd.zero_grad()
            (p**4).sum().backward()
            if clip:
                utils.clip_grad_norm_([p], 1.0)
            sgd.step()
            if abs(p.data) > 1e50:
                return math.inf
        return p.item() ** 4

    assert loss_after(clip=False) == math.inf
    assert loss_after(clip=True) < 1
