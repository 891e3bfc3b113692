// Checks and traces, for modes other than "fast": the compiler calls the __tsan_* functions below
// before every load and store of the kernel, and the __ubsan_* ones where an address is misaligned,
// an index is outside its array, or a division is by zero.
#include <dlfcn.h>
#ifdef __APPLE__
#include <mach-o/getsect.h>
extern "C" const struct mach_header_64 _mh_dylib_header;
#else
extern "C" char _end __attribute__((visibility("hidden")));
#endif

// Which line each watched call returns to; the loader writes this table into the kernel's assembly.
struct Line { uint64_t pc; const char* file; int64_t line; };
extern "C" Line engine_lines[], engine_lines_end[];

// One access, meeting or step, as Python reads it (dlnotes/cuda/_trace.py has the same fields).
struct Event {
  uint64_t pc;  // the line's address; of a sync, an atomic or a step: the file name's
  uint32_t line, offset, block, thread;
  int16_t buffer;  // argument 0, 1, …; shared variable -1 - id; NO_BUFFER
  uint8_t kind, bytes;
  uint32_t pad;
  unsigned char value[16];
};

namespace engine {
enum Kind { SYNC_WARP = 3, SYNC_BLOCK = 4, STEP = 5 };
static const int NO_BUFFER = -1000;
static const uint32_t SEVERAL = 0xffffffff;

// What is remembered of each element: its last write and the reads since then. "stamp" counts the
// __syncwarp()s of a warp, "epoch" the barriers of a block, "block" the blocks of this launch.
struct Cell {
  uint32_t write_block, write_epoch, write_thread, write_stamp;
  uint32_t read_block, read_epoch, read_warp, read_stamp, read_lanes, other_block;
  uint64_t write_pc, read_pc;
  uint32_t write_line, read_line;  // of atomics: then pc is the file's name
  bool write_atomic;
  uint8_t landing;   // a Landing: a copy that is under way, or an mbarrier
  uint16_t operand;  // how many wgmmas may still read it
  uint32_t reads;    // 1 + its place in `fine_reads`, where mbarriers or wgmma order threads
};
struct Buffer {
  const char* name;
  char* base;
  size_t bytes;
  int item, grain;
  Cell* cells;
};
static Buffer* buffers;
static int buffer_count;
static Cell* shared_cells;  // one for each byte of the arena
static uint32_t first_serial, block, epoch, stamp[MOST_THREADS / WARP];
// ordered[t][l] > s: what lane l of t's warp did at stamp s or before happened before what t does now
static uint32_t ordered[MOST_THREADS][WARP];
// The same for threads of other warps and for the phases of mbarriers, once a block uses these:
// fine_seen[t][u], with u = MOST_THREADS + b for what TMA brought to barrier b.
static const int AGENTS = MOST_THREADS + MOST_MBARRIERS;
static bool fine;
static uint32_t (*fine_seen)[AGENTS];
static uint32_t arrived[MOST_MBARRIERS][AGENTS], ended[MOST_MBARRIERS][AGENTS];
// Who read an element in this epoch: the last stamp of each lane, by warp; and of wgmma, 1 + the warp's.
struct FineReads { uint32_t epoch, whole[MOST_THREADS / WARP], lanes[MOST_THREADS / WARP], stamps[MOST_THREADS / WARP]; };
struct LaneStamps { uint32_t of[WARP]; };
static FineReads* fine_reads;
static LaneStamps* lane_stamps;
static size_t fine_count, fine_room, stamp_count, stamp_room;
static char *module_low, *module_high;

static bool recording, stepping;
static int64_t record_block = -1, record_from, record_to;  // which threads of which block; -1: all
static Event* events;
static size_t event_count, event_room;
static const size_t MOST_EVENTS = 8 << 20;
static int pending_write[MOST_THREADS];  // 1 + the event whose value is not written yet

// A read of shared memory that nobody has written yet: a race if somebody does before the barrier.
static struct { bool found; int thread, line; const char* file; char text[256]; } uninitialised;

struct Place { const char* file; int line; };
static Place place_of(uint64_t pc, uint32_t line) {
  if (line) return Place{(const char*)pc, (int)line};
  for (Line* l = engine_lines; l < engine_lines_end; l++)
    if (l->pc == pc) return Place{l->file, (int)l->line};
  return Place{"", 0};
}
static void fail_at(uint64_t pc, uint32_t line, const char* format, ...) __attribute__((noreturn));
static void fail_at(uint64_t pc, uint32_t line, const char* format, ...) {
  Place place = place_of(pc, line);
  va_list values;
  va_start(values, format);
  stop(place.file, place.line, format, values);
  __builtin_unreachable();
}
static bool blame_uninitialised(const char* text) {
  if (!uninitialised.found || !strncmp(text, "race", 4) || !strncmp(text, "divergent", 9) || interrupted) return false;
  snprintf(failure.text, sizeof failure.text, "%s", uninitialised.text);
  snprintf(failure.file, sizeof failure.file, "%s", uninitialised.file);
  failure.line = uninitialised.line, failure.has_thread = 1;
  uint3 t = fibers[uninitialised.thread].index;
  failure.thread[0] = t.x, failure.thread[1] = t.y, failure.thread[2] = t.z;
  return true;
}

// ---- recording -----------------------------------------------------------------------------------
static void fill_pending(int thread);
static Event* record(uint64_t pc, uint32_t line, int kind) {
  if (record_block >= 0 && (block != (uint32_t)record_block || current < record_from || current >= record_to)) return 0;
  if (event_count == event_room) {
    if (event_count == MOST_EVENTS) fail_at(pc, line, "more than %zu accesses to record: trace a smaller problem", MOST_EVENTS);
    event_room = event_room ? 2 * event_room : 1 << 14;
    events = (Event*)realloc(events, event_room * sizeof(Event));
  }
  Event* e = &events[event_count++];
  memset(e, 0, sizeof *e);
  e->pc = pc, e->line = line, e->block = block, e->thread = (uint32_t)current, e->kind = (uint8_t)kind, e->buffer = NO_BUFFER;
  return e;
}
static char* base_of(int buffer) { return buffer >= 0 ? buffers[buffer].base : arena + variables[-1 - buffer].start; }
// The compiler announces a write before it happens: its value is read when the thread goes on.
static void fill_pending(int thread) {
  if (!pending_write[thread]) return;
  Event& e = events[pending_write[thread] - 1];
  pending_write[thread] = 0;
  memcpy(e.value, base_of(e.buffer) + e.offset, e.bytes < 16 ? e.bytes : 16);
}
static void watch_sync(const char* file, int line, bool whole_block) {
  if (!recording) return;
  fill_pending(current);
  record((uint64_t)file, (uint32_t)line, whole_block ? SYNC_BLOCK : SYNC_WARP);
}

// ---- what is ordered before what -------------------------------------------------------------------
static void watch_block_start() {
  block = block_serial - first_serial;
  epoch++;
  memset(stamp, 0, sizeof stamp);
  memset(ordered, 0, (size_t)threads * sizeof *ordered);
  uninitialised.found = false;
  fine = false, fine_count = stamp_count = 0;
  if (dynamic_bytes) memset(shared_cells, 0, dynamic_bytes * sizeof(Cell));
}
// An access to part of a word: from now on each byte is watched alone. What was remembered of the word
// holds for each of them.
static uint32_t copy_of_reads(uint32_t reads);
static Cell same_cell(const Cell& c) {
  Cell copy = c;
  if (c.reads) copy.reads = copy_of_reads(c.reads);
  return copy;
}
static void watch_finer(int buffer) {
  if (buffer < 0) {
    Variable& v = variables[-1 - buffer];
    Cell* cells = shared_cells + v.start;
    for (size_t o = 0; o < v.bytes; o += (size_t)v.grain)
      for (size_t i = 1; i < (size_t)v.grain && o + i < v.bytes; i++) cells[o + i] = same_cell(cells[o]);
    v.grain = 1;
    return;
  }
  Buffer& b = buffers[buffer];
  Cell* cells = (Cell*)malloc((b.bytes + 1) * sizeof(Cell));
  if (!cells) fail("", 0, "no memory to watch each byte of '%s': use a smaller problem", b.name);
  for (size_t o = 0; o < b.bytes; o++) cells[o] = b.cells[o / (size_t)b.grain];
  free(b.cells);
  b.cells = cells, b.grain = 1;
}
static void watch_variable(const Variable& v) { memset(shared_cells + v.start, 0, v.bytes * sizeof(Cell)); }
static void watch_barrier() { epoch++; }
static void join(uint32_t (&a)[AGENTS], const uint32_t (&b)[AGENTS]) {
  for (int i = 0; i < AGENTS; i++)
    if (b[i] > a[i]) a[i] = b[i];
}
static void watch_syncwarp(int first, unsigned mask) {
  uint32_t now = stamp[first / WARP]++, joined[WARP] = {};
  for (int l = 0; l < WARP; l++) {
    if (!(mask >> l & 1)) continue;
    for (int k = 0; k < WARP; k++)
      if (ordered[first + l][k] > joined[k]) joined[k] = ordered[first + l][k];
  }
  for (int l = 0; l < WARP; l++)
    if (mask >> l & 1) joined[l] = now + 1;
  for (int l = 0; l < WARP; l++)
    if (mask >> l & 1) memcpy(ordered[first + l], joined, sizeof joined);
  if (!fine) return;
  uint32_t all[AGENTS] = {};
  for (int l = 0; l < WARP; l++)
    if (mask >> l & 1) join(all, fine_seen[first + l]);
  for (int l = 0; l < WARP; l++)
    if (mask >> l & 1) memcpy(fine_seen[first + l], all, sizeof all);
}
// The first use of mbarriers or wgmma in a block: from here on order between warps is kept, too.
static void watch_fine_order() {
  if (fine) return;
  fine = true;
  if (!fine_seen) fine_seen = (uint32_t(*)[AGENTS])malloc(MOST_THREADS * sizeof *fine_seen);
  if (!fine_seen) fail("", 0, "no memory to watch the order of threads");
  memset(fine_seen, 0, (size_t)threads * sizeof *fine_seen);
  memset(arrived, 0, sizeof arrived);
  memset(ended, 0, sizeof ended);
}
static uint32_t seen(int thread, uint32_t other) {
  if (other < MOST_THREADS && other / WARP == (uint32_t)thread / WARP) return ordered[thread][other % WARP];
  return fine ? fine_seen[thread][other] : 0;
}
// What this thread did and saw so far happened before the end of the barrier's phase, …
static void watch_arrive(int barrier) {
  const int first = current / WARP * WARP;
  uint32_t *at = arrived[barrier], now = stamp[current / WARP]++;
  join(arrived[barrier], fine_seen[current]);
  for (int l = 0; l < WARP; l++)
    if (ordered[current][l] > at[first + l]) at[first + l] = ordered[current][l];
  at[current] = now + 1;
}
static void watch_phase_end(int barrier, uint32_t phase) {
  arrived[barrier][MOST_THREADS + barrier] = phase + 1;
  memcpy(ended[barrier], arrived[barrier], sizeof ended[barrier]);
}
// … and that before what this thread does next.
static void watch_acquire(int thread, int barrier) {
  const int first = thread / WARP * WARP;
  join(fine_seen[thread], ended[barrier]);
  for (int l = 0; l < WARP; l++)
    if (ended[barrier][first + l] > ordered[thread][l]) ordered[thread][l] = ended[barrier][first + l];
}
static void watch_block_end() {
  for (int i = 0; i < threads; i++) fill_pending(i);
  if (uninitialised.found) {
    current = uninitialised.thread;
    fail(uninitialised.file, uninitialised.line, "%s", uninitialised.text);
  }
}
static bool before_me(uint32_t by_block, uint32_t by_epoch, uint32_t by_thread, uint32_t by_stamp) {
  if (by_block != block + 1) return false;  // blocks are not ordered
  if (by_epoch < epoch) return true;
  if (by_thread == SEVERAL) return false;
  return by_thread == (uint32_t)current || seen(current, by_thread) > by_stamp;
}
static const char* const VERBS[] = {"read", "write", "atomic update"};
static const char* const PAST[] = {"read", "written", "updated"};
static char* name_of(int buffer, size_t offset) {
  static char text[2][256];
  static int turn;
  turn = 1 - turn;
  bool argument = buffer >= 0;
  const char* name = argument ? buffers[buffer].name : variables[-1 - buffer].name;
  int item = argument ? buffers[buffer].item : variables[-1 - buffer].item;
  snprintf(text[turn], sizeof text[turn], "%s'%s'[%zu]", argument ? "" : "shared ", name, offset / (size_t)item);
  return text[turn];
}
static __attribute__((noinline, cold)) void race(uint64_t pc, uint32_t line, int kind, int buffer, size_t offset, bool other_wrote, const Cell& c) {
  uint32_t by_block = other_wrote ? c.write_block : c.read_block, by_thread = other_wrote ? c.write_thread : SEVERAL;
  Place other = other_wrote ? place_of(c.write_pc, c.write_line) : place_of(c.read_pc, c.read_line);
  char who[96];
  bool here = by_block == block + 1;
  if (by_block == SEVERAL) snprintf(who, sizeof who, "several blocks");
  else if (!here) snprintf(who, sizeof who, "block %u", by_block - 1);
  else if (by_thread == SEVERAL) snprintf(who, sizeof who, "another thread of the block");
  else if (by_thread >= (uint32_t)MOST_THREADS) snprintf(who, sizeof who, "a TMA load");
  else snprintf(who, sizeof who, "thread (%u,%u,%u)", fibers[by_thread].index.x, fibers[by_thread].index.y, fibers[by_thread].index.z);
  fail_at(pc, line, "race: %s of %s, which %s has %s in line %d, with no %s between", VERBS[kind], name_of(buffer, offset), who,
          PAST[other_wrote ? (c.write_atomic ? ATOMIC : WRITE) : READ], other.line, here ? "barrier" : "order");
}

static __attribute__((noinline, cold)) void under_way(const Cell& c, int kind, int buffer, size_t offset, uint64_t pc, uint32_t line) {
  const char* const of[] = {"", "a cp_async_16", "a tma_load_2d"};
  if (c.landing == MBARRIER) fail_at(pc, line, "mbarrier: %s of %s, which is one", VERBS[kind], name_of(buffer, offset));
  if (c.landing) {
    uint3 t = fibers[c.write_thread].index;
    fail_at(pc, line, "race: %s of %s, to which %s of thread (%u,%u,%u) in line %u is under way, with no wait between", VERBS[kind],
            name_of(buffer, offset), of[c.landing], t.x, t.y, t.z, c.write_line);
  }
  fail_at(pc, line, "race: %s of %s, which the wgmma in line %u may still read, with no wait between", VERBS[kind], name_of(buffer, offset), c.read_line);
}
static FineReads& fine_reads_of(Cell& c) {
  if (!c.reads) {
    if (fine_count == fine_room) {
      fine_room = 2 * fine_room + 1024;
      fine_reads = (FineReads*)realloc(fine_reads, fine_room * sizeof *fine_reads);
      if (!fine_reads) fail("", 0, "no memory to watch the reads of shared memory");
    }
    memset(&fine_reads[fine_count++], 0, sizeof *fine_reads);
    c.reads = (uint32_t)fine_count;
  }
  FineReads& reads = fine_reads[c.reads - 1];
  if (reads.epoch != epoch) memset(&reads, 0, sizeof reads), reads.epoch = epoch;
  return reads;
}
static uint32_t new_stamps() {
  if (stamp_count == stamp_room) {
    stamp_room = 2 * stamp_room + 1024;
    lane_stamps = (LaneStamps*)realloc(lane_stamps, stamp_room * sizeof *lane_stamps);
    if (!lane_stamps) fail("", 0, "no memory to watch the reads of shared memory");
  }
  return (uint32_t)stamp_count++;
}
static uint32_t copy_of_reads(uint32_t reads) {
  Cell fresh = {};
  fine_reads_of(fresh);
  FineReads& copy = fine_reads[fresh.reads - 1];
  copy = fine_reads[reads - 1];
  for (int warp = 0; warp < MOST_THREADS / WARP; warp++)
    if (copy.lanes[warp]) {
      const uint32_t stamps = new_stamps();
      lane_stamps[stamps] = lane_stamps[copy.stamps[warp]];
      copy.stamps[warp] = stamps;
    }
  return fresh.reads;
}
static __noinline__ void note_fine_read(Cell& c) {
  FineReads& reads = fine_reads_of(c);
  const int warp = current / WARP;
  if (!reads.lanes[warp]) reads.stamps[warp] = new_stamps();
  reads.lanes[warp] |= 1u << current % WARP;
  lane_stamps[reads.stamps[warp]].of[current % WARP] = stamp[warp];
}
// Whether the current thread may write what others have read. A wgmma was read for by its whole warp: that
// any lane of it came after the wait is enough.
static __noinline__ bool fine_reads_ordered(const Cell& c) {
  if (!c.reads || fine_reads[c.reads - 1].epoch != epoch) return true;
  const FineReads& reads = fine_reads[c.reads - 1];
  for (uint32_t warp = 0; warp * WARP < (uint32_t)threads; warp++) {
    bool by_any = !reads.whole[warp];
    for (uint32_t l = 0; l < (uint32_t)WARP; l++) {
      const uint32_t reader = warp * WARP + l;
      const bool mine = reader == (uint32_t)current;
      if (reads.lanes[warp] >> l & 1 && !mine && seen(current, reader) <= lane_stamps[reads.stamps[warp]].of[l]) return false;
      if (mine || seen(current, reader) >= reads.whole[warp]) by_any = true;
    }
    if (!by_any) return false;
  }
  return true;
}

// Whether any byte of a word that is watched byte by byte was written: the rest may be a struct's padding.
static bool part_written(const Variable& v, size_t offset) {
  if (v.grain == v.word) return false;
  const size_t first = offset / (size_t)v.word * (size_t)v.word;
  for (size_t o = first; o < first + (size_t)v.word && o < v.bytes; o++)
    if (shared_cells[v.start + o].write_block) return true;
  return false;
}
// Whether what was written last may be read or overwritten now. Returns whether a write comes first.
static __forceinline__ bool check_written(Cell& c, int kind, int buffer, size_t offset, uint64_t pc, uint32_t line) {
  if (c.landing || (c.operand && kind != READ)) under_way(c, kind, buffer, offset, pc, line);
  bool written = c.write_block != 0;
  bool write_ordered = !written || before_me(c.write_block, c.write_epoch, c.write_thread, c.write_stamp);
  if (!write_ordered && !(kind == ATOMIC && c.write_atomic)) race(pc, line, kind, buffer, offset, true, c);
  if (kind != WRITE && buffer < 0 && !written && !uninitialised.found && !part_written(variables[-1 - buffer], offset)) {
    Place place = place_of(pc, line);
    uninitialised.found = true, uninitialised.thread = current, uninitialised.file = place.file, uninitialised.line = place.line;
    snprintf(uninitialised.text, sizeof uninitialised.text, "uninitialised: %s of %s, which no thread of the block has written", VERBS[kind], name_of(buffer, offset));
  }
  return write_ordered;
}
static void check_cell(Cell& c, int kind, int buffer, size_t offset, uint64_t pc, uint32_t line, Landing landing = LANDED) {
  const uint32_t me = block + 1, warp = (uint32_t)current / WARP, bit = 1u << current % WARP;
  const bool write_ordered = check_written(c, kind, buffer, offset, pc, line);
  if (kind == READ && fine && buffer < 0) {
    note_fine_read(c);
    c.read_pc = pc, c.read_line = line;
    return;
  }
  if (kind == READ) {
    if (c.read_block != me) {
      if (c.read_block) c.other_block = c.read_block;
      c.read_lanes = 0;
    } else if (c.read_epoch != epoch) c.read_lanes = 0;
    if (!c.read_lanes) {
      c.read_block = me, c.read_epoch = epoch, c.read_warp = warp, c.read_lanes = bit, c.read_stamp = stamp[warp];
    } else if (c.read_warp != warp) c.read_warp = SEVERAL;
    else {
      for (uint32_t rest = c.read_lanes; rest; rest &= rest - 1) {
        int l = __builtin_ctz(rest);
        if (ordered[current][l] > c.read_stamp) c.read_lanes &= ~(1u << l);  // this read stands for it
      }
      c.read_lanes |= bit, c.read_stamp = stamp[warp];
    }
    c.read_pc = pc, c.read_line = line;
    return;
  }
  if (c.read_block) {
    bool clash = c.read_block != me || c.other_block;
    if (!clash && c.read_epoch == epoch) {
      clash = c.read_warp != warp;
      for (uint32_t rest = c.read_lanes & ~bit; rest && !clash; rest &= rest - 1) clash = ordered[current][__builtin_ctz(rest)] <= c.read_stamp;
    }
    if (clash) race(pc, line, kind, buffer, offset, false, c);
  }
  if (fine && buffer < 0 && !fine_reads_ordered(c)) {
    c.read_block = me;
    race(pc, line, kind, buffer, offset, false, c);
  }
  if (landing) {
    c.landing = landing, c.write_thread = (uint32_t)current, c.write_pc = pc, c.write_line = line;
    return;
  }
  // Atomics of several threads that nothing orders: none of them alone stands for the others.
  bool several = !write_ordered;
  c.write_thread = several ? SEVERAL : (uint32_t)current;
  c.write_block = several && c.write_block != me ? SEVERAL : me;
  c.write_epoch = epoch, c.write_stamp = stamp[warp], c.write_pc = pc, c.write_line = line, c.write_atomic = kind == ATOMIC;
  c.read_block = 0, c.read_lanes = 0, c.other_block = 0;
  if (c.reads) fine_reads[c.reads - 1].epoch = 0;
}

// ---- one access ----------------------------------------------------------------------------------
static int shared_variable_at(size_t offset) {
  if (offset < dynamic_bytes) return 0;
  for (int i = 1; i < variable_count; i++)
    if (offset >= variables[i].start && offset < variables[i].start + variables[i].bytes) return i;
  return -1;
}
static ptrdiff_t rounded_down(ptrdiff_t away, ptrdiff_t item) { return away >= 0 ? away / item : -((-away + item - 1) / item); }
static void outside_shared(const char* p, int bytes, int kind, uint64_t pc, uint32_t line) {
  const ptrdiff_t offset = p - arena;
  int near = -1;
  for (int i = 0; i < variable_count; i++)  // the last that begins before it, else the first
    if (variables[i].bytes && (near < 0 || ((ptrdiff_t)variables[i].start <= offset && variables[i].start > variables[near].start))) near = i;
  if (near < 0) fail_at(pc, line, "out of bounds: %s of shared memory, of which the launch gave no dynamic bytes", VERBS[kind]);
  const Variable& v = variables[near];
  fail_at(pc, line, "out of bounds: %s of %d bytes at shared '%s'[%td], which has %zu elements", VERBS[kind], bytes, v.name,
          rounded_down(offset - (ptrdiff_t)v.start, v.item), v.bytes / (size_t)v.item);
}
static size_t distance(const char* p, const char* base, size_t bytes) {
  return p < base ? (size_t)(base - p) : p < base + bytes ? 0 : (size_t)(p - base) - bytes;
}
static void outside_arguments(const char* p, int bytes, int kind, uint64_t pc, uint32_t line) {
  if (!p || (size_t)p < 4096) fail_at(pc, line, "out of bounds: %s through a null pointer", VERBS[kind]);
  if (p >= stacks && p < stacks + STACKS) fail_at(pc, line, "out of bounds: %s of %d bytes beyond this thread's own variables", VERBS[kind], bytes);
  int near = -1;
  size_t nearest = distance(p, arena, ARENA);
  const bool beside_shared = nearest < FENCE;
  for (int i = 0; i < buffer_count; i++) {
    const size_t away = distance(p, buffers[i].base, buffers[i].bytes);
    if (away < nearest) nearest = away, near = i;
  }
  if (near < 0 && beside_shared) outside_shared(p, bytes, kind, pc, line);
  if (near < 0 || nearest > FENCE) fail_at(pc, line, "out of bounds: %s of %d bytes far from every array", VERBS[kind], bytes);
  Buffer& b = buffers[near];
  fail_at(pc, line, "out of bounds: %s of %d bytes at '%s'[%td], which has %zu elements", VERBS[kind], bytes, b.name,
          rounded_down(p - b.base, b.item), b.bytes / (size_t)b.item);
}
// Where an address lies: its array, and the cells of that. Fails if it is outside all of them.
struct Spot {
  int buffer, grain;
  size_t offset;
  Cell* cells;
  Cell& cell(size_t o) const { return cells[buffer < 0 ? o : o / (size_t)grain]; }
  size_t first() const { return offset / (size_t)grain * (size_t)grain; }
};
static __forceinline__ bool find_spot(Spot& spot, const char* p, int bytes, int kind, uint64_t pc, uint32_t line) {
  int buffer = NO_BUFFER;
  size_t offset = 0;
  int grain = 1;
  Cell* cells = 0;
  if (p >= arena && p < arena + ARENA) {
    int i = shared_variable_at((size_t)(p - arena));
    if (i < 0 || (size_t)(p - arena) + (size_t)bytes > variables[i].start + variables[i].bytes) outside_shared(p, bytes, kind, pc, line);
    buffer = -1 - i, offset = (size_t)(p - arena) - variables[i].start, grain = variables[i].grain;
    cells = shared_cells + variables[i].start;
  } else {
    for (int i = 0; i < buffer_count; i++)
      if (p >= buffers[i].base && p + bytes <= buffers[i].base + buffers[i].bytes) {
        buffer = i, offset = (size_t)(p - buffers[i].base), grain = buffers[i].grain, cells = buffers[i].cells;
        break;
      }
    if (buffer == NO_BUFFER) {
      if (p >= module_low && p < module_high) return false;  // threadIdx, constants: the module's own data
      outside_arguments(p, bytes, kind, pc, line);
    }
  }
  spot = Spot{buffer, grain, offset, cells};
  return true;
}
static void check_access(char* p, int bytes, int aligned_to, int kind, uint64_t pc, uint32_t line, Landing landing = LANDED,
                         const unsigned char* value = 0) {
  if (current < 0) return;
  Fiber& f = fibers[current];
  if (p >= f.stack && p < f.stack + STACK) return;
  fill_pending(current);
  Spot spot;
  if (!find_spot(spot, p, bytes, kind, pc, line)) return;
  const int buffer = spot.buffer;
  const size_t offset = spot.offset;
  if ((offset | (size_t)bytes) & (size_t)(spot.grain - 1)) {
    watch_finer(buffer);
    spot.grain = 1;
    if (buffer >= 0) spot.cells = buffers[buffer].cells;
  }
  if ((size_t)p % (size_t)aligned_to)
    fail_at(pc, line, "misaligned: %s of %d bytes at %s, which is not at a multiple of %d bytes", VERBS[kind], bytes, name_of(buffer, offset), aligned_to);
  for (size_t o = spot.first(); o < offset + (size_t)bytes; o += (size_t)spot.grain) check_cell(spot.cell(o), kind, buffer, o, pc, line, landing);
  if (recording) {
    Event* e = record(pc, line, kind);
    if (!e) return;
    e->buffer = (int16_t)buffer, e->offset = (uint32_t)offset, e->bytes = (uint8_t)(bytes > 255 ? 255 : bytes);
    if (kind == READ || value) memcpy(e->value, value ? (const char*)value : p, (size_t)(bytes < 16 ? bytes : 16));
    else if (!landing) pending_write[current] = (int)event_count;
  }
}
void touch(const void* p, int bytes, Access access, const char* file, int line) {
  check_access((char*)p, bytes, bytes, access, (uint64_t)file, (uint32_t)line);
}

// ---- what runs beside the threads ------------------------------------------------------------------
// The cells of an address that is known to lie in shared memory and to have been checked.
static void each_cell(char* at, int bytes, void (*use)(Cell&, int), int value) {
  const size_t offset = (size_t)(at - arena);
  const Variable& v = variables[shared_variable_at(offset)];
  for (size_t o = (offset - v.start) / (size_t)v.grain * (size_t)v.grain; o < offset - v.start + (size_t)bytes; o += (size_t)v.grain)
    use(shared_cells[v.start + o], value);
}
static void watch_source(const char* from, int bytes, int aligned, const char* file, int line) {
  if (bytes) check_access((char*)from, bytes, aligned, READ, (uint64_t)file, (uint32_t)line);
}
static void watch_issue(char* to, int bytes, int aligned, const unsigned char* value, Landing by, const char* file, int line) {
  check_access(to, bytes, aligned, WRITE, (uint64_t)file, (uint32_t)line, by, value);
}
// by: the thread that waited, or MOST_THREADS + the mbarrier whose phase waits for the bytes
static void watch_landed(char* to, int bytes, int by) {
  each_cell(to, bytes, [](Cell& c, int who) {
    c.write_block = block + 1, c.write_epoch = epoch, c.write_thread = (uint32_t)who, c.write_atomic = false;
    c.write_stamp = who < MOST_THREADS ? stamp[who / WARP] : mbarriers[who - MOST_THREADS].phase;
    c.landing = LANDED, c.read_block = 0, c.read_lanes = 0;
    if (c.reads) fine_reads[c.reads - 1].epoch = 0;
  }, by);
}
static void watch_operand(char* at, int bytes, const char* file, int line) {
  Spot spot;
  find_spot(spot, at, bytes, READ, (uint64_t)file, (uint32_t)line);
  for (size_t o = spot.first(); o < spot.offset + (size_t)bytes; o += (size_t)spot.grain) {
    Cell& c = spot.cell(o);
    check_written(c, READ, spot.buffer, o, (uint64_t)file, (uint32_t)line);
    c.operand++, c.read_pc = (uint64_t)file, c.read_line = (uint32_t)line;
  }
}
static void watch_operand_done(char* at, int bytes) {
  each_cell(at, bytes, [](Cell& c, int warp) {
    c.operand--;
    fine_reads_of(c).whole[warp] = stamp[warp] + 1;
  }, current / WARP);
}
static void watch_mbarrier(char* at, bool init, const char* file, int line) {
  watch_fine_order();
  const uint64_t pc = (uint64_t)file;
  if (init) {
    check_access(at, 8, 8, WRITE, pc, (uint32_t)line);
    each_cell(at, 8, [](Cell& c, int) { c.landing = MBARRIER; }, 0);
    return;
  }
  Spot spot;
  find_spot(spot, at, 8, READ, pc, (uint32_t)line);
  const Cell& c = spot.cell(spot.first());
  if (before_me(c.write_block, c.write_epoch, c.write_thread, c.write_stamp)) return;
  uint3 t = fibers[c.write_thread].index;
  fail(file, line, "race: use of the mbarrier %s, which thread (%u,%u,%u) has initialised in line %u, with no barrier between",
       name_of(spot.buffer, spot.offset), t.x, t.y, t.z, c.write_line);
}
}  // namespace engine

