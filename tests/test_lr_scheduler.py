"""Every schedule equals torch's epoch by epoch; the book's own give their tables."""

import inspect
import warnings

import core_helpers as h
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlnotes import data, nn, optim, train
from dlnotes.optim import lr_scheduler as ours
from dlnotes.optim import schedules

torchs = torch.optim.lr_scheduler
whole, rate = st.integers(1, 12), st.sampled_from([1.0, 0.5, 0.1, 0.9])


def optimizers(kind="SGD", groups=((0.1,), (0.02,)), **settings):
    """Return the same optimiser on both engines."""
    made = []
    for module, tensor in ((optim, nn.Parameter), (torch.optim, lambda a: torch.tensor(a))):
        params = [{"params": [tensor(np.ones(2))], "lr": lr} for (lr,) in groups]
        made.append(getattr(module, kind)(params, **settings))
    return made


def engines(*arguments):
    """Return the schedules and an optimiser of each engine."""
    return zip((ours, torchs), optimizers(*arguments), strict=True)


def step_both(pair, *arguments):
    for scheduler in pair:
        # torch warns where a schedule goes on without its optimiser, and of an odd use of step.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler.optimizer.step()
            scheduler.step(*arguments)


def rates(pair, keys=("lr",)):
    """Return what stands in the parameter groups, for each engine."""
    return [
        np.hstack([group[key] for group in s.optimizer.param_groups for key in keys]) for s in pair
    ]


def assert_equal(pair, keys=("lr",), rtol=1e-12):
    mine, expected = rates(pair, keys)
    np.testing.assert_allclose(mine, expected, rtol=rtol, atol=1e-15)
    np.testing.assert_array_equal(pair[0].get_last_lr(), rates(pair)[0])


def milestones():
    return st.lists(st.integers(1, 12), max_size=4)


ARGUMENTS = {
    "StepLR": st.fixed_dictionaries({"step_size": whole, "gamma": rate}),
    "MultiStepLR": st.fixed_dictionaries({"milestones": milestones(), "gamma": rate}),
    "ConstantLR": st.fixed_dictionaries({"factor": rate, "total_iters": st.integers(0, 9)}),
    "LinearLR": st.fixed_dictionaries(
        {"start_factor": rate, "end_factor": st.one_of(rate, st.just(0)), "total_iters": whole}
    ),
    "ExponentialLR": st.fixed_dictionaries({"gamma": rate}),
    "PolynomialLR": st.fixed_dictionaries({"total_iters": whole, "power": rate}),
    "CosineAnnealingLR": st.fixed_dictionaries(
        {"T_max": whole, "eta_min": st.sampled_from([0, 0.01])}
    ),
    "CosineAnnealingWarmRestarts": st.fixed_dictionaries(
        {"T_0": whole, "T_mult": st.integers(1, 3), "eta_min": st.sampled_from([0, 0.01])}
    ),
}


@pytest.mark.parametrize("name", ARGUMENTS)
@settings(deadline=None, max_examples=25)
@given(st.data())
def test_equal_to_torch_epoch_by_epoch(name, data):
    arguments = data.draw(ARGUMENTS[name])
    pair = [getattr(m, name)(o, **arguments) for m, o in engines()]
    changed_at = data.draw(st.sampled_from([None, 3]))  # a rate set by hand
    for epoch in range(30):
        assert_equal(pair, rtol=1e-9)
        if epoch == changed_at:
            for scheduler in pair:
                scheduler.optimizer.param_groups[0]["lr"] = 0.03
        step_both(pair)


@settings(deadline=None, max_examples=40)
@given(
    st.one_of(rate, st.tuples(rate, rate)),
    st.integers(0, 12),
    st.sampled_from(["cos", "linear"]),
    st.sampled_from([None, 3]),
)
def test_swalr(swa_lr, epochs, strategy, changed_at):
    pair = [
        module.SWALR(o, list(swa_lr) if isinstance(swa_lr, tuple) else swa_lr, epochs, strategy)
        for module, o in zip((optim.swa_utils, torch.optim.swa_utils), optimizers(), strict=True)
    ]
    for epoch in range(20):
        assert_equal(pair, rtol=1e-9)
        if epoch == changed_at:  # another schedule has set the rate
            for scheduler in pair:
                scheduler.optimizer.param_groups[0]["lr"] = 0.03
        step_both(pair)


