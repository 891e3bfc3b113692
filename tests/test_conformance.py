"""torch's own test cases, for the functions, the modules and the optimisers of the library.

They are what PyTorch tests itself with: the OpInfo samples, module_db and optim_db. All are run,
but of the poolings, which have thousands, MOST of each. In float64: values, gradients, and what
changes in place. Each must pass, or be refused for a reason that stands below; a report says how
many of each there were.
"""

import functools
import importlib
import operator
import sys
import types
import unittest
import warnings

import conformance_helpers as conformance
import core_helpers as h
import numpy as np
import pytest
import torch

from dlnotes import autograd, nn, optim
from dlnotes.autograd import Tensor, tensor
from dlnotes.nn import functional as F

# ---- functions -------------------------------------------------------------------------------

MOST = 250  # samples of one function

# torch's name: ours; the sample's arguments follow one another as in torch.
FUNCTIONS = {
    f"nn.functional.{name}": getattr(F, name)
    for name in (
        "adaptive_avg_pool1d", "adaptive_avg_pool2d", "avg_pool1d", "avg_pool2d", "batch_norm",
        "bilinear", "binary_cross_entropy", "binary_cross_entropy_with_logits", "conv1d", "conv2d",
        "conv3d", "conv_transpose1d", "conv_transpose2d", "cosine_embedding_loss", "cross_entropy",
        "dropout", "dropout2d", "elu", "gelu", "group_norm", "hardtanh", "hinge_embedding_loss",
        "huber_loss",
        "instance_norm", "kl_div", "l1_loss", "layer_norm", "leaky_relu", "linear",
        "local_response_norm", "margin_ranking_loss", "max_pool1d", "max_pool2d", "max_unpool2d",
        "mse_loss", "multi_margin_loss", "nll_loss", "one_hot", "pad", "relu", "relu6", "rms_norm",
        "scaled_dot_product_attention", "silu", "smooth_l1_loss", "softplus",
        "triplet_margin_loss", "unfold",
    )
} | {
    # torch's samples give the table first.
    "nn.functional.embedding": lambda weight, input, **settings: F.embedding(
        input, weight, **settings
    ),
    "nn.functional.embedding_bag": lambda weight, input, **settings: F.embedding_bag(
        input, weight, **settings
    ),
    "softmax": F.softmax,
    "log_softmax": F.log_softmax,
    "sigmoid": F.sigmoid,
    "tanh": F.tanh,
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "matmul": operator.matmul,
    "neg": operator.neg,
    "abs": operator.abs,
    "square": lambda x: x**2,
    "reciprocal": lambda x: x**-1,
    "rsqrt": lambda x: x**-0.5,
    "__radd__": lambda a, b: b + a,
    "__rsub__": lambda a, b: b - a,
    "__rmul__": lambda a, b: b * a,
    "__rdiv__": lambda a, b: b / a,
    "__rmatmul__": lambda a, b: b @ a,
    "__getitem__": operator.getitem,
    "amax": Tensor.max,
    "T": lambda x: x.T,
    "cat": autograd.cat,
    "stack": autograd.stack,
    "where": lambda input, condition, other: autograd.where(condition, input, other),
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "split": Tensor.split,
    "split_with_sizes": Tensor.split,
} | {
    name: getattr(Tensor, name)
    for name in (
        "chunk", "exp", "flatten", "log", "masked_fill", "mean", "permute", "reshape",
        "sqrt", "squeeze", "sum", "transpose", "unsqueeze", "view",
    )
}  # fmt: skip

