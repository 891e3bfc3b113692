// Attention, y = softmax(Q Kᵀ · scale + mask) V, and the gradients of Q, K and V.
//
// Each of `samples` (a batch times heads) has queries × e, keys × e and keys × v numbers; a mask says
// what is added to a score (-∞: the query may not look at the key) or, if bool, where a query may look.
// With `causal` query i sees the keys 0 … i. A query that sees nothing gets 0. log_sum is log Σ e^score
// of each query: with it the gradient finds the weights again, e^(score - log_sum).
//
//   attention_naive    the matrix of scores in memory: a kernel writes it, one makes weights of it, one
//                      multiplies by V. It has queries × keys numbers, far more than Q, K, V and y.
//   attention_online   no such matrix: a warp goes through the keys with a running maximum and sum
//                      (Milakov and Gimelshein, 2018; Rabe and Staats, 2021)
//   attention_tiled    a block has many queries, and what it fetches of K and V serves all of them
//                      (Dao et al., 2022)
// and with Q, K and V in bfloat16
//   attention_mma      the same on tensor cores; scores become weights in the registers where the product
//                      Q Kᵀ leaves them and the product with V takes them from (Dao, 2023; sm_80)
// and for the gradients, with dS = P (dP - Σ P dP) and dP = dy Vᵀ,
//   attention_backward_naive   P and dS in memory
//   attention_backward_tiled   scores are computed again from the tiles, once for dQ by a block a tile of
//                              queries, once for dK and dV by a block a tile of keys. Doing both at once
//                              would save that, and cost an atomic for each number of dQ or of dK and
//                              dV, and with it the same sum in the same order each time.
//   attention_backward_mma     so, too, on tensor cores, with Q, K, V and dy in bfloat16 (sm_80)
#include "common.cuh"
#include "tensor_tiles.cuh"

struct Attention {
  int samples, heads, queries, keys, e, v, causal;
  float scale;
  int mask_batch, mask_head, mask_query, mask_key;  // from one entry to the next; 0: the same for all
};

// The score of (query, key) where the query may look, -∞ elsewhere.
__device__ __forceinline__ float masked(const Attention& p, const bool* __restrict__ allowed, const float* __restrict__ added,
                                        int sample, int query, int key, float product) {
  if (query >= p.queries || key >= p.keys || (p.causal && key > query)) return -INFINITY;
  const float score = product * p.scale;
  if (!allowed && !added) return score;
  const size_t at = (size_t)(sample / p.heads) * p.mask_batch + (size_t)(sample % p.heads) * p.mask_head +
                    (size_t)query * p.mask_query + (size_t)key * p.mask_key;
  if (added) return score + added[at];
  return allowed[at] ? score : -INFINITY;
}

// A row of which everything is masked has the maximum -∞, which must not be subtracted from -∞.
__device__ __forceinline__ float finite_or_0(float largest) { return largest == -INFINITY ? 0.f : largest; }

// ---- with the matrix of scores -------------------------------------------------------------------

// 1. One thread for each score, query by query: scores has samples × queries × keys.
__global__ void attention_scores_naive(Attention p, const float* __restrict__ q, const float* __restrict__ k,
                                       const bool* __restrict__ allowed, const float* __restrict__ added, float* __restrict__ scores) {
  const size_t at = (size_t)blockIdx.x * blockDim.x + threadIdx.x, row = at / p.keys;
  if (row >= (size_t)p.samples * p.queries) return;
  const int key = at % p.keys, query = row % p.queries, sample = row / p.queries;
  float product = 0.f;
  for (int i = 0; i < p.e; i++) product += q[row * p.e + i] * k[((size_t)sample * p.keys + key) * p.e + i];
  scores[at] = masked(p, allowed, added, sample, query, key, product);
}

// One thread a row turns scores into weights.
__global__ void attention_softmax_naive(Attention p, float* __restrict__ scores, float* __restrict__ log_sum) {
  const int row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= p.samples * p.queries) return;
  scores += (size_t)row * p.keys;
  float largest = -INFINITY, sum = 0.f;
  for (int key = 0; key < p.keys; key++) largest = fmaxf(largest, scores[key]);
  largest = finite_or_0(largest);
  for (int key = 0; key < p.keys; key++) sum += expf(scores[key] - largest);
  for (int key = 0; key < p.keys; key++) scores[key] = sum == 0.f ? 0.f : expf(scores[key] - largest) / sum;
  log_sum[row] = largest + logf(sum);
}

// out = factor · W X for each sample, W being queries × keys and X keys × columns; a thread an entry.
__global__ void attention_product_naive(Attention p, int columns, float factor, const float* __restrict__ W, const float* __restrict__ X,
                                        float* __restrict__ out) {
  const size_t at = (size_t)blockIdx.x * blockDim.x + threadIdx.x, row = at / columns;
  if (row >= (size_t)p.samples * p.queries) return;
  const int column = at % columns, sample = row / p.queries;
  float sum = 0.f;
  for (int key = 0; key < p.keys; key++) sum += W[row * p.keys + key] * X[((size_t)sample * p.keys + key) * columns + column];
  out[at] = factor * sum;
}
// out = factor · Wᵀ X, X being queries × columns.
__global__ void attention_product_transposed_naive(Attention p, int columns, float factor, const float* __restrict__ W,
                                                   const float* __restrict__ X, float* __restrict__ out) {
  const size_t at = (size_t)blockIdx.x * blockDim.x + threadIdx.x, row = at / columns;
  if (row >= (size_t)p.samples * p.keys) return;
  const int column = at % columns, key = row % p.keys;
  const size_t first = row / p.keys * p.queries;  // the sample's first query
  float sum = 0.f;
  for (int query = 0; query < p.queries; query++)
    sum += W[(first + query) * p.keys + key] * X[(first + query) * columns + column];
  out[at] = factor * sum;
}

