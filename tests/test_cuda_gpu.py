"""The way to a GPU, as far as it goes without one: cubins, and what a launch hands over."""

import ctypes
import sys
import types

import pytest
import torch
from cuda_helpers import of_functions

from dlnotes import cuda
from dlnotes.cuda import _gpu, _nvrtc

ARCHITECTURES = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_120"]


def _nvrtc_installed() -> bool:
    try:
        return bool(cuda.architectures())
    except cuda.ToolError:
        return False


needs_nvrtc = pytest.mark.skipif(not _nvrtc_installed(), reason="NVRTC is not installed")


def kernels_by_file(arch: str) -> dict[str, list[str]]:
    """Return what rungs launch, of those that run on `arch`."""
    files: dict[str, set[str]] = {}
    for ladder in cuda.LADDERS.values():
        for rung in filter(lambda rung: rung.runs_on(arch), ladder.rungs):
            files.setdefault(ladder.file, set()).update(rung.kernels)
    return {file: sorted(names) for file, names in files.items()}


@needs_nvrtc
@pytest.mark.parametrize("file", kernels_by_file("sm_75"))
def test_every_rung_compiles_to_machine_code(file):
    names = kernels_by_file("sm_75")[file]
    cubin = cuda.compile(file, kernels=names, arch="sm_75")
    assert cubin.data.startswith(b"\x7fELF")
    assert cubin.arch == "sm_75"
    assert set(cubin.names) == set(names)
    for symbol in cubin.names.values():
        assert symbol.encode() in cubin.data


STACK_FRAME = 0x11


@needs_nvrtc
def test_a_stack_frame_shows():
    source = """
__global__ void f(int* y, int n) { int a[64]; for (int i = 0; i < n; i++) a[i] = y[i];
  y[0] = a[y[1]]; }
__global__ void g(int* y) { y[0] = 1; }"""
    cubin = cuda.compile(source=source, arch="sm_80")
    assert sorted(of_functions(cubin.data, STACK_FRAME)) == [0, 256]


@needs_nvrtc
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a", "sm_120"])
@pytest.mark.parametrize("file", kernels_by_file("sm_75"))
def test_no_register_is_spilled_and_no_array_is_on_the_stack(file, arch):
    names = kernels_by_file(arch)[file]
    frames = of_functions(cuda.compile(file, kernels=names, arch=arch).data, STACK_FRAME)
    assert len(frames) >= len(names)  # and the compiler's own functions, such as division
    assert not any(frames)


TILES_OF_DOUBLES = {"attention_tiled", "attention_backward_tiled"}  # do not fit a block


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
        with pytest.raises(cuda.ToolError, match=r"pip install .*dlnotes\[cuda\]"):
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
    """Records calls; argument sizes are those of `add` below."""

    class CUresult:
        CUDA_SUCCESS = 0

    class CUfunction_attribute:
        CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK = "most threads"
        CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = "most shared"

    def __init__(self):
        self.calls, self.launched = [], []

    def __getattr__(self, name):
        answers = {
            "cuCtxGetCurrent": (0, "context"),
            "cuModuleLoadData": (0, "module"),
            "cuModuleGetFunction": (0, "function"),
            "cuFuncGetAttribute": (0, 256),
        }

        def call(*arguments):
            self.calls.append((name, *arguments))
            return answers.get(name, (0,))

        return call

    def cuFuncGetParamInfo(self, function, i):
        return 0, (0, 8, 16)[i], (4, 8, 8)[i]

    def cuLaunchKernel(self, function, *rest):
        *shape, shared_bytes, stream, slots, extra = rest
        addresses = (ctypes.c_void_p * 3).from_address(slots)
        n = ctypes.c_int.from_address(addresses[0]).value
        pointers = [ctypes.c_uint64.from_address(a).value for a in addresses[1:]]
        self.launched.append((function, tuple(shape), shared_bytes, stream, n, pointers, extra))
        return (0,)


class FakeTensor(torch.Tensor):
    """A tensor of the CPU that says it is on a GPU."""

    @property
    def device(self):
        return types.SimpleNamespace(type="cuda", index=0)


@pytest.fixture
def driver(monkeypatch):
    fake = Driver()
    stream = types.SimpleNamespace(cuda_stream=77)
    on_gpu = types.SimpleNamespace(
        init=lambda: None,
        current_device=lambda: 0,
        get_device_capability=lambda device: (8, 0),
        current_stream=lambda: stream,
    )
    library = types.SimpleNamespace(cuda=on_gpu, Tensor=torch.Tensor)
    monkeypatch.setattr(_gpu, "_driver", lambda: fake)
    monkeypatch.setattr(_gpu, "_torch", lambda: library)

    def compile_source(source, kernels, arch):
        assert arch == "sm_80"
        return cuda.Cubin(arch, b"machine code", {name: "symbol" for name in kernels})

    monkeypatch.setattr(_nvrtc, "compile_source", compile_source)
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
    assert not any(call[0] == "cuFuncSetAttribute" for call in driver.calls)
    assert ("cuCtxSetCurrent", "context") in driver.calls
    add[1, 64, 100_000](1, x, x)
    assert ("cuFuncSetAttribute", "function", "most shared", 100_000) in driver.calls


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


def test_a_launch_hands_over_tensor_maps(driver):
    bindings = pytest.importorskip("cuda.bindings.driver")
    for name in dir(bindings):
        if name.startswith(("CUtensorMap", "cuuint")):
            setattr(driver, name, getattr(bindings, name))

    def encode(*arguments):
        encoded = bindings.CUtensorMap()
        ctypes.memset(int(encoded.getPtr()), 7, 128)
        return 0, encoded

    driver.cuTensorMapEncodeTiled = encode
    source = """
#include "ptx.cuh"
__global__ void f(int n, const __grid_constant__ TensorMap map, float* y) {}"""
    f = cuda.load(source=source, device="cuda").kernel("f")
    x, y = (torch.zeros(4, 8).as_subclass(FakeTensor) for _ in range(2))
    f[1, 32](3, cuda.TensorMap(x, (4, 8)), y)
    assert driver.launched[0][4:6] == (3, [0x0707070707070707, y.data_ptr()])
    with pytest.raises(ValueError, match="map is on cpu, and the kernel on cuda:0"):
        f[1, 32](3, cuda.TensorMap(torch.zeros(4, 8), (4, 8)), y)


def test_errors_of_the_driver_are_raised(driver):
    driver.cuGetErrorString = lambda status: (0, b"too many resources")
    driver.cuLaunchKernel = lambda *arguments: (701,)
    add = cuda.load(source=ADD, device="cuda").kernel("add")
    x = torch.zeros(4).as_subclass(FakeTensor)
    with pytest.raises(cuda.CudaError, match="CUDA: too many resources"):
        add[1, 64](1, x, x)


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
