// CUDA C++ on a CPU: what a .cu file needs to be compiled by g++ or clang++ and run.
//
// Every CUDA thread is a fiber: a stack of its own, switched by hand, so that it can stop in the
// middle of the kernel at a barrier and go on when the others have arrived (runtime.cpp). Blocks
// run one after another. The keywords below vanish; `__shared__` does not: the loader rewrites
//
//     __shared__ float tile[32][33];        extern __shared__ float row[];
//
// so that `tile` and `row` refer to this block's part of one arena, where they can be poisoned,
// bounded and watched. With ENGINE_WATCH the compiler reports every load and store to the runtime
// (-fsanitize=thread, whose callbacks the runtime defines); without, kernels run at full speed.
#pragma once
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define __CUDA_ON_CPU__ 1
#undef NDEBUG  // which zig defines and NVRTC does not
#define __global__ inline  // so that kernels that nobody asked for cost nothing
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __launch_bounds__(...)  // read from the source by the loader, and checked at launch
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))

#ifdef ENGINE_WATCH  // the engine's own loads and stores are not the kernel's
#define ENGINE_PLAIN static __attribute__((noinline, no_sanitize("thread")))
#else
#define ENGINE_PLAIN static inline
#endif
// Functions with these two last parameters know the line of the kernel that calls them.
#define ENGINE_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()
// Those where it matters which of several calls it was: clang shall neither make one of two calls in two
// branches nor copy one into branches. At the levels of _cpu.py g++ does neither.
#ifdef __clang__
#define ENGINE_CONVERGENT __attribute__((convergent, nomerge))
#else
#define ENGINE_CONVERGENT
#endif
#define ENGINE_TOGETHER ENGINE_CONVERGENT ENGINE_PLAIN
#define ENGINE_FROM __builtin_return_address(0)

// ---- vector types: aligned as on the GPU, so that a float4 is one access of 16 bytes -----------
#ifdef __clang__  // clang checks the alignment of what a copy constructor gets, g++ that of any copy
#define ENGINE_COPIES(T, NAME)                                                                     \
  NAME() = default;                                                                                \
  NAME(const NAME& v) { __builtin_memcpy(this, &v, sizeof v); }                                    \
  NAME& operator=(const NAME& v) { __builtin_memcpy(this, &v, sizeof v); return *this; }
#define ENGINE_COPIES2(T, NAME) ENGINE_COPIES(T, NAME) NAME(T x, T y) : x(x), y(y) {}
#define ENGINE_COPIES4(T, NAME) ENGINE_COPIES(T, NAME) NAME(T x, T y, T z, T w) : x(x), y(y), z(z), w(w) {}
#else
#define ENGINE_COPIES2(T, NAME)
#define ENGINE_COPIES4(T, NAME)
#endif
#define ENGINE_VECTORS(T, NAME, ALIGN2, ALIGN4)                                                    \
  struct NAME##1 { T x; };                                                                         \
  struct __align__(ALIGN2) NAME##2 { T x, y; ENGINE_COPIES2(T, NAME##2) };                                                \
  struct NAME##3 { T x, y, z; };                                                                   \
  struct __align__(ALIGN4) NAME##4 { T x, y, z, w; ENGINE_COPIES4(T, NAME##4) };                                              \
  static inline NAME##1 make_##NAME##1(T x) { return {x}; }                                        \
  static inline NAME##2 make_##NAME##2(T x, T y) { return {x, y}; }                                \
  static inline NAME##3 make_##NAME##3(T x, T y, T z) { return {x, y, z}; }                        \
  static inline NAME##4 make_##NAME##4(T x, T y, T z, T w) { return {x, y, z, w}; }
ENGINE_VECTORS(signed char, char, 2, 4)
ENGINE_VECTORS(unsigned char, uchar, 2, 4)
ENGINE_VECTORS(short, short, 4, 8)
ENGINE_VECTORS(unsigned short, ushort, 4, 8)
ENGINE_VECTORS(int, int, 8, 16)
ENGINE_VECTORS(unsigned, uint, 8, 16)
ENGINE_VECTORS(long long, longlong, 16, 16)
ENGINE_VECTORS(unsigned long long, ulonglong, 16, 16)
ENGINE_VECTORS(float, float, 8, 16)
ENGINE_VECTORS(double, double, 16, 16)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
static const int warpSize = 32;