// Σ P dP over the keys, which is Σ dy y over the columns: one warp a query.
template <class T>
__global__ void attention_backward_dots(Attention p, const T* __restrict__ dy, const float* __restrict__ y, float* __restrict__ dots) {
  const int row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
  if (row >= p.samples * p.queries) return;
  float sum = 0.f;
  for (int i = lane; i < p.v; i += WARP) sum += (float)dy[(size_t)row * p.v + i] * y[(size_t)row * p.v + i];
  sum = warp_reduce<Add>(sum);
  if (lane == 0) dots[row] = sum;
}

// dS = P (dP - Σ P dP), one thread an entry.
__global__ void attention_backward_scores_naive(Attention p, const float* __restrict__ dy, const float* __restrict__ value,
                                                const float* __restrict__ weights, const float* __restrict__ dots,
                                                float* __restrict__ dscores) {
  const size_t at = (size_t)blockIdx.x * blockDim.x + threadIdx.x, row = at / p.keys;
  if (row >= (size_t)p.samples * p.queries) return;
  const size_t key = row / p.queries * p.keys + at % p.keys;
  float dweight = 0.f;
  for (int i = 0; i < p.v; i++) dweight += dy[row * p.v + i] * value[key * p.v + i];
  dscores[at] = weights[at] * (dweight - dots[row]);
}

// ---- without it: a warp a query --------------------------------------------------------------------

// 2. The lanes share the numbers of a vector; e and v are at most D. When a larger score comes, all sums
// so far shrink by e^(old maximum - new).
template <int D>
__global__ void attention_online(Attention p, const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ value,
                                 const bool* __restrict__ allowed, const float* __restrict__ added, float* __restrict__ y,
                                 float* __restrict__ log_sum) {
  constexpr int EACH = D / WARP;
  const int row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
  if (row >= p.samples * p.queries) return;
  const int sample = row / p.queries, query = row % p.queries;
  const int seen = p.causal ? min(query + 1, p.keys) : p.keys;
  float mine[EACH], sums[EACH] = {}, largest = -INFINITY, sum = 0.f;
#pragma unroll
  for (int i = 0; i < EACH; i++) mine[i] = lane + i * WARP < p.e ? q[(size_t)row * p.e + lane + i * WARP] : 0.f;
  for (int key = 0; key < seen; key++) {
    const size_t other = (size_t)sample * p.keys + key;
    float product = 0.f;
#pragma unroll
    for (int i = 0; i < EACH; i++)
      if (lane + i * WARP < p.e) product += mine[i] * k[other * p.e + lane + i * WARP];
    const float score = masked(p, allowed, added, sample, query, key, warp_reduce<Add>(product));
    const float larger = fmaxf(largest, score), shrink = expf(largest - finite_or_0(larger)), weight = expf(score - finite_or_0(larger));
    largest = larger;
    sum = sum * shrink + weight;
#pragma unroll
    for (int i = 0; i < EACH; i++)
      if (lane + i * WARP < p.v) sums[i] = sums[i] * shrink + weight * value[other * p.v + lane + i * WARP];
  }
#pragma unroll
  for (int i = 0; i < EACH; i++)
    if (lane + i * WARP < p.v) y[(size_t)row * p.v + lane + i * WARP] = sum == 0.f ? 0.f : sums[i] / sum;
  if (lane == 0) log_sum[row] = finite_or_0(largest) + logf(sum);
}

// ---- tiles -----------------------------------------------------------------------------------------
// A block has ROWS rows of its own (queries, or for dK and dV keys) and goes through tiles of COLUMNS of
// the others. Eight lanes share MINE neighbouring rows; lane x has the others x, x + 8, … and the columns
// 4x … 4x + 3, 32 + 4x … of the results. So a row is all in one warp, which needs no barrier for it.
const int LANES = 8, PAD = 4;  // rows of D + PAD numbers: eight lanes' 16 bytes lie in different banks
// and weights in rows of COLUMNS + 8 / MINE: the four groups of eight lanes in a warp do.

// Rows first … of a matrix of rows × columns, filled up by zeros to ROWS × D.
template <int ROWS, int D>
__device__ __forceinline__ void fetch(float (&tile)[ROWS][D + PAD], const float* __restrict__ M, int rows, int columns, int first) {
  for (int i = threadIdx.x; i < ROWS * D; i += blockDim.x) {
    const int row = i / D, column = i % D;
    tile[row][column] = first + row < rows && column < columns ? M[(size_t)(first + row) * columns + column] : 0.f;
  }
}

