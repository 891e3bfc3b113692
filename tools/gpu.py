"""Test and measure the CUDA kernels on this machine's GPU: what `make gpu` does.

    python tools/gpu.py [STEP ...]

Steps, in this order (default: all; one that fails does not keep the next from running):

    parity      every test of the kernels that runs on a GPU: those of the CPU engine, on the card
    sanitizer   the same under NVIDIA's compute-sanitizer: memcheck, racecheck, initcheck, synccheck
    benchmark   benchmarks/gpu.py, which writes benchmarks/gpu/CARD.json

Exit codes: 0 all is well, 1 a step failed, 69 there is no GPU here, and nothing was run.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NO_GPU = 69  # EX_UNAVAILABLE of sysexits.h
STEPS = ("parity", "sanitizer", "benchmark")
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
SANITIZED = ("tests/test_cuda_kernels.py", "tests/test_cuda_tensor_rungs.py")  # every rung
USUAL_PLACES = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer")


def missing() -> str:
    """Return why the GPU cannot be used, "" if it can."""
    try:
        import torch
    except ImportError:
        return "PyTorch is not installed; `make env` installs it"
    if not torch.cuda.is_available():
        return (
            f"PyTorch {torch.__version__} sees no CUDA device (a build for the CPU sees none ever)"
        )
    from dlnotes import cuda

    try:
        cuda.load("embedding.cu", device="cuda").kernel("embedding_wide")
    except cuda.CudaError as error:
        return str(error)
    return ""


def sanitizer() -> str | None:
    """Return the path of compute-sanitizer, None where it is not installed."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *USUAL_PLACES])
    return shutil.which("compute-sanitizer", path=path)


def commands(step: str, program: str | None) -> list[list[str]]:
    """Return the command lines of a step; `program` is compute-sanitizer, if there is one."""
    pytest = [sys.executable, "-m", "pytest", "-m", "gpu"]
    if step == "parity":
        tests = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/test_cuda_*.py"))
        return [[*pytest, *tests]]
    if step == "benchmark":
        return [[sys.executable, "benchmarks/gpu.py"]]
    if program is None:
        print(
            "compute-sanitizer is not installed: this step is left out. It comes with the CUDA "
            "toolkit; put its folder on PATH.",
            file=sys.stderr,
        )
        return []
    check = [program, "--error-exitcode", "1", "--target-processes", "all"]
    slow = ["-o", "timeout=0", "-p", "no:cacheprovider", *SANITIZED]
    return [[*check, "--tool", tool, *pytest, *slow] for tool in TOOLS]


def main(names: list[str]) -> int:
    wrong = [name for name in names if name not in STEPS]
    if wrong:
        print(f"no step {wrong[0]!r}; there are: {', '.join(STEPS)}", file=sys.stderr)
        return 2
    why = missing()
    if why:
        print(
            f"There is no GPU to use here: {why}.\nNothing was run. `make test` runs the same "
            "tests on the CPU.",
            file=sys.stderr,
        )
        return NO_GPU
    failed = []
    for step in names or STEPS:
        print(f"\n=== {step}", flush=True)
        environment = dict(os.environ)
        if step == "sanitizer":
            # Each tensor its own allocation: in torch's pool an overrun lands in a neighbour.
            environment["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"
        for command in commands(step, sanitizer()):
            if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
                failed.append(f"{step}: {' '.join(command)}")
    for line in failed:
        print(f"FAILED {line}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