# What torch has samples of in nn.functional and we have not at all: the reason, and the names.
NOT_HERE = {
    "activations that no chapter uses": (
        "celu", "glu", "hardshrink", "hardsigmoid", "hardswish", "logsigmoid", "mish", "prelu",
        "rrelu", "selu", "softmin", "softshrink", "softsign", "tanhshrink", "threshold",
    ),
    "volumes are convolved here, not pooled or dropped": (
        "adaptive_avg_pool3d", "adaptive_max_pool3d", "avg_pool3d", "conv_transpose3d", "dropout3d",
        "fractional_max_pool3d", "max_pool3d", "max_unpool3d",
    ),
    "poolings that no chapter uses": (
        "adaptive_max_pool1d", "adaptive_max_pool2d", "fractional_max_pool2d", "max_unpool1d",
    ),
    "dropout that goes with selu": ("alpha_dropout", "feature_alpha_dropout"),
    "losses that no chapter uses": (
        "ctc_loss", "gaussian_nll_loss", "linear_cross_entropy", "multilabel_margin_loss",
        "multilabel_soft_margin_loss", "poisson_nll_loss", "soft_margin_loss",
        "triplet_margin_with_distance_loss",
    ),
    "lengths and distances: inside the losses and models here": (
        "cosine_similarity", "normalize", "pairwise_distance", "pdist",
    ),
    "pictures are scaled by convolution and pooling here, pixels not rearranged": (
        "channel_shuffle", "grid_sample", "interpolate", "pixel_shuffle", "pixel_unshuffle",
        "upsample_bilinear", "upsample_nearest",
    ),
    "the module MultiheadAttention, held against torch's below, is no function here": (
        "multi_head_attention_forward",
    ),
}  # fmt: skip

# What torch has, too, but no samples of: tested elsewhere.
WITHOUT_SAMPLES = {"fold", "lp_pool1d", "lp_pool2d"}

# Where the target of a loss stands. It gets no gradient from us, so torch's is not asked for.
TARGET = {
    name: 2 if name in ("margin_ranking_loss", "cosine_embedding_loss") else 1
    for name in (
        "binary_cross_entropy", "binary_cross_entropy_with_logits", "cosine_embedding_loss",
        "cross_entropy", "hinge_embedding_loss", "huber_loss", "kl_div", "l1_loss",
        "margin_ranking_loss", "mse_loss", "smooth_l1_loss",
    )
}  # fmt: skip
# Whose targets are ±1: torch draws other numbers, so both sides get their signs.
SIGNED = (
    "cosine_embedding_loss", "hinge_embedding_loss", "margin_ranking_loss",
    "CosineEmbeddingLoss", "HingeEmbeddingLoss", "MarginRankingLoss",
)  # fmt: skip

FUNCTION_REASONS = {
    r"eps must be at least 0, got -": "a negative eps can take the root of a negative number",
    r"momentum must be in 0 … 1, got -": "a negative momentum makes negative variances",
    r"x must have at least 2 axes, got shape \(0,\)": "batch norm without a channel axis",
    r"stride must be an int or 2 ints, got \(\)": "an empty stride: None says the same",
    r"(add|sub|div): .* takes no keyword arguments": "+ - / have no alpha and no rounding_mode",
    r"unexpected keyword argument 'dtype'": "the result has the dtype of the input",
    r"array without axes|got shape \(\)": "an axis of a number that has none",
    r"one label for each sample\), got \(1, 1\)": "one sample's label with an axis of its own",
    r"must have the same leading axes": "queries and keys are not broadcast to each other",
    r"input must have 4 axes .*, got shape \(5, 5, 5\)": "torch itself warns what 3 axes may mean",
    r"cat: dim must be in -1 … 0": "an empty vector beside matrices, which torch skips",
    r"random": "drawn at random (dropout): statistics are tested elsewhere",
}


def torchs_cases(module: str, name: str):
    """Return a table of torch's test cases."""
    # They import this package for a base class of torch's tests only.
    stand_in = types.ModuleType("expecttest")
    stand_in.TestCase = unittest.TestCase
    sys.modules.setdefault("expecttest", stand_in)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(importlib.import_module(f"torch.testing._internal.{module}"), name)


