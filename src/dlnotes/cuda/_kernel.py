"""The public objects: a module is a .cu file, a kernel one of its functions, ready to launch."""

import ctypes
import dataclasses
import numbers
from pathlib import Path

import numpy as np

from dlnotes import _validate
from dlnotes.cuda import _cache, _cpu
from dlnotes.cuda._source import (
    KernelSource,
    Parameter,
    Source,
    double_text,
    read,
    split,
)
from dlnotes.cuda._tensor import TensorMap
from dlnotes.cuda._trace import Steps, Trace

KERNELS = Path(__file__).parents[1] / "kernels"
DEVICES = ("cpu", "cuda")
DTYPES = ("float32", "float64")
MOST_THREADS = 1024
_MOST_BLOCK, _MOST_GRID = (1024, 1024, 64), (2**31 - 1, 65535, 65535)


def load(
    path: str | Path | None = None,
    *,
    source: str | None = None,
    device: str = "cpu",
    mode: str = "fast",
    dtype: str = "float32",
) -> "Module":
    """Return the module of a CUDA C++ file, or of the text `source`.

    path: the file; a name that does not exist from here is looked for among the book's kernels
    ("linear.cu"). device: "cpu" runs kernels on NumPy arrays, "cuda" on torch tensors on a GPU.
    mode: how kernels run on the CPU, see `dlnotes.cuda`. dtype: "float64" compiles the same source
    with every float read as a double, for checks of gradients. Nothing is compiled yet.

    Raises FileNotFoundError where there is no such file and ValueError for an unknown device, mode
    or dtype.
    """
    if (path is None) == (source is None):
        raise ValueError("give either path or source")
    _validate.one_of("device", device, DEVICES)
    _validate.one_of("mode", mode, _cpu.MODES)
    _validate.one_of("dtype", dtype, DTYPES)
    if device == "cuda" and mode != "fast":
        raise ValueError(f'mode={mode!r} needs device="cpu"; a GPU runs kernels in mode "fast"')
    if source is not None:
        # A file, so that the compiler's messages can show its lines.
        name = f"source_{_cache.key(source)[:12]}"
        folder = _cache.entry(name, lambda new: _write(new / "source.cu", source))
        path = folder / "source.cu"
    elif not Path(path).exists() and (KERNELS / path).exists():
        path = KERNELS / path
    return Module(read(Path(path), dtype), device, mode, dtype)


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


class Module:
    """A CUDA C++ file. `kernels` lists its `__global__` functions; `kernel(name)` gives one."""

    def __init__(self, source: Source, device: str, mode: str, dtype: str = "float32"):
        self._source, self.device, self.mode, self.dtype = source, device, mode, dtype
        self._ready: dict[tuple, Kernel] = {}

    @property
    def kernels(self) -> list[str]:
        """The names of the kernels, templates without their arguments."""
        return list(self._source.kernels)

    def kernel(self, name: str, mode: str | None = None) -> "Kernel":
        """Compile the kernel `name`, e.g. "sgemm_naive" or "sgemm_tiled<32>", and return it.

        mode: in place of the module's. Raises ValueError for a name or template arguments that the
        file does not have, CompileError where the compiler refuses, and ToolError without one.
        """
        mode = self.mode if mode is None else _validate.one_of("mode", mode, _cpu.MODES)
        expression = " ".join(name.split())
        if self.dtype == "float64":
            expression = double_text(expression)
        key = (expression, mode, self._card())
        if key not in self._ready:
            self._ready[key] = self._compile(expression, mode)
        return self._ready[key]

    def _card(self) -> int | None:
        """Return which of several GPUs is the current one: each has machine code of its own."""
        if self.device == "cpu":
            return None
        from dlnotes.cuda import _gpu

        return _gpu.current_device()

    def _compile(self, expression: str, mode: str) -> "Kernel":
        base, _, rest = expression.partition("<")
        declared = self._source.kernels.get(base.strip())
        if declared is None:
            names = ", ".join(self.kernels) or "none"
            raise ValueError(
                f"no kernel {base.strip()!r} in {self._source.name}; there are: {names}"
            )
        arguments = split(rest.rstrip()[:-1]) if rest else []
        if len(arguments) != len(declared.template):
            wanted = ", ".join(f"{kind} {name}" for kind, name in declared.template)
            shown = f"{declared.name}<{wanted}>" if wanted else f"{declared.name}, no template"
            raise ValueError(f"the kernel is {shown}; got {expression!r}")
        if self.device == "cuda":
            from dlnotes.cuda import _gpu

            program = _gpu.Program(self._source, declared, expression)
        else:
            program = _cpu.Program(self._source, declared, expression, mode)
        return Kernel(program, declared, expression, arguments)

    def __repr__(self) -> str:
        return f"<module {Path(self._source.name).name}: {', '.join(self.kernels)}>"


