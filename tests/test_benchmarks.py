"""The benchmark of the kernels runs, checks its results, and every kernel that it names exists."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dlnotes import data, kernels

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "kernels.py"


def load():
    spec = importlib.util.spec_from_file_location("benchmark_of_kernels", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_case_names_a_kernel():
    cases = load().CASES
    assert len({case.name for case in cases}) == len(cases)
    for case in cases:
        assert callable(getattr(kernels, case.kernel))


def test_every_kernel_has_a_row_or_a_reason():
    benchmark = load()
    forward = {name for name in kernels.__all__ if not name.endswith("_backward")}
    timed = {case.kernel for case in benchmark.CASES}
    assert forward == timed | benchmark.WITHOUT_ROW.keys()
    assert not timed & benchmark.WITHOUT_ROW.keys()


def test_page_and_data_set_are_in_step():
    benchmark = load()
    numbers = json.loads(data.path("kernel_times").read_text(encoding="utf-8"))
    page = benchmark.PAGE.read_text(encoding="utf-8")
    assert page == benchmark.page(numbers), "run python benchmarks/kernels.py --page"
    assert [row["name"] for row in numbers["rows"]] == [case.name for case in benchmark.CASES]
    for row, case in zip(numbers["rows"], benchmark.CASES, strict=True):
        assert row["kernel"] == case.kernel
        assert row["goals"] == (case.goals and list(case.goals))


def test_the_data_set_holds_what_was_measured():
    times = data.load("kernel_times")
    assert times.conditions["threads"] == 1
    assert times.conditions["versions"].keys() == {"Python", "NumPy", "BLAS", "PyTorch"}
    for row in times.timings:
        ratios = [r for r in (row.forward, row.backward, row.step) if r is not None]
        assert ratios
        for middle, low, high in ratios:
            assert 0 < low <= middle <= high
        assert row.milliseconds > 0
        assert row.peak > 0
        assert row.data > 0


def test_a_ratio_above_its_goal_is_bold():
    benchmark = load()
    assert benchmark.cell([1.26, 1.2, 1.3], 1.25) == "**1.26 (1.20–1.30)**"
    assert benchmark.cell([1.25, 1.2, 1.3], 1.25) == "1.25 (1.20–1.30)"
    assert benchmark.cell([9.0, 8.0, 10.0], None) == "9.00 (8.00–10.00)"
    assert benchmark.cell(None, None) == "–"


@pytest.mark.parametrize(
    "word", ["Adam", "dropout", "NMS", "one-hot", "softmax cross", "max-pool 1d"]
)
def test_both_sides_are_compared_before_they_are_timed(word):
    benchmark = load()
    for case in (case for case in benchmark.CASES if word in case.name):
        sides = benchmark.prepare(case, torch)
        assert len(sides.here) == len(sides.there)


def test_a_wrong_result_is_not_timed(monkeypatch):
    benchmark = load()
    (case,) = (case for case in benchmark.CASES if case.kernel == "total_variation")
    right = kernels.total_variation_backward
    monkeypatch.setattr(kernels, "total_variation_backward", lambda dy, x: 1.01 * right(dy, x))
    with pytest.raises(AssertionError, match="total variation"):
        benchmark.prepare(case, torch)


def test_one_row(tmp_path):
    out = tmp_path / "rows.json"
    command = [sys.executable, SCRIPT, "--only", "LeNet C3", "--rounds", "2", "--json", out]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("| kernel, float32 | forward | backward | step |")
    assert lines[2].startswith("| conv LeNet C3")
    numbers = json.loads(out.read_text())
    (row,) = numbers["rows"]
    assert numbers["rounds"] == 2
    low, high = sorted(row["step"])[0], sorted(row["step"])[-1]
    assert 0 < low <= row["step"][0] <= high
    assert row["peak"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "no such kernel"], "no kernel has one of"),
        (["--rounds", "1"], "--rounds must be at least 2"),
        (["--cpu-time", "--threads", "2"], "--cpu-time adds up over threads"),
        (["--write", "", "--only", "NMS"], "--write is for all kernels"),
    ],
)
def test_bad_arguments(arguments, message):
    command = [sys.executable, SCRIPT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr
