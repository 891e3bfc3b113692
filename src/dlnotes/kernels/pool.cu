// Pooling over windows of images (n, c, h, w): the maximum or the mean, and the gradients.
//
//   max_pool_naive, avg_pool_naive    one thread for each output, reading its window from global memory
//   max_pool_tiled, avg_pool_tiled    windows overlap: a block fetches the part of the image that its outputs need once
// and for the gradient
//   *_backward_scatter   one thread for each output adds its dy to the inputs, by atomics
//   *_backward_gather    one thread for each input collects from the windows it lies in: no atomics,
//                        and the same sum in the same order each time
#include "common.cuh"

// Sizes of image, output and window, the stride, and the padding in front.
struct Pool {
  int h, w, out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w;
};

// Which of the image's rows (or columns) a window covers.
__device__ __forceinline__ int first_of(int out, int stride, int padding) { return max(out * stride - padding, 0); }
__device__ __forceinline__ int end_of(int out, int stride, int padding, int kernel, int size) {
  return min(out * stride - padding + kernel, size);
}

// The largest entry of the window and its place row · w + column, the first on ties, of NaNs the last.
__global__ void max_pool_naive(Pool p, int images, const float* __restrict__ x, float* __restrict__ y, long long* __restrict__ indices) {
  const int o = blockIdx.x * blockDim.x + threadIdx.x;
  if (o >= images * p.out_h * p.out_w) return;
  const int column = o % p.out_w, row = o / p.out_w % p.out_h, image = o / (p.out_w * p.out_h);
  const float* plane = x + (size_t)image * p.h * p.w;
  const int top = first_of(row, p.stride_h, p.padding_h), left = first_of(column, p.stride_w, p.padding_w);
  int best = top * p.w + left;
  for (int i = top; i < end_of(row, p.stride_h, p.padding_h, p.kernel_h, p.h); i++)
    for (int j = left; j < end_of(column, p.stride_w, p.padding_w, p.kernel_w, p.w); j++) {
      const float v = plane[i * p.w + j];
      if (v > plane[best] || v != v) best = i * p.w + j;  // NaN, which is not itself, wins
    }
  y[o] = plane[best];
  indices[o] = best;
}

__global__ void avg_pool_naive(Pool p, int images, const float* __restrict__ x, float* __restrict__ y) {
  const int o = blockIdx.x * blockDim.x + threadIdx.x;
  if (o >= images * p.out_h * p.out_w) return;
  const int column = o % p.out_w, row = o / p.out_w % p.out_h, image = o / (p.out_w * p.out_h);
  const float* plane = x + (size_t)image * p.h * p.w;
  float sum = 0.f;
  for (int i = first_of(row, p.stride_h, p.padding_h); i < end_of(row, p.stride_h, p.padding_h, p.kernel_h, p.h); i++)
    for (int j = first_of(column, p.stride_w, p.padding_w); j < end_of(column, p.stride_w, p.padding_w, p.kernel_w, p.w); j++)
      sum += plane[i * p.w + j];
  y[o] = sum / (p.kernel_h * p.kernel_w);  // padding counts as zeros
}

