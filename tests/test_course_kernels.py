"""Kernels of exercises: what a check learns of them, in the notebook and in the grader."""

import types

import numpy as np
import pytest
from cuda_helpers import needs_compiler

from dlnotes.course import cases, sandbox
from dlnotes.course.remote import Nursery, Session

pytestmark = needs_compiler

SCALE = """
__global__ void scale(int n, float a, const float* x, float* y) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = a * x[i];
}
"""
X = np.random.default_rng(0).normal(size=45).astype(np.float32)
NOTEBOOK = types.SimpleNamespace()
FAULTS = {
    "does not compile": SCALE.replace("x[i];", "x[i]"),
    "does not have the kernel": SCALE.replace("void scale", "void scala"),
    "parameters are not those": SCALE.replace("int n, float a", "float a, int n"),
    "outside of an array": SCALE.replace("if (i < n)", ""),
    "has a race": SCALE.replace("y[i]", "y[i / 2]"),
}


def scaled(s, source):
    y = np.full_like(X, np.nan)
    run = cases.kernel(s, source, "scale", 2, 32, 45, 2.0, X, y)
    assert np.isnan(y).all()  # what is given stays as it is
    return run


@pytest.fixture(scope="module")
def nursery():
    with Nursery(sandbox.find()) as found:
        yield found


@pytest.fixture
def session(nursery):
    found = Session(nursery, 2 << 30)
    found.begin_check(0, 60)
    yield found
    found.close()


def test_in_the_notebook_a_check_sees_values_and_traffic():
    run = scaled(NOTEBOOK, SCALE)
    np.testing.assert_array_equal(run["y"], 2 * X)
    assert run.requests == 4  # two warps read, and two write; the second has 13 lanes
    assert run.sectors == 2 * (4 + 2)
    assert run.count("x") == 2
    assert run.count("y", "write", "sectors") == 6
    assert (run.shared_requests, run.passes) == (0, 0)
    with pytest.raises(AssertionError, match="no pointer called z"):
        run["z"]


def test_in_the_grader_it_is_the_same(session):
    here, there = scaled(NOTEBOOK, SCALE), scaled(session.student, SCALE)
    np.testing.assert_array_equal(here["y"], there["y"])
    assert here.rows == there.rows
    assert here.sectors == there.sectors
    longer = SCALE + "// another text"
    for source in (longer, SCALE, longer):  # what is remembered stays as it was
        np.testing.assert_array_equal(scaled(session.student, source)["y"], 2 * X)


@pytest.mark.parametrize("message", FAULTS)
def test_each_fault_has_its_message(message, session):
    for s in (NOTEBOOK, session.student):
        with pytest.raises(AssertionError, match=message):
            scaled(s, FAULTS[message])


def test_what_is_no_text_is_refused():
    with pytest.raises(AssertionError, match="must be a string of CUDA"):
        cases.kernel(NOTEBOOK, None, "scale", 1, 1)


def test_without_a_compiler_nobody_is_marked(monkeypatch):
    from dlnotes.course import kernels

    found = {"fault": "tool", "text": "no compiler", "arrays": {}, "rows": [], "totals": {}}
    monkeypatch.setattr(kernels, "observe", lambda *arguments: found)
    case = cases.Case("q1", 1.0, "", False, lambda s: scaled(s, SCALE))
    with pytest.raises(cases.CannotCheck, match="cannot be checked here: no compiler"):
        cases.run(case, NOTEBOOK)


def test_an_endless_kernel_is_stopped_and_the_next_one_runs(session):
    endless = SCALE.replace("if (i < n)", "for (volatile int j = 0; j < n; j = 0);")
    session.begin_check(0, 3)
    with pytest.raises(cases.StudentError, match="your kernel was stopped: it took too long"):
        scaled(session.student, endless)
    session.begin_check(0, 60)
    assert scaled(session.student, SCALE).requests == 4


def test_patching_the_engine_gains_nothing(session):
    """A notebook that replaces the engine in its own process changes nothing in the check."""
    session.run_cell(
        1,
        "import dlnotes.cuda, dlnotes.course.kernels as k\n"
        "dlnotes.cuda.load = None\n"
        "k.observe = lambda *a, **b: {'fault': '', 'arrays': {}, 'rows': [], 'totals': {}}",
        60,
    )
    session.begin_check(0, 60)
    with pytest.raises(AssertionError, match="has a race"):
        scaled(session.student, FAULTS["has a race"])
