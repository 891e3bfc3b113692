// Normalisation, y = (x - mean) / √(variance + eps) · weight + bias, and its gradients: layer norm, in
// which mean and variance are those of a row of a matrix, batch norm, in which they are a channel's, and
// group norm, in which they are those of a group of channels of one sample. RMS norm leaves the mean out.
//
// Like softmax it is limited by memory; and a variance needs the mean first, so a row is read twice,
// or kept.
//   layer_norm_naive     one thread a row, three passes
//   layer_norm_warp      one warp a row: neighbouring lanes read neighbours, shuffles join
//   layer_norm_kept      one block a row, which stays in shared memory: x is read once
// and for the gradient
//   layer_norm_backward_naive   one thread a row; dweight and dbias by atomics, row after row
//   layer_norm_backward_warp    one warp a row for dx; dweight and dbias as sums of columns
//
// A channel's entries are many, and do not lie in one piece: images × channels × length.
//   batch_norm_naive     one thread a channel, three passes
//   batch_norm_block     one block a channel: neighbours read neighbours, reductions join
//   batch_norm_welford   mean and variance in one pass (Welford, 1962; joined as in Chan, Golub and
//                        LeVeque, 1983): x is read twice, not three times
//   batch_norm_inference_naive   with running statistics: one thread an entry
//   batch_norm_inference_plane   one block a plane: its channel's factor and shift are computed once
// and for the gradient
//   batch_norm_backward_naive    one thread a channel
//   batch_norm_backward_block    one block a channel; no atomics, as nobody else has this channel
//
//   rms_norm_naive, rms_norm_warp, rms_norm_backward_naive, rms_norm_backward_warp   as for layer norm
//   group_norm_naive, group_norm_backward_naive   one thread a group, and for weights' gradients a channel
//   group_norm_block, group_norm_backward_block   one block
//
// Local response normalisation divides by a power of k + alpha · (mean of x² over the channels around).
//   local_response_naive, local_response_backward_naive   one thread an entry reads its neighbours
//   local_response_tiled, local_response_backward_tiled   neighbours overlap: a block works out once what
//                                                         several of its entries add up
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

// ---- batch norm ----------------------------------------------------------------------------------
struct Batch {
  int images, channels, length;
  float momentum, eps;
};

// Where the i-th entry of a channel stands, i counting through image and place.
__device__ __forceinline__ size_t entry(const Batch& p, int channel, int i) {
  return ((size_t)(i / p.length) * p.channels + channel) * p.length + i % p.length;
}

// Writes a channel's statistics; new = (1 - momentum) · running + momentum · this batch's, where there
// are running ones. Their variance divides by one less than the number of entries.
__device__ __forceinline__ void write_statistics(const Batch& p, int channel, float mean, float variance, float scale,
                                                 const float* __restrict__ running_mean, const float* __restrict__ running_var,
                                                 float* __restrict__ mean_of, float* __restrict__ scale_of, float* __restrict__ new_mean,
                                                 float* __restrict__ new_var) {
  mean_of[channel] = mean;
  scale_of[channel] = scale;
  if (!running_mean) return;
  const float count = (float)p.images * p.length;
  new_mean[channel] = (1.f - p.momentum) * running_mean[channel] + p.momentum * mean;
  new_var[channel] = (1.f - p.momentum) * running_var[channel] + p.momentum * (variance * (count / (count - 1.f)));
}

__global__ void batch_norm_naive(Batch p, const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias,
                                 const float* __restrict__ running_mean, const float* __restrict__ running_var, float* __restrict__ y,
                                 float* __restrict__ mean_of, float* __restrict__ scale_of, float* __restrict__ new_mean,
                                 float* __restrict__ new_var) {
  const int channel = blockIdx.x * blockDim.x + threadIdx.x, count = p.images * p.length;
  if (channel >= p.channels) return;
  float mean = 0.f, variance = 0.f;
  for (int i = 0; i < count; i++) mean += x[entry(p, channel, i)];
  mean /= count;
  for (int i = 0; i < count; i++) {
    const float d = x[entry(p, channel, i)] - mean;
    variance += d * d;
  }
  variance /= count;
  const float scale = rsqrtf(variance + p.eps), factor = weight ? scale * weight[channel] : scale, shift = bias ? bias[channel] : 0.f;
  for (int i = 0; i < count; i++) y[entry(p, channel, i)] = (x[entry(p, channel, i)] - mean) * factor + shift;
  write_statistics(p, channel, mean, variance, scale, running_mean, running_var, mean_of, scale_of, new_mean, new_var);
}

