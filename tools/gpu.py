"""Test and measure the CUDA kernels on this machine's GPU: what `make gpu` does.

    python tools/gpu.py [--minutes N] [STEP ...]

Steps, in this order (default: all; one that fails does not keep the next from running):

    parity      every test of the kernels that runs on a GPU: those of the CPU engine, on the card
    benchmark   benchmarks/gpu.py, which writes benchmarks/gpu/CARD.json
    sanitizer   those of all rungs under NVIDIA's compute-sanitizer: memcheck, racecheck, initcheck,
                synccheck

Together they take N minutes at most (8): parity half of them, the benchmark most of the rest. What
has not ended by then is ended, and named at the end. The sanitizer needs longer, an hour perhaps:
`python tools/gpu.py --minutes 60 sanitizer`.

Exit codes: 0 all is well, 1 a step failed, 75 none failed but time was too short for all of it,
2 a wrong argument, 69 there is no GPU here, and nothing was run.
"""

import argparse
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NO_GPU, TOO_SHORT = 69, 75  # EX_UNAVAILABLE and EX_TEMPFAIL of sysexits.h
STEPS = ("parity", "benchmark", "sanitizer")
MINUTES = 8
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


def commands(step: str, program: str | None, seconds: float) -> list[list[str]]:
    """Return the command lines of a step that has so many seconds; `program` is the sanitizer."""
    pytest = [sys.executable, "-m", "pytest", "-m", "gpu"]
    if step == "parity":
        tests = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/test_cuda_*.py"))
        # Most of the time is Python's and the compiler's; the card serves several processes.
        several = importlib.util.find_spec("xdist") and (os.cpu_count() or 1) > 2
        workers = ["-n", str(min(8, (os.cpu_count() or 1) // 2))] if several else []
        return [[*pytest, *workers, *tests]]
    if step == "benchmark":
        # What it has begun when its time is over it ends, and then it tells what it has.
        minutes = max(seconds / 60 - 0.5, 0.5)
        return [[sys.executable, "benchmarks/gpu.py", "--minutes", f"{minutes:.1f}"]]
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


def run(command: list[str], environment: dict[str, str], seconds: float) -> int | None:
    """Return a command's exit code; None where it had not ended in time and was ended."""
    group = {"start_new_session": True} if os.name == "posix" else {}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, **group)
    try:
        return process.wait(timeout=max(seconds, 0))
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:  # out of time, or the user has had enough
            if group:
                os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
            else:
                process.kill()
            process.wait()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Test and measure the CUDA kernels on a GPU.")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"for all ({MINUTES})")
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(STEPS))
    asked = parser.parse_args(arguments)
    wrong = [name for name in asked.steps if name not in STEPS]
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
    steps, deadline = asked.steps or STEPS, time.monotonic() + 60 * asked.minutes
    failed, unfinished = [], []
    for step in steps:
        print(f"\n=== {step}", flush=True)
        # One cache for all steps: the tests compile what the benchmark needs.
        environment = {"DLNOTES_KERNELS": str(ROOT / "build" / "kernels"), **os.environ}
        if step == "sanitizer":
            # Each tensor its own allocation: in torch's pool an overrun lands in a neighbour.
            environment["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"
        left = deadline - time.monotonic()
        for command in commands(step, sanitizer(), left):
            left = deadline - time.monotonic()
            half = step == "parity" and len(steps) > 1  # the rest is for the others
            code = run(command, environment, left / 2 if half else left) if left > 0 else None
            if code is None:
                unfinished.append(f"{step}: {' '.join(command)}")
            elif code:
                failed.append(f"{step}: {' '.join(command)}")
    for line in failed:
        print(f"FAILED {line}", file=sys.stderr)
    for line in unfinished:
        print(f"NOT FINISHED in {asked.minutes:g} minutes: {line}", file=sys.stderr)
    return 1 if failed else TOO_SHORT if unfinished else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
