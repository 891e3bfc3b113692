// Instructions that CUDA C++ has no words for: asynchronous copies, matrices from shared memory, tensor
// cores. Each wrapper is one PTX instruction; PTX ISA chapters 9.7.3 (ex2), 9.7.9 (copies, cvt), 9.7.13 (mbarrier),
// 9.7.14 (ldmatrix, mma) and 9.7.15 (wgmma) say what they do. On a CPU the engine's tensor_cores.h takes their place.
//
// A tile in shared memory is read and written 16 bytes at a time ("chunks"). Eight lanes that do so
// together are served at once if their chunks lie in different places modulo 128 bytes, hence the swizzles.
#pragma once
#include <cuda_bf16.h>
#include <stdint.h>

const int WARPGROUP = 128;  // threads that run one wgmma together

// What kernels assert. Host code, which has no architecture, never runs them.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
const bool HAS_SM_80 = false;
#else
const bool HAS_SM_80 = true;
#endif
#if defined(__CUDA_ARCH__) && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
const bool HAS_SM_90A = false;  // wgmma is not in sm_90, and no later architecture has it
#else
const bool HAS_SM_90A = true;
#endif

#ifdef __CUDA_ON_CPU__
#include "tensor_cores.h"
#else
__device__ __forceinline__ uint32_t shared_address(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }

// ---- sm_80: copies from global to shared memory that do not wait --------------------------------------
// Copies `bytes` of 16 and fills the rest with zeros. Both addresses must be multiples of 16.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global, int bytes = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes) : "memory");
}
// The thread's copies since the last commit are a group; wait until all but its N newest groups have landed.
// Other threads may read them after a barrier that follows the wait.
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// ---- sm_75: four 8 × 8 matrices of 16-bit numbers from shared memory into the registers of a warp -------
// Lane l gives the address of row l % 8 of matrix l / 8. It gets, of each matrix, the entries
// (l / 4, l % 4 * 2) and the next in its row; with _trans of the matrix transposed.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

// ---- sm_80: D (16 × 8, float) += A (16 × 16) B (16 × 8), bfloat16, by a warp ----------------------------
// With g = lane / 4 and q = lane % 4 * 2: d holds D at rows g, g, g + 8, g + 8 and columns q, q + 1, q, q + 1;
// a[0..3] pairs of A at (g, q), (g + 8, q), (g, q + 8), (g + 8, q + 8); b0, b1 pairs of B at (q, g), (q + 8, g).
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// ---- what stands between two products, entry by entry --------------------------------------------------
// sm_80: two numbers rounded to bfloat16, as pairs of operands of mma have them
__device__ __forceinline__ uint32_t pack_bfloat16(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
// 2^x with a relative error of at most 2⁻²²; 0 where it would be less than 2⁻¹²⁶, which exp2f takes three more instructions for
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// ---- sm_90: mbarriers --------------------------------------------------------------------------------
// A barrier in shared memory that counts arrivals and bytes. When both are complete its phase ends and the
// next begins; the parities of the phases are 0, 1, 0, 1, …
__device__ __forceinline__ void mbarrier_init(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
// Makes the barriers that this thread has initialised known to the copying hardware.
__device__ __forceinline__ void fence_mbarrier_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ __forceinline__ void mbarrier_arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
// Arrives, and makes the phase wait for that many bytes as well.
__device__ __forceinline__ void mbarrier_arrive_expect_tx(uint64_t* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes) : "memory");
}
// Waits until the phase of this parity has ended.
__device__ __forceinline__ void mbarrier_wait(uint64_t* barrier, int parity) {
  uint32_t ended;
  do {
    asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                 : "=r"(ended) : "r"(shared_address(barrier)), "r"(parity) : "memory");
  } while (!ended);
}

// ---- sm_90: TMA, the hardware that copies a box of a matrix ----------------------------------------------
struct __align__(64) TensorMap { uint64_t opaque[16]; };  // the driver's CUtensorMap; from Python a cuda.TensorMap
// Copies the map's box whose first entry is (row, column) to `shared` and reports its bytes to the barrier.
// What lies outside the matrix is zero. One thread starts it. Swizzled tiles begin at multiples of 1024 bytes.
__device__ __forceinline__ void tma_load_2d(void* shared, const TensorMap& map, uint64_t* barrier, int column, int row) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
               ::"r"(shared_address(shared)), "l"(reinterpret_cast<uint64_t>(&map)), "r"(shared_address(barrier)), "r"(column), "r"(row) : "memory");
}
// Orders this thread's ordinary accesses to shared memory before later ones of TMA and wgmma.
__device__ __forceinline__ void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---- sm_90a: wgmma, products whose operands stay in shared memory -------------------------------------------
// Before the first product, and after the registers of d were touched: fence. Then products, a commit that
// makes them a group, and a wait until all but the N newest groups are done; until then d is not to be read.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
#define D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define D16(i) D4(i), D4(i + 4), D4(i + 8), D4(i + 12)
#define D32(i) D16(i), D16(i + 16)
#define R32_0 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define R32_1 "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define R32_2 "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define R32_3 "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define WGMMA(N) "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 "
// D (64 × N, float) += A (64 × 16) B (16 × N), bfloat16, by a warpgroup. Warp w of it holds rows 16 w to 16 w + 15;
// with g = lane / 4 and q = lane % 4 * 2, d[4 i .. 4 i + 3] holds D at rows g, g, g + 8, g + 8 of these and columns
// 8 i + q, 8 i + q + 1 and the same again. An operand is stored with its sum's direction contiguous, or transposed.
template <int N, bool TRANSPOSE_A, bool TRANSPOSE_B>
__device__ __forceinline__ void wgmma_m64k16(float (&d)[N / 2], uint64_t a, uint64_t b) {
  static_assert(N == 64 || N == 128 || N == 256, "write the other widths when a kernel needs them");
  if constexpr (N == 64)
    asm volatile(WGMMA(64) "{" R32_0 "}, %32, %33, 1, 1, 1, %34, %35;"
                 : D32(0) : "l"(a), "l"(b), "n"((int)TRANSPOSE_A), "n"((int)TRANSPOSE_B));
  else if constexpr (N == 128)
    asm volatile(WGMMA(128) "{" R32_0 "," R32_1 "}, %64, %65, 1, 1, 1, %66, %67;"
                 : D32(0), D32(32) : "l"(a), "l"(b), "n"((int)TRANSPOSE_A), "n"((int)TRANSPOSE_B));
  else
    asm volatile(WGMMA(256) "{" R32_0 "," R32_1 "," R32_2 "," R32_3 "}, %128, %129, 1, 1, 1, %130, %131;"
                 : D32(0), D32(32), D32(64), D32(96) : "l"(a), "l"(b), "n"((int)TRANSPOSE_A), "n"((int)TRANSPOSE_B));
}
#endif

// How wgmma finds an operand of 16-bit numbers that TMA stored with its swizzle of 128 bytes. A row of a tile
// has 64 numbers, 128 bytes; eight rows are a pattern of 1024 bytes. `stride`: bytes from one pattern to the
// next. `leading`: only where the result's direction is contiguous, bytes from 64 of its numbers to the next 64.
__device__ __forceinline__ uint64_t wgmma_descriptor(const void* tile, int leading, int stride) {
  const uint64_t swizzle_128_bytes = 1;
  return (shared_address(tile) & 0x3ffff) >> 4 | (uint64_t)(leading >> 4) << 16 | (uint64_t)(stride >> 4) << 32 | swizzle_128_bytes << 62;
}
