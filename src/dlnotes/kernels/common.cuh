// What most kernels share: reductions over the lanes of a warp and the threads of a block.
#pragma once
#include <math.h>

const int WARP = 32;
const unsigned ALL_LANES = 0xffffffffu;

struct Add {
  static __device__ __forceinline__ float identity() { return 0.f; }
  static __device__ __forceinline__ float join(float a, float b) { return a + b; }
};
struct Max {
  static __device__ __forceinline__ float identity() { return -INFINITY; }
  static __device__ __forceinline__ float join(float a, float b) { return fmaxf(a, b); }
};

// All lanes get the result after log2(32) = 5 exchanges, each with the lane whose number differs in
// one bit. No shared memory, no barrier.
template <class Op>
__device__ __forceinline__ float warp_reduce(float v) {
#pragma unroll
  for (int bit = WARP / 2; bit > 0; bit /= 2) v = Op::join(v, __shfl_xor_sync(ALL_LANES, v, bit));
  return v;
}

// All threads get the result. blockDim.x must be a multiple of 32; every thread must call.
template <class Op>
__device__ __forceinline__ float block_reduce(float v) {
  __shared__ float partial[WARP];
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  v = warp_reduce<Op>(v);
  __syncthreads();  // partial may still be read from the call before
  if (lane == 0) partial[warp] = v;
  __syncthreads();
  return warp_reduce<Op>(lane < blockDim.x / WARP ? partial[lane] : Op::identity());
}
