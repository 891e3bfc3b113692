"""The way to a GPU, as far as it goes without one: cubins, and what a launch hands over."""

import concurrent.futures
import ctypes
import functools
import json
import math
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from cuda_helpers import TILES_OF_DOUBLES, needs_nvrtc, nvrtc_installed, of_functions
from paper_torch import FakeTensor, of_torch
from test_cuda_benchmark import benchmark

from dlnotes import cuda
from dlnotes.cuda import _cubin, _gpu, _nvrtc, _tensor
from dlnotes.cuda.ladders import Session

ARCHITECTURES = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_120"]


def kernels_by_file(arch: str) -> dict[str, list[str]]:
    """Return what rungs launch, of those that run on `arch`."""
    files: dict[str, set[str]] = {}
    for ladder in cuda.LADDERS.values():
        for rung in filter(lambda rung: rung.runs_on(arch), ladder.rungs):
            files.setdefault(ladder.file, set()).update(rung.kernels)
    return {file: sorted(names) for file, names in files.items()}


STACK_FRAME = 0x11


@needs_nvrtc
def test_a_stack_frame_shows():
    source = """
__global__ void f(int* y, int n) { int a[64]; for (int i = 0; i < n; i++) a[i] = y[i];
  y[0] = a[y[1]]; }
__global__ void g(int* y) { y[0] = 1; }"""
    cubin = cuda.compile(source=source, arch="sm_80")
    assert sorted(of_functions(cubin.data, STACK_FRAME)) == [0, 256]


class Recorder(Session):
    """Launches nothing, and remembers by kernel how many threads its largest block has."""

    def __init__(self):
        self.threads: dict[str, int] = {}

    def launch(self, kernel, grid, block, *arguments, shared_bytes=0):
        name, size = kernel.partition("<")[0], block if isinstance(block, tuple) else (block,)
        self.threads[name] = max(math.prod(size), self.threads.get(name, 0))

    def beside(self, file):
        return self


@functools.cache
def threads_of_blocks() -> dict[str, int]:
    """Return by kernel, without template arguments, how many threads the ladders launch it with."""
    recorder = Recorder()
    for case in benchmark.CASES:
        drawn = case.make(benchmark.Draw(torch, "cpu"), *case.tiny)
        for rung in cuda.LADDERS[case.ladder].rungs:
            given = benchmark.in_dtype(torch, drawn, rung.dtype, cuda.LADDERS[case.ladder])
            rung.run(recorder, *given)
    return recorder.threads


REGISTERS = 65536  # of a multiprocessor, on every architecture of the book
FEWEST_WARPS = 12  # that these must be enough for: memory is waited for by many
FEWEST_ON_TENSOR_CORES = 8  # whose sums are in registers: two blocks of 128 threads
FEWER_WARPS = {  # for sm_100a and sm_120 NVRTC 13.5 takes up to 255 registers, before up to 167
    "attention_tiled": 8,
    "attention_backward_key_value_tiled": 8,
}


