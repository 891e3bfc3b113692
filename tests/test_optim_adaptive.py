"""Every optimiser equals torch's over many steps; the rules work in place as documented."""

import inspect

import core_helpers as h
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlnotes import kernels, nn, optim

NAMES = ["SGD", "Adagrad", "RMSprop", "Adadelta", "Adam", "AdamW"]
few = st.sampled_from


@st.composite
def configurations(draw, name):
    """Draw settings of one optimiser; most of them off their defaults."""
    common = {
        "lr": draw(few([0, 0.5, 0.1, 1e-3])),
        "weight_decay": draw(few([0, 0.01, 0.5])),
        "maximize": draw(st.booleans()),
    }
    eps = draw(few([1e-8, 1e-3]))
    own = {
        "SGD": {"momentum": draw(few([0, 0.9]))},
        "Adagrad": {
            "lr_decay": draw(few([0, 0.1])),
            "initial_accumulator_value": draw(few([0, 0.3])),
            "eps": eps,
        },
        "RMSprop": {
            "alpha": draw(few([0.99, 0.5])),
            "momentum": draw(few([0, 0.9])),
            # With m the mean of n gradients, s - m² cancels at n = 1: leave it some digits.
            "centered": draw(st.booleans()),
            "eps": 1e-3,
        },
        "Adadelta": {"rho": draw(few([0, 0.9, 0.5])), "eps": eps},
        "Adam": {
            "betas": draw(few([(0.9, 0.999), (0.0, 0.5), (0.8, 0.9)])),
            "amsgrad": draw(st.booleans()),
            "eps": eps,
        },
    }
    own["AdamW"] = own["Adam"]
    return {**common, **own[name]}


def pair(shapes, dtype, seed):
    values = [h.draw(seed + i, shape, dtype) for i, shape in enumerate(shapes)]
    ours = [nn.Parameter(value.copy()) for value in values]
    return ours, [torch.nn.Parameter(torch.tensor(value)) for value in values]


def step_both(ours, theirs, optimizers, seed, skip=(), kept=1.0):
    """Take one step each with the same gradients: none for the skipped, zeros but for `kept`."""
    rng = np.random.default_rng(seed)
    for i, (mine, torchs) in enumerate(zip(ours, theirs, strict=True)):
        g = h.draw(seed + i, mine.shape, mine.dtype) * (rng.uniform(size=mine.shape) < kept)
        g = None if i in skip else np.asarray(g, mine.dtype)
        mine.grad, torchs.grad = g, None if g is None else torch.tensor(g)
    for optimizer in optimizers:
        optimizer.step()


def assert_same(ours, theirs, dtype, factor=1.0):
    for mine, torchs in zip(ours, theirs, strict=True):
        h.assert_close(mine.data, torchs, dtype, 10, factor)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=25)
@given(st.data(), st.lists(h.shapes(0, 3), min_size=1, max_size=3), h.dtypes, h.seeds)
def test_equal_to_torch_over_many_steps(name, data, shapes, dtype, seed):
    keywords = data.draw(configurations(name))
    kept = data.draw(few([1.0, 0.3]))
    ours, theirs = pair(shapes, dtype, seed)
    optimizers = [
        getattr(m, name)(p, **keywords) for m, p in ((optim, ours), (torch.optim, theirs))
    ]
    for step in range(12):
        skip = {step % len(shapes)} if step in (0, 3) else ()  # a parameter without a gradient
        step_both(ours, theirs, optimizers, seed % 2**31 + 10 * step, skip, kept)
        assert_same(ours, theirs, dtype, 20)
    mine, torchs = (optimizer.state_dict()["state"] for optimizer in optimizers)
    kept_by_torch = {i: {k: v for k, v in s.items() if v is not None} for i, s in torchs.items()}
    kept_by_torch = {i: s for i, s in kept_by_torch.items() if s}
    assert {i: set(s) for i, s in mine.items()} == {i: set(s) for i, s in kept_by_torch.items()}
    for i, state in mine.items():
        for key, value in state.items():
            expected = kept_by_torch[i][key]
            h.assert_close(value, expected, np.float32 if key == "step" else dtype, 10, 20)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_to_torch_after_three_hundred_steps(name, dtype):
    ours, theirs = pair([(3, 4), (4,)], dtype, 1)
    optimizers = [
        getattr(m, name)(p, weight_decay=0.1) for m, p in ((optim, ours), (torch.optim, theirs))
    ]
    for step in range(300):
        step_both(ours, theirs, optimizers, step)
    assert_same(ours, theirs, dtype, 100)