class Kernel:
    """A compiled kernel: `kernel[grid, block](*arguments)` launches it.

    `kernel[grid, block, shared_bytes]` gives dynamic shared memory. grid and block are a number or
    up to three, x first. Arguments: an array (or None) for each pointer, a number for each scalar,
    a ctypes.Structure or NumPy record for a struct, a TensorMap for TMA; number, dtypes, contiguity
    and whether what is written may be written are checked against the kernel's own parameters.
    """

    def __init__(self, program, declared: KernelSource, name: str, arguments: list[str]):
        self._program, self.name = program, name
        self.parameters = declared.signature(arguments)

    def __getitem__(self, shape) -> "Launcher":
        if not isinstance(shape, tuple) or len(shape) not in (2, 3):
            raise TypeError("write kernel[grid, block](…) or kernel[grid, block, shared_bytes](…)")
        return Launcher(self, *shape)

    def launch(
        self,
        grid,
        block,
        *arguments,
        shared_bytes: int = 0,
        at_block: int | None = None,
        at_warp: int | None = None,
    ) -> Trace | Steps | None:
        """Run the kernel; return a Trace or Steps in the modes that record.

        On the CPU the kernel has ended when this returns; on a GPU it is queued, as torch does it.

        at_block, at_warp: which block (counted flat) and which of its warps the modes "trace" and
        "step" record; all for "trace" and the first for "step" if not given.

        Raises KernelError for what the kernel does wrong, TypeError and ValueError for arguments.
        """
        grid = _shape("grid", grid, _MOST_GRID)
        block = _shape("block", block, _MOST_BLOCK)
        threads = block[0] * block[1] * block[2]
        if threads > min(MOST_THREADS, self._program.bound):
            why = "" if self._program.bound >= MOST_THREADS else ", by its __launch_bounds__"
            most = min(MOST_THREADS, self._program.bound)
            raise ValueError(f"block must have at most {most} threads{why}, got {block}: {threads}")
        most = _cpu.MOST_DYNAMIC_SHARED
        shared_bytes = _validate.integer("shared_bytes", shared_bytes, low=0, high=most)
        if len(arguments) != len(self.parameters):
            wanted = ", ".join(f"{p.type} {p.name}" for p in self.parameters)
            raise TypeError(f"{self.name} takes {len(self.parameters)} arguments ({wanted}), "
                            f"got {len(arguments)}")  # fmt: skip
        program = self._program
        convert = program.array if hasattr(program, "array") else _host_array
        values = [
            _argument(parameter, value, size, convert)
            for parameter, value, size in zip(
                self.parameters, arguments, program.argument_bytes, strict=True
            )
        ]
        which = self._which(at_block, at_warp, grid, threads)
        return program.launch(grid, block, shared_bytes, self.parameters, values, which)

    def _which(self, at_block, at_warp, grid, threads) -> tuple[int, int, int]:
        mode = self._program.mode
        if mode not in ("trace", "step"):
            if at_block is not None or at_warp is not None:
                raise ValueError(f'at_block and at_warp need mode "trace" or "step", not {mode!r}')
            return (-1, -1, -1)
        if mode == "trace" and at_block is None and at_warp is None:
            return (-1, -1, -1)
        blocks, warps = grid[0] * grid[1] * grid[2], -(-threads // 32)
        at_block = _validate.integer("at_block", at_block or 0, low=0, high=blocks - 1)
        if mode == "trace" and at_warp is None:
            return (at_block, 0, threads)
        at_warp = _validate.integer("at_warp", at_warp or 0, low=0, high=warps - 1)
        return (at_block, 32 * at_warp, 32 * at_warp + 32)

    def __repr__(self) -> str:
        wanted = ", ".join(f"{p.type} {p.name}" for p in self.parameters)
        return f"<kernel {self.name}({wanted})>"


class Launcher:
    """A kernel with its launch shape: call it with the kernel's arguments."""

    def __init__(self, kernel: Kernel, grid, block, shared_bytes: int = 0):
        self._kernel, self._shape, self._shared_bytes = kernel, (grid, block), shared_bytes

    def __call__(self, *arguments) -> Trace | Steps | None:
        """Launch as `Kernel.launch` does."""
        return self._kernel.launch(*self._shape, *arguments, shared_bytes=self._shared_bytes)


def _shape(name: str, value, most: tuple[int, int, int]) -> tuple[int, int, int]:
    sizes = value if isinstance(value, tuple | list) else (value,)
    if not 1 <= len(sizes) <= 3:
        raise ValueError(f"{name} must be one to three sizes, got {value!r}")
    sizes = [_validate.integer(name, s, low=1, high=m) for s, m in zip(sizes, most, strict=False)]
    return tuple([*sizes, 1, 1][:3])


# ---- arguments -------------------------------------------------------------------------------


def _argument(parameter: Parameter, value, size: int, convert):
    """Return what the program launches with: an array or None for a pointer, a map, else bytes."""
    if parameter.pointer:
        return None if value is None else convert(parameter, value)
    name = parameter.name
    if parameter.type == "const TensorMap":
        if not isinstance(value, TensorMap):
            raise TypeError(f"{name} must be a TensorMap, got {type(value).__name__}")
        return dataclasses.replace(value, array=convert(parameter, value.array))
    if parameter.dtype is None:
        return _record(parameter, value, size)
    if parameter.dtype == "bfloat16":
        raise TypeError(f"{name} is a bfloat16: take a float and convert it in the kernel")
    dtype = np.dtype(parameter.dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        value = _validate.integer(name, value, low=limits.min, high=limits.max)
    elif dtype.kind == "b":
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"{name} must be True or False, got {type(value).__name__}")
    elif isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    return dtype.type(value).tobytes()


def _record(parameter: Parameter, value, size: int) -> bytes:
    if isinstance(value, ctypes.Structure | np.void):
        data = bytes(value) if isinstance(value, ctypes.Structure) else value.tobytes()
        if len(data) == size:
            return data
        raise TypeError(
            f"{parameter.name} must have {size} bytes ({parameter.type}), got {len(data)}"
        )
    raise TypeError(f"{parameter.name} is a {parameter.type}: pass a ctypes.Structure or a NumPy "
                    f"record of {size} bytes, got {type(value).__name__}")  # fmt: skip


def _host_array(parameter: Parameter, value) -> np.ndarray:
    """Return the memory of a NumPy array or of a torch tensor on the CPU, checked, not copied."""
    name = parameter.name
    if hasattr(value, "data_ptr"):
        if value.device.type != "cpu":
            raise TypeError(f'{name} is on {value.device}; load the module with device="cuda"')
        check_dtype(parameter, str(value.dtype).removeprefix("torch."))
        value = value.detach()
        if str(value.dtype) == "torch.bfloat16":
            import torch

            value = value.view(torch.uint16)
        value = value.numpy()
    elif isinstance(value, np.ndarray):
        given = value.dtype.name
        # NumPy has no bfloat16 of its own: its bits in uint16 will do.
        check_dtype(
            parameter, "bfloat16" if (parameter.dtype, given) == ("bfloat16", "uint16") else given
        )
    else:
        raise TypeError(f"{name} must be a NumPy array, got {type(value).__name__}")
    if not value.flags.c_contiguous:
        raise ValueError(f"{name} must be contiguous: pass np.ascontiguousarray({name})")
    if not parameter.const and not value.flags.writeable:
        raise ValueError(
            f"{name} is read-only, and the kernel takes {parameter.type}, to write to it"
        )
    return value


def check_dtype(parameter: Parameter, given: str) -> None:
    """Raise TypeError unless an array of dtype `given` fits a pointer parameter."""
    if parameter.dtype not in (None, given):
        raise TypeError(
            f"{parameter.name} must have dtype {parameter.dtype} ({parameter.type}), got {given}"
        )
