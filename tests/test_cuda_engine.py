"""The CPU engine: CUDA's semantics, what each mode reports, and what is refused."""

import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from cuda_helpers import kernel, needs_compiler, normal

from dlnotes import cuda
from dlnotes.cuda import _cache, _cpu, _source

pytestmark = needs_compiler
f32 = np.float32


def line_of(source: str, mark: str) -> int:
    return 1 + next(i for i, line in enumerate(source.splitlines()) if mark in line)


# ------------------------------------------------ faults

# kind, threads, source; the faulty line carries the mark //!
FAULTS = {
    "past the end of an argument": ("out of bounds", 64, """
__global__ void f(const float* x, float* y) {
  y[threadIdx.x] = x[threadIdx.x + 1];  //!
}"""),
    "before the beginning of an argument": ("out of bounds", 64, """
__global__ void f(const float* x, float* y) {
  y[(int)threadIdx.x - 1] = x[threadIdx.x];  //!
}"""),
    "past a shared array": ("out of bounds", 64, """
__global__ void f(const float* x, float* y) {
  __shared__ float s[63];
  float* p = s;
  p[threadIdx.x] = x[threadIdx.x];  //!
  __syncthreads();
  y[threadIdx.x] = p[threadIdx.x];
}"""),
    "into the next row of a shared array": ("out of bounds", 64, """
__global__ void f(const float* x, float* y) {
  __shared__ float s[4][16];
  s[threadIdx.x / 16][threadIdx.x % 16 + 1] = x[threadIdx.x];  //!
}"""),
    "past dynamic shared memory": ("out of bounds", 64, """
__global__ void f(const float* x, float* y) {
  extern __shared__ float s[];
  s[threadIdx.x] = x[threadIdx.x];  //!
}"""),
    "past an array in registers": ("out of bounds", 64, """
__global__ void f(const float* x, float* y) {
  float r[4] = {};
  for (int i = 0; i <= 4; i++) r[i] = x[i];  //!
  y[threadIdx.x] = r[threadIdx.x % 4];
}"""),
    "through a null pointer": ("out of bounds", 64, """
__global__ void f(const float* x, float* y) {
  const float* p = threadIdx.x < 100 ? nullptr : x;
  y[threadIdx.x] = p[threadIdx.x];  //!
}"""),
    "no barrier between warps": ("race", 64, """
__global__ void f(const float* x, float* y) {
  __shared__ float s[64];
  s[threadIdx.x] = x[threadIdx.x];  //!
  y[threadIdx.x] = s[63 - threadIdx.x];
}"""),
    "no barrier inside a warp": ("race", 32, """
__global__ void f(const float* x, float* y) {
  __shared__ float s[32];
  s[threadIdx.x] = x[threadIdx.x];  //!
  y[threadIdx.x] = s[31 - threadIdx.x];
}"""),
    "a shuffle is no barrier": ("race", 32, """
__global__ void f(const float* x, float* y) {
  __shared__ float s[32];
  s[threadIdx.x] = x[threadIdx.x];
  float v = __shfl_xor_sync(0xffffffffu, x[threadIdx.x], 1);
  y[threadIdx.x] = v + s[31 - threadIdx.x];  //!
}"""),
    "a barrier of half of the warp orders that half only": ("race", 32, """
__global__ void f(const float* x, float* y) {
  __shared__ float s[32];
  s[threadIdx.x] = x[threadIdx.x];  //!
  unsigned half = threadIdx.x < 16 ? 0x0000ffffu : 0xffff0000u;
  __syncwarp(half);
  y[threadIdx.x] = s[31 - threadIdx.x];
}"""),
    "a barrier of a warp does not order warps": ("race", 64, """
__global__ void f(const float* x, float* y) {
  __shared__ float s[64];
  s[threadIdx.x] = x[threadIdx.x];  //!
  __syncwarp();
  y[threadIdx.x] = s[63 - threadIdx.x];
}"""),
    "written again before all have read": ("race", 64, """
__global__ void f(const float* x, float* y) {
  __shared__ float s[64];
  for (int turn = 0; turn < 2; turn++) {
    s[threadIdx.x] = x[threadIdx.x] + turn;
    __syncthreads();
    y[threadIdx.x] = s[63 - threadIdx.x];  //!
  }
}"""),
    "sums without atomics": ("race", 64, """
__global__ void f(const float* x, float* y) {
  y[0] += x[threadIdx.x];  //!
}"""),
    "a plain read beside atomics": ("race", 64, """
__global__ void f(const float* x, float* y) {
  atomicAdd(&y[0], x[threadIdx.x]);  //!
  y[threadIdx.x + 1] = y[0];
}"""),
    "shared memory that nobody wrote": ("uninitialised", 64, """
__global__ void f(const float* x, float* y) {
  __shared__ float s[64];
  if (threadIdx.x < 63) s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x];  //!
}"""),
    "an index from shared memory that nobody wrote": ("uninitialised", 64, """
__global__ void f(const float* x, float* y) {
  __shared__ int s[64];
  int i = s[threadIdx.x];  //!
  y[threadIdx.x] = x[i];
}"""),
    "a float4 at a multiple of 4 bytes": ("misaligned", 4, """
__global__ void f(const float* x, float* y) {
  float4 v = *reinterpret_cast<const float4*>(x + 1 + 4 * threadIdx.x);  //!
  y[threadIdx.x] = v.x + v.y + v.z + v.w;
}"""),
    "a float2 stored at a multiple of 4 bytes": ("misaligned", 4, """
__global__ void f(const float* x, float* y) {
  *reinterpret_cast<float2*>(y + 1 + 2 * threadIdx.x) = make_float2(1.f, 2.f);  //!
}"""),
    "a barrier in one branch": ("divergent barrier", 64, """
__global__ void f(const float* x, float* y) {
  if (threadIdx.x < 32) __syncthreads();  //!
  y[threadIdx.x] = x[threadIdx.x];
}"""),
    "two barriers in two branches": ("divergent barrier", 64, """
__global__ void f(const float* x, float* y) {
  if (threadIdx.x < 32) __syncthreads();  //!
  else
    __syncthreads();
  y[threadIdx.x] = x[threadIdx.x];
}"""),
    "a barrier in each branch, in one line": ("divergent barrier", 64, """
__global__ void f(const float* x, float* y) {
  if (threadIdx.x < 32) { __syncthreads(); } else { __syncthreads(); }  //!
  y[threadIdx.x] = x[threadIdx.x];
}"""),
    "a barrier in a function that both branches call": ("divergent barrier", 64, """
__device__ void meet() {
  __syncthreads();  //!
}
__global__ void f(const float* x, float* y) {
  if (threadIdx.x < 32) meet();
  else {
    y[threadIdx.x] = x[threadIdx.x];
    meet();
  }
}"""),
    "two threads write one byte of an int": ("race", 64, """
__global__ void f(const float* x, float* y) {
  __shared__ int s[16];
  ((unsigned char*)s)[threadIdx.x] = 1;  //!
  if (threadIdx.x == 40) ((unsigned char*)s)[41] = 2;
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x / 4];
}"""),
    "bytes of a word, then the word": ("race", 64, """
__global__ void f(const float* x, float* y) {
  ((char*)y)[threadIdx.x] = 1;  //!
  if (threadIdx.x >= 32) y[threadIdx.x / 4] = 2;
}"""),
    "past shared memory at file scope": ("out of bounds", 64, """
__shared__ float s[63];
__global__ void f(const float* x, float* y) {
  float* p = s;
  p[threadIdx.x] = x[threadIdx.x];  //!
}"""),
    "shared memory at file scope that nobody wrote": ("uninitialised", 64, """
extern __shared__ float s[];
__global__ void f(const float* x, float* y) {
  if (threadIdx.x < 62) s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  if (threadIdx.x < 63) y[threadIdx.x] = s[threadIdx.x];  //!
}"""),
    "lanes that never come": ("deadlock", 64, """
__global__ void f(const float* x, float* y) {
  float v = x[threadIdx.x];
  if (threadIdx.x % 32 < 16) v = __shfl_xor_sync(0xffffffffu, v, 1);  //!
  __syncthreads();
  y[threadIdx.x] = v;
}"""),
    "a mask that names who has left": ("divergent warp", 32, """
__global__ void f(const float* x, float* y) {
  if (threadIdx.x >= 20) return;
  y[threadIdx.x] = __shfl_down_sync(0xffffffffu, x[threadIdx.x], 1);  //!
}"""),
    "a shuffle that does not name its caller": ("divergent warp", 32, """
__global__ void f(const float* x, float* y) {
  y[threadIdx.x] = __shfl_down_sync(0x0000ffffu, x[threadIdx.x], 1);  //!
}"""),
    "a shuffle from a lane that takes no part": ("divergent warp", 32, """
__global__ void f(const float* x, float* y) {
  if (threadIdx.x < 16)
    y[threadIdx.x] = __shfl_sync(0x0000ffffu, x[threadIdx.x], 20);  //!
}"""),
    "division by zero": ("error", 1, """
__global__ void f(const float* x, float* y) {
  int zero = (int)x[0];
  y[0] = 5 / zero;  //!
}"""),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_checked_mode_names_fault_and_line(name):
    kind, threads, source = FAULTS[name]
    x, y = np.arange(64, dtype=f32), np.zeros(65, f32)
    with pytest.raises(cuda.KernelError) as caught:
        kernel(source).launch(1, threads, x, y, shared_bytes=4 * 63 * ("extern" in source))
    error = caught.value
    assert (error.kind, error.line) == (kind, line_of(source, "//!")), str(error)
    assert error.kernel == "f"
    assert error.block == (0, 0, 0)
    assert error.thread is not None
    assert source.splitlines()[error.line - 1].strip() in str(error)


def test_checked_mode_leaves_arrays_as_misaligned_as_they_are():
    """A GPU refuses to read a float4 where an array begins at a multiple of 4 bytes only."""
    first = kernel(
        "__global__ void f(const float* x, float* y) {\n"
        "  *reinterpret_cast<float4*>(y) = *reinterpret_cast<const float4*>(x);\n}"
    )
    room, y = np.arange(16, dtype=np.float32), np.empty(4, np.float32)
    for i in (0, 4, 8):
        first[1, 1](room[i:], y)
        np.testing.assert_array_equal(y, room[i : i + 4])
    for i in (1, 2, 3, 5):
        with pytest.raises(cuda.KernelError) as caught:
            first[1, 1](room[i:], y)
        assert caught.value.kind == "misaligned"


def test_error_says_block_and_thread():
    source = """
__global__ void f(float* y) {
  if (blockIdx.x == 2 && blockIdx.y == 1 && threadIdx.x == 3 && threadIdx.y == 4) y[10] = 1.f;
}"""
    with pytest.raises(cuda.KernelError, match=r"'y'\[10\], which has 10 elements") as caught:
        kernel(source)[(3, 2), (5, 6)](np.zeros(10, f32))
    assert (caught.value.block, caught.value.thread) == ((2, 1, 0), (3, 4, 0))


def test_blocks_are_not_ordered():
    source = """
__global__ void f(float* y) {
  if (blockIdx.x == 0) y[0] = 1.f;
  if (blockIdx.x == 1) y[1] = y[0];
}"""
    with pytest.raises(
        cuda.KernelError, match=r"race: read of 'y'\[0\], which block 0 has written"
    ):
        kernel(source)[2, 1](np.zeros(2, f32))
    source = """
__global__ void f(float* y) {
  if (blockIdx.x < 2) y[2 + blockIdx.x] = y[0];
  if (blockIdx.x == 2) y[0] = 1.f;
}"""
    with pytest.raises(cuda.KernelError, match=r"race: write of 'y'\[0\], which block 1 has read"):
        kernel(source)[3, 1](np.zeros(4, f32))


def test_deadlock_says_who_waits_where():
    _, threads, source = FAULTS["lanes that never come"]
    x, y = np.zeros(64, f32), np.zeros(65, f32)
    expected = (
        "threads 0 to 15 wait at __shfl_xor_sync in line 4; "
        "threads 16 to 31 wait at __syncthreads in line 5"
    )
    for mode in ("fast", "checked"):
        with pytest.raises(cuda.KernelError, match=expected):
            kernel(source, mode)[1, threads](x, y)


def test_a_failed_launch_leaves_the_outputs_and_the_engine_as_they_were():
    source = "__global__ void f(int n, float* y) { y[threadIdx.x + n] = 1.f; }"
    run, y = kernel(source), np.zeros(8, f32)
    with pytest.raises(cuda.KernelError):
        run[1, 8](1, y)
    assert not y.any()
    run[1, 8](0, y)
    assert y.all()


# ------------------------------------------------ no false alarms, and right results

RIGHT = {
    "reversal through shared memory": ("""
__global__ void f(const float* x, float* y) {
  __shared__ float s[64];
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = s[63 - threadIdx.x];
}""", lambda x: x[::-1]),
    "reversal inside warps": ("""
__global__ void f(const float* x, float* y) {
  __shared__ float s[64];
  int i = threadIdx.x;
  for (int turn = 0; turn < 3; turn++) {
    s[i] = turn ? y[i] : x[i];
    __syncwarp();
    y[i] = s[i ^ 31];
    __syncwarp();
  }
}""", lambda x: x.reshape(2, 32)[:, ::-1].ravel()),
    "groups of four lanes with barriers of their own": ("""
__global__ void f(const float* x, float* y) {
  __shared__ float s[64];
  int i = threadIdx.x;
  unsigned group = 0xfu << (i % 32 / 4 * 4);
  for (int turn = 0; turn <= i % 32 / 4; turn++) {  // groups leave the loop one after another
    s[i] = x[i];
    __syncwarp(group);
    y[i] = s[i ^ 3];
    __syncwarp(group);
  }
}""", lambda x: x.reshape(16, 4)[:, ::-1].ravel()),
    "shuffles": ("""
__global__ void f(const float* x, float* y) {
  float v = x[threadIdx.x];
  y[threadIdx.x] = __shfl_sync(~0u, v, 3, 8) + 100 * __shfl_up_sync(~0u, v, 2)
      + 1e4f * __shfl_down_sync(~0u, v, 1, 16) + 1e6f * __shfl_xor_sync(~0u, v, 5);
}""", lambda x: np.array([
        x[i // 8 * 8 + 3] + 100 * x[i - 2 if i % 32 >= 2 else i]
        + f32(1e4) * x[i + 1 if i % 16 < 15 else i] + f32(1e6) * x[i ^ 5] for i in range(64)])),
    "votes": ("""
__global__ void f(const float* x, float* y) {
  int i = threadIdx.x, odd = (int)x[i] & 1;
  unsigned votes = __ballot_sync(~0u, odd);
  y[i] = __popc(votes) + 100 * __any_sync(~0u, i == 40) + 1000 * __all_sync(~0u, i < 32)
      + 1e4f * __syncthreads_count(odd) + 1e6f * __syncthreads_or(i == 63)
      + 2e6f * __syncthreads_and(i > 0);
}""", lambda x: 16 + 100 * (np.arange(64) >= 32) + 1000 * (np.arange(64) < 32) + 32e4 + f32(1e6)),
    "matches and sums of integers": ("""
__global__ void f(const float* x, float* y) {
  int i = threadIdx.x, all, key = i % 5;
  unsigned equal = __match_any_sync(~0u, key);
  unsigned mask = __match_all_sync(~0u, i / 32, &all);
  y[i] = __popc(equal) + 100 * all + (mask == ~0u) + 10000 * __reduce_max_sync(~0u, i)
      + __reduce_add_sync(~0u, 1) * 1e6f;
}""", lambda x: np.array([
        sum(k % 5 == i % 5 for k in range(i // 32 * 32, i // 32 * 32 + 32)) + 100 + 1
        + 10000 * (i // 32 * 32 + 31) + 32e6 for i in range(64)])),
    "atomics": ("""
__global__ void f(const float* x, float* y) {
  __shared__ int count, largest;
  __shared__ unsigned wrapped;
  if (threadIdx.x == 0) count = 0, largest = -1, wrapped = 0;
  __syncthreads();
  atomicAdd(&count, 2);
  atomicMax(&largest, (int)threadIdx.x);
  atomicInc(&wrapped, 9u);
  int seen = atomicCAS(&count, -5, 7);
  __syncthreads();
  y[threadIdx.x] = count + 1000 * largest + 1e5f * wrapped + (seen < 0);
}""", lambda x: np.full(64, 128 + 63000 + 4e5)),
    "whole warps that leave": ("""
__global__ void f(const float* x, float* y) {
  y[threadIdx.x] = x[threadIdx.x];
  if (threadIdx.x < 32) return;
  y[threadIdx.x] = __shfl_xor_sync(~0u, x[threadIdx.x], 31);
}""", lambda x: np.r_[x[:32], x[:31:-1]]),
    "shared memory at file scope": ("""
namespace tiles { __shared__ __align__(16) float s[4][16]; }
extern __shared__ float4 row[];
extern "C" { __shared__ int count; }
__device__ float mirrored(int i) { return tiles::s[3 - i / 16][15 - i % 16]; }
__global__ void f(const float* x, float* y) {
  int i = threadIdx.x;
  if (i == 0) count = 5;
  tiles::s[i / 16][i % 16] = x[i];
  reinterpret_cast<float*>(row)[i] = x[i];
  __syncthreads();
  y[i] = mirrored(i) + row[i / 4].x + count;
}""", lambda x: x[::-1] + x // 4 * 4 + 5),
    "shared structs, sizes with commas and comparisons": ("""
constexpr int larger(int a, int b) { return a > b ? a : b; }
__global__ void f(const float* x, float* y) {
  enum { A = 64, B = 2 };
  constexpr int sizes[] = {64};
  __shared__ struct Pair {
    float of[64];
    short b;
  } s;
  __shared__ float a[(A > B) ? A : B], t[larger(A, B)], u[sizes[0]];
  int i = threadIdx.x;
  a[i] = t[i] = u[i] = s.of[i] = x[i];
  if (i == 0) s.b = 3;
  __syncthreads();
  Pair* p = &s;
  y[i] = a[63 - i] + t[63 - i] + u[63 - i] + p->of[63 - i] + p->b;
}""", lambda x: 4 * x[::-1] + 3),
    "bytes and halves of words": ("""
struct Padded { char a; float b; };
__global__ void f(const float* x, float* y) {
  __shared__ int s[16];
  __shared__ Padded p[64];
  int i = threadIdx.x;
  ((unsigned char*)s)[i] = (unsigned char)x[i];
  p[i].a = 1, p[i].b = x[i];
  ((unsigned short*)y)[2 * i] = 0;
  __syncthreads();
  ((unsigned short*)y)[2 * (63 - i) + 1] = 0;
  __syncthreads();
  Padded q = p[63 - i];
  y[i] += ((unsigned char*)s)[63 - i] + q.a + q.b;
}""", lambda x: 2 * x[::-1] + 1),
    "the lanes of a branch": ("""
__global__ void f(const float* x, float* y) {
  __shared__ int count;
  int i = threadIdx.x;
  if (i == 0) count = 0;
  y[i] = -1;
  __syncthreads();
  if (i >= 32) return;
  if (x[i] < 7) {
    unsigned others = __activemask(), mine = 1u << i;
    int leader = __ffs(others) - 1, place;
    if (i == leader) place = atomicAdd(&count, __popc(others));
    place = __shfl_sync(others, place, leader);
    y[place + __popc(others & (mine - 1))] = x[i];
  } else if (i >= 30) y[i] = __popc(__activemask());
}""", lambda x: np.r_[x[:7], np.full(23, -1), 2, 2, np.full(32, -1)]),
    "vectors": ("""
__global__ void f(const float* x, float* y) {
  if (threadIdx.x >= 16) return;
  __shared__ float4 s[16];
  s[threadIdx.x] = reinterpret_cast<const float4*>(x)[threadIdx.x];
  float4 v = s[threadIdx.x];
  float2 pair = make_float2(v.y, v.x);
  reinterpret_cast<float2*>(y)[2 * threadIdx.x] = pair;
  v = {v.w, v.z, v.y, v.x};
  reinterpret_cast<float2*>(y)[2 * threadIdx.x + 1] = make_float2(v.x, v.y);
}""", lambda x: x.reshape(32, 2)[:, ::-1].ravel()),
    "static and dynamic shared memory, several variables, a bool": ("""
__global__ void f(const float* x, float* y) {
  extern __shared__ __align__(16) float row[];
  __shared__ float a[2][33], b;  // b in the same declaration
  __shared__ alignas(16) double d[64];
  __shared__ bool flag;
  int i = threadIdx.x;
  row[i] = x[i], a[i / 32][i % 32] = 2, d[i] = 3;
  if (i == 0) b = 4, flag = true;
  __syncthreads();
  y[i] = row[63 - i] + a[1 - i / 32][i % 32] + d[i] + b + flag;
}""", lambda x: x[::-1] + 10),
    "mathematics": ("""
__global__ void f(const float* x, float* y) {
  float v = x[threadIdx.x];
  y[threadIdx.x] = __expf(-v) + rsqrtf(v + 1) + max(v, 3.f) + min((int)v, 5)
      + fmaf(v, 2.f, 1.f) + __ldg(&x[1]);
}""", lambda x: np.exp(-x) + 1 / np.sqrt(x + 1) + np.maximum(x, 3) + np.minimum(x, 5)
      + 2 * x + 1 + x[1]),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["fast", "checked", "step"])
@pytest.mark.parametrize("name", RIGHT)
def test_right_kernels_pass_and_give_cudas_results(name, mode):
    source, expected = RIGHT[name]
    x, y = np.arange(64, dtype=f32), np.full(64, np.nan, f32)
    kernel(source, mode)[1, 64, 256](x, y)
    np.testing.assert_allclose(y, expected(x), rtol=1e-6)


@pytest.mark.parametrize("size", [1000, 100_000])
def test_far_out_of_bounds_is_told_of_the_right_array(size):
    source = "__global__ void f(const float* x, float* y, int n) { y[0] = x[n]; }"
    run, x, y = kernel(source), np.zeros(size, f32), np.zeros(size, f32)
    for away in (1, 16_000, 32_000, 33_856, 100_000, 10**6, 10**9, 2**31 - 1 - size):
        for n in (size - 1 + away, -away):
            with pytest.raises(cuda.KernelError, match=rf"'x'\[{n}\], which has {size} el"):
                run[1, 1](x, y, n)


def test_far_out_of_bounds_of_shared_memory_is_told_of_it():
    source = """
__global__ void f(float* y, int n) {
  __shared__ float s[100];
  __shared__ float t[100];
  float* p = s;
  p[n] = t[0] = y[0];
}"""
    run, y = kernel(source), np.zeros(10, f32)
    for n in (100, 199, -1, -(10**9)):
        with pytest.raises(cuda.KernelError, match=rf"shared 's'\[{n}\], which has 100 el"):
            run[1, 1](y, n)
    with pytest.raises(cuda.KernelError, match="out of bounds: write of 4 bytes at shared"):
        run[1, 1](y, 10**9)


@pytest.mark.skipif(sys.platform != "linux", reason="how many addresses are used stands in /proc")
def test_few_addresses_are_enough_and_shared_out():
    """In a sandbox: most stay free for stacks, and a wrong index is still told."""
    code = """
import os, resource
import numpy as np
from dlnotes import cuda
source = '''
__global__ void f(const float* x, float* y, int n) {
  __shared__ float s[256];
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = s[255 - threadIdx.x] + x[n];
}'''
run = cuda.load(source=source, mode="checked").kernel("f")
used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29,) * 2)
x, y = np.arange(256, dtype=np.float32), np.zeros(256, np.float32)
for _ in range(20):
    run[1, 256](x, y, 0)
assert (y == x[::-1]).all()
try:
    run[1, 256](x, y, 5000)
except cuda.KernelError as problem:
    print(problem)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "'x'[5000], which has 256 el" in done.stdout


def test_memory_of_copies_lives_as_long_as_the_arrays():
    class Library:
        def __init__(self, real):
            self.engine_reserve, self.given_back = real.engine_reserve, []
            self.engine_give_back = lambda start, whole: self.given_back.append(start.value)

    library = Library(kernel("__global__ void f(float* y) { y[0] = 1; }")._program.library)
    copies = _cpu._far_apart(library, [np.arange(4), np.zeros((0, 3)), np.ones((2, 3))])
    assert [copy.shape for copy in copies] == [(4,), (0, 3), (2, 3)]
    assert abs(copies[2].ctypes.data - copies[0].ctypes.data) > 1 << 33
    part = copies[2][1]
    del copies
    assert library.given_back == []
    np.testing.assert_array_equal(part, 1)
    del part
    assert len(library.given_back) == 1


def test_a_kernel_may_take_many_arrays():
    names = ", ".join(f"float* a{i}" for i in range(70))
    source = f"__global__ void f({names}) {{ a69[threadIdx.x] = 1 + a68[threadIdx.x]; }}"
    run, arrays = kernel(source), [np.zeros(4, f32) for _ in range(70)]
    run[1, 4](*arrays)
    np.testing.assert_array_equal(arrays[69], 1)
    with pytest.raises(cuda.KernelError, match=r"'a68'\[4\], which has 4 elements"):
        run[1, 5](*arrays)


def test_integers_conversions_and_mixed_signs():
    source = """
__global__ void f(const float* x, int* y) {
  unsigned u = 7;
  int i = threadIdx.x, a[] = {
      __float2int_rn(x[i]), __float2int_rz(x[i]), (int)__float2uint_ru(x[i]), __float2int_rd(-x[i]),
      __float2int_rn(1e10f), (int)__brev(6u), (int)__byte_perm(0x33221100, 0x77665584, 0xc417),
      (int)__umulhi(~0u, 5u), __mulhi(-3, 1 << 30), __mul24(-3, 5),
      (int)__funnelshift_l(0x80000001u, 5u, 1), (int)__funnelshift_r(0x80000001u, 5u, 1),
      (int)min(u, i - 3), (int)max(i - 3, u), (int)(1000 * sinpif(x[i] / 2)),
      (int)(1000 * cospif(x[i])), (int)__fsqrt_rn(16 * x[i] * x[i]), (int)__fdiv_rn(9, x[i])};
  for (int k = 0; k < 18; k++) y[18 * i + k] = a[k];
}"""
    x, y = f32([0.5, 1.5, 3]), np.zeros((3, 18), np.int32)
    kernel(source)[1, 3](x, y)
    same = [2**31 - 1, 0x60000000, 0xFF841177 - 2**32, 4, -1, -15, 11, -0x40000000]
    expected = [
        [0, 0, 1, -1, *same, 7, -3, 707, 0, 2, 18],
        [2, 1, 2, -2, *same, 7, -2, 707, 0, 6, 6],
        [3, 3, 3, -3, *same, 7, -1, -1000, -1000, 12, 3],
    ]
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('__global__ void f() { asm volatile("bar.sync 0;"); }', "inline PTX cannot run on a CPU"),
        ("#include <cooperative_groups.h>\n__global__ void f() {}", "has no cooperative groups"),
        ("__global__ void f() { __shared__ int n = 3; }", "with no value"),
        ("__global__ void f() { __shared__ float (*p)[3]; }", r"cannot read `float \(\*p\)\[3\]`"),
    ],
)
def test_what_is_not_supported_is_named(source, message):
    with pytest.raises(cuda.CompileError, match=message):
        kernel(source)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("__builtin_trap();", "the kernel stopped at a trap"),
        ("__trap();", "__trap: the kernel gives up here"),
        ("assert(y[0] == 1);", r"assertion failed: y\[0\] == 1"),
    ],
)
def test_a_kernel_that_gives_up_is_an_error_and_not_the_end_of_the_process(statement, message):
    source = f"#include <assert.h>\n__global__ void f(float* y) {{\n  {statement}\n}}"
    with pytest.raises(cuda.KernelError, match=message):
        kernel(source)[1, 1](np.zeros(1, f32))


def test_no_check_ends_the_process():
    # clang's local-bounds is a trap, and "bounds" includes it
    flags = _cpu.Compiler(("clang++",), "clang", "").flags("checked")
    assert "-fno-sanitize=local-bounds" in flags[flags.index(_cpu._CHECKS[1]) :]


def test_template_device_functions_have_shared_memory_of_their_own():
    source = """
template <class T> __device__ T sum(T v) {
  __shared__ T s[32];
  __syncthreads();
  s[threadIdx.x] = v;
  __syncthreads();
  T total = 0;
  for (int i = 0; i < 32; i++) total += s[i];
  return total;
}
template <int N, class T> __global__ void f(T* y) {
  y[threadIdx.x] = sum<T>(N) + sum<T>(1) + sum<double>(1.0);
}
"""
    y = np.zeros(32, np.int32)
    kernel(source, name="f<7, int>")[1, 32](y)
    assert (y == 32 * 9).all()


def test_grids_and_blocks_of_three_axes():
    source = """
__global__ void f(int* y) {
  int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  y[block * blockDim.x * blockDim.y * blockDim.z + thread] = 1000 * block + thread;
}"""
    y = np.zeros((24, 24), np.int32)
    kernel(source)[(2, 3, 4), (4, 3, 2)](y)
    np.testing.assert_array_equal(y, 1000 * np.arange(24)[:, None] + np.arange(24))


def test_halves_round_as_numpy_and_torch_do():
    source = """
#include <cuda_bf16.h>
#include <cuda_fp16.h>
__global__ void f(int n, const float* x, __half* h, nv_bfloat16* b) {
  for (int i = threadIdx.x; i < n; i += blockDim.x)
    h[i] = __float2half(x[i]), b[i] = __float2bfloat16(x[i]);
}
__global__ void g(const __half* h, const nv_bfloat16* b, float* x, float* z) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  x[i] = __half2float(h[i]), z[i] = __bfloat162float(b[i]);
}"""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2**32, 100_000, dtype=np.uint64).astype(np.uint32).view(f32)
    small = (rng.standard_normal(50_000) * 10.0 ** rng.uniform(-9, 5, 50_000)).astype(f32)
    x = np.r_[
        x[~np.isnan(x)], small, f32([0, -0.0, np.inf, -np.inf, 65504, 65519.9, 65520, 2.0**-25])
    ]
    h, b = np.zeros(len(x), np.float16), np.zeros(len(x), np.uint16)
    module = cuda.load(source=source)
    module.kernel("f")[1, 64](len(x), x, h, b)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(h.view(np.uint16), x.astype(np.float16).view(np.uint16))
    expected = torch.from_numpy(x).bfloat16()
    assert torch.equal(torch.from_numpy(b.view(np.int16)).view(torch.bfloat16), expected)

    every = np.arange(2**16).astype(np.uint16)
    y, z = np.zeros(2**16, f32), np.zeros(2**16, f32)
    module.kernel("g")[256, 256](every.view(np.float16), every, y, z)
    np.testing.assert_array_equal(y, every.view(np.float16).astype(f32))
    np.testing.assert_array_equal(
        z.view(np.uint32) >> 16, np.where(np.isnan(z), z.view(np.uint32) >> 16, every)
    )


def test_torch_tensors_on_the_cpu_are_taken_as_they_are():
    source = """
#include <cuda_bf16.h>
__global__ void f(const nv_bfloat16* x, float* y) { y[threadIdx.x] = 2 * (float)x[threadIdx.x]; }"""
    x, y = torch.arange(8).bfloat16(), torch.zeros(8)
    kernel(source, "fast")[1, 8](x, y)
    assert torch.equal(y, 2 * torch.arange(8.0))


def test_fast_mode_copies_nothing_and_works_in_place():
    x = np.arange(5, dtype=f32)
    kernel(
        "__global__ void f(const float* x, float* y) { y[threadIdx.x] += x[threadIdx.x]; }", "fast"
    )[1, 5](x, x)
    np.testing.assert_array_equal(x, 2 * np.arange(5))


def test_checked_mode_knows_one_array_passed_twice():
    source = "__global__ void f(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x ^ 1]; }"
    x = np.arange(8, dtype=f32)
    with pytest.raises(cuda.KernelError, match="race"):
        kernel(source)[1, 8](x, x)
    with pytest.raises(ValueError, match="overlap"):
        kernel(source)[1, 4](x[1:], x[:-1])


# ------------------------------------------------ arguments and names

ADD = """
struct Shape { int rows, columns; double scale; };
template <class T, int N> __global__ void __launch_bounds__(32 * N)
add(Shape shape, long long n, float scale, const T* x, T* y) {
  if (threadIdx.x < n) y[threadIdx.x] = scale * (float)x[threadIdx.x] + shape.columns;
}
__global__ void plain(bool b, int* y) { y[0] = b; }
"""


class Shape(ctypes.Structure):
    _fields_ = (("rows", ctypes.c_int), ("columns", ctypes.c_int), ("scale", ctypes.c_double))


def test_arguments_are_converted_to_the_kernels_types():
    add = kernel(ADD, "fast", "add<double, 2>")
    x, y = np.arange(4.0), np.zeros(4)
    add[1, 4](Shape(1, 2, 3.0), 4, 2, x, y)
    np.testing.assert_array_equal(y, 2 * x + 2)
    record = np.array([(1, 5, 0.0)], [("rows", "i4"), ("columns", "i4"), ("scale", "f8")])[0]
    add[1, 4](record, np.int64(3), np.float64(0.5), x, y)
    np.testing.assert_array_equal(y, [5, 5.5, 6, 8])
    assert [p.dtype for p in add.parameters] == [None, "int64", "float32", "float64", "float64"]
    assert "const double* x" in repr(add)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n": 1.5}, TypeError, "n must be an int"),
        ({"n": 2**63}, ValueError, "n must be in"),
        ({"scale": "2"}, TypeError, "scale must be a number"),
        (
            {"x": np.zeros(4, f32)},
            TypeError,
            r"x must have dtype float64 \(const double\*\), got float32",
        ),
        ({"x": [1.0]}, TypeError, "x must be a NumPy array, got list"),
        ({"x": np.zeros((4, 2))[:, 0]}, ValueError, "x must be contiguous"),
        ({"shape": 3}, TypeError, "shape is a Shape: pass a ctypes.Structure"),
        ({"shape": np.zeros((), "i4,i4")[()]}, TypeError, "shape must have 16 bytes"),
    ],
)
def test_wrong_arguments_are_refused(change, error, message):
    given = {"shape": Shape(), "n": 4, "scale": 1.0, "x": np.zeros(4), "y": np.zeros(4), **change}
    with pytest.raises(error, match=message):
        kernel(ADD, "fast", "add<double, 2>")[1, 4](*given.values())


def test_what_is_written_must_be_writeable():
    y = np.zeros(4)
    y.setflags(write=False)
    with pytest.raises(ValueError, match="y is read-only"):
        kernel(ADD, "fast", "add<double, 2>")[1, 4](Shape(), 4, 1.0, np.zeros(4), y)


def test_wrong_launches_are_refused():
    plain, y = kernel(ADD, "fast", "plain"), np.zeros(1, np.int32)
    with pytest.raises(TypeError, match=r"plain takes 2 arguments \(bool b, int\* y\), got 1"):
        plain[1, 1](y)
    with pytest.raises(ValueError, match="block must have at most 1024 threads"):
        plain[1, (64, 32)](True, y)
    with pytest.raises(ValueError, match="grid must be"):
        plain[0, 1](True, y)
    with pytest.raises(ValueError, match="shared_bytes must be in 0 … 232448"):
        plain[1, 1, 1 << 20](True, y)
    with pytest.raises(TypeError, match=r"kernel\[grid, block\]"):
        plain[1](True, y)
    with pytest.raises(ValueError, match="at most 64 threads, by its __launch_bounds__"):
        kernel(ADD, "fast", "add<double, 2>")[1, 65](Shape(), 4, 1.0, np.zeros(4), np.zeros(4))
    with pytest.raises(ValueError, match='need mode "trace" or "step"'):
        plain.launch(1, 1, True, y, at_block=0)


def test_wrong_names_are_refused():
    module = cuda.load(source=ADD)
    assert module.kernels == ["add", "plain"]
    with pytest.raises(ValueError, match=r"no kernel 'sub' in .*; there are: add, plain"):
        module.kernel("sub")
    with pytest.raises(ValueError, match=r"the kernel is add<class T, int N>; got 'add<float>'"):
        module.kernel("add<float>")
    with pytest.raises(FileNotFoundError, match=r"no CUDA source .*nowhere\.cu"):
        cuda.load("nowhere.cu")
    with pytest.raises(ValueError, match="give either path or source"):
        cuda.load()
    with pytest.raises(ValueError, match="mode must be one of"):
        cuda.load(source=ADD, mode="quick")
    with pytest.raises(ValueError, match='needs device="cpu"'):
        cuda.load(source=ADD, mode="trace", device="cuda")


def test_too_much_static_shared_memory_is_refused():
    source = """
__global__ void f(float* y) {
  __shared__ float s[12289];
  y[0] = s[0];
}"""
    with pytest.raises(cuda.KernelError, match="49156 bytes of static shared memory with 's'"):
        kernel(source, "fast")[1, 1](np.zeros(1, f32))


def test_compile_errors_show_file_line_and_caret(tmp_path):
    (tmp_path / "part.cuh").write_text(
        "#pragma once\n__device__ float twice(float v) { return 2 * w; }\n"
    )
    (tmp_path / "whole.cu").write_text(
        '#include "part.cuh"\n#include "part.cuh"\n__global__ void f(float* y) { y[0] = 1 }\n'
    )
    with pytest.raises(cuda.CompileError) as caught:
        cuda.load(tmp_path / "whole.cu").kernel("f")
    text = str(caught.value)
    assert f"{tmp_path / 'part.cuh'}:2:" in text
    assert f"{tmp_path / 'whole.cu'}:3:" in text
    assert "y[0] = 1 }" in text
    assert "^" in text


def test_faults_in_included_files_are_named(tmp_path):
    (tmp_path / "part.cuh").write_text("\n__device__ void put(float* y) {\n  y[7] = 1;\n}\n")
    (tmp_path / "whole.cu").write_text(
        '#include "part.cuh"\n__global__ void f(float* y) { put(y); }\n'
    )
    with pytest.raises(cuda.KernelError, match=r"part\.cuh, line 3:\n    y\[7\] = 1;"):
        cuda.load(tmp_path / "whole.cu", mode="checked").kernel("f")[1, 1](np.zeros(7, f32))


def test_signatures_are_read_from_the_source():
    text = """
// __global__ void comment(int a) {}
template <typename T, int N = 4>
__global__ void __launch_bounds__(N * 2, 1)
one(const T* __restrict__ x, /* how many */ unsigned long long n,
    float2 pair, T** nested) {}
extern "C" __global__ __launch_bounds__(32) void two() {}
"""
    found = _source.find_kernels(text)
    assert list(found) == ["one", "two"]
    one = found["one"]
    assert one.template == (("typename", "T"), ("int", "N"))
    assert one.bound == "N * 2"
    assert [
        (p.name, p.type, p.pointer, p.const, p.dtype) for p in one.signature(["__half", "3"])
    ] == [
        ("x", "const __half*", True, True, "float16"),
        ("n", "unsigned long long", False, False, "uint64"),
        ("pair", "float2", False, False, None),
        ("nested", "__half**", True, False, None),
    ]
    assert found["two"].parameters == ()
    (three,) = _source.find_kernels(
        "__global__ void three(long a, const long unsigned int b, float y[], const int (*z)[32],"
        " float* const w, float const* v, short int s, unsigned char c) {}"
    ).values()
    assert [(p.name, p.type, p.const, p.dtype) for p in three.signature([])] == [
        ("a", "long", False, "int64"),
        ("b", "const long unsigned int", True, "uint64"),
        ("y", "float*", False, "float32"),
        ("z", "const int*", True, "int32"),
        ("w", "float*", False, "float32"),
        ("v", "const float*", True, "float32"),
        ("s", "short int", False, "int16"),
        ("c", "unsigned char", False, "uint8"),
    ]
    assert found["two"].bound == "32"
    assert found["two"].template == ()


# ------------------------------------------------ fast mode's safety net


def test_a_wild_access_is_an_error_and_not_the_end_of_the_process():
    source = "__global__ void f(long long far, float* y) { y[far] = 1; }"
    run, y = kernel(source, "fast"), np.zeros(4, f32)
    for _ in range(2):
        with pytest.raises(cuda.KernelError, match='mode="checked" says where'):
            run[1, 1](1 << 40, y)
    run[1, 1](3, y)
    assert y[3] == 1


def test_endless_kernels_can_be_interrupted():
    source = """
__global__ void f(volatile int* y) {
  while (y[0] == 0) y[1]++;
}"""
    run, y = kernel(source, "fast"), np.zeros(2, np.int32)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run[1, 1](y)
    timer.join()
    assert y[1] > 0
    run[1, 1](np.ones(2, np.int32))


def test_too_deep_a_stack_is_an_error():
    source = """
__device__ __noinline__ int deep(int n, volatile int* y) {
  volatile int room[256];
  room[n % 256] = n;
  y[0] = n;
  return n ? deep(n - 1, y) + room[n % 256] : 0;
}
__global__ void f(int n, volatile int* y) { y[1] = deep(n, y); }"""
    with pytest.raises(cuda.KernelError, match="a stack of more than 128 KB"):
        kernel(source, "fast")[1, 2](10_000, np.zeros(2, np.int32))


# ------------------------------------------------ trace

TRANSPOSE = """
template <int PAD> __global__ void tiled(int n, const float* x, float* y) {
  __shared__ float tile[32][32 + PAD];
  int i = blockIdx.y * 32, j = blockIdx.x * 32;
  for (int r = threadIdx.y; r < 32; r += 8) tile[r][threadIdx.x] = x[(i + r) * n + j + threadIdx.x];
  __syncthreads();
  for (int r = threadIdx.y; r < 32; r += 8) y[(j + r) * n + i + threadIdx.x] = tile[threadIdx.x][r];
}
__global__ void naive(int n, const float* x, float* y) {
  int i = blockIdx.y * 8 + threadIdx.y, j = blockIdx.x * 32 + threadIdx.x;
  y[j * n + i] = x[i * n + j];
}"""


def rows(trace):
    return {(row.kind, row.name): row for row in trace.report()}


def test_trace_counts_sectors_and_bank_conflicts():
    x = normal(0, 64, 64)
    found = {}
    for name, grid in {"naive": (2, 8), "tiled<0>": (2, 2), "tiled<1>": (2, 2)}.items():
        y = np.zeros_like(x)
        trace = kernel(TRANSPOSE, "trace", name)[grid, (32, 8)](64, x, y)
        np.testing.assert_array_equal(y, x.T)
        found[name] = rows(trace)
    naive, plain, padded = found["naive"], found["tiled<0>"], found["tiled<1>"]
    assert (naive["read", "x"].sectors, naive["read", "x"].used) == (4, 1)
    assert (naive["write", "y"].sectors, naive["write", "y"].used) == (32, 1 / 8)
    assert naive["write", "y"].requests == 64 * 64 / 32
    assert naive["write", "y"].line == line_of(TRANSPOSE, "y[j * n + i]")
    for tiled in (plain, padded):
        assert (tiled["write", "y"].sectors, tiled["write", "y"].used) == (4, 1)
        assert tiled["write", "tile"].ways == 1
    assert plain["read", "tile"].ways == 32
    assert padded["read", "tile"].ways == 1
    assert "32.0-way bank conflict" in str(plain["read", "tile"])


def test_trace_of_wide_loads_broadcasts_and_atomics():
    source = """
__global__ void f(const float4* x, float4* y) {
  __shared__ float4 s[32];
  __shared__ float one;
  __shared__ int count;
  if (threadIdx.x == 0) one = 1, count = 0;
  __syncthreads();
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  float4 v = s[threadIdx.x];
  v.x += one;
  atomicAdd(&count, 1);
  y[threadIdx.x] = v;
}"""
    x, y = normal(0, 128), np.zeros(128, f32)
    found = rows(kernel(source, "trace")[1, 32](x, y))
    assert (found["read", "x"].requests, found["read", "x"].sectors, found["read", "x"].used) == (
        1,
        16,
        1,
    )
    assert (found["write", "y"].requests, found["write", "y"].bytes) == (1, 512)
    assert found["read", "s"].ways == found["write", "s"].ways == 1
    assert found["read", "one"].ways == 1
    assert found["atomic", "count"].ways == 32


def test_trace_adds_up_what_a_launch_asks_for():
    x = normal(0, 64, 64)
    y = np.zeros_like(x)
    trace = kernel(TRANSPOSE, "trace", "tiled<0>")[(2, 2), (32, 8)](64, x, y)
    requests = 64 * 64 // 32
    totals = trace.totals()
    assert (totals.requests, totals.sectors) == (2 * requests, 8 * requests)
    assert totals.bytes == 2 * 4 * 64 * 64  # every byte once in and once out
    assert (totals.shared_requests, totals.passes) == (2 * requests, (1 + 32) * requests)
    assert trace.totals("x").requests == requests
    assert trace.totals("tile").shared_requests == 2 * requests
    with pytest.raises(ValueError, match="name must be one of"):
        trace.totals("z")


def test_trace_says_who_touched_what():
    source = (
        "__global__ void f(const float* x, float* y) { y[2 * threadIdx.x] = x[threadIdx.x / 2]; }"
    )
    x, y = np.zeros(40, f32), np.zeros(80, f32)
    trace = kernel(source, "trace")[1, 40](x, y)
    np.testing.assert_array_equal(trace.count("x"), np.full(20, 2))
    np.testing.assert_array_equal(trace.count("y", "write"), np.arange(79) % 2 == 0)
    np.testing.assert_array_equal(trace.first_request("x", warp=0), np.arange(32) // 2)
    np.testing.assert_array_equal(
        trace.first_request("y", "write", warp=1), np.r_[64:80:2, -np.ones(24)]
    )
    with pytest.raises(ValueError, match="name must be one of 'x', 'y'"):
        trace.count("z")
    only = kernel(source, "trace").launch(1, 40, x, y, at_block=0, at_warp=1)
    assert set(only.events["thread"]) == set(range(32, 40))


# ------------------------------------------------ step


def test_step_walks_one_warp_with_values():
    source = """
__global__ void f(int n, const float* x, float* y) {
  __shared__ float s[32];
  int i = threadIdx.x;
  s[i] = 10 * x[i];
  __syncwarp();
  float sum = 0;
  for (int k = 0; k < 2; k++)
    sum += s[i ^ k];
  if (i % 2)
    y[i] = sum;
  else
    y[i] = -sum;
  __syncthreads();
}"""
    x, y = np.arange(64, dtype=f32), np.zeros(64, f32)
    x[32:] = 0
    steps = kernel(source, "step").launch(1, 32, 3, x, y)
    path = [(step.line, len(step.lanes)) for step in steps if step.line not in (2, 3, 4, 7, 8)]
    assert path == [(5, 32), (6, 32), (9, 32), (9, 32), (10, 32), (11, 16), (13, 16), (14, 32)]
    by_line = {step.line: step for step in steps}
    assert [str(a) for a in by_line[5].accesses[3]] == ["x[3] → 3", "s[3] ← 30"]
    assert by_line[6].barrier == "warp"
    assert by_line[14].barrier == "block"
    assert by_line[11].lanes == tuple(range(1, 32, 2))
    (access,) = by_line[13].accesses[4]
    assert (access.kind, access.name, access.space, access.index) == ("write", "y", "global", 4)
    assert access.values == (-90.0,)
    turns = [step for step in steps.lane(4) if step.line == 9]
    assert [step.accesses[4][0].values for step in turns] == [(40.0,), (50.0,)]
    assert by_line[13].source == "y[i] = -sum;"
    assert len(steps) == len(list(steps))
    assert "lane 0: x[0] → 0" in str(steps)


def test_step_counts_where_branches_meet_to_neither():
    source = """
__global__ void f(float* y) {
  int i = threadIdx.x;
  if (i % 2)
    y[i] = 1;
  else
    y[i] = 2;
}"""
    steps = kernel(source, "step").launch(1, 32, np.zeros(32, f32))
    even, odd = ([step.line for step in steps.lane(lane)] for lane in (0, 1))
    assert 7 in even
    assert 5 not in even
    assert 5 in odd
    assert 7 not in odd


def test_step_records_the_block_and_warp_asked_for():
    source = """
__global__ void f(int* y) {
  int i = blockIdx.x * 64 + threadIdx.x;
  y[i] = i;
}"""
    steps = kernel(source, "step").launch(3, 64, np.zeros(192, np.int32), at_block=1, at_warp=1)
    (step,) = [step for step in steps if step.accesses]
    assert step.accesses[5][0].values == (64 + 32 + 5,)
    with pytest.raises(ValueError, match="at_warp must be in 0 … 1"):
        kernel(source, "step").launch(3, 64, np.zeros(192, np.int32), at_warp=2)


# ------------------------------------------------ cache and tools

SMALL = "__global__ void f(int* y) { y[0] = %d; }"


def value_of(number: int) -> int:
    y = np.zeros(1, np.int32)
    kernel(SMALL % number, "fast")[1, 1](y)
    return int(y[0])


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DLNOTES_KERNELS", str(tmp_path / "kernels"))
    monkeypatch.setattr(_cache, "_fallback", None)
    return tmp_path / "kernels"


def test_what_is_compiled_once_is_not_compiled_again(cache, monkeypatch):
    assert value_of(1) == 1
    monkeypatch.setattr(_cpu.Compiler, "run", lambda *a, **k: pytest.fail("compiled again"))
    assert value_of(1) == 1


def test_a_damaged_entry_is_built_again(cache):
    assert value_of(2) == 2
    for library in cache.glob("*/kernel.so"):
        damaged = library.read_bytes()[:1000]  # as after a full disk
        library.unlink()  # this process has the old file in memory
        library.write_bytes(damaged)
    for manifest in list(cache.glob("*/manifest.json"))[:1]:
        manifest.write_text("{}")
    assert value_of(2) == 2
    assert all(len(library.read_bytes()) > 1000 for library in cache.glob("*/kernel.so"))


def test_a_build_that_fails_leaves_no_entry(cache):
    def build(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        _cache.entry("name", build)
    assert [path.name for path in cache.iterdir()] == ["name.lock"]


def test_two_processes_at_once_build_one_entry(cache):
    code = (
        "import numpy as np; from dlnotes import cuda; y = np.zeros(1, np.int32);"
        f"cuda.load(source={SMALL % 3!r}).kernel('f')[1, 1](y); print(y[0])"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=120)[0].strip() for process in both] == ["3", "3"]
    entries = [path for path in cache.iterdir() if path.is_dir() and path.name != "zig"]
    assert len(entries) == 3  # the source, the runtime, the kernel
    for path in entries:
        assert json.loads((path / "manifest.json").read_text())


def test_a_folder_that_cannot_be_written_is_replaced_with_a_message(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("DLNOTES_KERNELS", str(tmp_path / "file" / "kernels"))
    monkeypatch.setattr(_cache, "_fallback", None)
    assert value_of(4) == 4
    assert value_of(5) == 5
    said = capsys.readouterr().err
    assert said.count("cannot be written") == 1
    assert "Set DLNOTES_KERNELS" in said


def read_only(*args, **kwargs):
    raise OSError(errno.EROFS, "Read-only file system")


def test_a_cache_that_can_only_be_read_serves_for_what_it_has(cache, monkeypatch, capsys):
    assert value_of(7) == 7
    monkeypatch.setattr(_cache.tempfile, "TemporaryFile", read_only)
    with monkeypatch.context() as patch:
        patch.setattr(_cpu.Compiler, "run", lambda *a, **k: pytest.fail("compiled again"))
        assert value_of(7) == 7
    assert capsys.readouterr().err == ""
    assert value_of(8) == 8  # which it does not have
    assert "Read-only file system" in capsys.readouterr().err
    assert value_of(7) == 7


def test_the_folder_in_its_place_goes_with_the_process(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    code = (
        "from dlnotes.cuda import _cache; place = _cache.entry('name', lambda new: "
        "(new / 'part').write_text('x')); assert (place / 'part').exists(); print(place)"
    )
    environment = {**os.environ, "DLNOTES_KERNELS": str(tmp_path / "file" / "kernels")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    place = Path(done.stdout.strip())
    assert "dlnotes-kernels-" in str(place)
    assert not place.parent.exists()


def test_a_file_in_the_place_of_an_entry_gives_way(cache):
    cache.mkdir()
    (cache / "name").write_text("a file")
    place = _cache.entry("name", lambda new: (new / "part").write_text("x"))
    assert (place / "part").read_text() == "x"


def test_without_a_compiler_the_error_says_what_to_install(cache, monkeypatch):
    monkeypatch.delenv("DLNOTES_CXX", raising=False)
    monkeypatch.setattr(_cpu.shutil, "which", lambda name: None)
    monkeypatch.setattr(_cpu.importlib.util, "find_spec", lambda name: None)
    _cpu.find_compiler.cache_clear()
    try:
        with pytest.raises(cuda.ToolError, match="pip install ziglang"):
            value_of(6)
        monkeypatch.setenv("DLNOTES_CXX", "no-such-compiler -v")
        with pytest.raises(cuda.ToolError, match="DLNOTES_CXX names 'no-such-compiler'"):
            value_of(6)
        monkeypatch.setattr(_cpu.platform, "machine", lambda: "riscv64")
        with pytest.raises(cuda.ToolError, match="x86-64 and arm64"):
            value_of(6)
    finally:
        _cpu.find_compiler.cache_clear()


def test_importing_loads_neither_torch_nor_a_compiler():
    code = (
        "import subprocess, sys\n"
        "def refuse(*a, **k): raise SystemExit('a process was started')\n"
        "subprocess.Popen = refuse\n"
        "import dlnotes.cuda\n"
        "assert 'torch' not in sys.modules and 'cuda.bindings' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
