"""Tensor cores and asynchronous copies: their model on the CPU, and the machine code of rungs."""

import ctypes

import numpy as np
import pytest
import torch
from cuda_helpers import kernel, needs_compiler, normal, of_functions, sections
from test_cuda_gpu import ARCHITECTURES, needs_nvrtc

from dlnotes import cuda
from dlnotes.cuda import _gpu, _tensor, roofline
from dlnotes.cuda.ladders import _base

f32 = np.float32
to_bfloat16, from_bfloat16 = cuda.to_bfloat16, cuda.from_bfloat16


def bf(seed: int, *shape: int) -> np.ndarray:
    return to_bfloat16(normal(seed, *shape))


def wide(*bits: np.ndarray) -> list[np.ndarray]:
    return [from_bfloat16(b).astype(np.float64) for b in bits]


# ------------------------------------------------ bfloat16 and tensor maps


def test_bfloat16_rounds_as_torch_does():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2**32, 50_000, dtype=np.uint64).astype(np.uint32).view(f32)
    x = np.r_[x, f32([0, -0.0, np.inf, -np.inf, np.nan, 1, 1 + 2**-8, 1 + 3 * 2**-8])]
    bits = to_bfloat16(x)
    expected = torch.from_numpy(x).bfloat16()
    given_ = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16)
    assert torch.equal(given_.isnan(), expected.isnan())
    assert torch.equal(given_[~given_.isnan()], expected[~expected.isnan()])
    np.testing.assert_array_equal(from_bfloat16(bits), expected.float().numpy())
    assert to_bfloat16(np.zeros((), f32)).shape == ()


def test_bfloat16_refuses_other_dtypes():
    with pytest.raises(TypeError, match="array must be a NumPy array of float32, got float64"):
        to_bfloat16(np.zeros(3))
    with pytest.raises(TypeError, match="bits must be a NumPy array of uint16, got float32"):
        from_bfloat16(np.zeros(3, f32))


def test_tensor_maps_refuse_what_tma_cannot_copy():
    whole = np.zeros((4, 24), np.uint16)
    assert cuda.TensorMap(whole, (64, 64)).swizzled
    with pytest.raises(TypeError, match=r"array must be of uint16, .*, got float64"):
        cuda.TensorMap(np.zeros((4, 8)), (4, 8))
    with pytest.raises(ValueError, match=r"array must have 2 dimensions, got shape \(8,\)"):
        cuda.TensorMap(whole[0, :8], (4, 8))
    for empty in ((0, 8), (4, 0)):
        with pytest.raises(ValueError, match="array must not be empty"):
            cuda.TensorMap(np.zeros(empty, np.uint16), (4, 8))
    with pytest.raises(ValueError, match="20 columns of 2 bytes: pad them to 24"):
        cuda.TensorMap(np.zeros((4, 20), np.uint16), (4, 8))
    with pytest.raises(ValueError, match="array must begin at a multiple of 16 bytes"):
        cuda.TensorMap(whole.reshape(-1)[1:25].reshape(1, 24), (4, 8))
    with pytest.raises(ValueError, match="box's rows must be"):
        cuda.TensorMap(whole, (257, 8))
    with pytest.raises(ValueError, match="a multiple of 16 bytes, at most 128, got 24"):
        cuda.TensorMap(whole, (4, 12))
    with pytest.raises(ValueError, match="a multiple of 16 bytes, at most 128, got 144"):
        cuda.TensorMap(whole, (4, 72))
    assert cuda.TensorMap(whole, (4, 72), swizzled=False).box == (4, 72)


def test_the_driver_is_told_of_a_matrix():
    """What cuTensorMapEncodeTiled gets: sizes and box with columns first, strides in bytes.

    And where it is to write: the driver wants a multiple of 64 bytes, from CUDA 13 on of 128.
    """
    driver = pytest.importorskip("cuda.bindings.driver")
    asked = []

    @_tensor._ENCODE
    def encode(start, kind, rank, address, sizes, strides, box, steps, *settings):
        numbers = [(ctypes.c_uint64, sizes, 2), (ctypes.c_uint64, strides, 1),
                   (ctypes.c_uint32, box, 2), (ctypes.c_uint32, steps, 2)]  # fmt: skip
        arrays = [list((item * count).from_address(at)) for item, at, count in numbers]
        asked.append((start % 128, kind, rank, address, arrays, settings))
        return 0

    class Recorder:
        def __getattr__(self, name):
            return getattr(driver, name)

        def cuGetProcAddress(self, name, version, flags):
            assert (name, version) == (b"cuTensorMapEncodeTiled", 12000)
            return 0, ctypes.cast(encode, ctypes.c_void_p).value, None

    matrix = torch.zeros(5, 24, dtype=torch.bfloat16)
    for _ in range(9):  # wherever Python happens to have room
        encoded = cuda.TensorMap(matrix, (64, 32)).for_gpu(Recorder(), lambda result: None)
        assert len(encoded) == 128
    assert asked == [asked[0]] * 9
    place, kind, rank, address, numbers, (interleave, swizzle, _, outside) = asked[0]
    assert place == 0
    assert kind == driver.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
    assert (rank, address) == (2, matrix.data_ptr())
    assert numbers == [[24, 5], [48], [32, 64], [1, 1]]
    assert interleave == driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE
    assert swizzle == driver.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B
    assert outside == driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE


# ------------------------------------------------ the instructions: right results, no false alarms

PTX = '#include "ptx.cuh"\n'
MODES = ("fast", "checked", "trace", "step")


@needs_compiler
@pytest.mark.parametrize("mode", MODES)
def test_copies_land_with_zeros_after_the_bytes_asked_for(mode):
    source = (
        PTX
        + """
__global__ void f(const nv_bfloat16* x, nv_bfloat16* y) {
  __shared__ __align__(16) nv_bfloat16 s[2][64 * 8];
  int i = threadIdx.x;
  cp_async_16(&s[0][8 * i], x + 8 * i);
  cp_async_commit();
  cp_async_16(&s[1][8 * i], x + 8 * i, 2 * (i % 9));
  cp_async_commit();
  cp_async_wait<1>();
  __syncthreads();
  for (int e = 0; e < 8; e++) y[8 * i + e] = s[0][8 * (63 - i) + e];
  cp_async_wait<0>();
  __syncthreads();
  for (int e = 0; e < 8; e++) y[512 + 8 * i + e] = s[1][8 * (i ^ 1) + e];
}"""
    )
    x, y = bf(0, 64, 8), np.zeros((2, 64, 8), np.uint16)
    kernel(source, mode)[1, 64](x, y)
    np.testing.assert_array_equal(y[0], x[::-1])
    partial = np.where(np.arange(8) < np.arange(64)[:, None] % 9, x, 0)
    np.testing.assert_array_equal(y[1], partial[np.arange(64) ^ 1])


@needs_compiler
@pytest.mark.parametrize("mode", MODES)
def test_a_product_from_shared_memory_by_ldmatrix_and_mma(mode):
    """C = A B + Aᵀ Bᵀ, 16 × 16 by 16 × 8 and by its transpose."""
    source = (
        PTX
        + """
__global__ void f(const nv_bfloat16* a, const nv_bfloat16* b, float* c) {
  __shared__ __align__(16) nv_bfloat16 A[16 * 16], B[16 * 8], BT[8 * 16];
  int l = threadIdx.x;
  for (int i = l; i < 256; i += 32) A[i] = a[i];
  for (int i = l; i < 128; i += 32) B[i] = b[i], BT[i] = b[i];
  __syncwarp();
  uint32_t f[4], g[4];
  float d[4] = {};
  ldmatrix_x4(f, &A[l % 16 * 16 + l / 16 * 8]);
  ldmatrix_x4_trans(g, &B[l % 16 * 8]);
  mma_m16n8k16(d, f, g[0], g[1]);
  ldmatrix_x4_trans(f, &A[(l / 16 * 8 + l % 8) * 16 + l / 8 % 2 * 8]);
  ldmatrix_x4(g, &BT[l % 8 * 16 + l / 8 % 2 * 8]);
  mma_m16n8k16(d, f, g[0], g[1]);
  for (int i = 0; i < 4; i++) c[(l / 4 + i / 2 * 8) * 8 + l % 4 * 2 + i % 2] = d[i];
}"""
    )
    a, b, c = bf(0, 16, 16), bf(1, 16, 8), np.full((16, 8), np.nan, f32)
    kernel(source, mode)[1, 32](a, b, c)
    A, B = wide(a, b)
    np.testing.assert_allclose(c, A @ B + A.T @ B.reshape(8, 16).T, atol=2e-5)


RING = PTX + """
// One warp writes numbers into a ring of two places, three warps read them.
__global__ void f(const float* x, float* y) {
  __shared__ float place[2][32];
  __shared__ uint64_t full[2], empty[2];
  int l = threadIdx.x % 32, w = threadIdx.x / 32;
  if (threadIdx.x == 0)
    for (int s = 0; s < 2; s++) mbarrier_init(&full[s], 32), mbarrier_init(&empty[s], 3);
  __syncthreads();
  for (int i = 0; i < 6; i++) {
    int s = i % 2, turn = i / 2;
    if (w == 3) {
      mbarrier_wait(&empty[s], turn % 2 ^ 1);
      place[s][l] = x[32 * i + l];
      mbarrier_arrive(&full[s]);
    } else {
      mbarrier_wait(&full[s], turn % 2);
      y[(32 * i + l) * 3 + w] = place[s][31 - l];
      __syncwarp();
      if (l == i) mbarrier_arrive(&empty[s]);
    }
  }
}"""  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("mode", MODES)
def test_mbarriers_order_warps(mode):
    x, y = normal(0, 6, 32), np.zeros((6, 32, 3), f32)
    kernel(RING, mode)[2, 128](x, np.zeros_like(y)) if mode == "fast" else None
    kernel(RING, mode)[1, 128](x, y)
    np.testing.assert_array_equal(y, np.repeat(x[:, ::-1, None], 3, axis=2))


