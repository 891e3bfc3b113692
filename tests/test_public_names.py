"""What readers' notebooks rely on stays: the names, their parameters, and a quick import."""

import subprocess
import sys
import time

import pytest

from tools import public_names

FROZEN = public_names.read_frozen()


@pytest.mark.parametrize("name", FROZEN)
def test_a_frozen_name_is_still_there_with_its_parameters(name):
    thing = public_names.resolve(name)
    assert thing is not None, f"{name} has vanished: readers' notebooks use it"
    gone = [p for p in FROZEN[name] if p not in public_names.parameters(thing)]
    assert not gone, f"{name} no longer takes {', '.join(gone)}"


def test_every_name_that_a_notebook_uses_is_frozen():
    missing = sorted(public_names.names_in_use() - FROZEN.keys())
    assert not missing, f"run python tools/public_names.py --write; new: {missing}"


def test_names_are_found_however_they_are_imported():
    cells = [
        "import dlnotes\nfrom dlnotes import viz, nn\nfrom dlnotes.course import Grader as G\n"
        "import dlnotes.nn.functional as F",
        "%matplotlib inline\nviz.show(fig, alt=dlnotes.manual_seed(0))\n"
        "F.relu(nn.Linear(1, 2).weight)",
        "this is not Python",
        "viz.subplots()[0].set_title('x')",
    ]
    assert public_names.used_names(cells) == {
        "dlnotes.viz",
        "dlnotes.nn",
        "dlnotes.course.Grader",
        "dlnotes.viz.show",
        "dlnotes.manual_seed",
        "dlnotes.nn.functional.relu",
        "dlnotes.nn.Linear",
        "dlnotes.viz.subplots",
    }


@pytest.mark.parametrize("name", ["dlnotes.gone", "dlnotes.viz.gone", "dlnotes.__version__.upper"])
def test_a_name_that_is_gone_does_not_resolve(name):
    assert public_names.resolve(name) is None


def test_parameters_are_named():
    def function(a, *rest, b=1, **more): ...

    assert public_names.parameters(function) == ["a", "*rest", "b", "**more"]
    assert public_names.parameters(3) == []


def test_importing_dlnotes_is_quick_and_loads_nothing_heavy():
    heavy = ["torch", "matplotlib", "sklearn", "pandas", "scipy", "ipywidgets"]
    code = (
        "import sys, time\nstart = time.perf_counter()\nimport dlnotes\n"
        "seconds = time.perf_counter() - start\n"
        f"print(seconds, [m for m in {heavy} if m in sys.modules])"
    )
    best = float("inf")
    end = time.monotonic() + 30
    while best >= 0.3 and time.monotonic() < end:  # best of several: the machine may be busy
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        seconds, loaded = done.stdout.split(maxsplit=1)
        assert loaded.strip() == "[]"
        best = min(best, float(seconds))
    assert best < 0.3, f"import dlnotes takes {best:.2f} s"


def test_the_numpy_side_needs_no_torch():
    rooms = "kernels, autograd, nn, optim, data, metrics, train, check, random"
    code = f"import sys\nfrom dlnotes import {rooms}\nsys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
