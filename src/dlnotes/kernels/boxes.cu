// Boxes (x1, y1, x2, y2): intersection over union of all pairs, and non-maximum suppression.
//
//   box_iou_naive    one thread a pair; each box comes from global memory again and again
//   box_iou_tiled    a block keeps its columns' boxes in shared memory, a box as one 16-byte load
//
//   nms_sequential   one block walks through the boxes, the best first, and strikes out what overlaps
//   nms_bitmask      all overlaps at once, a bit each; what is left is a short walk over words of 64
//                    bits (as torchvision does it)
// Suppression takes boxes sorted by falling score.

__device__ __forceinline__ float iou(float4 a, float4 b) {
  const float width = fmaxf(fminf(a.z, b.z) - fmaxf(a.x, b.x), 0.f);
  const float height = fmaxf(fminf(a.w, b.w) - fmaxf(a.y, b.y), 0.f);
  const float both = width * height;
  const float either = (a.z - a.x) * (a.w - a.y) + (b.z - b.x) * (b.w - b.y) - both;
  return either > 0.f ? both / either : 0.f;
}

__global__ void box_iou_naive(int n, int m, const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ out) {
  const int column = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y * blockDim.y + threadIdx.y;
  if (row >= n || column >= m) return;
  const float* p = a + 4 * row;
  const float* q = b + 4 * column;
  out[(size_t)row * m + column] = iou(make_float4(p[0], p[1], p[2], p[3]), make_float4(q[0], q[1], q[2], q[3]));
}

// blockDim is (32, 8): 32 columns, and each of the 8 warps takes every eighth of the block's 32 rows.
__global__ void box_iou_tiled(int n, int m, const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ out) {
  __shared__ float4 rows[32], columns[32];
  const int row0 = blockIdx.y * 32, column = blockIdx.x * 32 + threadIdx.x;
  if (threadIdx.y == 0 && row0 + threadIdx.x < n) rows[threadIdx.x] = reinterpret_cast<const float4*>(a)[row0 + threadIdx.x];
  if (threadIdx.y == 1 && column < m) columns[threadIdx.x] = reinterpret_cast<const float4*>(b)[column];
  __syncthreads();
  if (column >= m) return;
  for (int i = threadIdx.y; i < 32 && row0 + i < n; i += 8) out[(size_t)(row0 + i) * m + column] = iou(rows[i], columns[threadIdx.x]);
}

// keep[i] becomes 1 or 0. Box i is settled once every better one is, hence a barrier for each box.
__global__ void nms_sequential(int n, float threshold, const float* __restrict__ boxes, int* __restrict__ keep) {
  const float4* box = reinterpret_cast<const float4*>(boxes);
  for (int i = threadIdx.x; i < n; i += blockDim.x) keep[i] = 1;
  __syncthreads();
  for (int best = 0; best < n; best++) {
    if (keep[best])
      for (int i = best + 1 + threadIdx.x; i < n; i += blockDim.x)
        if (iou(box[best], box[i]) > threshold) keep[i] = 0;
    __syncthreads();  // the next box's fate is known to all
  }
}

// mask[i][word]: bit b says that box i overlaps box 64·word + b, which is worse than i.
// Blocks of 64 threads, one for each box of a row of words; the 64 boxes of the word wait in shared memory.
__global__ void nms_overlaps(int n, float threshold, const float* __restrict__ boxes, unsigned long long* __restrict__ mask) {
  __shared__ float4 others[64];
  const float4* box = reinterpret_cast<const float4*>(boxes);
  const int words = (n + 63) / 64, word = blockIdx.x, i = blockIdx.y * 64 + threadIdx.x;
  const int here = min(n - word * 64, 64);  // boxes in this word
  if (threadIdx.x < here) others[threadIdx.x] = box[word * 64 + threadIdx.x];
  __syncthreads();
  if (i >= n) return;
  unsigned long long bits = 0;
  for (int b = max(i + 1 - word * 64, 0); b < here; b++)
    if (iou(box[i], others[b]) > threshold) bits |= 1ull << b;
  mask[(size_t)i * words + word] = bits;
}
// One warp walks through the boxes; its lanes share the words of what has been struck out.
__global__ void nms_scan(int n, const unsigned long long* __restrict__ mask, int* __restrict__ keep) {
  extern __shared__ unsigned long long struck[];  // one bit a box
  const int words = (n + 63) / 64, lane = threadIdx.x;
  for (int word = lane; word < words; word += 32) struck[word] = 0;
  __syncwarp();
  for (int i = 0; i < n; i++) {
    const bool stays = !(struck[i / 64] >> i % 64 & 1);
    __syncwarp();  // all lanes have looked before any writes
    if (stays)
      for (int word = i / 64 + lane; word < words; word += 32) struck[word] |= mask[(size_t)i * words + word];
    if (lane == 0) keep[i] = stays;
    __syncwarp();
  }
}
