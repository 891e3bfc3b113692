"""Modules, layers, losses and initialisers: equal to torch.nn in names, values and gradients."""

import collections
import copy
import inspect
import math
import subprocess
import sys

import core_helpers as h
import numpy as np
import pytest
import torch
import torch.nn.functional as torch_F
from hypothesis import given, settings
from hypothesis import strategies as st

import dlnotes
from dlnotes import nn, optim
from dlnotes.autograd import Tensor, tensor
from dlnotes.nn import functional as F


def small(engine):
    """Return the same network on either engine."""
    return engine.Sequential(
        engine.Flatten(),
        engine.Linear(6, 5),
        engine.ReLU(),
        engine.Sequential(engine.Linear(5, 4, bias=False), engine.Tanh()),
        engine.Linear(4, 3),
    )


# ---- weights both ways -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_same_network_on_both_engines(dtype):
    ours, theirs = small(nn), small(torch.nn)
    if dtype == np.float64:
        ours, theirs = ours.double(), theirs.double()
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(nn.to_torch(ours.state_dict()))  # from here to torch
    x = h.draw(0, (7, 2, 3), dtype)
    y = np.array([0, 1, 2, 0, 1, 2, 0])
    loss = nn.CrossEntropyLoss()(ours(x), y)
    expected = torch.nn.CrossEntropyLoss()(theirs(torch.tensor(x)), torch.tensor(y))
    loss.backward()
    expected.backward()
    h.assert_close(loss.data, expected, dtype)
    for (name, mine), (torch_name, torchs) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert name == torch_name
        h.assert_close(mine.grad, torchs.grad, dtype)

    other = small(torch.nn).to(torch.float64 if dtype == np.float64 else torch.float32)
    ours.load_state_dict(other.state_dict())  # and back
    h.assert_close(ours(x).detach().numpy(), other(torch.tensor(x)), dtype)


def test_state_dict_is_a_copy():
    model = nn.Linear(2, 2)
    state = model.state_dict()
    state["weight"][...] = 7
    assert not np.any(model.weight.data == 7)
    model.load_state_dict(state)
    state["weight"][...] = 8
    assert np.all(model.weight.data == 7)
    tensors = nn.to_torch(state)
    assert tensors["weight"].dtype == torch.float32
    tensors["weight"].zero_()
    assert np.all(state["weight"] == 8)


def test_loading_keeps_dtype_and_identity():
    model = nn.Linear(2, 1)
    weight, array = model.weight, model.weight.data
    result = model.load_state_dict({"weight": np.array([[1.0, 2.0]]), "bias": tensor([3.0])})
    assert result == ([], [])
    assert model.weight is weight
    assert model.weight.data is array
    assert array.dtype == np.float32
    np.testing.assert_array_equal(model(np.float32([[1, 1]])).data, [[6]])


def test_loading_what_does_not_fit_changes_nothing():
    model = nn.Linear(2, 3)
    before = model.state_dict()
    wrong = {"weight": np.zeros((3, 3)), "extra": np.zeros(1)}
    with pytest.raises(ValueError, match=r"weight must have shape \(3, 2\), got \(3, 3\); missing: "
                       "bias; unexpected: extra"):  # fmt: skip
        model.load_state_dict(wrong)
    with pytest.raises(TypeError, match="bias must be float32 or float64, got int64"):
        model.load_state_dict({"weight": np.zeros((3, 2)), "bias": np.zeros(3, int)})
    with h.shapes_unchecked(), pytest.raises(TypeError, match="state_dict must be a mapping"):
        model.load_state_dict([1])
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    result = model.load_state_dict({"bias": np.ones(3), "extra": np.zeros(1)}, strict=False)
    assert result.missing_keys == ["weight"]
    assert result.unexpected_keys == ["extra"]
    np.testing.assert_array_equal(model.bias.data, 1)


# ---- finding things --------------------------------------------------------------------------


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(2, 3)
        self.left = nn.Linear(3, 1)
        self.right = self.left  # shared
        self.scale = nn.Parameter(np.ones(1, np.float32))
        self.note = "not a parameter"

    def forward(self, x):
        return self.left(self.body(x)) + self.scale * self.right(self.body(x))


def test_named_parameters_and_modules():
    model = TwoHeads()
    assert [name for name, _ in model.named_parameters()] == [
        "scale",
        "body.weight",
        "body.bias",
        "left.weight",
        "left.bias",
    ]
    assert [name for name, _ in model.named_modules()] == ["", "body", "left"]
    assert [name for name, _ in model.named_children()] == ["body", "left"]
    assert len(list(model.modules())) == 3
    assert list(model.children()) == [model.body, model.left]
    # A shared parameter is saved under each of its names, as torch does.
    assert "right.weight" in model.state_dict()
    assert model.load_state_dict(model.state_dict()) == ([], [])
    model(np.ones((1, 2), np.float32)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_attributes():
    model = TwoHeads()
    model.scale = nn.Parameter(np.zeros(1))
    assert len(list(model.parameters())) == 5
    model.body = nn.Identity()
    assert "body.weight" not in dict(model.named_parameters())
    model.left = None
    assert model.left is None
    assert "left.weight" not in model.state_dict()
    del model.scale
    with pytest.raises(AttributeError, match="TwoHeads has no attribute 'scale'"):
        _ = model.scale
    model.body = 3
    assert model.body == 3
    assert "body" not in dict(model.named_children())
    assert "right" in dir(model)


@pytest.mark.parametrize("engine", [nn, torch.nn])
def test_a_replaced_parameter_keeps_its_place(engine):
    model = engine.Linear(2, 2)
    model.weight = engine.Linear(2, 2).weight  # tied weights
    assert list(model.state_dict()) == ["weight", "bias"]
    assert [name for name, _ in model.named_parameters()] == ["weight", "bias"]


def test_forgotten_super_init():
    class Forgot(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match=r"call super\(\).__init__\(\) before assigning layer"):
        Forgot()


def test_modes_apply_and_copies():
    model = small(nn)
    assert model.training
    assert model.eval() is model
    assert not any(m.training for m in model.modules())
    model.train()
    assert all(m.training for m in model.modules())
    visited = []
    model.apply(lambda m: visited.append(type(m).__name__))
    assert visited[-1] == "Sequential"
    assert visited.count("Linear") == 3
    clone = copy.deepcopy(model)
    next(clone.parameters()).data[...] = 9
    assert not np.any(next(model.parameters()).data == 9)
    assert list(clone.state_dict()) == list(model.state_dict())
    with pytest.raises(NotImplementedError, match="Module must define forward"):
        nn.Module()(1)


def test_forward_hooks():
    model, theirs = small(nn), small(torch.nn)
    seen = {nn: [], torch.nn: []}
    handles = [
        layer.register_forward_hook(
            lambda module, inputs, output, engine=engine: seen[engine].append(
                (type(module).__name__, tuple(inputs[0].shape), tuple(output.shape))
            )
        )
        for engine, network in ((nn, model), (torch.nn, theirs))
        for layer in network.modules()
    ]
    x = h.draw(0, (2, 2, 3), np.float32)
    y = model(x).data
    theirs(torch.tensor(x))
    assert seen[nn] == seen[torch.nn]
    assert seen[nn][1] == ("Linear", (2, 6), (2, 5))
    for handle in handles:
        handle.remove()
        handle.remove()  # a second time does nothing
    with model[2].register_forward_hook(lambda module, inputs, output: output * 0):
        assert not np.array_equal(model(x).data, y)
        assert copy.deepcopy(model)(x).data.shape == y.shape
    np.testing.assert_array_equal(model(x).data, y)
    assert len(seen[nn]) == 8
    with h.shapes_unchecked(), pytest.raises(TypeError, match="hook must be a function, got str"):
        model.register_forward_hook("print")


def test_sequential():
    layers = [nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)]
    model = nn.Sequential(*layers)
    assert list(model) == layers
    assert len(model) == 3
    assert model[-1] is layers[-1]
    assert list(model[:2].state_dict()) == ["0.weight", "0.bias"]
    assert model.append(nn.Sigmoid()) is model
    assert isinstance(model[3], nn.Sigmoid)
    named = nn.Sequential(collections.OrderedDict(first=nn.Linear(2, 1), act=nn.ReLU()))
    assert list(named.state_dict()) == ["first.weight", "first.bias"]
    assert nn.Sequential()(5) == 5
    with h.shapes_unchecked(), pytest.raises(TypeError, match="module 1 must be a Module, got"):
        nn.Sequential(nn.ReLU(), F.relu)


def test_parameter():
    p = nn.Parameter([1.0, 2.0])
    assert p.requires_grad
    assert p.dtype == np.float32
    assert repr(p) == "Parameter containing:\ntensor([1., 2.], requires_grad=True)"
    assert not nn.Parameter(tensor([1.0]), requires_grad=False).requires_grad


# ---- layers ----------------------------------------------------------------------------------

LAYERS = {
    "Sigmoid": {},
    "Tanh": {},
    "ReLU": {},
    "LeakyReLU": {"negative_slope": 0.2},
    "Hardtanh": {"min_val": -0.5, "max_val": 2.0},
    "ReLU6": {},
    "ELU": {"alpha": 0.5},
    "GELU": {"approximate": "tanh"},
    "SiLU": {},
    "Softplus": {"beta": 2.0, "threshold": 10.0},
    "Softmax": {"dim": 1},
    "LogSoftmax": {"dim": 0},
    "Identity": {},
    "Flatten": {"start_dim": 0, "end_dim": 1},
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("keywords", ["given", "default"])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_as_torch(name, keywords, dtype):
    keywords = LAYERS[name] if keywords == "given" or "oftmax" in name else {}
    ours, theirs = getattr(nn, name)(**keywords), getattr(torch.nn, name)(**keywords)
    assert repr(ours) == repr(theirs)
    x = h.draw(0, (3, 4, 2), dtype, 3)
    mine, torchs = tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, expected = ours(mine), theirs(torchs)
    h.assert_close(y.data, expected, dtype, 10)
    dy = h.draw(1, y.shape, dtype)
    y.backward(dy)
    expected.backward(torch.tensor(dy))
    h.assert_close(mine.grad, torchs.grad, dtype, 10)


def test_the_room_is_light():
    """The NumPy side needs neither torch nor matplotlib, and SciPy only where GELU is used."""
    code = (
        "import sys, dlnotes.nn, dlnotes.optim; "
        "print(sorted({'torch', 'matplotlib', 'scipy', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_maxout_network():
    model = nn.Sequential(nn.Linear(3, 8), nn.Maxout(4))
    assert repr(model[1]) == "Maxout(pool_size=4)"
    assert model(np.ones((5, 3), np.float32)).shape == (5, 2)


LOSSES = {
    "MSELoss": "numbers",
    "L1Loss": "numbers",
    "BCELoss": "probabilities",
    "BCEWithLogitsLoss": "probabilities",
    "CrossEntropyLoss": "labels",
    "NLLLoss": "labels",
}


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_as_torch(name, reduction):
    rng = np.random.default_rng(2)
    x = rng.uniform(0.1, 0.9, (4, 3))
    target = rng.integers(0, 3, 4) if LOSSES[name] == "labels" else rng.uniform(size=(4, 3))
    ours = getattr(nn, name)(reduction=reduction)
    theirs = getattr(torch.nn, name)(reduction=reduction)
    mine, torchs = tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    expected = theirs(torchs, torch.tensor(target))
    for given_target in (target, Tensor(target)):
        mine.zero_grad()
        loss = ours(mine, given_target)
        h.assert_close(loss.data, expected, np.float64)
        loss.sum().backward()
        assert loss.parents == (mine,)
    expected.sum().backward()
    h.assert_close(mine.grad, torchs.grad, np.float64)


def test_targets_get_no_gradient():
    x = tensor([1.0], requires_grad=True)
    with pytest.raises(ValueError, match=r"target gets no gradient: pass target.detach\(\)"):
        F.mse_loss(x, x)
    with pytest.raises(ValueError, match="reduction must be one of"):
        nn.MSELoss(reduction="average")


@pytest.mark.parametrize(
    "name", ["zero_one_loss", "perceptron_loss", "hinge_loss", "logistic_loss"]
)
def test_margin_losses_have_gradients(name):
    margin = tensor([-2.0, 0.5, 3.0], requires_grad=True)
    getattr(F, name)(margin, "sum").backward()
    expected = getattr(dlnotes.kernels, f"{name}_backward")(1.0, margin.data, "sum")
    np.testing.assert_array_equal(margin.grad, expected)


def test_functional_defaults_are_those_of_the_kernels():
    for name, function in inspect.getmembers(F, inspect.isfunction):
        if name.startswith("_") or function.__module__ != F.__name__:
            continue
        if name.startswith("dropout") or name in ("scaled_dot_product_attention", "relu6"):
            continue  # these draw the mask of what is dropped, or are a kernel with settings
        # Losses have their reduction in another place (see the kernels' module docstring).
        kernel, here = (
            {k: p.default for k, p in inspect.signature(f).parameters.items()}
            for f in (getattr(dlnotes.kernels, name), function)
        )
        if name.startswith("embedding"):  # rows are cut down before the kernel runs
            del here["max_norm"], here["norm_type"]
        kernel.pop("return_residuals", None)
        assert len(here) == len(kernel), name
        optional = {k: d for k, d in kernel.items() if d is not inspect.Parameter.empty}
        assert {k: here[k] for k in optional} == optional, name
        assert list(here.values()).count(inspect.Parameter.empty) == len(kernel) - len(optional)


def test_functional_kl_div_as_torch():
    x, t = np.log([[0.2, 0.8]]), np.array([[0.5, 0.5]])
    for reduction in ("batchmean", "sum"):
        expected = torch_F.kl_div(torch.tensor(x), torch.tensor(t), reduction=reduction)
        h.assert_close(F.kl_div(x, t, reduction=reduction).data, expected, np.float64)


@settings(deadline=None, max_examples=30)
@given(h.shapes(0, 3), st.integers(1, 5), st.integers(1, 5), st.booleans(), h.seeds)
def test_linear_shapes(batch, n_in, n_out, bias, seed):
    layer = nn.Linear(n_in, n_out, bias=bias)
    assert [p.shape for p in layer.parameters()] == [(n_out, n_in)] + [(n_out,)] * bias
    assert layer(h.draw(seed, (*batch, n_in), np.float32)).shape == (*batch, n_out)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.Linear(0, 2), ValueError, "in_features must be at least 1, got 0"),
        (lambda: nn.Linear(2, 1.5), TypeError, "out_features must be an int, got float"),
        (lambda: nn.Linear(2, 2, dtype=np.float16), TypeError, "float16"),
        (lambda: nn.Linear(2, 2)(np.ones((3, 2))), TypeError, "x is float64, weight is float32"),
        (
            lambda: nn.Linear(2, 2)(np.ones((2, 3), np.float32)),
            ValueError,
            "weight's 2 input features",
        ),
        (lambda: nn.Flatten(2, 1)(np.ones((2, 3, 4))), ValueError, "start_dim must not come after"),
        (lambda: nn.Flatten()(np.ones(3)), ValueError, "start_dim must be in -1 … 0, got 1"),
        (lambda: nn.Maxout(0), ValueError, "pool_size must be at least 1"),
        (lambda: nn.GELU("exact"), ValueError, "approximate must be one of"),
        (lambda: nn.LeakyReLU("1"), TypeError, "negative_slope must be a number"),
        (lambda: nn.Softmax(1.5), TypeError, "dim must be an int"),
        (lambda: nn.Linear(1, 1).train(1), TypeError, "mode must be True or False"),
    ],
)
def test_bad_input(call, error, message):
    with h.shapes_unchecked(), pytest.raises(error, match=message):
        call()


