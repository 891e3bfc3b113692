"""Run every test of the book: what `make test` and continuous integration do.

    python tools/run_tests.py [STEP ...]

Steps, in this order (default: all of them; one that fails does not keep the next from running):

    lint       code style; texts, notebooks, exercises and chapters in step and complete
    notebooks  every notebook is run and its outputs are compared with the stored ones
    browser    JupyterLab in a headless Chromium (skipped where there is no Chromium)
    unit       the unit tests
"""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CELL_TIMEOUT = 180  # seconds, for a single cell; the whole notebook's budget is 90
# Both cores; the cells of one notebook stay together and in order.
PARALLEL = ["-n", "2", "--dist", "loadfile"]


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def commands(step: str) -> list[list[str]]:
    """Return the command lines of a step."""
    pytest = python("-m", "pytest")
    if step == "lint":
        chapters = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
        dlnotes = python("-m", "dlnotes.cli")
        return [
            python("-m", "ruff", "check"),
            python("-m", "ruff", "format", "--check"),
            python("tools/notebooks.py", "check"),
            [*dlnotes, "build-exercises", "--check", "--no-execute"],
            [*dlnotes, "check-chapter", *chapters],
        ]
    if step == "notebooks":
        nbval = ["-p", "tools.nbval_gates", "--nbval", "--nbval-current-env"]
        timeout = f"--nbval-cell-timeout={CELL_TIMEOUT}"
        return [[*pytest, *nbval, timeout, *PARALLEL, "notebooks", "solutions"]]
    if step == "browser":
        return [[*pytest, "tests/e2e"]]
    if step == "unit":
        # Kernels are native code: they get processes of their own, apart from all other tests.
        cuda = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("tests/test_cuda_*.py"))]
        apart = [f"--ignore={path}" for path in ["tests/e2e", *cuda]]
        # On the CPU; `make gpu` runs them on a card.
        return [[*pytest, *PARALLEL, *apart, "tests"], [*pytest, *PARALLEL, "-m", "not gpu", *cuda]]
    raise SystemExit(f"no step {step!r}; there are: {', '.join(STEPS)}")


STEPS = ("lint", "notebooks", "browser", "unit")


def main(names: list[str]) -> int:
    # One thread per process: two processes share two cores, and sums come out the same.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}
    failed, took = [], ""
    for step in names or STEPS:
        # The time of a step stands at the next one: the last line is the test runner's.
        print(f"\n=== {step}{took}", flush=True)
        start = time.monotonic()
        for command in commands(step):
            done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
            if done.returncode != 0:
                failed.append(f"{step}: {' '.join(command[1:])}")
        took = f"  ({step} took {time.monotonic() - start:.0f} s)"
    for line in failed:
        print(f"FAILED {line}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