@pytest.mark.parametrize("name", NAMES)
def test_names_and_defaults_are_torchs(name):
    mine, torchs = (inspect.signature(getattr(m, name)).parameters for m in (optim, torch.optim))
    left_out = {"foreach", "capturable", "differentiable", "fused"}
    assert set(torchs) - set(mine) == left_out & set(torchs)
    assert set(mine) <= set(torchs)
    for key in mine:
        assert mine[key].default == torchs[key].default, key
    positional = [k for k, v in mine.items() if v.kind is v.POSITIONAL_OR_KEYWORD]
    assert positional == list(torchs)[: len(positional)]


@pytest.mark.parametrize("name", NAMES)
def test_groups_changed_rates_and_numpy_settings(name):
    ours, theirs = pair([(2,), (3,), ()], np.float32, 5)
    optimizers = [
        getattr(m, name)([{"params": p[:1], "lr": 0.05}, {"params": p[1:], "weight_decay": 0.1}])
        for m, p in ((optim, ours), (torch.optim, theirs))
    ]
    for step in range(4):
        step_both(ours, theirs, optimizers, step)
        for optimizer in optimizers:
            optimizer.param_groups[1]["lr"] = np.float64(0.01)  # must not turn into float64 data
    assert_same(ours, theirs, np.float32, 20)
    assert all(a.dtype == np.float32 for s in optimizers[0].state.values() for a in s.values())


FULL = {
    "SGD": {"momentum": 0.9},
    "Adagrad": {"lr_decay": 0.1},
    "RMSprop": {"momentum": 0.5, "centered": True, "eps": 1e-3},
    "Adadelta": {},
    "Adam": {"amsgrad": True},
    "AdamW": {},
}


@pytest.mark.parametrize("source", ["ours", "torch"])
@pytest.mark.parametrize("name", NAMES)
def test_state_restored_continues_the_run(name, source):
    ours, theirs = pair([(2, 3), ()], np.float64, 2)
    first, reference = (
        getattr(m, name)(p, lr=0.05, **FULL[name])
        for m, p in ((optim, ours), (torch.optim, theirs))
    )
    for step in range(3):
        step_both(ours, theirs, (first, reference), step)
    state = (first if source == "ours" else reference).state_dict()
    fresh = [nn.Parameter(p.data.copy()) for p in ours]
    second = getattr(optim, name)(fresh, lr=1e9)
    second.load_state_dict(state)
    assert second.param_groups[0]["lr"] == 0.05
    for step in range(3):
        step_both(fresh, theirs, (second, reference), 100 + step)
    assert_same(fresh, theirs, np.float64, 10)


@pytest.mark.parametrize("name", NAMES)
def test_our_state_continues_in_torch(name):
    ours, theirs = pair([(2, 3), ()], np.float64, 2)
    first, second = (
        getattr(m, name)(p, lr=0.05, **FULL[name])
        for m, p in ((optim, ours), (torch.optim, theirs))
    )
    for step in range(3):
        step_both(ours, theirs, (first,), step)
    state = first.state_dict()
    state["state"] = {i: nn.to_torch(values) for i, values in state["state"].items()}
    with torch.no_grad():
        for mine, torchs in zip(ours, theirs, strict=True):
            torchs.copy_(torch.tensor(mine.data))
    second.load_state_dict(state)
    for step in range(3):
        step_both(ours, theirs, (first, second), 100 + step)
    assert_same(ours, theirs, np.float64, 10)


def test_a_parameter_counts_its_own_steps():
    p, q = nn.Parameter([1.0]), nn.Parameter([1.0])
    adam = optim.Adam([p, q])
    for step in range(3):
        p.grad = np.ones(1, np.float32)
        q.grad = np.ones(1, np.float32) if step == 2 else None
        adam.step()
    assert adam.state[p]["step"] == 3
    assert adam.state[q]["step"] == 1
    np.testing.assert_allclose(q.data, 1 - 1e-3, rtol=1e-6)  # a first step of Adam is lr long