# ---- init ------------------------------------------------------------------------------------


def test_linear_starts_as_torchs():
    """Uniform between ±1/√in: the extremes fill the range, the variance is bound²/3."""
    dlnotes.manual_seed(1)
    layer = nn.Linear(100, 400)
    bound = 1 / math.sqrt(100)
    reference = torch.nn.Linear(100, 400).weight.detach().numpy()
    for values in (layer.weight.data, layer.bias.data, reference):
        assert values.dtype == np.float32
        assert 0.98 * bound < np.abs(values).max() <= bound * (1 + 1e-6)
    for values in (layer.weight.data, reference):
        assert values.var() == pytest.approx(bound**2 / 3, rel=0.02)


def test_manual_seed_repeats_the_weights():
    dlnotes.manual_seed(3)
    first = nn.Linear(3, 3).state_dict()
    different = nn.Linear(3, 3).state_dict()
    dlnotes.manual_seed(3)
    again = nn.Linear(3, 3).state_dict()
    np.testing.assert_array_equal(first["weight"], again["weight"])
    assert not np.array_equal(first["weight"], different["weight"])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("uniform_", {"a": -2.0, "b": 3.0}),
        ("normal_", {"mean": 1.0, "std": 2.0}),
        ("xavier_uniform_", {"gain": 5 / 3}),
        ("xavier_normal_", {"gain": 5 / 3}),
        ("kaiming_uniform_", {"nonlinearity": "relu"}),
        ("kaiming_uniform_", {"a": 0.3, "mode": "fan_out"}),
        ("kaiming_normal_", {"nonlinearity": "relu"}),
        ("kaiming_normal_", {"nonlinearity": "tanh", "mode": "fan_out"}),
    ],
)
def test_distributions_as_torchs(name, settings):
    shape = (150, 40, 3, 3)
    ours, theirs = nn.Parameter(np.zeros(shape, np.float32)), torch.zeros(shape)
    generator = np.random.default_rng(0)
    assert getattr(nn.init, name)(ours, **settings, generator=generator) is ours
    torch.manual_seed(0)
    getattr(torch.nn.init, name)(theirs, **settings)
    a, b = ours.data.ravel(), theirs.numpy().ravel()
    assert a.dtype == np.float32
    assert a.mean() == pytest.approx(b.mean(), abs=float(0.03 * b.std()))
    assert a.std() == pytest.approx(b.std(), rel=0.02)
    np.testing.assert_allclose(np.quantile(a, [0.1, 0.5, 0.9]), np.quantile(b, [0.1, 0.5, 0.9]),
                               atol=0.05 * b.std())  # fmt: skip


