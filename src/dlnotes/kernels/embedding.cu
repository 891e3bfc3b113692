// Embedding: rows of a table by number, y[t] = table[ids[t]], and the gradient, which adds dy's rows up.
//
//   embedding_naive             one thread a token copies a whole row
//   embedding_wide              one warp a token: the lanes read neighbours
//
//   embedding_backward_naive    one thread a token adds its row by atomics
//   embedding_backward_wide     one warp a token, atomics on neighbouring addresses
//   embedding_backward_sorted   tokens sorted by id: one warp adds all of a row's tokens up in registers and
//                               writes once. No atomics, so the same sum in the same order every time.

__global__ void embedding_naive(int tokens, int width, const long long* __restrict__ ids, const float* __restrict__ table, float* __restrict__ y) {
  const int t = blockIdx.x * blockDim.x + threadIdx.x;
  if (t >= tokens) return;
  for (int i = 0; i < width; i++) y[(size_t)t * width + i] = table[(size_t)ids[t] * width + i];
}
__global__ void embedding_wide(int tokens, int width, const long long* __restrict__ ids, const float* __restrict__ table, float* __restrict__ y) {
  const int t = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (t >= tokens) return;
  const float* row = table + (size_t)ids[t] * width;
  for (int i = lane; i < width; i += 32) y[(size_t)t * width + i] = row[i];
}

// In the first two dtable must hold zeros.
__global__ void embedding_backward_naive(int tokens, int width, const long long* __restrict__ ids, const float* __restrict__ dy,
                                         float* __restrict__ dtable) {
  const int t = blockIdx.x * blockDim.x + threadIdx.x;
  if (t >= tokens) return;
  for (int i = 0; i < width; i++) atomicAdd(&dtable[(size_t)ids[t] * width + i], dy[(size_t)t * width + i]);
}
__global__ void embedding_backward_wide(int tokens, int width, const long long* __restrict__ ids, const float* __restrict__ dy,
                                        float* __restrict__ dtable) {
  const int t = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (t >= tokens) return;
  float* row = dtable + (size_t)ids[t] * width;
  for (int i = lane; i < width; i += 32) atomicAdd(&row[i], dy[(size_t)t * width + i]);
}

// order: the tokens sorted by id; starts[r] … starts[r + 1]: those of row r.
__global__ void embedding_backward_sorted(int rows, int width, const long long* __restrict__ order, const long long* __restrict__ starts,
                                          const float* __restrict__ dy, float* __restrict__ dtable) {
  const int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  for (int i = lane; i < width; i += 32) {
    float sum = 0.f;
    for (long long t = starts[row]; t < starts[row + 1]; t++) sum += dy[(size_t)order[t] * width + i];
    dtable[(size_t)row * width + i] = sum;
  }
}
