"""`make gpu`: what it runs, and what it says where there is no GPU. No GPU is needed for that."""

import os
import subprocess
import sys
import time
import types
from pathlib import Path

import psutil
import pytest
import torch

from dlnotes import cuda
from tools import gpu

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(cuda.available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_runs_nothing():
    done = subprocess.run(
        [sys.executable, "tools/gpu.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == gpu.NO_GPU == 69
    assert done.stdout == ""
    assert done.stderr.startswith("There is no GPU to use here: PyTorch")
    assert "Nothing was run." in done.stderr


def test_a_gpu_that_cannot_be_compiled_for_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        cuda, "load", lambda *a, **k: (_ for _ in ()).throw(cuda.ToolError("no NVRTC"))
    )
    assert gpu.missing() == "no NVRTC"


def test_unknown_steps(capsys):
    assert gpu.main(["speed"]) == 2
    assert "no step 'speed'; there are: parity, benchmark, sanitizer" in capsys.readouterr().err


def test_make_gpu_runs_it():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "\ngpu: env\n\t@$(RUN) tools/gpu.py $(if $(MINUTES),--minutes $(MINUTES))\n" in makefile
    assert '@echo "make gpu ' in makefile


def test_commands():
    (parity,) = gpu.commands("parity", None, 240)
    assert parity[:5] == [sys.executable, "-m", "pytest", "-m", "gpu"]
    assert {"tests/test_cuda_kernels.py", "tests/test_cuda_torch.py"} <= set(parity)
    tools = [
        command[command.index("--tool") + 1] for command in gpu.commands("sanitizer", "/cs", 60)
    ]
    assert tools == ["memcheck", "racecheck", "initcheck", "synccheck"]
    for command in gpu.commands("sanitizer", "/cs", 60):
        assert command[0] == "/cs"
        assert command[command.index("--error-exitcode") + 1] == "1"
        assert (ROOT / command[-1]).exists()
    (benchmark,) = gpu.commands("benchmark", None, 240)
    assert benchmark == [sys.executable, "benchmarks/gpu.py", "--minutes", "3.5"]


def test_without_the_sanitizer_it_says_so(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "USUAL_PLACES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.sanitizer() is None
    assert gpu.commands("sanitizer", None, 60) == []
    assert "compute-sanitizer is not installed" in capsys.readouterr().err
    program = tmp_path / "compute-sanitizer"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert gpu.sanitizer() == str(program)


@pytest.fixture
def ran(monkeypatch):
    """Run nothing, and return what would have been: (last word, without torch's pool, seconds)."""
    commands, clock = [], types.SimpleNamespace(now=0.0, takes=60.0, fails="")
    clock.monotonic = lambda: clock.now

    def run(command, environment, seconds):
        commands.append((command[-1], environment.get("PYTORCH_NO_CUDA_MEMORY_CACHING"), seconds))
        assert environment["DLNOTES_KERNELS"]
        ended = clock.takes <= seconds
        clock.now += clock.takes if ended else seconds
        return int(clock.fails in command) if ended else None

    monkeypatch.delenv("PYTORCH_NO_CUDA_MEMORY_CACHING", raising=False)
    monkeypatch.setattr(gpu, "missing", lambda: "")
    monkeypatch.setattr(gpu, "sanitizer", lambda: "/cs")
    monkeypatch.setattr(gpu, "time", clock)
    monkeypatch.setattr(gpu, "run", run)
    return types.SimpleNamespace(commands=commands, clock=clock)


def test_a_failed_step_is_told_and_the_others_run(ran, capsys):
    ran.clock.fails = "racecheck"
    assert gpu.main([]) == 1
    assert [cached for _, cached, _ in ran.commands] == [None, None, *["1"] * 4]
    failed = capsys.readouterr().err.splitlines()
    assert len(failed) == 1
    assert failed[0].startswith("FAILED sanitizer: /cs")
    assert "racecheck" in failed[0]
    ran.commands.clear()
    ran.clock.now = 0.0
    assert gpu.main(["benchmark"]) == 0
    assert len(ran.commands) == 1


def test_time_is_shared_out_and_what_does_not_end_is_told(ran, capsys):
    ran.clock.takes = 200.0
    assert gpu.main([]) == gpu.TOO_SHORT == 75
    assert [seconds for *_, seconds in ran.commands] == [240, 280, 80]
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 4
    assert all(line.startswith("NOT FINISHED in 8 minutes: sanitizer: /cs") for line in told)
    ran.commands.clear()
    ran.clock.now = 0.0
    assert gpu.main(["--minutes", "60", "sanitizer"]) == 0
    assert [seconds for *_, seconds in ran.commands] == [3600, 3400, 3200, 3000]


def alive(number: int) -> bool:
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(os.name != "posix", reason="processes have groups there")
def test_what_does_not_end_is_ended_with_what_it_started(tmp_path, monkeypatch):
    assert gpu.run([sys.executable, "-c", "raise SystemExit(3)"], dict(os.environ), 60) == 3
    told = tmp_path / "child"
    child = "import time; time.sleep(600)"
    parent = f"""
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {child!r}])
open({str(told)!r} + "_", "w").write(str(child.pid))
os.rename({str(told)!r} + "_", {str(told)!r})
time.sleep(600)
"""

    class Impatient(subprocess.Popen):
        def wait(self, timeout=None):
            if timeout is None:
                return super().wait()
            while not told.exists():
                time.sleep(0.05)
            raise subprocess.TimeoutExpired(self.args, timeout)

    monkeypatch.setattr(gpu.subprocess, "Popen", Impatient)
    assert gpu.run([sys.executable, "-c", parent], dict(os.environ), 60) is None
    while alive(int(told.read_text())):  # pytest's own timeout ends a test that waits in vain
        time.sleep(0.05)


def test_every_parity_test_runs_on_each_device():
    """Collected for a GPU are the tests of all rungs, of the functions and of the layers."""
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-m", "gpu"]
    names = ("kernels", "tensor_rungs", "torch", "nn")
    files = [f"tests/test_cuda_{name}.py" for name in names]
    done = subprocess.run(
        [*command, *files], cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ
    )
    for ladder in cuda.LADDERS.values():
        for rung in ladder.rungs:
            assert f"[cuda-{ladder.name}-{rung.name}]" in done.stdout
    assert "test_training_is_torchs_step_by_step[cuda-" in done.stdout
    assert "[cpu-" not in done.stdout