def test_constants():
    p = nn.Parameter(np.full((2, 2), 5.0))
    np.testing.assert_array_equal(nn.init.zeros_(p).data, 0)
    np.testing.assert_array_equal(nn.init.ones_(p).data, 1)
    np.testing.assert_array_equal(nn.init.constant_(p, 0.3).data, 0.3)


@pytest.mark.parametrize(
    "nonlinearity", ["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]
)
def test_gains_as_torchs(nonlinearity):
    expected = torch.nn.init.calculate_gain(nonlinearity)
    assert nn.init.calculate_gain(nonlinearity) == pytest.approx(expected, rel=1e-15)
    expected = torch.nn.init.calculate_gain("leaky_relu", 0.2)
    assert nn.init.calculate_gain("leaky_relu", 0.2) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: nn.init.zeros_(p.data), TypeError, "tensor must be a Tensor, got ndarray"),
        (lambda p: nn.init.zeros_(p * 2), ValueError, "tensor must be a leaf"),
        (lambda p: nn.init.uniform_(p, 1, 0), ValueError, "a must not exceed b"),
        (lambda p: nn.init.normal_(p, 0, -1), ValueError, "std must be at least 0"),
        (lambda p: nn.init.constant_(p, "1"), TypeError, "val must be a number"),
        *(
            (lambda p, draw=draw: draw(Tensor(np.ones((2, 3), int))), TypeError, "tensor must be f")
            for draw in (
                nn.init.uniform_,
                nn.init.normal_,
                nn.init.xavier_uniform_,
                nn.init.kaiming_normal_,
                nn.init.trunc_normal_,
                nn.init.orthogonal_,
                lambda t: nn.init.sparse_(t, 0.5),
            )
        ),
        (lambda p: nn.init.uniform_(p, generator=3), TypeError, "generator must be a numpy.random"),
        (lambda p: nn.init.kaiming_normal_(p, mode="fan"), ValueError, "mode must be one of"),
        (lambda p: nn.init.calculate_gain("gelu"), ValueError, "nonlinearity must be one of"),
        (
            lambda p: nn.init.xavier_normal_(nn.Parameter(np.ones(3))),
            ValueError,
            "tensor must have two or more axes",
        ),
    ],
)
def test_bad_init(call, error, message):
    with h.shapes_unchecked(), pytest.raises(error, match=message):
        call(nn.Parameter(np.ones((2, 2))))


