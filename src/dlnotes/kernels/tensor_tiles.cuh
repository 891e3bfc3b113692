// Tiles of bfloat16 in shared memory and what a warp multiplies of them by mma.
//
// A tile is LENGTH neighbours of each of some lines of a matrix, in chunks of 8 numbers, 16 bytes. ldmatrix
// reads the same chunk of 8 lines at once, and so that these lie in different banks, line l keeps its chunk c
// where another line would keep chunk c ^ l (a "swizzle"): no bank conflicts, and no memory spent on padding.
#pragma once
#include "ptx.cuh"

// Where a tile has chunk `chunk` of line `line`. Lines shorter than 128 bytes share a row of banks.
template <int LENGTH>
__device__ __forceinline__ int place(int line, int chunk) {
  constexpr int CHUNKS = LENGTH / 8, LINES_IN_A_ROW = CHUNKS < 8 ? 8 / CHUNKS : 1;
  return line * LENGTH + (chunk ^ (line / LINES_IN_A_ROW) % (CHUNKS < 8 ? CHUNKS : 8)) * 8;
}

// A chunk's source: eight neighbours, of which the first `inside` are there and the others zero.
struct Chunk {
  const nv_bfloat16* from;
  int inside;
};
// Starts to fill a tile with the chunks source(line, entry), lines and entries counted from the tile's first.
// `whole`: every chunk begins at a multiple of 16 bytes. Else there is nothing to copy 16 bytes at a time, and
// they go through registers, number by number.
template <int LINES, int LENGTH, int THREADS, class Source>
__device__ __forceinline__ void fetch_chunks(nv_bfloat16* tile, bool whole, Source source) {
  constexpr int CHUNKS = LENGTH / 8, EACH = LINES * CHUNKS / THREADS;
  static_assert(EACH * THREADS == LINES * CHUNKS, "as many chunks for each thread");
#pragma unroll
  for (int turn = 0; whole && turn < EACH; turn++) {
    const int i = turn * THREADS + threadIdx.x;
    const Chunk chunk = source(i / CHUNKS, i % CHUNKS * 8);
    cp_async_16(tile + place<LENGTH>(i / CHUNKS, i % CHUNKS), chunk.from, 2 * chunk.inside);
  }
#pragma unroll 1
  for (int turn = 0; !whole && turn < EACH; turn++) {
    const int i = turn * THREADS + threadIdx.x;
    const Chunk chunk = source(i / CHUNKS, i % CHUNKS * 8);
    uint32_t pairs[4] = {};
#pragma unroll
    for (int e = 0; e < 8; e++)
      if (e < chunk.inside) pairs[e / 2] |= (uint32_t)__bfloat16_as_ushort(chunk.from[e]) << 16 * (e % 2);
    *reinterpret_cast<uint4*>(tile + place<LENGTH>(i / CHUNKS, i % CHUNKS)) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
  }
}
// The same from line `line0` and entry `first0` of a matrix of lines × length on; zero outside.
template <int LINES, int LENGTH, int THREADS>
__device__ __forceinline__ void fetch_tile(nv_bfloat16* tile, const nv_bfloat16* __restrict__ M, int lines, int length, int line0,
                                           int first0) {
  const bool whole = length % 8 == 0 && reinterpret_cast<size_t>(M) % 16 == 0;
  fetch_chunks<LINES, LENGTH, THREADS>(tile, whole, [=](int line, int entry) -> Chunk {
    line += line0, entry += first0;
    const int inside = line < lines ? min(max(length - entry, 0), 8) : 0;
    return {inside ? M + (size_t)line * length + entry : M, inside};
  });
}

// mma's operand A: rows `row` to row + 15 and 16 steps of the sum from `k` on. A tile has lines of rows, or
// TRANSPOSED lines along the sum.
template <bool TRANSPOSED, int LENGTH>
__device__ __forceinline__ void load_a(uint32_t (&a)[4], const nv_bfloat16* tile, int row, int k) {
  const int lane = threadIdx.x % 32;
  if (TRANSPOSED)
    ldmatrix_x4_trans(a, tile + place<LENGTH>(k + lane / 16 * 8 + lane % 8, row / 8 + lane / 8 % 2));
  else
    ldmatrix_x4(a, tile + place<LENGTH>(row + lane % 16, k / 8 + lane / 16));
}
// mma's operand B for columns `column` to column + 7 in b[0] and b[1], and for the next eight in b[2] and b[3].
// A tile has lines along the sum, or TRANSPOSED lines of columns.
template <bool TRANSPOSED, int LENGTH>
__device__ __forceinline__ void load_b(uint32_t (&b)[4], const nv_bfloat16* tile, int k, int column) {
  const int lane = threadIdx.x % 32;
  if (TRANSPOSED)
    ldmatrix_x4(b, tile + place<LENGTH>(column + lane / 16 * 8 + lane % 8, k / 8 + lane / 8 % 2));
  else
    ldmatrix_x4_trans(b, tile + place<LENGTH>(k + lane % 16, column / 8 + lane / 16));
}

