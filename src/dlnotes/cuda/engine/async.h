// What runs beside the threads: copies (cp.async, TMA), mbarriers, and the tensor cores' mma and wgmma.
// A copy or a wgmma is queued when it is started and carried out when it is waited for, the latest that
// a GPU may take: what is read too early is poison or the tile before, never by luck what it should be.
// A GPU may be earlier. Checked mode therefore treats the destination of a copy as written, and what a
// wgmma reads as read, from the start to the wait (watch.h).
// Not modelled: fence_proxy_async, and any wgmma_fence of a warp but its first; layouts of wgmma other than
// the swizzle of 128 bytes; clusters and multicast; a product's rounding inside the tensor core.
#include "tensor_cores.h"

namespace engine {
static const uint32_t WHOLE_WARP = 0xffffffffu;
static const int GROUP = 128, WARPS = MOST_THREADS / WARP;

// "shared 'tile'[12]" for an address in shared memory
struct SharedName {
  char text[160];
  SharedName(const void* p) {
    const size_t offset = (size_t)((const char*)p - arena);
    snprintf(text, sizeof text, "an address that is not in shared memory");
    for (int i = 0; i < variable_count && (const char*)p >= arena && offset < ARENA; i++) {
      const Variable& v = variables[i];
      if (offset >= v.start && offset < v.start + v.bytes)
        snprintf(text, sizeof text, "shared '%s'[%zu]", v.name, (offset - v.start) / (size_t)v.item);
    }
  }
};
static bool is_shared(const void* p) { return (const char*)p >= arena && (const char*)p < arena + ARENA; }
uint32_t shared_address(const void* p, const char* file, int line) {
  if (!is_shared(p)) fail(file, line, "out of bounds: the address of shared memory that this needs is not one");
  return (uint32_t)((const char*)p - arena);
}
static void need_warp(uint32_t mask, const char* what) {
  if (mask != WHOLE_WARP) fail(0, 0, "divergent warp: %s needs all 32 lanes of a warp, and gets those of the mask %08x", what, mask);
}

// ---- cp.async --------------------------------------------------------------------------------------
struct Copy { char* to; const char* from; int bytes; uint32_t group; const char* file; int line; };
struct Copies { Copy* queue; int count, room; uint32_t group; };
static Copies copies[MOST_THREADS];  // of each thread

void copy_16(void* shared, const void* global, int bytes, const char* file, int line) {
  if (bytes < 0 || bytes > 16) fail(file, line, "misaligned: cp_async_16 copies 0 to 16 bytes, not %d", bytes);
  if (!is_shared(shared)) fail(file, line, "out of bounds: cp_async_16 writes to shared memory, and this is not there");
  if (is_shared(global)) fail(file, line, "out of bounds: cp_async_16 reads global memory, and this is %s", SharedName(global).text);
  unsigned char value[16] = {};
  watch_source((const char*)global, bytes, 16, file, line);
  memcpy(value, global, (size_t)bytes);
  watch_issue((char*)shared, 16, 16, value, CP_ASYNC, file, line);
  Copies& mine = copies[current];
  if (mine.count == mine.room) {
    mine.room = 2 * mine.room + 16;
    mine.queue = (Copy*)realloc(mine.queue, (size_t)mine.room * sizeof(Copy));
    if (!mine.queue) fail(file, line, "no memory for the copies under way");
  }
  mine.queue[mine.count++] = Copy{(char*)shared, (const char*)global, bytes, mine.group, file, line};
}
void copy_commit() { copies[current].group++; }
void copy_wait(int keep) {
  Copies& mine = copies[current];
  int left = 0;
  for (int i = 0; i < mine.count; i++) {
    const Copy& c = mine.queue[i];
    if (c.group + (uint32_t)keep >= mine.group) {
      mine.queue[left++] = c;
      continue;
    }
    memcpy(c.to, c.from, (size_t)c.bytes);
    memset(c.to + c.bytes, 0, (size_t)(16 - c.bytes));
    watch_landed(c.to, 16, current);
  }
  mine.count = left;
}

// ---- matrices from shared memory, and their products in registers ------------------------------------
struct Rows { uint32_t* r; const void* row; };
template <bool TRANSPOSED> static void deal_matrices(void** lanes, unsigned mask) {
  need_warp(mask, fibers[current].what);
  for (int matrix = 0; matrix < 4; matrix++)
    for (int l = 0; l < WARP; l++) {
      uint32_t pair = 0;
      for (int half = 0; half < 2; half++) {
        const int row = TRANSPOSED ? l % 4 * 2 + half : l / 4, column = TRANSPOSED ? l / 4 : l % 4 * 2 + half;
        uint16_t entry;
        memcpy(&entry, (const char*)((Rows*)lanes[8 * matrix + row])->row + 2 * column, 2);
        pair |= (uint32_t)entry << 16 * half;
      }
      ((Rows*)lanes[l])->r[matrix] = pair;
    }
}
void load_matrices(uint32_t* r, const void* row, bool transposed, const char* what, const char* file, int line) {
  if (!is_shared(row)) fail(file, line, "out of bounds: %s reads shared memory, and this row is not there", what);
  touch(row, 16, READ, file, line);
  Rows rows = {r, row};
  warp_meeting(WHOLE_WARP, &rows, transposed ? deal_matrices<true> : deal_matrices<false>, what, file, line);
}

struct Fragments { float* d; const uint32_t* a; uint32_t b[2]; };
static float low(uint32_t pair) { return engine_from_bfloat16((uint16_t)pair); }
static float high(uint32_t pair) { return engine_from_bfloat16((uint16_t)(pair >> 16)); }
static void multiply_fragments(void** lanes, unsigned mask) {
  need_warp(mask, "mma");
  float A[16][16], B[16][8];
  for (int l = 0; l < WARP; l++) {
    const Fragments& f = *(Fragments*)lanes[l];
    const int g = l / 4, q = l % 4 * 2;
    for (int i = 0; i < 4; i++) {
      float* a = &A[g + i % 2 * 8][q + i / 2 * 8];
      a[0] = low(f.a[i]), a[1] = high(f.a[i]);
    }
    for (int i = 0; i < 2; i++) B[q + 8 * i][g] = low(f.b[i]), B[q + 8 * i + 1][g] = high(f.b[i]);
  }
  for (int l = 0; l < WARP; l++) {
    const Fragments& f = *(Fragments*)lanes[l];
    for (int i = 0; i < 4; i++) {
      const int row = l / 4 + i / 2 * 8, column = l % 4 * 2 + i % 2;
      float sum = 0;
      for (int k = 0; k < 16; k++) sum += A[row][k] * B[k][column];
      f.d[i] += sum;
    }
  }
}
void mma(float* d, const uint32_t* a, uint32_t b0, uint32_t b1, const char* file, int line) {
  Fragments mine = {d, a, {b0, b1}};
  warp_meeting(WHOLE_WARP, &mine, multiply_fragments, "mma", file, line);
}

// ---- mbarriers -------------------------------------------------------------------------------------
struct Mbarrier { char* at; int arrivals, missing, by; long long bytes; uint32_t phase; bool fenced; };
static Mbarrier mbarriers[MOST_MBARRIERS];
static int mbarrier_count;

static int find_mbarrier(const uint64_t* p, const char* what, const char* file, int line) {
  for (int i = 0; i < mbarrier_count; i++)
    if (mbarriers[i].at == (const char*)p) {
      watch_mbarrier((char*)p, false, file, line);
      return i;
    }
  fail(file, line, "mbarrier: %s of %s, where none has been initialised", what, SharedName(p).text);
}
void mbarrier_init(uint64_t* p, int arrivals, const char* file, int line) {
  if (!is_shared(p)) fail(file, line, "mbarrier: mbarrier_init of an address that is not in shared memory");
  if (arrivals < 1 || arrivals >= 1 << 20) fail(file, line, "mbarrier: %d arrivals; a phase needs 1 to %d", arrivals, (1 << 20) - 1);
  for (int i = 0; i < mbarrier_count; i++)
    if (mbarriers[i].at == (char*)p) fail(file, line, "mbarrier: %s is initialised a second time", SharedName(p).text);
  if (mbarrier_count == MOST_MBARRIERS) fail(file, line, "mbarrier: more than %d in a block", MOST_MBARRIERS);
  watch_mbarrier((char*)p, true, file, line);
  mbarriers[mbarrier_count++] = Mbarrier{(char*)p, arrivals, arrivals, current, 0, 0, false};
}
void mbarrier_fence() {
  for (int i = 0; i < mbarrier_count; i++)
    if (mbarriers[i].by == current) mbarriers[i].fenced = true;
}
static void end_phase_if_complete(int i) {
  Mbarrier& b = mbarriers[i];
  if (b.missing || b.bytes) return;
  watch_phase_end(i, b.phase);
  b.phase++, b.missing = b.arrivals;
}
void mbarrier_arrive(uint64_t* p, int bytes, const char* what, const char* file, int line) {
  const int i = find_mbarrier(p, what, file, line);
  Mbarrier& b = mbarriers[i];
  if (!b.missing) fail(file, line, "mbarrier: more arrivals at %s than the %d of a phase", SharedName(p).text, b.arrivals);
  if (bytes < 0 || b.bytes + bytes >= 1 << 20) fail(file, line, "mbarrier: %s cannot expect %lld bytes, at most %d", SharedName(p).text, b.bytes + bytes, (1 << 20) - 1);
  watch_arrive(i);
  b.missing--, b.bytes += bytes;
  end_phase_if_complete(i);
}

// ---- TMA -------------------------------------------------------------------------------------------
struct Load { TensorMap map; char* to; int barrier, column, row, thread; const char* file; int line; };
static const int MOST_LOADS = 256;
static Load loads[MOST_LOADS];
static int load_count;

// The swizzle of 128 bytes: bits 4 to 6 of a shared address change places by bits 7 to 9.
static size_t swizzled(size_t offset) { return offset ^ (offset >> 7 & 7) << 4; }
static char* chunk_of_box(const TensorMap& map, char* to, uint32_t row, uint32_t chunk) {
  const size_t offset = (size_t)(to - arena) + row * map.box_columns * map.item + 16 * chunk;
  return arena + (map.swizzled ? swizzled(offset) : offset);
}
void tma_load(void* shared, const TensorMap& map, uint64_t* p, int column, int row, const char* file, int line) {
  const int aligned = map.swizzled ? 1024 : 128;
  if (!is_shared(shared)) fail(file, line, "out of bounds: tma_load_2d writes to shared memory, and this is not there");
  if (((char*)shared - arena) % aligned)
    fail(file, line, "misaligned: the tile of tma_load_2d at %s, which is not at a multiple of %d bytes", SharedName(shared).text, aligned);
  const int barrier = find_mbarrier(p, "tma_load_2d", file, line);
  if (!mbarriers[barrier].fenced)
    fail(file, line, "mbarrier: TMA does not know of %s: fence_mbarrier_init() belongs after its initialisation", SharedName(p).text);
  if (load_count == MOST_LOADS) fail(file, line, "more than %d TMA loads under way", MOST_LOADS);
  const uint32_t bytes = map.box_columns * map.item;
  for (uint32_t r = 0; r < map.box_rows; r++) {
    const long long y = (long long)row + r, first = column < 0 ? 0 : column;
    const long long end = (long long)column + map.box_columns < (long long)map.columns ? (long long)column + map.box_columns : (long long)map.columns;
    if (y >= 0 && y < (long long)map.rows && first < end)
      watch_source(map.base + (size_t)y * map.stride + (size_t)first * map.item, (int)((end - first) * map.item), (int)map.item, file, line);
    for (uint32_t c = 0; c < bytes / 16; c++) watch_issue(chunk_of_box(map, (char*)shared, r, c), 16, 16, 0, TMA, file, line);
  }
  loads[load_count++] = Load{map, (char*)shared, barrier, column, row, current, file, line};
}
static void land(const Load& load) {
  const TensorMap& map = load.map;
  const uint32_t bytes = map.box_columns * map.item, each = 16 / map.item;
  for (uint32_t r = 0; r < map.box_rows; r++)
    for (uint32_t c = 0; c < bytes / 16; c++) {
      char* to = chunk_of_box(map, load.to, r, c);
      for (uint32_t e = 0; e < each; e++) {
        const long long x = (long long)load.column + c * each + e, y = (long long)load.row + r;
        const bool inside = x >= 0 && x < (long long)map.columns && y >= 0 && y < (long long)map.rows;
        if (inside) memcpy(to + e * map.item, map.base + (size_t)y * map.stride + (size_t)x * map.item, map.item);
        else memset(to + e * map.item, 0, map.item);
      }
      watch_landed(to, 16, MOST_THREADS + load.barrier);
    }
  Mbarrier& b = mbarriers[load.barrier];
  b.bytes -= (long long)bytes * map.box_rows;
  if (b.bytes < 0 && !b.missing) {
    current = load.thread;
    fail(load.file, load.line, "mbarrier: TMA brings %s %lld bytes more than were expected", SharedName(b.at).text, -b.bytes);
  }
  end_phase_if_complete(load.barrier);
}
// Whether thread i may go on; if it may not yet, what its barrier waits for arrives now.
static bool mbarrier_ready(int i) {
  const int barrier = fibers[i].barrier;
  Mbarrier& b = mbarriers[barrier];
  if ((int)(b.phase & 1) == fibers[i].parity) {
    static Load mine[MOST_LOADS];
    int count = 0, left = 0;
    for (int l = 0; l < load_count; l++)
      if (loads[l].barrier == barrier) mine[count++] = loads[l];
      else loads[left++] = loads[l];
    load_count = left;
    for (int l = 0; l < count; l++) land(mine[l]);
  }
  if ((int)(b.phase & 1) == fibers[i].parity) return false;
  watch_acquire(i, barrier);
  return true;
}
void mbarrier_wait(uint64_t* p, int parity, const char* file, int line) {
  Fiber& f = fibers[current];
  if (parity != 0 && parity != 1) fail(file, line, "mbarrier: a phase has parity 0 or 1, not %d", parity);
  f.barrier = find_mbarrier(p, "mbarrier_wait", file, line);
  f.parity = parity, f.what = "mbarrier_wait", f.file = file, f.line = line;
  f.state = AT_MBARRIER;
  if (mbarrier_ready(current)) f.state = READY;
  else to_scheduler();
}
// "; mbarrier shared 'full'[0] lacks 1 arrivals and 0 bytes", once for each that threads wait at
static void describe_mbarriers(char* text, size_t bytes) {
  size_t n = strlen(text);
  for (int b = 0; b < mbarrier_count; b++)
    for (int i = 0; i < threads; i++)
      if (fibers[i].state == AT_MBARRIER && fibers[i].barrier == b && n + 200 < bytes) {
        n += (size_t)snprintf(text + n, bytes - n, "; mbarrier %s lacks %d arrivals and %lld bytes", SharedName(mbarriers[b].at).text,
                              mbarriers[b].missing, mbarriers[b].bytes);
        break;
      }
}

// ---- wgmma -------------------------------------------------------------------------------------------
// The registers d of a warp while products are under way: their values are here, and d holds NaN.
struct Accumulators { float* d[WARP]; float values[WARP][128]; int products; };
struct Product { Accumulators* sums; int n; uint64_t a, b; bool transpose_a, transpose_b; uint32_t group; const char* file; int line; };
static const int MOST_SUMS = 8, MOST_PRODUCTS = 64;
struct TensorCore {
  Accumulators sums[MOST_SUMS];
  Product products[MOST_PRODUCTS];
  int count;
  uint32_t group;
  bool fenced;
};
static TensorCore* tensor_cores;  // of each warp

// Where a descriptor's operand has entry (i, k): i along the result, k along the sum.
static char* operand(uint64_t descriptor, bool transposed, int i, int k) {
  const size_t start = (size_t)(descriptor & 0x3fff) << 4, leading = (size_t)(descriptor >> 16 & 0x3fff) << 4;
  const size_t stride = (size_t)(descriptor >> 32 & 0x3fff) << 4;
  return arena + swizzled(transposed ? start + (size_t)(i / 64) * leading + (size_t)(k / 8) * stride + (size_t)(k % 8 * 128 + i % 64 * 2)
                                     : start + (size_t)(i / 8) * stride + (size_t)(i % 8 * 128 + k * 2));
}
static void each_chunk(const Product& p, int warp, void (*use)(char*, const Product&)) {
  for (int k = 0; k < 16; k += p.transpose_a ? 1 : 8)
    for (int i = 0; i < 16; i += p.transpose_a ? 8 : 1) use(operand(p.a, p.transpose_a, warp % 4 * 16 + i, k), p);
  for (int k = 0; k < 16; k += p.transpose_b ? 1 : 8)
    for (int i = 0; i < p.n; i += p.transpose_b ? 8 : 1) use(operand(p.b, p.transpose_b, i, k), p);
}
struct WgmmaCall { float* d; int n; uint64_t a, b; bool transpose_a, transpose_b; };
static void start_product(void** calls, int first) {
  const WgmmaCall& call = *(WgmmaCall*)calls[0];
  for (int i = 1; i < GROUP; i++) {
    const WgmmaCall& other = *(WgmmaCall*)calls[i];
    if (other.a != call.a || other.b != call.b || other.n != call.n)
      fail(0, 0, "divergent warp: the threads of a warpgroup give wgmma different operands");
  }
  if (call.a >> 62 != 1 || call.b >> 62 != 1) fail(0, 0, "wgmma: of the layouts of an operand only the swizzle of 128 bytes is known here");
  const int caller = current;
  for (int warp = first / WARP; warp < (first + GROUP) / WARP; warp++) {
    TensorCore& core = tensor_cores[warp];
    WgmmaCall** lanes = (WgmmaCall**)calls + (warp * WARP - first);
    current = warp * WARP;
    if (!core.fenced) fail(0, 0, "wgmma: no wgmma_fence before the first product: its registers may not be ready");
    if (core.count == MOST_PRODUCTS) fail(0, 0, "more than %d products of a warp under way", MOST_PRODUCTS);
    Accumulators *sums = 0, *unused = 0;
    for (Accumulators& s : core.sums) {
      if (s.products && s.d[0] == lanes[0]->d) sums = &s;
      if (!s.products) unused = &s;
    }
    if (!sums) {
      if (!unused) fail(0, 0, "more than %d arrays of sums of a warp under way", MOST_SUMS);
      sums = unused;
      for (int l = 0; l < WARP; l++) {
        sums->d[l] = lanes[l]->d;
        memcpy(sums->values[l], sums->d[l], (size_t)call.n / 2 * sizeof(float));
        memset(sums->d[l], 0xff, (size_t)call.n / 2 * sizeof(float));
      }
    }
    sums->products++;
    Product& p = core.products[core.count++];
    p = Product{sums, call.n, call.a, call.b, call.transpose_a, call.transpose_b, core.group, fibers[current].file, fibers[current].line};
    each_chunk(p, warp, [](char* at, const Product& q) { watch_operand(at, 16, q.file, q.line); });
  }
  current = caller;
}
static void finish_product(const Product& p, int warp) {
  float A[16][16];
  static float B[16][256];
  for (int k = 0; k < 16; k++) {
    uint16_t entry;
    for (int i = 0; i < 16; i++) memcpy(&entry, operand(p.a, p.transpose_a, warp % 4 * 16 + i, k), 2), A[i][k] = engine_from_bfloat16(entry);
    for (int i = 0; i < p.n; i++) memcpy(&entry, operand(p.b, p.transpose_b, i, k), 2), B[k][i] = engine_from_bfloat16(entry);
  }
  for (int row = 0; row < 16; row++) {
    float sums[256] = {};
    for (int k = 0; k < 16; k++)
      for (int i = 0; i < p.n; i++) sums[i] += A[row][k] * B[k][i];
    for (int i = 0; i < p.n; i++) p.sums->values[row % 8 * 4 + i % 8 / 2][i / 8 * 4 + row / 8 * 2 + i % 2] += sums[i];
  }
  if (--p.sums->products == 0)
    for (int l = 0; l < WARP; l++) memcpy(p.sums->d[l], p.sums->values[l], (size_t)p.n / 2 * sizeof(float));
  each_chunk(p, warp, [](char* at, const Product&) { watch_operand_done(at, 16); });
}
static TensorCore& my_core() { return tensor_cores[current / WARP]; }
static void use_tensor_cores(const char* file, int line) {
  if (tensor_cores) return;
  tensor_cores = (TensorCore*)calloc(WARPS, sizeof(TensorCore));
  if (!tensor_cores) fail(file, line, "no memory for the sums of wgmma");
}
void wgmma(float* d, int n, uint64_t a, uint64_t b, bool transpose_a, bool transpose_b, const char* file, int line) {
  use_tensor_cores(file, line);
  watch_fine_order();
  WgmmaCall mine = {d, n, a, b, transpose_a, transpose_b};
  group_meeting(&mine, start_product, "wgmma", file, line);
}
void wgmma_fence(const char* file, int line) {
  use_tensor_cores(file, line);
  warp_meeting(WHOLE_WARP, 0, [](void**, unsigned mask) {
    need_warp(mask, "wgmma_fence");
    my_core().fenced = true;
  }, "wgmma_fence", file, line);
}
void wgmma_commit(const char* file, int line) {
  use_tensor_cores(file, line);
  warp_meeting(WHOLE_WARP, 0, [](void**, unsigned mask) {
    need_warp(mask, "wgmma_commit");
    my_core().group++;
  }, "wgmma_commit", file, line);
}
void wgmma_wait(int keep, const char* file, int line) {
  use_tensor_cores(file, line);
  warp_meeting(WHOLE_WARP, &keep, [](void** lanes, unsigned mask) {
    need_warp(mask, "wgmma_wait");
    TensorCore& core = my_core();
    int left = 0;
    for (int i = 0; i < core.count; i++) {
      const Product p = core.products[i];
      if (p.group + (uint32_t) * (int*)lanes[0] >= core.group) core.products[left++] = p;
      else finish_product(p, current / WARP);
    }
    core.count = left;
  }, "wgmma_wait", file, line);
}

// ---- a block begins and ends ---------------------------------------------------------------------------
static void start_async() {
  for (int i = 0; i < threads; i++) copies[i].count = 0, copies[i].group = 0;
  load_count = mbarrier_count = 0;
  for (int w = 0; tensor_cores && w < WARPS; w++) {
    TensorCore& core = tensor_cores[w];
    core.count = 0, core.group = 0, core.fenced = false;
    for (Accumulators& s : core.sums) s.products = 0;
  }
}
static void unfinished(int thread, const char* what, const char* file, int line) {
  current = thread;
  fail(file, line, "unfinished: the block ends while %s that starts here is under way: nothing has waited for it", what);
}
static void finish_async() {
  if (!STRICT) return;
  for (int i = 0; i < threads; i++)
    if (copies[i].count) unfinished(i, "the copy", copies[i].queue[0].file, copies[i].queue[0].line);
  if (load_count) unfinished(loads[0].thread, "the TMA load", loads[0].file, loads[0].line);
  for (int w = 0; tensor_cores && w < (threads + WARP - 1) / WARP; w++)
    if (tensor_cores[w].count) unfinished(w * WARP, "the product", tensor_cores[w].products[0].file, tensor_cores[w].products[0].line);
}
}  // namespace engine
