// One step of an LSTM and of a GRU, and the gradients.
//
// Both are two matrix products, W_ih x + b_ih and W_hh h + b_hh, of shape batch × gates · units, and then
// a few operations on each number. The products are those of linear.cu; here is what comes after them,
// which only memory limits, and for the small products of one step the time that a launch takes.
//   lstm_naive, gru_naive            a kernel for each line of the formula
//   lstm_pointwise, gru_pointwise    one kernel: what one line gives the next stays in registers
//   lstm_fused, gru_fused            the products too: a block sums all gates of its units up, so what lies
//                                    between product and gate never reaches memory, and a step is one launch
// and for the gradients before the activations, from which linear.cu makes all others,
//   lstm_backward_naive, gru_backward_naive, lstm_backward_pointwise, gru_backward_pointwise   likewise
// `gates` keeps what the gradient needs: i, f, g, o of the LSTM; r, z, n of the GRU and the product with h
// that r multiplies. Each is batch × 4 · units.
#include "common.cuh"

__device__ __forceinline__ float sigmoid(float x) { return 1.f / (1.f + expf(-x)); }

// Where gate number `gate` of the i-th (row, unit) stands, if a row has `gates` of them.
__device__ __forceinline__ int place(int i, int units, int gates, int gate) { return (i / units * gates + gate) * units + i % units; }

// ---- LSTM ------------------------------------------------------------------------------------------
// c' = σ(f) c + σ(i) tanh(g),   h' = σ(o) tanh(c')
__global__ void lstm_gates_naive(int batch, int units, const float* __restrict__ from_x, const float* __restrict__ from_h,
                                 float* __restrict__ gates) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= 4 * batch * units) return;
  const float a = from_x[i] + from_h[i];
  gates[i] = i / units % 4 == 2 ? tanhf(a) : sigmoid(a);
}
__global__ void lstm_cell_naive(int batch, int units, const float* __restrict__ gates, const float* __restrict__ c,
                                float* __restrict__ new_c) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= batch * units) return;
  new_c[i] = gates[place(i, units, 4, 1)] * c[i] + gates[place(i, units, 4, 0)] * gates[place(i, units, 4, 2)];
}
__global__ void lstm_state_naive(int batch, int units, const float* __restrict__ gates, const float* __restrict__ new_c,
                                 float* __restrict__ new_h) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < batch * units) new_h[i] = gates[place(i, units, 4, 3)] * tanhf(new_c[i]);
}

// All of it for (row, unit) number `at`, from the sums before the activations.
__device__ __forceinline__ void lstm_finish(int at, int units, const float (&sums)[4], const float* __restrict__ c,
                                            float* __restrict__ gates, float* __restrict__ new_c, float* __restrict__ new_h) {
  const float i = sigmoid(sums[0]), f = sigmoid(sums[1]), g = tanhf(sums[2]), o = sigmoid(sums[3]);
  const float cell = f * c[at] + i * g;
  gates[place(at, units, 4, 0)] = i;
  gates[place(at, units, 4, 1)] = f;
  gates[place(at, units, 4, 2)] = g;
  gates[place(at, units, 4, 3)] = o;
  new_c[at] = cell;
  new_h[at] = o * tanhf(cell);
}
__global__ void lstm_pointwise(int batch, int units, const float* __restrict__ from_x, const float* __restrict__ from_h,
                               const float* __restrict__ c, float* __restrict__ gates, float* __restrict__ new_c,
                               float* __restrict__ new_h) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= batch * units) return;
  float sums[4];
#pragma unroll
  for (int gate = 0; gate < 4; gate++) sums[gate] = from_x[place(at, units, 4, gate)] + from_h[place(at, units, 4, gate)];
  lstm_finish(at, units, sums, c, gates, new_c, new_h);
}

