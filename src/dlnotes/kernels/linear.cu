// Matrix multiplication, C = A B (+ bias), and with it the linear layer; sums and C are float32.
//
// A is m × k, B is k × n, C is m × n. With TRANSPOSE_A the array holds Aᵀ (k × m), likewise B, so
// the same kernels give the layer y = x Wᵀ + b and its gradients dx = dy W and dW = dyᵀ x.
// No size has to be a multiple of anything: what lies outside counts as zero.
//
// The ladder. A product needs 2mnk operations on (m + n) k numbers, so all depends on how often a
// number is used once it has been fetched:
//   matmul_naive       every operand from global memory, each used once by each thread
//   matmul_tiled       a tile of A and of B in shared memory, each number used TILE times
//   matmul_blocked     TM × TN results in registers, so each number from shared memory is used TM or TN times
//   matmul_vectorised  the same with loads and stores of four numbers at a time
// and with A and B in bfloat16, which halves what is fetched:
//   matmul_mma         tensor cores: a warp's 16 × 8 × 16 products are one instruction, and the next tiles
//                      are copied meanwhile (sm_80)
//   matmul_wgmma       tensor cores read the tiles themselves, and TMA brings them: threads only say when (sm_90a)

#include "tensor_tiles.cuh"

// The entry (row, column) of a matrix of rows × columns, or of the one whose transpose is stored.
template <bool TRANSPOSED>
__device__ __forceinline__ size_t at(int row, int column, int rows, int columns) {
  return TRANSPOSED ? (size_t)column * rows + row : (size_t)row * columns + column;
}

// 1. One thread for each entry of C.
template <bool TRANSPOSE_A, bool TRANSPOSE_B>
__global__ void matmul_naive(int m, int n, int k, const float* __restrict__ A, const float* __restrict__ B,
                             const float* __restrict__ bias, float* __restrict__ C) {
  const int row = blockIdx.y * blockDim.y + threadIdx.y;
  const int column = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= m || column >= n) return;
  float sum = bias ? bias[column] : 0.f;
  for (int i = 0; i < k; i++)
    sum += A[at<TRANSPOSE_A>(row, i, m, k)] * B[at<TRANSPOSE_B>(i, column, k, n)];
  C[(size_t)row * n + column] = sum;
}

// 2. The block computes a TILE × TILE piece of C. It walks along k a tile at a time: all threads
// fetch one entry of A and one of B, wait, and use the TILE × TILE entries that are there now.
template <bool TRANSPOSE_A, bool TRANSPOSE_B, int TILE>
__global__ void matmul_tiled(int m, int n, int k, const float* __restrict__ A, const float* __restrict__ B,
                             const float* __restrict__ bias, float* __restrict__ C) {
  // A warp writes 32 / TILE rows of a tile at once, which lie side by side in 32 banks. Where the array holds
  // the transpose it writes as many columns: that many columns more than needed move each row on to other banks.
  __shared__ float As[TILE][TILE + (TRANSPOSE_A ? 32 / TILE : 0)];
  __shared__ float Bs[TILE][TILE + (TRANSPOSE_B ? 32 / TILE : 0)];
  const int x = threadIdx.x, y = threadIdx.y;
  const int row0 = blockIdx.y * TILE, column0 = blockIdx.x * TILE;
  float sum = 0.f;
  for (int k0 = 0; k0 < k; k0 += TILE) {
    // Neighbouring threads (x) read neighbouring addresses, whichever way the matrix is stored.
    const int ar = TRANSPOSE_A ? x : y, ak = TRANSPOSE_A ? y : x;
    const int bk = TRANSPOSE_B ? x : y, bc = TRANSPOSE_B ? y : x;
    As[ar][ak] = row0 + ar < m && k0 + ak < k ? A[at<TRANSPOSE_A>(row0 + ar, k0 + ak, m, k)] : 0.f;
    Bs[bk][bc] = k0 + bk < k && column0 + bc < n ? B[at<TRANSPOSE_B>(k0 + bk, column0 + bc, k, n)] : 0.f;
    __syncthreads();  // the tiles are complete
#pragma unroll
    for (int i = 0; i < TILE; i++) sum += As[y][i] * Bs[i][x];
    __syncthreads();  // everyone has used them
  }
  const int row = row0 + y, column = column0 + x;
  if (row < m && column < n) C[(size_t)row * n + column] = sum + (bias ? bias[column] : 0.f);
}