// ---- the runtime's side of it --------------------------------------------------------------------
namespace engine {
enum Access { READ, WRITE, ATOMIC };
// `meet` runs once, when every lane of the mask has arrived; arguments[lane] is what it brought.
typedef void (*Meeting)(void** arguments, unsigned mask);
void warp_meeting(unsigned mask, void* argument, Meeting meet, const char* what, const char* file, int line);
ENGINE_CONVERGENT int block_barrier(const char* what, int vote, const char* file, int line, void* from);
void fail(const char* file, int line, const char* format, ...) __attribute__((noreturn));
void touch(const void* address, int bytes, Access access, const char* file, int line);
void launch(void (*body)(void**), void** arguments, const unsigned* shape, size_t shared_bytes);
unsigned lane();
ENGINE_CONVERGENT unsigned active_mask(const char* file, int line, void* from);

// One __shared__ variable of one function: `here` gives its place in the current block.
extern unsigned block_serial;
struct Shared {
  const char* name;
  char* address;
  unsigned serial;
  int id;
  void place(size_t bytes, size_t align, int item, char code, const char* file, int line);
  inline void* here(size_t bytes, size_t align, int item, char code, ENGINE_HERE) {
    if (serial != block_serial) place(bytes, align, item, code, file, line);
    return address;
  }
};
void* dynamic_shared(const char* name, int item, char code);
// The same at file scope, placed once for all.
void* file_shared(const char* name, size_t bytes, size_t align, int item, char code, ENGINE_HERE);
void* file_dynamic_shared(const char* name, int item, char code, ENGINE_HERE);
template <class T> struct Element { typedef T type; };
template <class T, size_t N> struct Element<T[N]> { typedef typename Element<T>::type type; };
template <class T> struct Same { typedef T type; };
// NumPy's letter for a type, so that a trace can show values; 'V' is anything else.
template <class T> struct Code { static const char value = 'V'; };
#define ENGINE_CODE(T, LETTER) template <> struct Code<T> { static const char value = LETTER; };
ENGINE_CODE(signed char, 'b') ENGINE_CODE(unsigned char, 'B') ENGINE_CODE(bool, '?')
ENGINE_CODE(short, 'h') ENGINE_CODE(unsigned short, 'H') ENGINE_CODE(int, 'i') ENGINE_CODE(unsigned, 'I')
ENGINE_CODE(long long, 'q') ENGINE_CODE(unsigned long long, 'Q') ENGINE_CODE(float, 'f') ENGINE_CODE(double, 'd')
ENGINE_CODE(float2, 'f') ENGINE_CODE(float3, 'f') ENGINE_CODE(float4, 'f') ENGINE_CODE(int2, 'i') ENGINE_CODE(int4, 'i')
}  // namespace engine
#define ENGINE_ELEMENT(TYPE)                                                                       \
  sizeof(typename engine::Element<TYPE>::type), engine::Code<typename engine::Element<TYPE>::type>::value
#define ENGINE_SHARED(TYPE, NAME)                                                                  \
  static engine::Shared NAME##_slot = {#NAME, 0, 0, 0};                                            \
  TYPE& NAME = *(TYPE*)NAME##_slot.here(sizeof(TYPE), alignof(TYPE), ENGINE_ELEMENT(TYPE))
#define ENGINE_FILE_SHARED(TYPE, NAME)                                                             \
  static TYPE& NAME = *(TYPE*)engine::file_shared(#NAME, sizeof(TYPE), alignof(TYPE), ENGINE_ELEMENT(TYPE))
#define ENGINE_DYNAMIC_SHARED(TYPE, NAME)                                                          \
  TYPE* NAME = (TYPE*)engine::dynamic_shared(#NAME, ENGINE_ELEMENT(TYPE))
#define ENGINE_FILE_DYNAMIC_SHARED(TYPE, NAME)                                                     \
  static TYPE* const NAME = (TYPE*)engine::file_dynamic_shared(#NAME, ENGINE_ELEMENT(TYPE))

// ---- barriers and fences -------------------------------------------------------------------------
enum { ENGINE_NO_VOTE = -1, ENGINE_VOTE_FALSE = 0, ENGINE_VOTE_TRUE = 1 };
ENGINE_TOGETHER void __syncthreads(ENGINE_HERE) { engine::block_barrier("__syncthreads", ENGINE_NO_VOTE, file, line, ENGINE_FROM); }
ENGINE_TOGETHER int __syncthreads_count(int p, ENGINE_HERE) { return engine::block_barrier("__syncthreads_count", p != 0, file, line, ENGINE_FROM); }
ENGINE_TOGETHER int __syncthreads_or(int p, ENGINE_HERE) { return engine::block_barrier("__syncthreads_or", p != 0, file, line, ENGINE_FROM) != 0; }
ENGINE_TOGETHER int __syncthreads_and(int p, ENGINE_HERE) { return engine::block_barrier("__syncthreads_and", p == 0, file, line, ENGINE_FROM) == 0; }
ENGINE_PLAIN void __syncwarp(unsigned mask = 0xffffffffu, ENGINE_HERE) { engine::warp_meeting(mask, 0, 0, "__syncwarp", file, line); }
ENGINE_PLAIN void __trap(ENGINE_HERE) { engine::fail(file, line, "__trap: the kernel gives up here"); }
static inline void __threadfence() {}  // one fiber runs at a time: memory is always consistent
static inline void __threadfence_block() {}
static inline void __threadfence_system() {}
ENGINE_TOGETHER unsigned __activemask(ENGINE_HERE) { return engine::active_mask(file, line, ENGINE_FROM); }

// ---- shuffles and votes: every lane brings a value, the meeting hands the answers out -----------
// Lanes that nobody reads from may bring a variable without a value. By value clang takes that for a path
// that is never gone.
#ifdef __clang__
#define ENGINE_ANY(T) const T&
#else
#define ENGINE_ANY(T) T
#endif
namespace engine {
template <class T> struct Carried { T value, answer; int source; };
template <class T> ENGINE_PLAIN void hand_over(void** lanes, unsigned mask) {
  for (int l = 0; l < 32; l++) {
    if (!(mask >> l & 1)) continue;
    Carried<T>* to = (Carried<T>*)lanes[l];
    if (to->source < 0) continue;  // beyond the segment: the lane keeps its own value
    if (!(mask >> to->source & 1))
      fail(0, 0, "divergent warp: lane %d reads from lane %d, which takes no part (mask %08x)", l, to->source, mask);
    to->answer = ((Carried<T>*)lanes[to->source])->value;
  }
}
template <class T> ENGINE_PLAIN T shuffle(unsigned mask, ENGINE_ANY(T) value, int source, const char* what, const char* file, int line) {
  Carried<T> carried = {value, value, source};
  warp_meeting(mask, &carried, hand_over<T>, what, file, line);
  return carried.answer;
}
template <class T> ENGINE_PLAIN void find_equal(void** lanes, unsigned mask) {
  for (int l = 0; l < 32; l++)
    if (mask >> l & 1) {
      unsigned equal = 0;
      for (int k = 0; k < 32; k++)
        if (mask >> k & 1 && ((Carried<T>*)lanes[k])->value == ((Carried<T>*)lanes[l])->value) equal |= 1u << k;
      ((Carried<T>*)lanes[l])->source = (int)equal;
    }
}
template <class T> ENGINE_PLAIN unsigned match(unsigned mask, T value, const char* what, const char* file, int line) {
  Carried<T> carried = {value, value, 0};
  warp_meeting(mask, &carried, find_equal<T>, what, file, line);
  return (unsigned)carried.source;
}
ENGINE_PLAIN void collect_votes(void** lanes, unsigned mask) {
  unsigned votes = 0;
  for (int l = 0; l < 32; l++)
    if (mask >> l & 1 && ((Carried<int>*)lanes[l])->value) votes |= 1u << l;
  for (int l = 0; l < 32; l++)
    if (mask >> l & 1) ((Carried<int>*)lanes[l])->answer = (int)votes;
}
ENGINE_PLAIN unsigned ballot(unsigned mask, bool vote, const char* what, const char* file, int line) {
  Carried<int> carried = {vote, 0, 0};
  warp_meeting(mask, &carried, collect_votes, what, file, line);
  return (unsigned)carried.answer;
}
enum Reduction { ADD, MIN, MAX, AND, OR, XOR };
template <class T> ENGINE_PLAIN T reduce(unsigned mask, T value, Reduction how, const char* what, const char* file, int line) {
  T total = value;
  bool first = true;
  for (int l = 0; l < 32; l++)
    if (mask >> l & 1) {
      T v = shuffle<T>(mask, value, l, what, file, line);
      total = first ? v : how == ADD ? total + v : how == MIN ? (v < total ? v : total) : how == MAX ? (v > total ? v : total)
            : how == AND ? (total & v) : how == OR ? (total | v) : (total ^ v);
      first = false;
    }
  return total;
}
}  // namespace engine
#define ENGINE_SHUFFLE(NAME, PARAMETER, SOURCE)                                                    \
  template <class T> ENGINE_PLAIN T NAME(unsigned mask, ENGINE_ANY(T) value, PARAMETER, int width = 32, ENGINE_HERE) { \
    int l = (int)engine::lane(), first = l & ~(width - 1), last = l | (width - 1);                 \
    (void)first, (void)last;                                                                       \
    return engine::shuffle(mask, value, SOURCE, #NAME, file, line);                                \
  }
ENGINE_SHUFFLE(__shfl_sync, int source, first | (source & (width - 1)))
ENGINE_SHUFFLE(__shfl_up_sync, unsigned delta, l - (int)delta >= first ? l - (int)delta : -1)
ENGINE_SHUFFLE(__shfl_down_sync, unsigned delta, l + (int)delta <= last ? l + (int)delta : -1)
ENGINE_SHUFFLE(__shfl_xor_sync, int lanes, (l ^ lanes) <= last ? l ^ lanes : -1)
ENGINE_PLAIN unsigned __ballot_sync(unsigned mask, int p, ENGINE_HERE) { return engine::ballot(mask, p != 0, "__ballot_sync", file, line); }
ENGINE_PLAIN int __any_sync(unsigned mask, int p, ENGINE_HERE) { return engine::ballot(mask, p != 0, "__any_sync", file, line) != 0; }
ENGINE_PLAIN int __all_sync(unsigned mask, int p, ENGINE_HERE) { return engine::ballot(mask, !p, "__all_sync", file, line) == 0; }
template <class T> ENGINE_PLAIN unsigned __match_any_sync(unsigned mask, T value, ENGINE_HERE) { return engine::match(mask, value, "__match_any_sync", file, line); }
template <class T> ENGINE_PLAIN unsigned __match_all_sync(unsigned mask, T value, int* all, ENGINE_HERE) {
  unsigned equal = engine::match(mask, value, "__match_all_sync", file, line);
  *all = equal == mask;
  return *all ? mask : 0;
}
#define ENGINE_REDUCE(NAME, T, HOW)                                                                \
  ENGINE_PLAIN T NAME(unsigned mask, T value, ENGINE_HERE) { return engine::reduce<T>(mask, value, engine::HOW, #NAME, file, line); }
ENGINE_REDUCE(__reduce_add_sync, unsigned, ADD)
ENGINE_REDUCE(__reduce_add_sync, int, ADD)
ENGINE_REDUCE(__reduce_min_sync, unsigned, MIN)
ENGINE_REDUCE(__reduce_min_sync, int, MIN)
ENGINE_REDUCE(__reduce_max_sync, unsigned, MAX)
ENGINE_REDUCE(__reduce_max_sync, int, MAX)
ENGINE_REDUCE(__reduce_and_sync, unsigned, AND)
ENGINE_REDUCE(__reduce_or_sync, unsigned, OR)
ENGINE_REDUCE(__reduce_xor_sync, unsigned, XOR)

// ---- atomics: one fiber runs at a time, so reading and then writing is atomic -------------------
#define ENGINE_ATOMIC(NAME, NEW)                                                                   \
  template <class T> ENGINE_PLAIN T NAME(T* p, typename engine::Same<T>::type v, ENGINE_HERE) {    \
    engine::touch(p, sizeof(T), engine::ATOMIC, file, line);                                       \
    T old = *p;                                                                                    \
    *p = NEW;                                                                                      \
    return old;                                                                                    \
  }
ENGINE_ATOMIC(atomicAdd, old + v)
ENGINE_ATOMIC(atomicSub, old - v)
ENGINE_ATOMIC(atomicExch, v)
ENGINE_ATOMIC(atomicMax, old > v ? old : v)
ENGINE_ATOMIC(atomicMin, old < v ? old : v)
ENGINE_ATOMIC(atomicAnd, old & v)
ENGINE_ATOMIC(atomicOr, old | v)
ENGINE_ATOMIC(atomicXor, old ^ v)
ENGINE_ATOMIC(atomicInc, old >= v ? 0 : old + 1)
ENGINE_ATOMIC(atomicDec, old == 0 || old > v ? v : old - 1)
template <class T> ENGINE_PLAIN T atomicCAS(T* p, typename engine::Same<T>::type expected, typename engine::Same<T>::type v, ENGINE_HERE) {
  engine::touch(p, sizeof(T), engine::ATOMIC, file, line);
  T old = *p;
  if (old == expected) *p = v;
  return old;
}

// ---- cache hints (macros: the access keeps the kernel's line), bits, fast mathematics ------------
#define __ldg(p) (*(p))
#define __ldca(p) (*(p))
#define __ldcg(p) (*(p))
#define __ldcs(p) (*(p))
#define __stcs(p, v) ((void)(*(p) = (v)))
#define __stcg(p, v) ((void)(*(p) = (v)))
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static inline int __float_as_int(float f) { int i; memcpy(&i, &f, 4); return i; }
static inline unsigned __float_as_uint(float f) { unsigned i; memcpy(&i, &f, 4); return i; }
static inline float __int_as_float(int i) { float f; memcpy(&f, &i, 4); return f; }
static inline float __uint_as_float(unsigned i) { float f; memcpy(&f, &i, 4); return f; }
#define __expf(x) expf(x)  // the C library declares functions of these names, hence macros
#define __exp2f(x) exp2f(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __powf(x, y) powf(x, y)
#define __tanf(x) tanf(x)
#define __log10f(x) log10f(x)
#define __exp10f(x) powf(10.f, x)
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1.f / a; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __frsqrt_rn(float x) { return 1.f / sqrtf(x); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dsub_rn(double a, double b) { return a - b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __ddiv_rn(double a, double b) { return a / b; }
static inline double __dsqrt_rn(double x) { return sqrt(x); }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
// To integers: what is too large becomes the largest. rn: to the nearest, ties to even; rz: towards zero.
namespace engine {
template <class I> static inline I to_integer(double x, I low, I high) {
  return x != x ? 0 : x <= (double)low ? low : x >= (double)high ? high : (I)x;
}
}  // namespace engine
#define ENGINE_ROUNDED(HOW, ROUND)                                                                 \
  static inline int __double2int_##HOW(double x) { return engine::to_integer(ROUND(x), INT_MIN, INT_MAX); } \
  static inline unsigned __double2uint_##HOW(double x) { return engine::to_integer(ROUND(x), 0u, UINT_MAX); } \
  static inline long long __double2ll_##HOW(double x) { return engine::to_integer(ROUND(x), LLONG_MIN, LLONG_MAX); } \
  static inline unsigned long long __double2ull_##HOW(double x) { return engine::to_integer(ROUND(x), 0ull, ULLONG_MAX); } \
  static inline int __float2int_##HOW(float x) { return __double2int_##HOW(x); }                   \
  static inline unsigned __float2uint_##HOW(float x) { return __double2uint_##HOW(x); }            \
  static inline long long __float2ll_##HOW(float x) { return __double2ll_##HOW(x); }               \
  static inline unsigned long long __float2ull_##HOW(float x) { return __double2ull_##HOW(x); }
ENGINE_ROUNDED(rn, rint)
ENGINE_ROUNDED(rz, trunc)
ENGINE_ROUNDED(ru, ceil)
ENGINE_ROUNDED(rd, floor)
static inline float __int2float_rn(int x) { return (float)x; }
static inline float __uint2float_rn(unsigned x) { return (float)x; }
static inline float __ll2float_rn(long long x) { return (float)x; }
static inline double __int2double_rn(int x) { return x; }
static inline double __uint2double_rn(unsigned x) { return x; }
static inline float __double2float_rn(double x) { return (float)x; }
static inline long long __double_as_longlong(double x) { long long i; memcpy(&i, &x, 8); return i; }
static inline double __longlong_as_double(long long i) { double x; memcpy(&x, &i, 8); return x; }
static inline unsigned __brev(unsigned x) {
  x = (x >> 1 & 0x55555555) | (x & 0x55555555) << 1;
  x = (x >> 2 & 0x33333333) | (x & 0x33333333) << 2;
  x = (x >> 4 & 0x0f0f0f0f) | (x & 0x0f0f0f0f) << 4;
  return __builtin_bswap32(x);
}
static inline unsigned long long __brevll(unsigned long long x) {
  return (unsigned long long)__brev((unsigned)x) << 32 | __brev((unsigned)(x >> 32));
}
// Four bytes chosen from the eight of b and a by the four hexadecimal digits of `which`; 8 and more: its sign.
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned which) {
  const unsigned long long all = (unsigned long long)b << 32 | a;
  unsigned chosen = 0;
  for (int i = 0; i < 4; i++) {
    const unsigned digit = which >> 4 * i & 15, byte = (unsigned)(all >> 8 * (digit & 7)) & 255;
    chosen |= (digit & 8 ? (byte & 128 ? 255u : 0u) : byte) << 8 * i;
  }
  return chosen;
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned by) {
  return (unsigned)(((unsigned long long)high << 32 | low) << (by & 31) >> 32);
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by) {
  return (unsigned)(((unsigned long long)high << 32 | low) >> (by & 31));
}
static inline int __mulhi(int a, int b) { return (int)((long long)a * b >> 32); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
static inline long long __mul64hi(long long a, long long b) { return (long long)((__int128)a * b >> 64); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return (unsigned long long)((unsigned __int128)a * b >> 64); }
static inline int __mul24(int a, int b) { return (int)((unsigned)(a << 8 >> 8) * (unsigned)(b << 8 >> 8)); }
static inline unsigned __umul24(unsigned a, unsigned b) { return (a & 0xffffff) * (b & 0xffffff); }
static inline unsigned __sad(int a, int b, unsigned c) { return c + (a > b ? (unsigned)a - (unsigned)b : (unsigned)b - (unsigned)a); }
// With π: exact where the argument is a multiple of ½, as x − 2·round(x/2) is without error.
static inline double engine_turn(double x) { return x - 2 * rint(x / 2); }
static inline double engine_sinpi(double x) {
  const double t = engine_turn(x);
  return t == rint(t) ? copysign(0., x) : t == .5 ? 1. : t == -.5 ? -1. : sin(3.141592653589793238 * t);
}
static inline double engine_cospi(double x) {
  const double t = fabs(engine_turn(x));
  return t == .5 ? 0. : cos(3.141592653589793238 * t);
}
#define sinpi(x) engine_sinpi(x)  // newer C libraries have functions of these names
#define cospi(x) engine_cospi(x)
#define sinpif(x) ((float)engine_sinpi(x))
#define cospif(x) ((float)engine_cospi(x))
static inline float __saturatef(float x) { return x < 0 ? 0 : x > 1 ? 1 : x; }
static inline float engine_rsqrt(float x) { return 1.f / sqrtf(x); }
static inline double engine_rsqrt(double x) { return 1. / sqrt(x); }
#define rsqrtf engine_rsqrt  // newer C libraries have functions of these names
#define rsqrt engine_rsqrt
#define ENGINE_MIN_MAX(T)                                                                          \
  static inline T min(T a, T b) { return a < b ? a : b; }                                          \
  static inline T max(T a, T b) { return a > b ? a : b; }
ENGINE_MIN_MAX(int)
ENGINE_MIN_MAX(unsigned)
ENGINE_MIN_MAX(long)
ENGINE_MIN_MAX(unsigned long)
ENGINE_MIN_MAX(long long)
ENGINE_MIN_MAX(unsigned long long)
// Of a signed and an unsigned number of one size both are taken as unsigned, as CUDA's headers do.
#define ENGINE_MIXED(T, U)                                                                         \
  static inline U min(T a, U b) { return min((U)a, b); }                                           \
  static inline U min(U a, T b) { return min(a, (U)b); }                                           \
  static inline U max(T a, U b) { return max((U)a, b); }                                           \
  static inline U max(U a, T b) { return max(a, (U)b); }
ENGINE_MIXED(int, unsigned)
ENGINE_MIXED(long, unsigned long)
ENGINE_MIXED(long long, unsigned long long)
static inline double min(float a, double b) { return fmin(a, b); }
static inline double min(double a, float b) { return fmin(a, b); }
static inline double max(float a, double b) { return fmax(a, b); }
static inline double max(double a, float b) { return fmax(a, b); }
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }
// In CUDA these take the type of their argument. The C++ library's headers, which would say so too,
// take longer to read than everything else together: the C library's are used instead.
#ifndef _LIBCPP_VERSION  // zig gives its C++ library's headers in any case
#define ENGINE_FLOAT(NAME) static inline float NAME(float x) { return NAME##f(x); }
ENGINE_FLOAT(sqrt) ENGINE_FLOAT(exp) ENGINE_FLOAT(exp2) ENGINE_FLOAT(log) ENGINE_FLOAT(log2) ENGINE_FLOAT(log1p)
ENGINE_FLOAT(sin) ENGINE_FLOAT(cos) ENGINE_FLOAT(tanh) ENGINE_FLOAT(erf) ENGINE_FLOAT(floor) ENGINE_FLOAT(ceil)
ENGINE_FLOAT(rint) ENGINE_FLOAT(fabs) ENGINE_FLOAT(cbrt) ENGINE_FLOAT(expm1)
static inline float pow(float x, float y) { return powf(x, y); }
static inline float abs(float x) { return fabsf(x); }
static inline double abs(double x) { return fabs(x); }
#endif

// ---- entry points: the loader appends ENGINE_KERNEL(number, (kernel<arguments>), bound) ----------
namespace engine {
template <int... I> struct Indices {};
template <int N, int... I> struct UpTo : UpTo<N - 1, N - 1, I...> {};
template <int... I> struct UpTo<0, I...> { typedef Indices<I...> type; };
template <class T> struct Mutable { typedef T type; };
template <class T> struct Mutable<const T> { typedef T type; };
template <class... P, int... I> ENGINE_PLAIN void call(void (*kernel)(P...), void** arguments, Indices<I...>) {
  kernel(*(typename Mutable<P>::type*)arguments[I]...);
}
template <class... P> ENGINE_PLAIN void call(void (*kernel)(P...), void** arguments) {
  call(kernel, arguments, typename UpTo<sizeof...(P)>::type());
}
template <class... P> static inline int argument_bytes(void (*)(P...), int i) {
  int bytes[] = {(int)sizeof(P)..., -1};
  return bytes[i];
}
}  // namespace engine
#define ENGINE_EXPORT extern "C" __attribute__((visibility("default"), no_sanitize("thread")))
#define ENGINE_KERNEL(N, KERNEL, BOUND)                                                            \
  __attribute__((no_sanitize("thread"))) static void engine_body_##N(void** arguments) { engine::call(KERNEL, arguments); } \
  ENGINE_EXPORT void engine_launch_##N(void** arguments, const unsigned* shape, size_t shared_bytes) { \
    engine::launch(engine_body_##N, arguments, shape, shared_bytes);                               \
  }                                                                                                \
  ENGINE_EXPORT int engine_argument_bytes_##N(int i) { return engine::argument_bytes(KERNEL, i); } \
  ENGINE_EXPORT int engine_bound_##N() { return BOUND; }

#ifndef ENGINE_RUNTIME
#define asm static_assert(false, "inline PTX cannot run on a CPU: keep it under #ifndef __CUDA_ON_CPU__"); asm
#endif