// Adds W x + b for one row of x and all GATES of one unit to sums. Thread (tx, ty) has unit tx and row ty
// of its block; tiles of x and of each gate's weights wait in shared memory.
template <int TILE, int GATES>
__device__ __forceinline__ void add_products(float (&sums)[GATES], int batch, int n_in, int units, const float* __restrict__ x,
                                             const float* __restrict__ weight, const float* __restrict__ bias) {
  __shared__ float X[TILE][TILE + 1];
  __shared__ float W[GATES][TILE][TILE + 1];
  const int tx = threadIdx.x, ty = threadIdx.y, row = blockIdx.y * TILE + ty, unit0 = blockIdx.x * TILE;
  for (int k0 = 0; k0 < n_in; k0 += TILE) {
    const bool inside = k0 + tx < n_in;
    X[ty][tx] = row < batch && inside ? x[(size_t)row * n_in + k0 + tx] : 0.f;
#pragma unroll
    for (int gate = 0; gate < GATES; gate++)
      W[gate][ty][tx] = unit0 + ty < units && inside ? weight[((size_t)gate * units + unit0 + ty) * n_in + k0 + tx] : 0.f;
    __syncthreads();  // the tiles are complete
#pragma unroll
    for (int i = 0; i < TILE; i++)
#pragma unroll
      for (int gate = 0; gate < GATES; gate++) sums[gate] += X[ty][i] * W[gate][tx][i];
    __syncthreads();  // everyone has used them
  }
  if (bias && unit0 + tx < units)
#pragma unroll
    for (int gate = 0; gate < GATES; gate++) sums[gate] += bias[gate * units + unit0 + tx];
}
template <int TILE>
__global__ void lstm_fused(int batch, int n_in, int units, const float* __restrict__ x, const float* __restrict__ h,
                           const float* __restrict__ c, const float* __restrict__ weight_ih, const float* __restrict__ weight_hh,
                           const float* __restrict__ bias_ih, const float* __restrict__ bias_hh, float* __restrict__ gates,
                           float* __restrict__ new_c, float* __restrict__ new_h) {
  float sums[4] = {};
  add_products<TILE>(sums, batch, n_in, units, x, weight_ih, bias_ih);
  add_products<TILE>(sums, batch, units, units, h, weight_hh, bias_hh);
  const int row = blockIdx.y * TILE + threadIdx.y, unit = blockIdx.x * TILE + threadIdx.x;
  if (row < batch && unit < units) lstm_finish(row * units + unit, units, sums, c, gates, new_c, new_h);
}

// The gradients of the sums before the activations, da, and of c. dc, that of c', may be missing.
// dcell is the gradient of c' by way of h' too.
__global__ void lstm_backward_cell_naive(int batch, int units, const float* __restrict__ dy, const float* __restrict__ dnew_c,
                                         const float* __restrict__ gates, const float* __restrict__ new_c, float* __restrict__ dcell) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= batch * units) return;
  const float t = tanhf(new_c[i]);
  dcell[i] = dy[i] * gates[place(i, units, 4, 3)] * (1.f - t * t) + (dnew_c ? dnew_c[i] : 0.f);
}
__global__ void lstm_backward_gates_naive(int batch, int units, const float* __restrict__ dy, const float* __restrict__ dcell,
                                          const float* __restrict__ gates, const float* __restrict__ c, const float* __restrict__ new_c,
                                          float* __restrict__ da) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= 4 * batch * units) return;
  const int gate = at / units % 4, one = at / (4 * units) * units + at % units;  // (row, unit)
  const float mine = gates[at];
  if (gate == 0) da[at] = dcell[one] * gates[place(one, units, 4, 2)] * mine * (1.f - mine);
  if (gate == 1) da[at] = dcell[one] * c[one] * mine * (1.f - mine);
  if (gate == 2) da[at] = dcell[one] * gates[place(one, units, 4, 0)] * (1.f - mine * mine);
  if (gate == 3) da[at] = dy[one] * tanhf(new_c[one]) * mine * (1.f - mine);
}
__global__ void lstm_backward_carry_naive(int batch, int units, const float* __restrict__ dcell, const float* __restrict__ gates,
                                          float* __restrict__ dc) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < batch * units) dc[i] = dcell[i] * gates[place(i, units, 4, 1)];
}
__global__ void lstm_backward_pointwise(int batch, int units, const float* __restrict__ dy, const float* __restrict__ dnew_c,
                                        const float* __restrict__ gates, const float* __restrict__ c, const float* __restrict__ new_c,
                                        float* __restrict__ da, float* __restrict__ dc) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= batch * units) return;
  const float i = gates[place(at, units, 4, 0)], f = gates[place(at, units, 4, 1)];
  const float g = gates[place(at, units, 4, 2)], o = gates[place(at, units, 4, 3)], t = tanhf(new_c[at]);
  const float dcell = dy[at] * o * (1.f - t * t) + (dnew_c ? dnew_c[at] : 0.f);
  da[place(at, units, 4, 0)] = dcell * g * i * (1.f - i);
  da[place(at, units, 4, 1)] = dcell * c[at] * f * (1.f - f);
  da[place(at, units, 4, 2)] = dcell * i * (1.f - g * g);
  da[place(at, units, 4, 3)] = dy[at] * t * o * (1.f - o);
  dc[at] = dcell * f;
}

