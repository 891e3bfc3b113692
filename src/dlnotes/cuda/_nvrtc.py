"""Kernels for a GPU: NVIDIA's runtime compiler NVRTC, called through NVIDIA's own cuda-bindings.

The result is a cubin, machine code for exactly one architecture. PTX, which the driver would
translate, is never used: a driver older than the compiler refuses it. To compile, neither driver
nor GPU is needed. cuda-bindings is used and not cuda-core, because its names are the same for CUDA
12.8 and 13; cuda-core moved from `cuda.core.experimental` to `cuda.core` in between.
"""

import functools
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlnotes import _validate
from dlnotes.cuda import _cache
from dlnotes.cuda._cubin import Resources, resources
from dlnotes.cuda._errors import CompileError, ToolError
from dlnotes.cuda._source import Source

# What kernels include and NVRTC lacks; nvcc has these in the C library.
_HEADERS = {
    "stdint.h": (
        "typedef signed char int8_t; typedef unsigned char uint8_t; typedef short int16_t;"
        "typedef unsigned short uint16_t; typedef int int32_t; typedef unsigned int uint32_t;"
        "typedef long long int64_t; typedef unsigned long long uint64_t;\n"
    ),
    "math.h": (
        "#define INFINITY __int_as_float(0x7f800000)\n#define NAN __int_as_float(0x7fffffff)\n"
    ),
    "float.h": (
        "#define FLT_MAX 3.402823466e+38f\n#define FLT_MIN 1.175494351e-38f\n"
        "#define FLT_EPSILON 1.192092896e-07f\n"
    ),
}
MISSING = (
    "to compile kernels for a GPU NVIDIA's NVRTC and its bindings are needed: "
    '`pip install "dlnotes[cuda13]"`, or `pip install "dlnotes[cuda12]"` where the driver is of '
    "CUDA 12 (`nvidia-smi` says which it is)"
)


@dataclass(frozen=True)
class Cubin:
    """Machine code for one architecture; `names` maps kernels to their symbols in it."""

    arch: str
    data: bytes
    names: dict[str, str]

    def resources(self, kernel: str) -> Resources:
        """Return the registers, shared memory and stack of a kernel, named as it was compiled.

        Raises ValueError where it was not compiled into this cubin.
        """
        _validate.one_of("kernel", kernel, list(self.names))
        return resources(self.data, self.names[kernel])


@functools.cache
def _bindings():
    """Return the module cuda.bindings.nvrtc and its version, or raise ToolError."""
    try:
        from cuda.bindings import nvrtc

        error, major, minor = nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError, OSError) as problem:
        raise ToolError(f"{MISSING} ({problem})") from problem
    if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise ToolError(f"{MISSING} (NVRTC says {error})")
    return nvrtc, (major, minor)


def version() -> tuple[int, int]:
    """Return the version of the installed NVRTC, that of its CUDA toolkit: (13, 0)."""
    return _bindings()[1]


def architectures() -> list[str]:
    """Return what the installed NVRTC compiles for, e.g. ["sm_75", "sm_80", …]."""
    nvrtc, _ = _bindings()
    return [f"sm_{number}" for number in _call(nvrtc.nvrtcGetSupportedArchs())]


@functools.cache
def _include_folders(major: int) -> tuple[str, ...]:
    """Return where NVIDIA's headers (cuda_fp16.h, mma.h) of this CUDA version lie."""
    inside = ["cu13/include", "cu13/include/cccl"] if major >= 13 else [
        "cuda_runtime/include", "cuda_nvcc/include", "cuda_cccl/include"]  # fmt: skip
    places = [Path(folder) / "nvidia" / name for folder in sys.path for name in inside]
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            places.append(Path(os.environ[variable]) / "include")
    places.append(Path("/usr/local/cuda/include"))
    return tuple(dict.fromkeys(str(place) for place in places if place.is_dir()))


def compile_source(source: Source, kernels: Sequence[str], arch: str) -> Cubin:
    """Return the cubin of `kernels` (template arguments given), compiled or from the cache."""
    if not re.fullmatch(r"sm_\d+[af]?", arch):
        raise ValueError(
            f'arch must be a real architecture such as "sm_80" or "sm_90a", got {arch!r}'
        )
    _, version = _bindings()
    options = [f"-arch={arch}", "-std=c++17", "-lineinfo"]
    includes = [f"-I{folder}" for folder in _include_folders(version[0])]
    key = _cache.key("cubin", version, source.text, list(kernels), options, includes, _HEADERS)

    def make(folder: Path) -> None:
        data, names = _compile(source, kernels, [*options, *includes])
        (folder / "kernel.cubin").write_bytes(data)
        (folder / "names.json").write_text(json.dumps(names), encoding="utf-8")

    place = _cache.entry(key, make)
    names = json.loads((place / "names.json").read_text(encoding="utf-8"))
    return Cubin(arch, (place / "kernel.cubin").read_bytes(), names)


def _call(result: tuple):
    """Return what an NVRTC function returns beside its status; raise where that is an error."""
    status, *values = result
    nvrtc, _ = _bindings()
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise CompileError(f"NVRTC: {nvrtc.nvrtcGetErrorString(status)[1].decode()}")
    return values[-1] if values else None


def _compile(source: Source, kernels, options) -> tuple[bytes, dict[str, str]]:
    nvrtc, _ = _bindings()
    bodies = [text.encode() for text in _HEADERS.values()]
    headers = [name.encode() for name in _HEADERS]
    name = source.name.encode()
    program = _call(
        nvrtc.nvrtcCreateProgram(source.text.encode(), name, len(headers), bodies, headers)
    )
    try:
        for kernel in kernels:
            _call(nvrtc.nvrtcAddNameExpression(program, kernel.encode()))
        encoded = [option.encode() for option in options]
        (status,) = nvrtc.nvrtcCompileProgram(program, len(encoded), encoded)
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            log = b" " * _call(nvrtc.nvrtcGetProgramLogSize(program))
            _call(nvrtc.nvrtcGetProgramLog(program, log))
            text = log.rstrip(b"\0 \n").decode() or nvrtc.nvrtcGetErrorString(status)[1].decode()
            raise CompileError(text)
        names = {k: _call(nvrtc.nvrtcGetLoweredName(program, k.encode())).decode() for k in kernels}
        cubin = b" " * _call(nvrtc.nvrtcGetCUBINSize(program))
        _call(nvrtc.nvrtcGetCUBIN(program, cubin))
        return cubin, names
    finally:
        nvrtc.nvrtcDestroyProgram(program)
