"""Faults planted into the book's kernels: checked mode catches every one and names its kind.

Each row plants one fault by replacing a piece of a kernel's text. A bound that is one too large is
a race where the next element is another thread's, and so is a barrier that some threads skip: they
run into what is not ready.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from cuda_helpers import needs_compiler, normal

from dlnotes import cuda
from dlnotes.cuda import _kernel
from dlnotes.cuda.ladders import _base
from dlnotes.cuda.ladders import linear as _linear

pytestmark = needs_compiler
OUT, RACE, UNINIT = "out of bounds", "race", "uninitialised"
DEADLOCK, UNFINISHED = "deadlock", "unfinished"
MISALIGNED, DIVERGENT, LEFT = "misaligned", "divergent barrier", "divergent warp"
BOX = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [0, 0, 2, 2], [5, 5, 6, 6]] * 18, np.float32)
SCORES = np.arange(72, 0, -1).astype(np.float32)
IDS = np.array([1, 0, 1, 2, 4], np.int64)
IMAGES, FILTERS = normal(0, 2, 3, 9, 7), normal(1, 5, 3, 3, 2)
Y_SHAPE = (2, 5, 5, 8)  # of the convolution with stride (2, 1) and padding 1
GROUPED = (IMAGES, normal(1, 6, 1, 3, 2), None, 1, 0, 1, 3)
WINDOW = (3, 2, 1)
X, DY = normal(2, 37, 45), normal(3, 37, 45)
MEAN, SCALE = X.mean(1), (1 / X.std(1)).astype(np.float32)
POOLED = (2, 3, 5, 4)
WINNERS = np.zeros(POOLED, np.int64)
TARGET = np.arange(37, dtype=np.int64)
ADAM = [normal(i, 1001) for i in range(3)] + [np.abs(normal(3, 1001)), 1]
LINEAR = (normal(4, 33, 20), normal(5, 35, 20), normal(6, 35))
BACK = (normal(7, 33, 35), *LINEAR[:2])
NORMED = (IMAGES, normal(0, 3), np.ones(3, np.float32), normal(1, 3), normal(2, 3))
NORM_BACK = (normal(3, 2, 3, 9, 7), IMAGES, normal(4, 3), normal(5, 3), np.ones(3, np.float32))
ATTENTION = (normal(0, 2, 37, 20), normal(1, 2, 41, 20), normal(2, 2, 41, 24))
ATTENDED = (normal(3, 2, 37, 24), *ATTENTION, normal(4, 2, 37, 24), normal(5, 2, 37))
WORDS = tuple(cuda.to_bfloat16(normal(i, 2, n, 24)) for i, n in enumerate((37, 90, 90)))
DWORDS = (cuda.to_bfloat16(normal(3, 2, 37, 24)), *WORDS, normal(4, 2, 37, 24), normal(5, 2, 37))
NO_KEYS = (WORDS[0], *[np.zeros((2, 0, 24), np.uint16)] * 2)
SEEN = (*WORDS[1:], WORDS[2], None, True)
MASKED = (*WORDS, normal(3, 37, 90))
TENSOR = (*map(cuda.to_bfloat16, (normal(4, 33, 72), normal(5, 35, 72))), normal(6, 35))
ODD = tuple(map(cuda.to_bfloat16, (normal(4, 33, 20), normal(5, 35, 20))))
LONG = tuple(map(cuda.to_bfloat16, (normal(4, 5, 400), normal(5, 3, 400))))  # more than the ring
PHOTOS = (*map(cuda.to_bfloat16, (normal(0, 2, 8, 9, 7), normal(1, 5, 8, 3, 3))), None, (2, 1), 1)
PHOTOS_BACK = (cuda.to_bfloat16(normal(2, 2, 5, 5, 7)), *PHOTOS[:2], (2, 1), 1)
WIDE_BACK = tuple(
    map(cuda.to_bfloat16, (normal(0, 1, 5, 24, 24), normal(1, 1, 2, 24, 24), normal(2, 5, 2, 1, 1)))
)
FOUR_BACK = tuple(
    map(cuda.to_bfloat16, (normal(0, 2, 5, 6, 6), normal(1, 2, 2, 6, 6), normal(2, 5, 2, 1, 1)))
)
MMA_BACK = "conv_backward_mma"
SPREAD = (normal(0, *Y_SHAPE), FILTERS)  # through the transposed convolution, to the images' shape
SPREAD_BACK = (IMAGES, *SPREAD, (2, 1), 1)
SPREAD_TENSOR = (PHOTOS_BACK[0], PHOTOS[1])
SPREAD_TENSOR_BACK = (PHOTOS[0], *SPREAD_TENSOR, (2, 1), 1)
TENSOR_BACK = (TENSOR[0][:, :35].copy(), *TENSOR[:2])
KEEP = "if (more) keep<BK, BK>(columns[(tile + 1) % 2], pairs, threadIdx.x, 0);"
LANDED = "    cp_async_wait<1>();  // my copies of this tile have landed\n"
LANDED_KEYS = "    cp_async_wait<0>();  // my copies of these keys have landed\n"
TILES_THERE = "  if (tiles > 0) {\n    fetch_tile<ROWS, D, THREADS>(Q, q, p"
LANDED_PAIR = "    cp_async_wait<0>();  // my copies of this tile have landed\n"
EMPTY_GROUP = "    cp_async_commit();   // empty after the last tile, so that there is always one group beyond this tile's\n"
WGMMA = "matmul_wgmma"
STATES = [normal(i, 11, 19) for i in range(3)]
LSTM = (
    normal(3, 11, 21),
    *STATES[:2],
    normal(4, 76, 21),
    normal(5, 76, 19),
    normal(6, 76),
    normal(7, 76),
)
GRU = (
    normal(3, 11, 21),
    STATES[0],
    normal(4, 57, 21),
    normal(5, 57, 19),
    normal(6, 57),
    normal(7, 57),
)
LSTM_BACK = (normal(8, 11, 19), None, *LSTM[:3], STATES[2], normal(9, 11, 76), *LSTM[3:5])
GRU_BACK = (normal(8, 11, 19), *GRU[:2], normal(9, 11, 76), *GRU[2:4])
PAIRS = (np.arange(41) % 7, np.arange(41) % 5, np.arange(123).reshape(41, 3) % 5)
SKIP_GRAM = (normal(0, 7, 37), normal(1, 5, 37), *PAIRS, 0.1)
SAMPLED = (normal(0, 41, 37), normal(1, 5, 37), *PAIRS[1:])
GRAM = (normal(0, 2, 19, 5, 7),)
TILED = "    __syncthreads();  // the tiles are complete\n"

# ladder, rung, inputs, kind of fault, text, its replacement
MUTANTS = [
    # the matrix product
    ("linear", "matmul_naive", LINEAR, OUT, "if (row >= m || column >= n) return;", "if (row > m || column >= n) return;"),
    ("linear", "matmul_naive", LINEAR, RACE, "float* __restrict__ C) {\n  const int row = blockIdx.y * blockDim.y + threadIdx.y;", "float* __restrict__ C) {\n  const int row = blockIdx.y * blockDim.y;"),
    ("linear", "matmul_tiled", LINEAR, RACE, TILED, ""),
    ("linear", "matmul_tiled", LINEAR, RACE, "    __syncthreads();  // everyone has used them\n", ""),
    ("linear", "matmul_tiled", LINEAR, OUT, "k0 + ak < k ?", "k0 + ak <= k ?"),
    ("linear", "matmul_tiled", LINEAR, OUT, "column0 + bc < n ?", "true ?"),
    ("linear", "matmul_tiled", LINEAR, OUT, "float As[TILE][TILE + (TRANSPOSE_A ? 32 / TILE : 0)]", "float As[TILE][TILE - 1]"),
    ("linear", "matmul_tiled", LINEAR, UNINIT, "As[ar][ak] = row0 + ar < m && k0 + ak < k ? A[at<TRANSPOSE_A>(row0 + ar, k0 + ak, m, k)] : 0.f;", "if (row0 + ar < m && k0 + ak < k) As[ar][ak] = A[at<TRANSPOSE_A>(row0 + ar, k0 + ak, m, k)];"),
    ("linear", "matmul_tiled", LINEAR, RACE, TILED, "    if (row0 + y < m) __syncthreads();\n"),
    ("linear", "matmul_tiled", LINEAR, DIVERGENT, "  float sum = 0.f;\n  for (int k0 = 0; k0 < k; k0 += TILE) {\n    // N", "  float sum = 0.f;\n  if (column0 + x >= n) return;\n  for (int k0 = 0; k0 < k; k0 += TILE) {\n    // N"),
    ("linear", "matmul_blocked", LINEAR, RACE, "    __syncthreads();\n  }\n#pragma unroll\n  for (int r = 0; r < TM; r++)\n#pragma unroll\n    for (int c = 0; c < TN; c++) {", "  }\n#pragma unroll\n  for (int r = 0; r < TM; r++)\n#pragma unroll\n    for (int c = 0; c < TN; c++) {"),
    ("linear", "matmul_blocked", LINEAR, OUT, "if (row < m && column < n) C[(size_t)row * n + column] = sums", "if (row <= m && column < n) C[(size_t)row * n + column] = sums"),
    ("linear", "matmul_blocked", LINEAR, UNINIT, "i < BM * BK; i += THREADS", "i < BM * BK - 1; i += THREADS"),
    ("linear", "matmul_vectorised", LINEAR, MISALIGNED, "PAD = 4;\n  __shared__ __align__(16) float As", "PAD = 5;\n  __shared__ __align__(16) float As"),
    ("linear", "matmul_vectorised", LINEAR, MISALIGNED, "if (n % 4 == 0 && column < n)", "if (column + 3 < n)"),
    ("linear", "matmul_vectorised", (normal(4, 33, 21), normal(5, 35, 21), None), MISALIGNED, "if (length % 4 == 0) return", "if (first + 3 < length) return"),
    ("linear", "matmul_vectorised", LINEAR, OUT, "if (line >= lines || first >= length) return v;", "if (line > lines || first >= length) return v;"),
    ("linear", "matmul_vectorised", LINEAR, RACE, "if (column + i < n) out[i]", "if (column + i <= n) out[i]"),
    ("linear_backward", "matmul_tiled", BACK, RACE, "  partial[threadIdx.y][threadIdx.x] = sum;\n  __syncthreads();", "  partial[threadIdx.y][threadIdx.x] = sum;"),
    ("linear_backward", "matmul_tiled", BACK, OUT, "for (int i = 1; i < 8; i++) sum += partial", "for (int i = 1; i <= 8; i++) sum += partial"),
    ("linear_backward", "matmul_tiled", BACK, OUT, "  if (threadIdx.y == 0 && column < columns) {\n    for (int i = 1; i < 8; i++) sum", "  if (threadIdx.y == 0) {\n    for (int i = 1; i < 8; i++) sum"),
    ("linear_backward", "matmul_naive", BACK, OUT, "if (row >= m || column >= n) return;", "if (row > m || column >= n) return;"),
    ("linear_backward", "matmul_blocked", BACK, OUT, "if (row < m && column < n) C[(size_t)row * n + column] = sums", "if (row <= m && column < n) C[(size_t)row * n + column] = sums"),
    ("linear_backward", "matmul_vectorised", BACK, OUT, "if (line >= lines || first >= length) return v;", "if (line > lines || first >= length) return v;"),
    # the matrix product on tensor cores
    ("linear", "matmul_mma", TENSOR, RACE, LANDED, ""),
    ("linear", "matmul_mma", TENSOR, RACE, LANDED, LANDED.replace("<1>", "<2>")),
    ("linear", "matmul_mma", TENSOR, RACE, EMPTY_GROUP, ""),
    ("linear", "matmul_mma", TENSOR, RACE, "    __syncthreads();     // everyone's have\n", ""),
    ("linear", "matmul_mma", TENSOR, RACE, "my_row, my_column);\n    __syncthreads();     // everyone has used them\n", "my_row, my_column);\n"),
    ("linear", "matmul_mma", TENSOR, RACE, "As[tile % 2], A,", "As[0], A,"),
    ("linear", "matmul_mma", TENSOR, OUT, "line < lines ? min(max(length - entry, 0), 8) : 0", "min(max(length - entry, 0), 8)"),
    ("linear", "matmul_mma", TENSOR, OUT, "min(max(length - entry, 0), 8)", "8"),
    ("linear", "matmul_mma", TENSOR, RACE, "% (CHUNKS < 8 ? CHUNKS : 8)) * 8", "% 8) * 8"),
    ("linear", "matmul_mma", TENSOR, UNINIT, "whole && turn < EACH;", "whole && turn < EACH - 1;"),
    ("linear", "matmul_mma", ODD, OUT, "line < lines ? min(max(length - entry, 0), 8) : 0", "min(max(length - entry, 0), 8)"),
    ("linear", "matmul_mma", ODD, OUT, "      if (e < chunk.inside) pairs", "      if (chunk.inside) pairs"),
    ("linear", "matmul_mma", ODD, MISALIGNED, "whole = length % 8 == 0 &&", "whole = length % 4 == 0 &&"),
    ("linear", "matmul_mma", TENSOR, OUT, "  if (row >= m || column >= n) return;\n", "  if (row > m || column >= n) return;\n"),
    ("linear", "matmul_mma", TENSOR, MISALIGNED, "  if (n % 2 == 0) {\n", "  if (both) {\n"),
    ("linear_backward", "matmul_mma", TENSOR_BACK, RACE, LANDED, ""),
    ("linear_backward", WGMMA, TENSOR_BACK, RACE, "    mbarrier_wait(&full[s], tile / STAGES % 2);\n", ""),
    ("linear_backward", WGMMA, TENSOR_BACK, OUT, "for (int i = 1; i < 8; i++) sum += partial", "for (int i = 1; i <= 8; i++) sum += partial"),
    ("linear", WGMMA, LONG, RACE, "    mbarrier_wait(&full[s], tile / STAGES % 2);\n", ""),
    ("linear", WGMMA, LONG, RACE, "tile / STAGES % 2);", "tile / STAGES % 2 ^ 1);"),
    ("linear", WGMMA, LONG, "mbarrier", "      mbarrier_wait(&empty[s], turn % 2 ^ 1);", "      //"),
    ("linear", WGMMA, LONG, "mbarrier", "turn % 2 ^ 1);", "1);"),
    ("linear", WGMMA, LONG, DEADLOCK, "if (lane == 0 && tile > 0) mbarrier_arrive", "if (lane == 0 && tile > 9) mbarrier_arrive"),
    ("linear", WGMMA, LONG, RACE, "tile > 0) mbarrier_arrive(&empty[(tile - 1) % STAGES]);", "tile >= 0) mbarrier_arrive(&empty[s]);"),
    ("linear", WGMMA, LONG, DEADLOCK, "if (lane == 0 && tile > 0)", "if (lane < 2 && tile > 0)"),
    ("linear", WGMMA, LONG, "mbarrier", "    fence_mbarrier_init();\n", ""),
    ("linear", WGMMA, LONG, RACE, "    fence_mbarrier_init();\n  }\n  __syncthreads();\n", "    fence_mbarrier_init();\n  }\n"),
    ("linear", WGMMA, LONG, RACE, "&full[s], BYTES_A + BYTES_B);", "&full[s], BYTES_A);"),
    ("linear", WGMMA, LONG, DEADLOCK, "&full[s], BYTES_A + BYTES_B);", "&full[s], BYTES_A + 2 * BYTES_B);"),
    ("linear", WGMMA, LONG, MISALIGNED, "As + s * BYTES_A + p * PANEL, A,", "As + s * BYTES_A + p * PANEL + 512, A,"),
    ("linear", WGMMA, LONG, "wgmma", "    wgmma_fence();\n", ""),
    ("linear", WGMMA, LONG, UNFINISHED, "  wgmma_wait<0>();\n", ""),
    ("linear", WGMMA, LONG, RACE, "    wgmma_wait<1>();", "    //"),
    ("linear", WGMMA, LONG, RACE, "    wgmma_commit();\n", ""),
    ("linear", WGMMA, LONG, RACE, "Bs + s * BYTES_B + step * STEP_B, PANEL, 1024", "Bs + s * BYTES_B + step * STEP_B, PANEL, 8192"),
    ("linear", WGMMA, LONG, OUT, "  if (row >= m || column >= n) return;\n", "  if (column >= n) return;\n"),
    # softmax
    ("softmax", "softmax_naive", (X,), OUT, "if (row >= rows) return;\n  x += (size_t)row * columns;\n  y += (size_t)row * columns;\n  float largest = -INFINITY, sum = 0.f;\n  for (int i = 0; i < columns; i++) largest", "x += (size_t)row * columns;\n  y += (size_t)row * columns;\n  float largest = -INFINITY, sum = 0.f;\n  for (int i = 0; i < columns; i++) largest"),
    ("softmax", "softmax_naive", (X,), RACE, "for (int i = 0; i < columns; i++) y[i]", "for (int i = 0; i <= columns; i++) y[i]"),
    ("softmax", "softmax_naive", (X,), RACE, "y += (size_t)row * columns;\n  float largest = -INFINITY, sum = 0.f;\n  for (int i = 0;", "y += (size_t)row * (columns - 1);\n  float largest = -INFINITY, sum = 0.f;\n  for (int i = 0;"),
    ("softmax", "softmax_block", (X,), RACE, "  shared[i] = v;\n  __syncthreads();", "  shared[i] = v;"),
    ("softmax", "softmax_block", (X,), RACE, "  __syncthreads();  // shared may be overwritten only when all have read\n", ""),
    ("softmax", "softmax_block", (X,), OUT, "for (int half = blockDim.x / 2;", "for (int half = blockDim.x;"),
    ("softmax", "softmax_block", (X,), UNINIT, "  shared[i] = v;", "  if (i > 0) shared[i] = v;"),
    ("softmax", "softmax_block", (X,), RACE, "shared[i] = Op::join(shared[i], shared[i + half]);\n    __syncthreads();", "{\n      shared[i] = Op::join(shared[i], shared[i + half]);\n      __syncthreads();\n    }"),
    ("softmax", "softmax_warp", (X,), RACE, "for (int i = lane; i < columns; i += WARP) y[i] = expf(x[i] - largest) / sum;", "for (int i = lane; i < columns + 1; i += WARP) y[i] = expf(x[i] - largest) / sum;"),
    ("softmax", "softmax_online", (X,), OUT, "const float v = x[i];", "const float v = x[i + 1];"),
    ("softmax_backward", "softmax_backward_naive", (DY, X), OUT, "if (row >= rows) return;\n  dy +=", "if (row > rows) return;\n  dy +="),
    ("softmax_backward", "softmax_backward_warp", (DY, X), OUT, "if (row >= rows) return;\n  const size_t start", "if (row > rows) return;\n  const size_t start"),
    ("softmax_backward", "softmax_backward_kept", (DY, X), OUT, "g[j] = i < columns ? dy[i] : 0.f;", "g[j] = dy[i];"),
    ("softmax_backward", "softmax_backward_kept", (DY, X), RACE, "if (i < columns) dx[i] = p[j]", "if (i <= columns) dx[i] = p[j]"),
    # losses and sums
    ("cross_entropy", "cross_entropy_naive", (X, TARGET), RACE, "i < classes; i++)\n    dx[i]", "i <= classes; i++)\n    dx[i]"),
    ("cross_entropy", "cross_entropy_fused", (X, TARGET), OUT, "if (row >= rows) return;\n  x += (size_t)row * classes;\n  dx += (size_t)row * classes;\n  const long long label = labels[row];\n  const float counts", "x += (size_t)row * classes;\n  dx += (size_t)row * classes;\n  const long long label = labels[row];\n  const float counts"),
    ("cross_entropy", "cross_entropy_fused", (X, TARGET), RACE, "if (lane == 0) losses[row]", "losses[row]"),
    ("cross_entropy", "cross_entropy_fused", (X, np.full(37, 45)), OUT, "x[label] - largest", "x[label + 37 * 45] - largest"),
    ("sum", "sum_atomic", (normal(0, 300),), OUT, "if (i < n) atomicAdd", "if (i <= n) atomicAdd"),
    ("sum", "sum_atomic", (normal(0, 300),), RACE, "atomicAdd(total, x[i]);", "*total += x[i];"),
    ("sum", "sum_block", (normal(0, 300),), RACE, "if (lane == 0) partial[warp] = v;\n  __syncthreads();", "if (lane == 0) partial[warp] = v;"),
    ("sum", "sum_block", (normal(0, 300),), UNINIT, "lane < blockDim.x / WARP ? partial[lane] : Op::identity()", "partial[lane]"),
    ("sum", "sum_block", (normal(0, 300),), LEFT, "const float sum = block_reduce<Add>(i < n ? x[i] : 0.f);", "if (i >= n) return;\n  const float sum = block_reduce<Add>(x[i]);"),
    ("sum", "sum_grid", (normal(0, 300),), OUT, "i < n; i += gridDim.x", "i <= n; i += gridDim.x"),
    # layer norm
    ("layer_norm", "layer_norm_naive", (X, *normal(0, 2, 45)), OUT, "scale_of[row] = scale;", "scale_of[row + 1] = scale;"),
    ("layer_norm", "layer_norm_warp", (X, *normal(0, 2, 45)), RACE, "if (lane == 0) mean_of[row] = mean, scale_of[row] = scale;", "mean_of[row] = mean, scale_of[row] = scale;"),
    ("layer_norm", "layer_norm_kept", (X, *normal(0, 2, 45)), UNINIT, "sum += kept[i] = x[i];", "{\n    sum += x[i];\n    if (i) kept[i] = x[i];\n  }"),
    ("layer_norm", "layer_norm_kept", (X, *normal(0, 2, 45)), OUT, "sum += kept[i] = x[i];", "sum += kept[i + 1] = x[i];"),
    ("layer_norm", "layer_norm_kept", (X, *normal(0, 2, 45)), RACE, "  __syncthreads();  // partial may still be read from the call before\n", ""),
    ("layer_norm", "layer_norm_kept", (X, *normal(0, 2, 45)), DIVERGENT, "  if (threadIdx.x == 0) mean_of[blockIdx.x]", "  if (threadIdx.x < 32) __syncthreads();\n  if (threadIdx.x == 0) mean_of[blockIdx.x]"),
    ("layer_norm_backward", "layer_norm_backward_naive", (DY, X, X[0], MEAN, SCALE), RACE, "atomicAdd(&dbias[i], dy[start + i]);", "dbias[i] += dy[start + i];"),
    ("layer_norm_backward", "layer_norm_backward_warp", (DY, X, X[0], MEAN, SCALE), RACE, "biases[threadIdx.y][threadIdx.x] = b;\n  __syncthreads();", "biases[threadIdx.y][threadIdx.x] = b;"),
    ("layer_norm_backward", "layer_norm_backward_warp", (DY, X, X[0], MEAN, SCALE), UNINIT, "  biases[threadIdx.y][threadIdx.x] = b;", "  if (threadIdx.y) biases[threadIdx.y - 1][threadIdx.x] = b;"),
    ("layer_norm_backward", "layer_norm_backward_warp", (DY, X, X[0], MEAN, SCALE), OUT, "if (column < columns)\n    for (int row", "if (column <= columns)\n    for (int row"),
    # batch norm
    ("batch_norm", "batch_norm_naive", NORMED, OUT, "if (channel >= p.channels) return;\n  float mean = 0.f", "if (channel > p.channels) return;\n  float mean = 0.f"),
    ("batch_norm", "batch_norm_naive", NORMED, RACE, "y[entry(p, channel, i)] = (x[entry(p, channel, i)] - mean) * factor + shift;\n  write", "y[entry(p, channel / 2, i)] = (x[entry(p, channel, i)] - mean) * factor + shift;\n  write"),
    ("batch_norm", "batch_norm_block", NORMED, OUT, "i < count; i += blockDim.x) sum +=", "i <= count; i += blockDim.x) sum +="),
    ("batch_norm", "batch_norm_block", NORMED, RACE, "if (threadIdx.x == 0) write_statistics", "write_statistics"),
    ("batch_norm", "batch_norm_welford", NORMED, RACE, "squares[warp] = m.squares;\n  __syncthreads();", "squares[warp] = m.squares;"),
    ("batch_norm", "batch_norm_welford", NORMED, RACE, "  __syncthreads();  // all use the same mean, to the last bit\n", ""),
    ("batch_norm", "batch_norm_welford", NORMED, UNINIT, "i < blockDim.x / WARP; i++) m.join", "i <= blockDim.x / WARP; i++) m.join"),
    ("batch_norm", "batch_norm_welford", NORMED, LEFT, "  for (int bit = WARP / 2; bit > 0; bit /= 2)\n    m.join", "  if (threadIdx.x == 130) return;\n  for (int bit = WARP / 2; bit > 0; bit /= 2)\n    m.join"),
    ("batch_norm_inference", "batch_norm_inference_naive", NORMED, OUT, "if (i >= (size_t)p.images * p.channels * p.length) return;", ""),
    ("batch_norm_inference", "batch_norm_inference_plane", NORMED, OUT, "channel = blockIdx.x % p.channels;", "channel = blockIdx.x;"),
    ("batch_norm_inference", "batch_norm_inference_plane", NORMED, RACE, "i < p.length; i += blockDim.x) y", "i <= p.length; i += blockDim.x) y"),
    ("batch_norm_backward", "batch_norm_backward_naive", NORM_BACK, RACE, "dbias[channel] = sum;\n  for", "dbias[0] = sum;\n  for"),
    ("batch_norm_backward", "batch_norm_backward_block", NORM_BACK, RACE, "if (threadIdx.x == 0) dweight[channel]", "dweight[channel]"),
    # RMS norm, group norm
    ("rms_norm", "rms_norm_naive", (X, X[0]), OUT, "if (row >= rows) return;\n  x += (size_t)row * columns, y += (size_t)row * columns;\n  float squares = 0.f;\n  for (int i = 0;", "x += (size_t)row * columns, y += (size_t)row * columns;\n  float squares = 0.f;\n  for (int i = 0;"),
    ("rms_norm", "rms_norm_warp", (X, X[0]), RACE, "if (lane == 0) scale_of[row] = scale;", "scale_of[row] = scale;"),
    ("rms_norm_backward", "rms_norm_backward_naive", (DY, X, X[0], SCALE), RACE, "atomicAdd(&dweight[i], dy[i] * n);", "dweight[i] += dy[i] * n;"),
    ("rms_norm_backward", "rms_norm_backward_warp", (DY, X, X[0], SCALE), RACE, "  partial[threadIdx.y][threadIdx.x] = sum;\n  __syncthreads();", "  partial[threadIdx.y][threadIdx.x] = sum;"),
    ("rms_norm_backward", "rms_norm_backward_warp", (DY, X, X[0], SCALE), OUT, "for (int i = 1; i < 8; i++) sum += partial", "for (int i = 1; i <= 8; i++) sum += partial"),
    ("group_norm", "group_norm_naive", (IMAGES, 3, *normal(0, 2, 3)), OUT, "if (row >= p.images * p.groups) return;\n  x +=", "if (row > p.images * p.groups) return;\n  x +="),
    ("group_norm", "group_norm_block", (IMAGES, 3, *normal(0, 2, 3)), OUT, "return row % groups * (channels / groups) + i / length;", "return row * (channels / groups) + i / length;"),
    ("group_norm", "group_norm_block", (IMAGES, 3, *normal(0, 2, 3)), RACE, "if (threadIdx.x == 0) mean_of[row]", "mean_of[row]"),
    ("group_norm_backward", "group_norm_backward_naive", (IMAGES, IMAGES, 3, X[0, :3].copy(), X[:2, :3].copy(), X[:2, :3].copy()), OUT, "dx[i] = scale * (g - sum / size", "dx[i + 1] = scale * (g - sum / size"),
    ("group_norm_backward", "group_norm_backward_block", (IMAGES, IMAGES, 3, X[0, :3].copy(), X[:2, :3].copy(), X[:2, :3].copy()), OUT, "i < p.images * p.length; i += blockDim.x", "i <= p.images * p.length; i += blockDim.x"),
    # local response normalisation
    ("local_response_norm", "local_response_naive", (IMAGES, 3), OUT, "c < min(first + p.size, p.channels); c++) {\n    const float v", "c <= min(first + p.size, p.channels); c++) {\n    const float v"),
    ("local_response_norm", "local_response_tiled", (IMAGES, 3), RACE, "0.f;\n  }\n  __syncthreads();\n  float sum = 0.f;\n  for (int i = 0; i < p.size", "0.f;\n  }\n  float sum = 0.f;\n  for (int i = 0; i < p.size"),
    ("local_response_norm", "local_response_tiled", (IMAGES, 3), OUT, "channel < p.channels && place < p.length;", "place < p.length;"),
    ("local_response_norm", "local_response_tiled", (IMAGES, 3), UNINIT, "row < blockDim.y + p.size - 1; row", "row < blockDim.y + p.size - 2; row"),
    ("local_response_norm_backward", "local_response_backward_naive", (IMAGES, IMAGES, IMAGES, 3), OUT, "if (at >= p.images * p.channels * p.length) return;", ""),
    ("local_response_norm_backward", "local_response_backward_tiled", (IMAGES, IMAGES, IMAGES, 3), RACE, "if (channel >= p.channels || place >= p.length) return;", "if (channel >= p.channels) return;"),
    # pooling
    ("max_pool2d", "max_pool_naive", (IMAGES, *WINDOW), OUT, "if (o >= images * p.out_h * p.out_w) return;\n  const int column = o % p.out_w, row = o / p.out_w % p.out_h, image = o / (p.out_w * p.out_h);\n  const float* plane = x + (size_t)image * p.h * p.w;\n  const int top", "const int column = o % p.out_w, row = o / p.out_w % p.out_h, image = o / (p.out_w * p.out_h);\n  const float* plane = x + (size_t)image * p.h * p.w;\n  const int top"),
    ("avg_pool2d", "avg_pool_naive", (IMAGES, *WINDOW), OUT, "{ return max(out * stride - padding, 0); }", "{ return out * stride - padding; }"),
    ("avg_pool2d", "avg_pool_tiled", (IMAGES, *WINDOW), RACE, "tile, tile_h, tile_w);\n  __syncthreads();\n  const int row = blockIdx.y * blockDim.y + threadIdx.y, column = blockIdx.x * blockDim.x + threadIdx.x;\n  if (row >= p.out_h || column >= p.out_w) return;\n  float sum", "tile, tile_h, tile_w);\n  const int row = blockIdx.y * blockDim.y + threadIdx.y, column = blockIdx.x * blockDim.x + threadIdx.x;\n  if (row >= p.out_h || column >= p.out_w) return;\n  float sum"),
    ("avg_pool2d", "avg_pool_tiled", (IMAGES, *WINDOW), OUT, "const bool inside = row >= 0 && row < p.h", "const bool inside = row >= 0 && row <= p.h"),
    ("avg_pool2d", "avg_pool_tiled", (normal(0, 1, 1, 17, 9), *WINDOW), OUT, "tile[(threadIdx.y * p.stride_h + i) * tile_w", "tile[(threadIdx.y * p.stride_h + i + 1) * tile_w"),
    ("avg_pool2d", "avg_pool_tiled", (IMAGES, *WINDOW), UNINIT, "tile[i] = inside ? plane[row * p.w + column] : outside;", "if (inside) tile[i] = plane[row * p.w + column];"),
    ("max_pool2d", "max_pool_tiled", (IMAGES, *WINDOW), DIVERGENT, "tile, tile_h, tile_w);\n  __syncthreads();\n  const int row = blockIdx.y * blockDim.y + threadIdx.y, column = blockIdx.x * blockDim.x + threadIdx.x;\n  if (row >= p.out_h || column >= p.out_w) return;\n  //", "tile, tile_h, tile_w);\n  const int row = blockIdx.y * blockDim.y + threadIdx.y, column = blockIdx.x * blockDim.x + threadIdx.x;\n  if (row >= p.out_h || column >= p.out_w) return;\n  __syncthreads();\n  //"),
    ("max_pool2d_backward", "max_pool_backward_gather", (normal(0, *POOLED), WINNERS, IMAGES.shape, *WINDOW), OUT, "if (at >= images * p.h * p.w) return;", ""),
    ("max_pool2d_backward", "max_pool_backward_gather", (normal(0, *POOLED), WINNERS, IMAGES.shape, *WINDOW), RACE, "  dx[at] = sum;", "  dx[at / 2] = sum;"),
    ("max_pool2d_backward", "max_pool_backward_scatter", (normal(0, *POOLED), WINNERS, IMAGES.shape, *WINDOW), RACE, "atomicAdd(&dx[(size_t)(o / outputs) * p.h * p.w + indices[o]], dy[o]);", "dx[(size_t)(o / outputs) * p.h * p.w + indices[o]] += dy[o];"),
    ("avg_pool2d_backward", "avg_pool_backward_scatter", (normal(0, *POOLED), IMAGES.shape, *WINDOW), RACE, "atomicAdd(&dx[((size_t)image * p.h + i) * p.w + j], share);", "dx[((size_t)image * p.h + i) * p.w + j] += share;"),
    ("avg_pool2d_backward", "avg_pool_backward_gather", (normal(0, *POOLED), (2, 3, 10, 8), *WINDOW), OUT, "{ return min((i + padding) / stride + 1, out); }", "{ return (i + padding) / stride + 1; }"),
    ("adaptive_avg_pool2d", "adaptive_avg_pool_naive", (IMAGES, (4, 3)), OUT, "return ((out + 1) * size + outs - 1) / outs;", "return ((out + 1) * size + outs) / outs;"),
    ("adaptive_avg_pool2d", "adaptive_avg_pool_warp", (IMAGES, (4, 3)), RACE, "if (lane == 0) y[o]", "y[o]"),
    ("adaptive_avg_pool2d", "adaptive_avg_pool_warp", (IMAGES, (5, 3)), OUT, "if (o >= images * out_h * out_w) return;\n  const int column = o % out_w, row = o / out_w % out_h;\n  const float* plane = x + (size_t)(o / out_w / out_h) * h * w;\n  const int top = first_in(row, h, out_h), rows", "const int column = o % out_w, row = o / out_w % out_h;\n  const float* plane = x + (size_t)(o / out_w / out_h) * h * w;\n  const int top = first_in(row, h, out_h), rows"),
    ("adaptive_avg_pool2d_backward", "adaptive_avg_pool_backward_scatter", (normal(0, 2, 3, 4, 3), IMAGES.shape), RACE, "atomicAdd(&plane[i * w + j], share);", "plane[i * w + j] += share;"),
    ("adaptive_avg_pool2d_backward", "adaptive_avg_pool_backward_gather", (normal(0, 2, 3, 4, 3), IMAGES.shape), OUT, "if (at >= images * h * w) return;\n  const int column = at % w, row = at / w % h;\n  const float* plane = dy", "const int column = at % w, row = at / w % h;\n  const float* plane = dy"),
    # convolution
    ("conv2d", "conv_direct", (IMAGES, FILTERS, None, (2, 1), 1), OUT, "if (row < 0 || row >= p.h || column < 0", "if (row >= p.h || column < 0"),
    ("conv2d", "conv_direct", (IMAGES, FILTERS, None, (2, 1), 1), OUT, "if (o >= p.n * p.c_out * p.out_h * p.out_w) return;", ""),
    ("conv2d", "conv_implicit", (IMAGES, FILTERS, None, (2, 1), 1), RACE, "    __syncthreads();\n#pragma unroll", "#pragma unroll"),
    ("conv2d", "conv_implicit", (IMAGES, FILTERS, None, (2, 1), 1), RACE, "sum += As[ty][i] * Bs[i][tx];\n    __syncthreads();", "sum += As[ty][i] * Bs[i][tx];"),
    ("conv2d", "conv_implicit", (IMAGES, FILTERS, None, (2, 1), 1), OUT, "if (row < outs && position < p.n * outputs)", "if (position < p.n * outputs)"),
    ("conv2d", "conv_implicit", (IMAGES, FILTERS, None, (2, 1), 1), OUT, "column >= p.w) return 0.f;\n  return x", "column > p.w + 60) return 0.f;\n  return x"),
    ("conv2d", "conv_implicit", (IMAGES, FILTERS, None, (2, 1), 1), UNINIT, "As[ty][tx] = row < m && k0 + tx < k ? a(row, k0 + tx) : 0.f;", "if (row < m && k0 + tx < k) As[ty][tx] = a(row, k0 + tx);"),
    ("conv2d", "conv_implicit", (IMAGES, FILTERS, None, (2, 1), 1), DIVERGENT, "  float sum = 0.f;\n  for (int k0", "  float sum = 0.f;\n  if (row >= m) return 0.f;\n  for (int k0"),
    ("conv2d", "conv_mma", PHOTOS, RACE, "    cp_async_wait<1>();  // my copies of this tile's weights have landed\n", ""),
    ("conv2d", "conv_mma", PHOTOS, RACE, "    cp_async_commit();\n    cp_async_wait<1>();  // my", "    cp_async_wait<1>();  // my"),
    ("conv2d", "conv_mma", PHOTOS, RACE, "    __syncthreads();     // everyone's, and the columns are there\n", ""),
    ("conv2d", "conv_mma", PHOTOS, RACE, f"{KEEP}\n    __syncthreads();     // everyone has used them\n", f"{KEEP}\n"),
    ("conv2d", "conv_mma", PHOTOS, RACE, KEEP, KEEP.replace("(tile + 1)", "tile")),
    ("conv2d", "conv_mma", PHOTOS, UNINIT, "i < N / 8; i++)\n    *", "i < N / 8 - 1; i++)\n    *"),
    ("conv2d", "conv_mma", PHOTOS, OUT, "image < p.n ? row * p.stride_h - p.padding_h : FAR_ABOVE", "row * p.stride_h - p.padding_h"),
    ("conv2d", "conv_mma", PHOTOS, OUT, "channel < v.channels && row >= 0", "row >= 0"),
    ("conv2d", "conv_mma", PHOTOS, OUT, "row >= 0 && row < v.h && column", "row < v.h && column"),
    ("conv2d", "conv_mma", PHOTOS, OUT, "return position < positions ? y + ((size_t)(position / outputs) * p.c_out + first_out) * outputs + position % outputs : nullptr;", "return y + ((size_t)(position / outputs) * p.c_out + first_out) * outputs + position % outputs;"),
    ("conv2d", "conv_mma", PHOTOS, OUT, "if (line < lines) here", "here"),
    ("conv2d_backward", MMA_BACK, WIDE_BACK, RACE, "    cp_async_wait<1>();  // my copies of this tile of dy have landed\n", ""),
    ("conv2d_backward", MMA_BACK, WIDE_BACK, RACE, "    cp_async_commit();\n    cp_async_wait<1>();  // my copies of this tile of dy", "    cp_async_wait<1>();  // my copies of this tile of dy"),
    ("conv2d_backward", MMA_BACK, PHOTOS_BACK, RACE, "chunk);\n    __syncthreads();     // everyone has used them\n", "chunk);\n"),
    ("conv2d_backward", MMA_BACK, PHOTOS_BACK, RACE, "columns[(tile + 1) % 2], pairs, line, chunk", "columns[tile % 2], pairs, line, chunk"),
    ("conv2d_backward", MMA_BACK, PHOTOS_BACK, RACE, "line = threadIdx.x % BK", "line = threadIdx.x % BK / 2"),
    ("conv2d_backward", MMA_BACK, PHOTOS_BACK, UNINIT, "EACH = BN * BK / THREADS;", "EACH = BN * BK / THREADS / 2;"),
    ("conv2d_backward", MMA_BACK, FOUR_BACK, MISALIGNED, "whole = outputs % 8 == 0 &&", "whole = outputs % 4 == 0 &&"),
    ("conv2d_backward", MMA_BACK, PHOTOS_BACK, OUT, "outs && image < p.n ? min", "outs ? min"),
    ("conv2d_backward", MMA_BACK, PHOTOS_BACK, OUT, "out0 + out < outs && image < p.n ? min", "image < p.n ? min"),
    ("conv2d_backward", MMA_BACK, PHOTOS_BACK, OUT, "taps, outs, taps, out0 + my_out", "taps, BM, taps, out0 + my_out"),
    ("conv2d_backward", MMA_BACK, PHOTOS_BACK, OUT, "outs, p.out_h, p.out_w, rows.taps", "outs, p.out_h + 1, p.out_w, rows.taps"),
    ("conv2d_backward", MMA_BACK, PHOTOS_BACK, OUT, "at.a < p.n ? rows.top + at.row : FAR_ABOVE", "rows.top + at.row"),
    ("conv2d_backward", MMA_BACK, PHOTOS_BACK, OUT, "return to.a < p.n ? dx", "return to.a <= p.n ? dx"),
    ("conv2d_backward", MMA_BACK, PHOTOS_BACK, RACE, "row = rows.start + to.row * p.stride_h,", "row = to.row * p.stride_h,"),
    ("conv2d_backward", MMA_BACK, WIDE_BACK, OUT, "  if (index >= p.c_in * phases.count * length) return;\n", ""),
    ("conv2d_backward", MMA_BACK, PHOTOS_BACK, OUT, "if (index % length < outs * rows.taps * columns.taps) {", "if (rows.taps * columns.taps) {"),
    ("conv2d_backward", MMA_BACK, WIDE_BACK, OUT, "split < splits; split++) sum", "split <= splits; split++) sum"),
    ("conv2d_backward", MMA_BACK, WIDE_BACK, OUT, "  if (i >= count) return;\n", ""),
    ("conv2d_backward", MMA_BACK, WIDE_BACK, RACE, "parts + ((size_t)split * p.c_out", "parts + ((size_t)0 * p.c_out"),
    ("conv2d_backward", "conv_backward_direct", (normal(0, 2, 5, 4, 6), IMAGES, FILTERS, (2, 1), 0), OUT, "if (down < 0 || right < 0 ||", "if ("),
    ("conv2d_backward", "conv_backward_direct", (normal(0, *Y_SHAPE), IMAGES, FILTERS, (2, 1), 1), OUT, "position < p.n * outputs; position++", "position <= p.n * outputs; position++"),
    ("conv2d", "conv_implicit", GROUPED, OUT, "if (row < outs && position < p.n * outputs)", "if (position < p.n * outputs)"),
    ("conv2d", "conv_direct", GROUPED, OUT, "out / (p.c_out / p.groups) * channels;  // the first input", "out * channels;  // the first input"),
    ("conv2d_backward", "conv_backward_implicit", (normal(0, 2, 6, 7, 6), *GROUPED[:2], 1, 0, 1, 3), OUT, "if (row < channels && at < p.n * pixels)\n", "if (at < p.n * pixels)\n"),
    ("conv2d_backward", "conv_backward_implicit", (normal(0, 2, 6, 7, 6), *GROUPED[:2], 1, 0, 1, 3), OUT, "first_out = blockIdx.z * outs, first = blockIdx.z * channels;\n  const float sum = tile_product<TILE>(\n      outs, taps", "first_out = blockIdx.z * outs, first = 2 * blockIdx.z * channels;\n  const float sum = tile_product<TILE>(\n      outs, taps"),
    ("conv2d_backward", "conv_backward_implicit", (normal(0, 2, 5, 4, 6), IMAGES, FILTERS, (2, 1), 0), OUT, "if (out_row >= p.out_h || out_column >= p.out_w) return 0.f;", "if (out_column >= p.out_w) return 0.f;"),
    ("conv_transpose2d", "conv_transpose_mma", (*SPREAD_TENSOR, None, (2, 1), 1), OUT, "at.a < p.n ? rows.top + at.row : FAR_ABOVE", "rows.top + at.row"),
    ("conv_transpose2d", "conv_transpose_mma", (*SPREAD_TENSOR, None, (2, 1), 1), RACE, "row = rows.start + to.row * p.stride_h,", "row = to.row * p.stride_h,"),
    ("conv_transpose2d_backward", "conv_transpose_backward_direct", SPREAD_BACK, OUT, "if (row < 0 || row >= p.h || column < 0", "if (row >= p.h || column < 0"),
    ("conv_transpose2d_backward", "conv_transpose_backward_direct", SPREAD_BACK, OUT, "if (index >= p.c_out * taps) return;", "if (index > p.c_out * taps) return;"),
    ("conv_transpose2d_backward", "conv_transpose_backward_direct", SPREAD_BACK, OUT, "i < p.n * outputs; i += blockDim.x", "i <= p.n * outputs; i += blockDim.x"),
    ("conv_transpose2d_backward", "conv_transpose_backward_direct", SPREAD_BACK, RACE, "if (threadIdx.x == 0) dbias[blockIdx.x] = sum;", "dbias[blockIdx.x] = sum;"),
    ("conv_transpose2d_backward", "conv_transpose_backward_implicit", SPREAD_BACK, RACE, "    __syncthreads();\n#pragma unroll", "#pragma unroll"),
    ("conv_transpose2d_backward", "conv_transpose_backward_implicit", SPREAD_BACK, OUT, "if (row < outs && tap < taps) dweight", "if (tap < taps) dweight"),
    ("conv_transpose2d_backward", "conv_transpose_backward_implicit", SPREAD_BACK, UNINIT, "Bs[ty][tx] = k0 + ty < k && column < n ? b(k0 + ty, column) : 0.f;", "if (k0 + ty < k && column < n) Bs[ty][tx] = b(k0 + ty, column);"),
    ("conv_transpose2d_backward", "conv_transpose_backward_mma", SPREAD_TENSOR_BACK, RACE, "    cp_async_wait<1>();  // my copies of this tile's weights have landed\n", ""),
    ("conv_transpose2d_backward", "conv_transpose_backward_mma", SPREAD_TENSOR_BACK, UNINIT, "EACH = BN * BK / THREADS;", "EACH = BN * BK / THREADS / 2;"),
    ("conv_transpose2d", "conv_transpose_direct", (normal(0, 2, 5, 5, 8), FILTERS, None, (2, 1), 1), OUT, "if (index >= p.n * p.c_in * p.h * p.w) return;", ""),
    ("conv_transpose2d", "conv_transpose_implicit", (normal(0, 2, 5, 5, 8), FILTERS, None, (2, 1), 1), RACE, "    __syncthreads();\n#pragma unroll", "#pragma unroll"),
    ("conv_transpose2d", "conv_transpose_implicit", (normal(0, 2, 5, 5, 8), FILTERS, normal(1, 3), (2, 1), 1), OUT, "row, at = blockIdx.x * TILE + threadIdx.x;\n  if (row < channels && at", "row, at = blockIdx.x * TILE + threadIdx.x;\n  if (at"),
    # attention
    ("attention", "attention_naive", ATTENTION, OUT, "if (row >= (size_t)p.samples * p.queries) return;\n  const int key", "const int key"),
    ("attention", "attention_naive", ATTENTION, OUT, "if (row >= p.samples * p.queries) return;\n  scores +=", "if (row > p.samples * p.queries) return;\n  scores +="),
    ("attention", "attention_naive", ATTENTION, RACE, "out[at] = factor * sum;\n}\n// out", "out[at / 2] = factor * sum;\n}\n// out"),
    ("attention", "attention_online", ATTENTION, OUT, "min(query + 1, p.keys) : p.keys;\n  float mine", "min(query + 1, p.keys) : p.keys + 1;\n  float mine"),
    ("attention", "attention_online", ATTENTION, RACE, "if (lane + i * WARP < p.v) y", "if (lane + i * WARP <= p.v) y"),
    ("attention", "attention_online", ATTENTION, RACE, "if (lane == 0) log_sum[row]", "log_sum[row]"),
    ("attention", "attention_tiled", ATTENTION, RACE, "    __syncthreads();  // everyone has used the tiles before\n", ""),
    ("attention", "attention_tiled", ATTENTION, RACE, "    __syncthreads();  // the tiles are complete\n", ""),
    ("attention", "attention_tiled", ATTENTION, RACE, "    __syncwarp();  // the rows of W are complete\n", ""),
    ("attention", "attention_tiled", ATTENTION, OUT, "first + row < rows && column < columns", "first + row <= rows && column < columns"),
    ("attention", "attention_tiled", ATTENTION, UNINIT, "i < ROWS * D; i += blockDim.x", "i < ROWS * D - 1; i += blockDim.x"),
    ("attention", "attention_tiled", ATTENTION, MISALIGNED, "LANES = 8, PAD = 4", "LANES = 8, PAD = 3"),
    ("attention", "attention_tiled", (*ATTENTION[:2], normal(2, 2, 41, 23)), MISALIGNED, "if (columns % 4 == 0) {", "if (column + 3 < columns) {"),
    ("attention", "attention_tiled", ATTENTION, DIVERGENT, "  fetch<ROWS, D>(Q, q, p.queries, p.e, query0);\n", "  if (query0 + row >= p.queries) return;\n  fetch<ROWS, D>(Q, q, p.queries, p.e, query0);\n"),
    ("attention", "attention_tiled", ATTENTION, LEFT, "    const float sum = row_reduce<Add>(total[r]);\n    const int query = query0 + row + r;", "    const int query = query0 + row + r;\n    if (query >= p.queries) return;\n    const float sum = row_reduce<Add>(total[r]);"),
    ("attention", "attention_mma", WORDS, RACE, LANDED_KEYS, ""),
    ("attention", "attention_mma", WORDS, RACE, LANDED_KEYS, LANDED_KEYS.replace("<0>", "<1>")),
    ("attention", "attention_mma", WORDS, RACE, "    __syncthreads();     // everyone's have, and everyone has used the keys before\n", ""),
    ("attention", "attention_mma", WORDS, RACE, "(V + place, value, p.keys, p.v, tile * COLUMNS, 0);\n    cp_async_commit();\n", "(V + place, value, p.keys, p.v, tile * COLUMNS, 0);\n"),
    ("attention", "attention_mma", WORDS, RACE, "K + tile % 2 * COLUMNS * D, my_row", "K + (tile + 1) % 2 * COLUMNS * D, my_row"),
    ("attention", "attention_mma", WORDS, RACE, "K = Q + ROWS * D;  // two tiles, and of V\n", "K = Q + ROWS * D / 2;\n"),
    ("attention", "attention_mma", WORDS, OUT, "K = Q + ROWS * D;  // two tiles, and of V\n", "K = Q + 2 * ROWS * D;\n"),
    ("attention", "attention_mma", WORDS, OUT, "(V + place, value, p.keys, p.v,", "(V + place, value, p.keys + 1, p.v,"),
    ("attention", "attention_mma", WORDS, OUT, "(V + place, value, p.keys, p.v,", "(V + place, value, p.keys, p.v + 8,"),
    ("attention", "attention_mma", WORDS, RACE, "if (lane % QUAD == 0 && query < p.queries)\n", "if (query < p.queries)\n"),
    ("attention", "attention_mma", WORDS, OUT, "if (lane % QUAD == 0 && query < p.queries)\n", "if (lane % QUAD == 0)\n"),
    ("attention", "attention_mma", WORDS, DIVERGENT, TILES_THERE, "  if (query0 + my_row >= p.queries) return;\n" + TILES_THERE),
    ("attention", "attention_mma", NO_KEYS, UNFINISHED, TILES_THERE, TILES_THERE.replace("if (tiles > 0) ", "")),
    ("attention", "attention_mma", MASKED, OUT, "if (score != -INFINITY) score +=", "score +="),
    ("attention_backward", "attention_backward_naive", ATTENDED, OUT, "if (row >= (size_t)p.samples * p.keys) return;", ""),
    ("attention_backward", "attention_backward_naive", ATTENDED, RACE, "if (lane == 0) dots[row] = sum;", "dots[row] = sum;"),
    ("attention_backward", "attention_backward_tiled", ATTENDED, RACE, "p.keys, p.v, key0);\n    __syncthreads();\n    float scores[MINE][THEIRS], dweights", "p.keys, p.v, key0);\n    float scores[MINE][THEIRS], dweights"),
    ("attention_backward", "attention_backward_tiled", ATTENDED, RACE, "    __syncwarp();\n    combine(value_sums", "    combine(value_sums"),
    ("attention_backward", "attention_backward_tiled", ATTENDED, RACE, "p.keys, p.v, key0 + row + r, x);\n  }", "p.keys, p.v, key0 + r, x);\n  }"),
    ("attention_backward", "attention_backward_tiled", ATTENDED, OUT, "const float weight = seen ? expf(score - log_sum[queries + query]) : 0.f;", "const float weight = expf(score - log_sum[queries + query]);"),
    ("attention_backward", "attention_backward_tiled", ATTENDED, UNINIT, "        W[row + r][x + LANES * c] = weight;\n        S", "        if (seen) W[row + r][x + LANES * c] = weight;\n        S"),
    ("attention_backward", "attention_backward_mma", DWORDS, RACE, LANDED_PAIR, ""),
    ("attention_backward", "attention_backward_mma", DWORDS, RACE, LANDED_PAIR, LANDED_PAIR.replace("<0>", "<1>")),
    ("attention_backward", "attention_backward_mma", DWORDS, RACE, "    __syncthreads();     // everyone's have, and everyone has used the tile before\n", ""),
    ("attention_backward", "attention_backward_mma", DWORDS, RACE, "tile * COLUMNS, 0);\n    cp_async_commit();\n  };\n", "tile * COLUMNS, 0);\n  };\n"),
    ("attention_backward", "attention_backward_mma", DWORDS, RACE, "K + tile % 2 * COLUMNS * D, *my_v", "K + (tile + 1) % 2 * COLUMNS * D, *my_v"),
    ("attention_backward", "attention_backward_mma", DWORDS, RACE, "G = Q + ROWS * D;  // dy", "G = Q + ROWS * D / 2;  // dy"),
    ("attention_backward", "attention_backward_mma", DWORDS, OUT, "V = K + 2 * COLUMNS * D;", "V = K + 4 * COLUMNS * D;"),
    ("attention_backward", "attention_backward_mma", DWORDS, OUT, "(G, dy + queries * p.v, p.queries, p.v, query0, 0)", "(G, dy + queries * p.v, p.queries + 1, p.v, query0, 0)"),
    ("attention_backward", "attention_backward_mma", DWORDS, OUT, "query < p.queries ? log_sum[queries + query] : 0.f;\n    my_dots", "log_sum[queries + query];\n    my_dots"),
    ("attention_backward", "attention_backward_mma", DWORDS, DIVERGENT, "  if (tiles > 0) {\n", "  if (query0 + my_row >= p.queries) return;\n  if (tiles > 0) {\n"),
    ("attention_backward", "attention_backward_mma", DWORDS, OUT, "G + place, dy + queries * p.v, p.queries, p.v,", "G + place, dy + queries * p.v, p.queries, p.v + 8,"),
    ("attention_backward", "attention_backward_mma", DWORDS, OUT, "threadIdx.x < COLUMNS && query < p.queries;", "threadIdx.x < COLUMNS;"),
    ("attention_backward", "attention_backward_mma", DWORDS, UNINIT, "    keep(first);\n", ""),
    ("attention_backward", "attention_backward_mma", DWORDS, RACE, "    if (tile + 1 < tiles) keep(tile + 1);\n", "    if (tile + 1 < tiles) keep(tile);\n"),
    ("attention_backward", "attention_backward_mma", DWORDS, RACE, "const int at = tile % 2 * COLUMNS + threadIdx.x;", "const int at = tile % 2 * COLUMNS + threadIdx.x / 2;"),
    ("attention_backward", "attention_backward_mma", DWORDS, RACE, "p.v, key0 + my_row, 0, value_sums", "p.v, key0, 0, value_sums"),
    ("attention_backward", "attention_backward_mma", DWORDS, OUT, "column + 8 * j + lane % 4 * 2, sums", "column + 8 * j + lane % 4 * 2 - 2, sums"),
    # LSTM and GRU
    ("lstm_cell", "lstm_naive", LSTM, OUT, "if (i >= 4 * batch * units) return;", ""),
    ("lstm_cell", "lstm_naive", LSTM, RACE, "if (i < batch * units) new_h[i]", "if (i < batch * units) new_h[i % units]"),
    ("lstm_cell", "lstm_pointwise", LSTM, OUT, "if (at >= batch * units) return;\n  float sums[4];", "if (at > batch * units) return;\n  float sums[4];"),
    ("lstm_cell", "lstm_fused", LSTM, OUT, "row < batch && inside ? x", "inside ? x"),
    ("lstm_cell", "lstm_fused", LSTM, OUT, "unit0 + ty < units && inside ? weight", "inside ? weight"),
    ("lstm_cell", "lstm_fused", LSTM, OUT, "if (bias && unit0 + tx < units)", "if (bias)"),
    ("lstm_cell", "lstm_fused", LSTM, RACE, "    __syncthreads();  // the tiles are complete\n", ""),
    ("lstm_cell", "lstm_fused", LSTM, RACE, "    __syncthreads();  // everyone has used them\n", ""),
    ("lstm_cell", "lstm_fused", LSTM, UNINIT, "    X[ty][tx] = row < batch && inside ?", "    if (row < batch) X[ty][tx] = inside ?"),
    ("lstm_cell", "lstm_fused", LSTM, DIVERGENT, "  for (int k0 = 0; k0 < n_in; k0 += TILE) {", "  if (row >= batch) return;\n  for (int k0 = 0; k0 < n_in; k0 += TILE) {"),
    ("lstm_cell_backward", "lstm_backward_naive", LSTM_BACK, OUT, "if (at >= 4 * batch * units) return;", "if (at > 4 * batch * units) return;"),
    ("lstm_cell_backward", "lstm_backward_pointwise", LSTM_BACK, RACE, "da[place(at, units, 4, 3)] = dy[at] * t", "da[place(at, units, 3, 3)] = dy[at] * t"),
    ("gru_cell", "gru_naive", GRU, RACE, "gates[place(i, units, 4, 3)] = recalled;", "gates[place(i, units, 4, 4)] = recalled;"),
    ("gru_cell", "gru_pointwise", GRU, RACE, "a, b, h, gates, new_h);\n}", "a, b, h, gates, new_h + (at & 1));\n}"),
    ("gru_cell", "gru_fused", GRU, OUT, "if (row < batch && unit < units) gru", "if (unit < units) gru"),
    ("gru_cell_backward", "gru_backward_naive", GRU_BACK, RACE, "dx_sums[place(i, units, 3, 2)] = dn;", "dx_sums[place(i, units, 3, 2) / 2] = dn;"),
    ("gru_cell_backward", "gru_backward_pointwise", GRU_BACK, OUT, "if (i < batch * units) dh[i] +=", "dh[i] +="),
    # boxes
    ("box_iou", "box_iou_naive", (BOX, BOX[:45]), OUT, "if (row >= n || column >= m) return;", "if (row >= n || column > m) return;"),
    ("box_iou", "box_iou_tiled", (BOX, BOX[:45]), RACE, "[column];\n  __syncthreads();", "[column];"),
    ("box_iou", "box_iou_tiled", (BOX, BOX[:45]), OUT, "threadIdx.y == 1 && column < m", "threadIdx.y == 1"),
    ("box_iou", "box_iou_tiled", (BOX, BOX[:45]), UNINIT, "threadIdx.y == 0 && row0 + threadIdx.x < n", "threadIdx.y == 0 && row0 + threadIdx.x + 1 < n"),
    ("box_iou", "box_iou_tiled", (BOX, BOX[:45]), MISALIGNED, "reinterpret_cast<const float4*>(b)[column]", "*reinterpret_cast<const float4*>(b + (column ? 4 * column - 1 : 0))"),
    ("box_iou", "box_iou_tiled", (BOX, BOX[:45]), DIVERGENT, "  if (threadIdx.y == 0 && row0", "  if (column >= m) return;\n  if (threadIdx.y == 0 && row0"),
    ("nms", "nms_sequential", (BOX, SCORES, 0.5), RACE, "    __syncthreads();  // the next box's fate is known to all\n", ""),
    ("nms", "nms_sequential", (BOX, SCORES, 0.5), RACE, "if (iou(box[best], box[i]) > threshold) keep[i] = 0;\n    __syncthreads();", "if (iou(box[best], box[i]) > threshold) keep[i] = 0;\n    if (threadIdx.x < n) __syncthreads();"),
    ("nms", "nms_bitmask", (BOX, SCORES, 0.5), OUT, "const int here = min(n - word * 64, 64);", "const int here = 64;"),
    ("nms", "nms_bitmask", (BOX, SCORES, 0.5), RACE, "others[threadIdx.x] = box[word * 64 + threadIdx.x];\n  __syncthreads();", "others[threadIdx.x] = box[word * 64 + threadIdx.x];"),
    ("nms", "nms_bitmask", (BOX, SCORES, 0.5), RACE, "    __syncwarp();  // all lanes have looked before any writes\n", ""),
    ("nms", "nms_bitmask", (BOX, SCORES, 0.5), RACE, "if (lane == 0) keep[i] = stays;\n    __syncwarp();", "if (lane == 0) keep[i] = stays;"),
    ("nms", "nms_bitmask", (BOX, SCORES, 0.5), UNINIT, "struck[word] = 0;", "if (word) struck[word] = 0;"),
    # embedding
    ("embedding", "embedding_naive", (IDS, normal(0, 5, 40)), OUT, "if (t >= tokens) return;\n  for", "for"),
    ("embedding", "embedding_wide", (IDS, normal(0, 5, 40)), RACE, "i < width; i += 32) y", "i <= width; i += 32) y"),
    ("embedding", "embedding_wide", (IDS, normal(0, 5, 40)), RACE, "/ 32, lane = threadIdx.x % 32;\n  if (t >= tokens) return;\n  const float* row = table", "/ 64, lane = threadIdx.x % 32;\n  if (t >= tokens) return;\n  const float* row = table"),
    ("embedding_backward", "embedding_backward_naive", (normal(0, 5, 40), IDS, 5), RACE, "atomicAdd(&dtable[(size_t)ids[t] * width + i], dy[(size_t)t * width + i]);", "dtable[(size_t)ids[t] * width + i] += dy[(size_t)t * width + i];"),
    ("embedding_backward", "embedding_backward_wide", (normal(0, 5, 40), IDS, 5), RACE, "atomicAdd(&row[i], dy[(size_t)t * width + i]);", "row[i] += dy[(size_t)t * width + i];"),
    ("embedding_backward", "embedding_backward_sorted", (normal(0, 5, 40), IDS, 5), OUT, "if (row >= rows) return;", "if (row > rows) return;"),
    ("embedding_backward", "embedding_backward_sorted", (normal(0, 5, 40), IDS, 5), OUT, "t < starts[row + 1]; t++", "t <= starts[row + 1]; t++"),
    # word2vec
    ("negative_sampling_loss", "negative_sampling_naive", SAMPLED, OUT, "if (i >= samples) return;\n  const float* h = hidden + (size_t)(rows ? rows[i] : i) * width;\n  float* dh = dhidden + (size_t)i * width;\n  asked += (size_t)i * questions, slopes += (size_t)i * questions;\n  float loss = 0.f;\n  for (int c = 0;", "const float* h = hidden + (size_t)(rows ? rows[i] : i) * width;\n  float* dh = dhidden + (size_t)i * width;\n  asked += (size_t)i * questions, slopes += (size_t)i * questions;\n  float loss = 0.f;\n  for (int c = 0;"),
    ("negative_sampling_loss", "negative_sampling_warp", SAMPLED, OUT, "if (lane == 0) losses[i] = loss;", "if (lane == 0) losses[i + 1] = loss;"),
    ("negative_sampling_loss", "negative_sampling_warp", SAMPLED, RACE, "if (lane == 0) slopes[j] = slope;", "slopes[j] = slope;"),
    ("negative_sampling_loss", "negative_sampling_warp", SAMPLED, RACE, "float* dh = dhidden + (size_t)i * width;\n  asked += (size_t)i * questions, slopes += (size_t)i * questions;\n  float loss = 0.f;\n  for (int c = lane;", "float* dh = dhidden + (size_t)i / 2 * width;\n  asked += (size_t)i * questions, slopes += (size_t)i * questions;\n  float loss = 0.f;\n  for (int c = lane;"),
    ("negative_sampling_loss", "negative_sampling_naive", SAMPLED, RACE, "for (int c = 0; c < width; c++) atomicAdd(&table[(size_t)ids[t] * width + c], w * source[c]);", "for (int c = 0; c < width; c++) table[(size_t)ids[t] * width + c] += w * source[c];"),
    ("negative_sampling_loss", "negative_sampling_sorted", SAMPLED, OUT, "at < starts[d + 1]; at++", "at <= starts[d + 1]; at++"),
    ("negative_sampling_loss", "negative_sampling_sorted", SAMPLED, RACE, "row[c] += factor * sum;", "row[c / 2] += factor * sum;"),
    ("skip_gram_negative_sampling_step", "skip_gram_naive", SKIP_GRAM, OUT, "if (i >= samples) return;", "if (i > samples) return;"),
    ("skip_gram_negative_sampling_step", "skip_gram_naive", SKIP_GRAM, RACE, "for (int c = 0; c < width; c++) atomicAdd(&table[(size_t)ids[t] * width + c], w * source[c]);", "for (int c = 0; c < width; c++) table[(size_t)ids[t] * width + c] += w * source[c];"),
    ("skip_gram_negative_sampling_step", "skip_gram_warp", SKIP_GRAM, RACE, "for (int c = lane; c < width; c += WARP) atomicAdd(&table[(size_t)ids[t] * width + c], w * source[c]);", "for (int c = lane; c < width; c += WARP) table[(size_t)ids[t] * width + c] += w * source[c];"),
    ("skip_gram_negative_sampling_step", "skip_gram_warp", SKIP_GRAM, OUT, "if (t >= count) return;", ""),
    ("skip_gram_negative_sampling_step", "skip_gram_sorted", SKIP_GRAM, OUT, "at < starts[d + 1]; at++", "at <= starts[d + 1]; at++"),
    ("skip_gram_negative_sampling_step", "skip_gram_sorted", SKIP_GRAM, OUT, "if (d >= distinct) return;", "if (d > distinct) return;"),
    ("skip_gram_negative_sampling_step", "skip_gram_sorted", SKIP_GRAM, RACE, "row[c] += factor * sum;", "row[c / 2] += factor * sum;"),
    # Gram matrices
    ("gram_matrix", "gram_naive", GRAM, OUT, "if (at >= (size_t)samples * channels * channels) return;", ""),
    ("gram_matrix", "gram_tiled", GRAM, RACE, "    __syncthreads();  // the tiles are complete\n", ""),
    ("gram_matrix", "gram_tiled", GRAM, RACE, "    __syncthreads();  // everyone has used them\n", ""),
    ("gram_matrix", "gram_tiled", GRAM, RACE, "if (row < channels && column < channels) G", "if (row < channels) G"),
    ("gram_matrix", "gram_tiled", GRAM, OUT, "inside && row0 + ty < channels ?", "inside ?"),
    ("gram_matrix", "gram_symmetric", GRAM, RACE, "if (tile.row != tile.column) G", "G"),
    ("gram_matrix", "gram_symmetric", GRAM, RACE, "if (row >= channels || column >= channels) return;", "if (column >= channels) return;"),
    ("gram_matrix", "gram_symmetric", GRAM, UNINIT, "    B[ty][tx] = inside && column0 + ty < channels ?", "    if (column0 + ty < channels) B[ty][tx] = inside ?"),
    ("gram_matrix", "gram_split", (normal(0, 1, 17, 33, 35),), RACE, "atomicAdd(&G[(size_t)row * channels + column], sum);", "G[(size_t)row * channels + column] += sum;"),
    ("gram_matrix", "gram_split", (normal(0, 1, 17, 33, 35),), OUT, "min(first + piece, length)", "first + piece"),
    ("gram_matrix_backward", "gram_backward_naive", (normal(1, 2, 19, 19), *GRAM), OUT, "if (row >= (size_t)samples * channels) return;", "if (row > (size_t)samples * channels) return;"),
    ("gram_matrix_backward", "gram_backward_tiled", (normal(1, 2, 19, 19), *GRAM), DIVERGENT, "  float sum = 0.f;\n  for (int k0", "  float sum = 0.f;\n  if (column >= length) return;\n  for (int k0"),
    # Adam
    ("adam", "adam_separate", ADAM, OUT, "if (i < n) p[i] -= rate", "if (i <= n) p[i] -= rate"),
    ("adam", "adam_fused", ADAM, OUT, "if (i >= n) return;\n  float p1", "float p1"),
    ("adam", "adam_fused", ADAM, RACE, "const int i = blockIdx.x * blockDim.x + threadIdx.x;\n  if (i >= n) return;\n  float p1", "const int i = (blockIdx.x * blockDim.x + threadIdx.x) / 2;\n  if (i >= n) return;\n  float p1"),
    ("adam", "adam_vectorised", ADAM, OUT, "if (i + 4 <= n) {", "if (i < n) {"),
    ("adam", "adam_vectorised", ADAM, MISALIGNED, "const int i = 4 * (blockIdx.x", "const int i = 1 + 4 * (blockIdx.x"),
    ("adam", "adam_vectorised", ADAM, RACE, "const int i = 4 * (blockIdx.x * blockDim.x + threadIdx.x);", "const int i = 4 * (blockIdx.x * blockDim.x + threadIdx.x / 2);"),
]  # fmt: skip


@pytest.fixture
def mutated(tmp_path, monkeypatch):
    """Return a function that puts a changed copy of a kernel file in place of the original."""

    def change(file: str, text: str, replacement: str) -> None:
        found = 0
        for path in _kernel.KERNELS.glob("*.cu*"):
            source = path.read_text(encoding="utf-8")
            if path.name in (file, "common.cuh", "tensor_tiles.cuh"):
                found += source.count(text)
                source = source.replace(text, replacement)
            (tmp_path / path.name).write_text(source, encoding="utf-8")
        assert found, f"not in {file}: {text!r}"
        monkeypatch.setattr(_kernel, "KERNELS", tmp_path)
        monkeypatch.setattr(_base, "_modules", {})

    return change


def name_of(mutant) -> str:
    return f"{mutant[1]}: {mutant[4]}"[:60].split("\n")[0]


def test_every_rung_has_faults_planted():
    planted = {(ladder, rung) for ladder, rung, *_ in MUTANTS}
    rungs = {(ladder, rung.name) for ladder in cuda.LADDERS for rung in cuda.LADDERS[ladder].rungs}
    assert planted == rungs


@pytest.mark.parametrize("mutant", MUTANTS, ids=map(name_of, MUTANTS))
def test_planted_fault_is_caught_and_named(mutant, mutated):
    ladder, rung, inputs, kind, text, replacement = mutant
    mutated(cuda.LADDERS[ladder].file, text, replacement)
    copies = [i.copy() if isinstance(i, np.ndarray) else i for i in inputs]
    with pytest.raises(cuda.KernelError) as caught:
        cuda.LADDERS[ladder].run(*copies, rung=rung, mode="checked")
    assert caught.value.kind == kind, str(caught.value)
    assert caught.value.line > 0
    assert Path(caught.value.file).suffix in (".cu", ".cuh")


# Faults that break no rule: two sides of a kernel disagree on where something lies.
DISAGREEMENTS = [
    ("linear", "matmul_mma", TENSOR, "k / 8 + lane / 16));", "k / 8 + 1 - lane / 16));"),
    ("linear", "matmul_mma", TENSOR, "k / 8 + lane / 8 % 2));", "k / 8 + 1 - lane / 8 % 2));"),
    ("linear", WGMMA, LONG, "step * STEP_A, PANEL", "step * 2 * STEP_A % 128, PANEL"),
    (
        "conv2d",
        "conv_mma",
        PHOTOS,
        "tile + place<LENGTH>(line, chunk + i)",
        "tile + line * LENGTH + (chunk + i) * 8",
    ),
    # of the gradients: taps in the wrong direction, of another phase, and parts that are left out
    ("conv2d_backward", MMA_BACK, PHOTOS_BACK, "-rows.apart, -columns", "rows.apart, -columns"),
    ("conv2d_backward", MMA_BACK, PHOTOS_BACK, "start + padding - first *", "start - first *"),
    (
        "conv2d_backward",
        MMA_BACK,
        WIDE_BACK,
        "split < splits; split++) sum",
        "split < 1; split++) sum",
    ),
    (
        "attention",
        "attention_mma",
        WORDS,
        "A[i][k + e / 2][e % 2 * 2], A[i][k + e / 2]",
        "A[i][k + e % 2][e / 2 * 2], A[i][k + e % 2]",
    ),
    (
        "attention_backward",
        "attention_backward_mma",
        DWORDS,
        "multiply_sums<D>(key_sums, dweights, my_q);",
        "multiply_sums<D>(key_sums, dweights, my_g);",
    ),
    (
        "attention_backward",
        "attention_backward_mma",
        DWORDS,
        "log_sums[at], its_dot = tile_dots[at]",
        "log_sums[at], its_dot = tile_dots[at ^ 1]",
    ),
    ("attention", "attention_mma", WORDS, "key_end <= p.keys &&", "key_end <= p.keys + 63 &&"),
    ("attention", "attention_mma", SEEN, "key_end <= query0 + 1)", "key_end <= query0 + 64)"),
]


@pytest.mark.parametrize("mutant", DISAGREEMENTS, ids=lambda mutant: mutant[3][:40])
def test_wrong_layout_shows_in_the_result(mutant, mutated):
    ladder, rung, inputs, text, replacement = mutant
    right = cuda.LADDERS[ladder].run(*inputs, rung=rung, mode="fast")
    mutated(cuda.LADDERS[ladder].file, text, replacement)
    wrong = cuda.LADDERS[ladder].run(*inputs, rung=rung, mode="fast")
    pairs = zip(right, wrong, strict=True) if isinstance(right, tuple) else [(right, wrong)]
    assert max(np.abs(a - b).max() for a, b in pairs) > 0.1


def test_maps_without_the_swizzle_show_in_the_result(monkeypatch):
    right = cuda.LADDERS["linear"].run(*LONG, rung=WGMMA)
    swizzled = _linear._tensor_map
    plain = lambda matrix: dataclasses.replace(swizzled(matrix), swizzled=False)  # noqa: E731
    monkeypatch.setattr(_linear, "_tensor_map", plain)
    wrong = cuda.LADDERS["linear"].run(*LONG, rung=WGMMA)
    assert np.abs(wrong - right).max() > 0.1