TMA = PTX + """
template <int ROWS, int BYTES>
__global__ void f(const __grid_constant__ TensorMap map, int row, int column, unsigned char* y) {
  __shared__ __align__(1024) unsigned char tile[ROWS * BYTES];
  __shared__ uint64_t landed;
  if (threadIdx.x == 0) {
    mbarrier_init(&landed, 1);
    fence_mbarrier_init();
    mbarrier_arrive_expect_tx(&landed, ROWS * BYTES);
    tma_load_2d(tile, map, &landed, column, row);
  }
  __syncthreads();
  mbarrier_wait(&landed, 0);
  for (int i = threadIdx.x; i < ROWS * BYTES; i += blockDim.x) y[i] = tile[i];
}"""  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 10), (-2, -5), (9, 70), (20, 0)])
def test_tma_copies_boxes_with_zeros_outside(mode, row, column):
    x = bf(0, 11, 72)
    around = np.pad(x, ((30, 30), (100, 100)))
    box = around[30 + row : 38 + row, 100 + column : 164 + column]
    y = np.zeros(8 * 128, np.uint8)
    plain = cuda.TensorMap(x, (8, 64), swizzled=False)
    kernel(TMA, mode, "f<8, 128>")[1, 32](plain, row, column, y)
    np.testing.assert_array_equal(y.view(np.uint16).reshape(8, 64), box)
    kernel(TMA, mode, "f<8, 128>")[1, 32](cuda.TensorMap(x, (8, 64)), row, column, y)
    chunks = box.reshape(8, 8, 8)
    rows, places = np.indices((8, 8))
    swizzled = chunks[rows, places ^ rows]  # chunk c of row r lies at place c ^ r
    np.testing.assert_array_equal(y.view(np.uint16).reshape(8, 8, 8), swizzled)


WGMMA = PTX + """
// D = A B with A 64 × 64 and B 64 × N, each stored with the sum's direction contiguous or not.
template <int N, bool TA, bool TB>
__global__ void f(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b,
                  float* D) {
  extern __shared__ __align__(1024) uint4 tiles[];
  char *A = reinterpret_cast<char*>(tiles), *B = A + 8192;
  uint64_t* landed = reinterpret_cast<uint64_t*>(B + 8192 * (N / 64));
  int t = threadIdx.x;
  if (t == 0) {
    mbarrier_init(landed, 1);
    fence_mbarrier_init();
    mbarrier_arrive_expect_tx(landed, 8192 * (1 + N / 64));
    tma_load_2d(A, a, landed, 0, 0);
    for (int p = 0; p < N; p += 64)
      tma_load_2d(B + 128 * p, b, landed, TB ? p : 0, TB ? 0 : p);
  }
  __syncthreads();
  mbarrier_wait(landed, 0);  // wait
  float d[N / 2] = {};
  wgmma_fence();  // fence
  for (int k = 0; k < 64; k += 16)
    wgmma_m64k16<N, TA, TB>(d, wgmma_descriptor(A + (TA ? 128 : 2) * k, 8192, 1024),
                            wgmma_descriptor(B + (TB ? 128 : 2) * k, 8192, 1024));
  wgmma_commit();
  wgmma_wait<0>();  // done
  for (int j = 0; j < N / 2; j++) {
    int row = t / 32 * 16 + t % 32 / 4 + j / 2 % 2 * 8, column = j / 4 * 8 + t % 4 * 2 + j % 2;
    D[row * N + column] = d[j];
  }
}"""  # fmt: skip