def test_adam_by_hand():
    p, m, v = np.array([1.0]), np.zeros(1), np.zeros(1)
    kernels.adam_step(p, np.array([2.0]), m, v, 1, lr=0.1)
    np.testing.assert_allclose(m, 0.2)
    np.testing.assert_allclose(v, 0.004)
    np.testing.assert_allclose(p, 1 - 0.1 * 2 / (2 + 1e-8))
    kernels.adam_step(p, np.array([-1.0]), m, v, 2, lr=0.1)
    m_hat, v_hat = (0.9 * 0.2 - 0.1) / (1 - 0.81), (0.999 * 0.004 + 0.001) / (1 - 0.999**2)
    np.testing.assert_allclose(p, 0.9 - 0.1 * m_hat / np.sqrt(v_hat), rtol=1e-7)


def test_decoupled_decay_ignores_the_gradients_size():
    weights = np.array([1.0, 1.0])
    coupled, decoupled = nn.Parameter(weights.copy()), nn.Parameter(weights.copy())
    adam = optim.Adam([coupled], lr=0.1, weight_decay=0.1)
    adamw = optim.AdamW([decoupled], lr=0.1, weight_decay=0.1)
    for _ in range(20):
        for p, optimizer in ((coupled, adam), (decoupled, adamw)):
            p.grad = np.array([100.0, -100.0]) * np.sign(np.random.default_rng(_).normal())
            optimizer.step()
    shrunk = decoupled.data.mean()  # the two steps cancel in the mean
    assert shrunk == pytest.approx((1 - 0.01) ** 20, rel=1e-9)
    assert abs(coupled.data.mean() - 1) < 0.05  # the decay drowns in gradients of 100


def test_centred_root_of_a_constant_gradient_stays_a_number():
    p, s, m = np.ones(4, np.float32), np.zeros(4, np.float32), np.zeros(4, np.float32)
    g = np.float32([0.1, 1.0, 3.0, 1e4])
    for _ in range(3000):
        kernels.rmsprop_step(p, g, s, grad_avg=m, lr=1e-6, eps=1.0)
    assert np.isfinite(p).all()


# ---- the rules as kernels --------------------------------------------------------------------

RULES = {
    "sgd_step": (["momentum_buffer"], {"momentum": 0.9, "nesterov": True}),
    "adagrad_step": (["sum"], {"step": 2, "lr_decay": 0.1}),
    "rmsprop_step": (["square_avg", "momentum_buffer", "grad_avg"], {"momentum": 0.9, "eps": 0.1}),
    "adadelta_step": (["square_avg", "acc_delta"], {}),
    "adam_step": (["exp_avg", "exp_avg_sq", "max_exp_avg_sq"], {"step": 3, "eps": 1e-3}),
}


def arrays_for(rule, shape, dtype, seed, layout="contiguous"):
    names = ["param", "grad", *RULES[rule][0]]
    drawn = {name: h.draw(seed + i, shape, dtype) for i, name in enumerate(names)}
    for name in names[2:]:
        drawn[name] = np.abs(drawn[name]) + 2  # squares are positive
    if "grad_avg" in drawn:
        drawn["grad_avg"] = drawn["grad_avg"] / 10  # the mean's square is below the square's mean
    return {
        name: h.laid_out(np.array(a, dtype), layout if name == "grad" else writable(layout))
        for name, a in drawn.items()
    }


def writable(layout):
    return "contiguous" if layout == "read-only" else layout


@pytest.mark.parametrize("rule", RULES)
@settings(deadline=None, max_examples=25)
@given(h.shapes(), h.dtypes, h.layouts, h.seeds, st.booleans())
def test_rules_work_in_place_and_leave_the_gradient(rule, shape, dtype, layout, seed, decay):
    keywords = {**RULES[rule][1], "weight_decay": 0.1 if decay else 0}
    arrays = arrays_for(rule, shape, dtype, seed % 2**31, layout)
    whole = {name: a.copy() for name, a in arrays.items()}
    before = arrays["grad"].copy()
    assert getattr(kernels, rule)(**arrays, **keywords) is None
    np.testing.assert_array_equal(arrays["grad"], before)
    getattr(kernels, rule)(**whole, **keywords)
    for name in arrays:  # whatever the layout of the arrays, the same numbers
        h.assert_close(arrays[name], whole[name], dtype)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blocks_give_what_the_whole_gives(rule, dtype, monkeypatch):
    keywords = {**RULES[rule][1], "weight_decay": 0.1}
    whole, blocks = (arrays_for(rule, (7, 31), dtype, 3) for _ in range(2))
    getattr(kernels, rule)(**whole, **keywords)
    monkeypatch.setattr("dlnotes.kernels.optim.BLOCK_BYTES", 32 * np.dtype(dtype).itemsize)
    getattr(kernels, rule)(**blocks, **keywords)
    for name in whole:
        h.assert_close(blocks[name], whole[name], dtype)