__global__ void batch_norm_block(Batch p, const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias,
                                 const float* __restrict__ running_mean, const float* __restrict__ running_var, float* __restrict__ y,
                                 float* __restrict__ mean_of, float* __restrict__ scale_of, float* __restrict__ new_mean,
                                 float* __restrict__ new_var) {
  const int channel = blockIdx.x, count = p.images * p.length;
  float sum = 0.f, squares = 0.f;
  for (int i = threadIdx.x; i < count; i += blockDim.x) sum += x[entry(p, channel, i)];
  const float mean = block_reduce<Add>(sum) / count;
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    const float d = x[entry(p, channel, i)] - mean;
    squares += d * d;
  }
  const float variance = block_reduce<Add>(squares) / count, scale = rsqrtf(variance + p.eps);
  const float factor = weight ? scale * weight[channel] : scale, shift = bias ? bias[channel] : 0.f;
  for (int i = threadIdx.x; i < count; i += blockDim.x) y[entry(p, channel, i)] = (x[entry(p, channel, i)] - mean) * factor + shift;
  if (threadIdx.x == 0) write_statistics(p, channel, mean, variance, scale, running_mean, running_var, mean_of, scale_of, new_mean, new_var);
}

// Of some entries: how many, their mean, and the sum of the squared differences to it.
struct Moments {
  float count, mean, squares;
  __device__ __forceinline__ void add(float v) {
    const float d = v - mean;
    count += 1.f;
    mean += d / count;
    squares += d * (v - mean);
  }
  __device__ __forceinline__ void join(float other_count, float other_mean, float other_squares) {
    if (other_count == 0.f) return;
    const float d = other_mean - mean, share = other_count / (count + other_count);
    squares += other_squares + d * d * count * share;
    mean += d * share;
    count += other_count;
  }
};

__global__ void batch_norm_welford(Batch p, const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias,
                                   const float* __restrict__ running_mean, const float* __restrict__ running_var, float* __restrict__ y,
                                   float* __restrict__ mean_of, float* __restrict__ scale_of, float* __restrict__ new_mean,
                                   float* __restrict__ new_var) {
  __shared__ float counts[WARP], means[WARP], squares[WARP];  // of each warp; then [0] of all
  const int channel = blockIdx.x, count = p.images * p.length, lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  Moments m = {0.f, 0.f, 0.f};
  for (int i = threadIdx.x; i < count; i += blockDim.x) m.add(x[entry(p, channel, i)]);
  for (int bit = WARP / 2; bit > 0; bit /= 2)
    m.join(__shfl_down_sync(ALL_LANES, m.count, bit), __shfl_down_sync(ALL_LANES, m.mean, bit), __shfl_down_sync(ALL_LANES, m.squares, bit));
  if (lane == 0) counts[warp] = m.count, means[warp] = m.mean, squares[warp] = m.squares;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < blockDim.x / WARP; i++) m.join(counts[i], means[i], squares[i]);
    means[0] = m.mean, squares[0] = m.squares;
  }
  __syncthreads();  // all use the same mean, to the last bit
  const float mean = means[0], variance = squares[0] / count, scale = rsqrtf(variance + p.eps);
  const float factor = weight ? scale * weight[channel] : scale, shift = bias ? bias[channel] : 0.f;
  for (int i = threadIdx.x; i < count; i += blockDim.x) y[entry(p, channel, i)] = (x[entry(p, channel, i)] - mean) * factor + shift;
  if (threadIdx.x == 0) write_statistics(p, channel, mean, variance, scale, running_mean, running_var, mean_of, scale_of, new_mean, new_var);
}

__global__ void batch_norm_inference_naive(Batch p, const float* __restrict__ x, const float* __restrict__ mean, const float* __restrict__ var,
                                           const float* __restrict__ weight, const float* __restrict__ bias, float* __restrict__ y) {
  const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= (size_t)p.images * p.channels * p.length) return;
  const int channel = i / p.length % p.channels;
  const float scale = rsqrtf(var[channel] + p.eps);
  y[i] = (x[i] - mean[channel]) * (weight ? scale * weight[channel] : scale) + (bias ? bias[channel] : 0.f);
}
__global__ void batch_norm_inference_plane(Batch p, const float* __restrict__ x, const float* __restrict__ mean, const float* __restrict__ var,
                                           const float* __restrict__ weight, const float* __restrict__ bias, float* __restrict__ y) {
  const int channel = blockIdx.x % p.channels;
  const float scale = rsqrtf(var[channel] + p.eps), centre = mean[channel];
  const float factor = weight ? scale * weight[channel] : scale, shift = bias ? bias[channel] : 0.f;
  const size_t start = (size_t)blockIdx.x * p.length;
  for (int i = threadIdx.x; i < p.length; i += blockDim.x) y[start + i] = (x[start + i] - centre) * factor + shift;
}

