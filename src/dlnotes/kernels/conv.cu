// Convolution of images x (n, c_in, h, w) with kernels (c_out, c_in, kernel_h, kernel_w), and both gradients.
// Stride, zero padding, dilation and groups are any: a group's output channels see the group's input
// channels only, and weight is (c_out, c_in / groups, kernel_h, kernel_w).
//
//   conv_direct        one thread for each output: the formula, every operand from global memory
//   conv_implicit      a matrix product, weight (c_out × c_in·kernel) times columns (c_in·kernel × n·out),
//                      tiled in shared memory. The columns are never stored: their entries are looked up
//                      in x as the tiles are filled (Chetlur et al., 2014).
//   conv_mma           the same product on tensor cores, of bfloat16; the next entries are looked up while the
//                      tiles that are there are multiplied (sm_80)
// and the first two for the gradients dx and dweight, which are matrix products of the same sizes.

#include "common.cuh"
#include "tensor_tiles.cuh"

struct Conv {
  int n, c_in, h, w, c_out, out_h, out_w, kernel_h, kernel_w;
  int stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w, groups;
};

// x at (image, channel, row, column); what lies in the padding is zero.
__device__ __forceinline__ float pixel(const Conv& p, const float* __restrict__ x, int image, int channel, int row, int column) {
  if (row < 0 || row >= p.h || column < 0 || column >= p.w) return 0.f;
  return x[(((size_t)image * p.c_in + channel) * p.h + row) * p.w + column];
}

// An index into (c, kernel_h, kernel_w) or (n, out_h, out_w) taken apart.
struct Three {
  int a, row, column;
  __device__ __forceinline__ Three(int i, int rows, int columns) : a(i / (rows * columns)), row(i / columns % rows), column(i % columns) {}
};

// The entry of the columns at (tap, position): tap = (channel, i, j), position = (image, row, column);
// channel 0 is `first` of x.
__device__ __forceinline__ float column_entry(const Conv& p, const float* __restrict__ x, int first, int tap, int position) {
  const Three t(tap, p.kernel_h, p.kernel_w), o(position, p.out_h, p.out_w);
  return pixel(p, x, o.a, first + t.a, o.row * p.stride_h - p.padding_h + t.row * p.dilation_h,
               o.column * p.stride_w - p.padding_w + t.column * p.dilation_w);
}
// dy seen from the input: what the output that input (row, column) reached through tap (i, j) got, or zero.
__device__ __forceinline__ float upstream_entry(const Conv& p, const float* __restrict__ dy, int image, int channel, int row, int column,
                                                int i, int j) {
  const int down = row + p.padding_h - i * p.dilation_h, right = column + p.padding_w - j * p.dilation_w;
  if (down < 0 || right < 0 || down % p.stride_h || right % p.stride_w) return 0.f;
  const int out_row = down / p.stride_h, out_column = right / p.stride_w;
  if (out_row >= p.out_h || out_column >= p.out_w) return 0.f;
  return dy[(((size_t)image * p.c_out + channel) * p.out_h + out_row) * p.out_w + out_column];
}

// ---- direct ------------------------------------------------------------------------------------
__global__ void conv_direct(Conv p, const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias,
                            float* __restrict__ y) {
  const int o = blockIdx.x * blockDim.x + threadIdx.x;
  if (o >= p.n * p.c_out * p.out_h * p.out_w) return;
  const Three at(o, p.out_h, p.out_w);
  const int image = at.a / p.c_out, out = at.a % p.c_out, channels = p.c_in / p.groups;
  const int first = out / (p.c_out / p.groups) * channels;  // the first input channel of the group
  float sum = bias ? bias[out] : 0.f;
  for (int channel = 0; channel < channels; channel++)
    for (int i = 0; i < p.kernel_h; i++)
      for (int j = 0; j < p.kernel_w; j++)
        sum += weight[((out * channels + channel) * p.kernel_h + i) * p.kernel_w + j] *
               pixel(p, x, image, first + channel, at.row * p.stride_h - p.padding_h + i * p.dilation_h,
                     at.column * p.stride_w - p.padding_w + j * p.dilation_w);
  y[o] = sum;
}

