"""The benchmark of the kernels runs, checks its results, and every kernel that it names exists."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from dlnotes import kernels

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
        assert callable(getattr(kernels, f"{case.kernel}_backward"))


def test_one_row(tmp_path):
    out = tmp_path / "rows.json"
    command = [sys.executable, SCRIPT, "--only", "LeNet C3", "--rounds", "2", "--json", out]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("| kernel, float32 | forward | backward | step |")
    assert lines[2].startswith("| conv LeNet C3")
    (row,) = json.loads(out.read_text())
    low, high = sorted(row["step"])[0], sorted(row["step"])[-1]
    assert 0 < low <= row["step"][0] <= high
    assert row["peak"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "no such kernel"], "no kernel has one of"),
        (["--rounds", "1"], "--rounds must be at least 2"),
        (["--cpu-time", "--threads", "2"], "--cpu-time adds up over threads"),
    ],
)
def test_bad_arguments(arguments, message):
    command = [sys.executable, SCRIPT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr
