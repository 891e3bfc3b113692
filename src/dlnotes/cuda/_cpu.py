"""Kernels on the CPU: the host's C++ compiler, the engine's runtime, and a launch by ctypes.

A kernel becomes a shared library of its own, so only what is asked for is compiled. For the modes
that watch, the compiler writes assembly first; `annotate` adds a table of which line each watched
access stands in, and that works alike for g++ and clang++, Linux and macOS, with no debugger.
"""

import ctypes
import functools
import importlib.util
import itertools
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dlnotes.cuda import _cache
from dlnotes.cuda._errors import CompileError, KernelError, ToolError
from dlnotes.cuda._source import KernelSource, Parameter, Source, for_cpu
from dlnotes.cuda._tensor import TensorMap
from dlnotes.cuda._trace import EVENT, Buffer, Steps, Trace

ENGINE = Path(__file__).parent / "engine"
MODES = ("fast", "checked", "trace", "step")
MOST_STATIC_SHARED = 48 * 1024  # bytes that a kernel may declare
MOST_DYNAMIC_SHARED = 227 * 1024  # bytes for each block on an H100, the most of any
_one_launch = threading.Lock()  # the runtime keeps its state in one place

_COMMON = [
    *("-std=c++17", "-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti", "-w"),
    *("-fno-threadsafe-statics", "-fno-strict-aliasing", "-fno-stack-protector"),
    *("-ffp-contract=off", "-U_FORTIFY_SOURCE"),
]
_CHECKS = ["-fsanitize=thread", "-fsanitize=alignment,bounds,integer-divide-by-zero"]
# clang's "bounds" holds a check that ends the process where the engine could only guess why.
_CHECKS_OF = {"gcc": [], "clang": ["-fno-sanitize=local-bounds"]}
# At these levels a float4 is still read in one access, as it is written in the source.
_LEVEL = {
    "gcc": {"fast": ["-O2"], "checked": ["-Og", "-g1", "-fno-tree-sra"], "step": ["-O0", "-g1"]},
    "clang": {"fast": ["-O2"], "checked": ["-O1", "-g1"], "step": ["-O0", "-g1"]},
}


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler: how it is called, its family, and what tells its versions apart."""

    command: tuple[str, ...]
    family: str
    identity: str

    def common(self) -> list[str]:
        """Return the options of all that is compiled."""
        zig = ["-fno-sanitize=undefined"]  # else it adds traps of its own
        others = ["-nostdinc++", f"-I{ENGINE / 'c'}"]
        return [*_COMMON, f"-I{ENGINE}", *(zig if "ziglang" in self.command else others)]

    def flags(self, mode: str) -> list[str]:
        """Return the options that compile a kernel for `mode`."""
        build = {"trace": "checked"}.get(mode, mode)
        flags = [*self.common(), *_LEVEL[self.family][build]]
        if mode != "fast":
            flags += [*_CHECKS, *_CHECKS_OF[self.family], "-DENGINE_WATCH"]
        if mode == "step":
            flags.append("-fsanitize-coverage=trace-pc")
        return flags

    def run(self, *arguments: str, link: bool = False) -> None:
        """Run the compiler; CompileError holds what it says."""
        if link:
            arguments = ("-shared", *arguments)
        if link and "ziglang" in self.command:
            # The process has the C library already; to link it, zig would build it for minutes.
            apple = ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []
            arguments = (*arguments, "-nostdlib", *apple)
        zig = {name: str(_cache.folder() / "zig") for name in _ZIG_FOLDERS}
        environment = {**zig, **os.environ, "LC_ALL": "C"}
        done = subprocess.run(
            [*self.command, *arguments],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        if done.returncode:
            raise CompileError(done.stderr.strip() or f"{self.command[0]} failed")


_ZIG_FOLDERS = ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR")


@functools.cache
def find_compiler() -> Compiler:
    """Return the C++ compiler: DLNOTES_CXX, else g++, clang++ or c++, else the package ziglang.

    Raises ToolError where there is none, and on systems that the engine does not know.
    """
    if os.name != "posix" or platform.machine() not in ("x86_64", "AMD64", "aarch64", "arm64"):
        raise ToolError(
            "the CPU engine runs on Linux and macOS, on x86-64 and arm64, not on "
            f"{platform.system()} {platform.machine()}; on Windows, WSL is a Linux"
        )
    chosen = os.environ.get("DLNOTES_CXX")
    if chosen:
        command = chosen.split()
        if shutil.which(command[0]) is None:
            raise ToolError(f"DLNOTES_CXX names {command[0]!r}, which is not there")
        return _compiler(command)
    for name in ("g++", "clang++", "c++"):
        if shutil.which(name) and not _is_stub():
            return _compiler([name])
    if importlib.util.find_spec("ziglang"):
        return _compiler([sys.executable, "-m", "ziglang", "cc"])
    raise ToolError(
        "to run CUDA kernels on the CPU a C++ compiler is needed, and none is installed: "
        "`pip install ziglang` brings one (60 MB), or install g++ or clang++"
    )


def _is_stub() -> bool:
    """Say whether macOS would open a window in place of a compiler: its tools are not installed."""
    if sys.platform != "darwin":
        return False
    return subprocess.run(["xcode-select", "-p"], capture_output=True, check=False).returncode != 0


def _compiler(command: list[str]) -> Compiler:
    zig = importlib.util.find_spec("ziglang") if "ziglang" in command else None
    file = Path(zig.origin if zig else os.path.realpath(shutil.which(command[0])))
    # What the name runs may be a link to another family: macOS calls clang++ g++.
    name = file.name if sys.platform != "darwin" else "clang++"
    family = "gcc" if re.search(r"g\+\+|gcc", name) and "ziglang" not in command else "clang"
    state = file.stat()
    return Compiler(tuple(command), family, f"{file} {state.st_size} {state.st_mtime_ns}")


# ---- building --------------------------------------------------------------------------------


def build(source: Source, kernel: KernelSource, expression: str, mode: str) -> Path:
    """Return the shared library of one kernel, compiled or from the cache."""
    compiler = find_compiler()
    text = _translation(source, kernel, expression)
    flags = compiler.flags(mode)
    key = _cache.key("kernel", text, flags, compiler.command, compiler.identity, *_engine())

    def make(folder: Path) -> None:
        code, assembly, library = (folder / f"kernel.{end}" for end in ("cpp", "s", "so"))
        code.write_text(text, encoding="utf-8")
        with ThreadPoolExecutor(1) as pool:  # the first time this takes longer than the kernel
            runtime = pool.submit(_runtime, compiler, mode)
            if mode == "fast":
                compiler.run(*flags, "-c", str(code), "-o", str(folder / "kernel.o"))
                object_file = folder / "kernel.o"
            else:
                compiler.run(*flags, "-S", str(code), "-o", str(assembly))
                assembly.write_text(annotate(assembly.read_text(), set(source.files)))
                object_file = assembly
            objects = [object_file, runtime.result()]
        compiler.run(*map(str, objects), "-o", str(library), link=True)
        for file in folder.iterdir():
            if file != library:
                file.unlink()

    return _cache.entry(key, make) / "kernel.so"


@functools.cache
def _engine() -> tuple[bytes, ...]:
    """Return all of the engine that shapes what is built: its sources and this file."""
    files = [file for file in sorted(ENGINE.rglob("*")) if file.is_file()]
    return tuple(file.read_bytes() for file in [*files, Path(__file__)])


def _runtime(compiler: Compiler, mode: str) -> Path:
    """Return the engine's runtime as an object file."""
    flags = [*compiler.common(), "-O2", *([] if mode == "fast" else ["-DENGINE_WATCH"])]
    key = _cache.key("runtime", flags, compiler.command, compiler.identity, *_engine())

    def make(folder: Path) -> None:
        compiler.run(*flags, "-c", str(ENGINE / "runtime.cpp"), "-o", str(folder / "runtime.o"))

    return _cache.entry(key, make) / "runtime.o"


def _translation(source: Source, kernel: KernelSource, expression: str) -> str:
    """Return the C++ file: the engine's header, the kernels, and the entry point of one of them."""
    parameters = ", ".join(f"{kind} {name}" for kind, name in kernel.template)
    head = f"template <{parameters}> " if kernel.template else ""
    arguments = expression.partition("<")[2]
    bound = f"engine_bound_of{'<' + arguments if kernel.template else ''}::value"
    return (
        f'#include "cuda_on_cpu.h"\n{for_cpu(source.text)}\n#line 1 "entry point"\n'
        f"{head}struct engine_bound_of {{\n"
        f"  static constexpr int value = ({kernel.bound or 1024});\n}};\n"
        f"ENGINE_KERNEL(0, ({expression}), ({bound}))\n"
    )


_WATCHED_CALL = re.compile(
    r"\s+(?:callq?|bl)\s+_?(?:__tsan_(?!func|init)|__sanitizer_cov_trace_pc)"
)
_LOCATION = re.compile(r"\s+\.loc\s+(\d+)\s+(\d+)")
_LABEL = re.compile(r"[.\w$]+:")
_FILE = re.compile(r'\s\.file\s+(\d+)\s+"([^"]*)"(?:\s+"([^"]*)")?')


def annotate(assembly: str, files: set[str]) -> str:
    """Return `assembly` with a table engine_lines: (return address, file, line) of watched calls.

    Code of the engine's own headers that was inlined counts as the line of `files` before it. A
    piece of code that begins with a step and no line of its own, as where two branches meet, counts
    as its first line.
    """
    apple = "__TEXT,__text" in assembly
    label, prefix = ("Lengine_at", "_") if apple else (".Lengine_at", "")
    numbered: dict[str, str] = {}
    for number, folder, name in _FILE.findall(assembly):
        numbered[number] = os.path.join(folder, name) if name else folder
    place, ours, out, table = ("", "0"), False, [], []
    lines, fresh = assembly.splitlines(), False  # since a label no line was named
    for i, line in enumerate(lines):
        out.append(line)
        if _LABEL.match(line):
            fresh = True
        elif found := _LOCATION.match(line):
            fresh = False
            ours = numbered.get(found[1]) in files
            if ours:
                place = (numbered[found[1]], found[2])
        elif _WATCHED_CALL.match(line):
            out.append(f"{label}{len(table)}:")
            is_step = "trace_pc" in line
            if is_step and fresh and (found := _first_location(lines, i + 1)):
                ours = numbered.get(found[1]) in files
                place = (numbered[found[1]], found[2]) if ours else place
            table.append(("", "0") if is_step and not ours else place)
    names = sorted({file for file, _ in table})
    out += ["\t.data", "\t.p2align 3"]
    out += [f'{label}_file{i}:\n\t.asciz "{name}"' for i, name in enumerate(names)]
    out += [f"\t.globl {prefix}engine_lines", "\t.p2align 3", f"{prefix}engine_lines:"]
    for i, (file, number) in enumerate(table):
        out.append(f"\t.quad {label}{i}, {label}_file{names.index(file)}, {number}")
    out += [f"\t.globl {prefix}engine_lines_end", f"{prefix}engine_lines_end:"]
    return "\n".join(out) + "\n"


def _first_location(lines: list[str], start: int) -> re.Match | None:
    """Return the first line that a piece of code names, None where it ends before."""
    for line in itertools.islice(lines, start, None):
        if _LABEL.match(line):
            return None
        if found := _LOCATION.match(line):
            return found
    return None


# ---- running ---------------------------------------------------------------------------------


class _Failure(ctypes.Structure):
    _fields_ = (
        ("text", ctypes.c_char * 2048), ("file", ctypes.c_char * 1024),
        ("line", ctypes.c_int), ("has_thread", ctypes.c_int),
        ("block", ctypes.c_uint * 3), ("thread", ctypes.c_uint * 3),
    )  # fmt: skip


class _Watched(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p), ("base", ctypes.c_void_p), ("bytes", ctypes.c_size_t),
        ("item", ctypes.c_int), ("grain", ctypes.c_int),
    )  # fmt: skip


class Program:
    """One kernel, compiled for the CPU in one mode."""

    def __init__(self, source: Source, kernel: KernelSource, expression: str, mode: str):
        self.source, self.expression, self.mode = source, expression, mode
        self.library = library = ctypes.CDLL(str(build(source, kernel, expression, mode)))
        library.engine_failure.restype = ctypes.POINTER(_Failure)
        if source.dtype == "float64":  # a tile that fits as floats fits as doubles
            library.engine_most_static(ctypes.c_size_t(2 * MOST_STATIC_SHARED))
        self.bound = library.engine_bound_0()
        size = library.engine_argument_bytes_0
        self.argument_bytes = [size(i) for i in range(len(kernel.parameters))]

    def launch(
        self,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        shared_bytes: int,
        parameters: Sequence[Parameter],
        values: Sequence[np.ndarray | TensorMap | bytes | None],
        which: tuple[int, int, int],
    ) -> Trace | Steps | None:
        """Run the kernel; `values` are the pointers' arrays (or None), maps and others' bytes.

        `which` names what trace and step record: block, first thread, one past the last; or -1s.
        """
        shape = (ctypes.c_uint * 6)(*grid, *block)
        with _one_launch:
            if self.mode == "fast":
                self._call(shape, shared_bytes, values)
                return None
            return self._watched(shape, shared_bytes, parameters, values, which)

    def _call(self, shape, shared_bytes, values) -> None:
        slots, kept = (ctypes.c_void_p * max(len(values), 1))(), []
        for i, value in enumerate(values):
            if value is None or isinstance(value, np.ndarray):
                cell = ctypes.c_void_p(None if value is None else value.ctypes.data)
                slots[i] = ctypes.addressof(cell)
            else:
                value = value.for_cpu(value.array) if isinstance(value, TensorMap) else value
                # structs may ask for 64-byte alignment
                cell = ctypes.create_string_buffer(len(value) + 64)
                start = (ctypes.addressof(cell) + 63) & ~63
                ctypes.memmove(start, value, len(value))
                slots[i] = start
            kept.append(cell)
        self.library.engine_launch_0(slots, shape, ctypes.c_size_t(shared_bytes))
        failure = self.library.engine_failure()
        if failure:
            if self.library.engine_interrupted():
                raise KeyboardInterrupt
            raise self._error(failure.contents)

    def _error(self, failure: _Failure) -> KernelError:
        file = failure.file.decode()
        return KernelError(
            failure.text.decode(),
            kernel=self.expression,
            file=os.path.basename(file),
            line=failure.line if file in self.source.files else 0,
            source=self.source.line(file, failure.line),
            block=tuple(failure.block),
            thread=tuple(failure.thread) if failure.has_thread else None,
        )

    def _watched(self, shape, shared_bytes, parameters, values, which):
        """Run on copies, each in a field of its own, so that no overrun lands in a neighbour."""
        originals: list[np.ndarray] = []
        for value in map(_array, values):
            if value is not None and not any(_same(value, o) for o in originals):
                if any(np.may_share_memory(value, o) for o in originals):
                    raise ValueError("two arrays overlap without being the same: pass copies")
                originals.append(value)
        copies = _far_apart(self.library, originals)

        def copy_of(value):
            array = _array(value)
            if array is None:
                return value
            copy = next(c for c, o in zip(copies, originals, strict=True) if _same(array, o))
            return value.for_cpu(copy) if isinstance(value, TensorMap) else copy

        arguments = [copy_of(value) for value in values]
        arrays = list(map(_array, values))
        first = [
            next(i for i, a in enumerate(arrays) if a is not None and _same(a, original))
            for original in originals
        ]
        watched = (_Watched * max(len(copies), 1))()
        for slot, copy, i in zip(watched, copies, first, strict=False):
            grain = min(copy.itemsize, 4)
            name = parameters[i].name.encode()
            slot.name, slot.base, slot.bytes = name, copy.ctypes.data, copy.nbytes
            slot.item, slot.grain = copy.itemsize, grain
        library, record = self.library, self.mode in ("trace", "step")
        chosen = (ctypes.c_int64 * 3)(*which)
        if library.engine_watch(
            len(copies), watched, int(record), int(self.mode == "step"), chosen
        ):
            raise MemoryError("no memory to watch these arrays: use a smaller problem")
        self._call(shape, shared_bytes, arguments)
        for original, copy in zip(originals, copies, strict=True):
            if original.flags.writeable:
                original[...] = copy
        if not record:
            return None
        arguments = [
            Buffer(parameters[i].name, "global", copy.itemsize, copy.dtype)
            for i, copy in zip(first, copies, strict=True)
        ]
        kind = Trace if self.mode == "trace" else Steps
        return kind(self.source, self._events(), self._lines(), arguments, self._shared())

    def _events(self) -> np.ndarray:
        self.library.engine_event_count.restype = ctypes.c_size_t
        self.library.engine_events.restype = ctypes.c_void_p
        count = self.library.engine_event_count()
        data = (
            ctypes.string_at(self.library.engine_events(), count * EVENT.itemsize) if count else b""
        )
        self.library.engine_forget_events()
        return np.frombuffer(data, EVENT)

    def _lines(self) -> dict[int, tuple[str, int]]:
        """Return (file, line) for each address where a watched access returns to."""
        self.library.engine_line_count.restype = ctypes.c_size_t
        self.library.engine_line_table.restype = ctypes.c_void_p
        count = self.library.engine_line_count()
        table = (ctypes.c_uint64 * (3 * count)).from_address(self.library.engine_line_table())
        rows = np.array(table, np.uint64).reshape(count, 3).tolist()
        return {pc: (ctypes.string_at(file).decode(), line) for pc, file, line in rows}

    def _shared(self) -> list[Buffer]:
        self.library.engine_shared_name.restype = ctypes.c_char_p
        found: list[Buffer] = []
        while name := self.library.engine_shared_name(len(found)):
            item = self.library.engine_shared_item(len(found))
            code = chr(self.library.engine_shared_code(len(found)))
            dtype = None if code == "V" else np.dtype(code)
            found.append(Buffer(name.decode(), "shared", item, dtype))
        return found