// As transposed convolution this gives a layer's output, and that has a bias.
__global__ void conv_backward_input_direct(Conv p, const float* __restrict__ dy, const float* __restrict__ weight,
                                           const float* __restrict__ bias, float* __restrict__ dx) {
  const int index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= p.n * p.c_in * p.h * p.w) return;
  const Three at(index, p.h, p.w);
  const int image = at.a / p.c_in, channel = at.a % p.c_in, channels = p.c_in / p.groups, outs = p.c_out / p.groups;
  const int first = channel / channels * outs;  // the first output channel of the group
  float sum = bias ? bias[channel] : 0.f;
  for (int out = first; out < first + outs; out++)
    for (int i = 0; i < p.kernel_h; i++)
      for (int j = 0; j < p.kernel_w; j++)
        sum += weight[((out * channels + channel % channels) * p.kernel_h + i) * p.kernel_w + j] *
               upstream_entry(p, dy, image, out, at.row, at.column, i, j);
  dx[index] = sum;
}

__global__ void conv_backward_weight_direct(Conv p, const float* __restrict__ dy, const float* __restrict__ x, float* __restrict__ dweight) {
  const int index = blockIdx.x * blockDim.x + threadIdx.x, channels = p.c_in / p.groups, taps = channels * p.kernel_h * p.kernel_w;
  if (index >= p.c_out * taps) return;
  const int out = index / taps, tap = index % taps, outputs = p.out_h * p.out_w, first = out / (p.c_out / p.groups) * channels;
  float sum = 0.f;
  for (int position = 0; position < p.n * outputs; position++)
    sum += dy[((size_t)(position / outputs) * p.c_out + out) * outputs + position % outputs] * column_entry(p, x, first, tap, position);
  dweight[index] = sum;
}

// ---- implicit matrix products --------------------------------------------------------------------
// The tiled product of linear.cu, with functions in place of the arrays A and B; a product for each group,
// blockIdx.z.
template <int TILE, class A, class B>
__device__ __forceinline__ float tile_product(int m, int n, int k, A a, B b) {
  __shared__ float As[TILE][TILE + 1];
  __shared__ float Bs[TILE][TILE + 1];
  const int tx = threadIdx.x, ty = threadIdx.y, row = blockIdx.y * TILE + ty, column = blockIdx.x * TILE + tx;
  float sum = 0.f;
  for (int k0 = 0; k0 < k; k0 += TILE) {
    As[ty][tx] = row < m && k0 + tx < k ? a(row, k0 + tx) : 0.f;
    Bs[ty][tx] = k0 + ty < k && column < n ? b(k0 + ty, column) : 0.f;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < TILE; i++) sum += As[ty][i] * Bs[i][tx];
    __syncthreads();
  }
  return sum;
}

// y = weight · columns: neighbouring threads have neighbouring positions.
template <int TILE>
__global__ void conv_implicit(Conv p, const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias,
                              float* __restrict__ y) {
  const int channels = p.c_in / p.groups, outs = p.c_out / p.groups, taps = channels * p.kernel_h * p.kernel_w;
  const int outputs = p.out_h * p.out_w, first_out = blockIdx.z * outs, first = blockIdx.z * channels;
  const float sum = tile_product<TILE>(
      outs, p.n * outputs, taps, [&](int out, int tap) { return weight[(size_t)(first_out + out) * taps + tap]; },
      [&](int tap, int position) { return column_entry(p, x, first, tap, position); });
  const int row = blockIdx.y * TILE + threadIdx.y, out = first_out + row, position = blockIdx.x * TILE + threadIdx.x;
  if (row < outs && position < p.n * outputs)
    y[((size_t)(position / outputs) * p.c_out + out) * outputs + position % outputs] = sum + (bias ? bias[out] : 0.f);
}

