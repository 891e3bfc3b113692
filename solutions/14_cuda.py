# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Exercises 14 · From NumPy to CUDA
#
# Fifteen questions on [chapter 14](../notebooks/14_cuda.ipynb), from a warm-up to an open challenge. Whoever
# has time for half of them takes 1, 2, 3, 5, 6, 8, 9 and 11. Most answers are kernels: a string of CUDA C++,
# in place of the skeleton that a cell holds. The check below it runs your kernel on the processor with every
# access watched, and says at once what is wrong: a race or a stray access with its line, a wrong value, or more
# traffic than needed. No GPU is needed, but a C++ compiler (`pip install ziglang` brings one). A teacher's grading
# adds hidden checks on other sizes, so make your kernels right for every input that the task allows.
#
# Arrays are float32, contiguous, and rows lie one after another, unless a question says otherwise. A kernel may have helpers
# (`__device__` functions) in the same string. Outputs hold NaN before the launch where nothing else is said.

# %%
# Set-up: import dlnotes, and install it first where it is missing (Colab).
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("dlnotes") is None:
    source = "dlnotes @ git+https://github.com/dlnotes/dlnotes"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)

import math

import numpy as np

from dlnotes import cuda
from dlnotes.course import Grader

grader = Grader("14_cuda")

# %% [markdown]
# To try a kernel of yours, launch it yourself: `watch(text, "name", grid, block, …)` runs it and prints what each
# line asks of memory. Arrays are changed in place.


# %%
def watch(source, name, grid, block, *arguments, shared_bytes=0):
    """Run a kernel on the CPU, every access watched, and print its traffic by line."""
    kernel = cuda.load(source=source, mode="trace").kernel(name)
    print(kernel.launch(grid, block, *arguments, shared_bytes=shared_bytes))


# %% tags=["test"]
import math


def normal(seed, *shape):
    return rng(seed).standard_normal(shape).astype(np.float32)


def nans(*shape):
    return np.full(shape, np.nan, np.float32)


def close(actual, expected, rtol=1e-4, atol=1e-5):
    return np.shape(actual) == np.shape(expected) and np.allclose(actual, expected, rtol, atol)


def unwritten(y, name):
    gaps = int(np.isnan(y).sum())
    assert gaps == 0, f"{gaps} of {y.size} entries of {name} were never written, or are NaN"