def resident_warps(threads: int, registers: int) -> int:
    """Return how many warps the registers suffice for; a warp gets them in pieces of 256."""
    warps = -(-threads // 32)
    return warps * (REGISTERS // (warps * 256 * -(-32 * registers // 256)))


@needs_nvrtc
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("file", kernels_by_file("sm_75"))
def test_every_rung_compiles_for_every_card_that_has_its_instructions(file, arch):
    """Without spills or arrays on the stack, and with registers for enough warps."""
    names = kernels_by_file(arch)[file]
    cubin = cuda.compile(file, kernels=names, arch=arch)
    assert cubin.data.startswith(b"\x7fELF")
    assert (cubin.arch, set(cubin.names)) == (arch, set(names))
    frames = of_functions(cubin.data, STACK_FRAME)
    assert len(frames) >= len(names)  # and the compiler's own functions, such as division
    assert not any(frames)
    for name in names:
        base = name.partition("<")[0]
        usual = FEWEST_ON_TENSOR_CORES if base.endswith("mma") else FEWEST_WARPS
        needs = FEWER_WARPS.get(base, usual)
        threads = threads_of_blocks().get(base, 1024)  # small cases do not launch every kernel
        warps = resident_warps(threads, cubin.resources(name).registers)
        assert warps >= needs, f"{name} has registers for {warps} warps"


def test_rungs_on_tensor_cores_are_compiled_for_the_cards_that_have_them():
    def files(arch):
        return {n.partition("<")[0] for names in kernels_by_file(arch).values() for n in names}

    assert not any(name.endswith("mma") for name in files("sm_75"))
    for arch in ARCHITECTURES[1:]:
        assert {"matmul_mma", "conv_mma"} <= files(arch)
        assert ("matmul_wgmma" in files(arch)) == (arch == "sm_90a")


@needs_nvrtc
@pytest.mark.parametrize("file", sorted({ladder.file for ladder in cuda.LADDERS.values()}))
def test_rungs_for_float64_compile_too(file):
    here = set(cuda.load(file).kernels)  # a rung may launch kernels of another file, too
    names = {
        kernel
        for ladder in cuda.LADDERS.values()
        for rung in ladder.rungs
        if rung.takes("float64") and rung.name not in TILES_OF_DOUBLES
        for kernel in rung.kernels
        if ladder.file == file and kernel.partition("<")[0] in here
    }
    cubin = cuda.compile(file, kernels=sorted(names), arch="sm_75", dtype="float64")
    assert len(cubin.names) == len(names) > 0


@needs_nvrtc
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_of_the_book_is_compiled_for(arch):
    cubin = cuda.compile("embedding.cu", arch=arch)
    machine = int.from_bytes(cubin.data[18:20], "little")
    assert machine == 190  # the number of NVIDIA's machines in ELF files
    assert "embedding_wide" in cubin.names


@needs_nvrtc
def test_headers_that_kernels_use_are_there():
    source = """
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <float.h>
#include <math.h>
#include <stdint.h>
__global__ void f(__half* h, __nv_bfloat16* b, uint64_t n) {
  if (threadIdx.x < n) h[0] = __float2half(-INFINITY), b[0] = __float2bfloat16(FLT_MAX);
}"""
    assert cuda.compile(source=source, arch="sm_80").data


@needs_nvrtc
def test_compile_errors_show_file_line_and_caret():
    with pytest.raises(cuda.CompileError) as caught:
        cuda.compile(source="\n__global__ void f(float* x) { x[0] = y; }", arch="sm_80")
    text = str(caught.value)
    assert "source.cu(2): error" in text
    assert 'identifier "y" is undefined' in text
    assert "x[0] = y;" in text
    assert "^" in text


@needs_nvrtc
def test_what_is_compiled_once_is_not_compiled_again(tmp_path, monkeypatch):
    monkeypatch.setenv("DLNOTES_KERNELS", str(tmp_path))
    source = "template <int N> __global__ void f(int* y) { y[0] = N; }"
    first = cuda.compile(source=source, kernels=["f<1>"], arch="sm_80")
    monkeypatch.setattr(_nvrtc, "_compile", lambda *a: pytest.fail("compiled again"))
    assert cuda.compile(source=source, kernels=["f<1>"], arch="sm_80") == first


def test_only_real_architectures_are_taken():
    with pytest.raises(ValueError, match="arch must be a real architecture"):
        cuda.compile(source="__global__ void f() {}", arch="compute_80")
    assert _gpu.architecture((7, 5)) == "sm_75"
    assert _gpu.architecture((8, 9)) == "sm_89"
    assert _gpu.architecture((9, 0)) == "sm_90a"
    assert _gpu.architecture((12, 0)) == "sm_120a"


def test_without_nvrtc_the_error_says_what_to_install(monkeypatch):
    _nvrtc._bindings.cache_clear()
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    try:
        with pytest.raises(cuda.ToolError, match=r"pip install .*dlnotes\[cuda13\]"):
            cuda.compile(source="__global__ void f() {}", arch="sm_80")
    finally:
        _nvrtc._bindings.cache_clear()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_error_says_so():
    assert not cuda.available()
    with pytest.raises(cuda.ToolError, match='device="cpu" runs the same kernels'):
        cuda.load("activations.cu", device="cuda").kernel("softmax_warp")


# ------------------------------------------------ a launch, with a driver that only writes down


class Driver:
    """Records calls, and keeps the rules that the documentation of CUDA's driver API states.

    A thread begins without a context; modules are loaded, functions set up and launched in one. A
    block gets 48 KiB of shared memory, static and dynamic together, unless the function has asked
    for more. A tensor map lies at a multiple of 128 bytes, and no size of its matrix is zero.
    """

    class CUresult(int):
        CUDA_SUCCESS = 0

    class CUfunction_attribute:
        CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK = "most threads"
        CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES = "static"
        CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = "most shared"

    class CUdevice_attribute:
        CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = "most of a block"

    class CUdriverProcAddress_flags:
        CU_GET_PROC_ADDRESS_DEFAULT = 0

    INVALID_VALUE, INVALID_CONTEXT = (CUresult(1),), (CUresult(201),)
    TEXTS: ClassVar = {1: b"invalid argument", 201: b"invalid device context"}

    def __init__(self):
        self.calls, self.launched, self.maps = [], [], []
        self.version, self.static, self.limit = 13000, 0, 232448
        self.granted = None  # dynamic bytes that a launch may have, once it has asked
        self.threads = threading.local()
        self.encode = _tensor._ENCODE(self.encode_tiled)

    @property
    def stack(self) -> list:
        if not hasattr(self.threads, "stack"):
            self.threads.stack = []
        return self.threads.stack

    def __getattr__(self, name):
        in_context = {
            "cuModuleLoadData": (0, "module"),
            "cuModuleGetFunction": (0, "function"),
        }
        anywhere = {
            "cuDriverGetVersion": (0, self.version),
            "cuDeviceGet": (0, "card"),
            "cuDeviceGetAttribute": (0, self.limit),
            "cuDevicePrimaryCtxRetain": (0, "context"),
        }

        def call(*arguments):
            self.calls.append((name, *arguments))
            if name in in_context and not self.stack:
                return self.INVALID_CONTEXT
            return {**anywhere, **in_context}[name]

        return call

    def cuGetErrorString(self, status):
        return 0, self.TEXTS[status]

    def cuCtxPushCurrent(self, context):
        assert context == "context"
        self.stack.append(context)
        return (0,)

    def cuCtxPopCurrent(self):
        return 0, self.stack.pop()

    def cuFuncGetAttribute(self, attribute, function):
        return 0, {"most threads": 256, "static": self.static}[attribute]

    def cuFuncSetAttribute(self, function, attribute, value):
        self.calls.append(("cuFuncSetAttribute", function, attribute, value))
        assert attribute == "most shared"
        if self.static + value > self.limit:
            return self.INVALID_VALUE
        self.granted = value
        return (0,)

    def cuGetProcAddress(self, name, version, flags):
        assert (name, version) == (b"cuTensorMapEncodeTiled", 12000)
        return 0, ctypes.cast(self.encode, ctypes.c_void_p).value, "found"

    def encode_tiled(self, start, kind, rank, address, sizes, strides, box, steps, *settings):
        sizes = list((ctypes.c_uint64 * rank).from_address(sizes))
        strides = list((ctypes.c_uint64 * (rank - 1)).from_address(strides))
        box = list((ctypes.c_uint32 * rank).from_address(box))
        if start % 128 or address % 16 or not address or 0 in sizes or strides[0] % 16:
            return 1
        self.maps.append((kind, address, sizes, strides, box, settings))
        ctypes.memset(start, 7, 128)
        return 0

    def cuLaunchKernel(self, function, *rest):
        *shape, shared_bytes, stream, slots, extra = rest
        if not self.stack:
            return self.INVALID_CONTEXT
        unasked = 48 * 1024 - self.static
        if shared_bytes > (unasked if self.granted is None else self.granted):
            return self.INVALID_VALUE
        addresses = (ctypes.c_void_p * 3).from_address(slots)
        n = ctypes.c_int.from_address(addresses[0]).value
        pointers = [ctypes.c_uint64.from_address(a).value for a in addresses[1:]]
        self.launched.append((function, tuple(shape), shared_bytes, stream, n, pointers, extra))
        return (0,)


@pytest.fixture
def driver(monkeypatch):
    fake = Driver()
    monkeypatch.setattr(_gpu, "_driver", lambda: fake)
    monkeypatch.setattr(_gpu, "_torch", lambda: of_torch((8, 0)))

    def compile_source(source, kernels, arch):
        assert arch == "sm_80"
        return cuda.Cubin(arch, b"machine code", {name: "symbol" for name in kernels})

    monkeypatch.setattr(_nvrtc, "compile_source", compile_source)
    monkeypatch.setattr(_nvrtc, "version", lambda: (13, 0))
    monkeypatch.setattr(_nvrtc, "architectures", lambda: ["sm_75", "sm_80", "sm_90"])
    monkeypatch.setattr(_cubin, "parameter_bytes", lambda data, symbol: [4, 8, 8])
    return fake


ADD = (
    "__global__ void add(int n, const float* x, float* y) { y[threadIdx.x] += n * x[threadIdx.x]; }"
)


def test_a_launch_hands_over_shape_stream_and_arguments(driver):
    add = cuda.load(source=ADD, device="cuda").kernel("add")
    assert ("cuModuleLoadData", b"machine code") in driver.calls
    assert ("cuModuleGetFunction", "module", b"symbol") in driver.calls
    x = torch.zeros(4).as_subclass(FakeTensor)
    add[(2, 3), 64](-5, x, None)
    expected = ("function", (2, 3, 1, 64, 1, 1), 0, 77, -5, [x.data_ptr(), 0], 0)
    assert driver.launched == [expected]
    assert not asked(driver)
    add[1, 64, 100_000](1, x, x)
    assert asked(driver) == [100_000]


def asked(driver) -> list[int]:
    """Return for how many bytes of shared memory the launches have asked."""
    return [call[3] for call in driver.calls if call[0] == "cuFuncSetAttribute"]


def test_threads_without_a_context_compile_and_launch(driver):
    """As those of torch's backward passes; afterwards each has the context that it had before."""
    module = cuda.load(source=ADD, device="cuda")
    x = torch.zeros(4).as_subclass(FakeTensor)

    def backward():
        module.kernel("add")[1, 64](1, x, x)
        return list(driver.stack)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert pool.submit(backward).result() == []  # compiled there
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert pool.submit(backward).result() == []  # compiled before
    driver.stack.append("somebody else's")
    assert backward() == ["somebody else's"]
    assert len(driver.launched) == 3
    driver.cuLaunchKernel = lambda *arguments: driver.INVALID_VALUE
    with pytest.raises(cuda.CudaError):
        backward()
    assert driver.stack == ["somebody else's"]


@pytest.mark.parametrize(
    ("static", "dynamic", "must_ask"),
    [
        (0, 49152, False),
        (128, 49024, False),
        (128, 49025, True),  # layer norm of 12288 columns has 128 + 49152
        (128, 49152, True),
        (0, 232448, True),
    ],
)
def test_a_launch_asks_where_static_and_dynamic_memory_exceed_48_kib(
    driver, static, dynamic, must_ask
):
    driver.static = static
    add = cuda.load(source=ADD, device="cuda").kernel("add")
    x = torch.zeros(4).as_subclass(FakeTensor)
    for _ in range(2):
        add[1, 64, dynamic](1, x, x)
    assert asked(driver) == [dynamic] * must_ask  # once, not for each launch
    assert len(driver.launched) == 2


def test_more_shared_memory_than_the_card_has_is_refused(driver):
    driver.limit, driver.static = 65536, 1024  # a T4
    add = cuda.load(source=ADD, device="cuda").kernel("add")
    x = torch.zeros(4).as_subclass(FakeTensor)
    add[1, 64, 64512](1, x, x)
    text = "shared_bytes must be at most 64512 on this GPU: it gives a block 65536 bytes, and add "
    with pytest.raises(ValueError, match=f"{text}declares 1024; got 64513"):
        add[1, 64, 64513](1, x, x)


@pytest.mark.parametrize(
    ("driver_version", "nvrtc", "message"),
    [
        (12080, (13, 2), r"NVRTC is of CUDA 13\.2, the driver of CUDA 12\.8.*dlnotes\[cuda12\]"),
        (13000, (13, 5), None),  # newer, of the same major version
        (12020, (12, 8), None),
        (13010, (12, 8), None),  # older
    ],
)
def test_nvrtc_and_driver_fit(driver, monkeypatch, driver_version, nvrtc, message):
    driver.version = driver_version
    monkeypatch.setattr(_nvrtc, "version", lambda: nvrtc)
    module = cuda.load(source=ADD, device="cuda")
    if message is None:
        assert module.kernel("add")
        return
    with pytest.raises(cuda.ToolError, match=message):
        module.kernel("add")
    assert not any(call[0] == "cuModuleLoadData" for call in driver.calls)


def test_a_card_newer_than_nvrtc(driver, monkeypatch):
    monkeypatch.setattr(_nvrtc, "architectures", lambda: ["sm_50", "sm_75"])
    with pytest.raises(cuda.ToolError, match=r"this GPU is sm_80, and NVRTC .* sm_50 to sm_75"):
        cuda.load(source=ADD, device="cuda").kernel("add")


def test_arguments_on_a_gpu_are_checked_alike(driver):
    add = cuda.load(source=ADD, device="cuda").kernel("add")
    x = torch.zeros(4, 4).as_subclass(FakeTensor)
    with pytest.raises(
        TypeError, match=r"x must have dtype float32 \(const float\*\), got float64"
    ):
        add[1, 64](1, x.double().as_subclass(FakeTensor), x)
    with pytest.raises(ValueError, match=r"x must be contiguous: pass x\.contiguous\(\)"):
        add[1, 64](1, x.T, x)
    with pytest.raises(ValueError, match="x is on cpu, and the kernel on cuda:0"):
        add[1, 64](1, torch.zeros(4), x)
    with pytest.raises(TypeError, match="x must be a torch tensor on the GPU, got list"):
        add[1, 64](1, [1.0], x)
    with pytest.raises(ValueError, match="block must have at most 256 threads"):
        add[1, 512](1, x, x)


def test_a_launch_hands_over_tensor_maps(driver, monkeypatch):
    bindings = pytest.importorskip("cuda.bindings.driver")
    for name in dir(bindings):
        if name.startswith(("CUtensorMap", "cuuint")):
            setattr(driver, name, getattr(bindings, name))
    monkeypatch.setattr(_cubin, "parameter_bytes", lambda data, symbol: [4, 128, 8])
    source = """
#include "ptx.cuh"
__global__ void f(int n, const __grid_constant__ TensorMap map, float* y) {}"""
    f = cuda.load(source=source, device="cuda").kernel("f")
    x, y = (torch.zeros(4, 8).as_subclass(FakeTensor) for _ in range(2))
    f[1, 32](3, cuda.TensorMap(x, (4, 8)), y)
    assert driver.launched[0][4:6] == (3, [0x0707070707070707, y.data_ptr()])
    ((kind, address, *sizes, settings),) = driver.maps
    assert kind == int(bindings.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_FLOAT32)
    assert (address, sizes) == (x.data_ptr(), [[8, 4], [32], [8, 4]])
    assert settings == (0, 3, 2, 0)  # not interleaved, swizzle and L2 of 128 bytes, zeros outside
    for _ in range(8):  # wherever Python puts its objects
        f[1, 32](3, cuda.TensorMap(x, (4, 8)), y)
    driver.encode = _tensor._ENCODE(lambda *arguments: 1)
    with pytest.raises(cuda.CudaError, match="CUDA: invalid argument"):
        f[1, 32](3, cuda.TensorMap(x, (4, 8)), y)
    with pytest.raises(ValueError, match="map is on cpu, and the kernel on cuda:0"):
        f[1, 32](3, cuda.TensorMap(torch.zeros(4, 8), (4, 8)), y)


def test_errors_of_the_driver_are_raised(driver):
    driver.TEXTS = {701: b"too many resources"}
    driver.cuLaunchKernel = lambda *arguments: (701,)
    add = cuda.load(source=ADD, device="cuda").kernel("add")
    x = torch.zeros(4).as_subclass(FakeTensor)
    with pytest.raises(cuda.CudaError, match=r"CUDA: too many resources \(launching add\)"):
        add[1, 64](1, x, x)


# ------------------------------------- the same through NVIDIA's bindings, into a driver of paper

HERE = Path(__file__).parent
C_COMPILER = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


@pytest.fixture(scope="module")
def paper_driver(tmp_path_factory):
    """Run paper_driver.py, with the driver of paper_driver.c where bindings look for NVIDIA's."""
    folder = tmp_path_factory.mktemp("paper_driver")
    library = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", folder / "libcuda.so.1"]
    subprocess.run([C_COMPILER, *library, HERE / "paper_driver.c", "-ldl"], check=True)

    def run(what: str, **settings: str) -> dict:
        done = subprocess.run(
            [sys.executable, HERE / "paper_driver.py", what],
            env={**os.environ, "LD_LIBRARY_PATH": str(folder), **settings},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return json.loads(done.stdout)

    return run


needs_paper = pytest.mark.skipif(
    sys.platform != "linux" or not C_COMPILER or not nvrtc_installed(),
    reason="needs Linux, a C compiler and NVRTC",
)


@needs_paper
def test_bindings_hand_over_arguments_in_a_thread_without_a_context(paper_driver):
    told = paper_driver("launch")
    x, y = told["pointers"]
    assert "error" not in told
    assert told["launches"] == [
        [[2, 3, 1, 64, 1, 1], 0, 77, [2**32 - 5, x, None]],
        [[1, 1, 1, 64, 1, 1], 49152, 77, [1, x, y]],  # with 128 static bytes more than 48 KiB
        [[1, 1, 1, 64, 1, 1], 1000, 77, [1, x, y]],
    ]
    assert told["context afterwards"] is None


@needs_paper
def test_bindings_hand_over_tensor_maps(paper_driver):
    told = paper_driver("map")
    x, y = told["pointers"]
    assert "error" not in told
    assert told["launches"] == [[[1, 1, 1, 32, 1, 1], 0, 77, [x, 3, y]]] * 9


@needs_paper
def test_bindings_tell_the_drivers_version(paper_driver):
    told = paper_driver("launch", PAPER_VERSION="11080")
    assert told["error"].startswith("ToolError: NVRTC is of CUDA")
    assert "the driver of CUDA 11.8" in told["error"]
    assert told["launches"] == []


@needs_paper
def test_bindings_tell_how_much_shared_memory_a_card_has(paper_driver):
    told = paper_driver("launch", PAPER_SHARED="49152")
    assert "shared_bytes must be at most 49024 on this GPU" in told["error"]
    assert len(told["launches"]) == 1


@needs_nvrtc
@pytest.mark.parametrize("arch", ["sm_75", "sm_90a", "sm_120"])
def test_machine_code_says_how_large_arguments_are(arch):
    source = """
#include "ptx.cuh"
struct Sizes { int a[7]; double d; };
__global__ void f(int n, const float* x, bool b, Sizes s, const __grid_constant__ TensorMap map,
                  nv_bfloat16 h, char* y) { if (b) y[n] = x[s.a[n]] + map.opaque[n]; }
__global__ void g() {}"""
    cubin = cuda.compile(source=source, arch=arch)
    sizes = [_cubin.parameter_bytes(cubin.data, cubin.names[name]) for name in "fg"]
    assert sizes == [[4, 8, 1, 40, 128, 2, 8], []]
    with pytest.raises(ValueError, match="no kernel 'h' in this cubin"):
        _cubin.parameter_bytes(cubin.data, "h")


@needs_nvrtc
def test_machine_code_says_what_a_kernel_takes():
    source = """
__global__ void plain(float* y) { y[threadIdx.x] = 1.f; }
template <int N>
__global__ void tile(const float* x, float* y) {
  __shared__ float s[N];
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = s[N - 1 - threadIdx.x];
}
__global__ void table(int n, const int* order, float* y) {
  float a[64];
  for (int i = 0; i < 64; i++) a[i] = y[i];
  for (int i = 0; i < n; i++) y[i] = a[order[i]];
}"""
    names = ["plain", "tile<320>", "table"]
    for arch in ("sm_80", "sm_90a"):  # which reserves 1 KB of shared memory in each kernel
        cubin = cuda.compile(source=source, kernels=names, arch=arch)
        plain, tile, table = map(cubin.resources, names)
        assert (plain.shared_bytes, plain.stack_bytes) == (0, 0)
        assert 1 <= plain.registers <= table.registers <= 255
        assert (tile.shared_bytes, tile.stack_bytes) == (4 * 320, 0)
        assert table.stack_bytes == 4 * 64  # indexed by numbers that only the run knows
    with pytest.raises(ValueError, match="kernel must be one of"):
        cubin.resources("tile<64>")


def test_what_is_no_cubin_is_refused():
    with pytest.raises(ValueError, match="no cubin"):
        cuda.Cubin("sm_80", b"\0" * 100, {"f": "f"}).resources("f")