def test_swalr_goes_on_from_a_state_dict():
    def schedule():
        return optim.swa_utils.SWALR(optimizers()[0], 0.01, 6)

    straight, broken = schedule(), schedule()
    for _ in range(3):
        straight.step(), broken.step()
    resumed = schedule()
    resumed.load_state_dict(broken.state_dict())
    resumed.optimizer.load_state_dict(broken.optimizer.state_dict())
    for _ in range(5):
        straight.step(), resumed.step()
        np.testing.assert_array_equal(resumed.get_last_lr(), straight.get_last_lr())
    with h.shapes_unchecked(), pytest.raises(ValueError, match="anneal_strategy must be one of"):
        optim.swa_utils.SWALR(optimizers()[0], 0.01, 6, "exp")


@pytest.mark.parametrize("name", ["LambdaLR", "MultiplicativeLR"])
def test_functions_of_the_epoch(name):
    for functions in (lambda e: 0.9**e, [lambda e: 1 / (1 + e), lambda e: 0.5]):
        pair = [getattr(m, name)(o, functions) for m, o in engines()]
        for _ in range(10):
            assert_equal(pair)
            step_both(pair)


def flat(n):
    return st.one_of(st.just(n), st.just([n, n / 2]))


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(["triangular", "triangular2", "exp_range"]),
    st.integers(1, 5),
    st.one_of(st.none(), st.integers(1, 5)),
    flat(0.01),
    flat(0.3),
    st.sampled_from(["SGD", "Adam", None]),
    st.sampled_from([None, "cycle", "iterations"]),
)
def test_cyclic(mode, up, down, base, top, kind, scale):
    settings = {"mode": mode, "step_size_up": up, "step_size_down": down, "gamma": 0.9}
    if scale:
        settings |= {"scale_fn": lambda x: 1 / (1 + x), "scale_mode": scale}
    pair = [
        m.CyclicLR(o, base, top, cycle_momentum=kind is not None, **settings)
        for m, o in engines(kind or "SGD")
    ]
    keys = ("lr", "betas" if kind == "Adam" else "momentum")
    for _ in range(25):
        assert_equal(pair, keys)
        step_both(pair)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(2, 15),
    st.sampled_from([0.0, 0.25, 0.3, 0.4]),
    st.sampled_from(["cos", "linear"]),
    st.booleans(),
    flat(0.3),
    st.sampled_from(["SGD", "Adam", None]),
    st.booleans(),
)
def test_one_cycle(steps, start, strategy, three, top, kind, by_epochs):
    if start * steps == 1 or (three and 2 * start * steps - 2 in (0, steps - 1)):
        return  # a phase of no length, where torch divides by 0
    length = {"epochs": steps, "steps_per_epoch": 1} if by_epochs else {"total_steps": steps}
    pair = [
        m.OneCycleLR(
            *(o, top),
            **length,
            pct_start=start,
            anneal_strategy=strategy,
            three_phase=three,
            cycle_momentum=kind is not None,
        )
        for m, o in engines(kind or "SGD")
    ]
    keys = ("lr", "betas" if kind == "Adam" else "momentum")
    for _ in range(steps):
        assert_equal(pair, keys, rtol=1e-10)
        step_both(pair)
    with pytest.raises(ValueError, match=f"total_steps is {steps}, but this would be step"):
        pair[0].step()


def test_one_cycle_with_a_phase_of_no_length_starts_at_the_top():
    (sgd, _) = optimizers()
    scheduler = ours.OneCycleLR(sgd, 0.5, total_steps=10, pct_start=0.1)
    assert scheduler.get_last_lr() == [0.5, 0.5]


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(["min", "max"]),
    st.sampled_from(["rel", "abs"]),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from([0, 0.004, [0.05, 0.001]]),
    st.sampled_from([0, 1e-4, 0.3]),
    h.seeds,
)
def test_reduce_on_plateau(mode, threshold_mode, patience, cooldown, min_lr, threshold, seed):
    settings = {
        "mode": mode,
        "threshold_mode": threshold_mode,
        "patience": patience,
        "cooldown": cooldown,
        "min_lr": min_lr,
        "threshold": threshold,
        "factor": 0.5,
    }
    pair = [m.ReduceLROnPlateau(o, **settings) for m, o in engines()]
    values = np.random.default_rng(seed).choice([1.0, 0.9, 0.5, 2.0, np.nan], 30)
    for value in values:
        step_both(pair, float(value))
        assert_equal(pair)
        assert pair[0].num_bad_epochs == pair[1].num_bad_epochs


# ---- several schedules -----------------------------------------------------------------------