// dots[r][c] = the product of row `row` + r of A and row x + 8 c of B.
template <int MINE, int THEIRS, int ROWS, int COLUMNS, int D>
__device__ __forceinline__ void multiply(float (&dots)[MINE][THEIRS], const float (&A)[ROWS][D], const float (&B)[COLUMNS][D], int row,
                                         int x) {
#pragma unroll
  for (int r = 0; r < MINE; r++)
#pragma unroll
    for (int c = 0; c < THEIRS; c++) dots[r][c] = 0.f;
#pragma unroll 4
  for (int d = 0; d < D - PAD; d += 4) {
    float4 a[MINE];
#pragma unroll
    for (int r = 0; r < MINE; r++) a[r] = *reinterpret_cast<const float4*>(&A[row + r][d]);
#pragma unroll
    for (int c = 0; c < THEIRS; c++) {
      const float4 b = *reinterpret_cast<const float4*>(&B[x + LANES * c][d]);
#pragma unroll
      for (int r = 0; r < MINE; r++) dots[r][c] += a[r].x * b.x + a[r].y * b.y + a[r].z * b.z + a[r].w * b.w;
    }
  }
}

// sums[r] += Σ W[row + r][i] · B[i], a row of the result in four neighbouring columns at a time.
template <int MINE, int PARTS, int ROWS, int LINE, int COLUMNS, int D>
__device__ __forceinline__ void combine(float4 (&sums)[MINE][PARTS], const float (&W)[ROWS][LINE], const float (&B)[COLUMNS][D], int row,
                                        int x) {
#pragma unroll 4
  for (int i = 0; i < COLUMNS; i++) {
    float4 b[PARTS];
#pragma unroll
    for (int part = 0; part < PARTS; part++) b[part] = *reinterpret_cast<const float4*>(&B[i][4 * (x + LANES * part)]);
#pragma unroll
    for (int r = 0; r < MINE; r++) {
      const float w = W[row + r][i];
#pragma unroll
      for (int part = 0; part < PARTS; part++) {
        float4& sum = sums[r][part];
        sum.x += w * b[part].x, sum.y += w * b[part].y, sum.z += w * b[part].z, sum.w += w * b[part].w;
      }
    }
  }
}

template <int MINE, int PARTS>
__device__ __forceinline__ void set(float4 (&sums)[MINE][PARTS], float value) {
#pragma unroll
  for (int r = 0; r < MINE; r++)
#pragma unroll
    for (int part = 0; part < PARTS; part++) sums[r][part] = make_float4(value, value, value, value);
}

// Writes factor · sums[…] to row `row` of a matrix of rows × columns.
template <int PARTS>
__device__ __forceinline__ void store(const float4 (&sums)[PARTS], float factor, float* __restrict__ M, int rows, int columns, int row,
                                      int x) {
  if (row >= rows) return;
#pragma unroll
  for (int part = 0; part < PARTS; part++) {
    const int column = 4 * (x + LANES * part);
    float* out = M + (size_t)row * columns + column;
    if (columns % 4 == 0) {  // then every row begins at a multiple of 16 bytes
      const float4 v = sums[part];
      if (column < columns) *reinterpret_cast<float4*>(out) = make_float4(factor * v.x, factor * v.y, factor * v.z, factor * v.w);
      continue;
    }
    if (column < columns) out[0] = factor * sums[part].x;
    if (column + 1 < columns) out[1] = factor * sums[part].y;
    if (column + 2 < columns) out[2] = factor * sums[part].z;
    if (column + 3 < columns) out[3] = factor * sums[part].w;
  }
}

// The lanes of a row, eight or N, join their numbers.
template <class Op, int N = LANES>
__device__ __forceinline__ float row_reduce(float v) {
#pragma unroll
  for (int bit = N / 2; bit > 0; bit /= 2) v = Op::join(v, __shfl_xor_sync(ALL_LANES, v, bit));
  return v;
}

// 3. Four queries to eight lanes: a number of K or V from shared memory is used four times. (One block
// for each multiprocessor will do, so the compiler may give a thread as many registers as it needs.)
template <int D, int ROWS, int COLUMNS>
__global__ void __launch_bounds__(2 * ROWS, 1)
attention_tiled(Attention p, const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ value,
                const bool* __restrict__ allowed, const float* __restrict__ added, float* __restrict__ y, float* __restrict__ log_sum) {
  constexpr int MINE = 4, THEIRS = COLUMNS / LANES, PARTS = D / (4 * LANES);
  __shared__ __align__(16) float Q[ROWS][D + PAD];
  __shared__ __align__(16) float K[COLUMNS][D + PAD];
  __shared__ __align__(16) float V[COLUMNS][D + PAD];
  __shared__ __align__(16) float W[ROWS][COLUMNS + 8 / MINE];
  const int tiles = (p.queries + ROWS - 1) / ROWS, sample = blockIdx.x / tiles, query0 = blockIdx.x % tiles * ROWS;
  const int x = threadIdx.x % LANES, row = threadIdx.x / LANES * MINE;
  q += (size_t)sample * p.queries * p.e, k += (size_t)sample * p.keys * p.e, value += (size_t)sample * p.keys * p.v;
  const int seen = p.causal ? min(p.keys, query0 + ROWS) : p.keys;  // what lies behind is masked for the whole block
  float4 sums[MINE][PARTS];
  float largest[MINE], total[MINE] = {};
  set(sums, 0.f);
#pragma unroll
  for (int r = 0; r < MINE; r++) largest[r] = -INFINITY;
  fetch<ROWS, D>(Q, q, p.queries, p.e, query0);
  for (int key0 = 0; key0 < seen; key0 += COLUMNS) {
    __syncthreads();  // everyone has used the tiles before
    fetch<COLUMNS, D>(K, k, p.keys, p.e, key0);
    fetch<COLUMNS, D>(V, value, p.keys, p.v, key0);
    __syncthreads();  // the tiles are complete
    float scores[MINE][THEIRS];
    multiply(scores, Q, K, row, x);
#pragma unroll
    for (int r = 0; r < MINE; r++) {
      float larger = largest[r];
#pragma unroll
      for (int c = 0; c < THEIRS; c++) {
        scores[r][c] = masked(p, allowed, added, sample, query0 + row + r, key0 + x + LANES * c, scores[r][c]);
        larger = fmaxf(larger, scores[r][c]);
      }
      larger = row_reduce<Max>(larger);
      const float shrink = expf(largest[r] - finite_or_0(larger));
      largest[r] = larger;
      total[r] *= shrink;  // of this lane's keys; the lanes add up at the end
#pragma unroll
      for (int c = 0; c < THEIRS; c++) {
        const float weight = expf(scores[r][c] - finite_or_0(larger));
        total[r] += weight;
        W[row + r][x + LANES * c] = weight;
      }
#pragma unroll
      for (int part = 0; part < PARTS; part++) {
        float4& sum = sums[r][part];
        sum.x *= shrink, sum.y *= shrink, sum.z *= shrink, sum.w *= shrink;
      }
    }
    __syncwarp();  // the rows of W are complete
    combine(sums, W, V, row, x);
  }
#pragma unroll
  for (int r = 0; r < MINE; r++) {
    const float sum = row_reduce<Add>(total[r]);
    const int query = query0 + row + r;
    store(sums[r], sum == 0.f ? 0.f : 1.f / sum, y + (size_t)sample * p.queries * p.v, p.queries, p.v, query, x);
    if (x == 0 && query < p.queries) log_sum[(size_t)sample * p.queries + query] = finite_or_0(largest[r]) + logf(sum);
  }
}