// A block has blockDim.x × blockDim.y outputs of one image. It fetches all that their windows cover into
// shared memory, padding (with `outside`) included, so the loops below need no bounds.
__device__ __forceinline__ void fetch(const Pool& p, const float* plane, float outside, float* tile, int tile_h, int tile_w) {
  const int top = blockIdx.y * blockDim.y * p.stride_h - p.padding_h, left = blockIdx.x * blockDim.x * p.stride_w - p.padding_w;
  for (int i = threadIdx.y * blockDim.x + threadIdx.x; i < tile_h * tile_w; i += blockDim.x * blockDim.y) {
    const int row = top + i / tile_w, column = left + i % tile_w;
    const bool inside = row >= 0 && row < p.h && column >= 0 && column < p.w;
    tile[i] = inside ? plane[row * p.w + column] : outside;
  }
}
__global__ void avg_pool_tiled(Pool p, int images, const float* __restrict__ x, float* __restrict__ y) {
  extern __shared__ float tile[];
  const int tile_h = (blockDim.y - 1) * p.stride_h + p.kernel_h, tile_w = (blockDim.x - 1) * p.stride_w + p.kernel_w;
  fetch(p, x + (size_t)blockIdx.z * p.h * p.w, 0.f, tile, tile_h, tile_w);
  __syncthreads();
  const int row = blockIdx.y * blockDim.y + threadIdx.y, column = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= p.out_h || column >= p.out_w) return;
  float sum = 0.f;
  for (int i = 0; i < p.kernel_h; i++)
    for (int j = 0; j < p.kernel_w; j++) sum += tile[(threadIdx.y * p.stride_h + i) * tile_w + threadIdx.x * p.stride_w + j];
  y[((size_t)blockIdx.z * p.out_h + row) * p.out_w + column] = sum / (p.kernel_h * p.kernel_w);
}
__global__ void max_pool_tiled(Pool p, int images, const float* __restrict__ x, float* __restrict__ y, long long* __restrict__ indices) {
  extern __shared__ float tile[];
  const int tile_h = (blockDim.y - 1) * p.stride_h + p.kernel_h, tile_w = (blockDim.x - 1) * p.stride_w + p.kernel_w;
  fetch(p, x + (size_t)blockIdx.z * p.h * p.w, 0.f, tile, tile_h, tile_w);
  __syncthreads();
  const int row = blockIdx.y * blockDim.y + threadIdx.y, column = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= p.out_h || column >= p.out_w) return;
  // Where the tile begins in the image; the windows are cut to the image, so padding never wins.
  const int top = blockIdx.y * blockDim.y * p.stride_h - p.padding_h, left = blockIdx.x * blockDim.x * p.stride_w - p.padding_w;
  int best_i = first_of(row, p.stride_h, p.padding_h), best_j = first_of(column, p.stride_w, p.padding_w);
  const int first_j = best_j;
  float best = tile[(best_i - top) * tile_w + best_j - left];
  for (int i = best_i; i < end_of(row, p.stride_h, p.padding_h, p.kernel_h, p.h); i++)
    for (int j = first_j; j < end_of(column, p.stride_w, p.padding_w, p.kernel_w, p.w); j++) {
      const float v = tile[(i - top) * tile_w + j - left];
      if (v > best || v != v) best = v, best_i = i, best_j = j;
    }
  const size_t o = ((size_t)blockIdx.z * p.out_h + row) * p.out_w + column;
  y[o] = best;
  indices[o] = best_i * p.w + best_j;
}

// dx must hold zeros.
__global__ void max_pool_backward_scatter(Pool p, int images, const float* __restrict__ dy, const long long* __restrict__ indices,
                                          float* __restrict__ dx) {
  const int o = blockIdx.x * blockDim.x + threadIdx.x, outputs = p.out_h * p.out_w;
  if (o < images * outputs) atomicAdd(&dx[(size_t)(o / outputs) * p.h * p.w + indices[o]], dy[o]);
}
__global__ void avg_pool_backward_scatter(Pool p, int images, const float* __restrict__ dy, float* __restrict__ dx) {
  const int o = blockIdx.x * blockDim.x + threadIdx.x;
  if (o >= images * p.out_h * p.out_w) return;
  const int column = o % p.out_w, row = o / p.out_w % p.out_h, image = o / (p.out_w * p.out_h);
  const float share = dy[o] / (p.kernel_h * p.kernel_w);
  for (int i = first_of(row, p.stride_h, p.padding_h); i < end_of(row, p.stride_h, p.padding_h, p.kernel_h, p.h); i++)
    for (int j = first_of(column, p.stride_w, p.padding_w); j < end_of(column, p.stride_w, p.padding_w, p.kernel_w, p.w); j++)
      atomicAdd(&dx[((size_t)image * p.h + i) * p.w + j], share);
}

// The windows o that cover entry i satisfy o · stride - padding ≤ i < o · stride - padding + kernel.
__device__ __forceinline__ int first_window(int i, int stride, int padding, int kernel) {
  const int reach = i + padding - kernel;
  return reach < 0 ? 0 : reach / stride + 1;
}
__device__ __forceinline__ int end_window(int i, int stride, int padding, int out) { return min((i + padding) / stride + 1, out); }

__global__ void max_pool_backward_gather(Pool p, int images, const float* __restrict__ dy, const long long* __restrict__ indices,
                                         float* __restrict__ dx) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= images * p.h * p.w) return;
  const int column = at % p.w, row = at / p.w % p.h, image = at / (p.w * p.h);
  float sum = 0.f;
  for (int i = first_window(row, p.stride_h, p.padding_h, p.kernel_h); i < end_window(row, p.stride_h, p.padding_h, p.out_h); i++)
    for (int j = first_window(column, p.stride_w, p.padding_w, p.kernel_w); j < end_window(column, p.stride_w, p.padding_w, p.out_w); j++) {
      const size_t o = ((size_t)image * p.out_h + i) * p.out_w + j;
      if (indices[o] == row * p.w + column) sum += dy[o];
    }
  dx[at] = sum;
}
__global__ void avg_pool_backward_gather(Pool p, int images, const float* __restrict__ dy, float* __restrict__ dx) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= images * p.h * p.w) return;
  const int column = at % p.w, row = at / p.w % p.h, image = at / (p.w * p.h);
  float sum = 0.f;
  for (int i = first_window(row, p.stride_h, p.padding_h, p.kernel_h); i < end_window(row, p.stride_h, p.padding_h, p.out_h); i++)
    for (int j = first_window(column, p.stride_w, p.padding_w, p.kernel_w); j < end_window(column, p.stride_w, p.padding_w, p.out_w); j++)
      sum += dy[((size_t)image * p.out_h + i) * p.out_w + j];
  dx[at] = sum / (p.kernel_h * p.kernel_w);
}

