"""What the tests of dlnotes.cuda share: a lasting cache, and whether kernels can run."""

import os
from pathlib import Path

import numpy as np
import pytest

from dlnotes import cuda
from dlnotes.cuda import _cpu

os.environ.setdefault("DLNOTES_KERNELS", str(Path(__file__).parents[1] / "build" / "kernels"))


def _compiler() -> str:
    try:
        return _cpu.find_compiler().family
    except cuda.ToolError:
        return ""


needs_compiler = pytest.mark.skipif(not _compiler(), reason="no C++ compiler for the CPU engine")


def kernel(source: str, mode: str = "checked", name: str | None = None) -> cuda.Kernel:
    """Compile CUDA source; its only kernel if no name is given."""
    module = cuda.load(source=source, mode=mode)
    return module.kernel(name or module.kernels[-1])


def normal(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def run(ladder: str, rung: str, *inputs, mode: str = "checked"):
    """Run a rung on copies of its inputs; those that it does not write to must stay as they are."""
    copies = [i.copy() if isinstance(i, np.ndarray) else i for i in inputs]
    outputs = cuda.LADDERS[ladder].run(*copies, rung=rung, mode=mode)
    if ladder not in ("adam", "skip_gram_negative_sampling_step"):  # which work in place
        for given, copy in zip(inputs, copies, strict=True):
            if isinstance(given, np.ndarray):
                np.testing.assert_array_equal(given, copy)
    return outputs if isinstance(outputs, tuple) else (outputs,)
