"""What every ladder is made of: a session that launches, rungs, and the ladder itself."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dlnotes import _validate
from dlnotes.cuda import _kernel

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
        record = ready.launch(grid, block, *arguments, shared_bytes=shared_bytes)
        if record is not None:
            self.records.append(record)

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
    needs: the oldest architecture that has what it uses.
    """

    name: str
    reason: str
    run: Callable = field(repr=False)
    kernels: tuple[str, ...]
    needs: str = "sm_75"


@dataclass(frozen=True)
class Ladder:
    """A task, the NumPy function that it is held against, and its rungs from the simplest up."""

    name: str
    file: str
    reference: str
    rungs: tuple[Rung, ...]

    def rung(self, name: str) -> Rung:
        """Return the rung `name`."""
        _validate.one_of("rung", name, [rung.name for rung in self.rungs])
        return next(rung for rung in self.rungs if rung.name == name)

    def run(self, *inputs, rung: str | None = None, device: str = "cpu", mode: str = "fast"):
        """Return the outputs for `inputs` by one rung, the last if not given."""
        return self.record(*inputs, rung=rung, device=device, mode=mode)[0]

    def record(
        self, *inputs, rung: str | None = None, device: str = "cpu", mode: str = "trace"
    ) -> tuple:
        """Return the outputs, and a Trace or Steps for each launch."""
        chosen = self.rungs[-1] if rung is None else self.rung(rung)
        session = Session(_loaded(self.file, device, mode))
        outputs = chosen.run(session, *inputs)
        return outputs, session.records


_modules: dict[tuple[str, str, str], "_kernel.Module"] = {}


def _loaded(file: str, device: str, mode: str) -> "_kernel.Module":
    key = (file, device, mode)
    if key not in _modules:
        _modules[key] = _kernel.load(_kernel.KERNELS / file, device=device, mode=mode)
    return _modules[key]


def blocks(n: int, each: int) -> int:
    """Return how many blocks of `each` cover n: n / each, rounded up."""
    return -(-n // each)


def pair(value) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def out_sizes(sizes, kernel, stride, padding, dilation=(1, 1)) -> list[int]:
    """Return the height and width of what windows over an image give."""
    axes = zip(sizes, kernel, stride, padding, dilation, strict=True)
    return [(size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in axes]


def ints(names: str) -> tuple[tuple[str, type], ...]:
    return tuple((name, ctypes.c_int) for name in names.split())
