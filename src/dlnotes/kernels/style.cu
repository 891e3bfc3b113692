// Gram matrices, G = F Fᵀ · factor, of samples F (channels × length), and the gradient (dy + dyᵀ) F · factor.
//
// A matrix product, and of a special kind: the result is symmetric, and small against the sums' length
// (64 channels of a picture have 64² results, each a sum over 100 000 pixels).
//   gram_naive       one thread for each entry, all operands from global memory
//   gram_tiled       tiles in shared memory: a number is used TILE times
//   gram_symmetric   G = Gᵀ: only the tiles on and below the diagonal, each written twice
//   gram_split       so few tiles leave most of the card idle: several blocks share the sums of a tile and
//                    join theirs by atomics
// and for the gradient
//   gram_backward_naive, gram_backward_tiled   likewise
#include "common.cuh"

__global__ void gram_naive(int samples, int channels, int length, float factor, const float* __restrict__ F, float* __restrict__ G) {
  const size_t at = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= (size_t)samples * channels * channels) return;
  const float* a = F + at / channels * length;  // the row of (sample, channel)
  const float* b = F + (at / channels / channels * channels + at % channels) * length;
  float sum = 0.f;
  for (int i = 0; i < length; i++) sum += a[i] * b[i];
  G[at] = factor * sum;
}

// The sum over entries first … end - 1 of rows row0 + ty and column0 + tx of one sample.
template <int TILE>
__device__ __forceinline__ float tile_sum(int channels, int length, const float* __restrict__ F, int row0, int column0, int first, int end) {
  __shared__ float A[TILE][TILE + 1];
  __shared__ float B[TILE][TILE + 1];
  const int tx = threadIdx.x, ty = threadIdx.y;
  float sum = 0.f;
  for (int i0 = first; i0 < end; i0 += TILE) {
    const bool inside = i0 + tx < end;
    A[ty][tx] = inside && row0 + ty < channels ? F[(size_t)(row0 + ty) * length + i0 + tx] : 0.f;
    B[ty][tx] = inside && column0 + ty < channels ? F[(size_t)(column0 + ty) * length + i0 + tx] : 0.f;
    __syncthreads();  // the tiles are complete
#pragma unroll
    for (int i = 0; i < TILE; i++) sum += A[ty][i] * B[tx][i];
    __syncthreads();  // everyone has used them
  }
  return sum;
}

template <int TILE>
__global__ void gram_tiled(int channels, int length, float factor, const float* __restrict__ F, float* __restrict__ G) {
  const int tiles = (channels + TILE - 1) / TILE, sample = blockIdx.x / (tiles * tiles), tile = blockIdx.x % (tiles * tiles);
  const int row0 = tile / tiles * TILE, column0 = tile % tiles * TILE, row = row0 + threadIdx.y, column = column0 + threadIdx.x;
  const float sum = tile_sum<TILE>(channels, length, F + (size_t)sample * channels * length, row0, column0, 0, length);
  if (row < channels && column < channels) G[((size_t)sample * channels + row) * channels + column] = factor * sum;
}

// Tile number `tile` of those on and below the diagonal, counted row by row: 0 | 1 2 | 3 4 5 | …
struct Lower {
  int row, column;
  __device__ __forceinline__ Lower(int tile) : row(0) {
    while ((row + 1) * (row + 2) / 2 <= tile) row++;
    column = tile - row * (row + 1) / 2;
  }
};
template <int TILE>
__global__ void gram_symmetric(int channels, int length, float factor, const float* __restrict__ F, float* __restrict__ G) {
  const int tiles = (channels + TILE - 1) / TILE, lower = tiles * (tiles + 1) / 2, sample = blockIdx.x / lower;
  const Lower tile(blockIdx.x % lower);
  const int row = tile.row * TILE + threadIdx.y, column = tile.column * TILE + threadIdx.x;
  const float sum =
      factor * tile_sum<TILE>(channels, length, F + (size_t)sample * channels * length, tile.row * TILE, tile.column * TILE, 0, length);
  if (row >= channels || column >= channels) return;
  G += (size_t)sample * channels * channels;
  G[(size_t)row * channels + column] = sum;
  if (tile.row != tile.column) G[(size_t)column * channels + row] = sum;  // on the diagonal another thread has it
}

// blockIdx.y: which piece of the sums. G must hold zeros.
template <int TILE>
__global__ void gram_split(int channels, int length, int piece, float factor, const float* __restrict__ F, float* __restrict__ G) {
  const int tiles = (channels + TILE - 1) / TILE, lower = tiles * (tiles + 1) / 2, sample = blockIdx.x / lower;
  const Lower tile(blockIdx.x % lower);
  const int row = tile.row * TILE + threadIdx.y, column = tile.column * TILE + threadIdx.x, first = blockIdx.y * piece;
  const float sum = factor * tile_sum<TILE>(channels, length, F + (size_t)sample * channels * length, tile.row * TILE,
                                            tile.column * TILE, first, min(first + piece, length));
  if (row >= channels || column >= channels) return;
  G += (size_t)sample * channels * channels;
  atomicAdd(&G[(size_t)row * channels + column], sum);
  if (tile.row != tile.column) atomicAdd(&G[(size_t)column * channels + row], sum);
}

__global__ void gram_backward_naive(int samples, int channels, int length, float factor, const float* __restrict__ dy,
                                    const float* __restrict__ F, float* __restrict__ dF) {
  const size_t at = (size_t)blockIdx.x * blockDim.x + threadIdx.x, row = at / length;
  if (row >= (size_t)samples * channels) return;
  const size_t first = row / channels * channels;  // the sample's first row
  const int channel = row % channels;
  float sum = 0.f;
  for (int other = 0; other < channels; other++)
    sum += (dy[row * channels + other] + dy[(first + other) * channels + channel]) * F[(first + other) * length + at % length];
  dF[at] = factor * sum;
}

template <int TILE>
__global__ void gram_backward_tiled(int channels, int length, float factor, const float* __restrict__ dy, const float* __restrict__ F,
                                    float* __restrict__ dF) {
  __shared__ float A[TILE][TILE + 1];
  __shared__ float B[TILE][TILE + 1];
  const int down = (channels + TILE - 1) / TILE, across = (length + TILE - 1) / TILE, sample = blockIdx.x / (down * across);
  const int tx = threadIdx.x, ty = threadIdx.y, tile = blockIdx.x % (down * across);
  const int row = tile / across * TILE + ty, column = tile % across * TILE + tx;
  dy += (size_t)sample * channels * channels, F += (size_t)sample * channels * length, dF += (size_t)sample * channels * length;
  float sum = 0.f;
  for (int k0 = 0; k0 < channels; k0 += TILE) {
    const int other = k0 + tx;
    A[ty][tx] = row < channels && other < channels ? dy[(size_t)row * channels + other] + dy[(size_t)other * channels + row] : 0.f;
    B[ty][tx] = k0 + ty < channels && column < length ? F[(size_t)(k0 + ty) * length + column] : 0.f;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < TILE; i++) sum += A[ty][i] * B[i][tx];
    __syncthreads();
  }
  if (row < channels && column < length) dF[(size_t)row * length + column] = factor * sum;
}