// With n = (x - mean) · scale: dweight = Σ dy n, dbias = Σ dy, and dx = scale · weight · (dy - mean(dy) -
// n · mean(dy n)). With running statistics (not `training`) they are constants: dx = scale · weight · dy.
__global__ void batch_norm_backward_naive(Batch p, int training, const float* __restrict__ dy, const float* __restrict__ x,
                                          const float* __restrict__ weight, const float* __restrict__ mean_of,
                                          const float* __restrict__ scale_of, float* __restrict__ dx, float* __restrict__ dweight,
                                          float* __restrict__ dbias) {
  const int channel = blockIdx.x * blockDim.x + threadIdx.x, count = p.images * p.length;
  if (channel >= p.channels) return;
  const float mean = mean_of[channel], scale = scale_of[channel], factor = weight ? scale * weight[channel] : scale;
  float sum = 0.f, product = 0.f;
  for (int i = 0; i < count; i++) {
    const size_t at = entry(p, channel, i);
    sum += dy[at];
    product += dy[at] * (x[at] - mean) * scale;
  }
  dweight[channel] = product;
  dbias[channel] = sum;
  for (int i = 0; i < count; i++) {
    const size_t at = entry(p, channel, i);
    dx[at] = factor * (training ? dy[at] - sum / count - (x[at] - mean) * scale * (product / count) : dy[at]);
  }
}
__global__ void batch_norm_backward_block(Batch p, int training, const float* __restrict__ dy, const float* __restrict__ x,
                                          const float* __restrict__ weight, const float* __restrict__ mean_of,
                                          const float* __restrict__ scale_of, float* __restrict__ dx, float* __restrict__ dweight,
                                          float* __restrict__ dbias) {
  const int channel = blockIdx.x, count = p.images * p.length;
  const float mean = mean_of[channel], scale = scale_of[channel], factor = weight ? scale * weight[channel] : scale;
  float sum = 0.f, product = 0.f;
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    const size_t at = entry(p, channel, i);
    sum += dy[at];
    product += dy[at] * (x[at] - mean) * scale;
  }
  sum = block_reduce<Add>(sum);
  product = block_reduce<Add>(product);
  if (threadIdx.x == 0) dweight[channel] = product, dbias[channel] = sum;
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    const size_t at = entry(p, channel, i);
    dx[at] = factor * (training ? dy[at] - sum / count - (x[at] - mean) * scale * (product / count) : dy[at]);
  }
}

// ---- RMS norm: y = x / √(mean of x² + eps) · weight --------------------------------------------------
__global__ void rms_norm_naive(int rows, int columns, float eps, const float* __restrict__ x, const float* __restrict__ weight,
                               float* __restrict__ y, float* __restrict__ scale_of) {
  const int row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  x += (size_t)row * columns, y += (size_t)row * columns;
  float squares = 0.f;
  for (int i = 0; i < columns; i++) squares += x[i] * x[i];
  const float scale = rsqrtf(squares / columns + eps);
  for (int i = 0; i < columns; i++) y[i] = x[i] * scale * (weight ? weight[i] : 1.f);
  scale_of[row] = scale;
}
__global__ void rms_norm_warp(int rows, int columns, float eps, const float* __restrict__ x, const float* __restrict__ weight,
                              float* __restrict__ y, float* __restrict__ scale_of) {
  const int row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
  if (row >= rows) return;
  x += (size_t)row * columns, y += (size_t)row * columns;
  float squares = 0.f;
  for (int i = lane; i < columns; i += WARP) squares += x[i] * x[i];
  const float scale = rsqrtf(warp_reduce<Add>(squares) / columns + eps);
  for (int i = lane; i < columns; i += WARP) y[i] = x[i] * scale * (weight ? weight[i] : 1.f);
  if (lane == 0) scale_of[row] = scale;
}

