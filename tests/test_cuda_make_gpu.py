"""`make gpu`: what it runs, and what it says where there is no GPU. No GPU is needed for that."""

import os
import subprocess
import sys
from pathlib import Path

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
    assert "no step 'speed'; there are: parity, sanitizer, benchmark" in capsys.readouterr().err


def test_make_gpu_runs_it():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "\ngpu: env\n\t@$(RUN) tools/gpu.py\n" in makefile
    assert '@echo "make gpu ' in makefile


def test_commands():
    (parity,) = gpu.commands("parity", None)
    assert parity[:5] == [sys.executable, "-m", "pytest", "-m", "gpu"]
    assert {"tests/test_cuda_kernels.py", "tests/test_cuda_torch.py"} <= set(parity)
    tools = [command[command.index("--tool") + 1] for command in gpu.commands("sanitizer", "/cs")]
    assert tools == ["memcheck", "racecheck", "initcheck", "synccheck"]
    for command in gpu.commands("sanitizer", "/cs"):
        assert command[0] == "/cs"
        assert command[command.index("--error-exitcode") + 1] == "1"
        assert (ROOT / command[-1]).exists()
    assert gpu.commands("benchmark", None) == [[sys.executable, "benchmarks/gpu.py"]]


def test_without_the_sanitizer_it_says_so(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "USUAL_PLACES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.sanitizer() is None
    assert gpu.commands("sanitizer", None) == []
    assert "compute-sanitizer is not installed" in capsys.readouterr().err
    program = tmp_path / "compute-sanitizer"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert gpu.sanitizer() == str(program)


def test_a_failed_step_is_told_and_the_others_run(monkeypatch, capsys):
    ran = []

    def run(command, env, **settings):
        ran.append((command[-1], env.get("PYTORCH_NO_CUDA_MEMORY_CACHING")))
        return subprocess.CompletedProcess(command, int("racecheck" in command))

    monkeypatch.delenv("PYTORCH_NO_CUDA_MEMORY_CACHING", raising=False)
    monkeypatch.setattr(gpu, "missing", lambda: "")
    monkeypatch.setattr(gpu, "sanitizer", lambda: "/cs")
    monkeypatch.setattr(gpu.subprocess, "run", run)
    assert gpu.main([]) == 1
    assert [cached for _, cached in ran] == [None, *["1"] * 4, None]
    assert ran[-1][0] == "benchmarks/gpu.py"
    failed = capsys.readouterr().err.splitlines()
    assert len(failed) == 1
    assert failed[0].startswith("FAILED sanitizer: /cs")
    assert "racecheck" in failed[0]
    ran.clear()
    assert gpu.main(["benchmark"]) == 0
    assert len(ran) == 1


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
