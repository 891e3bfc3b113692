"""What the tests of dlnotes.cuda share: a lasting cache, the devices, and how a rung is run."""

import os
import struct
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


# Compiled for doubles they do not fit a block of a GPU; the CPU engine has room for them.
TILES_OF_DOUBLES = {"attention_tiled", "attention_backward_tiled"}


def nvrtc_installed() -> bool:
    try:
        return bool(cuda.architectures())
    except cuda.ToolError:
        return False


needs_nvrtc = pytest.mark.skipif(not nvrtc_installed(), reason="NVRTC is not installed")


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
    if _device == "cuda":  # what the kernels are held against has all digits of float32
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield _device
    _device = "cpu"


def kernel(source: str, mode: str = "checked", name: str | None = None) -> cuda.Kernel:
    """Compile CUDA source; its only kernel if no name is given."""
    module = cuda.load(source=source, mode=mode)
    return module.kernel(name or module.kernels[-1])


def sections(cubin: bytes) -> list[tuple[str, bytes]]:
    """Return the name and the contents of each section of an ELF file."""
    table = int.from_bytes(cubin[0x28:0x30], "little")
    each, count, names = (int.from_bytes(cubin[at : at + 2], "little") for at in (0x3A, 0x3C, 0x3E))
    headers = [cubin[table + i * each : table + (i + 1) * each] for i in range(count)]
    bodies = []
    for header in headers:
        start, size = struct.unpack_from("<QQ", header, 0x18)
        bodies.append(cubin[start : start + size])
    starts = [int.from_bytes(header[:4], "little") for header in headers]
    titles = bodies[names]
    return [
        (titles[at : titles.index(b"\0", at)].decode(), body)
        for at, body in zip(starts, bodies, strict=True)
    ]


def of_functions(cubin: bytes, wanted: int) -> list[int]:
    """Return what a cubin says of each function under the attribute `wanted`.

    A section .nv.info is a list of (format, attribute, size, value). Attribute 0x11 holds a
    function's number and the bytes of its stack frame, 0x2f its number and its registers.
    """
    found = []
    for data in (body for name, body in sections(cubin) if name == ".nv.info"):
        while data:
            kind, attribute, size = struct.unpack_from("<BBH", data)
            held = size if kind == 4 else 0  # other formats hold their value in `size`
            if kind == 4 and attribute == wanted:
                found.append(struct.unpack_from("<II", data, 4)[1])
            data = data[4 + held :]
    return found


def normal(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def run(ladder: str, rung: str, *inputs, mode: str = "checked", offset: int = 0):
    """Run a rung on copies of its inputs; those that it does not write to must stay as they are.

    offset: how many entries behind a multiple of 16 bytes each copy begins.
    """
    copies = [_on_device(i, offset) if isinstance(i, np.ndarray) else i for i in inputs]
    settings = {"mode": mode} if _device == "cpu" else {"device": "cuda"}
    outputs = cuda.LADDERS[ladder].run(*copies, rung=rung, **settings)
    if ladder not in ("adam", "skip_gram_negative_sampling_step"):  # which work in place
        for given, copy in zip(inputs, copies, strict=True):
            if isinstance(given, np.ndarray):
                np.testing.assert_array_equal(given, _to_numpy(copy))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return tuple(map(_to_numpy, outputs))


def _on_device(array: np.ndarray, offset: int):
    room = np.zeros(offset + array.size, array.dtype)
    room[offset:] = array.ravel()
    if _device == "cpu":
        return room[offset:].reshape(array.shape)
    tensor = torch.tensor(room, device=_device)[offset:].reshape(array.shape)
    return tensor.view(torch.bfloat16) if array.dtype == np.uint16 else tensor  # its bits


def _to_numpy(array) -> np.ndarray:
    if not isinstance(array, torch.Tensor):
        return array
    return (array.view(torch.uint16) if array.dtype == torch.bfloat16 else array).cpu().numpy()
