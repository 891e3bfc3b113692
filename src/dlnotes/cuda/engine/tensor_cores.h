// The wrappers of kernels/ptx.cuh on a CPU: asynchronous copies, ldmatrix, mma, mbarriers, TMA, wgmma.
// What they do is in async.h. Copies and products happen when they are waited for, as late as a GPU may.
#pragma once
#include "half_types.h"

// As large and aligned as CUtensorMap; dlnotes/cuda/_tensor_map.py writes it.
struct __align__(64) TensorMap {
  const char* base;
  uint64_t columns, rows, stride;  // stride: bytes from a row to the next
  uint32_t box_columns, box_rows, item, swizzled;
  unsigned char unused[80];
};
static_assert(sizeof(TensorMap) == 128, "as large as CUtensorMap");

namespace engine {
uint32_t shared_address(const void* p, const char* file, int line);
void copy_16(void* shared, const void* global, int bytes, const char* file, int line);
void copy_commit();
void copy_wait(int keep);
void load_matrices(uint32_t* r, const void* row, bool transposed, const char* what, const char* file, int line);
void mma(float* d, const uint32_t* a, uint32_t b0, uint32_t b1, const char* file, int line);
void mbarrier_init(uint64_t* barrier, int arrivals, const char* file, int line);
void mbarrier_fence();
void mbarrier_arrive(uint64_t* barrier, int bytes, const char* what, const char* file, int line);
void mbarrier_wait(uint64_t* barrier, int parity, const char* file, int line);
void tma_load(void* shared, const TensorMap& map, uint64_t* barrier, int column, int row, const char* file, int line);
void wgmma(float* d, int n, uint64_t a, uint64_t b, bool transpose_a, bool transpose_b, const char* file, int line);
void wgmma_fence(const char* file, int line);
void wgmma_commit(const char* file, int line);
void wgmma_wait(int keep, const char* file, int line);
}  // namespace engine

ENGINE_PLAIN uint32_t shared_address(const void* p, ENGINE_HERE) { return engine::shared_address(p, file, line); }
ENGINE_PLAIN void cp_async_16(void* shared, const void* global, int bytes = 16, ENGINE_HERE) { engine::copy_16(shared, global, bytes, file, line); }
ENGINE_PLAIN void cp_async_commit() { engine::copy_commit(); }
template <int N> ENGINE_PLAIN void cp_async_wait() { engine::copy_wait(N); }
ENGINE_PLAIN void ldmatrix_x4(uint32_t (&r)[4], const void* row, ENGINE_HERE) { engine::load_matrices(r, row, false, "ldmatrix", file, line); }
ENGINE_PLAIN void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, ENGINE_HERE) { engine::load_matrices(r, row, true, "ldmatrix.trans", file, line); }
ENGINE_PLAIN void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, ENGINE_HERE) { engine::mma(d, a, b0, b1, file, line); }
ENGINE_PLAIN uint32_t pack_bfloat16(float low, float high) { return engine_to_bfloat16(low) | (uint32_t)engine_to_bfloat16(high) << 16; }
ENGINE_PLAIN float exp2_fast(float x) {
  const float y = exp2f(x);
  return y < 1.17549435e-38f ? 0.f : y;  // 2⁻¹²⁶
}
ENGINE_PLAIN void mbarrier_init(uint64_t* barrier, int arrivals, ENGINE_HERE) { engine::mbarrier_init(barrier, arrivals, file, line); }
ENGINE_PLAIN void fence_mbarrier_init() { engine::mbarrier_fence(); }
ENGINE_PLAIN void mbarrier_arrive(uint64_t* barrier, ENGINE_HERE) { engine::mbarrier_arrive(barrier, 0, "mbarrier_arrive", file, line); }
ENGINE_PLAIN void mbarrier_arrive_expect_tx(uint64_t* barrier, int bytes, ENGINE_HERE) { engine::mbarrier_arrive(barrier, bytes, "mbarrier_arrive_expect_tx", file, line); }
ENGINE_PLAIN void mbarrier_wait(uint64_t* barrier, int parity, ENGINE_HERE) { engine::mbarrier_wait(barrier, parity, file, line); }
ENGINE_PLAIN void tma_load_2d(void* shared, const TensorMap& map, uint64_t* barrier, int column, int row, ENGINE_HERE) {
  engine::tma_load(shared, map, barrier, column, row, file, line);
}
ENGINE_PLAIN void fence_proxy_async() {}  // all accesses here go one way
ENGINE_PLAIN void wgmma_fence(ENGINE_HERE) { engine::wgmma_fence(file, line); }
ENGINE_PLAIN void wgmma_commit(ENGINE_HERE) { engine::wgmma_commit(file, line); }
template <int N> ENGINE_PLAIN void wgmma_wait(ENGINE_HERE) { engine::wgmma_wait(N, file, line); }
template <int N, bool TRANSPOSE_A, bool TRANSPOSE_B>
ENGINE_PLAIN void wgmma_m64k16(float (&d)[N / 2], uint64_t a, uint64_t b, ENGINE_HERE) {
  engine::wgmma(d, N, a, b, TRANSPOSE_A, TRANSPOSE_B, file, line);
}