// dQ: as the forward pass, with the weights from log_sum at once.
template <int D, int ROWS, int COLUMNS>
__global__ void __launch_bounds__(4 * ROWS, 1)
attention_backward_query_tiled(Attention p, const float* __restrict__ dy, const float* __restrict__ q, const float* __restrict__ k,
                               const float* __restrict__ value, const bool* __restrict__ allowed, const float* __restrict__ added,
                               const float* __restrict__ log_sum, const float* __restrict__ dots, float* __restrict__ dq) {
  constexpr int MINE = 2, THEIRS = COLUMNS / LANES, PARTS = D / (4 * LANES);
  __shared__ __align__(16) float Q[ROWS][D + PAD];
  __shared__ __align__(16) float G[ROWS][D + PAD];  // dy
  __shared__ __align__(16) float K[COLUMNS][D + PAD];
  __shared__ __align__(16) float V[COLUMNS][D + PAD];
  __shared__ __align__(16) float S[ROWS][COLUMNS + 8 / MINE];  // dS
  const int tiles = (p.queries + ROWS - 1) / ROWS, sample = blockIdx.x / tiles, query0 = blockIdx.x % tiles * ROWS;
  const int x = threadIdx.x % LANES, row = threadIdx.x / LANES * MINE;
  const size_t queries = (size_t)sample * p.queries, keys = (size_t)sample * p.keys;  // those of the samples before
  const int seen = p.causal ? min(p.keys, query0 + ROWS) : p.keys;
  float4 sums[MINE][PARTS];
  set(sums, 0.f);
  fetch<ROWS, D>(Q, q + queries * p.e, p.queries, p.e, query0);
  fetch<ROWS, D>(G, dy + queries * p.v, p.queries, p.v, query0);
  for (int key0 = 0; key0 < seen; key0 += COLUMNS) {
    __syncthreads();
    fetch<COLUMNS, D>(K, k + keys * p.e, p.keys, p.e, key0);
    fetch<COLUMNS, D>(V, value + keys * p.v, p.keys, p.v, key0);
    __syncthreads();
    float scores[MINE][THEIRS], dweights[MINE][THEIRS];
    multiply(scores, Q, K, row, x);
    multiply(dweights, G, V, row, x);
#pragma unroll
    for (int r = 0; r < MINE; r++)
#pragma unroll
      for (int c = 0; c < THEIRS; c++) {
        const int query = query0 + row + r;
        const float score = masked(p, allowed, added, sample, query, key0 + x + LANES * c, scores[r][c]);
        S[row + r][x + LANES * c] =
            score == -INFINITY ? 0.f : expf(score - log_sum[queries + query]) * (dweights[r][c] - dots[queries + query]);
      }
    __syncwarp();
    combine(sums, S, K, row, x);
  }
#pragma unroll
  for (int r = 0; r < MINE; r++) store(sums[r], p.scale, dq + queries * p.e, p.queries, p.e, query0 + row + r, x);
}