// A warp adds the product of BK steps of the sum to its 16 MT × 8 NT results from (row, column) on: each
// 16 × 16 numbers of an operand are loaded once and used for MT or NT results.
template <bool TRANSPOSE_A, bool TRANSPOSE_B, int LENGTH_A, int LENGTH_B, int BK, int MT, int NT>
__device__ __forceinline__ void multiply_tiles(float (&sums)[MT][NT][4], const nv_bfloat16* As, const nv_bfloat16* Bs, int row,
                                               int column) {
#pragma unroll
  for (int k = 0; k < BK; k += 16) {
    uint32_t a[MT][4], b[NT / 2][4];
#pragma unroll
    for (int i = 0; i < MT; i++) load_a<TRANSPOSE_A, LENGTH_A>(a[i], As, row + 16 * i, k);
#pragma unroll
    for (int j = 0; j < NT / 2; j++) load_b<TRANSPOSE_B, LENGTH_B>(b[j], Bs, k, column + 16 * j);
#pragma unroll
    for (int i = 0; i < MT; i++)
#pragma unroll
      for (int j = 0; j < NT; j++) mma_m16n8k16(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
  }
}

// The same where A, 16 MT rows and 8 KT steps of the sum, is itself what multiply_tiles left: what a lane has of
// two neighbouring sums is, rounded, what it must have of operand A. B is a tile with lines along the sum.
template <int LENGTH_B, int MT, int KT, int NT>
__device__ __forceinline__ void multiply_sums(float (&sums)[MT][NT][4], const float (&A)[MT][KT][4], const nv_bfloat16* Bs) {
#pragma unroll
  for (int k = 0; k < KT; k += 2) {
    uint32_t a[MT][4];
#pragma unroll
    for (int i = 0; i < MT; i++)
#pragma unroll
      for (int e = 0; e < 4; e++) a[i][e] = pack_bfloat16(A[i][k + e / 2][e % 2 * 2], A[i][k + e / 2][e % 2 * 2 + 1]);
#pragma unroll
    for (int j = 0; j < NT; j += 2) {
      uint32_t b[4];
      load_b<false, LENGTH_B>(b, Bs, 8 * k, 8 * j);
#pragma unroll
      for (int i = 0; i < MT; i++) {
        mma_m16n8k16(sums[i][j], a[i], b[0], b[1]);
        mma_m16n8k16(sums[i][j + 1], a[i], b[2], b[3]);
      }
    }
  }
}

// Two neighbours of a row of C, which is m × n. One store of 8 bytes if all rows begin at a multiple of 8.
__device__ __forceinline__ void store2(float* __restrict__ C, int m, int n, int row, int column, float v, float w,
                                       const float* __restrict__ bias) {
  if (row >= m || column >= n) return;
  const bool both = column + 1 < n;
  if (bias) {
    v += bias[column];
    if (both) w += bias[column + 1];
  }
  float* out = &C[(size_t)row * n + column];
  if (n % 2 == 0) {
    *reinterpret_cast<float2*>(out) = make_float2(v, w);
  } else {
    out[0] = v;
    if (both) out[1] = w;
  }
}

// A warp's 16 MT × 8 NT results, from (row, column) of C on.
template <int MT, int NT>
__device__ __forceinline__ void store_tiles(float* __restrict__ C, int m, int n, int row, int column, const float (&sums)[MT][NT][4],
                                            const float* __restrict__ bias) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < MT; i++)
#pragma unroll
    for (int j = 0; j < NT; j++)
#pragma unroll
      for (int half = 0; half < 2; half++)
        store2(C, m, n, row + 16 * i + lane / 4 + 8 * half, column + 8 * j + lane % 4 * 2, sums[i][j][2 * half],
               sums[i][j][2 * half + 1], bias);
}