def up(n, each):
    return -(-n // each)


# %% [markdown] tags=["q1", "outcome-1"]
# ## Question 1 · As many or as few threads as there are (warm-up)
#
# Write the kernel `saxpy(int n, float a, const float* x, float* y)`: $y_i \leftarrow a\,x_i + y_i$ for $i <
# n$. It must be right for *any* one-dimensional launch: also with fewer threads than numbers (then a thread takes several),
# also with more. In each round neighbouring threads must touch neighbouring numbers. (Section 14.1 has the pattern.)

# %% tags=["answer", "q1"]
# BEGIN SOLUTION
# BLANK: saxpy = r"""
# BLANK: __global__ void saxpy(int n, float a, const float* x, float* y) {
# BLANK:   // your code here
# BLANK: }
# BLANK: """
saxpy = r"""
__global__ void saxpy(int n, float a, const float* x, float* y) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
    y[i] = a * x[i] + y[i];
}
"""
# END SOLUTION

# %% [markdown] tags=["reasoning", "q1"]
# **Why.** There are `gridDim.x * blockDim.x` threads in all. Thread $i$ takes the numbers $i$, $i$ + all threads, $i$ + twice that, …:
# a *grid-stride loop*. Its condition is the guard at the same time. In each round the threads of a warp have consecutive
# numbers, so a request touches 4 sectors. If each thread took a stretch of neighbours instead, the lanes of a warp would be a
# stretch apart.


# %% tags=["test"]
def run_saxpy(s, n, grid, block, seed=0):
    x, y = normal(seed, n), normal(seed + 1, n)
    run = kernel(s, s.saxpy, "saxpy", grid, block, n, -1.5, x, y)
    right = np.float32(-1.5) * x + y
    same = int((run["y"] == y).sum())
    assert same < n, "y is what it was before: nothing has been added"
    assert not np.isclose(run["y"], right, atol=1e-5).all() or close(run["y"], right), "values"
    bad = np.flatnonzero(~np.isclose(run["y"], right, rtol=1e-4, atol=1e-5))
    assert not bad.size, (
        f"n = {n}, {grid} blocks of {block}: {bad.size} entries are wrong, the first is y[{bad[0]}]"
        + (
            ": with fewer threads than numbers a thread must take several"
            if bad[0] == grid * block
            else ""
        )
    )
    return run


@test(
    "q1", 1, hint="the last block has threads without a number: they must do nothing", hidden=False
)
def more_threads_than_numbers(s):
    """right with more threads than numbers"""
    run_saxpy(s, 45, 2, 32)


@test("q1", 1, hint="the grid-stride loop of section 14.1", hidden=False)
def fewer_threads_than_numbers(s):
    """right with fewer threads than numbers"""
    run_saxpy(s, 301, 2, 48)


@test(
    "q1", 1, hint="a thread takes every so many-th number, not a stretch of neighbours", hidden=True
)
def coalesced_rounds(s):
    """neighbouring threads touch neighbouring numbers"""
    run = run_saxpy(s, 1024, 2, 64, seed=3)
    each = run.count("x", "read", "sectors") / run.count("x", "read")
    assert each <= 4.1, f"a request for x touches {each:.1f} sectors on average; 4 are enough"
    run_saxpy(s, 1, 3, 33)


# %% tags=["wrong", "q1"]
# expect: reaches outside of an array
saxpy = r"""
__global__ void saxpy(int n, float a, const float* x, float* y) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  y[i] = a * x[i] + y[i];
}
"""

# %% tags=["wrong", "q1"]
# expect: with fewer threads than numbers a thread must take several
saxpy = r"""
__global__ void saxpy(int n, float a, const float* x, float* y) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = a * x[i] + y[i];
}
"""

# %% tags=["wrong", "q1"]
# expect: 4 are enough
saxpy = r"""
__global__ void saxpy(int n, float a, const float* x, float* y) {
  int threads = gridDim.x * blockDim.x, each = (n + threads - 1) / threads;
  int first = (blockIdx.x * blockDim.x + threadIdx.x) * each;
  for (int i = first; i < first + each && i < n; i++) y[i] = a * x[i] + y[i];
}
"""

# %% tags=["wrong", "q1"]
# expect: has a race
saxpy = r"""
__global__ void saxpy(int n, float a, const float* x, float* y) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = a * x[i] + y[i];
}
"""

# %% [markdown] tags=["q2", "outcome-3"]
# ## Question 2 · What a request costs
#
# The chapter's `sectors_of` and `ways_of` (14.3, 14.4) count for warps whose lanes all take part, and turns for words of 4 bytes only. Write
# them for every request: two functions of an integer array with the byte addresses of the lanes of one warp, where a lane that is switched off (14.5) has the
# address −1:
#
# - `sectors(addresses, width)`: the number of 32-byte sectors of global memory that an access of `width` bytes at each address touches. `width` is 1, 2, 4, 8 or 16;
#   an address may be *any* number, so that one access can touch two sectors;
# - `turns(addresses, width)`: the turns that an access to shared memory takes; `width` is 4, 8 or 16, and addresses are multiples of it. With 4 bytes the warp is served at once:
#   32 banks, and lanes that want the same word are served together. With 8 bytes it is served one *half* of the warp (lanes 0–15, 16–31) after the other, with 16 bytes
#   one *quarter* after the other, each by the same rule. A part whose lanes are all off takes no turn.
#
# A request whose lanes are all off costs nothing: 0.


# %% tags=["answer", "q2"]
def sectors(addresses, width):
    """Return how many 32-byte sectors are touched; addresses (32,), -1: the lane is off."""
    # BEGIN SOLUTION
    on = addresses[addresses >= 0]
    return len(np.union1d(on // 32, (on + width - 1) // 32))
    # END SOLUTION


def turns(addresses, width):
    """Return in how many turns shared memory serves the request; addresses (32,)."""
    # BEGIN SOLUTION
    total = 0
    for part in np.split(addresses, width // 4):
        first = part[part >= 0] // 4
        words = np.unique(first[:, None] + np.arange(width // 4))
        total += int(np.bincount(words % 32).max()) if words.size else 0
    return total
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q2"]
# **Why.** Sectors are counted once however many lanes want them, hence the set of all first and last sectors (an access of at most
# 16 bytes touches no third). For banks, lanes with the *same word* count once (a broadcast), so first the different words, and then the fullest bank. A wide access
# wants 2 or 4 neighbouring words for each lane, which is what fills the 32 banks with half of a warp or a quarter; the parts add up.


# %% tags=["test"]
def off(addresses, lanes):
    """The same request with these lanes switched off."""
    return np.where(np.isin(np.arange(32), lanes), -1, addresses)


@test(
    "q2",
    1,
    hint="count different sectors, not lanes; a lane that is off wants nothing",
    hidden=False,
)
def sectors_of_known_patterns(s):
    """neighbours, strides, one address, lanes that are off"""
    lane = np.arange(32)
    for what, addresses, right in (
        ("neighbours", 4 * lane, 4),
        ("every third number", 12 * lane, 12),
        ("one address for all", 0 * lane + 100, 1),
        ("a column of a matrix with 40 columns", 160 * lane, 32),
    ):
        got = s.sectors(addresses, 4)
        assert got is not None, "sectors returned None: is there a return?"
        assert got == right, f"{what}: got {got}, {right} sectors are touched"
    got = s.sectors(off(4 * lane + 320, np.arange(5, 32)), 4)
    assert got not in (2, 3), "a lane that is off has the address -1 and touches no sector"
    assert got == 1, f"five neighbours, the other lanes off: got {got}, 1 sector is touched"


@test("q2", 1, hint="an access that begins at byte 30 of a sector ends in the next", hidden=True)
def sectors_of_straddling_accesses(s):
    """accesses that lie in two sectors, and none at all"""
    for seed in range(6):
        draw = rng(seed)
        addresses, width = draw.integers(0, 3000, 32), int(draw.choice([2, 4, 8, 16]))
        addresses = off(addresses, draw.choice(32, 5 * seed, replace=False))
        touched = {b // 32 for a in addresses.tolist() if a >= 0 for b in range(a, a + width)}
        got = s.sectors(addresses, width)
        assert got == len(touched), (
            f"width {width}, addresses as they come: got {got}, {len(touched)} is right"
        )
    assert s.sectors(np.full(32, -1), 4) == 0, "all lanes off: no sector"


@test(
    "q2",
    1,
    hint="the bank is address / 4 mod 32, and equal words are served together",
    hidden=False,
)
def turns_for_words(s):
    """columns, rows and broadcasts of 4-byte words"""
    lane = np.arange(32)
    for what, addresses, right in (
        ("a row", 4 * lane, 1),
        ("a column of a tile with 32 columns", 128 * lane, 32),
        ("a column of a tile with 36 columns", 144 * lane, 4),
        ("the same word", 0 * lane + 64, 1),
    ):
        got = s.turns(addresses, 4)
        assert got is not None, "turns returned None: is there a return?"
        assert got != 32 or what != "the same word", (
            "lanes that want the same word are served together"
        )
        assert got == right, f"{what}: got {got} turns, {right} is right"
    got = s.turns(off(128 * lane, np.arange(3, 32)), 4)
    assert got == 3, f"three lanes of a column, the others off: got {got} turns, 3 is right"


@test("q2", 1, hint="a half or a quarter of the warp at a time; each adds its turns", hidden=False)
def turns_for_wide_accesses(s):
    """8 and 16 bytes a lane"""
    lane = np.arange(32)
    for what, addresses, width, right in (
        ("neighbours of 16 bytes", 16 * lane, 16, 4),
        ("neighbours of 8 bytes", 8 * lane, 8, 2),
        ("16 bytes at every 32nd byte", 32 * lane, 16, 8),
        ("the same 16 bytes for all", 0 * lane + 48, 16, 4),
        ("16 bytes, the second half of the warp off", off(16 * lane, np.arange(16, 32)), 16, 2),
    ):
        got = s.turns(addresses, width)
        assert got != 1 or right == 1, f"{what}: 512 bytes cannot come in one turn of 32 banks"
        assert got == right, f"{what}: got {got} turns, {right} is right"


@test("q2", 1, hint="different words of one bank take turns, equal ones do not", hidden=True)
def turns_for_random_accesses(s):
    """random accesses of all widths"""
    for seed in range(9):
        draw, width = rng(seed), (4, 8, 16)[seed % 3]
        addresses = off(width * draw.integers(0, 60, 32), draw.choice(32, 3 * seed, replace=False))
        right, each = 0, 128 // width
        for part in range(0, 32, each):
            wanted = addresses[part : part + each].tolist()
            words = {a // 4 + w for a in wanted if a >= 0 for w in range(width // 4)}
            right += max(sum(w % 32 == b for w in words) for b in range(32))
        got = s.turns(addresses, width)
        assert got == right, f"{width} bytes, seed {seed}: got {got} turns, {right} is right"
    assert s.turns(np.full(32, -1), 8) == 0, "all lanes off: no turn"


# %% tags=["wrong", "q2"]
# expect: a lane that is off has the address -1
def sectors(addresses, width):
    return len(np.union1d(addresses // 32, (addresses + width - 1) // 32))


def turns(addresses, width):
    total = 0
    for part in np.split(addresses, width // 4):
        first = part[part >= 0] // 4
        words = np.unique(first[:, None] + np.arange(width // 4))
        total += int(np.bincount(words % 32).max()) if words.size else 0
    return total


# %% tags=["wrong", "q2"]
# expect: an access that begins at byte 30
def sectors(addresses, width):
    return len(np.unique(addresses[addresses >= 0] // 32))


def turns(addresses, width):
    total = 0
    for part in np.split(addresses, width // 4):
        first = part[part >= 0] // 4
        words = np.unique(first[:, None] + np.arange(width // 4))
        total += int(np.bincount(words % 32).max()) if words.size else 0
    return total


# %% tags=["wrong", "q2"]
# expect: lanes that want the same word are served together
def sectors(addresses, width):
    on = addresses[addresses >= 0]
    return len(np.union1d(on // 32, (on + width - 1) // 32))


def turns(addresses, width):
    total = 0
    for part in np.split(addresses, width // 4):
        words = (part[part >= 0] // 4)[:, None] + np.arange(width // 4)
        total += int(np.bincount(words.ravel() % 32).max()) if words.size else 0
    return total


# %% tags=["wrong", "q2"]
# expect: cannot come in one turn
def sectors(addresses, width):
    on = addresses[addresses >= 0]
    return len(np.union1d(on // 32, (on + width - 1) // 32))


def turns(addresses, width):
    words = np.unique(addresses[addresses >= 0] // width)
    return int(np.bincount(words % 32).max()) if words.size else 0


# %% tags=["wrong", "q2"]
# expect: a half or a quarter of the warp at a time
def sectors(addresses, width):
    on = addresses[addresses >= 0]
    return len(np.union1d(on // 32, (on + width - 1) // 32))


def turns(addresses, width):
    first = addresses[addresses >= 0] // 4
    words = np.unique(first[:, None] + np.arange(width // 4))
    return int(np.bincount(words % 32).max()) if words.size else 0


# %% [markdown] tags=["q3", "outcome-3", "outcome-1"]
# ## Question 3 · The photograph, turned
#
# Write `turn(int h, int w, const float* x, float* y)`, which writes the transpose of `x` (h × w) to `y` (w × h). The launch is fixed:
# blocks of (32, 8) threads, one block for each 32 × 32 piece of `x`, `blockIdx.x` along its columns. `h` and `w` are any. Both sides of global memory must be coalesced, and
# shared memory without bank conflicts. (The chapter's opening has this kernel. Write it without looking, then compare.)

# %% tags=["answer", "q3"]
# BEGIN SOLUTION
# BLANK: turn = r"""
# BLANK: __global__ void turn(int h, int w, const float* x, float* y) {
# BLANK:   // your code here
# BLANK: }
# BLANK: """
turn = r"""
__global__ void turn(int h, int w, const float* x, float* y) {
  __shared__ float tile[32][33];
  int left = blockIdx.x * 32, top = blockIdx.y * 32, lane = threadIdx.x;
  for (int i = threadIdx.y; i < 32; i += 8)
    if (top + i < h && left + lane < w) tile[i][lane] = x[(top + i) * w + left + lane];
  __syncthreads();
  for (int i = threadIdx.y; i < 32; i += 8)
    if (left + i < w && top + lane < h) y[(left + i) * h + top + lane] = tile[lane][i];
}
"""
# END SOLUTION

# %% [markdown] tags=["reasoning", "q3"]
# **Why.** A row of `x` becomes a row of the tile, a column of the tile a row of `y`; so in both loops the lanes differ in the last index of an array
# in global memory. A lane writes what another has read: the barrier. A column of a tile with 33 columns lies in 32 different banks. The
# guards of the two loops differ, since the piece of `y` has its sides exchanged.


# %% tags=["test"]
def run_turn(s, h, w):
    x = normal(h, h, w)
    run = kernel(s, s.turn, "turn", (up(w, 32), up(h, 32)), (32, 8), h, w, x, nans(w, h))
    y = run["y"]
    unwritten(y, "y")
    assert h * w == 1 or not close(y.ravel(), x.ravel()) or 1 in (h, w), (
        "y holds x, not its transpose"
    )
    assert close(y, x.T), f"h = {h}, w = {w}: the entries are not those of the transpose"
    return run


@test("q3", 1, hint="guard both loops: in the second the sides have changed places", hidden=False)
def values_of_the_transpose(s):
    """right on awkward sizes"""
    run_turn(s, 40, 67)


@test(
    "q3",
    1,
    hint="read rows of x into the tile, write columns of the tile to rows of y",
    hidden=False,
)
def traffic_of_the_transpose(s):
    """both sides of global memory are coalesced"""
    run = run_turn(s, 64, 96)
    for name, kind in (("x", "read"), ("y", "write")):
        each = run.count(name, kind, "sectors") / max(run.count(name, kind), 1)
        assert each <= 4.1, f"a request for {name} touches {each:.0f} sectors; 4 are enough"


@test("q3", 1, hint="give the tile's rows an odd length", hidden=True)
def banks_of_the_transpose(s):
    """no bank conflicts"""
    run = run_turn(s, 64, 32)
    assert run.shared_requests, "where is the tile in shared memory?"
    turns = run.passes / run.shared_requests
    assert turns == 1, (
        f"a request to shared memory takes {turns:.1f} turns on average: bank conflicts"
    )
    for h, w in ((1, 1), (1, 70), (33, 31)):
        run_turn(s, h, w)


# %% tags=["wrong", "q3"]
# expect: sectors; 4 are enough
turn = r"""
__global__ void turn(int h, int w, const float* x, float* y) {
  int column = blockIdx.x * 32 + threadIdx.x;
  for (int i = threadIdx.y; i < 32; i += 8) {
    int row = blockIdx.y * 32 + i;
    if (row < h && column < w) y[column * h + row] = x[row * w + column];
  }
}
"""

# %% tags=["wrong", "q3"]
# expect: has a race
turn = r"""
__global__ void turn(int h, int w, const float* x, float* y) {
  __shared__ float tile[32][33];
  int left = blockIdx.x * 32, top = blockIdx.y * 32, lane = threadIdx.x;
  for (int i = threadIdx.y; i < 32; i += 8)
    if (top + i < h && left + lane < w) tile[i][lane] = x[(top + i) * w + left + lane];
  for (int i = threadIdx.y; i < 32; i += 8)
    if (left + i < w && top + lane < h) y[(left + i) * h + top + lane] = tile[lane][i];
}
"""

# %% tags=["wrong", "q3"]
# expect: bank conflicts
turn = r"""
__global__ void turn(int h, int w, const float* x, float* y) {
  __shared__ float tile[32][32];
  int left = blockIdx.x * 32, top = blockIdx.y * 32, lane = threadIdx.x;
  for (int i = threadIdx.y; i < 32; i += 8)
    if (top + i < h && left + lane < w) tile[i][lane] = x[(top + i) * w + left + lane];
  __syncthreads();
  for (int i = threadIdx.y; i < 32; i += 8)
    if (left + i < w && top + lane < h) y[(left + i) * h + top + lane] = tile[lane][i];
}
"""

# %% tags=["wrong", "q3"]
# expect: reads shared memory that no thread has written
turn = r"""
__global__ void turn(int h, int w, const float* x, float* y) {
  __shared__ float tile[32][33];
  int left = blockIdx.x * 32, top = blockIdx.y * 32, lane = threadIdx.x;
  for (int i = threadIdx.y; i < 32; i += 8)
    if (top + i < h && left + lane < w) tile[i][lane] = x[(top + i) * w + left + lane];
  __syncthreads();
  for (int i = threadIdx.y; i < 32; i += 8)
    if (left + lane < w && top + i < h) y[(left + i) * h + top + lane] = tile[lane][i];
}
"""

# %% [markdown] tags=["q4", "outcome-2"]
# ## Question 4 · Bug clinic: a moving average
#
# The kernel below should write the mean of `x[i - 1]`, `x[i]` and `x[i + 1]` to `y[i]`, where neighbours outside of the array count as 0.
# It is launched with blocks of 64. It has three faults. Somebody has run it on three inputs, on a card, and reports:
#
# - **A**, n = 64: "Most of it is right. `y[63]` is not. It differs from run to run."
# - **B**, n = 100: "The run ends without a message. Another array of my program has changed."
# - **C**, n = 128, run many times: "Sometimes a few values at the borders of *warps* are wrong, `y[32]` for example."
#
# Give for each report the *kind* of the fault, one of `"race"`, `"out of bounds"`, `"uninitialised"`, `"divergent barrier"`, and the first
# words of the cure, one of `"barrier"`, `"guard"`, `"halo"` (load the neighbours from outside of the block as well). Then write the kernel without
# faults, as `average`.


# %%
faulty = r"""
__global__ void average(int n, const float* x, float* y) {
  __shared__ float s[66];
  int i = blockIdx.x * blockDim.x + threadIdx.x, t = threadIdx.x + 1;
  s[t] = x[i];
  if (threadIdx.x == 0) s[0] = i > 0 ? x[i - 1] : 0.f;
  y[i] = (s[t - 1] + s[t] + s[t + 1]) / 3.f;
}
"""

# %% tags=["answer", "q4"]
# BEGIN SOLUTION
# BLANK: diagnosis = {"A": ..., "B": ..., "C": ...}  # each ("kind", "cure")
# BLANK: average = r"""
# BLANK: __global__ void average(int n, const float* x, float* y) {
# BLANK:   // your code here
# BLANK: }
# BLANK: """
diagnosis = {
    "A": ("uninitialised", "halo"),
    "B": ("out of bounds", "guard"),
    "C": ("race", "barrier"),
}
average = r"""
__global__ void average(int n, const float* x, float* y) {
  __shared__ float s[66];
  int i = blockIdx.x * blockDim.x + threadIdx.x, t = threadIdx.x + 1;
  s[t] = i < n ? x[i] : 0.f;
  if (threadIdx.x == 0) s[0] = i > 0 ? x[i - 1] : 0.f;
  if (threadIdx.x == 63) s[65] = i + 1 < n ? x[i + 1] : 0.f;
  __syncthreads();
  if (i < n) y[i] = (s[t - 1] + s[t] + s[t + 1]) / 3.f;
}
"""
# END SOLUTION

# %% [markdown] tags=["reasoning", "q4"]
# **Why.** A: nobody writes `s[65]`, the right neighbour of the last thread, so what lay there before is averaged in. B: the second block has
# threads 100 to 127, which read past `x` and write past `y`. C: lane 0 of the second warp reads `s[32]`, which lane 31 of the first writes, and
# nothing makes it wait; within a warp it goes well by luck on some cards. In the cure the guard stands around the *work*: the
# barrier is passed by all threads, also by those without a number.


# %% tags=["test"]
@test(
    "q4",
    1,
    hint="run the faulty kernel in mode checked for each n, mend what it names, and run it again",
    hidden=False,
)
def kinds_and_cures(s):
    """the three diagnoses"""
    d = s.diagnosis
    assert isinstance(d, dict) and all(isinstance(v, (tuple, list)) for v in d.values()), (
        "fill in the diagnosis"
    )
    right = {
        "A": ("uninitialised", "halo"),
        "B": ("out of bounds", "guard"),
        "C": ("race", "barrier"),
    }
    for name, (kind, cure) in right.items():
        got = tuple(d.get(name, ()))
        assert got[:1] != ("divergent barrier",), f"{name}: there is no barrier that could diverge"
        assert got[:1] == (kind,), f"{name}: {got[:1]} is not the kind of this fault"
        assert got == (kind, cure), f"{name}: the kind is right, {got[1:]} does not cure it"


def run_average(s, n):
    x = normal(n, n)
    run = kernel(s, s.average, "average", up(n, 64), 64, n, x, nans(n))
    padded = np.concatenate([[0], x, [0]])
    unwritten(run["y"], "y")
    right = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
    bad = np.flatnonzero(~np.isclose(run["y"], right, rtol=1e-4, atol=1e-5))
    assert not bad.size, f"n = {n}: y[{bad[0]}] is wrong" + (
        ", at the border of a block" if bad[0] % 64 in (0, 63) else ""
    )


@test("q4", 1, hint="one fault at a time: guard, halo on both sides, barrier", hidden=False)
def the_mended_kernel(s):
    """the mended kernel"""
    for n in (64, 100, 128):
        run_average(s, n)


@test("q4", 1, hint="the last number may stand anywhere in a block", hidden=True)
def the_mended_kernel_elsewhere(s):
    """the mended kernel on other sizes"""
    for n in (1, 63, 65, 129, 192):
        run_average(s, n)


# %% tags=["wrong", "q4"]
# expect: is not the kind of this fault
diagnosis = {"A": ("race", "barrier"), "B": ("out of bounds", "guard"), "C": ("race", "barrier")}
average = r"""
__global__ void average(int n, const float* x, float* y) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  y[i] = ((i > 0 ? x[i - 1] : 0.f) + x[i] + (i + 1 < n ? x[i + 1] : 0.f)) / 3.f;
}
"""

# %% tags=["wrong", "q4"]
# expect: not all threads of a block come to the same
diagnosis = {
    "A": ("uninitialised", "halo"),
    "B": ("out of bounds", "guard"),
    "C": ("race", "barrier"),
}
average = r"""
__global__ void average(int n, const float* x, float* y) {
  __shared__ float s[66];
  int i = blockIdx.x * blockDim.x + threadIdx.x, t = threadIdx.x + 1;
  if (i < n) {
    s[t] = x[i];
    if (threadIdx.x == 0) s[0] = i > 0 ? x[i - 1] : 0.f;
    if (threadIdx.x == 63 || i == n - 1) s[t + 1] = i + 1 < n ? x[i + 1] : 0.f;
    __syncthreads();
    y[i] = (s[t - 1] + s[t] + s[t + 1]) / 3.f;
  }
}
"""

# %% tags=["wrong", "q4"]
# expect: at the border of a block
diagnosis = {
    "A": ("uninitialised", "halo"),
    "B": ("out of bounds", "guard"),
    "C": ("race", "barrier"),
}
average = r"""
__global__ void average(int n, const float* x, float* y) {
  __shared__ float s[66];
  int i = blockIdx.x * blockDim.x + threadIdx.x, t = threadIdx.x + 1;
  s[t] = i < n ? x[i] : 0.f;
  if (threadIdx.x == 0) s[0] = 0.f, s[65] = 0.f;
  __syncthreads();
  if (i < n) y[i] = (s[t - 1] + s[t] + s[t + 1]) / 3.f;
}
"""

# %% tags=["wrong", "q4"]
# expect: does not cure it
diagnosis = {
    "A": ("uninitialised", "barrier"),
    "B": ("out of bounds", "guard"),
    "C": ("race", "barrier"),
}
average = r"""
__global__ void average(int n, const float* x, float* y) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = ((i > 0 ? x[i - 1] : 0.f) + x[i] + (i + 1 < n ? x[i + 1] : 0.f)) / 3.f;
}
"""

# %% [markdown] tags=["q5", "outcome-5", "outcome-2"]
# ## Question 5 · One atomic a block
#
# Write `total(int n, const float* x, float* sum)`, which adds all $n$ numbers to `sum[0]`. It starts at zero. Any number of blocks; `blockDim.x` is
# a multiple of 32, at most 1024, and *not* always a power of two. Each block may do one atomic addition, no more, and the reads of
# `x` must be coalesced. Each number is read once. (Section 14.6 has the parts, for blocks of a fixed size.)

# %% tags=["answer", "q5"]
# BEGIN SOLUTION
# BLANK: total = r"""
# BLANK: __global__ void total(int n, const float* x, float* sum) {
# BLANK:   // your code here
# BLANK: }
# BLANK: """
total = r"""
__device__ float warp_sum(float v) {
  for (int bit = 16; bit > 0; bit /= 2) v += __shfl_xor_sync(0xffffffffu, v, bit);
  return v;
}
__global__ void total(int n, const float* x, float* sum) {
  __shared__ float partial[32];
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  float v = 0.f;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) v += x[i];
  v = warp_sum(v);
  if (lane == 0) partial[warp] = v;
  __syncthreads();
  if (warp == 0) {
    v = warp_sum(lane < blockDim.x / 32 ? partial[lane] : 0.f);
    if (lane == 0) atomicAdd(sum, v);
  }
}
"""
# END SOLUTION

# %% [markdown] tags=["reasoning", "q5"]
# **Why.** Three levels, three tools: a thread adds in a register, a warp by shuffles, a block through shared memory, and only blocks meet at an
# atomic. The last `if` is on the *warp*, so all 32 lanes named in the mask of the shuffle are there; lanes without a warp to speak for
# bring a zero. A tree that halves `blockDim.x` loses numbers when it is not a power of two.


# %% tags=["test"]
def run_total(s, n, grid, block):
    x = normal(n, n)
    run = kernel(s, s.total, "total", grid, block, n, x, np.zeros(1, np.float32))
    right, got = float(x.astype(np.float64).sum()), float(run["sum"][0])
    assert got != 0 or n == 0, "sum[0] is still zero"
    power = block & (block - 1) == 0
    assert math.isclose(got, right, rel_tol=1e-3, abs_tol=1e-3), (
        f"n = {n}, {grid} blocks of {block}: got {got:.4f}, the sum is {right:.4f}"
        + ("" if power else "; does your tree lose numbers when the block is no power of two?")
    )
    atomics = int(run.count("sum", "atomic"))
    return run, atomics


@test("q5", 1, hint="add in registers, then in the warp, then in the block", hidden=False)
def sum_of_all(s):
    """the sum, and one atomic a block"""
    run, atomics = run_total(s, 1000, 3, 128)
    assert atomics <= 3, f"{atomics} requests with atomics by 3 blocks: one a block is enough"
    lanes = sum(r["bytes"] * r["requests"] / 4 for r in run.rows if r["kind"] == "atomic")
    assert lanes <= 3, f"{lanes:.0f} atomic additions by 3 blocks: one a block is enough"


@test("q5", 1, hint="blocks of 96 threads have 3 warps", hidden=True)
def sum_with_odd_blocks(s):
    """blocks that are no power of two, few numbers, many numbers"""
    for n, grid, block in ((777, 2, 96), (5, 1, 32), (3000, 1, 160), (31, 2, 1024)):
        _, atomics = run_total(s, n, grid, block)
        assert atomics <= grid, f"{atomics} atomics by {grid} blocks: one a block is enough"


@test("q5", 1, hint="i += gridDim.x * blockDim.x", hidden=True)
def traffic_of_the_sum(s):
    """each number is read once, coalesced"""
    run, _ = run_total(s, 2048, 2, 128)
    assert run.count("x", "read", "sectors") <= 256, (
        f"{run.count('x', 'read', 'sectors')} sectors for 2048 numbers; 256 are enough"
    )


# %% tags=["wrong", "q5"]
# expect: one a block is enough
total = r"""
__global__ void total(int n, const float* x, float* sum) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) atomicAdd(sum, x[i]);
}
"""

# %% tags=["wrong", "q5"]
# expect: has a race
total = r"""
__global__ void total(int n, const float* x, float* sum) {
  float v = 0.f;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) v += x[i];
  sum[0] += v;
}
"""

# %% tags=["wrong", "q5"]
# expect: no power of two
total = r"""
__global__ void total(int n, const float* x, float* sum) {
  __shared__ float s[1024];
  float v = 0.f;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) v += x[i];
  s[threadIdx.x] = v;
  __syncthreads();
  for (int half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) s[threadIdx.x] += s[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) atomicAdd(sum, s[0]);
}
"""

# %% tags=["wrong", "q5"]
# expect: not all lanes named in a mask
total = r"""
__device__ float warp_sum(float v) {
  for (int bit = 16; bit > 0; bit /= 2) v += __shfl_xor_sync(0xffffffffu, v, bit);
  return v;
}
__global__ void total(int n, const float* x, float* sum) {
  __shared__ float partial[32];
  float v = 0.f;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) v += x[i];
  v = warp_sum(v);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = v;
  __syncthreads();
  if (threadIdx.x < blockDim.x / 32) {
    v = warp_sum(partial[threadIdx.x]);
    if (threadIdx.x == 0) atomicAdd(sum, v);
  }
}
"""

# %% [markdown] tags=["q6", "outcome-6"]
# ## Question 6 · Joining parts
#
# A part of a row is described by its largest score $m$, the sum $d = \sum_i e^{s_i - m}$ and, for attention, the unfinished
# output $a = \sum_i e^{s_i - m} v_i$, an array. Write
#
# - `join(one, two)`: each a tuple `(m, d, a)`; return that of both parts together. Scores may be huge, and a part may be *empty or
#   masked out*: then $m = -\infty$, $d = 0$, $a = 0$, and no NaN may come of it (the chapter's `joined`, in 14.10, has neither masks nor $a$);
# - `finished(part)`: the output $\sum_i e^{s_i} v_i / \sum_i e^{s_i}$, zeros for a masked part.


# %% tags=["answer", "q6"]
def join(one, two):
    """Return (m, d, a) of two parts together; a is an array (v,)."""
    # BEGIN SOLUTION
    (m1, d1, a1), (m2, d2, a2) = one, two
    m = max(m1, m2)
    if m == -math.inf:
        return one
    f1, f2 = math.exp(m1 - m), math.exp(m2 - m)
    return m, d1 * f1 + d2 * f2, a1 * f1 + a2 * f2
    # END SOLUTION


def finished(part):
    """Return the output (v,) of a part."""
    # BEGIN SOLUTION
    _, d, a = part
    return a / d if d > 0 else np.zeros_like(a)
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q6"]
# **Why.** $e^{s_i - m} = e^{s_i - m_1}e^{m_1 - m}$, so each part's sums shrink by $e^{m_1 - m} \le 1$: no overflow. With both parts masked, $m_1
# - m = -\infty + \infty$ would be NaN, so that case is decided before. $e^{-\infty} = 0$ takes care of one masked part.


# %% tags=["test"]
def part_of(s, v):
    m = float(s.max()) if len(s) else -math.inf
    if m == -math.inf:
        return m, 0.0, np.zeros(v.shape[1])
    e = np.exp(s - m)
    return m, float(e.sum()), e @ v


def check_joined(s, scores, values, cut):
    got = s.join(part_of(scores[:cut], values[:cut]), part_of(scores[cut:], values[cut:]))
    assert got is not None and len(got) == 3, "join must return (m, d, a)"
    m, d, a = got
    right = part_of(scores, values)
    assert m == right[0], f"m is {m}, the larger of both is {right[0]}"
    assert np.isfinite(d) and np.isfinite(array(a)).all(), "the sums hold NaN or infinity"
    plain = sum(part_of(part, values[: len(part)])[1] for part in (scores[:cut], scores[cut:]))
    assert not (np.isclose(d, plain) and not np.isclose(d, right[1])), (
        "d1 + d2 adds sums that are relative to different maxima: the one with the smaller m must shrink"
    )
    assert np.isclose(d, right[1]), f"d is {d:.6g}, not {right[1]:.6g}"
    assert np.allclose(array(a), right[2]), "a does not shrink by the same factors as d"
    return got


@test("q6", 1, hint="each part is multiplied by exp(its m - the new m)", hidden=False)
def two_parts(s):
    """two parts, the maximum in either"""
    for seed in range(4):
        scores, values = 3 * rng(seed).normal(size=13), rng(seed + 9).normal(size=(13, 4))
        got = check_joined(s, scores, values, 5)
        out = array(s.finished(got))
        w = np.exp(scores - scores.max())
        assert np.allclose(out, w @ values / w.sum()), "finished: the output is a / d"


@test("q6", 1, hint="exp(m1 - m) with m the larger one is never above 1", hidden=False)
def huge_scores(s):
    """huge scores"""
    scores, values = 1000 * rng(1).normal(size=9), rng(2).normal(size=(9, 2))
    check_joined(s, scores, values, 4)


@test("q6", 1, hint="two masked parts: -inf minus -inf is NaN", hidden=True)
def masked_parts(s):
    """masked parts"""
    values = rng(3).normal(size=(6, 3))
    scores = rng(4).normal(size=6)
    empty = (-math.inf, 0.0, np.zeros(3))
    part = part_of(scores, values)
    for one, two in ((empty, part), (part, empty)):
        m, d, a = s.join(one, two)
        assert (
            np.isclose(m, part[0]) and np.isclose(d, part[1]) and np.allclose(array(a), part[2])
        ), "joining an empty part must change nothing"
    m, d, a = s.join(empty, empty)
    assert m == -math.inf and d == 0 and (array(a) == 0).all(), (
        f"two empty parts: got m = {m}, d = {d}"
    )
    assert (array(s.finished(empty)) == 0).all(), "the output of a masked part is zeros"


# %% tags=["wrong", "q6"]
# expect: relative to different maxima
def join(one, two):
    return max(one[0], two[0]), one[1] + two[1], one[2] + two[2]


def finished(part):
    return part[2] / part[1] if part[1] > 0 else np.zeros_like(part[2])


# %% tags=["wrong", "q6"]
# expect: a does not shrink
def join(one, two):
    (m1, d1, a1), (m2, d2, a2) = one, two
    m = max(m1, m2)
    if m == -math.inf:
        return one
    return m, d1 * math.exp(m1 - m) + d2 * math.exp(m2 - m), a1 + a2


def finished(part):
    return part[2] / part[1] if part[1] > 0 else np.zeros_like(part[2])


# %% tags=["wrong", "q6"]
# expect: two empty parts
def join(one, two):
    (m1, d1, a1), (m2, d2, a2) = one, two
    m = max(m1, m2)
    with np.errstate(invalid="ignore"):
        f1, f2 = np.exp(np.float64(m1) - m), np.exp(np.float64(m2) - m)
    return m, d1 * f1 + d2 * f2, a1 * f1 + a2 * f2


def finished(part):
    return part[2] / part[1] if part[1] > 0 else np.zeros_like(part[2])


# %% tags=["wrong", "q6"]
# expect: finished: the output is a / d
def join(one, two):
    (m1, d1, a1), (m2, d2, a2) = one, two
    m = max(m1, m2)
    if m == -math.inf:
        return one
    f1, f2 = math.exp(m1 - m), math.exp(m2 - m)
    return m, d1 * f1 + d2 * f2, a1 * f1 + a2 * f2


def finished(part):
    return part[2]


# %% [markdown] tags=["q7", "outcome-5", "outcome-6"]
# ## Question 7 · How sure is a row? In one pass
#
# A network's scores $x_i$ become probabilities $p_i$ by a softmax. How sure it is says their *entropy* $H = -\sum_i p_i \ln p_i$: 0 if one of them is 1, and the logarithm of
# their number if all are equal. With $m = \max_i x_i$, $d = \sum_i e^{x_i - m}$ and $a = \sum_i e^{x_i - m}(x_i - m)$ it is $H = \ln d - a / d$.
#
# Write `entropy(int rows, int columns, const float* x, float* h)`, which writes the entropy of the softmax of every row of `x`. Blocks have 128 threads and each of their four
# *warps* takes one row; there are ⌈rows / 4⌉ blocks. Entries may be as large as ±1000 or −∞ (masked: $p = 0$, which adds nothing), but never a whole row of −∞. Each entry of `x` may be read
# only *once*, coalesced. No shared memory is needed.
#
# (The chapter's `softmax_online`, in 14.10, keeps $m$ and $d$. What happens to $a$ when $m$ grows you have to find out: every $x_i - m$ in it changes.)

# %% tags=["answer", "q7"]
# BEGIN SOLUTION
# BLANK: entropy = r"""
# BLANK: __global__ void entropy(int rows, int columns, const float* x, float* h) {
# BLANK:   // your code here
# BLANK: }
# BLANK: """
entropy = r"""
__device__ float warp_max(float v) {
  for (int bit = 16; bit > 0; bit /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, bit));
  return v;
}
__device__ float warp_sum(float v) {
  for (int bit = 16; bit > 0; bit /= 2) v += __shfl_xor_sync(0xffffffffu, v, bit);
  return v;
}
__global__ void entropy(int rows, int columns, const float* x, float* h) {
  int row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  x += row * columns;
  float m = -1e30f, d = 0.f, a = 0.f;  // a: the sum of e^(v - m) (v - m)
  for (int i = lane; i < columns; i += 32) {
    float v = x[i], larger = fmaxf(m, v), shrink = expf(m - larger);
    a = shrink * (d > 0.f ? a + (m - larger) * d : 0.f);
    d *= shrink;
    if (v > -INFINITY) {
      float weight = expf(v - larger);
      d += weight;
      a += weight * (v - larger);
    }
    m = larger;
  }
  float all = warp_max(m), shrink = expf(m - all);
  a = warp_sum(d > 0.f ? shrink * (a + (m - all) * d) : 0.f);
  d = warp_sum(d * shrink);
  if (lane == 0) h[row] = logf(d) - a / d;
}
"""
# END SOLUTION

# %% [markdown] tags=["reasoning", "q7"]
# **Why.** When the maximum grows from $m$ to $m'$, every weight shrinks by $f = e^{m - m'}$ and every $x_i - m$ falls by $m' - m$: so
# $a' = f\,(a + (m - m')\,d)$, with the old $d$, and then $d' = f d$. Each lane does that entry by entry, and in the end for the common maximum of the warp, after which the lanes' sums add up.
# A masked entry has the weight 0, but $0 \cdot (-\infty)$ is NaN, so it is left out; and a lane that has seen nothing has $m = -10^{30}$, where $m - m'$ is huge, but $d = 0$.
# A whole warp leaves at the guard, so the shuffles miss nobody.


# %% tags=["test"]
def run_entropy(s, x):
    rows, columns = x.shape
    run = kernel(s, s.entropy, "entropy", up(rows, 4), 128, rows, columns, x, nans(rows))
    h, huge = run["h"], x[np.isfinite(x)].max() > 88
    z = x.astype(np.float64) - x.max(axis=1, keepdims=True)
    e = np.exp(z)
    d, a = e.sum(axis=1), (e * np.where(e > 0, z, 0)).sum(axis=1)
    assert not (huge and not np.isfinite(h).all()), (
        "NaN or infinity: exp overflows unless the row's largest entry is subtracted first"
    )
    assert not (np.isnan(h).any() and np.isinf(x).any()), "NaN: 0 times -inf, or -inf minus -inf"
    unwritten(h, "h")
    assert not close(h, np.log(d), atol=1e-3) or close(np.log(d), np.log(d) - a / d, atol=1e-3), (
        "h is the logarithm of d alone: a / d is missing"
    )
    assert close(h, np.log(d) - a / d, atol=1e-3), (
        f"{rows} rows of {columns}: h[0] is {h[0]:.4f}, the entropy is {np.log(d[0]) - a[0] / d[0]:.4f}"
    )
    return run


@test(
    "q7",
    1,
    hint="when m grows, a shrinks by the same factor as d, and each x - m in it falls, too",
    hidden=False,
)
def values_of_the_entropy(s):
    """right on awkward sizes"""
    run_entropy(s, 3 * normal(1, 7, 45))
    run_entropy(s, normal(2, 1, 3))


@test("q7", 1, hint="keep m, d and a at once, entry by entry", hidden=False)
def reads_of_the_entropy(s):
    """each entry is read once, coalesced"""
    x = normal(3, 8, 128)
    sectors = run_entropy(s, x).count("x", "read", "sectors")
    assert sectors <= x.nbytes // 32, (
        f"{sectors} sectors of x; {x.nbytes // 32} are enough for one pass"
    )


@test("q7", 1, hint="subtract the maximum so far before each exponential", hidden=True)
def entropy_of_huge_entries(s):
    """huge entries"""
    run_entropy(s, 1000 * normal(4, 5, 50))
    run_entropy(s, 500 + normal(6, 3, 97))


@test(
    "q7",
    1,
    hint="0 · (-inf) is NaN: what does a lane do that has seen masked entries only?",
    hidden=True,
)
def entropy_with_masked_entries(s):
    """masked entries"""
    x = normal(5, 6, 70)
    x[:, 1::2] = -np.inf
    x[3, :68] = -np.inf
    x[4, 1:] = -np.inf
    run_entropy(s, x)


# %% tags=["wrong", "q7"]
# expect: exp overflows
entropy = r"""
__device__ float warp_max(float v) {
  for (int bit = 16; bit > 0; bit /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, bit));
  return v;
}
__device__ float warp_sum(float v) {
  for (int bit = 16; bit > 0; bit /= 2) v += __shfl_xor_sync(0xffffffffu, v, bit);
  return v;
}
__global__ void entropy(int rows, int columns, const float* x, float* h) {
  int row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  x += row * columns;
  float d = 0.f, a = 0.f;
  for (int i = lane; i < columns; i += 32) {
    float v = x[i], weight = expf(v);
    d += weight;
    if (weight > 0.f) a += weight * v;
  }
  d = warp_sum(d), a = warp_sum(a);
  if (lane == 0) h[row] = logf(d) - a / d;
}
"""

# %% tags=["wrong", "q7"]
# expect: are enough for one pass
entropy = r"""
__device__ float warp_max(float v) {
  for (int bit = 16; bit > 0; bit /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, bit));
  return v;
}
__device__ float warp_sum(float v) {
  for (int bit = 16; bit > 0; bit /= 2) v += __shfl_xor_sync(0xffffffffu, v, bit);
  return v;
}
__global__ void entropy(int rows, int columns, const float* x, float* h) {
  int row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  x += row * columns;
  float m = -INFINITY, d = 0.f, a = 0.f;
  for (int i = lane; i < columns; i += 32) m = fmaxf(m, x[i]);
  m = warp_max(m);
  for (int i = lane; i < columns; i += 32) {
    float weight = expf(x[i] - m);
    d += weight;
    if (weight > 0.f) a += weight * (x[i] - m);
  }
  d = warp_sum(d), a = warp_sum(a);
  if (lane == 0) h[row] = logf(d) - a / d;
}
"""

# %% tags=["wrong", "q7"]
# expect: each x - m in it falls
entropy = r"""
__device__ float warp_max(float v) {
  for (int bit = 16; bit > 0; bit /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, bit));
  return v;
}
__device__ float warp_sum(float v) {
  for (int bit = 16; bit > 0; bit /= 2) v += __shfl_xor_sync(0xffffffffu, v, bit);
  return v;
}
__global__ void entropy(int rows, int columns, const float* x, float* h) {
  int row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  x += row * columns;
  float m = -1e30f, d = 0.f, a = 0.f;  // a: the sum of e^(v - m) (v - m)
  for (int i = lane; i < columns; i += 32) {
    float v = x[i], larger = fmaxf(m, v), shrink = expf(m - larger);
    a = shrink * (a);
    d *= shrink;
    if (v > -INFINITY) {
      float weight = expf(v - larger);
      d += weight;
      a += weight * (v - larger);
    }
    m = larger;
  }
  float all = warp_max(m), shrink = expf(m - all);
  a = warp_sum(shrink * a);
  d = warp_sum(d * shrink);
  if (lane == 0) h[row] = logf(d) - a / d;
}
"""

# %% tags=["wrong", "q7"]
# expect: 0 times -inf
entropy = r"""
__device__ float warp_max(float v) {
  for (int bit = 16; bit > 0; bit /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, bit));
  return v;
}
__device__ float warp_sum(float v) {
  for (int bit = 16; bit > 0; bit /= 2) v += __shfl_xor_sync(0xffffffffu, v, bit);
  return v;
}
__global__ void entropy(int rows, int columns, const float* x, float* h) {
  int row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  x += row * columns;
  float m = -1e30f, d = 0.f, a = 0.f;  // a: the sum of e^(v - m) (v - m)
  for (int i = lane; i < columns; i += 32) {
    float v = x[i], larger = fmaxf(m, v), shrink = expf(m - larger);
    a = shrink * (d > 0.f ? a + (m - larger) * d : 0.f);
    d *= shrink;
    float weight = expf(v - larger);
    d += weight;
    a += weight * (v - larger);
    m = larger;
  }
  float all = warp_max(m), shrink = expf(m - all);
  a = warp_sum(d > 0.f ? shrink * (a + (m - all) * d) : 0.f);
  d = warp_sum(d * shrink);
  if (lane == 0) h[row] = logf(d) - a / d;
}
"""

# %% tags=["wrong", "q7"]
# expect: a / d is missing
entropy = r"""
__device__ float warp_max(float v) {
  for (int bit = 16; bit > 0; bit /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, bit));
  return v;
}
__device__ float warp_sum(float v) {
  for (int bit = 16; bit > 0; bit /= 2) v += __shfl_xor_sync(0xffffffffu, v, bit);
  return v;
}
__global__ void entropy(int rows, int columns, const float* x, float* h) {
  int row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  x += row * columns;
  float m = -1e30f, d = 0.f, a = 0.f;  // a: the sum of e^(v - m) (v - m)
  for (int i = lane; i < columns; i += 32) {
    float v = x[i], larger = fmaxf(m, v), shrink = expf(m - larger);
    a = shrink * (d > 0.f ? a + (m - larger) * d : 0.f);
    d *= shrink;
    if (v > -INFINITY) {
      float weight = expf(v - larger);
      d += weight;
      a += weight * (v - larger);
    }
    m = larger;
  }
  float all = warp_max(m), shrink = expf(m - all);
  a = warp_sum(d > 0.f ? shrink * (a + (m - all) * d) : 0.f);
  d = warp_sum(d * shrink);
  if (lane == 0) h[row] = logf(d);
}
"""

# %% [markdown] tags=["q8", "outcome-5", "outcome-2"]
# ## Question 8 · Matrix product, four results a thread
#
# Write `product(int m, int n, int k, const float* A, const float* B, float* C)`: $C = AB$ with $A$ of $m \times k$, $B$ of $k \times n$, all
# row-major and of any size. Blocks have (32, 8) threads, one block for each 32 × 32 piece of $C$, `blockIdx.x` along its columns: so a thread computes *four* entries of $C$.
# Fetch tiles through shared memory, coalesced: each number of $A$ and of $B$ is asked for once for each block that needs it. And for its four products of a step along $k$ a thread may read
# *five* numbers from shared memory, not eight.
#
# (The chapter's `tiled`, in 14.9, has one entry a thread and sizes that fit. Which four entries should a thread take?)

# %% tags=["answer", "q8"]
# BEGIN SOLUTION
# BLANK: product = r"""
# BLANK: __global__ void product(int m, int n, int k, const float* A, const float* B, float* C) {
# BLANK:   // your code here
# BLANK: }
# BLANK: """
product = r"""
__global__ void product(int m, int n, int k, const float* A, const float* B, float* C) {
  __shared__ float a[32][32], b[32][32];
  int x = threadIdx.x, y = threadIdx.y, row = blockIdx.y * 32 + y, column = blockIdx.x * 32 + x;
  float sum[4] = {};
  for (int first = 0; first < k; first += 32) {
    for (int r = 0; r < 32; r += 8) {
      a[y + r][x] = row + r < m && first + x < k ? A[(row + r) * k + first + x] : 0.f;
      b[y + r][x] = first + y + r < k && column < n ? B[(first + y + r) * n + column] : 0.f;
    }
    __syncthreads();
    for (int i = 0; i < 32; i++) {
      float v = b[i][x];
      for (int r = 0; r < 4; r++) sum[r] += a[y + 8 * r][i] * v;
    }
    __syncthreads();
  }
  for (int r = 0; r < 4; r++)
    if (row + 8 * r < m && column < n) C[(row + 8 * r) * n + column] = sum[r];
}
"""
# END SOLUTION

# %% [markdown] tags=["reasoning", "q8"]
# **Why.** A thread takes four entries of *one column* of the piece, eight rows apart: they share the number of $B$, and the lanes of a warp have neighbouring columns in each of the four rows, so
# reading `b`, writing `C` and both fetches are coalesced and without conflicts, and the number of `a` is a broadcast. What lies outside counts as 0, which changes no sum, so the last tile needs no loop of its
# own. The first barrier: the tiles are complete; the second: all have used them. No thread leaves early, since each is needed for fetching.


# %% tags=["test"]
def run_product(s, m, n, k):
    A, B = normal(m, m, k), normal(n + 50, k, n)
    run = kernel(
        s, s.product, "product", (up(n, 32), up(m, 32)), (32, 8), m, n, k, A, B, nans(m, n)
    )
    C = run["C"]
    rows = np.flatnonzero(np.isnan(C).all(axis=1))
    assert not rows.size or rows.size == m, (
        f"row {rows[0]} of C was never written: 8 rows of threads, 32 rows of the piece"
    )
    unwritten(C, "C")
    assert not (m == n > 1 and close(C, (A @ B).T)), "C is transposed"
    assert close(C, A @ B, atol=1e-3), (
        f"m, n, k = {m}, {n}, {k}: the entries are not those of the product"
    )
    return run


@test(
    "q8",
    1,
    hint="outside of the matrices a tile holds 0, and every thread passes every barrier",
    hidden=False,
)
def values_of_the_product(s):
    """right on awkward sizes"""
    run_product(s, 37, 35, 33)


@test(
    "q8", 1, hint="fetch 32 × 32 numbers of A and of B, wait, use each 32 times, wait", hidden=False
)
def traffic_of_the_product(s):
    """each number is fetched once for each block that needs it"""
    run = run_product(s, 32, 64, 32)
    for name, enough in (("A", 2 * 32 * 32 * 4 // 32), ("B", 32 * 64 * 4 // 32)):
        sectors = run.count(name, "read", "sectors")
        assert sectors <= enough, f"{sectors} sectors of {name}; {enough} are enough with tiles"


@test("q8", 1, hint="keep the number that the four entries share in a register", hidden=True)
def shared_reads_of_the_product(s):
    """five reads from shared memory for four products"""
    run = run_product(s, 32, 32, 32)
    enough = 32**3 // 32 * 5 // 4 + 2 * 32  # reads, and the writing of both tiles
    assert run.shared_requests <= enough, (
        f"{run.shared_requests} requests to shared memory; {enough} are enough if four entries share a number"
    )


@test("q8", 1, hint="k smaller than a tile, a single row, a single column", hidden=True)
def values_of_small_products(s):
    """small and thin products"""
    for m, n, k in ((1, 1, 1), (3, 40, 5), (33, 2, 17), (9, 32, 32)):
        run_product(s, m, n, k)


# %% tags=["wrong", "q8"]
# expect: are enough with tiles
product = r"""
__global__ void product(int m, int n, int k, const float* A, const float* B, float* C) {
  int column = blockIdx.x * 32 + threadIdx.x;
  for (int row = blockIdx.y * 32 + threadIdx.y; row < m && row < blockIdx.y * 32 + 32; row += 8) {
    float sum = 0.f;
    for (int i = 0; i < k && column < n; i++) sum += A[row * k + i] * B[i * n + column];
    if (column < n) C[row * n + column] = sum;
  }
}
"""

# %% tags=["wrong", "q8"]
# expect: has a race
product = r"""
__global__ void product(int m, int n, int k, const float* A, const float* B, float* C) {
  __shared__ float a[32][32], b[32][32];
  int x = threadIdx.x, y = threadIdx.y, row = blockIdx.y * 32 + y, column = blockIdx.x * 32 + x;
  float sum[4] = {};
  for (int first = 0; first < k; first += 32) {
    for (int r = 0; r < 32; r += 8) {
      a[y + r][x] = row + r < m && first + x < k ? A[(row + r) * k + first + x] : 0.f;
      b[y + r][x] = first + y + r < k && column < n ? B[(first + y + r) * n + column] : 0.f;
    }
    __syncthreads();
    for (int i = 0; i < 32; i++) {
      float v = b[i][x];
      for (int r = 0; r < 4; r++) sum[r] += a[y + 8 * r][i] * v;
    }
  }
  for (int r = 0; r < 4; r++)
    if (row + 8 * r < m && column < n) C[(row + 8 * r) * n + column] = sum[r];
}
"""

# %% tags=["wrong", "q8"]
# expect: not all threads of a block come to the same
product = r"""
__global__ void product(int m, int n, int k, const float* A, const float* B, float* C) {
  __shared__ float a[32][32], b[32][32];
  int x = threadIdx.x, y = threadIdx.y, row = blockIdx.y * 32 + y, column = blockIdx.x * 32 + x;
  if (row >= m || column >= n) return;
  float sum[4] = {};
  for (int first = 0; first < k; first += 32) {
    for (int r = 0; r < 32; r += 8) {
      a[y + r][x] = row + r < m && first + x < k ? A[(row + r) * k + first + x] : 0.f;
      b[y + r][x] = first + y + r < k && column < n ? B[(first + y + r) * n + column] : 0.f;
    }
    __syncthreads();
    for (int i = 0; i < 32; i++) {
      float v = b[i][x];
      for (int r = 0; r < 4; r++) sum[r] += a[y + 8 * r][i] * v;
    }
    __syncthreads();
  }
  for (int r = 0; r < 4; r++)
    if (row + 8 * r < m && column < n) C[(row + 8 * r) * n + column] = sum[r];
}
"""

# %% tags=["wrong", "q8"]
# expect: reads shared memory that no thread has written
product = r"""
__global__ void product(int m, int n, int k, const float* A, const float* B, float* C) {
  __shared__ float a[32][32], b[32][32];
  int x = threadIdx.x, y = threadIdx.y, row = blockIdx.y * 32 + y, column = blockIdx.x * 32 + x;
  float sum[4] = {};
  for (int first = 0; first < k; first += 32) {
    for (int r = 0; r < 32; r += 8) {
      if (row + r < m && first + x < k) a[y + r][x] = A[(row + r) * k + first + x];
      if (first + y + r < k && column < n) b[y + r][x] = B[(first + y + r) * n + column];
    }
    __syncthreads();
    for (int i = 0; i < 32; i++) {
      float v = b[i][x];
      for (int r = 0; r < 4; r++) sum[r] += a[y + 8 * r][i] * v;
    }
    __syncthreads();
  }
  for (int r = 0; r < 4; r++)
    if (row + 8 * r < m && column < n) C[(row + 8 * r) * n + column] = sum[r];
}
"""

# %% tags=["wrong", "q8"]
# expect: are enough if four entries share a number
product = r"""
__global__ void product(int m, int n, int k, const float* A, const float* B, float* C) {
  __shared__ float a[32][32], b[32][32];
  int x = threadIdx.x, y = threadIdx.y, row = blockIdx.y * 32 + y, column = blockIdx.x * 32 + x;
  float sum[4] = {};
  for (int first = 0; first < k; first += 32) {
    for (int r = 0; r < 32; r += 8) {
      a[y + r][x] = row + r < m && first + x < k ? A[(row + r) * k + first + x] : 0.f;
      b[y + r][x] = first + y + r < k && column < n ? B[(first + y + r) * n + column] : 0.f;
    }
    __syncthreads();
    for (int r = 0; r < 4; r++)
      for (int i = 0; i < 32; i++) sum[r] += a[y + 8 * r][i] * b[i][x];
    __syncthreads();
  }
  for (int r = 0; r < 4; r++)
    if (row + 8 * r < m && column < n) C[(row + 8 * r) * n + column] = sum[r];
}
"""

# %% tags=["wrong", "q8"]
# expect: was never written: 8 rows of threads
product = r"""
__global__ void product(int m, int n, int k, const float* A, const float* B, float* C) {
  __shared__ float a[8][32], b[32][32];
  int x = threadIdx.x, y = threadIdx.y, row = blockIdx.y * 32 + y, column = blockIdx.x * 32 + x;
  float sum = 0.f;
  for (int first = 0; first < k; first += 32) {
    a[y][x] = row < m && first + x < k ? A[row * k + first + x] : 0.f;
    for (int r = 0; r < 32; r += 8)
      b[y + r][x] = first + y + r < k && column < n ? B[(first + y + r) * n + column] : 0.f;
    __syncthreads();
    for (int i = 0; i < 32; i++) sum += a[y][i] * b[i][x];
    __syncthreads();
  }
  if (row < m && column < n) C[row * n + column] = sum;
}
"""

# %% [markdown] tags=["q9", "outcome-4"]
# ## Question 9 · Under the roof
#
# A card does at most `peak` operations and moves at most `bandwidth` bytes a second. Derive and write
#
# - `least_time(operations, moved, peak, bandwidth)`: the least time that a kernel with so many operations and bytes can take;
# - `fusion_gain(k, peak, bandwidth)`: $k \ge 1$ element-wise operations on an array of float32 numbers, one after the other, each in a kernel of its own
#   that reads one array and writes one, each doing 1 operation an entry; against one fused kernel that reads once, does all $k$ and writes once. Return the ratio
#   of the least times, separate over fused, exactly, for any card;
# - `smallest_piece(peak, bandwidth, width)`: a matrix product with numbers of `width` bytes computes $C$ in square pieces of $b \times b$, and
#   its operands are fetched once for each piece, as in (14.11). Return the smallest whole $b$ for which memory is not the limit (leave out the
#   writing of $C$).


# %% tags=["answer", "q9"]
def least_time(operations, moved, peak, bandwidth):
    """Return the least time in seconds."""
    # BEGIN SOLUTION
    return max(operations / peak, moved / bandwidth)
    # END SOLUTION


def fusion_gain(k, peak, bandwidth):
    """Return the least time of k separate kernels over that of one fused kernel."""
    # BEGIN SOLUTION
    separate = k * least_time(1, 8, peak, bandwidth)
    return separate / least_time(k, 8, peak, bandwidth)
    # END SOLUTION


def smallest_piece(peak, bandwidth, width):
    """Return the smallest b with b × b pieces on or right of the ridge."""
    # BEGIN SOLUTION
    return math.ceil(peak / bandwidth * width)
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q9"]
# **Why.** Computing and moving overlap, so the slower of both decides: a maximum, not a sum. Separate kernels move $8k$ bytes an entry, the fused one 8; as long as
# memory limits both, fusing gains $k$, and once $k$ operations take longer than 8 bytes, less. With $D = \text{width} \cdot mnk \cdot 2 / b$ bytes for
# $2mnk$ operations the intensity is $b / \text{width}$, which must reach $\text{peak} / \text{bandwidth}$.


# %% tags=["test"]
@test("q9", 1, hint="moving and computing happen at the same time", hidden=False)
def least_times(s):
    """the slower of both limits"""
    for f, d, p, b in ((1e9, 1e6, 1e12, 1e11), (1e6, 1e9, 1e12, 1e11), (3e9, 5e8, 2e13, 1e12)):
        got = s.least_time(f, d, p, b)
        assert got is not None, "least_time returned None: is there a return?"
        assert not np.isclose(got, f / p + d / b), "a sum: but computing and moving overlap"
        assert np.isclose(got, max(f / p, d / b)), f"{f:g} operations, {d:g} bytes: got {got:g} s"


@test("q9", 1, hint="each separate kernel has its own maximum of two times", hidden=False)
def gain_of_fusing(s):
    """what fusing gains"""
    got = s.fusion_gain(5, 67e12, 3.35e12)
    assert got is not None, "fusion_gain returned None: is there a return?"
    assert np.isclose(got, 5), (
        f"five operations on an H100: got {got:g}, both are limited by memory"
    )


@test("q9", 1, hint="with many operations the fused kernel is limited by computing", hidden=True)
def gain_of_fusing_elsewhere(s):
    """what fusing gains on odd cards"""
    for k, p, b in ((400, 67e12, 3.35e12), (3, 1e12, 2e12), (1, 1e13, 1e12), (17, 8e12, 2e12)):
        right = k * max(1 / p, 8 / b) / max(k / p, 8 / b)
        got = s.fusion_gain(k, p, b)
        assert np.isclose(got, right), (
            f"k = {k}, ridge {p / b:g}: got {got:g}, {right:g} is right (the fused kernel has a limit too)"
        )


@test("q9", 1, hint="intensity of b × b pieces: 2mnk over width · mnk · (1/b + 1/b)", hidden=False)
def pieces_at_the_ridge(s):
    """the smallest piece"""
    for p, b, w in ((67e12, 3.35e12, 4), (989e12, 3.35e12, 2), (8.1e12, 320e9, 4)):
        got, right = s.smallest_piece(p, b, w), math.ceil(p / b * w)
        assert got is not None, "smallest_piece returned None: is there a return?"
        assert got != math.ceil(p / b * w / 2), (
            "half of it: a product is two operations, and two operands are fetched"
        )
        assert got != math.ceil(p / b), "the numbers have a width"
        assert got == right, f"peak {p:g}, bandwidth {b:g}, {w} bytes: got {got}"


# %% tags=["wrong", "q9"]
# expect: computing and moving overlap
def least_time(operations, moved, peak, bandwidth):
    return operations / peak + moved / bandwidth


def fusion_gain(k, peak, bandwidth):
    return k * max(1 / peak, 8 / bandwidth) / max(k / peak, 8 / bandwidth)


def smallest_piece(peak, bandwidth, width):
    return math.ceil(peak / bandwidth * width)


# %% tags=["wrong", "q9"]
# expect: the fused kernel has a limit too
def least_time(operations, moved, peak, bandwidth):
    return max(operations / peak, moved / bandwidth)


def fusion_gain(k, peak, bandwidth):
    return k


def smallest_piece(peak, bandwidth, width):
    return math.ceil(peak / bandwidth * width)


# %% tags=["wrong", "q9"]
# expect: two operands are fetched
def least_time(operations, moved, peak, bandwidth):
    return max(operations / peak, moved / bandwidth)


def fusion_gain(k, peak, bandwidth):
    return k * max(1 / peak, 8 / bandwidth) / max(k / peak, 8 / bandwidth)


def smallest_piece(peak, bandwidth, width):
    return math.ceil(peak / bandwidth * width / 2)


# %% tags=["wrong", "q9"]
# expect: the numbers have a width
def least_time(operations, moved, peak, bandwidth):
    return max(operations / peak, moved / bandwidth)


def fusion_gain(k, peak, bandwidth):
    return k * max(1 / peak, 8 / bandwidth) / max(k / peak, 8 / bandwidth)


def smallest_piece(peak, bandwidth, width):
    return math.ceil(peak / bandwidth)


# %% [markdown] tags=["q10", "outcome-3"]
# ## Question 10 · How many blocks fit?
#
# Write `resident(threads, registers, shared, *, card)`: how many blocks a multiprocessor holds at once, and the occupancy, as a tuple. `card` is a dictionary
# with `registers` (of the multiprocessor), `shared` (bytes), `warps` and `blocks` (the most it can hold). Registers are handed out to a *warp* in portions
# of 256, and shared memory to a block in portions of 128 bytes. A launch that does not fit at all gives 0 blocks.


# %% tags=["answer", "q10"]
def resident(threads, registers, shared, *, card):
    """Return (blocks of a multiprocessor, occupancy)."""
    # BEGIN SOLUTION
    warps = -(-threads // 32)
    each = warps * 256 * -(-32 * registers // 256)
    blocks = min(card["blocks"], card["warps"] // warps, card["registers"] // each)
    if shared:
        blocks = min(blocks, card["shared"] // (128 * -(-shared // 128)))
    return blocks, blocks * warps / card["warps"]
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q10"]
# **Why.** Everything is handed out in whole warps: 33 threads take as much as 64. A thread with 33 registers makes a warp need 1056, rounded up to 1280. The
# scarcest of the four decides.


# %% tags=["test"]
CARD = {"registers": 65536, "shared": 228 * 1024, "warps": 64, "blocks": 32}
OTHER = {"registers": 65536, "shared": 64 * 1024, "warps": 32, "blocks": 16}


def check_resident(s, threads, registers, shared, card, right):
    got = s.resident(threads, registers, shared, card=card)
    assert got is not None and len(got) == 2, "resident must return (blocks, occupancy)"
    what = f"{threads} threads, {registers} registers, {shared} bytes"
    assert got[0] == right, f"{what}: got {got[0]} blocks, {right} fit"
    share = right * up(threads, 32) / card["warps"]
    assert math.isclose(got[1], share), (
        f"{what}: got an occupancy of {got[1]:.3f}, it is {share:.3f}"
    )


@test("q10", 1, hint="the smallest of four counts, in whole warps", hidden=False)
def plain_cases(s):
    """each of the four limits"""
    check_resident(s, 256, 32, 0, CARD, 8)
    check_resident(s, 32, 16, 0, CARD, 32)
    check_resident(s, 256, 128, 0, CARD, 2)
    check_resident(s, 128, 32, 32 * 1024, OTHER, 2)


@test("q10", 1, hint="33 threads are two warps", hidden=False)
def whole_warps(s):
    """threads that are no multiple of 32"""
    check_resident(s, 33, 16, 0, OTHER, 16)
    check_resident(s, 700, 40, 0, CARD, 2)


@test("q10", 1, hint="32 · 33 registers are rounded up to 1280", hidden=True)
def portions(s):
    """registers and shared memory in portions"""
    check_resident(s, 512, 41, 0, CARD, 2)
    check_resident(s, 64, 16, 65, {**OTHER, "shared": 1024}, 8)
    check_resident(s, 64, 16, 70_000, OTHER, 0)


# %% tags=["wrong", "q10"]
# expect: threads, 16 registers, 0 bytes
def resident(threads, registers, shared, *, card):
    warps = threads / 32
    each = 32 * warps * registers
    blocks = min(card["blocks"], card["warps"] // warps, card["registers"] // each)
    if shared:
        blocks = min(blocks, card["shared"] // (128 * -(-shared // 128)))
    return int(blocks), blocks * warps / card["warps"]


# %% tags=["wrong", "q10"]
# expect: rounded up to 1280
def resident(threads, registers, shared, *, card):
    warps = -(-threads // 32)
    blocks = min(
        card["blocks"], card["warps"] // warps, card["registers"] // (32 * warps * registers)
    )
    if shared:
        blocks = min(blocks, card["shared"] // shared)
    return blocks, blocks * warps / card["warps"]


# %% tags=["wrong", "q10"]
# expect: the smallest of four counts
def resident(threads, registers, shared, *, card):
    warps = -(-threads // 32)
    each = warps * 256 * -(-32 * registers // 256)
    blocks = min(card["warps"] // warps, card["registers"] // each)
    if shared:
        blocks = min(blocks, card["shared"] // (128 * -(-shared // 128)))
    return blocks, blocks * warps / card["warps"]


# %% [markdown] tags=["q11", "outcome-3"]
# ## Question 11 · How many lanes for a row?
#
# Rows of different lengths are added up, as in 14.5. There every lane had a row. Now `lanes` neighbouring lanes (1, 2, 4, 8, 16 or 32) share one: each takes every `lanes`-th number of it, so a row of length
# $n$ needs $\lceil n / \text{lanes} \rceil$ rounds of the loop, and a warp has 32 / `lanes` rows, one after the other as they come. The warp goes on until its longest row is done. (The last warp may have fewer rows. What the lanes do to join their sums
# is left out.) Write, for an integer array `lengths` with at least one number above 0,
#
# - `rounds(lengths, lanes)`: the rounds of all warps together;
# - `share(lengths, lanes)`: of all lanes in all these rounds, the share that adds a number;
# - `best(lengths)`: the number of lanes with the fewest rounds, the smallest such number if several are equal.


# %% tags=["answer", "q11"]
def rounds(lengths, lanes):
    """Return the rounds of all warps, a whole number."""
    # BEGIN SOLUTION
    each = -(-lengths // lanes)
    return sum(int(each[i : i + 32 // lanes].max()) for i in range(0, len(each), 32 // lanes))
    # END SOLUTION


def share(lengths, lanes):
    """Return the share of lanes at work."""
    # BEGIN SOLUTION
    return lengths.sum() / (32 * rounds(lengths, lanes))
    # END SOLUTION


def best(lengths):
    """Return 1, 2, 4, 8, 16 or 32."""
    # BEGIN SOLUTION
    return min((1, 2, 4, 8, 16, 32), key=lambda lanes: rounds(lengths, lanes))
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q11"]
# **Why.** It is (14.6) with rounds in place of steps: a warp takes as long as its longest row. Few lanes a row: rows of different length wait for each other. Many lanes a row: the last round of each row is
# not full, and rows shorter than `lanes` leave lanes idle. So the best number lies in between, and depends on the lengths; Python's `min` returns the first of equal ones. (Many lanes a row
# have another virtue that is not counted here: the lanes read neighbours.)


# %% tags=["test"]
def rounds_of(lengths, lanes):
    warps = [lengths[i : i + 32 // lanes] for i in range(0, len(lengths), 32 // lanes)]
    return sum(max(math.ceil(n / lanes) for n in warp.tolist()) for warp in warps)


def check_rounds(s, lengths, lanes):
    got = s.rounds(lengths.copy(), lanes)
    what = f"{len(lengths)} rows of up to {lengths.max()} numbers, {lanes} lanes a row"
    assert got is not None, "rounds returned None: is there a return?"
    right = rounds_of(lengths, lanes)
    full = len(lengths) // (32 // lanes) * (32 // lanes)
    assert got == right or full == len(lengths) or got != rounds_of(lengths[:full], lanes), (
        "the last warp is missing: it may have fewer rows than the others"
    )
    whole = (
        sum(max(w) // lanes for w in np.split(lengths[:full], max(1, full * lanes // 32)))
        if full
        else -1
    )
    assert got == right or got != whole, "a row needs a round for what is left over: round up"
    assert got == right, f"{what}: got {got} rounds, {right} is right"


@test("q11", 1, hint="a warp goes on until its longest row is done", hidden=False)
def rounds_of_all_warps(s):
    """rounds of all warps"""
    lengths = rng(1).integers(1, 60, 64)
    for lanes in (1, 4, 32):
        check_rounds(s, lengths, lanes)
    check_rounds(s, rng(2).integers(1, 40, 45), 2)


@test(
    "q11", 1, hint="each lane adds as many numbers as there are; idle are all others", hidden=False
)
def share_at_work(s):
    """the share of lanes at work"""
    for seed, lanes in ((3, 1), (4, 8), (5, 32)):
        lengths = rng(seed).integers(1, 50, 64)
        got, right = s.share(lengths, lanes), lengths.sum() / (32 * rounds_of(lengths, lanes))
        assert got is not None, "share returned None: is there a return?"
        assert not math.isclose(got, right * 32 / lanes) or lanes == 32, (
            "a warp has 32 lanes, however many share a row"
        )
        assert math.isclose(got, right), f"{lanes} lanes a row: got {got:.3f}, {right:.3f} is right"


@test("q11", 1, hint="of equal ones the smallest number of lanes", hidden=True)
def best_number_of_lanes(s):
    """the best number of lanes"""
    for lengths in (
        np.full(64, 7),
        rng(6).integers(1, 5, 100),
        rng(7).integers(1, 400, 70),
        np.array([1, 1, 90, 1]),
        np.array([5]),
    ):
        counts = {lanes: rounds_of(lengths, lanes) for lanes in (1, 2, 4, 8, 16, 32)}
        right, got = min(counts, key=counts.get), s.best(lengths)
        assert got is not None, "best returned None: is there a return?"
        assert got == right, f"{len(lengths)} rows: got {got}, but the rounds are {counts}"


@test("q11", 1, hint="a row of no numbers needs no round; the last warp may be short", hidden=True)
def odd_rows(s):
    """empty rows and short last warps"""
    lengths = rng(8).integers(0, 9, 37) * rng(9).integers(0, 2, 37) + (np.arange(37) == 20)
    for lanes in (1, 2, 8, 16):
        check_rounds(s, lengths, lanes)


# %% tags=["wrong", "q11"]
# expect: until its longest row is done
def rounds(lengths, lanes):
    each = -(-lengths // lanes)
    return -(-int(each.sum()) * lanes // 32)


def share(lengths, lanes):
    return lengths.sum() / (32 * rounds(lengths, lanes))


def best(lengths):
    return min((1, 2, 4, 8, 16, 32), key=lambda lanes: rounds(lengths, lanes))


# %% tags=["wrong", "q11"]
# expect: the last warp is missing
def rounds(lengths, lanes):
    each = -(-lengths // lanes)
    rows = 32 // lanes
    return sum(int(each[i * rows : i * rows + rows].max()) for i in range(len(each) // rows))


def share(lengths, lanes):
    return lengths.sum() / (32 * max(rounds(lengths, lanes), 1))


def best(lengths):
    return min((1, 2, 4, 8, 16, 32), key=lambda lanes: rounds(lengths, lanes))


# %% tags=["wrong", "q11"]
# expect: round up
def rounds(lengths, lanes):
    rows = 32 // lanes
    return sum(int(lengths[i : i + rows].max()) // lanes for i in range(0, len(lengths), rows))


def share(lengths, lanes):
    return lengths.sum() / (32 * max(rounds(lengths, lanes), 1))


def best(lengths):
    return min((1, 2, 4, 8, 16, 32), key=lambda lanes: rounds(lengths, lanes))


# %% tags=["wrong", "q11"]
# expect: a warp has 32 lanes
def rounds(lengths, lanes):
    each = -(-lengths // lanes)
    return sum(int(each[i : i + 32 // lanes].max()) for i in range(0, len(each), 32 // lanes))


def share(lengths, lanes):
    return lengths.sum() / (lanes * rounds(lengths, lanes))


def best(lengths):
    return min((1, 2, 4, 8, 16, 32), key=lambda lanes: rounds(lengths, lanes))


# %% tags=["wrong", "q11"]
# expect: of equal ones the smallest
def rounds(lengths, lanes):
    each = -(-lengths // lanes)
    return sum(int(each[i : i + 32 // lanes].max()) for i in range(0, len(each), 32 // lanes))


def share(lengths, lanes):
    return lengths.sum() / (32 * rounds(lengths, lanes))


def best(lengths):
    return min((32, 16, 8, 4, 2, 1), key=lambda lanes: rounds(lengths, lanes))


# %% [markdown] tags=["q12", "outcome-1", "outcome-2"]
# ## Question 12 · The gradient of an embedding
#
# Write `scatter(int tokens, int width, const int* ids, const float* dy, float* table)`, which adds row $t$ of `dy` (tokens × width) to row
# `ids[t]` of `table`. The table starts at zero; ids repeat, and an id of −1 (padding) adds nothing. Blocks have 128 threads and each of their four warps takes one token; there
# are ⌈tokens / 4⌉ blocks. Reads of `dy` must be coalesced.

# %% tags=["answer", "q12"]
# BEGIN SOLUTION
# BLANK: scatter = r"""
# BLANK: __global__ void scatter(int tokens, int width, const int* ids, const float* dy, float* table) {
# BLANK:   // your code here
# BLANK: }
# BLANK: """
scatter = r"""
__global__ void scatter(int tokens, int width, const int* ids, const float* dy, float* table) {
  int t = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (t >= tokens || ids[t] < 0) return;
  for (int i = lane; i < width; i += 32) atomicAdd(&table[ids[t] * width + i], dy[t * width + i]);
}
"""
# END SOLUTION

# %% [markdown] tags=["reasoning", "q12"]
# **Why.** Two tokens with the same word meet in the same row of the table, so the addition must be atomic. The lanes of a warp take neighbouring columns: 4
# sectors a request for `dy`, and atomics that never meet within a warp.


# %% tags=["test"]
def run_scatter(s, tokens, width, words, padding=False):
    ids = (rng(tokens).zipf(1.6, tokens) % words).astype(np.int32)
    if padding:
        ids[::3] = -1
    dy = normal(width, tokens, width)
    run = kernel(
        s,
        s.scatter,
        "scatter",
        up(tokens, 4),
        128,
        tokens,
        width,
        ids,
        dy,
        np.zeros((words, width), np.float32),
    )
    right = np.zeros((words, width))
    np.add.at(right, ids[ids >= 0], dy[ids >= 0])
    table = run["table"]
    assert table.any() or not right.any(), "the table is still zero"
    plain = np.zeros((words, width))
    plain[ids[ids >= 0]] = dy[ids >= 0]
    assert not close(table, plain) or close(right, plain), (
        "the last token of a word has overwritten the others"
    )
    assert close(table, right, atol=1e-4), f"{tokens} tokens of {width} numbers: the sums are wrong"
    return run


@test("q12", 1, hint="repeated ids meet in one row: atomicAdd", hidden=False)
def sums_of_rows(s):
    """right on repeated ids"""
    run_scatter(s, 13, 45, 5)


@test("q12", 1, hint="the lanes of a warp take neighbouring columns of one token", hidden=False)
def traffic_of_the_scatter(s):
    """dy is read coalesced"""
    run = run_scatter(s, 16, 64, 6)
    each = run.count("dy", "read", "sectors") / run.count("dy", "read")
    assert each <= 4.1, f"a request for dy touches {each:.0f} sectors; 4 are enough"


@test("q12", 1, hint="an id of -1 would be a row before the table", hidden=True)
def padding_and_small_sizes(s):
    """padding, one token, few columns"""
    run_scatter(s, 14, 33, 4, padding=True)
    run_scatter(s, 1, 3, 2)
    run_scatter(s, 5, 32, 1)


# %% tags=["wrong", "q12"]
# expect: has a race
scatter = r"""
__global__ void scatter(int tokens, int width, const int* ids, const float* dy, float* table) {
  int t = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (t >= tokens || ids[t] < 0) return;
  for (int i = lane; i < width; i += 32) table[ids[t] * width + i] += dy[t * width + i];
}
"""

# %% tags=["wrong", "q12"]
# expect: sectors; 4 are enough
scatter = r"""
__global__ void scatter(int tokens, int width, const int* ids, const float* dy, float* table) {
  int t = blockIdx.x * blockDim.x + threadIdx.x;
  if (t >= tokens || ids[t] < 0) return;
  for (int i = 0; i < width; i++) atomicAdd(&table[ids[t] * width + i], dy[t * width + i]);
}
"""

# %% tags=["wrong", "q12"]
# expect: an id of -1
scatter = r"""
__global__ void scatter(int tokens, int width, const int* ids, const float* dy, float* table) {
  int t = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (t >= tokens) return;
  for (int i = lane; i < width; i += 32) atomicAdd(&table[ids[t] * width + i], dy[t * width + i]);
}
"""

# %% [markdown] tags=["q13", "outcome-5"]
# ## Question 13 · AdamW in one kernel
#
# One step of AdamW (chapter 4) for $n$ parameters:
#
# $m \leftarrow \beta_1 m + (1 - \beta_1) g$, $\; v \leftarrow \beta_2 v + (1-\beta_2) g^2$,
# $\; p \leftarrow p - \alpha\lambda p - \alpha\, \dfrac{m / c_1}{\sqrt{v / c_2} + \epsilon}$, with the old $p$ on the right.
#
# Write `adamw(int n, float lr, float decay, float beta1, float beta2, float eps, float c1, float c2, float* p, const float* g, float* m, float* v)`. The
# corrections $c_1 = 1 - \beta_1^t$ and $c_2 = 1 - \beta_2^t$ are given. Blocks of 128, one thread a parameter. Each of the four arrays may be read *once*, and `p`, `m`, `v` written once: 7
# numbers a parameter.

# %% tags=["answer", "q13"]
# BEGIN SOLUTION
# BLANK: adamw = r"""
# BLANK: __global__ void adamw(int n, float lr, float decay, float beta1, float beta2, float eps, float c1, float c2,
# BLANK:                       float* p, const float* g, float* m, float* v) {
# BLANK:   // your code here
# BLANK: }
# BLANK: """
adamw = r"""
__global__ void adamw(int n, float lr, float decay, float beta1, float beta2, float eps, float c1, float c2,
                      float* p, const float* g, float* m, float* v) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float p1 = p[i], g1 = g[i];
  float m1 = beta1 * m[i] + (1.f - beta1) * g1, v1 = beta2 * v[i] + (1.f - beta2) * g1 * g1;
  p[i] = p1 - lr * decay * p1 - lr * (m1 / c1) / (sqrtf(v1 / c2) + eps);
  m[i] = m1, v[i] = v1;
}
"""
# END SOLUTION

# %% [markdown] tags=["reasoning", "q13"]
# **Why.** Everything is read into registers first and written at the end. The decay is proportional to $p$ itself, not added to the gradient: with Adam the two differ
# (chapter 4), because what goes through $m / \sqrt v$ is rescaled.


# %% tags=["test"]
def run_adamw(s, n, step, decay=0.1):
    p, g, m = normal(n, n), normal(n + 1, n), 0.1 * normal(n + 2, n)
    v = 0.01 * normal(n + 3, n) ** 2
    lr, b1, b2, eps = 0.01, 0.9, 0.99, 1e-6
    c1, c2 = 1 - b1**step, 1 - b2**step
    run = kernel(
        s,
        s.adamw,
        "adamw",
        up(n, 128),
        128,
        n,
        lr,
        decay,
        b1,
        b2,
        eps,
        c1,
        c2,
        p,
        g,
        m.astype(np.float32),
        v.astype(np.float32),
    )

    def right(g, decay):
        m1, v1 = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        return p - lr * decay * p - lr * (m1 / c1) / (np.sqrt(v1 / c2) + eps), m1, v1

    expected = right(g, decay)
    assert not np.array_equal(run["p"], p), "p has not changed"
    assert decay == 0 or not close(run["p"], right(g + decay * p, 0)[0]), (
        "the decay went into the gradient: that is Adam with L2, not AdamW"
    )
    uncorrected = p - lr * decay * p - lr * expected[1] / (np.sqrt(expected[2]) + eps)
    assert step > 100 or not close(run["p"], uncorrected), "the corrections c1 and c2 are missing"
    for name, value in zip("mvp", (expected[1], expected[2], expected[0]), strict=True):
        assert close(run[name], value, atol=1e-6), f"n = {n}, step {step}: {name} is wrong"
    return run


@test("q13", 1, hint="m and v first, then p from their new values", hidden=False)
def step_of_adamw(s):
    """the step is right"""
    run_adamw(s, 200, 3)


@test("q13", 1, hint="keep numbers in registers: read each once, write at the end", hidden=False)
def traffic_of_adamw(s):
    """7 numbers a parameter"""
    run = run_adamw(s, 256, 5)
    numbers = run.sectors * 8 / 256
    assert numbers <= 7, f"{numbers:g} numbers a parameter move; 7 are enough"


@test(
    "q13",
    1,
    hint="the last block has threads without a parameter; late steps have c1 and c2 near 1",
    hidden=True,
)
def step_of_adamw_elsewhere(s):
    """other sizes and steps"""
    run_adamw(s, 1, 2)
    run_adamw(s, 129, 5000, decay=0.0)


# %% tags=["wrong", "q13"]
# expect: that is Adam with L2
adamw = r"""
__global__ void adamw(int n, float lr, float decay, float beta1, float beta2, float eps, float c1, float c2,
                      float* p, const float* g, float* m, float* v) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float p1 = p[i], g1 = g[i] + decay * p1;
  float m1 = beta1 * m[i] + (1.f - beta1) * g1, v1 = beta2 * v[i] + (1.f - beta2) * g1 * g1;
  p[i] = p1 - lr * (m1 / c1) / (sqrtf(v1 / c2) + eps);
  m[i] = m1, v[i] = v1;
}
"""

# %% tags=["wrong", "q13"]
# expect: 7 are enough
adamw = r"""
__global__ void adamw(int n, float lr, float decay, float beta1, float beta2, float eps, float c1, float c2,
                      float* p, const float* g, float* m, float* v) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  m[i] = beta1 * m[i] + (1.f - beta1) * g[i];
  v[i] = beta2 * v[i] + (1.f - beta2) * g[i] * g[i];
  p[i] = p[i] - lr * decay * p[i];
  p[i] = p[i] - lr * (m[i] / c1) / (sqrtf(v[i] / c2) + eps);
}
"""

# %% tags=["wrong", "q13"]
# expect: the corrections c1 and c2 are missing
adamw = r"""
__global__ void adamw(int n, float lr, float decay, float beta1, float beta2, float eps, float c1, float c2,
                      float* p, const float* g, float* m, float* v) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float p1 = p[i], g1 = g[i];
  float m1 = beta1 * m[i] + (1.f - beta1) * g1, v1 = beta2 * v[i] + (1.f - beta2) * g1 * g1;
  p[i] = p1 - lr * decay * p1 - lr * m1 / (sqrtf(v1) + eps);
  m[i] = m1, v[i] = v1;
}
"""

# %% [markdown] tags=["q14", "outcome-6"]
# ## Question 14 · Several processes
#
# Write
#
# - `averaged(gradients, sizes)`: `gradients[k]` is the gradient of the *mean* loss over the `sizes[k]` samples of process $k$ (arrays of one shape; a process may have no
#   samples: then its gradient is whatever it is, also NaN). Return the gradient of the mean loss over all samples;
# - `ring_seconds(bytes, processes, bandwidth, latency)`: the time of a ring all-reduce of a vector of so many bytes: every round takes `latency` seconds
#   plus its message over `bandwidth`; the vector is cut into as many equal pieces as there are processes. One process needs no time.


# %% tags=["answer", "q14"]
def averaged(gradients, sizes):
    """Return the gradient of the mean loss over all samples."""
    # BEGIN SOLUTION
    total = sum(sizes)
    return sum(g * (n / total) for g, n in zip(gradients, sizes, strict=True) if n)
    # END SOLUTION


def ring_seconds(bytes, processes, bandwidth, latency):
    """Return the seconds that a ring all-reduce takes."""
    # BEGIN SOLUTION
    return 2 * (processes - 1) * (latency + bytes / processes / bandwidth)
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q14"]
# **Why.** The sum of all samples' gradients is $\sum_k n_k g_k$; divided by $\sum_k n_k$ it is the mean. Where all $n_k$ are equal that is the plain mean of
# (14.18). A ring has $2(K-1)$ rounds, each with one piece: the bytes hardly grow with $K$, the latencies do, which is why small vectors are joined before
# they are sent.


# %% tags=["test"]
@test("q14", 1, hint="weigh each gradient by the number of its samples", hidden=False)
def uneven_shares(s):
    """shares of different size"""
    gradients = [rng(k).normal(size=(2, 3)) for k in range(3)]
    for sizes in ((8, 8, 8), (8, 8, 5), (1, 30, 2)):
        got = s.averaged(gradients, list(sizes))
        assert got is not None, "averaged returned None: is there a return?"
        right = np.average(gradients, axis=0, weights=sizes)
        plain = np.mean(gradients, axis=0)
        assert not np.allclose(got, plain) or np.allclose(right, plain), (
            f"samples {sizes}: the mean of means is not the mean"
        )
        assert np.allclose(got, right), f"samples {sizes}: not the gradient of the mean loss"


@test("q14", 1, hint="0 · NaN is NaN", hidden=True)
def an_idle_process(s):
    """a process without samples"""
    gradients = [rng(1).normal(size=4), np.full(4, np.nan), rng(2).normal(size=4)]
    got = array(s.averaged(gradients, [3, 0, 6]))
    assert np.isfinite(got).all(), "a process without samples has spoilt the average: NaN"
    assert np.allclose(got, (gradients[0] + 2 * gradients[2]) / 3), (
        "not the gradient of the mean loss"
    )


@test("q14", 1, hint="2 (K - 1) rounds, each with one of K pieces", hidden=False)
def time_of_the_ring(s):
    """the time of a ring"""
    for d, k, b, latency in ((1e9, 8, 1e11, 1e-5), (4e6, 2, 1e10, 0), (1e3, 64, 1e10, 1e-5)):
        got, right = s.ring_seconds(d, k, b, latency), 2 * (k - 1) * (latency + d / k / b)
        assert got is not None, "ring_seconds returned None: is there a return?"
        assert not math.isclose(got, right / 2), (
            "half of the rounds: sums travel round, and then results do"
        )
        assert not math.isclose(got, 2 * (k - 1) * (latency + d / b)), (
            "a round sends one piece, not the whole vector"
        )
        assert math.isclose(got, right), (
            f"{d:g} bytes, {k} processes: got {got:g} s, {right:g} is right"
        )
    assert s.ring_seconds(1e9, 1, 1e11, 1e-5) == 0, "one process needs no time"


# %% tags=["wrong", "q14"]
# expect: the mean of means is not the mean
def averaged(gradients, sizes):
    return np.mean(gradients, axis=0)


def ring_seconds(bytes, processes, bandwidth, latency):
    return 2 * (processes - 1) * (latency + bytes / processes / bandwidth)


# %% tags=["wrong", "q14"]
# expect: a process without samples has spoilt
def averaged(gradients, sizes):
    return sum(n * g for g, n in zip(gradients, sizes, strict=True)) / sum(sizes)


def ring_seconds(bytes, processes, bandwidth, latency):
    return 2 * (processes - 1) * (latency + bytes / processes / bandwidth)


# %% tags=["wrong", "q14"]
# expect: half of the rounds
def averaged(gradients, sizes):
    return sum(n * g for g, n in zip(gradients, sizes, strict=True) if n) / sum(sizes)


def ring_seconds(bytes, processes, bandwidth, latency):
    return (processes - 1) * (latency + bytes / processes / bandwidth)


# %% tags=["wrong", "q14"]
# expect: a round sends one piece
def averaged(gradients, sizes):
    return sum(n * g for g, n in zip(gradients, sizes, strict=True) if n) / sum(sizes)


def ring_seconds(bytes, processes, bandwidth, latency):
    return 2 * (processes - 1) * (latency + bytes / bandwidth)


# %% [markdown] tags=["q15", "outcome-5", "outcome-6"]
# ## Question 15 · Causal attention in one kernel (challenge)
#
# Write `causal(int n, float scale, const float* q, const float* k, const float* v, float* o)`: attention of $n$ positions with vectors of 32 numbers, one head;
# position $i$ looks at positions $0 \dots i$ only. Scores are `scale` times the inner products; they may be huge. Blocks have (32, 8) threads: a warp a query, eight queries a block,
# ⌈n / 8⌉ blocks. No table of scores: nothing but `o` may be written to global memory, each entry once, and a block may ask for each key and each value that it needs at most once (and for the
# whole tile of 32 around it), coalesced, and for no tile that all its queries leave out. How `q` is read is up to you: one number for all lanes, as in the chapter's kernel, will do.
#
# (The chapter's `attention`, in 14.12, is the pattern. It has no mask, and four queries a block. Watch the tiles in which a query sees *no* key.)
#
# From here it goes on: fewer fetches by more queries a block, results of several queries in registers, 16 bytes a load, tensor cores. `attention.cu` of the library climbs on.

# %% tags=["answer", "q15"]
# BEGIN SOLUTION
# BLANK: causal = r"""
# BLANK: __global__ void causal(int n, float scale, const float* q, const float* k, const float* v, float* o) {
# BLANK:   // your code here
# BLANK: }
# BLANK: """
causal = r"""
__device__ float warp_max(float v) {
  for (int bit = 16; bit > 0; bit /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, bit));
  return v;
}
__device__ float warp_sum(float v) {
  for (int bit = 16; bit > 0; bit /= 2) v += __shfl_xor_sync(0xffffffffu, v, bit);
  return v;
}
__global__ void causal(int n, float scale, const float* q, const float* k, const float* v, float* o) {
  __shared__ float ks[32][33], vs[32][33];
  int lane = threadIdx.x, row = blockIdx.x * 8 + threadIdx.y, end = min((int)blockIdx.x * 8 + 8, n);
  float query = row < n ? q[row * 32 + lane] : 0.f, m = -1e30f, d = 0.f, a = 0.f;
  for (int first = 0; first < end; first += 32) {
    for (int j = threadIdx.y; j < 32; j += 8) {
      bool inside = first + j < n;
      ks[j][lane] = inside ? k[(first + j) * 32 + lane] : 0.f;
      vs[j][lane] = inside ? v[(first + j) * 32 + lane] : 0.f;
    }
    __syncthreads();
    float score = 0.f;
    for (int j = 0; j < 32; j++) score += __shfl_sync(0xffffffffu, query, j) * ks[lane][j];
    bool seen = first + lane <= row && first + lane < n;
    float larger = fmaxf(m, warp_max(seen ? score * scale : -1e30f));
    float weight = seen ? expf(score * scale - larger) : 0.f, shrink = expf(m - larger);
    d = d * shrink + warp_sum(weight);
    a *= shrink;
    for (int j = 0; j < 32; j++) a += __shfl_sync(0xffffffffu, weight, j) * vs[j][lane];
    m = larger;
    __syncthreads();
  }
  if (row < n) o[row * 32 + lane] = a / d;
}
"""
# END SOLUTION

# %% [markdown] tags=["reasoning", "q15"]
# **Why.** A lane has a key for the scores and a column for the output; the weights go from the first role to the second by shuffles. Tiles beyond the last query of the block are never fetched, which
# halves the work. A masked key gets the weight 0 itself, not only a very low score: in a tile where *all* keys are masked for a query, the lowest score would be the maximum and $e^0 = 1$.


# %% tags=["test"]
def run_causal(s, n, size=1.0):
    q, k, v = (size * normal(n, n, 32), normal(n + 1, n, 32), normal(n + 2, n, 32))
    scale = 32**-0.5
    run = kernel(s, s.causal, "causal", up(n, 8), (32, 8), n, scale, q, k, v, nans(n, 32))
    o = run["o"]
    scores = scale * (q.astype(np.float64) @ k.T)

    def outputs(scores):
        e = np.exp(scores - scores.max(axis=1, keepdims=True))
        return (e / e.sum(axis=1, keepdims=True)) @ v

    unwritten(o, "o")
    right = outputs(np.where(np.tri(n, dtype=bool), scores, -np.inf))
    assert n == 1 or not close(o, outputs(scores), atol=1e-3), (
        "every position looks at all others: where is the mask?"
    )
    if n > 1:
        strict = outputs(
            np.where(np.tri(n, k=-1, dtype=bool) | (np.arange(n) == 0), scores, -np.inf)
        )
        assert not close(o[1:], strict[1:], atol=1e-3), "position i must look at itself as well"
    assert close(o, right, atol=1e-3), (
        f"n = {n}: the first wrong row is {np.flatnonzero(~np.isclose(o, right, atol=1e-3).all(1))[0]}"
    )
    return run


@test("q15", 1, hint="key j counts for query i when j <= i", hidden=False)
def values_of_causal_attention(s):
    """right on awkward sizes"""
    run_causal(s, 21)
    run_causal(s, 45)


@test(
    "q15",
    1,
    hint="tiles of 32 keys and values in shared memory, for all queries of the block",
    hidden=False,
)
def traffic_of_causal_attention(s):
    """keys and values are fetched once a block, and only outputs are written"""
    run = run_causal(s, 64)
    enough = sum(
        up(8 * (b + 1), 32) * 32 * 4 for b in range(8)
    )  # sectors: tiles up to the last query
    for name in "kv":
        sectors = run.count(name, "read", "sectors")
        assert sectors <= enough, (
            f"{sectors} sectors of {name}; {enough} are enough with tiles for a block"
        )
    assert run.count("o", None, "sectors") <= 64 * 4, "o is written once and not read"


@test("q15", 1, hint="when the maximum grows, what has been summed up must shrink", hidden=True)
def huge_scores_of_causal_attention(s):
    """huge scores, one position, one tile more"""
    run_causal(s, 1)
    run_causal(s, 70, size=40.0)
    run_causal(s, 33)


# %% tags=["wrong", "q15"]
# expect: where is the mask
causal = r"""
__device__ float warp_max(float v) {
  for (int bit = 16; bit > 0; bit /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, bit));
  return v;
}
__device__ float warp_sum(float v) {
  for (int bit = 16; bit > 0; bit /= 2) v += __shfl_xor_sync(0xffffffffu, v, bit);
  return v;
}
__global__ void causal(int n, float scale, const float* q, const float* k, const float* v, float* o) {
  __shared__ float ks[32][33], vs[32][33];
  int lane = threadIdx.x, row = blockIdx.x * 8 + threadIdx.y;
  float query = row < n ? q[row * 32 + lane] : 0.f, m = -1e30f, d = 0.f, a = 0.f;
  for (int first = 0; first < n; first += 32) {
    for (int j = threadIdx.y; j < 32; j += 8) {
      bool inside = first + j < n;
      ks[j][lane] = inside ? k[(first + j) * 32 + lane] : 0.f;
      vs[j][lane] = inside ? v[(first + j) * 32 + lane] : 0.f;
    }
    __syncthreads();
    float score = 0.f;
    for (int j = 0; j < 32; j++) score += __shfl_sync(0xffffffffu, query, j) * ks[lane][j];
    bool seen = first + lane < n;
    float larger = fmaxf(m, warp_max(seen ? score * scale : -1e30f));
    float weight = seen ? expf(score * scale - larger) : 0.f, shrink = expf(m - larger);
    d = d * shrink + warp_sum(weight);
    a *= shrink;
    for (int j = 0; j < 32; j++) a += __shfl_sync(0xffffffffu, weight, j) * vs[j][lane];
    m = larger;
    __syncthreads();
  }
  if (row < n) o[row * 32 + lane] = a / d;
}
"""

# %% tags=["wrong", "q15"]
# expect: are enough with tiles for a block
causal = r"""
__global__ void causal(int n, float scale, const float* q, const float* k, const float* v, float* o) {
  int lane = threadIdx.x, row = blockIdx.x * 8 + threadIdx.y;
  if (row >= n) return;
  float m = -1e30f, d = 0.f, a = 0.f;
  for (int j = 0; j <= row; j++) {
    float score = q[row * 32 + lane] * k[j * 32 + lane];
    for (int bit = 16; bit > 0; bit /= 2) score += __shfl_xor_sync(0xffffffffu, score, bit);
    float larger = fmaxf(m, score * scale), weight = expf(score * scale - larger), shrink = expf(m - larger);
    d = d * shrink + weight;
    a = a * shrink + weight * v[j * 32 + lane];
    m = larger;
  }
  o[row * 32 + lane] = a / d;
}
"""

# %% tags=["wrong", "q15"]
# expect: has a race
causal = r"""
__device__ float warp_max(float v) {
  for (int bit = 16; bit > 0; bit /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, bit));
  return v;
}
__device__ float warp_sum(float v) {
  for (int bit = 16; bit > 0; bit /= 2) v += __shfl_xor_sync(0xffffffffu, v, bit);
  return v;
}
__global__ void causal(int n, float scale, const float* q, const float* k, const float* v, float* o) {
  __shared__ float ks[32][33], vs[32][33];
  int lane = threadIdx.x, row = blockIdx.x * 8 + threadIdx.y, end = min((int)blockIdx.x * 8 + 8, n);
  float query = row < n ? q[row * 32 + lane] : 0.f, m = -1e30f, d = 0.f, a = 0.f;
  for (int first = 0; first < end; first += 32) {
    for (int j = threadIdx.y; j < 32; j += 8) {
      bool inside = first + j < n;
      ks[j][lane] = inside ? k[(first + j) * 32 + lane] : 0.f;
      vs[j][lane] = inside ? v[(first + j) * 32 + lane] : 0.f;
    }
    __syncthreads();
    float score = 0.f;
    for (int j = 0; j < 32; j++) score += __shfl_sync(0xffffffffu, query, j) * ks[lane][j];
    bool seen = first + lane <= row && first + lane < n;
    float larger = fmaxf(m, warp_max(seen ? score * scale : -1e30f));
    float weight = seen ? expf(score * scale - larger) : 0.f, shrink = expf(m - larger);
    d = d * shrink + warp_sum(weight);
    a *= shrink;
    for (int j = 0; j < 32; j++) a += __shfl_sync(0xffffffffu, weight, j) * vs[j][lane];
    m = larger;
  }
  if (row < n) o[row * 32 + lane] = a / d;
}
"""

# %% tags=["wrong", "q15"]
# expect: what has been summed up must shrink
causal = r"""
__device__ float warp_max(float v) {
  for (int bit = 16; bit > 0; bit /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, bit));
  return v;
}
__device__ float warp_sum(float v) {
  for (int bit = 16; bit > 0; bit /= 2) v += __shfl_xor_sync(0xffffffffu, v, bit);
  return v;
}
__global__ void causal(int n, float scale, const float* q, const float* k, const float* v, float* o) {
  __shared__ float ks[32][33], vs[32][33];
  int lane = threadIdx.x, row = blockIdx.x * 8 + threadIdx.y, end = min((int)blockIdx.x * 8 + 8, n);
  float query = row < n ? q[row * 32 + lane] : 0.f, m = -1e30f, d = 0.f, a = 0.f;
  for (int first = 0; first < end; first += 32) {
    for (int j = threadIdx.y; j < 32; j += 8) {
      bool inside = first + j < n;
      ks[j][lane] = inside ? k[(first + j) * 32 + lane] : 0.f;
      vs[j][lane] = inside ? v[(first + j) * 32 + lane] : 0.f;
    }
    __syncthreads();
    float score = 0.f;
    for (int j = 0; j < 32; j++) score += __shfl_sync(0xffffffffu, query, j) * ks[lane][j];
    bool seen = first + lane <= row && first + lane < n;
    m = fmaxf(m, warp_max(seen ? score * scale : -1e30f));
    float weight = seen ? expf(score * scale - m) : 0.f;
    d += warp_sum(weight);
    for (int j = 0; j < 32; j++) a += __shfl_sync(0xffffffffu, weight, j) * vs[j][lane];
    __syncthreads();
  }
  if (row < n) o[row * 32 + lane] = a / d;
}
"""