// dK and dV: the block's own rows are keys, and it goes through tiles of queries.
template <int D, int ROWS, int COLUMNS>
__global__ void __launch_bounds__(4 * ROWS, 1)
attention_backward_key_value_tiled(Attention p, const float* __restrict__ dy, const float* __restrict__ q, const float* __restrict__ k,
                                   const float* __restrict__ value, const bool* __restrict__ allowed, const float* __restrict__ added,
                                   const float* __restrict__ log_sum, const float* __restrict__ dots, float* __restrict__ dk,
                                   float* __restrict__ dv) {
  constexpr int MINE = 2, THEIRS = COLUMNS / LANES, PARTS = D / (4 * LANES);
  __shared__ __align__(16) float K[ROWS][D + PAD];
  __shared__ __align__(16) float V[ROWS][D + PAD];
  __shared__ __align__(16) float Q[COLUMNS][D + PAD];
  __shared__ __align__(16) float G[COLUMNS][D + PAD];     // dy
  __shared__ __align__(16) float W[ROWS][COLUMNS + 8 / MINE];  // the weights, a row for each key
  __shared__ __align__(16) float S[ROWS][COLUMNS + 8 / MINE];  // dS, likewise
  const int tiles = (p.keys + ROWS - 1) / ROWS, sample = blockIdx.x / tiles, key0 = blockIdx.x % tiles * ROWS;
  const int x = threadIdx.x % LANES, row = threadIdx.x / LANES * MINE;
  const size_t queries = (size_t)sample * p.queries, keys = (size_t)sample * p.keys;
  float4 key_sums[MINE][PARTS], value_sums[MINE][PARTS];
  set(key_sums, 0.f);
  set(value_sums, 0.f);
  fetch<ROWS, D>(K, k + keys * p.e, p.keys, p.e, key0);
  fetch<ROWS, D>(V, value + keys * p.v, p.keys, p.v, key0);
  // With `causal` the queries before the block's first key see none of its keys.
  for (int query0 = p.causal ? key0 / COLUMNS * COLUMNS : 0; query0 < p.queries; query0 += COLUMNS) {
    __syncthreads();
    fetch<COLUMNS, D>(Q, q + queries * p.e, p.queries, p.e, query0);
    fetch<COLUMNS, D>(G, dy + queries * p.v, p.queries, p.v, query0);
    __syncthreads();
    float scores[MINE][THEIRS], dweights[MINE][THEIRS];
    multiply(scores, K, Q, row, x);
    multiply(dweights, V, G, row, x);
#pragma unroll
    for (int r = 0; r < MINE; r++)
#pragma unroll
      for (int c = 0; c < THEIRS; c++) {
        const int query = query0 + x + LANES * c;
        const float score = masked(p, allowed, added, sample, query, key0 + row + r, scores[r][c]);
        const bool seen = score != -INFINITY;
        const float weight = seen ? expf(score - log_sum[queries + query]) : 0.f;
        W[row + r][x + LANES * c] = weight;
        S[row + r][x + LANES * c] = seen ? weight * (dweights[r][c] - dots[queries + query]) : 0.f;
      }
    __syncwarp();
    combine(value_sums, W, G, row, x);
    combine(key_sums, S, Q, row, x);
  }
#pragma unroll
  for (int r = 0; r < MINE; r++) {
    store(key_sums[r], p.scale, dk + keys * p.e, p.keys, p.e, key0 + row + r, x);
    store(value_sums[r], 1.f, dv + keys * p.v, p.keys, p.v, key0 + row + r, x);
  }
}

// ---- tensor cores ----------------------------------------------------------------------------------
// Tiles as above, of bfloat16, and the products are those of tensor_tiles.cuh: a warp has 16 MT rows, and of
// each 16 × 8 of its scores a lane has rows lane / 4 and lane / 4 + 8 in columns lane % 4 * 2 and the next.
// Four neighbouring lanes share a row. Weights are powers of 2, which are one instruction: e^x = 2^(x log₂ e).
const float LOG2_E = 1.44269504f, LN_2 = 0.693147181f;
const int QUAD = 4;  // lanes of a row

// Prepares products of rows `row0` … with columns `column0` …, rows being queries, or TRANSPOSED keys. Returns what
// they have to be multiplied by, to be exponents of 2. Where a query may not look at a key, or a mask is added,
// that is done here, and 1 is left to do; not asking each entry saves time, and most tiles need not.
template <bool TRANSPOSED, int MT, int NT>
__device__ __forceinline__ float exponents(float (&products)[MT][NT][4], const Attention& p, const bool* __restrict__ allowed,
                                           const float* __restrict__ added, int sample, int row0, int column0) {
  const int query0 = TRANSPOSED ? column0 : row0, key0 = TRANSPOSED ? row0 : column0;
  const int key_end = key0 + (TRANSPOSED ? 16 * MT : 8 * NT);
  const bool all_seen = key_end <= p.keys && (!p.causal || key_end <= query0 + 1) && !allowed && !added;
  if (all_seen && p.scale >= 0.f) return p.scale * LOG2_E;  // below 0 the largest product would be the least score
  const int lane = threadIdx.x % WARP;
  auto each = [&](auto change) {
#pragma unroll
    for (int j = 0; j < 2 * NT; j++)  // column by column: what belongs to one is then kept in registers for its own turn only
#pragma unroll
      for (int i = 0; i < 2 * MT; i++) {
        const int row = row0 + lane / QUAD + 8 * i, column = column0 + j / 2 * 8 + lane % QUAD * 2 + j % 2;
        change(products[i / 2][j / 2][i % 2 * 2 + j % 2], TRANSPOSED ? column : row, TRANSPOSED ? row : column);
      }
  };
  each([&](float& product, int query, int key) {
    const bool outside = query >= p.queries || key >= p.keys || (p.causal && key > query);
    product = outside ? -INFINITY : product * (p.scale * LOG2_E);
  });
  const size_t first = (size_t)(sample / p.heads) * p.mask_batch + (size_t)(sample % p.heads) * p.mask_head;
  // 32 bits within a head spare the registers that 64 would take.
  auto at = [&](int query, int key) { return first + ((unsigned)query * p.mask_query + (unsigned)key * p.mask_key); };
  if (added) each([&](float& score, int query, int key) { if (score != -INFINITY) score += LOG2_E * added[at(query, key)]; });
  if (allowed) each([&](float& score, int query, int key) { if (score != -INFINITY && !allowed[at(query, key)]) score = -INFINITY; });
  return 1.f;
}