// 3. The block computes BM × BN entries with (BM / TM)(BN / TN) threads, TM × TN entries each. For
// one step along k a thread reads TM + TN numbers from shared memory and does TM · TN products.
// A's tile is stored with k first, so that a thread's TM numbers are neighbours.
template <bool TRANSPOSE_A, bool TRANSPOSE_B, int BM, int BN, int BK, int TM, int TN>
__global__ void __launch_bounds__((BM / TM) * (BN / TN))
matmul_blocked(int m, int n, int k, const float* __restrict__ A, const float* __restrict__ B,
               const float* __restrict__ bias, float* __restrict__ C) {
  constexpr int THREADS = (BM / TM) * (BN / TN), PAD = 4;
  __shared__ float As[BK][BM + PAD];
  __shared__ float Bs[BK][BN + PAD];
  const int row0 = blockIdx.y * BM, column0 = blockIdx.x * BN;
  const int my_row = threadIdx.x / (BN / TN) * TM, my_column = threadIdx.x % (BN / TN) * TN;
  float sums[TM][TN] = {};
  for (int k0 = 0; k0 < k; k0 += BK) {
    for (int i = threadIdx.x; i < BM * BK; i += THREADS) {
      const int r = TRANSPOSE_A ? i % BM : i / BK, c = TRANSPOSE_A ? i / BM : i % BK;
      As[c][r] = row0 + r < m && k0 + c < k ? A[at<TRANSPOSE_A>(row0 + r, k0 + c, m, k)] : 0.f;
    }
    for (int i = threadIdx.x; i < BK * BN; i += THREADS) {
      const int r = TRANSPOSE_B ? i % BK : i / BN, c = TRANSPOSE_B ? i / BK : i % BN;
      Bs[r][c] = k0 + r < k && column0 + c < n ? B[at<TRANSPOSE_B>(k0 + r, column0 + c, k, n)] : 0.f;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < BK; i++) {
      float a[TM], b[TN];
#pragma unroll
      for (int r = 0; r < TM; r++) a[r] = As[i][my_row + r];
#pragma unroll
      for (int c = 0; c < TN; c++) b[c] = Bs[i][my_column + c];
#pragma unroll
      for (int r = 0; r < TM; r++)
#pragma unroll
        for (int c = 0; c < TN; c++) sums[r][c] += a[r] * b[c];
    }
    __syncthreads();
  }
#pragma unroll
  for (int r = 0; r < TM; r++)
#pragma unroll
    for (int c = 0; c < TN; c++) {
      const int row = row0 + my_row + r, column = column0 + my_column + c;
      if (row < m && column < n) C[(size_t)row * n + column] = sums[r][c] + (bias ? bias[column] : 0.f);
    }
}

// Four neighbours of the stored row `line`, from `first` on; zero outside. One load of 16 bytes if
// the row's length is a multiple of four: then every row begins at a multiple of 16 bytes.
__device__ __forceinline__ float4 load4(const float* __restrict__ M, int lines, int length, int line, int first) {
  float4 v = make_float4(0.f, 0.f, 0.f, 0.f);
  if (line >= lines || first >= length) return v;
  const float* p = M + (size_t)line * length + first;
  if (length % 4 == 0) return *reinterpret_cast<const float4*>(p);
  v.x = p[0];
  if (first + 1 < length) v.y = p[1];
  if (first + 2 < length) v.z = p[2];
  if (first + 3 < length) v.w = p[3];
  return v;
}