// ---- called from Python --------------------------------------------------------------------------
struct Watched { const char* name; char* base; size_t bytes; int item, grain; };
ENGINE_EXPORT int engine_watch(int count, const Watched* watched, int record, int step, const int64_t* which) {
  using namespace engine;
  for (int i = 0; i < buffer_count; i++) free(buffers[i].cells);
  buffer_count = 0, event_count = 0, recording = record, stepping = step;
  record_block = which[0], record_from = which[1], record_to = which[2];
  memset(pending_write, 0, sizeof pending_write);
  first_serial = block_serial + 1;
  buffers = (Buffer*)realloc(buffers, (size_t)(count + 1) * sizeof(Buffer));
  if (!buffers) return 1;
  for (int i = 0; i < count; i++) {
    const Watched& w = watched[i];
    Cell* cells = (Cell*)calloc(w.bytes / (size_t)w.grain + 1, sizeof(Cell));
    if (!cells) return 1;
    buffers[buffer_count++] = Buffer{w.name, w.base, w.bytes, w.item, w.grain, cells};
  }
  if (!shared_cells) {
    shared_cells = (Cell*)mmap(0, ARENA * sizeof(Cell), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON | MAP_NORESERVE, -1, 0);
    if (shared_cells == MAP_FAILED) return shared_cells = 0, 1;
  }
#ifdef __APPLE__
  unsigned long size;
  module_low = (char*)getsegmentdata(&_mh_dylib_header, "__DATA", &size);
  module_high = module_low + size;
#else
  Dl_info info;
  if (!dladdr((void*)&engine_watch, &info)) return 1;
  module_low = (char*)info.dli_fbase, module_high = &_end;
#endif
  return 0;
}
// Places for arrays, see `reserve`.
ENGINE_EXPORT void* engine_reserve(int count, const size_t* bytes, char** places, size_t* whole) { return engine::reserve(count, bytes, places, whole); }
ENGINE_EXPORT void engine_give_back(void* start, size_t whole) { munmap(start, whole); }
ENGINE_EXPORT size_t engine_event_count() { return engine::event_count; }
ENGINE_EXPORT const Event* engine_events() { return engine::events; }
// Gives the record's memory back: each loaded kernel has its own, often tens of megabytes.
ENGINE_EXPORT void engine_forget_events() {
  free(engine::events);
  engine::events = 0, engine::event_count = engine::event_room = 0;
}
ENGINE_EXPORT size_t engine_line_count() { return (size_t)(engine_lines_end - engine_lines); }
ENGINE_EXPORT const Line* engine_line_table() { return engine_lines; }
ENGINE_EXPORT const char* engine_shared_name(int id) { return id < engine::variable_count ? engine::variables[id].name : 0; }
ENGINE_EXPORT int engine_shared_item(int id) { return engine::variables[id].item; }
ENGINE_EXPORT int engine_shared_code(int id) { return engine::variables[id].code; }