template <int MT, int NT>
__device__ __forceinline__ void scale(float (&sums)[MT][NT][4], float factor) {
#pragma unroll
  for (int i = 0; i < MT; i++)
#pragma unroll
    for (int j = 0; j < NT; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) sums[i][j][e] *= factor;
}

// 4. Each warp has 16 MT queries; with 32, two products share what is loaded of K and V, but the sums of the widest
// vectors leave no registers for that. There are two tiles of K and of V: while a pair is used, the next is on its
// way, and with one barrier for both products some warps take a softmax while others multiply.
template <int D, int ROWS, int COLUMNS, int MT>
__global__ void __launch_bounds__(ROWS / MT * 2)
attention_mma(Attention p, const nv_bfloat16* __restrict__ q, const nv_bfloat16* __restrict__ k, const nv_bfloat16* __restrict__ value,
              const bool* __restrict__ allowed, const float* __restrict__ added, float* __restrict__ y, float* __restrict__ log_sum) {
  static_assert(HAS_SM_80 || D < 0, "attention_mma needs sm_80 or later: mma of bfloat16 and cp.async");
  constexpr int THREADS = ROWS / (16 * MT) * WARP;
  extern __shared__ __align__(128) uint4 memory[];
  nv_bfloat16* const Q = reinterpret_cast<nv_bfloat16*>(memory);
  nv_bfloat16* const K = Q + ROWS * D;  // two tiles, and of V
  nv_bfloat16* const V = K + 2 * COLUMNS * D;
  // With `causal` the last queries see most: their blocks begin first, so that the last to begin are short.
  const int blocks = (p.queries + ROWS - 1) / ROWS, block = blockIdx.x % blocks, sample = blockIdx.x / blocks;
  const int query0 = (p.causal ? blocks - 1 - block : block) * ROWS, my_row = threadIdx.x / WARP * 16 * MT, lane = threadIdx.x % WARP;
  const int seen = p.causal ? min(p.keys, query0 + ROWS) : p.keys, tiles = (seen + COLUMNS - 1) / COLUMNS;
  q += (size_t)sample * p.queries * p.e, k += (size_t)sample * p.keys * p.e, value += (size_t)sample * p.keys * p.v;
  auto fetch = [&](int tile) {
    const int place = tile % 2 * COLUMNS * D;
    fetch_tile<COLUMNS, D, THREADS>(K + place, k, p.keys, p.e, tile * COLUMNS, 0);
    fetch_tile<COLUMNS, D, THREADS>(V + place, value, p.keys, p.v, tile * COLUMNS, 0);
    cp_async_commit();
  };
  float sums[MT][D / 8][4] = {}, largest[MT][2], total[MT][2] = {};
#pragma unroll
  for (int i = 0; i < MT; i++) largest[i][0] = largest[i][1] = -INFINITY;
  if (tiles > 0) {
    fetch_tile<ROWS, D, THREADS>(Q, q, p.queries, p.e, query0, 0);
    fetch(0);
  }
  for (int tile = 0; tile < tiles; tile++) {
    cp_async_wait<0>();  // my copies of these keys have landed
    __syncthreads();     // everyone's have, and everyone has used the keys before
    if (tile + 1 < tiles) fetch(tile + 1);
    float scores[MT][COLUMNS / 8][4] = {};
    multiply_tiles<false, true, D, D, D>(scores, Q, K + tile % 2 * COLUMNS * D, my_row, 0);
    const float factor = exponents<false>(scores, p, allowed, added, sample, query0 + my_row, tile * COLUMNS);
#pragma unroll
    for (int i = 0; i < MT; i++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float larger = -INFINITY;
#pragma unroll
        for (int j = 0; j < COLUMNS / 8; j++) larger = fmaxf(larger, fmaxf(scores[i][j][2 * half], scores[i][j][2 * half + 1]));
        larger = fmaxf(largest[i][half], factor * row_reduce<Max, QUAD>(larger));
        const float base = finite_or_0(larger), shrink = exp2_fast(largest[i][half] - base);
        largest[i][half] = larger;
        total[i][half] *= shrink;  // of this lane's keys; the lanes add up at the end
#pragma unroll
        for (int j = 0; j < COLUMNS / 8; j++)
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; e++) {
            scores[i][j][e] = exp2_fast(fmaf(scores[i][j][e], factor, -base));
            total[i][half] += scores[i][j][e];
          }
#pragma unroll
        for (int j = 0; j < D / 8; j++) sums[i][j][2 * half] *= shrink, sums[i][j][2 * half + 1] *= shrink;
      }
    multiply_sums<D>(sums, scores, V + tile % 2 * COLUMNS * D);
  }