def function_samples():
    """Yield (torch's name, torch's function, arguments, settings)."""
    for op in torchs_cases("common_methods_invocations", "op_db"):
        dtype = torch.float64 if op.name != "nn.functional.one_hot" else torch.int64
        if op.name not in FUNCTIONS or dtype not in op.dtypes:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            every = list(op.sample_inputs("cpu", dtype, requires_grad=dtype == torch.float64))
            for i in np.random.default_rng(0).permutation(len(every))[:MOST]:
                sample = every[i]
                yield op.name, op.op, [sample.input, *sample.args], dict(sample.kwargs)


def prepared(name, arguments, settings):
    """Return a loss's arguments with what gets no gradient from us as constants."""
    name = name.removeprefix("nn.functional.")
    if name in TARGET:
        place = TARGET[name]
        arguments = [*arguments[:place], constant(arguments[place], name), *arguments[place + 1 :]]
        settings = {k: v.detach() if wants_gradient(v) else v for k, v in settings.items()}
    return arguments, settings


def constant(target, name):
    """Return a target without gradient, as 1 and -1 where the loss takes no other."""
    return 2 * (target.detach() > 0).double() - 1 if name in SIGNED else target.detach()


def is_random(name, settings) -> bool:
    drops = settings.get("dropout_p", 0)
    if "dropout" in name and settings.get("training", True):
        drops = settings.get("p", 0.5)
    return 0 < drops < 1


def ours(value):
    """Return the same value with tensors of ours."""
    if isinstance(value, torch.Tensor):
        array = value.detach().numpy()
        floats = value.is_floating_point()
        return tensor(array, requires_grad=value.requires_grad) if floats else Tensor(array)
    if type(value) in (list, tuple):
        return type(value)(map(ours, value))
    return value