def wgmma(source: str, mode: str, n: int, transpose_a: bool, transpose_b: bool, threads: int = 128):
    a, b, d = bf(0, 64, 64), bf(1, 64, n), np.full((64, n), np.nan, f32)
    stored = [a.T if transpose_a else a, b if transpose_b else b.T]
    maps = [cuda.TensorMap(np.ascontiguousarray(matrix), (64, 64)) for matrix in stored]
    name = f"f<{n}, {str(transpose_a).lower()}, {str(transpose_b).lower()}>"
    kernel(source, mode, name)[1, threads, 8192 * (1 + n // 64) + 8](*maps, d)
    A, B = wide(a, b)
    return d, A @ B


@needs_compiler
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", [(False, False), (False, True), (True, False), (True, True)])
def test_wgmma_of_tiles_that_tma_brought(mode, layout):
    for n in (64, 128, 256):
        given_, expected = wgmma(WGMMA, mode, n, *layout)
        np.testing.assert_allclose(given_, expected, atol=1e-4)


# ------------------------------------------------ the instructions: faults

COPY = PTX + """
__global__ void f(const float* x, float* y) {
  __shared__ __align__(16) float s[256];
  int i = threadIdx.x;
  %s
}"""  # fmt: skip
# name: (kind, threads, body or source); the faulty line carries the mark //!
FAULTS = {
    "a copy that nobody waits for": ("race", 32, COPY % """
  cp_async_16(&s[4 * i], x + 4 * i);
  cp_async_commit();
  y[i] = s[4 * i];  //!
  cp_async_wait<0>();"""),
    "a wait that leaves the group under way": ("race", 32, COPY % """
  cp_async_16(&s[4 * i], x + 4 * i);
  cp_async_commit();
  cp_async_wait<1>();
  y[i] = s[4 * i];  //!
  cp_async_wait<0>();"""),
    "a copy in no group": ("race", 32, COPY % """
  cp_async_16(&s[4 * i], x + 4 * i);
  cp_async_wait<0>();
  y[i] = s[4 * i];  //!"""),
    "a wait without a barrier": ("race", 64, COPY % """
  cp_async_16(&s[4 * i], x + 4 * i);  //!
  cp_async_commit();
  cp_async_wait<0>();
  y[i] = s[4 * (i ^ 32)];"""),
    "a copy over what others still read": ("race", 64, COPY % """
  s[i] = x[i];
  __syncthreads();
  y[i] = s[(i + 32) % 64];
  if (i == 63) cp_async_16(&s[32], x);  //!
  cp_async_commit();
  cp_async_wait<0>();"""),
    "a store into a copy under way": ("race", 32, COPY % """
  cp_async_16(&s[4 * i], x + 4 * i);
  cp_async_commit();
  s[4 * i + 1] = 0;  //!
  cp_async_wait<0>();"""),
    "two copies to one place": ("race", 64, COPY % """
  cp_async_16(&s[4 * (i / 2)], x + 4 * i);  //!
  cp_async_commit();
  cp_async_wait<0>();"""),
    "a copy under way at the end": ("unfinished", 32, COPY % """
  cp_async_16(&s[4 * i], x + 4 * i);  //!
  cp_async_commit();"""),
    "a copy from beyond the array": ("out of bounds", 64, COPY % """
  cp_async_16(&s[4 * i], x + 4 * i + 4);  //!
  cp_async_commit();
  cp_async_wait<0>();"""),
    "a copy from an odd place": ("misaligned", 32, COPY % """
  cp_async_16(&s[4 * i], x + 4 * i + 1);  //!
  cp_async_commit();
  cp_async_wait<0>();"""),
    "a copy to an odd place": ("misaligned", 32, COPY % """
  cp_async_16(&s[4 * i + 2], x + 4 * i);  //!
  cp_async_commit();
  cp_async_wait<0>();"""),
    "a copy to global memory": ("out of bounds", 32, COPY % """
  cp_async_16(y + 4 * i, x + 4 * i);  //!
  cp_async_commit();
  cp_async_wait<0>();"""),
    "a row of a matrix at an odd place": ("misaligned", 32, COPY % """
  uint32_t r[4];
  for (int e = i; e < 256; e += 32) s[e] = 0;
  __syncwarp();
  ldmatrix_x4(r, &s[4 * i + 1]);  //!"""),
    "matrices that nobody wrote": ("uninitialised", 32, COPY % """
  uint32_t r[4];
  ldmatrix_x4(r, &s[4 * i]);  //!"""),
    "matrices that another lane wrote": ("race", 32, COPY % """
  uint32_t r[4];
  for (int e = i; e < 256; e += 32) s[e] = 0;  //!
  ldmatrix_x4(r, &s[4 * i]);"""),
    "half a warp loads matrices": ("deadlock", 32, COPY % """
  uint32_t r[4];
  for (int e = i; e < 256; e += 32) s[e] = 0;
  __syncwarp();
  if (i < 16) ldmatrix_x4(r, &s[4 * i]);  //!
  __syncthreads();"""),
    "a block of half a warp multiplies": ("divergent warp", 16, COPY % """
  uint32_t a[4] = {};
  float d[4] = {};
  mma_m16n8k16(d, a, 0, 0);  //!
  y[i] = d[0];"""),
    "lanes that have returned": ("divergent warp", 32, COPY % """
  uint32_t a[4] = {};
  float d[4] = {};
  if (i > 20) return;
  mma_m16n8k16(d, a, 0, 0);  //!
  y[i] = d[0];"""),
    "an mbarrier that is none": ("mbarrier", 32, COPY % """
  __shared__ uint64_t b;
  mbarrier_arrive(&b);  //!"""),
    "an mbarrier used before the others know of it": ("race", 64, COPY % """
  __shared__ uint64_t b;
  if (i == 0) mbarrier_init(&b, 64);
  mbarrier_arrive(&b);  //!"""),
    "an mbarrier initialised twice": ("mbarrier", 32, COPY % """
  __shared__ uint64_t b;
  if (i < 2) {
    mbarrier_init(&b, 1);  //!
  }"""),
    "an mbarrier that is written to": ("mbarrier", 32, COPY % """
  __shared__ uint64_t b;
  if (i == 0) mbarrier_init(&b, 1);
  __syncthreads();
  b = 0;  //!"""),
    "an arrival too many": ("mbarrier", 1, COPY % """
  __shared__ uint64_t b[1];
  mbarrier_init(b, 1);
  mbarrier_arrive_expect_tx(b, 16);
  mbarrier_arrive(b);  //!"""),
    "an arrival too few": ("deadlock", 32, COPY % """
  __shared__ uint64_t b;
  if (i == 0) mbarrier_init(&b, 33);
  __syncthreads();
  mbarrier_arrive(&b);
  mbarrier_wait(&b, 0);  //!"""),
    "a phase that is not waited for": ("uninitialised", 128, RING.replace(
        "mbarrier_wait(&full[s], turn % 2);\n      y", "\n      y").replace("- l];", "- l];  //!")),
    "a phase of the wrong parity": ("uninitialised", 128, RING.replace(
        "&full[s], turn % 2)", "&full[s], turn % 2 ^ 1)").replace("- l];", "- l];  //!")),
    "a place that is filled too early": ("deadlock", 128, RING.replace(
        "mbarrier_wait(&empty[s], turn % 2 ^ 1);", "").replace("turn % 2);", "turn % 2);  //!")),
    "arrivals of one lane that do not speak for the others": ("race", 128, RING.replace(
        "      __syncwarp();\n", "").replace("+ l];", "+ l];  //!")),
}  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("name", FAULTS)
def test_checked_mode_names_fault_and_line(name):
    kind, threads, source = FAULTS[name]
    x, y = normal(0, 256), np.zeros(600, f32)
    with pytest.raises(cuda.KernelError) as caught:
        kernel(source)[1, threads](x, y)
    line = 1 + next(i for i, text in enumerate(source.splitlines()) if "//!" in text)
    assert (caught.value.kind, caught.value.line) == (kind, line), str(caught.value)
    assert caught.value.thread is not None


def test_a_deadlock_says_what_an_mbarrier_lacks():
    source = FAULTS["an arrival too few"][2]
    for mode in ("fast", "checked"):
        with pytest.raises(
            cuda.KernelError, match=r"mbarrier shared 'b'\[0\] lacks 1 arrivals and 0 bytes"
        ):
            kernel(source, mode)[1, 32](np.zeros(1, f32), np.zeros(1, f32))


TMA_FAULTS = {
    "no fence after the initialisation": ("mbarrier", "    fence_mbarrier_init();\n", ""),
    "fewer bytes than come": ("mbarrier", "&landed, ROWS * BYTES)", "&landed, ROWS * BYTES - 16)"),
    "more bytes than come": ("deadlock", "&landed, ROWS * BYTES)", "&landed, ROWS * BYTES + 16)"),
    "no wait": ("race", "  mbarrier_wait(&landed, 0);\n", ""),
    "a wait for the wrong parity": ("race", "&landed, 0);\n  for", "&landed, 1);\n  for"),
    "a tile at an odd place": ("misaligned", "tma_load_2d(tile,", "tma_load_2d(tile + 128,"),
    "a tile that is too small": ("out of bounds", "tile[ROWS * BYTES]", "tile[ROWS * BYTES - 16]"),
    "a store beside": (
        "race",
        "  __syncthreads();",
        "  tile[threadIdx.x] = 0;\n  __syncthreads();",
    ),
}


@needs_compiler
@pytest.mark.parametrize("name", TMA_FAULTS)
def test_faults_of_tma_are_caught(name):
    kind, text, replacement = TMA_FAULTS[name]
    assert text in TMA
    run_ = kernel(TMA.replace(text, replacement), "checked", "f<8, 128>")
    with pytest.raises(cuda.KernelError) as caught:
        run_[1, 32](cuda.TensorMap(bf(0, 11, 72), (8, 64)), 0, 0, np.zeros(1024, np.uint8))
    assert (caught.value.kind, caught.value.line > 0) == (kind, True), str(caught.value)


WGMMA_FAULTS = {
    "no fence": ("wgmma", "  wgmma_fence();  // fence\n", ""),
    "no wait for the copies": ("race", "  mbarrier_wait(landed, 0);  // wait\n", ""),
    "no wait for the products": ("unfinished", "  wgmma_wait<0>();  // done\n", ""),
    "a wait that leaves the products under way": ("unfinished", "wgmma_wait<0>", "wgmma_wait<1>"),
    "no commit": ("unfinished", "  wgmma_commit();\n", ""),
    "an operand overwritten": ("race", "  wgmma_wait<0>();", "  A[t] = 0;\n  wgmma_wait<0>();"),
    "an operand beyond its tile": ("out of bounds", "A + (TA", "B + 3 * 8192 + (TA"),
    "half of a warpgroup": ("deadlock", "  float d", "  if (t >= 64) return;\n  float d"),
}


@needs_compiler
@pytest.mark.parametrize("name", WGMMA_FAULTS)
def test_faults_of_wgmma_are_caught(name):
    kind, text, replacement = WGMMA_FAULTS[name]
    assert text in WGMMA
    with pytest.raises(cuda.KernelError) as caught:
        wgmma(WGMMA.replace(text, replacement), "checked", 64, False, False)
    assert (caught.value.kind, caught.value.line > 0) == (kind, True), str(caught.value)


@needs_compiler
def test_wgmma_needs_a_warpgroup():
    with pytest.raises(cuda.KernelError, match="divergent warp: wgmma needs 128 threads from 0 on"):
        wgmma(WGMMA, "fast", 64, False, False, threads=96)


@needs_compiler
def test_without_checks_what_is_read_too_early_is_poison():
    """Fast mode reports nothing, but no luck hides a forgotten wait either."""
    given_, _ = wgmma(WGMMA.replace("  wgmma_wait<0>();  // done\n", ""), "fast", 64, False, False)
    assert np.isnan(given_).all()
    given_, _ = wgmma(
        WGMMA.replace("  mbarrier_wait(landed, 0);  // wait\n", ""), "fast", 64, False, False
    )
    assert np.isnan(given_).all()
    x, y = normal(0, 256), np.zeros(32, f32)
    kernel(FAULTS["a copy that nobody waits for"][2], "fast")[1, 32](x, y)
    assert np.isnan(y).all()


def test_a_map_is_asked_for_where_a_kernel_takes_one():
    with pytest.raises(TypeError, match="map must be a TensorMap, got ndarray"):
        kernel(TMA, "fast", "f<8, 128>")[1, 32](bf(0, 8, 64), 0, 0, np.zeros(1024, np.uint8))


# ------------------------------------------------ the rungs: what only the CPU shows

RUNGS = [
    (name, rung.name)
    for name, ladder in cuda.LADDERS.items()
    for rung in ladder.rungs
    if rung.dtype == "bfloat16"
]


@needs_compiler
@pytest.mark.parametrize("rung", ["matmul_mma", "matmul_wgmma"])
def test_torch_tensors_of_bfloat16(rung):
    x, weight = torch.randn(9, 24).bfloat16(), torch.randn(5, 24).bfloat16()
    y = cuda.LADDERS["linear"].run(x, weight, rung=rung)
    torch.testing.assert_close(y, x.float() @ weight.float().T, rtol=0, atol=1e-5)


@needs_compiler
@pytest.mark.parametrize("layout", ["linear", "linear_backward"])
def test_no_bank_conflicts_in_matmul_mma(layout):
    inputs = (bf(0, 128, 64), bf(1, 128, 64), normal(2, 128))
    if layout == "linear_backward":
        inputs = (bf(3, 128, 128), *inputs[:2])
    _, traces = cuda.LADDERS[layout].record(*inputs, rung="matmul_mma")
    rows = [row for trace in traces for row in trace.report() if row.name in ("As", "Bs")]
    assert {row.kind for row in rows} == {"read", "write"}
    assert {row.ways for row in rows} == {1.0}


@needs_compiler
@pytest.mark.parametrize("width", [32, 64, 128])
def test_no_bank_conflicts_in_attention_mma(width):
    query, key, value = (bf(i, length, width) for i, length in enumerate((70, 90, 90)))
    (y, log_sum), traces = cuda.LADDERS["attention"].record(query, key, value, rung="attention_mma")
    inputs = (bf(3, *y.shape), query, key, value, y, log_sum)
    _, more = cuda.LADDERS["attention_backward"].record(*inputs, rung="attention_backward_mma")
    for trace in (*traces, *more[1:]):  # after the dots
        rows = [row for row in trace.report() if row.name == "memory"]
        assert {row.kind for row in rows} == {"read", "write"}
        assert {row.ways for row in rows} == {1.0}


@needs_compiler
@pytest.mark.parametrize("ladder", ["conv2d", "conv2d_backward"])
def test_no_bank_conflicts_in_convolutions(ladder):
    inputs = bf(0, 2, 16, 8, 8), bf(1, 64, 16, 3, 3), None
    if ladder == "conv2d_backward":
        inputs = bf(2, 2, 64, 8, 8), *inputs[:2]
    rung = cuda.LADDERS[ladder].rungs[-1].name
    _, traces = cuda.LADDERS[ladder].record(*inputs, 1, 1, rung=rung)
    tiles = {"weights", "columns"} | ({"dys"} if ladder == "conv2d_backward" else set())
    rows = [row for trace in traces for row in trace.report() if row.name in tiles]
    assert {(row.name, row.kind) for row in rows} == {
        (name, kind) for name in tiles for kind in ("read", "write")
    }
    assert {row.ways for row in rows} == {1.0}


@needs_compiler
def test_a_step_shows_copies_with_their_values():
    inputs = (bf(0, 8, 8), bf(1, 8, 8))
    _, (steps,) = cuda.LADDERS["linear"].record(*inputs, rung="matmul_mma", mode="step")
    (copy, *_) = [s for s in steps if "cp_async_16(tile" in s.source and s.accesses]
    read, write = copy.accesses[0]
    assert (read.kind, read.name, read.index) == ("read", "A", 0)
    assert (write.kind, write.name, write.index) == ("write", "As", 0)
    assert write.values == tuple(inputs[0][0].view(np.uint8).tolist())


# ------------------------------------------------ which rung a device gets


def test_a_ladder_chooses_by_dtype_and_device(monkeypatch):
    ladder = cuda.LADDERS["linear"]
    assert ladder._last("float32", None).name == "matmul_vectorised"
    assert ladder._last("float64", "sm_90a").name == "matmul_vectorised"
    assert ladder._last("bfloat16", None).name == "matmul_wgmma"
    chosen = {"sm_80": "matmul_mma", "sm_90a": "matmul_wgmma", "sm_120a": "matmul_mma"}
    for arch, name in chosen.items():
        assert ladder._last("bfloat16", arch).name == name
    with pytest.raises(ValueError, match="no rung of linear takes bfloat16 on sm_75"):
        ladder._last("bfloat16", "sm_75")
    halves = (torch.zeros(2, 8).bfloat16(),) * 2
    monkeypatch.setattr(_gpu, "device_architecture", lambda: "sm_89")
    monkeypatch.setattr(_base, "_loaded", lambda *a: pytest.fail("too late"))
    with pytest.raises(cuda.ToolError, match="matmul_wgmma needs sm_90a; this GPU is sm_89"):
        ladder.run(*halves, rung="matmul_wgmma", device="cuda")
    with pytest.raises(TypeError, match="matmul_mma takes bfloat16, got float32"):
        ladder.run(np.zeros((2, 8), f32), np.zeros((2, 8), f32), rung="matmul_mma")
    with pytest.raises(TypeError, match="matmul_tiled takes float32, got bfloat16"):
        ladder.run(*halves, rung="matmul_tiled")


def test_attention_chooses_by_dtype_and_device():
    for ladder in ("attention", "attention_backward"):
        last = f"{ladder}_tiled"
        assert cuda.LADDERS[ladder]._last("float32", "sm_90a").name == last
        assert cuda.LADDERS[ladder]._last("float64", None).name == last
        for arch in (None, "sm_80", "sm_90a", "sm_120a"):
            mma = cuda.LADDERS[ladder]._last("bfloat16", arch)
            assert mma.name == last.replace("tiled", "mma")
    with pytest.raises(ValueError, match="no rung of attention takes bfloat16 on sm_75"):
        cuda.LADDERS["attention"]._last("bfloat16", "sm_75")
    query, key = bf(0, 4, 8), normal(1, 5, 8)
    with pytest.raises(TypeError, match="k must have dtype bfloat16"):
        cuda.LADDERS["attention"].run(query, key, key)


def test_bytes_of_products_of_bfloat16():
    x, weight, bias = np.zeros((8, 5), np.uint16), np.zeros((3, 5), np.uint16), np.zeros(3, f32)
    of_inputs, of_y, of_dy = 2 * (8 * 5 + 3 * 5), 4 * 8 * 3, 2 * 8 * 3
    cost = roofline.cost("linear", x, weight, bias)
    assert (cost.bytes, cost.operations) == (of_inputs + of_y + 4 * 3, 2 * 8 * 5 * 3 + 8 * 3)
    back = roofline.cost("linear_backward", np.zeros((8, 3), np.uint16), x, weight)
    assert back.bytes == of_dy + of_inputs + 4 * (8 * 5 + 3 * 5 + 3)
    images, filters = np.zeros((1, 2, 4, 4), np.uint16), np.zeros((3, 2, 1, 1), np.uint16)
    assert roofline.cost("conv2d", images, filters).bytes == 2 * (32 + 6) + 4 * 48
    query, key, value = (np.zeros(shape, np.uint16) for shape in ((2, 5, 8), (2, 7, 8), (2, 7, 4)))
    of_inputs, of_results = 2 * 2 * (5 * 8 + 7 * 8 + 7 * 4), 4 * 2 * 5 * (4 + 1)
    assert roofline.cost("attention", query, key, value).bytes == of_inputs + of_results
    y, log_sum, dy = np.zeros((2, 5, 4), f32), np.zeros((2, 5), f32), np.zeros((2, 5, 4), np.uint16)
    back = roofline.cost("attention_backward", dy, query, key, value, y, log_sum)
    assert back.bytes == of_inputs + 2 * 2 * 5 * 4 + of_results + 2 * of_inputs  # and the gradients
    back = roofline.cost("conv2d_backward", np.zeros((1, 3, 4, 4), np.uint16), images, filters)
    assert back.bytes == 2 * (48 + 32 + 6) + 4 * (32 + 6 + 3)


# ------------------------------------------------ machine code

# The lower 12 bits of an instruction, sm_75 to sm_120, as nvdisasm names them.
OPCODES = {
    0x23C: "HMMA", 0xFAE: "LDGSTS", 0x9AF: "LDGDEPBAR", 0x83B: "LDSM", 0x9F0: "HGMMA",
    0x9C5: "WARPGROUP", 0x5B4: "UTMALDG", 0x5B2: "SYNCS", 0x5A7: "SYNCS", 0x9A7: "SYNCS",
    0x387: "STL", 0x983: "LDL",
}  # fmt: skip
REGISTERS = 0x2F
THREADS = {"matmul_wgmma": 288, "attention_mma": 256, "attention_backward_mma": 256}  # others: 128
# Blocks that a multiprocessor is to hold; of the others 3. Attention, if narrow, has two of 128.
BLOCKS = {"matmul_mma": 2, "matmul_wgmma": 1, "attention_mma": 1, "attention_backward_mma": 1}
WANTED = {"HMMA": 32, "LDSM": 12, "LDGSTS": 4, "LDGDEPBAR": 2}  # at least, of a kernel with mma


def instructions(cubin: bytes, name: str) -> dict[str, int]:
    """Count those instructions of the functions whose name contains `name` that OPCODES knows."""
    counts = dict.fromkeys(OPCODES.values(), 0)
    for section, code in sections(cubin):
        if section.startswith(".text.") and name in section:
            for at in range(0, len(code), 16):
                known = OPCODES.get(int.from_bytes(code[at : at + 2], "little") & 0xFFF)
                if known:
                    counts[known] += 1
    return counts


@needs_nvrtc
def test_opcodes_of_plain_kernels():
    source = """
__global__ void plain(int* y) { y[0] = 1; }
__global__ void spills(int* y, int n) { int a[64]; for (int i = 0; i < n; i++) a[i] = y[i];
  y[0] = a[y[1]]; }"""
    cubin = cuda.compile(source=source, arch="sm_80").data
    assert not any(instructions(cubin, "plain").values())
    spilled = instructions(cubin, "spills")
    assert spilled.pop("STL")
    assert spilled.pop("LDL")
    assert not any(spilled.values())


@needs_nvrtc
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(("ladder", "rung"), RUNGS, ids=map("-".join, RUNGS))
def test_machine_code_has_the_instructions_that_a_rung_is_about(ladder, rung, arch):
    file, chosen = cuda.LADDERS[ladder].file, cuda.LADDERS[ladder].rung(rung)
    names = [n for n in chosen.kernels if n.partition("<")[0].endswith(("_mma", "_wgmma"))]
    bases = sorted({name.partition("<")[0] for name in names})
    if not chosen.runs_on(arch):
        for name in names:
            base = name.partition("<")[0]
            with pytest.raises(cuda.CompileError, match=f"{base} needs {chosen.needs}"):
                cuda.compile(file, kernels=[name], arch=arch)
        return
    cubin = cuda.compile(file, kernels=names, arch=arch).data
    registers = max(of_functions(cubin, REGISTERS))
    assert registers * THREADS.get(rung, 128) * BLOCKS.get(rung, 3) <= 65536
    for base in bases:
        found, count = instructions(cubin, base), sum(name.startswith(f"{base}<") for name in names)
        assert found.pop("STL") == found.pop("LDL") == 0
        if rung == "matmul_wgmma":
            assert found.pop("HGMMA") >= 4 * count
            # One fence and two waits: were products made to wait for each other, there were more.
            assert found.pop("WARPGROUP") == 3 * count
            assert found.pop("UTMALDG") >= 6 * count
            assert found.pop("SYNCS") >= 8 * count
        else:
            for name, least in WANTED.items():
                assert found.pop(name) >= least * count, name
        assert not any(found.values())  # else threads would copy or load what TMA and wgmma do