PARTS = {
    "warm-up": lambda m, o: m.LinearLR(o, 0.1, total_iters=3),
    "constant": lambda m, o: m.ConstantLR(o, 0.5, 2),
    "exponential": lambda m, o: m.ExponentialLR(o, 0.8),
    "steps": lambda m, o: m.StepLR(o, 2, 0.5),
    "milestones": lambda m, o: m.MultiStepLR(o, [1, 4], 0.5),
    "cosine": lambda m, o: m.CosineAnnealingLR(o, 6),
    "polynomial": lambda m, o: m.PolynomialLR(o, 6, 2.0),
    "restarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, 3, 2),
    "function": lambda m, o: m.LambdaLR(o, lambda e: 1 / (1 + e)),
    "cyclic": lambda m, o: m.CyclicLR(o, 0.01, 0.1, 3, cycle_momentum=False),
}
parts = st.lists(st.sampled_from(sorted(PARTS)), min_size=1, max_size=3)


@settings(deadline=None, max_examples=40)
@given(parts, st.lists(st.integers(1, 9), min_size=2, max_size=2, unique=True))
def test_one_after_another(names, at):
    at = sorted(at)[: len(names) - 1]
    pair = [m.SequentialLR(o, [PARTS[name](m, o) for name in names], at) for m, o in engines()]
    for _ in range(15):
        assert_equal(pair, rtol=1e-9)
        step_both(pair)


@settings(deadline=None, max_examples=40)
@given(parts)
def test_several_at_once(names):
    pair = [m.ChainedScheduler([PARTS[name](m, o) for name in names]) for m, o in engines()]
    for _ in range(15):
        assert_equal(pair, rtol=1e-9)
        step_both(pair)


def test_a_chain_inside_a_sequence_begins_anew():
    (sgd, _) = optimizers()
    chain = ours.ChainedScheduler([PARTS["exponential"](ours, sgd), PARTS["polynomial"](ours, sgd)])
    sequence = ours.SequentialLR(sgd, [PARTS["warm-up"](ours, sgd), chain], [2])
    seen = []
    for _ in range(5):
        seen.append(sequence.get_last_lr()[0])
        sequence.step()
    expected = [0.1, 0.4, 1, 0.8 * (5 / 6) ** 2, 0.64 * (4 / 6) ** 2]
    np.testing.assert_allclose(seen, 0.1 * np.array(expected))


# ---- state -----------------------------------------------------------------------------------

STATEFUL = {
    **PARTS,
    "one cycle": lambda m, o: m.OneCycleLR(o, 0.3, total_steps=20),
    "in turn": lambda m, o: m.SequentialLR(
        o, [PARTS["warm-up"](m, o), PARTS["restarts"](m, o)], [4]
    ),
    "at once": lambda m, o: m.ChainedScheduler([PARTS["warm-up"](m, o), PARTS["steps"](m, o)]),
    "plateau": lambda m, o: m.ReduceLROnPlateau(o, patience=1, factor=0.5),
}


@pytest.mark.parametrize("name", STATEFUL)
def test_state_restored_continues(name):
    (first, _), (second, _) = optimizers(), optimizers(groups=((9.0,), (9.0,)))
    a = STATEFUL[name](ours, first)
    loss = (1.0,) if name == "plateau" else ()
    for _ in range(6):
        a.step(*loss)
    b = STATEFUL[name](ours, second)
    state, optimizer_state = a.state_dict(), first.state_dict()
    a.step(*loss)  # what was saved must not move
    b.load_state_dict(state)
    second.load_state_dict(optimizer_state)
    b.step(*loss)
    for _ in range(6):
        assert a.get_last_lr() == b.get_last_lr()
        assert first.param_groups[0]["lr"] == second.param_groups[0]["lr"]
        a.step(*loss)
        b.step(*loss)


@pytest.mark.parametrize("name", ["warm-up", "one cycle", "in turn", "plateau", "milestones"])
def test_a_killed_run_resumes_with_its_schedule(name, tmp_path):
    x = h.draw(0, (12, 3), np.float32)
    y = x @ np.float32([[1], [2], [3]])

    def run(epochs, checkpoint=None):
        model = nn.Linear(3, 1)
        model.load_state_dict({"weight": np.ones((1, 3)), "bias": np.zeros(1)})
        adam = optim.Adam(model.parameters(), lr=0.05)
        rates = []
        train.fit(
            model,
            data.DataLoader(data.TensorDataset(x, y), batch_size=4),
            loss_fn=nn.MSELoss(),
            optimizer=adam,
            scheduler=STATEFUL[name](ours, adam),
            epochs=epochs,
            checkpoint=checkpoint,
            progress=False,
            restore_best=False,
            callbacks=[lambda *_: rates.append(adam.param_groups[0]["lr"])],
        )
        return rates, model.state_dict()

    rates, weights = run(8)
    run(3, tmp_path / "run.npz")
    later, resumed = run(8, tmp_path / "run.npz")
    assert later == rates[3:]
    assert len(set(rates)) > 1 or name == "plateau"
    for key in weights:
        np.testing.assert_array_equal(resumed[key], weights[key])


