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
// and the same for the gradients dx and dweight, which are matrix products of the same sizes. On tensor cores
// dx is one product for each place within a stride, with the taps that count there, so that no zeros are
// multiplied; and several blocks share the sums of dweight, which are long and few.

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
  __shared__ float As[TILE][TILE];  // a warp writes 32 / TILE rows of a tile at once, side by side in 32 banks
  __shared__ float Bs[TILE][TILE];
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

// ---- on tensor cores -----------------------------------------------------------------------------------
// What one position sees: in each channel kernel_h × kernel_w entries from (top, left) on, `down` rows and `right`
// columns apart. A position that does not exist lies far above the image, where it sees zeros.
const int FAR_ABOVE = -(1 << 30);
struct Window {
  const nv_bfloat16* image;
  int channels, h, w, kernel_h, kernel_w, top, left, down, right;
};

// What a position of an image's output sees of its group's channels: the part of x under the kernel.
__device__ __forceinline__ Window under_kernel(const Conv& p, const nv_bfloat16* __restrict__ x, int group, int image, int position) {
  const int channels = p.c_in / p.groups, row = position / p.out_w, column = position % p.out_w;
  return {x + ((size_t)image * p.c_in + group * channels) * p.h * p.w, channels, p.h, p.w, p.kernel_h, p.kernel_w,
          image < p.n ? row * p.stride_h - p.padding_h : FAR_ABOVE, column * p.stride_w - p.padding_w, p.dilation_h, p.dilation_w};
}

// Looks up N entries of a window from the entry `first` on, two to a register. What lies outside the image or
// after the last channel is zero.
template <int N>
__device__ __forceinline__ void look_up(uint32_t (&pairs)[N / 2], const Window& v, int first) {
  const Three t(first, v.kernel_h, v.kernel_w);
  const int bottom = v.top + v.kernel_h * v.down, end = v.left + v.kernel_w * v.right;
  int channel = t.a, row = v.top + t.row * v.down, column = v.left + t.column * v.right;
#pragma unroll
  for (int i = 0; i < N; i++) {
    uint32_t entry = 0;
    if (channel < v.channels && row >= 0 && row < v.h && column >= 0 && column < v.w)
      entry = __bfloat16_as_ushort(v.image[(channel * v.h + row) * v.w + column]);
    pairs[i / 2] = i % 2 ? pairs[i / 2] | entry << 16 : entry;
    column += v.right;  // the next entry
    if (column == end) {
      column = v.left, row += v.down;
      if (row == bottom) row = v.top, channel++;
    }
  }
}
// Puts them into line `line` of a tile, from its chunk `chunk` on.
template <int N, int LENGTH>
__device__ __forceinline__ void keep(nv_bfloat16* tile, const uint32_t (&pairs)[N / 2], int line, int chunk) {
#pragma unroll
  for (int i = 0; i < N / 8; i++)
    *reinterpret_cast<uint4*>(tile + place<LENGTH>(line, chunk + i)) =
        make_uint4(pairs[4 * i], pairs[4 * i + 1], pairs[4 * i + 2], pairs[4 * i + 3]);
}