// Copies a tile of S × L numbers (S along the sum, L along the result) into tile[S][L]. The array
// has neighbours along the result if ALONG_RESULT, else along the sum. `length` and `sum` are its sizes.
template <bool ALONG_RESULT, int S, int L, int PAD, int THREADS>
__device__ __forceinline__ void load_tile(float (&tile)[S][L + PAD], const float* __restrict__ M, int sum, int length,
                                          int sum0, int length0) {
  for (int i = threadIdx.x; i < S * L / 4; i += THREADS) {
    if (ALONG_RESULT) {
      const int s = i / (L / 4), l = i % (L / 4) * 4;
      *reinterpret_cast<float4*>(&tile[s][l]) = load4(M, sum, length, sum0 + s, length0 + l);
    } else {
      const int l = i / (S / 4), s = i % (S / 4) * 4;
      const float4 v = load4(M, length, sum, length0 + l, sum0 + s);
      tile[s][l] = v.x, tile[s + 1][l] = v.y, tile[s + 2][l] = v.z, tile[s + 3][l] = v.w;
    }
  }
}

// 4. As 3, with 16 bytes to an instruction: four times fewer loads and stores for the same numbers. Two
// blocks for each multiprocessor: more would leave too few registers for the sums.
template <bool TRANSPOSE_A, bool TRANSPOSE_B, int BM, int BN, int BK, int TM, int TN>
__global__ void __launch_bounds__((BM / TM) * (BN / TN), 2)
matmul_vectorised(int m, int n, int k, const float* __restrict__ A, const float* __restrict__ B,
                  const float* __restrict__ bias, float* __restrict__ C) {
  static_assert(TM % 4 == 0 && TN % 4 == 0 && BK % 4 == 0, "four numbers at a time");
  constexpr int THREADS = (BM / TM) * (BN / TN), PAD = 4;
  __shared__ __align__(16) float As[BK][BM + PAD];
  __shared__ __align__(16) float Bs[BK][BN + PAD];
  const int row0 = blockIdx.y * BM, column0 = blockIdx.x * BN;
  const int my_row = threadIdx.x / (BN / TN) * TM, my_column = threadIdx.x % (BN / TN) * TN;
  float sums[TM][TN] = {};
  for (int k0 = 0; k0 < k; k0 += BK) {
    load_tile<TRANSPOSE_A, BK, BM, PAD, THREADS>(As, A, k, m, k0, row0);
    load_tile<!TRANSPOSE_B, BK, BN, PAD, THREADS>(Bs, B, k, n, k0, column0);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < BK; i++) {
      float4 a[TM / 4], b[TN / 4];
#pragma unroll
      for (int r = 0; r < TM / 4; r++) a[r] = *reinterpret_cast<const float4*>(&As[i][my_row + 4 * r]);
#pragma unroll
      for (int c = 0; c < TN / 4; c++) b[c] = *reinterpret_cast<const float4*>(&Bs[i][my_column + 4 * c]);
#pragma unroll
      for (int r = 0; r < TM; r++) {
        const float4 group = a[r / 4];
        const float x = r % 4 == 0 ? group.x : r % 4 == 1 ? group.y : r % 4 == 2 ? group.z : group.w;
#pragma unroll
        for (int c = 0; c < TN / 4; c++) {
          sums[r][4 * c] += x * b[c].x;
          sums[r][4 * c + 1] += x * b[c].y;
          sums[r][4 * c + 2] += x * b[c].z;
          sums[r][4 * c + 3] += x * b[c].w;
        }
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int r = 0; r < TM; r++) {
    const int row = row0 + my_row + r;
    if (row >= m) break;
#pragma unroll
    for (int c = 0; c < TN; c += 4) {
      const int column = column0 + my_column + c;
      float* out = &C[(size_t)row * n + column];
      if (bias)
#pragma unroll
        for (int i = 0; i < 4; i++)
          if (column + i < n) sums[r][c + i] += bias[column + i];
      if (n % 4 == 0 && column < n)
        *reinterpret_cast<float4*>(out) = make_float4(sums[r][c], sums[r][c + 1], sums[r][c + 2], sums[r][c + 3]);
      else
#pragma unroll
        for (int i = 0; i < 4; i++)
          if (column + i < n) out[i] = sums[r][c + i];
    }
  }
}

// ---- tensor cores ------------------------------------------------------------------------------------
// 5. The block computes BM × BN entries, each warp WM × WN of them, by mma. There are two tiles of A and of
// B: while a pair is multiplied, the next is on its way.
template <bool TRANSPOSE_A, bool TRANSPOSE_B, int BM, int BN, int BK, int WM, int WN>
__global__ void __launch_bounds__(BM / WM * (BN / WN) * 32)
matmul_mma(int m, int n, int k, const nv_bfloat16* __restrict__ A, const nv_bfloat16* __restrict__ B,
           const float* __restrict__ bias, float* __restrict__ C) {
  static_assert(HAS_SM_80 || BM < 0, "matmul_mma needs sm_80 or later: mma of bfloat16 and cp.async");
  constexpr int THREADS = BM / WM * (BN / WN) * 32;
  constexpr int LINES_A = TRANSPOSE_A ? BK : BM, LENGTH_A = TRANSPOSE_A ? BM : BK;
  constexpr int LINES_B = TRANSPOSE_B ? BN : BK, LENGTH_B = TRANSPOSE_B ? BK : BN;
  __shared__ __align__(128) nv_bfloat16 As[2][BM * BK];
  __shared__ __align__(128) nv_bfloat16 Bs[2][BK * BN];
  const int row0 = blockIdx.y * BM, column0 = blockIdx.x * BN, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int my_row = warp / (BN / WN) * WM, my_column = warp % (BN / WN) * WN;
  const int tiles = (k + BK - 1) / BK;
  auto fetch = [&](int tile) {
    const int k0 = tile * BK;
    fetch_tile<LINES_A, LENGTH_A, THREADS>(As[tile % 2], A, TRANSPOSE_A ? k : m, TRANSPOSE_A ? m : k, TRANSPOSE_A ? k0 : row0,
                                           TRANSPOSE_A ? row0 : k0);
    fetch_tile<LINES_B, LENGTH_B, THREADS>(Bs[tile % 2], B, TRANSPOSE_B ? n : k, TRANSPOSE_B ? k : n, TRANSPOSE_B ? column0 : k0,
                                           TRANSPOSE_B ? k0 : column0);
  };
  float sums[WM / 16][WN / 8][4] = {};
  if (tiles > 0) fetch(0);
  cp_async_commit();
  for (int tile = 0; tile < tiles; tile++) {
    if (tile + 1 < tiles) fetch(tile + 1);
    cp_async_commit();   // empty after the last tile, so that there is always one group beyond this tile's
    cp_async_wait<1>();  // my copies of this tile have landed
    __syncthreads();     // everyone's have
    multiply_tiles<TRANSPOSE_A, TRANSPOSE_B, LENGTH_A, LENGTH_B, BK>(sums, As[tile % 2], Bs[tile % 2], my_row, my_column);
    __syncthreads();     // everyone has used them
  }
  store_tiles(C, m, n, row0 + my_row, column0 + my_column, sums, bias);
}

// 6. STAGES tiles of A and B in a ring. The last warp's first thread has TMA fill them; every other four
// warps, a warpgroup, compute 64 rows of the block's BM × BN entries. "full" says that a stage may be
// read, "empty" that it may be filled again: nobody waits for the whole block any more.
// A tile is kept in panels of 64 × 64, of which TMA copies one at a time.
template <bool TRANSPOSE_A, bool TRANSPOSE_B, int BM, int BN, int STAGES>
__global__ void __launch_bounds__(BM / 64 * WARPGROUP + 32)
matmul_wgmma(int m, int n, int k, const __grid_constant__ TensorMap A, const __grid_constant__ TensorMap B,
             const float* __restrict__ bias, float* __restrict__ C) {
  static_assert(HAS_SM_90A || BM < 0, "matmul_wgmma needs sm_90a: wgmma and TMA");
  constexpr int BK = 64, PANEL = 64 * 64 * 2, BYTES_A = BM / 64 * PANEL, BYTES_B = BN / 64 * PANEL;  // of a stage
  extern __shared__ __align__(1024) uint4 ring[];
  char* const As = reinterpret_cast<char*>(ring);
  char* const Bs = As + STAGES * BYTES_A;
  uint64_t* const full = reinterpret_cast<uint64_t*>(Bs + STAGES * BYTES_B);
  uint64_t* const empty = full + STAGES;
  const int row0 = blockIdx.y * BM, column0 = blockIdx.x * BN, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int tiles = (k + BK - 1) / BK, group = warp / 4;
  if (threadIdx.x == 0) {
    for (int s = 0; s < STAGES; s++) {
      mbarrier_init(&full[s], 1);             // the thread that starts the copies, and their bytes
      mbarrier_init(&empty[s], BM / 64 * 4);  // one lane of each warp that multiplies
    }
    fence_mbarrier_init();
  }
  __syncthreads();
  if (group == BM / 64) {
    if (lane > 0) return;
    for (int tile = 0; tile < tiles; tile++) {
      const int s = tile % STAGES, turn = tile / STAGES, k0 = tile * BK;
      mbarrier_wait(&empty[s], turn % 2 ^ 1);  // at once in the first turn: before phase 0 counts as ended
      mbarrier_arrive_expect_tx(&full[s], BYTES_A + BYTES_B);
      for (int p = 0; p < BM / 64; p++)
        tma_load_2d(As + s * BYTES_A + p * PANEL, A, &full[s], TRANSPOSE_A ? row0 + 64 * p : k0, TRANSPOSE_A ? k0 : row0 + 64 * p);
      for (int p = 0; p < BN / 64; p++)
        tma_load_2d(Bs + s * BYTES_B + p * PANEL, B, &full[s], TRANSPOSE_B ? k0 : column0 + 64 * p, TRANSPOSE_B ? column0 + 64 * p : k0);
    }
    return;
  }
  // A step of 16 along the sum is 32 bytes along a panel's rows, or 16 rows of 128 bytes.
  constexpr int STEP_A = TRANSPOSE_A ? 16 * 128 : 32, STEP_B = TRANSPOSE_B ? 32 : 16 * 128;
  float sums[BN / 2] = {};
  for (int tile = 0; tile < tiles; tile++) {
    const int s = tile % STAGES;
    mbarrier_wait(&full[s], tile / STAGES % 2);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < BK / 16; step++)
      wgmma_m64k16<BN, TRANSPOSE_A, !TRANSPOSE_B>(sums, wgmma_descriptor(As + s * BYTES_A + group * PANEL + step * STEP_A, PANEL, 1024),
                                                  wgmma_descriptor(Bs + s * BYTES_B + step * STEP_B, PANEL, 1024));
    wgmma_commit();
    wgmma_wait<1>();  // the tile before is done, this one goes on
    if (lane == 0 && tile > 0) mbarrier_arrive(&empty[(tile - 1) % STAGES]);
  }
  wgmma_wait<0>();
#pragma unroll
  for (int j = 0; j < BN / 8; j++)
#pragma unroll
    for (int half = 0; half < 2; half++)
      store2(C, m, n, row0 + 16 * warp + lane / 4 + 8 * half, column0 + 8 * j + lane % 4 * 2, sums[4 * j + 2 * half],
             sums[4 * j + 2 * half + 1], bias);
}

// db: the sums of dy's columns. A warp of threads reads 32 neighbouring columns of a row at once;
// the eight warps of a block take every eighth row and add their sums up in shared memory.
template <class T>
__global__ void column_sums(int rows, int columns, const T* __restrict__ dy, float* __restrict__ sums) {
  __shared__ float partial[8][33];
  const int column = blockIdx.x * 32 + threadIdx.x;
  float sum = 0.f;
  if (column < columns)
    for (int row = threadIdx.y; row < rows; row += 8) sum += (float)dy[(size_t)row * columns + column];
  partial[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0 && column < columns) {
    for (int i = 1; i < 8; i++) sum += partial[i][threadIdx.x];
    sums[column] = sum;
  }
}
