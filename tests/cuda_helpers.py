"""What the tests of dlnotes.cuda share: a lasting cache, the devices, and how a rung is run."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from dlnotes import cuda
from dlnotes.cuda import _cpu

os.environ.setdefault("DLNOTES_KERNELS", str(Path(__file__).parents[1] / "build" / "kernels"))


def _compiler() -> str:
    try:
        return _cpu.find_compiler().family
    except cuda.ToolError:
        return ""


needs_compiler = pytest.mark.skipif(not _compiler(), reason="no C++ compiler for the CPU engine")


DEVICES = [
    pytest.param("cpu", marks=needs_compiler),
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not cuda.available(), reason="no GPU, or no bindings to use it"),
        ],
    ),
]
_device = "cpu"


@pytest.fixture(name="device", scope="module", autouse=True, params=DEVICES)
def each_device(request):
    """Run each test of the modules that import this on the CPU engine, and on a GPU if there is."""
    global _device
    _device = request.param
    yield _device
    _device = "cpu"


def kernel(source: str, mode: str = "checked", name: str | None = None) -> cuda.Kernel:
    """Compile CUDA source; its only kernel if no name is given."""
    module = cuda.load(source=source, mode=mode)
    return module.kernel(name or module.kernels[-1])


def normal(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def run(ladder: str, rung: str, *inputs, mode: str = "checked"):
    """Run a rung on copies of its inputs; those that it does not write to must stay as they are."""
    copies = [_on_device(i) if isinstance(i, np.ndarray) else i for i in inputs]
    settings = {"mode": mode} if _device == "cpu" else {"device": "cuda"}
    outputs = cuda.LADDERS[ladder].run(*copies, rung=rung, **settings)
    if ladder not in ("adam", "skip_gram_negative_sampling_step"):  # which work in place
        for given, copy in zip(inputs, copies, strict=True):
            if isinstance(given, np.ndarray):
                np.testing.assert_array_equal(given, _to_numpy(copy))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return tuple(map(_to_numpy, outputs))


def _on_device(array: np.ndarray):
    return array.copy() if _device == "cpu" else torch.tensor(array, device=_device)


def _to_numpy(array) -> np.ndarray:
    return array.cpu().numpy() if isinstance(array, torch.Tensor) else array
