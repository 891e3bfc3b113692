// Softmax over the rows of a matrix, y = eˣ / Σ eˣ, and its gradient.
//
// There are few operations to a byte, so the time is that of moving x in and y out: the ladder is
// about reading each row as few times as possible, with all threads of a warp side by side.
//   softmax_naive    one thread a row: neighbouring threads read addresses a whole row apart
//   softmax_block    one block a row: neighbours read neighbours; reductions through shared memory
//   softmax_warp     one warp a row: reductions by shuffles, no barrier at all
//   softmax_online   maximum and sum in one pass over the row (Milakov and Gimelshein, 2018)
// and for the gradient
//   softmax_backward_naive   one thread a row
//   softmax_backward_warp    one warp a row
//   softmax_backward_kept    the same, and a row waits in registers: dy and y are read once
#include "common.cuh"

// 1. Three passes over the row: the maximum, the sum, the quotients.
__global__ void softmax_naive(int rows, int columns, const float* __restrict__ x, float* __restrict__ y) {
  const int row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  x += (size_t)row * columns;
  y += (size_t)row * columns;
  float largest = -INFINITY, sum = 0.f;
  for (int i = 0; i < columns; i++) largest = fmaxf(largest, x[i]);
  for (int i = 0; i < columns; i++) sum += expf(x[i] - largest);
  for (int i = 0; i < columns; i++) y[i] = expf(x[i] - largest) / sum;
}

// 2. The threads of a block take every blockDim.x-th entry; a tree in shared memory joins what
// they found: half of the threads add the other half's number to theirs, then a quarter …
// blockDim.x must be a power of two.
template <class Op>
__device__ float tree_reduce(float v, float* shared) {
  const int i = threadIdx.x;
  shared[i] = v;
  __syncthreads();
  for (int half = blockDim.x / 2; half > 0; half /= 2) {
    if (i < half) shared[i] = Op::join(shared[i], shared[i + half]);
    __syncthreads();
  }
  v = shared[0];
  __syncthreads();  // shared may be overwritten only when all have read
  return v;
}
__global__ void softmax_block(int rows, int columns, const float* __restrict__ x, float* __restrict__ y) {
  extern __shared__ float shared[];  // blockDim.x numbers
  x += (size_t)blockIdx.x * columns;
  y += (size_t)blockIdx.x * columns;
  float largest = -INFINITY, sum = 0.f;
  for (int i = threadIdx.x; i < columns; i += blockDim.x) largest = fmaxf(largest, x[i]);
  largest = tree_reduce<Max>(largest, shared);
  for (int i = threadIdx.x; i < columns; i += blockDim.x) sum += expf(x[i] - largest);
  sum = tree_reduce<Add>(sum, shared);
  for (int i = threadIdx.x; i < columns; i += blockDim.x) y[i] = expf(x[i] - largest) / sum;
}

// 3. A warp has its row to itself, so its lanes need to wait for nobody else.
__global__ void softmax_warp(int rows, int columns, const float* __restrict__ x, float* __restrict__ y) {
  const int row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
  if (row >= rows) return;  // the whole warp leaves, so the shuffles below miss nobody
  x += (size_t)row * columns;
  y += (size_t)row * columns;
  float largest = -INFINITY, sum = 0.f;
  for (int i = lane; i < columns; i += WARP) largest = fmaxf(largest, x[i]);
  largest = warp_reduce<Max>(largest);
  for (int i = lane; i < columns; i += WARP) sum += expf(x[i] - largest);
  sum = warp_reduce<Add>(sum);
  for (int i = lane; i < columns; i += WARP) y[i] = expf(x[i] - largest) / sum;
}

// 4. A running maximum: whenever it grows, the sum so far shrinks by e^(old - new). Two passes.
__global__ void softmax_online(int rows, int columns, const float* __restrict__ x, float* __restrict__ y) {
  const int row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
  if (row >= rows) return;
  x += (size_t)row * columns;
  y += (size_t)row * columns;
  float largest = -INFINITY, sum = 0.f;
  for (int i = lane; i < columns; i += WARP) {
    const float v = x[i];
    if (v > largest) {
      sum = sum * expf(largest - v) + 1.f;  // e^(-∞) = 0 the first time
      largest = v;
    } else if (v > -INFINITY) sum += expf(v - largest);  // -∞ adds nothing, even to a row of them
  }
  const float all = warp_reduce<Max>(largest);
  sum = warp_reduce<Add>(largest > -INFINITY ? sum * expf(largest - all) : 0.f);
  for (int i = lane; i < columns; i += WARP) y[i] = expf(x[i] - all) / sum;
}

// dx = y · (dy - Σ dy y).
__global__ void softmax_backward_naive(int rows, int columns, const float* __restrict__ dy, const float* __restrict__ y,
                                       float* __restrict__ dx) {
  const int row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  dy += (size_t)row * columns, y += (size_t)row * columns, dx += (size_t)row * columns;
  float sum = 0.f;
  for (int i = 0; i < columns; i++) sum += dy[i] * y[i];
  for (int i = 0; i < columns; i++) dx[i] = y[i] * (dy[i] - sum);
}
__global__ void softmax_backward_warp(int rows, int columns, const float* __restrict__ dy, const float* __restrict__ y,
                                      float* __restrict__ dx) {
  const int row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
  if (row >= rows) return;
  const size_t start = (size_t)row * columns;
  float sum = 0.f;
  for (int i = lane; i < columns; i += WARP) sum += dy[start + i] * y[start + i];
  sum = warp_reduce<Add>(sum);
  for (int i = lane; i < columns; i += WARP) dx[start + i] = y[start + i] * (dy[start + i] - sum);
}

// Rows of up to 32 · EACH numbers, one warp a row: loops of a fixed length, so that the compiler can keep in
// registers what it fetched.
template <int EACH>
__global__ void softmax_backward_kept(int rows, int columns, const float* __restrict__ dy, const float* __restrict__ y,
                                      float* __restrict__ dx) {
  const int row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
  if (row >= rows) return;
  dy += (size_t)row * columns, y += (size_t)row * columns, dx += (size_t)row * columns;
  float g[EACH], p[EACH], sum = 0.f;
#pragma unroll
  for (int j = 0; j < EACH; j++) {
    const int i = lane + j * WARP;
    g[j] = i < columns ? dy[i] : 0.f;
    p[j] = i < columns ? y[i] : 0.f;
    sum += g[j] * p[j];
  }
  sum = warp_reduce<Add>(sum);
#pragma unroll
  for (int j = 0; j < EACH; j++) {
    const int i = lane + j * WARP;
    if (i < columns) dx[i] = p[j] * (g[j] - sum);
  }
}
