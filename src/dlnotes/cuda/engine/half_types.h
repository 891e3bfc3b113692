// __half and __nv_bfloat16 on a CPU: two bytes, rounded to nearest even, arithmetic in float.
#pragma once
#include "cuda_on_cpu.h"

static __forceinline__ uint16_t engine_to_bfloat16(float f) {
  uint32_t u = __float_as_uint(f);
  if ((u & 0x7fffffff) > 0x7f800000) return 0x7fff;  // NaN
  return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
static __forceinline__ float engine_from_bfloat16(uint16_t h) { return __uint_as_float((uint32_t)h << 16); }

static __forceinline__ uint16_t engine_to_half(float f) {
  uint32_t u = __float_as_uint(f), sign = u >> 16 & 0x8000, size = u & 0x7fffffff;
  if (size > 0x7f800000) return 0x7fff;                       // NaN
  if (size >= 0x47800000) return (uint16_t)(sign | 0x7c00);   // too large: infinity
  if (size < 0x38800000)                                      // subnormal: adding ½ aligns the bits
    return (uint16_t)(sign | (__float_as_uint(__uint_as_float(size) + 0.5f) - 0x3f000000));
  return (uint16_t)(sign | ((size + 0xfff + (size >> 13 & 1) - 0x38000000) >> 13));
}
static __forceinline__ float engine_from_half(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ff;
  if (exponent == 31) return __uint_as_float(sign | 0x7f800000 | fraction << 13);
  if (exponent) return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
  float f = (float)fraction * 5.9604644775390625e-8f;         // 2⁻²⁴
  return sign ? -f : f;
}

#define ENGINE_HALF(T, T2, TO, FROM)                                                               \
  struct __align__(2) T {                                                                          \
    uint16_t bits;                                                                                 \
    T() = default;                                                                                 \
    __forceinline__ T(float f) : bits(TO(f)) {}                                                                    \
    __forceinline__ T(double f) : bits(TO((float)f)) {}                                                            \
    __forceinline__ T(int f) : bits(TO((float)f)) {}                                                               \
    __forceinline__ operator float() const { return FROM(bits); }                                                  \
    __forceinline__ T& operator+=(T o) { return *this = T(float(*this) + float(o)); }                              \
    __forceinline__ T& operator-=(T o) { return *this = T(float(*this) - float(o)); }                              \
    __forceinline__ T& operator*=(T o) { return *this = T(float(*this) * float(o)); }                              \
  };                                                                                               \
  struct __align__(4) T2 { T x, y; };                                                              \
  static __forceinline__ T operator+(T a, T b) { return T(float(a) + float(b)); }                           \
  static __forceinline__ T operator-(T a, T b) { return T(float(a) - float(b)); }                           \
  static __forceinline__ T operator*(T a, T b) { return T(float(a) * float(b)); }                           \
  static __forceinline__ T operator/(T a, T b) { return T(float(a) / float(b)); }                           \
  static __forceinline__ bool operator<(T a, T b) { return float(a) < float(b); }                           \
  static __forceinline__ bool operator>(T a, T b) { return float(a) > float(b); }                           \
  static __forceinline__ T __hadd(T a, T b) { return a + b; }                                               \
  static __forceinline__ T __hmul(T a, T b) { return a * b; }                                               \
  static __forceinline__ T __hfma(T a, T b, T c) { return T(fmaf(float(a), float(b), float(c))); }          \
  static __forceinline__ T2 __hadd2(T2 a, T2 b) { return {a.x + b.x, a.y + b.y}; }                          \
  static __forceinline__ T2 __hmul2(T2 a, T2 b) { return {a.x * b.x, a.y * b.y}; }                          \
  static __forceinline__ T2 __hfma2(T2 a, T2 b, T2 c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; } \
  static __forceinline__ float __low2float(T2 a) { return a.x; }                                            \
  static __forceinline__ float __high2float(T2 a) { return a.y; }
ENGINE_HALF(__half, __half2, engine_to_half, engine_from_half)
ENGINE_HALF(__nv_bfloat16, __nv_bfloat162, engine_to_bfloat16, engine_from_bfloat16)
namespace engine {
ENGINE_CODE(__half, 'e') ENGINE_CODE(__half2, 'e')
}  // namespace engine
typedef __half half;
typedef __half2 half2;
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;
static __forceinline__ __half __float2half(float f) { return __half(f); }
static __forceinline__ __half __float2half_rn(float f) { return __half(f); }
static __forceinline__ float __half2float(__half h) { return h; }
static __forceinline__ __half2 __floats2half2_rn(float a, float b) { return {__half(a), __half(b)}; }
static __forceinline__ __half2 __float22half2_rn(float2 a) { return {__half(a.x), __half(a.y)}; }
static __forceinline__ float2 __half22float2(__half2 h) { return {h.x, h.y}; }
static __forceinline__ unsigned short __half_as_ushort(__half h) { return h.bits; }
static __forceinline__ __half __ushort_as_half(unsigned short bits) { __half h; h.bits = bits; return h; }
static __forceinline__ unsigned short __bfloat16_as_ushort(__nv_bfloat16 h) { return h.bits; }
static __forceinline__ __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { __nv_bfloat16 h; h.bits = bits; return h; }
static __forceinline__ __nv_bfloat16 __float2bfloat16(float f) { return __nv_bfloat16(f); }
static __forceinline__ __nv_bfloat16 __float2bfloat16_rn(float f) { return __nv_bfloat16(f); }
static __forceinline__ float __bfloat162float(__nv_bfloat16 h) { return h; }
static __forceinline__ __nv_bfloat162 __floats2bfloat162_rn(float a, float b) { return {__nv_bfloat16(a), __nv_bfloat16(b)}; }
static __forceinline__ __nv_bfloat162 __float22bfloat162_rn(float2 a) { return {__nv_bfloat16(a.x), __nv_bfloat16(a.y)}; }
static __forceinline__ float2 __bfloat1622float2(__nv_bfloat162 h) { return {h.x, h.y}; }