// ---- called by compiled kernels --------------------------------------------------------------------
#define HERE (uint64_t) __builtin_return_address(0)
#define WATCHED(N)                                                                                 \
  ENGINE_EXPORT void __tsan_read##N(void* p) { engine::check_access((char*)p, N, N < 8 ? N : 8, engine::READ, HERE, 0); } \
  ENGINE_EXPORT void __tsan_write##N(void* p) { engine::check_access((char*)p, N, N < 8 ? N : 8, engine::WRITE, HERE, 0); } \
  ENGINE_EXPORT void __tsan_unaligned_read##N(void* p) { engine::check_access((char*)p, N, 1, engine::READ, HERE, 0); } \
  ENGINE_EXPORT void __tsan_unaligned_write##N(void* p) { engine::check_access((char*)p, N, 1, engine::WRITE, HERE, 0); } \
  ENGINE_EXPORT void __tsan_volatile_read##N(void* p) { engine::check_access((char*)p, N, N < 8 ? N : 8, engine::READ, HERE, 0); } \
  ENGINE_EXPORT void __tsan_volatile_write##N(void* p) { engine::check_access((char*)p, N, N < 8 ? N : 8, engine::WRITE, HERE, 0); }
WATCHED(1)
WATCHED(2)
WATCHED(4)
WATCHED(8)
WATCHED(16)
ENGINE_EXPORT void __tsan_read_range(void* p, size_t n) { engine::check_access((char*)p, (int)n, 1, engine::READ, HERE, 0); }
ENGINE_EXPORT void __tsan_write_range(void* p, size_t n) { engine::check_access((char*)p, (int)n, 1, engine::WRITE, HERE, 0); }
ENGINE_EXPORT void* __tsan_memcpy(void* to, const void* from, size_t n) {
  engine::check_access((char*)from, (int)n, 1, engine::READ, HERE, 0);
  engine::check_access((char*)to, (int)n, 1, engine::WRITE, HERE, 0);
  return memcpy(to, from, n);
}
ENGINE_EXPORT void* __tsan_memset(void* to, int v, size_t n) {
  engine::check_access((char*)to, (int)n, 1, engine::WRITE, HERE, 0);
  return memset(to, v, n);
}
// By which calls a thread came to the function that it is in: those that were not inlined.
static const int DEEPEST = 32;
static uint64_t paths[engine::MOST_THREADS][DEEPEST];
ENGINE_EXPORT void __tsan_func_entry(void* from) {
  using namespace engine;
  if (current < 0) return;
  Fiber& f = fibers[current];
  if (f.depth++ >= DEEPEST) return;
  paths[current][f.depth - 1] = f.path;
  f.path = (f.path ^ (uint64_t)from) * 0x9e3779b97f4a7c15u;
}
ENGINE_EXPORT void __tsan_func_exit() {
  using namespace engine;
  if (current >= 0 && --fibers[current].depth < DEEPEST) fibers[current].path = paths[current][fibers[current].depth];
}
ENGINE_EXPORT void __tsan_init() {}
ENGINE_EXPORT void __sanitizer_cov_trace_pc() {
  using namespace engine;
  if (!stepping || current < 0) return;
  fill_pending(current);
  record(HERE, 0, STEP);
}