// BM lines of weight, from line0 on, times the windows of BN positions, from position0 on; each warp computes
// WM × WN of the results. There are two tiles of each operand. Each thread has one position, whose entries it
// looks up while the tiles before are multiplied. Tiles of weight are lines of taps, and so are those of the
// columns. weight is lines × length, of which `taps` count. The results of a position begin where where(position)
// says, null if it does not exist, and are `apart` apart.
template <int BM, int BN, int BK, int WM, int WN, class Where>
__device__ __forceinline__ void multiply_windows(const nv_bfloat16* __restrict__ weight, int lines, int length, int taps,
                                                 const Window& mine, const float* __restrict__ bias, int line0, int position0,
                                                 int apart, Where where) {
  static_assert(BM / WM * (BN / WN) * 32 == BN, "a thread for each position");
  __shared__ __align__(128) nv_bfloat16 weights[2][BM * BK];
  __shared__ __align__(128) nv_bfloat16 columns[2][BN * BK];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, my_line = warp / (BN / WN) * WM, my_position = warp % (BN / WN) * WN;
  const int tiles = (taps + BK - 1) / BK;
  uint32_t pairs[BK / 2];
  auto fetch = [&](int tile) { fetch_tile<BM, BK, BN>(weights[tile % 2], weight, lines, length, line0, tile * BK); };
  float sums[WM / 16][WN / 8][4] = {};
  if (tiles > 0) {
    fetch(0);
    look_up<BK>(pairs, mine, 0);
    keep<BK, BK>(columns[0], pairs, threadIdx.x, 0);
  }
  cp_async_commit();
  for (int tile = 0; tile < tiles; tile++) {
    const bool more = tile + 1 < tiles;
    if (more) {
      fetch(tile + 1);
      look_up<BK>(pairs, mine, (tile + 1) * BK);
    }
    cp_async_commit();
    cp_async_wait<1>();  // my copies of this tile's weights have landed
    __syncthreads();     // everyone's, and the columns are there
    multiply_tiles<false, true, BK, BK, BK>(sums, weights[tile % 2], columns[tile % 2], my_line, my_position);
    if (more) keep<BK, BK>(columns[(tile + 1) % 2], pairs, threadIdx.x, 0);
    __syncthreads();     // everyone has used them
  }
#pragma unroll
  for (int j = 0; j < WN / 4; j++) {
    float* here = where(position0 + my_position + j / 2 * 8 + lane % 4 * 2 + j % 2);
    if (!here) continue;
#pragma unroll
    for (int i = 0; i < WM / 8; i++) {
      const int line = line0 + my_line + 8 * i + lane / 4;
      if (line < lines) here[(size_t)line * apart] = sums[i / 2][j / 2][i % 2 * 2 + j % 2] + (bias ? bias[line] : 0.f);
    }
  }
}

// y = weight · columns. A position sees the part of x under the kernel.
template <int BM, int BN, int BK, int WM, int WN>
__global__ void __launch_bounds__(BN)
conv_mma(Conv p, const nv_bfloat16* __restrict__ x, const nv_bfloat16* __restrict__ weight, const float* __restrict__ bias,
         float* __restrict__ y) {
  static_assert(HAS_SM_80 || BM < 0, "conv_mma needs sm_80 or later: mma of bfloat16 and cp.async");
  const int channels = p.c_in / p.groups, outs = p.c_out / p.groups, taps = channels * p.kernel_h * p.kernel_w;
  const int outputs = p.out_h * p.out_w, positions = p.n * outputs, first_out = blockIdx.z * outs, position0 = blockIdx.x * BN;
  const int my_position = position0 + threadIdx.x;
  const Window mine = under_kernel(p, x, blockIdx.z, my_position / outputs, my_position % outputs);
  multiply_windows<BM, BN, BK, WM, WN>(
      weight + (size_t)first_out * taps, outs, taps, taps, mine, bias ? bias + first_out : bias, blockIdx.y * BM, position0, outputs,
      [&](int position) {
        return position < positions ? y + ((size_t)(position / outputs) * p.c_out + first_out) * outputs + position % outputs : nullptr;
      });
}

// Along one axis every stride-th input, from `start` on, goes through the same taps: first, first + step, …; the
// others would meet zeros only. Of these inputs, number q reaches output top + q through the first of these taps,
// and through each next one an output `apart` earlier.
struct Phase {
  int start, inputs, first, step, taps, top, apart;
  __device__ __forceinline__ Phase(int start, int size, int kernel, int stride, int padding, int dilation)
      : start(start), inputs((size - start + stride - 1) / stride), first(0), step(1) {
    while (step * dilation % stride) step++;
    while (first < step && (start + padding - first * dilation) % stride) first++;
    taps = first < step ? (kernel - first + step - 1) / step : 0;
    top = (start + padding - first * dilation) / stride;
    apart = step * dilation / stride;
  }
};
// How many phases there are along both axes, and the two that a number stands for.
struct Phases {
  int along_w, count;
  __device__ __forceinline__ Phases(const Conv& p) : along_w(min(p.stride_w, p.w)), count(min(p.stride_h, p.h) * along_w) {}
  __device__ __forceinline__ Phase rows(const Conv& p, int i) const {
    return Phase(i / along_w, p.h, p.kernel_h, p.stride_h, p.padding_h, p.dilation_h);
  }
  __device__ __forceinline__ Phase columns(const Conv& p, int i) const {
    return Phase(i % along_w, p.w, p.kernel_w, p.stride_w, p.padding_w, p.dilation_w);
  }
};