#pragma unroll
  for (int i = 0; i < MT; i++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const float sum = row_reduce<Add, QUAD>(total[i][half]), inverse = sum == 0.f ? 0.f : 1.f / sum;
      const int query = query0 + my_row + 16 * i + lane / QUAD + 8 * half;
#pragma unroll
      for (int j = 0; j < D / 8; j++) sums[i][j][2 * half] *= inverse, sums[i][j][2 * half + 1] *= inverse;
      if (lane % QUAD == 0 && query < p.queries)
        log_sum[(size_t)sample * p.queries + query] = LN_2 * (finite_or_0(largest[i][half]) + log2f(sum));
    }
  store_tiles(y + (size_t)sample * p.queries * p.v, p.queries, p.v, query0 + my_row, 0, sums, nullptr);
}

// The gradients keep a pair of tiles of their own rows, too, and go through the others' as above. The weight of a
// score that exponents() has prepared:
__device__ __forceinline__ float weight_of(float product, float factor, float log_sum) {
  return exp2_fast(fmaf(product, factor, -LOG2_E * finite_or_0(log_sum)));
}

// dQ, of bfloat16: the block's own rows are queries.
template <int D, int ROWS, int COLUMNS, int MT>
__global__ void __launch_bounds__(ROWS / MT * 2)
attention_backward_query_mma(Attention p, const nv_bfloat16* __restrict__ dy, const nv_bfloat16* __restrict__ q,
                             const nv_bfloat16* __restrict__ k, const nv_bfloat16* __restrict__ value, const bool* __restrict__ allowed,
                             const float* __restrict__ added, const float* __restrict__ log_sum, const float* __restrict__ dots,
                             float* __restrict__ dq) {
  static_assert(HAS_SM_80 || D < 0, "attention_backward_query_mma needs sm_80 or later: mma of bfloat16 and cp.async");
  constexpr int THREADS = ROWS / (16 * MT) * WARP;
  extern __shared__ __align__(128) uint4 memory[];
  nv_bfloat16* const Q = reinterpret_cast<nv_bfloat16*>(memory);
  nv_bfloat16* const G = Q + ROWS * D;  // dy
  nv_bfloat16* const K = G + ROWS * D;  // two tiles, and of V
  nv_bfloat16* const V = K + 2 * COLUMNS * D;
  const int blocks = (p.queries + ROWS - 1) / ROWS, block = blockIdx.x % blocks, sample = blockIdx.x / blocks;
  const int query0 = (p.causal ? blocks - 1 - block : block) * ROWS, my_row = threadIdx.x / WARP * 16 * MT, lane = threadIdx.x % WARP;
  const int seen = p.causal ? min(p.keys, query0 + ROWS) : p.keys, tiles = (seen + COLUMNS - 1) / COLUMNS;
  const size_t queries = (size_t)sample * p.queries, keys = (size_t)sample * p.keys;  // those of the samples before
  auto fetch = [&](int tile) {
    const int place = tile % 2 * COLUMNS * D;
    fetch_tile<COLUMNS, D, THREADS>(K + place, k + keys * p.e, p.keys, p.e, tile * COLUMNS, 0);
    fetch_tile<COLUMNS, D, THREADS>(V + place, value + keys * p.v, p.keys, p.v, tile * COLUMNS, 0);
    cp_async_commit();
  };
  float sums[MT][D / 8][4] = {}, log_sums[MT][2], my_dots[MT][2];
#pragma unroll
  for (int i = 0; i < 2 * MT; i++) {
    const int query = query0 + my_row + 8 * i + lane / QUAD;
    log_sums[i / 2][i % 2] = query < p.queries ? log_sum[queries + query] : 0.f;
    my_dots[i / 2][i % 2] = query < p.queries ? dots[queries + query] : 0.f;
  }
  if (tiles > 0) {
    fetch_tile<ROWS, D, THREADS>(Q, q + queries * p.e, p.queries, p.e, query0, 0);
    fetch_tile<ROWS, D, THREADS>(G, dy + queries * p.v, p.queries, p.v, query0, 0);
    fetch(0);
  }
  for (int tile = 0; tile < tiles; tile++) {
    cp_async_wait<0>();  // my copies of this tile have landed
    __syncthreads();     // everyone's have, and everyone has used the tile before
    if (tile + 1 < tiles) fetch(tile + 1);
    const nv_bfloat16 *my_k = K + tile % 2 * COLUMNS * D, *my_v = V + tile % 2 * COLUMNS * D;
    float scores[MT][COLUMNS / 8][4] = {}, dweights[MT][COLUMNS / 8][4] = {};
    multiply_tiles<false, true, D, D, D>(scores, Q, my_k, my_row, 0);
    const float factor = exponents<false>(scores, p, allowed, added, sample, query0 + my_row, tile * COLUMNS);
    multiply_tiles<false, true, D, D, D>(dweights, G, my_v, my_row, 0);
#pragma unroll
    for (int i = 0; i < MT; i++)
#pragma unroll
      for (int j = 0; j < COLUMNS / 8; j++)
#pragma unroll
        for (int e = 0; e < 4; e++)
          scores[i][j][e] = weight_of(scores[i][j][e], factor, log_sums[i][e / 2]) * (dweights[i][j][e] - my_dots[i][e / 2]);
    multiply_sums<D>(sums, scores, my_k);
  }
  scale(sums, p.scale);
  store_tiles(dq + queries * p.e, p.queries, p.e, query0 + my_row, 0, sums, nullptr);
}

