"""Kernels on a GPU: the cubin for this very card, launched on torch's current stream."""

import ctypes
import functools
from collections.abc import Sequence

from dlnotes.cuda import _nvrtc
from dlnotes.cuda._errors import CudaError, ToolError
from dlnotes.cuda._source import KernelSource, Parameter, Source
from dlnotes.cuda._tensor import TensorMap

STATIC_SHARED = 48 * 1024  # bytes of dynamic shared memory above which a kernel must ask for more


def available() -> bool:
    """Return whether torch sees a GPU and the bindings to compile for it are installed."""
    try:
        import torch

        _driver()
        return torch.cuda.is_available()
    except (ImportError, ToolError):
        return False


@functools.cache
def _driver():
    try:
        from cuda.bindings import driver
    except ImportError as problem:
        raise ToolError(f"{_nvrtc.MISSING} ({problem})") from problem
    return driver


@functools.cache
def _torch():
    try:
        import torch
    except ImportError as problem:
        raise ToolError('device="cuda" needs torch: its tensors hold the data') from problem
    if not torch.cuda.is_available():
        raise ToolError('torch sees no GPU; device="cpu" runs the same kernels without one')
    return torch


def current_device() -> int:
    """Return the number of the GPU that torch works on now."""
    return _torch().cuda.current_device()


def architecture(capability: tuple[int, int]) -> str:
    """Return the exact architecture of a device: (8, 0) → "sm_80", (9, 0) → "sm_90a".

    From 9.0 on, the "a" gives access to instructions of that architecture alone (wgmma, TMA).
    """
    major, minor = capability
    return f"sm_{major}{minor}{'a' if major >= 9 else ''}"


def device_architecture() -> str:
    """Return the architecture of torch's current device; ToolError where there is none."""
    torch = _torch()
    return architecture(torch.cuda.get_device_capability(torch.cuda.current_device()))


def _call(result: tuple):
    driver = _driver()
    status, *values = result
    if status != driver.CUresult.CUDA_SUCCESS:
        _, text = driver.cuGetErrorString(status)
        raise CudaError(f"CUDA: {text.decode() if text else status}")
    return values[-1] if values else None


class Program:
    """One kernel, compiled for the current device."""

    mode = "fast"

    def __init__(self, source: Source, kernel: KernelSource, expression: str):
        torch, driver = _torch(), _driver()
        torch.cuda.init()
        self.device = torch.cuda.current_device()
        self.cubin = _nvrtc.compile_source(source, [expression], device_architecture())
        torch.cuda.current_stream()  # makes torch's context the current one
        self._context = _call(driver.cuCtxGetCurrent())
        self._module = _call(driver.cuModuleLoadData(self.cubin.data))
        symbol = self.cubin.names[expression].encode()
        self._function = _call(driver.cuModuleGetFunction(self._module, symbol))
        attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK
        self.bound = _call(driver.cuFuncGetAttribute(attribute, self._function))
        self.argument_bytes = [
            _call(driver.cuFuncGetParamInfo(self._function, i))
            for i in range(len(kernel.parameters))
        ]

    def array(self, parameter: Parameter, value):
        """Return `value`, a contiguous torch tensor on this device of the parameter's dtype."""
        from dlnotes.cuda._kernel import check_dtype

        torch, name = _torch(), parameter.name
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{name} must be a torch tensor on the GPU, got {type(value).__name__}")
        if value.device.type != "cuda" or value.device.index != self.device:
            raise ValueError(f"{name} is on {value.device}, and the kernel on cuda:{self.device}")
        check_dtype(parameter, str(value.dtype).removeprefix("torch."))
        if not value.is_contiguous():
            raise ValueError(f"{name} must be contiguous: pass {name}.contiguous()")
        return value

    def launch(
        self,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        shared_bytes: int,
        parameters: Sequence[Parameter],
        values: Sequence,
        which: tuple[int, int, int],
    ) -> None:
        """Queue the kernel on torch's current stream, as torch's own operations are."""
        torch, driver = _torch(), _driver()
        if torch.cuda.current_device() != self.device:
            raise ValueError(f"compiled for cuda:{self.device}, which is not the current device")
        if shared_bytes > STATIC_SHARED:
            size = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            _call(driver.cuFuncSetAttribute(self._function, size, shared_bytes))
        # Backward passes run in threads of torch's own, which may have no context yet.
        _call(driver.cuCtxSetCurrent(self._context))
        cells = []
        for value in values:
            if value is None or hasattr(value, "data_ptr"):
                cells.append(ctypes.c_void_p(0 if value is None else value.data_ptr()))
            else:
                value = value.for_gpu(driver, _call) if isinstance(value, TensorMap) else value
                cells.append(ctypes.create_string_buffer(value, len(value)))
        slots = (ctypes.c_void_p * max(len(cells), 1))(*map(ctypes.addressof, cells))
        stream = torch.cuda.current_stream().cuda_stream
        _call(driver.cuLaunchKernel(self._function, *grid, *block, shared_bytes, stream,
                                    ctypes.addressof(slots), 0))  # fmt: skip