// ---- GRU -------------------------------------------------------------------------------------------
// r = σ(first + first), z = σ(second + second), n = tanh(third + r · third),   h' = (1 - z) n + z h
// with the three blocks of the product with x and of that with h.
__global__ void gru_gates_naive(int batch, int units, const float* __restrict__ from_x, const float* __restrict__ from_h,
                                float* __restrict__ gates) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= batch * units) return;
  for (int gate = 0; gate < 2; gate++)
    gates[place(i, units, 4, gate)] = sigmoid(from_x[place(i, units, 3, gate)] + from_h[place(i, units, 3, gate)]);
}
__global__ void gru_candidate_naive(int batch, int units, const float* __restrict__ from_x, const float* __restrict__ from_h,
                                    float* __restrict__ gates) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= batch * units) return;
  const float recalled = from_h[place(i, units, 3, 2)];
  gates[place(i, units, 4, 2)] = tanhf(from_x[place(i, units, 3, 2)] + gates[place(i, units, 4, 0)] * recalled);
  gates[place(i, units, 4, 3)] = recalled;
}
__global__ void gru_state_naive(int batch, int units, const float* __restrict__ gates, const float* __restrict__ h,
                                float* __restrict__ new_h) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= batch * units) return;
  const float z = gates[place(i, units, 4, 1)];
  new_h[i] = (1.f - z) * gates[place(i, units, 4, 2)] + z * h[i];
}

__device__ __forceinline__ void gru_finish(int at, int units, const float (&from_x)[3], const float (&from_h)[3],
                                           const float* __restrict__ h, float* __restrict__ gates, float* __restrict__ new_h) {
  const float r = sigmoid(from_x[0] + from_h[0]), z = sigmoid(from_x[1] + from_h[1]), n = tanhf(from_x[2] + r * from_h[2]);
  gates[place(at, units, 4, 0)] = r;
  gates[place(at, units, 4, 1)] = z;
  gates[place(at, units, 4, 2)] = n;
  gates[place(at, units, 4, 3)] = from_h[2];
  new_h[at] = (1.f - z) * n + z * h[at];
}
__global__ void gru_pointwise(int batch, int units, const float* __restrict__ from_x, const float* __restrict__ from_h,
                              const float* __restrict__ h, float* __restrict__ gates, float* __restrict__ new_h) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= batch * units) return;
  float a[3], b[3];
