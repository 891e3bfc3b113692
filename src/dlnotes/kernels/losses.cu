// Cross-entropy of logits with integer labels, the mean over the rows, and its gradient.
//
//   loss = log Σ eˣ - x[label],     dx = (softmax(x) - onehot(label)) / counted rows
//
// A row whose label is `ignored` counts nothing.
//   cross_entropy_naive   one thread a row, the gradient from a second kernel that starts again
//   cross_entropy_fused   one warp a row gives loss and gradient together: x is still in the cache
#include "common.cuh"

// 1. The loss of each row; the caller adds them up.
__global__ void cross_entropy_naive(int rows, int classes, const float* __restrict__ x, const long long* __restrict__ labels,
                                    long long ignored, float* __restrict__ losses) {
  const int row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  x += (size_t)row * classes;
  float largest = -INFINITY, sum = 0.f;
  for (int i = 0; i < classes; i++) largest = fmaxf(largest, x[i]);
  for (int i = 0; i < classes; i++) sum += expf(x[i] - largest);
  const long long label = labels[row];
  losses[row] = label == ignored ? 0.f : logf(sum) - (x[label] - largest);
}
__global__ void cross_entropy_backward_naive(int rows, int classes, float scale, const float* __restrict__ x,
                                             const long long* __restrict__ labels, long long ignored, float* __restrict__ dx) {
  const int row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  x += (size_t)row * classes;
  dx += (size_t)row * classes;
  float largest = -INFINITY, sum = 0.f;
  for (int i = 0; i < classes; i++) largest = fmaxf(largest, x[i]);
  for (int i = 0; i < classes; i++) sum += expf(x[i] - largest);
  const long long label = labels[row];
  for (int i = 0; i < classes; i++)
    dx[i] = label == ignored ? 0.f : scale * (expf(x[i] - largest) / sum - (i == label ? 1.f : 0.f));
}

// 2. Loss and gradient in one kernel; lane 0 writes the loss. `scale` is 1 / counted rows.
__global__ void cross_entropy_fused(int rows, int classes, float scale, const float* __restrict__ x,
                                    const long long* __restrict__ labels, long long ignored, float* __restrict__ losses,
                                    float* __restrict__ dx) {
  const int row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
  if (row >= rows) return;
  x += (size_t)row * classes;
  dx += (size_t)row * classes;
  const long long label = labels[row];
  const float counts = label == ignored ? 0.f : 1.f;
  float largest = -INFINITY, sum = 0.f;
  for (int i = lane; i < classes; i += WARP) largest = fmaxf(largest, x[i]);
  largest = warp_reduce<Max>(largest);
  for (int i = lane; i < classes; i += WARP) sum += expf(x[i] - largest);
  sum = warp_reduce<Add>(sum);
  for (int i = lane; i < classes; i += WARP)
    dx[i] = counts * scale * (expf(x[i] - largest) / sum - (i == label ? 1.f : 0.f));
  if (lane == 0) losses[row] = label == ignored ? 0.f : logf(sum) - (x[label] - largest);
}

// The sum of n numbers, by three ways to join them.
//   sum_atomic   every thread adds to the same address: correct, and one after another
//   sum_block    a block joins its numbers first, so there is one atomic a block
//   sum_grid     few blocks, each thread adds many numbers in a register before any exchange
__global__ void sum_atomic(int n, const float* __restrict__ x, float* __restrict__ total) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) atomicAdd(total, x[i]);
}
__global__ void sum_block(int n, const float* __restrict__ x, float* __restrict__ total) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const float sum = block_reduce<Add>(i < n ? x[i] : 0.f);
  if (threadIdx.x == 0) atomicAdd(total, sum);
}
__global__ void sum_grid(int n, const float* __restrict__ x, float* __restrict__ total) {
  float sum = 0.f;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += x[i];
  sum = block_reduce<Add>(sum);
  if (threadIdx.x == 0) atomicAdd(total, sum);
}