// The weights in the order in which conv_backward_input_mma multiplies them: for each group, phase and input channel
// a line of (output channel, tap, tap), filled up with zeros to `length`, a multiple of 8, to be copied 16 bytes at a time.
__global__ void conv_sort_weights(Conv p, int length, const nv_bfloat16* __restrict__ weight, nv_bfloat16* __restrict__ sorted) {
  const Phases phases(p);
  const int index = blockIdx.x * blockDim.x + threadIdx.x, channels = p.c_in / p.groups, outs = p.c_out / p.groups;
  if (index >= p.c_in * phases.count * length) return;
  const int line = index / length, channel = line % channels, phase = line / channels % phases.count;
  const int group = line / channels / phases.count;
  const Phase rows = phases.rows(p, phase), columns = phases.columns(p, phase);
  nv_bfloat16 entry = __float2bfloat16(0.f);
  if (index % length < outs * rows.taps * columns.taps) {
    const Three t(index % length, rows.taps, columns.taps);
    const int i = rows.first + t.row * rows.step, j = columns.first + t.column * columns.step;
    entry = weight[(((size_t)(group * outs + t.a) * channels + channel) * p.kernel_h + i) * p.kernel_w + j];
  }
  sorted[index] = entry;
}

// dx = weightᵀ · (dy spread over the taps), a product for each phase. An input of it sees the part of dy that came from it.
template <int BM, int BN, int BK, int WM, int WN>
__global__ void __launch_bounds__(BN)
conv_backward_input_mma(Conv p, int length, const nv_bfloat16* __restrict__ dy, const nv_bfloat16* __restrict__ sorted,
                        const float* __restrict__ bias, float* __restrict__ dx) {
  static_assert(HAS_SM_80 || BM < 0, "conv_backward_input_mma needs sm_80 or later: mma of bfloat16 and cp.async");
  const Phases phases(p);
  const int channels = p.c_in / p.groups, outs = p.c_out / p.groups, first_channel = blockIdx.z * channels;
  const int phase = blockIdx.x % phases.count, position0 = blockIdx.x / phases.count * BN, pixels = p.h * p.w;
  const Phase rows = phases.rows(p, phase), columns = phases.columns(p, phase);
  if (position0 >= p.n * rows.inputs * columns.inputs) return;  // other phases have more inputs
  const Three at(position0 + threadIdx.x, rows.inputs, columns.inputs);
  const Window mine = {dy + ((size_t)at.a * p.c_out + blockIdx.z * outs) * p.out_h * p.out_w,
                       outs, p.out_h, p.out_w, rows.taps, columns.taps,
                       at.a < p.n ? rows.top + at.row : FAR_ABOVE, columns.top + at.column, -rows.apart, -columns.apart};
  multiply_windows<BM, BN, BK, WM, WN>(
      sorted + (size_t)(blockIdx.z * phases.count + phase) * channels * length, channels, length, outs * rows.taps * columns.taps, mine,
      bias ? bias + first_channel : bias, blockIdx.y * BM, position0, pixels, [&](int position) {
        const Three to(position, rows.inputs, columns.inputs);
        const int row = rows.start + to.row * p.stride_h, column = columns.start + to.column * p.stride_w;
        return to.a < p.n ? dx + ((size_t)to.a * p.c_in + first_channel) * pixels + row * p.w + column : nullptr;
      });
}