// The same on tensor cores. The block computes BM output channels × BN positions, each warp WM × WN of them,
// with two tiles of each operand. Each thread has one position, whose taps it looks up two to a register while
// the tiles before are multiplied. Tiles of weight are lines of taps, and so are those of the columns.
template <int BM, int BN, int BK, int WM, int WN>
__global__ void __launch_bounds__(BN)
conv_mma(Conv p, const nv_bfloat16* __restrict__ x, const nv_bfloat16* __restrict__ weight, const float* __restrict__ bias,
         float* __restrict__ y) {
  static_assert(HAS_SM_80 || BM < 0, "conv_mma needs sm_80 or later: mma of bfloat16 and cp.async");
  static_assert(BM / WM * (BN / WN) * 32 == BN, "a thread for each position");
  __shared__ __align__(128) nv_bfloat16 weights[2][BM * BK];
  __shared__ __align__(128) nv_bfloat16 columns[2][BN * BK];
  const int channels = p.c_in / p.groups, outs = p.c_out / p.groups, taps = channels * p.kernel_h * p.kernel_w;
  const int outputs = p.out_h * p.out_w, positions = p.n * outputs, first_out = blockIdx.z * outs;
  const int out0 = blockIdx.y * BM, position0 = blockIdx.x * BN, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int my_out = warp / (BN / WN) * WM, my_position = warp % (BN / WN) * WN;
  const int tiles = (taps + BK - 1) / BK;
  const Three mine(position0 + threadIdx.x, p.out_h, p.out_w);
  const bool exists = position0 + threadIdx.x < positions;
  const int top = mine.row * p.stride_h - p.padding_h, left = mine.column * p.stride_w - p.padding_w;
  const nv_bfloat16* image = x + ((size_t)mine.a * p.c_in + blockIdx.z * channels) * p.h * p.w;
  uint32_t pairs[BK / 2];
  auto look_up = [&](int tile) {
    const Three first(tile * BK, p.kernel_h, p.kernel_w);
    const int right = left + p.kernel_w * p.dilation_w, bottom = top + p.kernel_h * p.dilation_h;
    int channel = first.a, row = top + first.row * p.dilation_h, column = left + first.column * p.dilation_w;
#pragma unroll
    for (int i = 0; i < BK; i++) {
      uint32_t entry = 0;
      if (exists && channel < channels && row >= 0 && row < p.h && column >= 0 && column < p.w)
        entry = __bfloat16_as_ushort(image[(channel * p.h + row) * p.w + column]);
      pairs[i / 2] = i % 2 ? pairs[i / 2] | entry << 16 : entry;
      column += p.dilation_w;  // the next tap
      if (column == right) {
        column = left, row += p.dilation_h;
        if (row == bottom) row = top, channel++;
      }
    }
  };
  auto keep = [&](int tile) {
#pragma unroll
    for (int chunk = 0; chunk < BK / 8; chunk++)
      *reinterpret_cast<uint4*>(&columns[tile % 2][place<BK>(threadIdx.x, chunk)]) =
          make_uint4(pairs[4 * chunk], pairs[4 * chunk + 1], pairs[4 * chunk + 2], pairs[4 * chunk + 3]);
  };
  auto fetch = [&](int tile) { fetch_tile<BM, BK, BN>(weights[tile % 2], weight + (size_t)first_out * taps, outs, taps, out0, tile * BK); };
  float sums[WM / 16][WN / 8][4] = {};
  if (tiles > 0) {
    fetch(0);
    look_up(0);
    keep(0);
  }
  cp_async_commit();
  for (int tile = 0; tile < tiles; tile++) {
    const bool more = tile + 1 < tiles;
    if (more) {
      fetch(tile + 1);
      look_up(tile + 1);
    }
    cp_async_commit();
    cp_async_wait<1>();  // my copies of this tile's weights have landed
    __syncthreads();     // everyone's, and the columns are there
    multiply_tiles<false, true, BK, BK, BK>(sums, weights[tile % 2], columns[tile % 2], my_out, my_position);
    if (more) keep(tile + 1);
    __syncthreads();     // everyone has used them
  }
#pragma unroll
  for (int j = 0; j < WN / 4; j++) {
    const int position = position0 + my_position + j / 2 * 8 + lane % 4 * 2 + j % 2;
    if (position >= positions) continue;
    float* here = y + ((size_t)(position / outputs) * p.c_out + first_out) * outputs + position % outputs;
#pragma unroll
    for (int i = 0; i < WM / 8; i++) {
      const int out = out0 + my_out + 8 * i + lane / 4;
      if (out < outs) here[(size_t)out * outputs] = sums[i / 2][j / 2][i % 2 * 2 + j % 2] + (bias ? bias[first_out + out] : 0.f);
    }
  }
}