// ---- adaptive pooling --------------------------------------------------------------------------------
// The mean over each rectangle of a grid of out_h × out_w that covers the image; row r of the grid has the
// image's rows ⌊r · h / out_h⌋ … ⌈(r + 1) · h / out_h⌉ - 1, so neighbours may share some.
//   adaptive_avg_pool_naive   one thread for each output
//   adaptive_avg_pool_warp    one warp for each output: rectangles are large, most often the whole image
__device__ __forceinline__ int first_in(int out, int size, int outs) { return out * size / outs; }
__device__ __forceinline__ int end_in(int out, int size, int outs) { return ((out + 1) * size + outs - 1) / outs; }

__global__ void adaptive_avg_pool_naive(int images, int h, int w, int out_h, int out_w, const float* __restrict__ x, float* __restrict__ y) {
  const int o = blockIdx.x * blockDim.x + threadIdx.x;
  if (o >= images * out_h * out_w) return;
  const int column = o % out_w, row = o / out_w % out_h;
  const float* plane = x + (size_t)(o / out_w / out_h) * h * w;
  const int top = first_in(row, h, out_h), bottom = end_in(row, h, out_h);
  const int left = first_in(column, w, out_w), right = end_in(column, w, out_w);
  float sum = 0.f;
  for (int i = top; i < bottom; i++)
    for (int j = left; j < right; j++) sum += plane[i * w + j];
  y[o] = sum / ((bottom - top) * (right - left));
}
__global__ void adaptive_avg_pool_warp(int images, int h, int w, int out_h, int out_w, const float* __restrict__ x, float* __restrict__ y) {
  const int o = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
  if (o >= images * out_h * out_w) return;
  const int column = o % out_w, row = o / out_w % out_h;
  const float* plane = x + (size_t)(o / out_w / out_h) * h * w;
  const int top = first_in(row, h, out_h), rows = end_in(row, h, out_h) - top;
  const int left = first_in(column, w, out_w), columns = end_in(column, w, out_w) - left;
  float sum = 0.f;
  for (int i = lane; i < rows * columns; i += WARP) sum += plane[(top + i / columns) * w + left + i % columns];
  sum = warp_reduce<Add>(sum);
  if (lane == 0) y[o] = sum / (rows * columns);
}

// dx must hold zeros.
__global__ void adaptive_avg_pool_backward_scatter(int images, int h, int w, int out_h, int out_w, const float* __restrict__ dy,
                                                   float* __restrict__ dx) {
  const int o = blockIdx.x * blockDim.x + threadIdx.x;
  if (o >= images * out_h * out_w) return;
  const int column = o % out_w, row = o / out_w % out_h;
  float* plane = dx + (size_t)(o / out_w / out_h) * h * w;
  const int top = first_in(row, h, out_h), bottom = end_in(row, h, out_h);
  const int left = first_in(column, w, out_w), right = end_in(column, w, out_w);
  const float share = dy[o] / ((bottom - top) * (right - left));
  for (int i = top; i < bottom; i++)
    for (int j = left; j < right; j++) atomicAdd(&plane[i * w + j], share);
}
// Entry i of the image lies in the rectangles ⌊i · out / size⌋ … ⌈(i + 1) · out / size⌉ - 1: the same formula.
__global__ void adaptive_avg_pool_backward_gather(int images, int h, int w, int out_h, int out_w, const float* __restrict__ dy,
                                                  float* __restrict__ dx) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= images * h * w) return;
  const int column = at % w, row = at / w % h;
  const float* plane = dy + (size_t)(at / w / h) * out_h * out_w;
  float sum = 0.f;
  for (int i = first_in(row, out_h, h); i < end_in(row, out_h, h); i++) {
    const int rows = end_in(i, h, out_h) - first_in(i, h, out_h);
    for (int j = first_in(column, out_w, w); j < end_in(column, out_w, w); j++)
      sum += plane[i * out_w + j] / (rows * (end_in(j, w, out_w) - first_in(j, w, out_w)));
  }
  dx[at] = sum;
}