// dweight = dy · columnsᵀ, of which the block computes BM output channels × BN taps, each warp WM × WN of them. The
// sum over all positions is long and the result small: `splits` blocks share the sum, and each stores its part, to
// be added up by conv_add_parts. BN · BK / threads entries of a position are looked up by each thread, and neighbours
// have neighbouring positions. Tiles of dy are lines of positions, those of the columns lines of taps. The positions
// of an image are filled up to a multiple of 8, so that a chunk is of one image.
template <int BM, int BN, int BK, int WM, int WN>
__global__ void __launch_bounds__(BM / WM * (BN / WN) * 32)
conv_backward_weight_mma(Conv p, int splits, const nv_bfloat16* __restrict__ dy, const nv_bfloat16* __restrict__ x,
                         float* __restrict__ parts) {
  static_assert(HAS_SM_80 || BM < 0, "conv_backward_weight_mma needs sm_80 or later: mma of bfloat16 and cp.async");
  constexpr int THREADS = BM / WM * (BN / WN) * 32, EACH = BN * BK / THREADS;
  __shared__ __align__(128) nv_bfloat16 dys[2][BM * BK];
  __shared__ __align__(128) nv_bfloat16 columns[2][BK * BN];
  const int outs = p.c_out / p.groups, taps = p.c_in / p.groups * p.kernel_h * p.kernel_w;
  const int outputs = p.out_h * p.out_w, filled = (outputs + 7) / 8 * 8, out0 = blockIdx.y * BM, tap0 = blockIdx.x * BN;
  const int group = blockIdx.z / splits, split = blockIdx.z % splits, first_out = group * outs, warp = threadIdx.x / 32;
  const int my_out = warp / (BN / WN) * WM, my_tap = warp % (BN / WN) * WN;
  const int line = threadIdx.x % BK, chunk = threadIdx.x / BK * (EACH / 8);  // what I look up
  const int tiles = (p.n * filled + BK - 1) / BK, share = (tiles + splits - 1) / splits;
  const int from = min(tiles, split * share), to = min(tiles, from + share);
  const bool whole = outputs % 8 == 0 && reinterpret_cast<size_t>(dy) % 16 == 0;
  uint32_t pairs[EACH / 2];
  auto fetch = [&](int tile) {
    fetch_chunks<BM, BK, THREADS>(dys[tile % 2], whole, [&](int out, int i) -> Chunk {
      const int image = (tile * BK + i) / filled, position = (tile * BK + i) % filled;
      const int inside = out0 + out < outs && image < p.n ? min(max(outputs - position, 0), 8) : 0;
      return {inside ? dy + ((size_t)image * p.c_out + first_out + out0 + out) * outputs + position : dy, inside};
    });
  };
  auto look = [&](int tile) {
    const int image = (tile * BK + line) / filled, position = (tile * BK + line) % filled;
    look_up<EACH>(pairs, under_kernel(p, x, group, position < outputs ? image : p.n, position), tap0 + 8 * chunk);
  };
  float sums[WM / 16][WN / 8][4] = {};
  if (from < to) {
    fetch(from);
    look(from);
    keep<EACH, BN>(columns[from % 2], pairs, line, chunk);
  }
  cp_async_commit();
  for (int tile = from; tile < to; tile++) {
    const bool more = tile + 1 < to;
    if (more) {
      fetch(tile + 1);
      look(tile + 1);
    }
    cp_async_commit();
    cp_async_wait<1>();  // my copies of this tile of dy have landed
    __syncthreads();     // everyone's, and the columns are there
    multiply_tiles<false, false, BK, BN, BK>(sums, dys[tile % 2], columns[tile % 2], my_out, my_tap);
    if (more) keep<EACH, BN>(columns[(tile + 1) % 2], pairs, line, chunk);
    __syncthreads();     // everyone has used them
  }
  store_tiles(parts + ((size_t)split * p.c_out + first_out) * taps, outs, taps, out0 + my_out, tap0 + my_tap, sums, nullptr);
}

// The sums of `splits` parts of `count` numbers, added up in the same order each time, which atomics would not do.
__global__ void conv_add_parts(int count, int splits, const float* __restrict__ parts, float* __restrict__ sums) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  float sum = 0.f;
  for (int split = 0; split < splits; split++) sum += parts[(size_t)split * count + i];
  sums[i] = sum;
}

// dbias: the sum of dy over images and positions, one block for each output channel.
template <class T>
__global__ void conv_backward_bias(Conv p, const T* __restrict__ dy, float* __restrict__ dbias) {
  const int outputs = p.out_h * p.out_w;
  float sum = 0.f;
  for (int i = threadIdx.x; i < p.n * outputs; i += blockDim.x)
    sum += (float)dy[((size_t)(i / outputs) * p.c_out + blockIdx.x) * outputs + i % outputs];
  sum = block_reduce<Add>(sum);
  if (threadIdx.x == 0) dbias[blockIdx.x] = sum;
}