// dx = weightᵀ · (dy spread over the taps): the sum runs over (output channel, i, j).
template <int TILE>
__global__ void conv_backward_input_implicit(Conv p, const float* __restrict__ dy, const float* __restrict__ weight,
                                             const float* __restrict__ bias, float* __restrict__ dx) {
  const int channels = p.c_in / p.groups, outs = p.c_out / p.groups, taps = p.kernel_h * p.kernel_w, pixels = p.h * p.w;
  const int first_out = blockIdx.z * outs;
  const float sum = tile_product<TILE>(
      channels, p.n * pixels, outs * taps,
      [&](int channel, int i) { return weight[((size_t)(first_out + i / taps) * channels + channel) * taps + i % taps]; },
      [&](int i, int at) {
        const Three t(i, p.kernel_h, p.kernel_w), o(at, p.h, p.w);
        return upstream_entry(p, dy, o.a, first_out + t.a, o.row, o.column, t.row, t.column);
      });
  const int row = blockIdx.y * TILE + threadIdx.y, channel = blockIdx.z * channels + row, at = blockIdx.x * TILE + threadIdx.x;
  if (row < channels && at < p.n * pixels)
    dx[((size_t)(at / pixels) * p.c_in + channel) * pixels + at % pixels] = sum + (bias ? bias[channel] : 0.f);
}

// dweight = dy · columnsᵀ: the sum runs over all positions of all images.
template <int TILE>
__global__ void conv_backward_weight_implicit(Conv p, const float* __restrict__ dy, const float* __restrict__ x, float* __restrict__ dweight) {
  const int channels = p.c_in / p.groups, outs = p.c_out / p.groups, taps = channels * p.kernel_h * p.kernel_w;
  const int outputs = p.out_h * p.out_w, first_out = blockIdx.z * outs, first = blockIdx.z * channels;
  const float sum = tile_product<TILE>(
      outs, taps, p.n * outputs,
      [&](int out, int position) { return dy[((size_t)(position / outputs) * p.c_out + first_out + out) * outputs + position % outputs]; },
      [&](int position, int tap) { return column_entry(p, x, first, tap, position); });
  const int row = blockIdx.y * TILE + threadIdx.y, tap = blockIdx.x * TILE + threadIdx.x;
  if (row < outs && tap < taps) dweight[(size_t)(first_out + row) * taps + tap] = sum;
}

// dbias: the sum of dy over images and positions, one block for each output channel.
__global__ void conv_backward_bias(Conv p, const float* __restrict__ dy, float* __restrict__ dbias) {
  const int outputs = p.out_h * p.out_w;
  float sum = 0.f;
  for (int i = threadIdx.x; i < p.n * outputs; i += blockDim.x)
    sum += dy[((size_t)(i / outputs) * p.c_out + blockIdx.x) * outputs + i % outputs];
  sum = block_reduce<Add>(sum);
  if (threadIdx.x == 0) dbias[blockIdx.x] = sum;
}