// The layouts are those that g++ and clang++ emit for -fsanitize=alignment,bounds,integer-divide-by-zero.
struct SourceLocation { const char* file; uint32_t line, column; };
struct TypeName { uint16_t kind, info; char name[1]; };
struct Misaligned { SourceLocation at; const TypeName* type; unsigned char log_alignment, access; };
struct OutOfBounds { SourceLocation at; const TypeName *array, *index; };
struct BadDivision { SourceLocation at; const TypeName* type; };
ENGINE_EXPORT void __ubsan_handle_type_mismatch_v1(const Misaligned* d, uint64_t p) {
  if (engine::current < 0) return;
  if (!p) engine::fail(d->at.file, (int)d->at.line, "out of bounds: access through a null pointer");
  engine::fail(d->at.file, (int)d->at.line, "misaligned: the address of a %s must be a multiple of %d bytes, and is %d past one",
               d->type->name, 1 << d->log_alignment, (int)(p & ((1u << d->log_alignment) - 1)));
}
ENGINE_EXPORT void __ubsan_handle_out_of_bounds(const OutOfBounds* d, uint64_t index) {
  if (engine::current < 0) return;
  engine::fail(d->at.file, (int)d->at.line, "out of bounds: index %lld of an array of type %s", (long long)(int64_t)index, d->array->name);
}
ENGINE_EXPORT void __ubsan_handle_divrem_overflow(const BadDivision* d, uint64_t, uint64_t) {
  if (engine::current < 0) return;
  engine::fail(d->at.file, (int)d->at.line, "integer division by zero");
}