#pragma unroll
  for (int gate = 0; gate < 3; gate++) a[gate] = from_x[place(at, units, 3, gate)], b[gate] = from_h[place(at, units, 3, gate)];
  gru_finish(at, units, a, b, h, gates, new_h);
}
template <int TILE>
__global__ void gru_fused(int batch, int n_in, int units, const float* __restrict__ x, const float* __restrict__ h,
                          const float* __restrict__ weight_ih, const float* __restrict__ weight_hh, const float* __restrict__ bias_ih,
                          const float* __restrict__ bias_hh, float* __restrict__ gates, float* __restrict__ new_h) {
  float from_x[3] = {}, from_h[3] = {};
  add_products<TILE>(from_x, batch, n_in, units, x, weight_ih, bias_ih);
  add_products<TILE>(from_h, batch, units, units, h, weight_hh, bias_hh);
  const int row = blockIdx.y * TILE + threadIdx.y, unit = blockIdx.x * TILE + threadIdx.x;
  if (row < batch && unit < units) gru_finish(row * units + unit, units, from_x, from_h, h, gates, new_h);
}

// The gradients of the product with x, dx_sums, and of that with h, dh_sums, which differ in the third
// block by r. What h gets besides is dy z: gru_backward_carry adds it to the product's share.
__global__ void gru_backward_candidate_naive(int batch, int units, const float* __restrict__ dy, const float* __restrict__ gates,
                                             float* __restrict__ dx_sums, float* __restrict__ dh_sums) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= batch * units) return;
  const float n = gates[place(i, units, 4, 2)], dn = dy[i] * (1.f - gates[place(i, units, 4, 1)]) * (1.f - n * n);
  dx_sums[place(i, units, 3, 2)] = dn;
  dh_sums[place(i, units, 3, 2)] = dn * gates[place(i, units, 4, 0)];
}
__global__ void gru_backward_reset_naive(int batch, int units, const float* __restrict__ gates, float* __restrict__ dx_sums,
                                         float* __restrict__ dh_sums) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= batch * units) return;
  const float r = gates[place(i, units, 4, 0)];
  dx_sums[place(i, units, 3, 0)] = dh_sums[place(i, units, 3, 0)] =
      dx_sums[place(i, units, 3, 2)] * gates[place(i, units, 4, 3)] * r * (1.f - r);
}
__global__ void gru_backward_update_naive(int batch, int units, const float* __restrict__ dy, const float* __restrict__ gates,
                                          const float* __restrict__ h, float* __restrict__ dx_sums, float* __restrict__ dh_sums) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= batch * units) return;
  const float z = gates[place(i, units, 4, 1)];
  dx_sums[place(i, units, 3, 1)] = dh_sums[place(i, units, 3, 1)] = dy[i] * (h[i] - gates[place(i, units, 4, 2)]) * z * (1.f - z);
}
__global__ void gru_backward_pointwise(int batch, int units, const float* __restrict__ dy, const float* __restrict__ gates,
                                       const float* __restrict__ h, float* __restrict__ dx_sums, float* __restrict__ dh_sums) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= batch * units) return;
  const float r = gates[place(at, units, 4, 0)], z = gates[place(at, units, 4, 1)], n = gates[place(at, units, 4, 2)];
  const float dn = dy[at] * (1.f - z) * (1.f - n * n);
  dx_sums[place(at, units, 3, 0)] = dh_sums[place(at, units, 3, 0)] = dn * gates[place(at, units, 4, 3)] * r * (1.f - r);
  dx_sums[place(at, units, 3, 1)] = dh_sums[place(at, units, 3, 1)] = dy[at] * (h[at] - n) * z * (1.f - z);
  dx_sums[place(at, units, 3, 2)] = dn;
  dh_sums[place(at, units, 3, 2)] = dn * r;
}
__global__ void gru_backward_carry(int batch, int units, const float* __restrict__ dy, const float* __restrict__ gates,
                                   float* __restrict__ dh) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < batch * units) dh[i] += dy[i] * gates[place(i, units, 4, 1)];
}