def _array(value) -> np.ndarray | None:
    """Return the array of a pointer or a map, None for other arguments."""
    value = value.array if isinstance(value, TensorMap) else value
    return value if isinstance(value, np.ndarray) else None


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.ctypes.data == b.ctypes.data and a.nbytes == b.nbytes


class _Memory:
    """Places in memory, far from each other; given back when no array uses them any more."""

    def __init__(self, library, sizes: list[int]):
        bytes_of = (ctypes.c_size_t * max(len(sizes), 1))(*sizes)
        self.places, whole = (ctypes.c_void_p * max(len(sizes), 1))(), ctypes.c_size_t()
        library.engine_reserve.restype = ctypes.c_void_p
        start = library.engine_reserve(len(sizes), bytes_of, self.places, ctypes.byref(whole))
        if start is None:
            raise MemoryError("no memory to copy these arrays: use a smaller problem")
        weakref.finalize(self, library.engine_give_back, ctypes.c_void_p(start), whole)


def _far_apart(library, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Return copies that begin at pages, each too far from all else for a wrong index to reach.

    Where the array itself begins at no multiple of 16 bytes the copy is as far from one: a GPU
    refuses a float4 there, and so do the checks.
    """
    memory = _Memory(library, [array.nbytes + 16 for array in arrays])
    copies = []
    for place, array in zip(memory.places, arrays, strict=False):
        room = (ctypes.c_char * array.nbytes).from_address(place + array.ctypes.data % 16)
        room.memory = memory  # lives as long as the copy
        copies.append(np.ndarray(array.shape, array.dtype, room))
        copies[-1][...] = array
    return copies
