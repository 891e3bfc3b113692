// Layer normalisation of the rows of a matrix: y = (x - mean) / √(variance + eps) · weight + bias.
//
// Like softmax it is limited by memory; and a variance needs the mean first, so a row is read twice,
// or kept.
//   layer_norm_naive     one thread a row, three passes
//   layer_norm_warp      one warp a row: neighbouring lanes read neighbours, shuffles join
//   layer_norm_kept      one block a row, which stays in shared memory: x is read once
// and for the gradient
//   layer_norm_backward_naive   one thread a row; dweight and dbias by atomics, row after row
//   layer_norm_backward_warp    one warp a row for dx; dweight and dbias as sums of columns
#include "common.cuh"

__global__ void layer_norm_naive(int rows, int columns, float eps, const float* __restrict__ x, const float* __restrict__ weight,
                                 const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ mean_of,
                                 float* __restrict__ scale_of) {
  const int row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  x += (size_t)row * columns;
  y += (size_t)row * columns;
  float mean = 0.f, variance = 0.f;
  for (int i = 0; i < columns; i++) mean += x[i];
  mean /= columns;
  for (int i = 0; i < columns; i++) variance += (x[i] - mean) * (x[i] - mean);
  const float scale = rsqrtf(variance / columns + eps);
  for (int i = 0; i < columns; i++) y[i] = (x[i] - mean) * scale * weight[i] + bias[i];
  mean_of[row] = mean;  // what the gradient needs again
  scale_of[row] = scale;
}

__global__ void layer_norm_warp(int rows, int columns, float eps, const float* __restrict__ x, const float* __restrict__ weight,
                                const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ mean_of,
                                float* __restrict__ scale_of) {
  const int row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
  if (row >= rows) return;
  x += (size_t)row * columns;
  y += (size_t)row * columns;
  float sum = 0.f, squares = 0.f;
  for (int i = lane; i < columns; i += WARP) sum += x[i];
  const float mean = warp_reduce<Add>(sum) / columns;
  for (int i = lane; i < columns; i += WARP) squares += (x[i] - mean) * (x[i] - mean);
  const float scale = rsqrtf(warp_reduce<Add>(squares) / columns + eps);
  for (int i = lane; i < columns; i += WARP) y[i] = (x[i] - mean) * scale * weight[i] + bias[i];
  if (lane == 0) mean_of[row] = mean, scale_of[row] = scale;
}

__global__ void layer_norm_kept(int rows, int columns, float eps, const float* __restrict__ x, const float* __restrict__ weight,
                                const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ mean_of,
                                float* __restrict__ scale_of) {
  extern __shared__ float kept[];  // the row; each thread reads back only what it wrote itself
  x += (size_t)blockIdx.x * columns;
  y += (size_t)blockIdx.x * columns;
  float sum = 0.f, squares = 0.f;
  for (int i = threadIdx.x; i < columns; i += blockDim.x) sum += kept[i] = x[i];
  const float mean = block_reduce<Add>(sum) / columns;
  for (int i = threadIdx.x; i < columns; i += blockDim.x) squares += (kept[i] - mean) * (kept[i] - mean);
  const float scale = rsqrtf(block_reduce<Add>(squares) / columns + eps);
  for (int i = threadIdx.x; i < columns; i += blockDim.x) y[i] = (kept[i] - mean) * scale * weight[i] + bias[i];
  if (threadIdx.x == 0) mean_of[blockIdx.x] = mean, scale_of[blockIdx.x] = scale;
}

// With n = (x - mean) · scale and g = dy · weight: dx = scale · (g - mean(g) - n · mean(g n)).
__global__ void layer_norm_backward_naive(int rows, int columns, const float* __restrict__ dy, const float* __restrict__ x,
                                          const float* __restrict__ weight, const float* __restrict__ mean_of,
                                          const float* __restrict__ scale_of, float* __restrict__ dx, float* __restrict__ dweight,
                                          float* __restrict__ dbias) {
  const int row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  const size_t start = (size_t)row * columns;
  const float mean = mean_of[row], scale = scale_of[row];
  float sum = 0.f, product = 0.f;
  for (int i = 0; i < columns; i++) {
    const float g = dy[start + i] * weight[i], n = (x[start + i] - mean) * scale;
    sum += g;
    product += g * n;
  }
  for (int i = 0; i < columns; i++) {
    const float g = dy[start + i] * weight[i], n = (x[start + i] - mean) * scale;
    dx[start + i] = scale * (g - sum / columns - n * (product / columns));
    atomicAdd(&dweight[i], dy[start + i] * n);
    atomicAdd(&dbias[i], dy[start + i]);
  }
}

__global__ void layer_norm_backward_warp(int rows, int columns, const float* __restrict__ dy, const float* __restrict__ x,
                                         const float* __restrict__ weight, const float* __restrict__ mean_of,
                                         const float* __restrict__ scale_of, float* __restrict__ dx) {
  const int row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
  if (row >= rows) return;
  const size_t start = (size_t)row * columns;
  const float mean = mean_of[row], scale = scale_of[row];
  float sum = 0.f, product = 0.f;
  for (int i = lane; i < columns; i += WARP) {
    const float g = dy[start + i] * weight[i];
    sum += g;
    product += g * (x[start + i] - mean) * scale;
  }
  sum = warp_reduce<Add>(sum) / columns;
  product = warp_reduce<Add>(product) / columns;
  for (int i = lane; i < columns; i += WARP) {
    const float n = (x[start + i] - mean) * scale;
    dx[start + i] = scale * (dy[start + i] * weight[i] - sum - n * product);
  }
}

// dweight and dbias: 32 columns a block; its eight warps take every eighth row, so a warp reads 32
// neighbours, and nobody writes where another does.
__global__ void layer_norm_backward_columns(int rows, int columns, const float* __restrict__ dy, const float* __restrict__ x,
                                            const float* __restrict__ mean_of, const float* __restrict__ scale_of,
                                            float* __restrict__ dweight, float* __restrict__ dbias) {
  __shared__ float weights[8][33], biases[8][33];
  const int column = blockIdx.x * 32 + threadIdx.x;
  float w = 0.f, b = 0.f;
  if (column < columns)
    for (int row = threadIdx.y; row < rows; row += 8) {
      const size_t i = (size_t)row * columns + column;
      w += dy[i] * (x[i] - mean_of[row]) * scale_of[row];
      b += dy[i];
    }
  weights[threadIdx.y][threadIdx.x] = w;
  biases[threadIdx.y][threadIdx.x] = b;
  __syncthreads();
  if (threadIdx.y == 0 && column < columns) {
    for (int i = 1; i < 8; i++) w += weights[i][threadIdx.x], b += biases[i][threadIdx.x];
    dweight[column] = w;
    dbias[column] = b;
  }
}