# ---- torch's order of arguments --------------------------------------------------------------


def parameters(function):
    """Return the parameters of a function, or None where it tells none (torch's built-ins)."""
    try:
        found = list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):
        return None
    return None if any(p.kind == p.VAR_POSITIONAL for p in found) else found


def positional(function):
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters(function) if p.kind in kinds]


def known_by_both():
    """Yield (name, ours, torch's) of all functions and classes whose arguments can be compared."""
    pairs = [(F, torch_F), (nn, torch.nn), (optim, torch.optim), (nn.init, torch.nn.init)]
    pairs += [(nn.utils, torch.nn.utils), (nn.utils.rnn, torch.nn.utils.rnn)]
    for room, torchs in pairs:
        for name, ours in vars(room).items():
            theirs = getattr(torchs, name, None)
            made_here = getattr(ours, "__module__", "").startswith("dlnotes")
            if not made_here or not callable(theirs) or ours is nn.Parameter:
                continue
            compared = [(name, ours, theirs)]
            if isinstance(theirs, type) and issubclass(theirs, torch.nn.Module):
                compared.append((f"{name}.forward", ours.forward, theirs.forward))
            for what, *both in compared:
                if None not in map(parameters, both):
                    yield f"{room.__name__}.{what}", *both


BOTH = {name: pair for name, *pair in known_by_both()}


@pytest.mark.parametrize("name", BOTH)
def test_arguments_by_position_mean_what_they_mean_in_torch(name):
    ours, theirs = BOTH[name]
    given, wanted = positional(ours), positional(theirs)
    if theirs is torch.nn.utils.rnn.PackedSequence:  # a named tuple with defaults in torch
        wanted = list(torch.nn.utils.rnn.PackedSequence._fields)
    assert given == wanted[: len(given)]


def test_the_order_of_arguments_is_compared_for_most():
    assert len(BOTH) > 120
    weight, third = np.array([1.0, 2.0, 0.5]), np.float64(0.25)
    x, labels = np.eye(3), np.array([0, 1, 1])
    theirs = [torch.tensor(a) for a in (x, labels, weight)]
    for name in ("cross_entropy", "nll_loss"):
        loss = getattr(F, name)(x, labels, weight)
        h.assert_close(loss.data, getattr(torch_F, name)(*theirs), np.float64)
    shares = np.full((3, 3), third)
    for name in ("binary_cross_entropy", "binary_cross_entropy_with_logits"):
        loss = getattr(F, name)(shares, x, weight)
        expected = getattr(torch_F, name)(torch.tensor(shares), theirs[0], theirs[2])
        h.assert_close(loss.data, expected, np.float64)
    with pytest.raises(TypeError, match="positional"):
        nn.MultiheadAttention(4, 2, 0.0, True, True)
    with (
        h.shapes_unchecked(),
        pytest.raises(
            TypeError,
            match="reduction must be one of 'mean', 'sum', 'none', got an array of float64",
        ),
    ):
        dlnotes.kernels.cross_entropy(x, labels, weight)
