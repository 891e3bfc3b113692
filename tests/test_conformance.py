"""torch's own test cases (the OpInfo samples) for the operations of `nn.functional`.

The samples are what PyTorch tests itself with. Each must pass, value and gradients in float64, or
be refused for a reason that stands below: a report says how many of each there were.
"""

import itertools
import re
import sys
import types
import unittest
import warnings

import core_helpers as h
import numpy as np
import pytest
import torch

from dlnotes.autograd import Tensor, tensor
from dlnotes.nn import functional as F

MOST = 60  # samples of one operation, spread evenly over all of them

# torch's name: ours
OPERATIONS = {
    f"nn.functional.{name}": name
    for name in (
        "adaptive_avg_pool1d", "adaptive_avg_pool2d", "avg_pool1d", "avg_pool2d", "batch_norm",
        "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "group_norm",
        "instance_norm", "layer_norm", "local_response_norm", "max_pool1d", "max_pool2d",
        "max_unpool2d", "rms_norm", "unfold",
    )
}  # fmt: skip

# What an error says: why we refuse what torch takes.
NOT_COVERED = {
    r"eps must be at least 0, got -": "a negative eps can take the root of a negative number",
    r"momentum must be in 0 … 1, got -": "a negative momentum makes negative variances",
    r"x must have at least 2 axes, got shape \(0,\)": "batch norm without a channel axis",
    r"stride must be an int or 2 ints, got \(\)": "an empty stride: None says the same",
}


def samples():
    """Yield (our name, torch's function, sample)."""
    # torch's test cases import this package for a base class of torch's tests only.
    stand_in = types.ModuleType("expecttest")
    stand_in.TestCase = unittest.TestCase
    sys.modules.setdefault("expecttest", stand_in)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db

        for op in op_db:
            if op.name in OPERATIONS:
                every = list(op.sample_inputs("cpu", torch.float64, requires_grad=True))
                for sample in itertools.islice(every, 0, None, -(-len(every) // MOST)):
                    yield OPERATIONS[op.name], op.op, sample


def ours(value):
    if not isinstance(value, torch.Tensor):
        return value
    if value.is_floating_point():
        return tensor(value.detach().numpy(), requires_grad=value.requires_grad)
    return Tensor(value.numpy())


def same(actual: np.ndarray, expected: torch.Tensor) -> bool:
    expected = expected.detach().numpy()
    return actual.shape == expected.shape and np.allclose(
        actual, expected, rtol=1e-9, atol=1e-11, equal_nan=True
    )


def requires_gradient(value) -> bool:
    return isinstance(value, torch.Tensor) and value.requires_grad


def copied(value):
    return value.clone() if isinstance(value, torch.Tensor) else value


def agrees(name, function, sample) -> bool:
    """Run both sides, forward and backward; ValueError and TypeError are ours."""
    arguments, settings = [sample.input, *sample.args], dict(sample.kwargs)
    own, own_settings = map(ours, arguments), {k: ours(v) for k, v in settings.items()}
    own = list(own)
    # Running statistics are changed in place: give torch copies.
    arguments[1:3] = [a if requires_gradient(a) else copied(a) for a in arguments[1:3]]
    settings = {k: a if requires_gradient(a) else copied(a) for k, a in settings.items()}
    y = getattr(F, name)(*own, **own_settings)
    expected = function(*arguments, **settings)
    if isinstance(expected, tuple):
        if not np.array_equal(y[1].data, expected[1].numpy()):
            return False
        y, expected = y[0], expected[0]
    if not same(y.data, expected):
        return False
    dy = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0)).double()
    pairs = [
        (theirs, mine)
        for theirs, mine in zip(
            (*arguments, *settings.values()), (*own, *own_settings.values()), strict=True
        )
        if requires_gradient(theirs) and theirs.is_leaf
    ]
    y.backward(dy.numpy())
    leaves = [theirs for theirs, _ in pairs]
    gradients = torch.autograd.grad(expected, leaves, dy, allow_unused=True)
    return all(
        gradient is None or (mine.grad is not None and same(mine.grad, gradient))
        for gradient, (_, mine) in zip(gradients, pairs, strict=True)
    )


def test_torchs_own_samples(capsys):
    report = {name: {"passed": 0, "not covered": 0} for name in OPERATIONS.values()}
    failed, reasons = [], {}
    for name, function, sample in samples():
        settings = f"{name} {tuple(sample.input.shape)} {sample.args} {sample.kwargs}"[:300]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Using padding='same' with even kernel")
            try:
                with h.shapes_unchecked():
                    right = agrees(name, function, sample)
            except (ValueError, TypeError) as error:
                known = [why for text, why in NOT_COVERED.items() if re.search(text, str(error))]
                if not known:
                    failed.append(f"{settings}: {error}")
                    continue
                report[name]["not covered"] += 1
                reasons[known[0]] = reasons.get(known[0], 0) + 1
                continue
        if right:
            report[name]["passed"] += 1
        else:
            failed.append(settings)
    with capsys.disabled():
        passed = sum(row["passed"] for row in report.values())
        print(f"\ntorch's samples: {passed} passed, {len(failed)} failed, not covered: {reasons}")
    assert not failed, "\n".join(failed)
    assert all(row["passed"] >= 3 for row in report.values()), report
    assert set(reasons) == set(NOT_COVERED.values()), "a reason that no sample needs any more"


@pytest.mark.parametrize("name", ["max_pool2d", "conv1d", "max_unpool2d"])
def test_one_sample_without_the_batch_axis(name):
    """As a batch of one, the axis taken away again."""
    x = np.arange(24.0).reshape(2, 3, 4) % 7
    if name == "conv1d":
        arguments, x = (np.ones((3, 3, 2)),), x[0]
    elif name == "max_unpool2d":
        arguments = (np.arange(24).reshape(2, 3, 4) % 12 * 2, 2)
    else:
        arguments = (2,)
    y = getattr(F, name)(x, *arguments)
    indices = (arguments[0][None], 2) if name == "max_unpool2d" else arguments
    np.testing.assert_array_equal(y.data, getattr(F, name)(x[None], *indices).data[0])
