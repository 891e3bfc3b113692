"""Kernels on a GPU: the cubin for this very card, launched on torch's current stream."""

import contextlib
import ctypes
import functools
from collections.abc import Iterator, Sequence

from dlnotes.cuda import _cubin, _nvrtc
from dlnotes.cuda._errors import CudaError, ToolError
from dlnotes.cuda._source import KernelSource, Parameter, Source
from dlnotes.cuda._tensor import TensorMap, aligned

SHARED_UNASKED = 48 * 1024  # bytes of shared memory above which a kernel must ask for more


def available() -> bool:
    """Return whether torch sees a GPU and what compiles for it, NVRTC, is installed."""
    try:
        import torch

        _driver()
        _nvrtc.version()
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


def _call(result: tuple, doing: str = ""):
    """Return what a function of the driver returns beside its status; raise where that is an error.

    An error of a kernel that runs beside the threads of the CPU shows at any later call.
    """
    driver = _driver()
    status, *values = result
    if status != driver.CUresult.CUDA_SUCCESS:
        _, text = driver.cuGetErrorString(status)
        raise CudaError(f"CUDA: {text.decode() if text else status}{doing and f' ({doing})'}")
    return values[-1] if values else None


def check_versions(arch: str) -> None:
    """Raise ToolError unless NVRTC compiles for `arch` what the driver takes.

    A driver takes machine code of the toolkits of its own major version, newer ones among them, and
    of older ones (CUDA Compatibility, "minor version compatibility").
    """
    nvrtc, driver = _nvrtc.version(), _call(_driver().cuDriverGetVersion())
    if nvrtc[0] > driver // 1000:
        raise ToolError(
            f"NVRTC is of CUDA {_dotted(nvrtc)}, the driver of CUDA {driver // 1000}."
            f"{driver % 1000 // 10}, which takes no code of CUDA {nvrtc[0]}: `pip install "
            f'"dlnotes[cuda{driver // 1000}]"`, or install a newer driver'
        )
    known = _nvrtc.architectures()
    if arch.rstrip("a") not in known:
        raise ToolError(
            f"this GPU is {arch}, and NVRTC of CUDA {_dotted(nvrtc)} compiles for {known[0]} to "
            f"{known[-1]}: a newer GPU needs a newer NVRTC; older ones the book does not support"
        )


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


class Program:
    """One kernel, compiled for the current device.

    What it calls of the driver happens in the device's primary context, the one that torch has its
    tensors in, and afterwards the thread has the context that it had before. That need not be this
    one: threads begin without a context, those of torch's backward passes too, and torch takes
    "device 0, no context" for "device 0", so it is no help to have asked it for the device.
    """

    mode = "fast"

    def __init__(self, source: Source, kernel: KernelSource, expression: str):
        torch, driver = _torch(), _driver()
        torch.cuda.init()
        self.device, self.name = torch.cuda.current_device(), expression
        arch = device_architecture()
        check_versions(arch)
        self.cubin = _nvrtc.compile_source(source, [expression], arch)
        symbol = self.cubin.names[expression]
        self.argument_bytes = _cubin.parameter_bytes(self.cubin.data, symbol)
        of_function, of_device = driver.CUfunction_attribute, driver.CUdevice_attribute
        card = _call(driver.cuDeviceGet(self.device))
        self.most_shared = _call(driver.cuDeviceGetAttribute(
            of_device.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, card
        ))  # fmt: skip
        # Never released: torch keeps this context, too, for as long as the process lives.
        self._context = _call(driver.cuDevicePrimaryCtxRetain(card))
        with self._in_context():
            self._module = _call(driver.cuModuleLoadData(self.cubin.data), f"loading {expression}")
            self._function = _call(driver.cuModuleGetFunction(self._module, symbol.encode()))
            self.bound, self.static_shared = (
                _call(driver.cuFuncGetAttribute(attribute, self._function))
                for attribute in (
                    of_function.CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK,
                    of_function.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES,
                )
            )
        self._granted = SHARED_UNASKED - self.static_shared  # dynamic bytes that a launch may have

    @contextlib.contextmanager
    def _in_context(self) -> Iterator[None]:
        driver = _driver()
        _call(driver.cuCtxPushCurrent(self._context))
        try:
            yield
        finally:
            _call(driver.cuCtxPopCurrent())

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
        if self.static_shared + shared_bytes > self.most_shared:
            most = self.most_shared - self.static_shared
            raise ValueError(
                f"shared_bytes must be at most {most} on this GPU: it gives a block "
                f"{self.most_shared} bytes, and {self.name} declares {self.static_shared}; got "
                f"{shared_bytes}"
            )
        kept, addresses = [], []
        for value in values:
            if value is None or hasattr(value, "data_ptr"):
                room = ctypes.c_void_p(0 if value is None else value.data_ptr())
                address = ctypes.addressof(room)
            else:
                value = value.for_gpu(driver, _call) if isinstance(value, TensorMap) else value
                room, address = aligned(len(value))
                ctypes.memmove(address, value, len(value))
            kept.append(room)
            addresses.append(address)
        slots = (ctypes.c_void_p * max(len(addresses), 1))(*addresses)
        stream = torch.cuda.current_stream().cuda_stream
        with self._in_context():
            if shared_bytes > self._granted:
                size = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                asking = f"asking for {shared_bytes} bytes of shared memory for {self.name}"
                _call(driver.cuFuncSetAttribute(self._function, size, shared_bytes), asking)
                self._granted = shared_bytes
            shape, parameters = (*grid, *block), ctypes.addressof(slots)
            _call(
                driver.cuLaunchKernel(self._function, *shape, shared_bytes, stream, parameters, 0),
                f"launching {self.name}",
            )