def test_a_schedule_resumes_from_the_number_of_its_epoch():
    for name, arguments in (("StepLR", (3,)), ("CosineAnnealingLR", (8,)), ("LinearLR", ())):
        pair = []
        for module, optimizer in engines():
            for group in optimizer.param_groups:
                group["initial_lr"] = 1.0
            pair.append(getattr(module, name)(optimizer, *arguments, last_epoch=3))
        for _ in range(5):
            assert_equal(pair)
            step_both(pair)


@pytest.mark.parametrize(
    "name",
    [
        *(*ARGUMENTS, "LambdaLR", "MultiplicativeLR", "CyclicLR", "OneCycleLR"),
        *("ReduceLROnPlateau", "ChainedScheduler", "SequentialLR"),
    ],
)
def test_names_and_defaults_are_torchs(name):
    mine, expected = (inspect.signature(getattr(m, name)).parameters for m in (ours, torchs))
    left_out = ["last_epoch"] if name == "SequentialLR" else []
    assert [*mine, *left_out] == list(expected)
    for key in mine:
        assert mine[key].default == expected[key].default, key


# ---- the book's own functions ----------------------------------------------------------------


def table(function, n):
    return [function(epoch) for epoch in range(n)]


def test_tables_of_rates():
    inverse = 0.2 * np.array(table(schedules.inverse_time(1), 5))
    np.testing.assert_allclose(inverse, [0.2, 0.1, 0.2 / 3, 0.05, 0.04])
    assert round(inverse[2], 3) == 0.067  # a table that is often copied has 0.67
    np.testing.assert_allclose(table(schedules.inverse_time(1, first=1), 2), [1 / 2, 1 / 3])
    np.testing.assert_allclose(table(schedules.inverse_sqrt(3), 3), [3, 3 / 2**0.5, 3 / 3**0.5])
    np.testing.assert_allclose(table(schedules.exponential(0.95), 3), [1, 0.95, 0.9025])
    assert table(schedules.staircase(2), 5) == [1, 1, 0.5, 0.5, 0.25]
    assert table(schedules.manual({2: 0.1, 4: 0.01}), 6) == [1, 1, 0.1, 0.1, 0.01, 0.01]
    assert table(schedules.manual({0: 2}), 2) == [2, 2]
    halfway = 0.6 + 0.4 * np.sqrt([1 / 2])
    np.testing.assert_allclose(
        table(schedules.cosine(4, 0.2), 6), [1, *halfway, 0.6, *(1.2 - halfway), 0.2, 0.2]
    )
    np.testing.assert_allclose(table(schedules.cyclic(0.5, 2), 6), [0.5, 0.75, 1, 0.75, 0.5, 0.75])
    assert table(schedules.warmup(4), 6) == [0.25, 0.5, 0.75, 1, 1, 1]
    assert table(schedules.warmup(2, schedules.staircase(1)), 5) == [0.5, 1, 1, 0.5, 0.25]


def test_they_serve_a_schedule():
    (sgd, _) = optimizers(groups=((0.2,),))
    scheduler = ours.LambdaLR(sgd, schedules.inverse_time(1.0))
    scheduler.step()
    assert sgd.param_groups[0]["lr"] == pytest.approx(0.1)


# ---- bad input -------------------------------------------------------------------------------


def sgd():
    return optim.SGD([nn.Parameter(np.ones(2))], lr=0.1)


