// Negative sampling (Mikolov et al., 2013): the loss, its gradients, and the step that trains word vectors.
//
// Each of n samples has a hidden vector h and asks the questions asked[0 … questions - 1], rows of the
// output table: is it this word? The first is (s = 1), the others, noise, are not (s = -1):
//
//   loss = Σ log(1 + e^(-s h·w)),   slope of a question = -s σ(-s h·w),   dh = Σ slope w,   dw = slope h
//
// Then the changes are added to rows of a table. Rows of frequent words get many changes at once, and the
// ladder is about that. No kernel reads a table that it changes: all samples see the tables as they were.
// (word2vec.c, and a kernel with both in one, let threads see one another's changes half done; they are
// faster, and give something else each time.)
//   negative_sampling_naive, add_rows_naive   one thread a sample, one a question
//   negative_sampling_warp, add_rows_warp     one warp each: the lanes read, and add to, neighbours
//   add_rows_sorted                           questions sorted by word: one warp adds a row's changes up
//                                             and writes once. No atomics, so the same sum every time.
#include "common.cuh"

// One question: its slope and what it adds to the loss. Noise that happens to be the word itself may be left out.
__device__ __forceinline__ float answer(float score, bool first, bool left_out, float& loss) {
  if (left_out) return 0.f;
  const float x = first ? -score : score;  // -s h·w
  loss += fmaxf(x, 0.f) + log1pf(expf(-fabsf(x)));
  const float probability = 1.f / (1.f + expf(-x));
  return first ? -probability : probability;
}

// hidden[i] is a row of a table if rows of it are given, else row i. slopes and dhidden are times `scale`.
__global__ void negative_sampling_naive(int samples, int questions, int width, float scale, int remove_hits,
                                        const float* __restrict__ hidden, const long long* __restrict__ rows,
                                        const float* __restrict__ weight, const long long* __restrict__ asked, float* __restrict__ losses,
                                        float* __restrict__ slopes, float* __restrict__ dhidden) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= samples) return;
  const float* h = hidden + (size_t)(rows ? rows[i] : i) * width;
  float* dh = dhidden + (size_t)i * width;
  asked += (size_t)i * questions, slopes += (size_t)i * questions;
  float loss = 0.f;
  for (int c = 0; c < width; c++) dh[c] = 0.f;
  for (int j = 0; j < questions; j++) {
    const float* w = weight + (size_t)asked[j] * width;
    float score = 0.f;
    for (int c = 0; c < width; c++) score += h[c] * w[c];
    const float slope = scale * answer(score, j == 0, j > 0 && remove_hits && asked[j] == asked[0], loss);
    for (int c = 0; c < width; c++) dh[c] += slope * w[c];
    slopes[j] = slope;
  }
  losses[i] = loss;
}

__global__ void negative_sampling_warp(int samples, int questions, int width, float scale, int remove_hits,
                                       const float* __restrict__ hidden, const long long* __restrict__ rows,
                                       const float* __restrict__ weight, const long long* __restrict__ asked, float* __restrict__ losses,
                                       float* __restrict__ slopes, float* __restrict__ dhidden) {
  const int i = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
  if (i >= samples) return;
  const float* h = hidden + (size_t)(rows ? rows[i] : i) * width;
  float* dh = dhidden + (size_t)i * width;
  asked += (size_t)i * questions, slopes += (size_t)i * questions;
  float loss = 0.f;
  for (int c = lane; c < width; c += WARP) dh[c] = 0.f;
  for (int j = 0; j < questions; j++) {
    const float* w = weight + (size_t)asked[j] * width;
    float score = 0.f;
    for (int c = lane; c < width; c += WARP) score += h[c] * w[c];
    const float slope = scale * answer(warp_reduce<Add>(score), j == 0, j > 0 && remove_hits && asked[j] == asked[0], loss);
    for (int c = lane; c < width; c += WARP) dh[c] += slope * w[c];  // w is still in the cache
    if (lane == 0) slopes[j] = slope;
  }
  if (lane == 0) losses[i] = loss;
}

// table[ids[t]] += factor · weights[t] · sources[t / each], where a source is a row of an array as `hidden`
// above, and there may be no weights.
__global__ void add_rows_naive(int count, int each, int width, float factor, const long long* __restrict__ ids,
                               const float* __restrict__ weights, const float* __restrict__ sources, const long long* __restrict__ rows,
                               float* __restrict__ table) {
  const int t = blockIdx.x * blockDim.x + threadIdx.x;
  if (t >= count) return;
  const float* source = sources + (size_t)(rows ? rows[t / each] : t / each) * width;
  const float w = weights ? factor * weights[t] : factor;
  for (int c = 0; c < width; c++) atomicAdd(&table[(size_t)ids[t] * width + c], w * source[c]);
}
__global__ void add_rows_warp(int count, int each, int width, float factor, const long long* __restrict__ ids,
                              const float* __restrict__ weights, const float* __restrict__ sources, const long long* __restrict__ rows,
                              float* __restrict__ table) {
  const int t = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
  if (t >= count) return;
  const float* source = sources + (size_t)(rows ? rows[t / each] : t / each) * width;
  const float w = weights ? factor * weights[t] : factor;
  for (int c = lane; c < width; c += WARP) atomicAdd(&table[(size_t)ids[t] * width + c], w * source[c]);
}
// order: all t sorted by id; starts[d] … starts[d + 1]: those of the d-th distinct id.
__global__ void add_rows_sorted(int distinct, int each, int width, float factor, const long long* __restrict__ order,
                                const long long* __restrict__ starts, const long long* __restrict__ ids, const float* __restrict__ weights,
                                const float* __restrict__ sources, const long long* __restrict__ rows, float* __restrict__ table) {
  const int d = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
  if (d >= distinct) return;
  float* row = table + (size_t)ids[order[starts[d]]] * width;
  for (int c = lane; c < width; c += WARP) {
    float sum = 0.f;
    for (long long at = starts[d]; at < starts[d + 1]; at++) {
      const long long t = order[at], source = rows ? rows[t / each] : t / each;
      sum += (weights ? weights[t] : 1.f) * sources[(size_t)source * width + c];
    }
    row[c] += factor * sum;
  }
}
