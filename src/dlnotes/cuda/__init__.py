"""CUDA kernels that every reader can run, see and trust, with or without a GPU.

The book's kernels are plain CUDA C++ in `.cu` files. The same file runs in two ways:

>>> from dlnotes import cuda
>>> module = cuda.load("linear.cu", mode="checked")              # doctest: +SKIP
>>> kernel = module.kernel("matmul_tiled<16>")                   # doctest: +SKIP
>>> kernel[(2, 3), (16, 16)](m, n, k, a, b, c)                   # doctest: +SKIP

**device="cpu"** compiles it with the machine's C++ compiler (or the package `ziglang`) and runs it
on NumPy arrays. Every CUDA thread is a *fiber*, a stack of its own; one runs until it comes to a
barrier, a shuffle or its end, then the next. Barriers, shuffles, votes and atomics therefore do
what they do on a GPU. There are four modes:

- "fast": as fast as this way allows; nothing is copied, and a wild access may damage the process.
- "checked": each load and store is checked, 10 to 50 times slower. A `KernelError` names the
  kernel, line, block and thread of an access out of bounds (global or shared memory, also from one
  row of a shared array into the next), of a misaligned vector access, of a **race** (two threads,
  one element, one of them writes, and no barrier between), of reading shared memory that nobody
  has written, and of barriers that not all threads reach, or some by another call. The arrays of
  a launch lie gigabytes apart, so that a wrong index is told of its own array and does not land
  in another. A thread's own array (`float r[4]`) is checked where it is indexed by its name; past
  its end through a pointer nothing is reported.
- "trace": as checked, and returns a `Trace`: for every line, how many requests its loads and stores
  make, how many 32-byte sectors each takes, how many of those bytes are used, and whether
  shared memory's banks conflict.
- "step": as checked, and returns `Steps`: one warp, line by line, with each lane's values.

**device="cuda"** compiles it by NVRTC for exactly the card at hand and launches it on torch
tensors, on torch's current stream. `compile` does the first half alone and needs no GPU.

**dtype="float64"** compiles the same source with every float read as a double, on either device:
float32 is too coarse for numerical gradients.

`dlnotes.cuda.functional`, `.nn` and `.optim` have the names of torch.nn.functional, torch.nn and
torch.optim, and run these kernels forward and backward; they alone import torch. `.roofline` says
how many bytes and operations each ladder needs.

How a race is found: the runtime keeps for each element who wrote and read it last, and when: a
barrier starts a new epoch for its block, `__syncwarp` orders the lanes that meet at it, and two
accesses of one epoch that no such meeting orders are a race, whichever came first in this run.
Shuffles and votes order nothing, as the programming guide says. Between blocks nothing is ordered.
An element is watched four bytes at a time, or one by one where less than that is accessed.
`__activemask()` gives the lanes that are in the same branch.

**Tensor cores and asynchronous copies** are instructions that CUDA C++ has no words for; kernels
call the wrappers of ptx.cuh: cp.async, ldmatrix, mma, mbarrier, TMA and wgmma. On the CPU a copy
lands, and a wgmma's sums appear, only when the kernel waits for them, as late as a GPU may take;
until then there is poison (NaN) or what was there before. Checked mode reports a *race* where
anyone touches what a copy under way will write or a wgmma under way may read, or where neither
barriers nor mbarriers order two threads; a *divergent warp* where lanes are missing that an
instruction of a whole warp or warpgroup needs; addresses that are not aligned as the hardware wants
them; misuse of an *mbarrier*: none initialised there, too many arrivals or bytes, unknown to TMA,
touched by ordinary loads or stores; and what is *unfinished* when the block ends. Bytes or arrivals
that never come are a *deadlock*, which says what is missing. bfloat16 is uint16 in NumPy arrays
(`to_bfloat16`, `from_bfloat16`), and `TensorMap` tells TMA of a matrix.

What the CPU cannot show: time; the order in which a GPU would run blocks; a missing memory fence
(here every write is seen at once; kernels that hand data from block to block by fences are
reported as races; of the fences for tensor cores only fence_mbarrier_init and the first
wgmma_fence of a warp are missed, not fence_proxy_async nor a later wgmma_fence); a thread that
changes the source of its own copy before it waits; in traces, what wgmma reads; clusters; and the
last bits of a sum, since a GPU joins a·b + c into one rounding.
`__device__` variables of a file are not watched. Shared memory declared at file scope is, and each
such variable alone, not their sum, is held against the 48 KB of a block.

What the CPU engine does not compile: inline PTX (`asm`; ptx.cuh has wrappers), cooperative groups,
`clock`, textures and surfaces, launches from kernels, the C++ standard
library's headers and `cuda::std`, and shared memory in declarations other than
`__shared__ type name[size], …;` (templates, structs and attributes included).

Compiled kernels are kept in the user's cache folder, or where DLNOTES_KERNELS says.
DLNOTES_CXX names another compiler. Nothing is compiled when this package is imported.
"""

import importlib
from pathlib import Path

from dlnotes.cuda import _nvrtc, _source, roofline
from dlnotes.cuda._cubin import Resources
from dlnotes.cuda._errors import CompileError, CudaError, KernelError, ToolError
from dlnotes.cuda._gpu import available
from dlnotes.cuda._kernel import Kernel, Module, load
from dlnotes.cuda._nvrtc import Cubin, architectures
from dlnotes.cuda._tensor import TensorMap, from_bfloat16, to_bfloat16
from dlnotes.cuda._trace import Access, LineReport, Step, Steps, Totals, Trace
from dlnotes.cuda.ladders import LADDERS, Ladder, Rung

_ON_TORCH = ("functional", "nn", "optim")  # import torch, so each is imported when it is used
__all__ = [
    "LADDERS",
    "Access",
    "CompileError",
    "Cubin",
    "CudaError",
    "Kernel",
    "KernelError",
    "Ladder",
    "LineReport",
    "Module",
    "Resources",
    "Rung",
    "Step",
    "Steps",
    "TensorMap",
    "ToolError",
    "Totals",
    "Trace",
    "architectures",
    "available",
    "compile",
    "from_bfloat16",
    "functional",
    "load",
    "nn",
    "optim",
    "roofline",
    "to_bfloat16",
]


def __getattr__(name: str):
    if name in _ON_TORCH:
        return importlib.import_module(f"dlnotes.cuda.{name}")
    raise AttributeError(f"module 'dlnotes.cuda' has no attribute {name!r}")


def compile(
    path: str | Path | None = None,
    *,
    source: str | None = None,
    kernels: list[str] | None = None,
    arch: str = "sm_80",
    dtype: str = "float32",
) -> Cubin:
    """Compile a file, or the text `source`, to machine code for the GPU architecture `arch`.

    kernels: which, with template arguments; if not given, all that are no templates. dtype: as in
    `load`. Needs no GPU.

    Raises CompileError with the compiler's messages, ToolError where NVRTC is not installed.
    """
    module = load(path, source=source, dtype=dtype)
    if kernels is None:
        found = module._source.kernels.values()
        kernels = [kernel.name for kernel in found if not kernel.template]
    if dtype == "float64":
        kernels = [_source.double_text(kernel) for kernel in kernels]
    return _nvrtc.compile_source(module._source, kernels, arch)