def mixed():
    return [ours.StepLR(sgd(), 1), ours.StepLR(sgd(), 1)]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ours.StepLR("sgd", 1), TypeError, "optimizer must be an Optimizer, got str"),
        (lambda: ours.StepLR(sgd(), 0), ValueError, "step_size must be at least 1, got 0"),
        (lambda: ours.StepLR(sgd(), 1.5), TypeError, "step_size must be an int"),
        (lambda: ours.StepLR(sgd(), 1, None), TypeError, "gamma must be a number"),
        (lambda: ours.StepLR(sgd(), 1, last_epoch=3), ValueError, "group 0 must have initial_lr"),
        (lambda: ours.MultiStepLR(sgd(), [0.5]), TypeError, "milestones must be an int"),
        (lambda: ours.LambdaLR(sgd(), [len, len]), ValueError, "one function for each of 1 groups"),
        (lambda: ours.LambdaLR(sgd(), 0.9), TypeError, "lr_lambda must be a function of the epoch"),
        (lambda: ours.LinearLR(sgd(), 0), ValueError, "start_factor must be above 0"),
        (lambda: ours.LinearLR(sgd(), 2), ValueError, "start_factor must be in 0 … 1, got 2"),
        (lambda: ours.ConstantLR(sgd(), 1.5), ValueError, "factor must be in 0 … 1"),
        (lambda: ours.PolynomialLR(sgd(), 0), ValueError, "total_iters must be at least 1"),
        (lambda: ours.CosineAnnealingLR(sgd(), 0), ValueError, "T_max must be at least 1"),
        (lambda: ours.CosineAnnealingWarmRestarts(sgd(), 0), ValueError, "T_0 must be at least 1"),
        (lambda: ours.CyclicLR(sgd(), 0.1, 1, mode="zigzag"), ValueError, "mode must be one of"),
        (
            lambda: ours.CyclicLR(sgd(), 0.1, 1, scale_fn=2),
            TypeError,
            "scale_fn must be a function",
        ),
        (lambda: ours.CyclicLR(sgd(), [1, 2], 3), ValueError, "base_lr must have one value for ea"),
        (
            lambda: ours.CyclicLR(optim.Adagrad([nn.Parameter(np.ones(2))]), 0.1, 1),
            ValueError,
            "cycle_momentum=True needs an optimizer with momentum or betas, got Adagrad",
        ),
        (lambda: ours.OneCycleLR(sgd(), 1), ValueError, "total_steps, or epochs and steps_per_ep"),
        (lambda: ours.OneCycleLR(sgd(), 1, 5, pct_start=2), ValueError, "pct_start must be in 0"),
        (
            lambda: ours.OneCycleLR(sgd(), 1, 5, anneal_strategy="sin"),
            ValueError,
            "anneal_strategy",
        ),
        (lambda: ours.ReduceLROnPlateau(sgd(), "best"), ValueError, "mode must be one of"),
        (lambda: ours.ReduceLROnPlateau(sgd(), factor=1), ValueError, "factor must be below 1"),
        (lambda: ours.SequentialLR(sgd(), [], []), ValueError, "a list of at least one schedule"),
        (
            lambda: ours.SequentialLR(sgd(), mixed(), [1]),
            ValueError,
            "belong to the same optimizer",
        ),
        (lambda: ours.ChainedScheduler(mixed()), ValueError, "belong to the same optimizer"),
        (lambda: ours.ChainedScheduler([1]), TypeError, "schedulers must hold schedules, got int"),
        (
            lambda: ours.ChainedScheduler([ours.ReduceLROnPlateau(sgd())]),
            ValueError,
            "schedulers cannot hold ReduceLROnPlateau",
        ),
        (
            lambda: ours.SequentialLR((o := sgd()), [ours.StepLR(o, 1), ours.StepLR(o, 1)], []),
            ValueError,
            "milestones must be one fewer than schedulers, got 0 and 2",
        ),
        (
            lambda: ours.SequentialLR((o := sgd()), [ours.StepLR(o, 1)] * 3, [3, 1]),
            ValueError,
            r"milestones must rise, got \[3, 1\]",
        ),
        (
            lambda: ours.StepLR(sgd(), 1).load_state_dict({"gamma": 1}),
            ValueError,
            "state_dict does not fit StepLR",
        ),
        (lambda: schedules.inverse_time(-1), ValueError, "decay must be at least 0"),
        (lambda: schedules.inverse_sqrt(1, first=0), ValueError, "first must be at least 1"),
        (lambda: schedules.staircase(0), ValueError, "every must be at least 1"),
        (lambda: schedules.manual([1]), TypeError, "factors must be a dict of epochs, got list"),
        (lambda: schedules.warmup(0), ValueError, "epochs must be at least 1"),
        (lambda: schedules.warmup(2, 0.5), TypeError, "then must be a function of the epoch"),
    ],
)
def test_bad_input(call, error, message):
    with h.shapes_unchecked(), pytest.raises(error, match=message):
        call()