// With n = x · scale and g = dy · weight: dx = scale · (g - n · mean(g n)), dweight = Σ dy n.
__global__ void rms_norm_backward_naive(int rows, int columns, const float* __restrict__ dy, const float* __restrict__ x,
                                        const float* __restrict__ weight, const float* __restrict__ scale_of, float* __restrict__ dx,
                                        float* __restrict__ dweight) {
  const int row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  dy += (size_t)row * columns, x += (size_t)row * columns, dx += (size_t)row * columns;
  const float scale = scale_of[row];
  float product = 0.f;
  for (int i = 0; i < columns; i++) product += dy[i] * (weight ? weight[i] : 1.f) * x[i] * scale;
  for (int i = 0; i < columns; i++) {
    const float n = x[i] * scale;
    dx[i] = scale * (dy[i] * (weight ? weight[i] : 1.f) - n * (product / columns));
    atomicAdd(&dweight[i], dy[i] * n);
  }
}
__global__ void rms_norm_backward_warp(int rows, int columns, const float* __restrict__ dy, const float* __restrict__ x,
                                       const float* __restrict__ weight, const float* __restrict__ scale_of, float* __restrict__ dx) {
  const int row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
  if (row >= rows) return;
  dy += (size_t)row * columns, x += (size_t)row * columns, dx += (size_t)row * columns;
  const float scale = scale_of[row];
  float product = 0.f;
  for (int i = lane; i < columns; i += WARP) product += dy[i] * (weight ? weight[i] : 1.f) * x[i] * scale;
  product = warp_reduce<Add>(product) / columns;
  for (int i = lane; i < columns; i += WARP) dx[i] = scale * (dy[i] * (weight ? weight[i] : 1.f) - x[i] * scale * product);
}
// dweight: 32 columns a block, of which each of eight warps takes every eighth row.
__global__ void rms_norm_backward_columns(int rows, int columns, const float* __restrict__ dy, const float* __restrict__ x,
                                          const float* __restrict__ scale_of, float* __restrict__ dweight) {
  __shared__ float partial[8][33];
  const int column = blockIdx.x * 32 + threadIdx.x;
  float sum = 0.f;
  if (column < columns)
    for (int row = threadIdx.y; row < rows; row += 8) sum += dy[(size_t)row * columns + column] * x[(size_t)row * columns + column] * scale_of[row];
  partial[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0 && column < columns) {
    for (int i = 1; i < 8; i++) sum += partial[i][threadIdx.x];
    dweight[column] = sum;
  }
}

// ---- group norm ------------------------------------------------------------------------------------
// The channels / groups neighbouring channels of a group lie in one piece, a row of size() numbers.
struct Groups {
  int images, channels, length, groups;
  __device__ __forceinline__ int size() const { return channels / groups * length; }
  // The channel of the i-th number of a row.
  __device__ __forceinline__ int channel(int row, int i) const { return row % groups * (channels / groups) + i / length; }
};

__global__ void group_norm_naive(Groups p, float eps, const float* __restrict__ x, const float* __restrict__ weight,
                                 const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ mean_of,
                                 float* __restrict__ scale_of) {
  const int row = blockIdx.x * blockDim.x + threadIdx.x, size = p.size();
  if (row >= p.images * p.groups) return;
  x += (size_t)row * size, y += (size_t)row * size;
  float mean = 0.f, variance = 0.f;
  for (int i = 0; i < size; i++) mean += x[i];
  mean /= size;
  for (int i = 0; i < size; i++) variance += (x[i] - mean) * (x[i] - mean);
  const float scale = rsqrtf(variance / size + eps);
  for (int i = 0; i < size; i++) {
    const int channel = p.channel(row, i);
    y[i] = (x[i] - mean) * scale * (weight ? weight[channel] : 1.f) + (bias ? bias[channel] : 0.f);
  }
  mean_of[row] = mean;
  scale_of[row] = scale;
}
__global__ void group_norm_block(Groups p, float eps, const float* __restrict__ x, const float* __restrict__ weight,
                                 const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ mean_of,
                                 float* __restrict__ scale_of) {
  const int row = blockIdx.x, size = p.size();
  x += (size_t)row * size, y += (size_t)row * size;
  float sum = 0.f, squares = 0.f;
  for (int i = threadIdx.x; i < size; i += blockDim.x) sum += x[i];
  const float mean = block_reduce<Add>(sum) / size;
  for (int i = threadIdx.x; i < size; i += blockDim.x) squares += (x[i] - mean) * (x[i] - mean);
  const float scale = rsqrtf(block_reduce<Add>(squares) / size + eps);
  for (int i = threadIdx.x; i < size; i += blockDim.x) {
    const int channel = p.channel(row, i);
    y[i] = (x[i] - mean) * scale * (weight ? weight[channel] : 1.f) + (bias ? bias[channel] : 0.f);
  }
  if (threadIdx.x == 0) mean_of[row] = mean, scale_of[row] = scale;
}

