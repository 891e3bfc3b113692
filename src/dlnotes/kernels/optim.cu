// Adam's step (Kingma and Ba, 2015) on n parameters.
//
//   m ← m + (1 - β₁)(g - m),   v ← v + (1 - β₂)(g² - v),   p ← p - rate · m / (√v + eps)
//
// with `rate` and `eps` corrected for the first steps by the caller, and g + decay · p in place of g.
// Ten operations on seven numbers moved: only memory counts.
//   adam_separate     a kernel for each line, as an array library would: 12 numbers moved (4 + 4 + 4)
//   adam_fused        one kernel, 7 numbers: p, g, m, v are read and p, m, v written
//   adam_vectorised   the same with 16 bytes to a load, so fewer instructions wait for memory

__global__ void adam_mean(int n, float beta, float decay, const float* __restrict__ p, const float* __restrict__ g, float* __restrict__ m) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) m[i] += (1.f - beta) * (g[i] + decay * p[i] - m[i]);
}
__global__ void adam_square(int n, float beta, float decay, const float* __restrict__ p, const float* __restrict__ g, float* __restrict__ v) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const float gradient = g[i] + decay * p[i];
  v[i] += (1.f - beta) * (gradient * gradient - v[i]);
}
__global__ void adam_update(int n, float rate, float eps, const float* __restrict__ m, const float* __restrict__ v, float* __restrict__ p) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) p[i] -= rate * m[i] / (sqrtf(v[i]) + eps);
}

__device__ __forceinline__ void adam_one(float& p, float g, float& m, float& v, float rate, float eps, float beta1, float beta2, float decay) {
  g += decay * p;
  m += (1.f - beta1) * (g - m);
  v += (1.f - beta2) * (g * g - v);
  p -= rate * m / (sqrtf(v) + eps);
}
__global__ void adam_fused(int n, float rate, float eps, float beta1, float beta2, float decay, float* __restrict__ p,
                           const float* __restrict__ g, float* __restrict__ m, float* __restrict__ v) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float p1 = p[i], m1 = m[i], v1 = v[i];  // in registers, so that each is read and written once
  adam_one(p1, g[i], m1, v1, rate, eps, beta1, beta2, decay);
  p[i] = p1, m[i] = m1, v[i] = v1;
}

// A thread has four neighbours; what n leaves over after the last four is done one by one.
__global__ void adam_vectorised(int n, float rate, float eps, float beta1, float beta2, float decay, float* __restrict__ p,
                                const float* __restrict__ g, float* __restrict__ m, float* __restrict__ v) {
  const int i = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
  if (i + 4 <= n) {
    float4 p4 = *reinterpret_cast<float4*>(p + i), m4 = *reinterpret_cast<float4*>(m + i), v4 = *reinterpret_cast<float4*>(v + i);
    const float4 g4 = *reinterpret_cast<const float4*>(g + i);
    adam_one(p4.x, g4.x, m4.x, v4.x, rate, eps, beta1, beta2, decay);
    adam_one(p4.y, g4.y, m4.y, v4.y, rate, eps, beta1, beta2, decay);
    adam_one(p4.z, g4.z, m4.z, v4.z, rate, eps, beta1, beta2, decay);
    adam_one(p4.w, g4.w, m4.w, v4.w, rate, eps, beta1, beta2, decay);
    *reinterpret_cast<float4*>(p + i) = p4;
    *reinterpret_cast<float4*>(m + i) = m4;
    *reinterpret_cast<float4*>(v + i) = v4;
  } else {
    for (int j = i; j < n; j++) adam_one(p[j], g[j], m[j], v[j], rate, eps, beta1, beta2, decay);
  }
}
