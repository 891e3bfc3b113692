"""What every ladder is made of: a session that launches, rungs, and the ladder itself."""

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dlnotes import _validate
from dlnotes.cuda import _gpu, _kernel
from dlnotes.cuda._errors import ToolError
from dlnotes.cuda._tensor import address

WARPS = 4  # rows of a block where a warp has one

Grid = int | tuple[int, ...]


class Session:
    """What a rung needs to run: launches into one module, and memory like that of its inputs."""

    def __init__(self, module: "_kernel.Module"):
        self.module, self.records = module, []

    def launch(
        self, kernel: str, grid: Grid, block: Grid, *arguments, shared_bytes: int = 0
    ) -> None:
        """Launch `kernel`; a grid without blocks has nothing to do."""
        if 0 in (grid if isinstance(grid, tuple) else (grid,)):
            return
        ready = self.module.kernel(kernel)
        if self.module.dtype == "float64":
            shared_bytes *= 2  # they are told for floats
            arguments = [a.in_double() if isinstance(a, Record) else a for a in arguments]
        record = ready.launch(grid, block, *arguments, shared_bytes=shared_bytes)
        if record is not None:
            self.records.append(record)

    def beside(self, file: str) -> "Session":
        """Return a session for the kernels of another file, which records into this one."""
        module = self.module
        other = Session(_loaded(file, module.device, module.mode, module.dtype))
        other.records = self.records
        return other

    def empty(self, shape: tuple[int, ...], like, dtype: str | None = None):
        """Return memory for a result; on the CPU it holds NaN (or all bits set), so gaps show."""
        if isinstance(like, np.ndarray):
            dtype = np.dtype(dtype or like.dtype)
            return np.full(shape, np.nan if dtype.kind == "f" else ~dtype.type(0), dtype)
        import torch

        return like.new_empty(shape, dtype=getattr(torch, dtype) if dtype else None)

    def zeros(self, shape: tuple[int, ...], like):
        """Return zeros, for results that are added up by atomics."""
        return (
            np.zeros(shape, like.dtype) if isinstance(like, np.ndarray) else like.new_zeros(shape)
        )


@dataclass(frozen=True)
class Rung:
    """One version of a task.

    name: its main kernel. reason: why it is faster than the rung below, or how the first one works.
    run(session, *inputs) → outputs. kernels: all that it launches, template arguments given.
    needs: the oldest architecture that has what it uses; one with an "a", such as sm_90a, is the
    only one. dtype: of its inputs that are arrays of numbers, "float32" or "bfloat16" (NumPy: the
    bits in uint16, see `dlnotes.cuda.to_bfloat16`), beside which a bias and results are float32.
    """

    name: str
    reason: str
    run: Callable = field(repr=False)
    kernels: tuple[str, ...]
    needs: str = "sm_75"
    dtype: str = "float32"

    def takes(self, dtype: str) -> bool:
        """Return whether inputs may be of `dtype`; float64 where float32 may, read as doubles."""
        return dtype in ((self.dtype, "float64") if self.dtype == "float32" else (self.dtype,))

    def runs_on(self, arch: str) -> bool:
        """Return whether the architecture `arch`, e.g. "sm_90a", has what the rung needs."""
        return (
            arch == self.needs if self.needs.endswith("a") else _number(arch) >= _number(self.needs)
        )


def _number(arch: str) -> int:
    return int(arch.removeprefix("sm_").rstrip("af"))