// dx, as for layer norm.
__global__ void group_norm_backward_naive(Groups p, const float* __restrict__ dy, const float* __restrict__ x,
                                          const float* __restrict__ weight, const float* __restrict__ mean_of,
                                          const float* __restrict__ scale_of, float* __restrict__ dx) {
  const int row = blockIdx.x * blockDim.x + threadIdx.x, size = p.size();
  if (row >= p.images * p.groups) return;
  dy += (size_t)row * size, x += (size_t)row * size, dx += (size_t)row * size;
  const float mean = mean_of[row], scale = scale_of[row];
  float sum = 0.f, product = 0.f;
  for (int i = 0; i < size; i++) {
    const float g = dy[i] * (weight ? weight[p.channel(row, i)] : 1.f);
    sum += g;
    product += g * (x[i] - mean) * scale;
  }
  for (int i = 0; i < size; i++) {
    const float g = dy[i] * (weight ? weight[p.channel(row, i)] : 1.f);
    dx[i] = scale * (g - sum / size - (x[i] - mean) * scale * (product / size));
  }
}
__global__ void group_norm_backward_block(Groups p, const float* __restrict__ dy, const float* __restrict__ x,
                                          const float* __restrict__ weight, const float* __restrict__ mean_of,
                                          const float* __restrict__ scale_of, float* __restrict__ dx) {
  const int row = blockIdx.x, size = p.size();
  dy += (size_t)row * size, x += (size_t)row * size, dx += (size_t)row * size;
  const float mean = mean_of[row], scale = scale_of[row];
  float sum = 0.f, product = 0.f;
  for (int i = threadIdx.x; i < size; i += blockDim.x) {
    const float g = dy[i] * (weight ? weight[p.channel(row, i)] : 1.f);
    sum += g;
    product += g * (x[i] - mean) * scale;
  }
  sum = block_reduce<Add>(sum) / size;
  product = block_reduce<Add>(product) / size;
  for (int i = threadIdx.x; i < size; i += blockDim.x) {
    const float g = dy[i] * (weight ? weight[p.channel(row, i)] : 1.f);
    dx[i] = scale * (g - sum - (x[i] - mean) * scale * product);
  }
}
// dweight and dbias of a channel: sums over images and length, each with the statistics of its group.
__global__ void group_norm_backward_channels_naive(Groups p, const float* __restrict__ dy, const float* __restrict__ x,
                                                   const float* __restrict__ mean_of, const float* __restrict__ scale_of,
                                                   float* __restrict__ dweight, float* __restrict__ dbias) {
  const int channel = blockIdx.x * blockDim.x + threadIdx.x, group = channel / (p.channels / p.groups);
  if (channel >= p.channels) return;
  float sum = 0.f, product = 0.f;
  for (int image = 0; image < p.images; image++) {
    const size_t start = ((size_t)image * p.channels + channel) * p.length;
    const float mean = mean_of[image * p.groups + group], scale = scale_of[image * p.groups + group];
    for (int i = 0; i < p.length; i++) {
      sum += dy[start + i];
      product += dy[start + i] * (x[start + i] - mean) * scale;
    }
  }
  dweight[channel] = product;
  dbias[channel] = sum;
}
__global__ void group_norm_backward_channels_block(Groups p, const float* __restrict__ dy, const float* __restrict__ x,
                                                   const float* __restrict__ mean_of, const float* __restrict__ scale_of,
                                                   float* __restrict__ dweight, float* __restrict__ dbias) {
  const int channel = blockIdx.x, group = channel / (p.channels / p.groups);
  float sum = 0.f, product = 0.f;
  for (int i = threadIdx.x; i < p.images * p.length; i += blockDim.x) {
    const int image = i / p.length, row = image * p.groups + group;
    const size_t at = ((size_t)image * p.channels + channel) * p.length + i % p.length;
    sum += dy[at];
    product += dy[at] * (x[at] - mean_of[row]) * scale_of[row];
  }
  sum = block_reduce<Add>(sum);
  product = block_reduce<Add>(product);
  if (threadIdx.x == 0) dweight[channel] = product, dbias[channel] = sum;
}

// ---- local response normalisation --------------------------------------------------------------------
// y = x / d^beta with d = k + alpha / size · Σ x², the sum over channels c - size / 2 … c - size / 2 + size - 1.
struct Response {
  int images, channels, length, size;
  float alpha, beta, k;
};