# ---- bad input -------------------------------------------------------------------------------

p = nn.Parameter(np.ones(2))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: optim.Adam([p], lr=-1), ValueError, "lr must be at least 0, got -1"),
        (lambda: optim.Adam([p], betas=(0.9, 1)), ValueError, r"betas\[1\] must be below 1, got 1"),
        (lambda: optim.Adam([p], betas=(-0.1, 0)), ValueError, r"betas\[0\] must be at least 0"),
        (lambda: optim.Adam([p], betas=0.9), TypeError, "betas must be a pair of numbers, got 0.9"),
        (lambda: optim.Adam([p], eps=-1), ValueError, "eps must be at least 0"),
        (lambda: optim.AdamW([p], weight_decay="1"), TypeError, "weight_decay must be a number"),
        (lambda: optim.Adagrad([p], lr_decay=-1), ValueError, "lr_decay must be at least 0"),
        (
            lambda: optim.Adagrad([p], initial_accumulator_value=-1),
            ValueError,
            "initial_accumulator_value must be at least 0",
        ),
        (lambda: optim.RMSprop([p], alpha=-1), ValueError, "alpha must be at least 0"),
        (lambda: optim.RMSprop([p], momentum=None), TypeError, "momentum must be a number, got No"),
        (lambda: optim.Adadelta([p], rho=1.5), ValueError, r"rho must be in 0 … 1, got 1.5"),
    ],
)
def test_bad_settings(call, error, message):
    with h.shapes_unchecked(), pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("rule", RULES)
def test_bad_arrays(rule):
    def call(**changed):
        arrays = arrays_for(rule, (3,), np.float64, 0)
        before = {name: a.copy() for name, a in arrays.items()}
        with h.shapes_unchecked():
            try:
                getattr(kernels, rule)(**{**arrays, **RULES[rule][1], **changed})
            finally:
                for name, a in arrays.items():
                    np.testing.assert_array_equal(a, before[name])

    frozen = np.ones(3)
    frozen.setflags(write=False)
    with pytest.raises(TypeError, match="param must be a NumPy array of floats, got list"):
        call(param=[1.0])
    with pytest.raises(TypeError, match="grad must be float32 or float64, got float16"):
        call(grad=np.ones(3, np.float16))
    with pytest.raises(TypeError, match="param is float64, grad is float32"):
        call(grad=np.ones(3, np.float32))
    with pytest.raises(ValueError, match=r"must have the same shape, but param has \(3,\)"):
        call(grad=np.ones((3, 1)))
    with pytest.raises(ValueError, match="param is changed in place, so it must be a writable"):
        call(param=frozen)
    with pytest.raises(ValueError, match=f"{RULES[rule][0][0]} is changed in place"):
        call(**{RULES[rule][0][0]: frozen})
    with pytest.raises(ValueError, match="lr must be at least 0, got -1"):
        call(lr=-1)


def test_missing_buffers_and_steps():
    x = np.ones(2)
    for rule in (kernels.sgd_step, lambda *a, **k: kernels.rmsprop_step(*a, np.ones(2), **k)):
        with pytest.raises(
            ValueError, match=r"momentum_buffer must be given when momentum is 0\.9"
        ):
            rule(x, np.ones(2), momentum=0.9)
    with pytest.raises(ValueError, match="step must be at least 1, got 0"):
        kernels.adam_step(x, np.ones(2), np.zeros(2), np.zeros(2), 0)


def test_a_gradient_that_does_not_fit_changes_nothing():
    p, q = nn.Parameter(np.ones(2)), nn.Parameter(np.ones(2))
    adam = optim.Adam([p, q])
    p.grad, q.grad = np.ones(2), np.ones(2, np.float32)
    with pytest.raises(TypeError, match="gradient is float32, parameter is float64"):
        adam.step()
    q.grad = np.ones((2, 1))
    with pytest.raises(ValueError, match="gradient and parameter must have the same shape"):
        adam.step()
    assert not adam.state
    np.testing.assert_array_equal(p.data, 1)


def test_a_closure_is_evaluated_first():
    p = nn.Parameter([2.0])
    sgd = optim.SGD([p], lr=0.1)

    def closure():
        sgd.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    assert sgd.step(closure).item() == 4
    assert p.item() == pytest.approx(2 - 0.1 * 4)
    assert sgd.step() is None