// dK and dV, of bfloat16: the block's own rows are keys, and scores and weights a row for each key.
template <int D, int ROWS, int COLUMNS, int MT>
__global__ void __launch_bounds__(ROWS / MT * 2)
attention_backward_key_value_mma(Attention p, const nv_bfloat16* __restrict__ dy, const nv_bfloat16* __restrict__ q,
                                 const nv_bfloat16* __restrict__ k, const nv_bfloat16* __restrict__ value, const bool* __restrict__ allowed,
                                 const float* __restrict__ added, const float* __restrict__ log_sum, const float* __restrict__ dots,
                                 float* __restrict__ dk, float* __restrict__ dv) {
  static_assert(HAS_SM_80 || D < 0, "attention_backward_key_value_mma needs sm_80 or later: mma of bfloat16 and cp.async");
  constexpr int THREADS = ROWS / (16 * MT) * WARP;
  static_assert(COLUMNS <= THREADS, "a thread for each query of a tile");
  extern __shared__ __align__(128) uint4 memory[];
  nv_bfloat16* const K = reinterpret_cast<nv_bfloat16*>(memory);
  nv_bfloat16* const V = K + ROWS * D;
  nv_bfloat16* const Q = V + ROWS * D;  // two tiles, and of dy
  nv_bfloat16* const G = Q + 2 * COLUMNS * D;
  float* const log_sums = reinterpret_cast<float*>(G + 2 * COLUMNS * D);  // of the queries of both tiles, and their dots
  float* const tile_dots = log_sums + 2 * COLUMNS;
  const int blocks = (p.keys + ROWS - 1) / ROWS, sample = blockIdx.x / blocks, key0 = blockIdx.x % blocks * ROWS;
  const int my_row = threadIdx.x / WARP * 16 * MT, lane = threadIdx.x % WARP, tiles = (p.queries + COLUMNS - 1) / COLUMNS;
  const size_t queries = (size_t)sample * p.queries, keys = (size_t)sample * p.keys;
  float my_log_sum, my_dot;
  auto fetch = [&](int tile) {
    const int place = tile % 2 * COLUMNS * D, query = tile * COLUMNS + threadIdx.x;
    fetch_tile<COLUMNS, D, THREADS>(Q + place, q + queries * p.e, p.queries, p.e, tile * COLUMNS, 0);
    fetch_tile<COLUMNS, D, THREADS>(G + place, dy + queries * p.v, p.queries, p.v, tile * COLUMNS, 0);
    cp_async_commit();
    const bool exists = threadIdx.x < COLUMNS && query < p.queries;
    my_log_sum = exists ? log_sum[queries + query] : 0.f, my_dot = exists ? dots[queries + query] : 0.f;
  };
  auto keep = [&](int tile) {  // what fetch began to read: nobody waits for it before
    const int at = tile % 2 * COLUMNS + threadIdx.x;
    if (threadIdx.x < COLUMNS) log_sums[at] = my_log_sum, tile_dots[at] = my_dot;
  };
  float key_sums[MT][D / 8][4] = {}, value_sums[MT][D / 8][4] = {};
  // With `causal` the queries before the block's first key see none of its keys.
  const int first = p.causal ? key0 / COLUMNS : 0;
  if (first < tiles) {
    fetch_tile<ROWS, D, THREADS>(K, k + keys * p.e, p.keys, p.e, key0, 0);
    fetch_tile<ROWS, D, THREADS>(V, value + keys * p.v, p.keys, p.v, key0, 0);
    fetch(first);
    keep(first);
  }
  for (int tile = first; tile < tiles; tile++) {
    cp_async_wait<0>();  // my copies of this tile have landed
    __syncthreads();     // everyone's have, and everyone has used the tile before
    if (tile + 1 < tiles) fetch(tile + 1);
    const nv_bfloat16 *my_q = Q + tile % 2 * COLUMNS * D, *my_g = G + tile % 2 * COLUMNS * D;
    float scores[MT][COLUMNS / 8][4] = {}, dweights[MT][COLUMNS / 8][4] = {};
    multiply_tiles<false, true, D, D, D>(scores, K, my_q, my_row, 0);
    const float factor = exponents<true>(scores, p, allowed, added, sample, key0 + my_row, tile * COLUMNS);
    multiply_tiles<false, true, D, D, D>(dweights, V, my_g, my_row, 0);
#pragma unroll
    for (int j = 0; j < COLUMNS / 8; j++)
#pragma unroll
      for (int e = 0; e < 2; e++) {
        const int at = tile % 2 * COLUMNS + 8 * j + lane % QUAD * 2 + e;
        const float its_log_sum = log_sums[at], its_dot = tile_dots[at];
#pragma unroll
        for (int i = 0; i < 2 * MT; i++) {
          float &score = scores[i / 2][j][i % 2 * 2 + e], &dweight = dweights[i / 2][j][i % 2 * 2 + e];
          score = weight_of(score, factor, its_log_sum);
          dweight = score * (dweight - its_dot);  // the score's gradient
        }
      }
    multiply_sums<D>(value_sums, scores, my_g);
    multiply_sums<D>(key_sums, dweights, my_q);
    if (tile + 1 < tiles) keep(tile + 1);
  }
  scale(key_sums, p.scale);
  store_tiles(dk + keys * p.e, p.keys, p.e, key0 + my_row, 0, key_sums, nullptr);
  store_tiles(dv + keys * p.v, p.keys, p.v, key0 + my_row, 0, value_sums, nullptr);
}