@dataclass(frozen=True)
class Ladder:
    """A task, the NumPy function that it is held against, and its rungs from the simplest up.

    Inputs of float64 are computed by the same source with every float read as a double.
    operands: the places of the inputs that rungs of bfloat16 multiply, and so take as bfloat16; the
    others stay float32. None: all with more than one axis.
    """

    name: str
    file: str
    reference: str
    rungs: tuple[Rung, ...]
    operands: tuple[int, ...] | None = None

    def rung(self, name: str) -> Rung:
        """Return the rung `name`."""
        _validate.one_of("rung", name, [rung.name for rung in self.rungs])
        return next(rung for rung in self.rungs if rung.name == name)

    def multiplies(self, place: int, x) -> bool:
        """Return whether rungs of bfloat16 take the array `x`, the input at `place`, so rounded."""
        return x.ndim > 1 if self.operands is None else place in self.operands

    def run(self, *inputs, rung: str | None = None, device: str = "cpu", mode: str = "fast"):
        """Return the outputs for `inputs` by one rung.

        If not given, it is the last one for the dtype of `inputs` that the device can run.

        Raises TypeError for inputs of another dtype than the rung's, ToolError for a rung that
        the device cannot run.
        """
        return self.record(*inputs, rung=rung, device=device, mode=mode)[0]

    def record(
        self, *inputs, rung: str | None = None, device: str = "cpu", mode: str = "trace"
    ) -> tuple:
        """Return the outputs, and a Trace or Steps for each launch."""
        given = _dtype(inputs)
        arch = _gpu.device_architecture() if device == "cuda" else None
        chosen = self._last(given, arch) if rung is None else self.rung(rung)
        if not chosen.takes(given):
            raise TypeError(f"{chosen.name} takes {chosen.dtype}, got {given}")
        if arch is not None and not chosen.runs_on(arch):
            raise ToolError(f"{chosen.name} needs {chosen.needs}; this GPU is {arch}")
        read_as = "float64" if given == "float64" else "float32"
        session = Session(_loaded(self.file, device, mode, read_as))
        outputs = chosen.run(session, *inputs)
        return outputs, session.records

    def _last(self, dtype: str, arch: str | None) -> Rung:
        fitting = [
            rung for rung in self.rungs
            if rung.takes(dtype) and (arch is None or rung.runs_on(arch))
        ]  # fmt: skip
        if not fitting:
            raise ValueError(f"no rung of {self.name} takes {dtype} on {arch or 'the CPU'}")
        return fitting[-1]


def _dtype(inputs) -> str:
    """Return "bfloat16" or "float64" where an array has that dtype, else "float32"."""
    dtypes = {str(getattr(x, "dtype", "")).removeprefix("torch.") for x in inputs}
    if dtypes & {"bfloat16", "uint16"}:
        return "bfloat16"
    return "float64" if "float64" in dtypes else "float32"


_modules: dict[tuple[str, str, str, str], "_kernel.Module"] = {}


def _loaded(file: str, device: str, mode: str, dtype: str) -> "_kernel.Module":
    key = (file, device, mode, dtype)
    if key not in _modules:
        path = _kernel.KERNELS / file
        _modules[key] = _kernel.load(path, device=device, mode=mode, dtype=dtype)
    return _modules[key]


def blocks(n: int, each: int) -> int:
    """Return how many blocks of `each` cover n: n / each, rounded up."""
    return -(-n // each)


def wide(*arrays) -> bool:
    """Return whether all begin at multiples of 16 bytes, as a load or store of a float4 must.

    Parts of an array need not: x[1:] of float32 begins 4 bytes behind one.
    """
    return all(address(array) % 16 == 0 for array in arrays)


def pair(value) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def out_sizes(sizes, kernel, stride, padding, dilation=(1, 1)) -> list[int]:
    """Return the height and width of what windows over an image give."""
    axes = zip(sizes, kernel, stride, padding, dilation, strict=True)
    return [(size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in axes]


class Record(ctypes.Structure):
    """A struct of kernels with floats in it. It keeps what it was made of, for doubles."""

    def __init__(self, *values):
        super().__init__(*values)
        self._values = values

    def exact(self, name: str):
        """Return the field `name` as it was given, not rounded to float."""
        return self._values[[field[0] for field in self._fields_].index(name)]

    def in_double(self) -> ctypes.Structure:
        """Return the struct that the kernels take where each float is read as a double."""
        return _in_double(type(self))(*self._values)


@functools.cache
def _in_double(record: type[Record]) -> type[ctypes.Structure]:
    doubles = {ctypes.c_float: ctypes.c_double}
    fields = [(name, doubles.get(kind, kind)) for name, kind in record._fields_]
    return type(f"{record.__name__}InDouble", (ctypes.Structure,), {"_fields_": fields})


def ints(names: str) -> tuple[tuple[str, type], ...]:
    return tuple((name, ctypes.c_int) for name in names.split())