__global__ void local_response_naive(Response p, const float* __restrict__ x, float* __restrict__ y, float* __restrict__ d_of) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= p.images * p.channels * p.length) return;
  const int channel = at / p.length % p.channels, first = channel - p.size / 2;
  float squares = 0.f;
  for (int c = max(first, 0); c < min(first + p.size, p.channels); c++) {
    const float v = x[at + (c - channel) * p.length];
    squares += v * v;
  }
  const float d = p.k + p.alpha / p.size * squares;
  y[at] = x[at] * powf(d, -p.beta);
  d_of[at] = d;
}

// dx = dy / d^beta - x · (2 alpha beta / size) · Σ dy x / d^(beta + 1) over the channels that look at this
// one, c - (size - 1) / 2 … c + size / 2.
__device__ __forceinline__ float response_term(const Response& p, float dy, float x, float d) { return dy * x * powf(d, -p.beta) / d; }

__global__ void local_response_backward_naive(Response p, const float* __restrict__ dy, const float* __restrict__ x,
                                              const float* __restrict__ d_of, float* __restrict__ dx) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= p.images * p.channels * p.length) return;
  const int channel = at / p.length % p.channels, first = channel - (p.size - 1) / 2;
  float sum = 0.f;
  for (int c = max(first, 0); c < min(first + p.size, p.channels); c++) {
    const int other = at + (c - channel) * p.length;
    sum += response_term(p, dy[other], x[other], d_of[other]);
  }
  dx[at] = dy[at] * powf(d_of[at], -p.beta) - x[at] * (2.f * p.alpha * p.beta / p.size * sum);
}

// A block has blockDim.x places of blockDim.y channels of one image: `at` is this thread's entry. The sums need
// blockDim.y + size - 1 channels, from `before` channels in front on; term(i) is what entry i of the array
// gives, 0 beyond the channels that exist. Each is worked out once and waits in shared memory.
template <class Term>
__device__ __forceinline__ float neighbour_sum(const Response& p, int image, int place, int channel0, int before, Term term) {
  extern __shared__ float tile[];  // (blockDim.y + size - 1) × blockDim.x
  for (int row = threadIdx.y; row < blockDim.y + p.size - 1; row += blockDim.y) {
    const int channel = channel0 - before + row;
    const bool exists = channel >= 0 && channel < p.channels && place < p.length;
    tile[row * blockDim.x + threadIdx.x] = exists ? term((image * p.channels + channel) * p.length + place) : 0.f;
  }
  __syncthreads();
  float sum = 0.f;
  for (int i = 0; i < p.size; i++) sum += tile[(threadIdx.y + i) * blockDim.x + threadIdx.x];
  return sum;
}
__global__ void local_response_tiled(Response p, const float* __restrict__ x, float* __restrict__ y, float* __restrict__ d_of) {
  const int tiles = (p.length + blockDim.x - 1) / blockDim.x, image = blockIdx.x / tiles;
  const int place = blockIdx.x % tiles * blockDim.x + threadIdx.x, channel = blockIdx.y * blockDim.y + threadIdx.y;
  const float squares = neighbour_sum(p, image, place, blockIdx.y * blockDim.y, p.size / 2, [&](int i) { return x[i] * x[i]; });
  if (channel >= p.channels || place >= p.length) return;
  const int at = (image * p.channels + channel) * p.length + place;
  const float d = p.k + p.alpha / p.size * squares;
  y[at] = x[at] * powf(d, -p.beta);
  d_of[at] = d;
}
__global__ void local_response_backward_tiled(Response p, const float* __restrict__ dy, const float* __restrict__ x,
                                              const float* __restrict__ d_of, float* __restrict__ dx) {
  const int tiles = (p.length + blockDim.x - 1) / blockDim.x, image = blockIdx.x / tiles;
  const int place = blockIdx.x % tiles * blockDim.x + threadIdx.x, channel = blockIdx.y * blockDim.y + threadIdx.y;
  const float sum = neighbour_sum(p, image, place, blockIdx.y * blockDim.y, (p.size - 1) / 2,
                                  [&](int i) { return response_term(p, dy[i], x[i], d_of[i]); });
  if (channel >= p.channels || place >= p.length) return;
  const int at = (image * p.channels + channel) * p.length + place;
  dx[at] = dy[at] * powf(d_of[at], -p.beta) - x[at] * (2.f * p.alpha * p.beta / p.size * sum);
}