def flat(*values):
    """Yield the tensors, of ours or of torch, among values and lists of them."""
    for value in values:
        if isinstance(value, Tensor | torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from flat(*value)


def same(actual, expected: torch.Tensor) -> bool:
    actual, expected = np.asarray(actual), expected.detach().numpy()
    return actual.shape == expected.shape and np.allclose(
        actual, expected, rtol=1e-9, atol=1e-11, equal_nan=True
    )


def wants_gradient(value) -> bool:
    return isinstance(value, torch.Tensor) and value.requires_grad


def copied(value):
    return value.clone() if isinstance(value, torch.Tensor) and not value.requires_grad else value


def agrees(function, torchs, arguments, settings) -> bool:
    """Run both sides, forward and backward; ValueError and TypeError are ours."""
    own, own_settings = list(map(ours, arguments)), {k: ours(v) for k, v in settings.items()}
    # Running statistics are changed in place: give torch copies.
    arguments, settings = list(map(copied, arguments)), {k: copied(v) for k, v in settings.items()}
    results = list(flat(function(*own, **own_settings)))
    expected = list(flat(torchs(*arguments, **settings)))
    if not all(same(y.data, e) for y, e in zip(results, expected, strict=True)):
        return False
    mine, theirs = flat(*own, *own_settings.values()), flat(*arguments, *settings.values())
    pairs = list(zip(mine, theirs, strict=True))
    if not all(same(a.data, b) for a, b in pairs if not b.requires_grad):
        return False
    return same_gradients(results, expected, [(a, b) for a, b in pairs if b.requires_grad])


def same_gradients(results, expected, leaves) -> bool:
    """Send random gradients back on both sides; `leaves` are pairs of ours and torch's."""
    random = torch.Generator().manual_seed(0)
    outputs = [(y, e) for y, e in zip(results, expected, strict=True) if e.requires_grad]
    if not outputs:
        return True
    upstream = [torch.randn(e.shape, generator=random).double() for _, e in outputs]
    for (y, _), dy in zip(outputs, upstream, strict=True):
        y.backward(dy.numpy())
    gradients = torch.autograd.grad(
        [e for _, e in outputs], [b for _, b in leaves], upstream, allow_unused=True
    )
    return all(
        gradient is None or (mine.grad is not None and same(mine.grad, gradient))
        for gradient, (mine, _) in zip(gradients, leaves, strict=True)
    )


def test_functions(capsys):
    report = conformance.Report("torch's samples of functions", FUNCTION_REASONS)
    for name, torchs, arguments, settings in function_samples():
        case = f"{[shown(a) for a in arguments]} { {k: shown(v) for k, v in settings.items()} }"
        with warnings.catch_warnings(), h.shapes_unchecked():
            warnings.filterwarnings("ignore", "Using padding='same' with even kernel")
            if is_random(name, settings):
                report.excuse(name, case, "random")
                continue
            arguments, settings = prepared(name, arguments, settings)
            run = functools.partial(agrees, FUNCTIONS[name], torchs, arguments, settings)
            report.run(name, case, run)
    every_function(report).check(capsys, at_least=50)
    report.check(capsys, at_least=1850)
    assert set(FUNCTIONS) - {name for name, n in report.passed.items() if n >= 1} == set()


def every_function(samples: conformance.Report) -> conformance.Report:
    """Return what became of each function of nn.functional that torch has samples of."""
    reasons = {rf"^nn\.functional\.({'|'.join(names)}): is": why for why, names in NOT_HERE.items()}
    report = conformance.Report("torch's functions in nn.functional", reasons)
    for name in sorted({op.name for op in torchs_cases("common_methods_invocations", "op_db")}):
        if not name.startswith("nn.functional."):
            continue
        wrong = [failure for failure in samples.failed if failure.startswith(f"{name}: ")]
        if name in FUNCTIONS:
            ours, passed = FUNCTIONS[name], samples.passed[name] > 0 and not wrong
            report.run(name, getattr(ours, "__name__", name), lambda passed=passed: passed)
        elif hasattr(F, name.removeprefix("nn.functional.")):
            report.failed.append(f"{name}: is in F now: move it from NOT_HERE to FUNCTIONS")
        else:
            report.excuse(name, "no samples run", "is not in F")
    return report


def test_a_function_that_is_not_run_needs_a_reason(monkeypatch, capsys):
    samples = conformance.Report("samples", {})
    samples.passed.update(dict.fromkeys(FUNCTIONS, 1))
    every_function(samples).check(capsys, at_least=50)
    samples.failed.append("nn.functional.relu6: case: another value")
    volumes = next(why for why in NOT_HERE if why.startswith("volumes"))
    monkeypatch.delitem(NOT_HERE, volumes)
    failed = every_function(samples).failed
    assert "nn.functional.relu6: relu6: another value" in failed
    assert "nn.functional.avg_pool3d: no samples run: is not in F" in failed
    assert len(failed) == 9


def shown(value):
    return tuple(value.shape) if isinstance(value, torch.Tensor) else value


def test_every_function_has_samples_or_is_known_to_have_none():
    both = {
        name
        for name, value in vars(F).items()
        if isinstance(value, types.FunctionType) and hasattr(torch.nn.functional, name)
    }
    sampled = {name.removeprefix("nn.functional.") for name in FUNCTIONS}
    assert both - sampled == WITHOUT_SAMPLES


# ---- modules ---------------------------------------------------------------------------------

MODULE_REASONS = {
    r"LSTM: .*'proj_size'": "no projection of the hidden state",
    r"MultiheadAttention: .*'add_(bias_kv|zero_attn)'": "no key of its own for nothing to look at",
    r"KLDivLoss: target must hold probabilities": "torch draws targets that are no probabilities",
    r"got shape \(\)": "an axis of a number that has none",
}
# What torch has, too, but no cases of: tested elsewhere.
WITHOUT_CASES = {
    "Dropout", "Dropout2d", "EmbeddingBag", "Flatten", "Fold", "Identity", "MaxUnpool2d", "Module",
    "ModuleList", "Parameter", "Sequential", "TransformerDecoder", "TripletMarginLoss", "Unfold",
}  # fmt: skip


def module_cases():
    """Yield (name, torch's class, constructor's input, forward's input, training)."""
    for info in torchs_cases("common_modules", "module_db"):
        name = info.module_cls.__name__
        if name not in nn.__all__:
            continue
        for training in [True, False] if info.train_and_eval_differ else [True]:
            torch.manual_seed(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                cases = info.module_inputs_func(
                    info, device="cpu", dtype=torch.float64, requires_grad=True, training=training
                )
            for case in cases:
                if case.constructor_input.kwargs.get("proj_size") == 0:  # no projection: as we do
                    del case.constructor_input.kwargs["proj_size"]
                yield name, info.module_cls, case.constructor_input, case.forward_input, training


def our_setting(value):
    """Return a constructor's argument as our class takes it."""
    if isinstance(value, torch.nn.TransformerEncoderLayer):
        attention = value.self_attn
        return nn.TransformerEncoderLayer(
            *(attention.embed_dim, attention.num_heads, value.linear1.out_features, 0.0),
            activation=our_setting(value.activation),
            batch_first=attention.batch_first,
            norm_first=value.norm_first,
            bias=value.linear1.bias is not None,
        )
    if isinstance(value, torch.Tensor):
        return value.detach().numpy()
    return getattr(F, value.__name__) if callable(value) else value


def module_agrees(name, cls, made, given, training) -> bool:
    settings = {key: our_setting(value) for key, value in made.kwargs.items()}
    for key in ("add_bias_kv", "add_zero_attn"):
        if settings.get(key) is False:
            del settings[key]
    mine = getattr(nn, name)(*map(our_setting, made.args), **settings).double().train(training)
    theirs = cls(*made.args, **made.kwargs).double().train(training)
    is_loss = name.endswith("Loss")
    if not is_loss:  # whose weights are buffers in torch
        assert list(mine.state_dict()) == list(theirs.state_dict())
        mine.load_state_dict(theirs.state_dict())
    arguments, settings = list(given.args), dict(given.kwargs)
    if is_loss:
        arguments[-1] = constant(arguments[-1], name)
    own = list(map(ours, arguments)), {key: ours(value) for key, value in settings.items()}
    results = list(flat(mine(*own[0], **own[1])))
    expected = list(flat(theirs(*arguments, **settings)))
    state = {} if is_loss else theirs.state_dict()
    after = mine.state_dict()
    if not all(same(after[key], value) for key, value in state.items()):
        return False
    if not all(same(y.data, e) for y, e in zip(results, expected, strict=True)):
        return False
    inputs = zip(flat(*own[0], *own[1].values()), flat(*arguments, *settings.values()), strict=True)
    leaves = [(a, b) for a, b in inputs if b.requires_grad]
    leaves += zip(mine.parameters(), theirs.parameters(), strict=True)
    return same_gradients(results, expected, leaves)


def test_modules(capsys):
    report = conformance.Report("torch's cases of modules", MODULE_REASONS)
    for name, cls, made, given, training in module_cases():
        case = f"{made.args} {made.kwargs} {[shown(a) for a in given.args]} training={training}"
        case += f" { {k: shown(v) for k, v in given.kwargs.items()} }"
        with h.shapes_unchecked(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch's advice
            run = functools.partial(module_agrees, name, cls, made, given, training)
            report.run(name, case, run)
    report.check(capsys, at_least=670)
    both = {n for n in nn.__all__ if isinstance(getattr(torch.nn, n, None), type)}
    assert both - {name for name, n in report.passed.items() if n} == WITHOUT_CASES


# ---- optimisers ------------------------------------------------------------------------------

OPTIMISER_REASONS = {
    r"lr must be a number, got Tensor": "a learning rate is a number, no tensor",
}


def optimiser_cases():
    """Yield (torch's class, settings)."""
    for info in torchs_cases("common_optimizers", "optim_db"):
        if info.optim_cls.__name__ in optim.__all__:
            for case in info.optim_inputs_func(device="cpu", dtype=torch.float64):
                yield info.optim_cls, case.kwargs


def optimiser_agrees(cls, settings) -> bool:
    """Take twenty steps on both sides, in two parameter groups, one parameter without gradient."""
    rng = np.random.default_rng(0)
    starts = [rng.standard_normal(shape) for shape in ((3, 4), (5,), (), (2,))]
    mine = [nn.Parameter(a.copy()) for a in starts]
    theirs = [torch.nn.Parameter(torch.tensor(a)) for a in starts]
    made = [
        make([{"params": p[:2]}, {"params": p[2:], "lr": 0.05}], **settings)
        for make, p in ((getattr(optim, cls.__name__), mine), (cls, theirs))
    ]
    for _ in range(20):
        for a, b in zip(mine[:3], theirs[:3], strict=True):
            a.grad = np.asarray(rng.standard_normal(a.shape))
            b.grad = torch.tensor(a.grad)
        for optimiser in made:
            optimiser.step()
        if not all(same(a.data, b) for a, b in zip(mine, theirs, strict=True)):
            return False
    states = [optimiser.state_dict()["state"] for optimiser in made]
    return all(
        same(states[0][number][key], torch.as_tensor(value))
        for number, values in states[1].items()
        for key, value in values.items()
        if value is not None
    )


def our_parameters(params, known):
    """Return parameters of ours, the same one where torch's is the same."""
    if isinstance(params, torch.Tensor):
        return known.setdefault(params, nn.Parameter(params.detach().numpy()))
    if isinstance(params, dict):
        return {key: our_parameters(value, known) for key, value in params.items()}
    return [our_parameters(p, known) for p in params] if isinstance(params, list) else params


def test_optimisers_refuse_what_torchs_do():
    refused = 0
    for info in torchs_cases("common_optimizers", "optim_db"):
        name = info.optim_cls.__name__
        if name not in optim.__all__:
            continue
        for case in info.optim_error_inputs_func(device="cpu", dtype=torch.float64):
            given, known = case.optimizer_error_input, {}
            # Warnings are errors in the tests: where torch only warns, we refuse.
            with pytest.raises(case.error_type, match=case.error_regex):
                info.optim_cls(given.params, **given.kwargs)
            params = our_parameters(given.params, known)
            with h.shapes_unchecked(), pytest.raises((ValueError, TypeError)):
                getattr(optim, name)(params, **given.kwargs)
            refused += 1
    assert refused >= 20


def test_optimisers(capsys):
    report = conformance.Report("torch's cases of optimisers", OPTIMISER_REASONS)
    for cls, settings in optimiser_cases():
        with h.shapes_unchecked():
            run = functools.partial(optimiser_agrees, cls, settings)
            report.run(cls.__name__, str(settings), run)
    report.check(capsys, at_least=38)


# ---- the report itself -----------------------------------------------------------------------


def refusing(message):
    raise ValueError(message)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: False, "group: case: another value"),
        (lambda: refusing("cannot"), "group: case: cannot"),
        (lambda: True, "reasons that no case needs any more"),
    ],
)
def test_the_report_lets_nothing_through(run, message, capsys):
    report = conformance.Report("a suite", {"group: known": "why"})
    report.run("group", "case", run)
    with pytest.raises(AssertionError, match=message):
        report.check(capsys, at_least=0)


def test_the_report_counts_a_known_refusal(capsys):
    report = conformance.Report("a suite", {"group: known": "why"})
    report.run("group", "case", lambda: refusing("known"))
    report.check(capsys, at_least=0)
    with pytest.raises(AssertionError):
        report.check(capsys, at_least=1)
