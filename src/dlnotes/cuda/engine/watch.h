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
};
struct Buffer {
  const char* name;
  char* base;
  size_t bytes;
  int item, grain;
  Cell* cells;
};
static const int MOST_BUFFERS = 64;
static Buffer buffers[MOST_BUFFERS];
static int buffer_count;
static Cell* shared_cells;  // one for each byte of the arena
static uint32_t first_serial, block, epoch, stamp[MOST_THREADS / WARP];
// ordered[t][l] > s: what lane l of t's warp did at stamp s or before happened before what t does now
static uint32_t ordered[MOST_THREADS][WARP];
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
  if (dynamic_bytes) memset(shared_cells, 0, dynamic_bytes * sizeof(Cell));
}
static void watch_variable(const Variable& v) { memset(shared_cells + v.start, 0, v.bytes * sizeof(Cell)); }
static void watch_barrier() { epoch++; }
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
  return by_thread == (uint32_t)current || (by_thread / WARP == (uint32_t)current / WARP && ordered[current][by_thread % WARP] > by_stamp);
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
static void race(uint64_t pc, uint32_t line, int kind, int buffer, size_t offset, bool other_wrote, const Cell& c) {
  uint32_t by_block = other_wrote ? c.write_block : c.read_block, by_thread = other_wrote ? c.write_thread : SEVERAL;
  Place other = other_wrote ? place_of(c.write_pc, c.write_line) : place_of(c.read_pc, c.read_line);
  char who[96];
  bool here = by_block == block + 1;
  if (by_block == SEVERAL) snprintf(who, sizeof who, "several blocks");
  else if (!here) snprintf(who, sizeof who, "block %u", by_block - 1);
  else if (by_thread == SEVERAL) snprintf(who, sizeof who, "another thread of the block");
  else snprintf(who, sizeof who, "thread (%u,%u,%u)", fibers[by_thread].index.x, fibers[by_thread].index.y, fibers[by_thread].index.z);
  fail_at(pc, line, "race: %s of %s, which %s has %s in line %d, with no %s between", VERBS[kind], name_of(buffer, offset), who,
          PAST[other_wrote ? (c.write_atomic ? ATOMIC : WRITE) : READ], other.line, here ? "barrier" : "order");
}

static void check_cell(Cell& c, int kind, int buffer, size_t offset, uint64_t pc, uint32_t line) {
  const uint32_t me = block + 1, warp = (uint32_t)current / WARP, bit = 1u << current % WARP;
  bool written = c.write_block != 0;
  bool write_ordered = !written || before_me(c.write_block, c.write_epoch, c.write_thread, c.write_stamp);
  if (!write_ordered && !(kind == ATOMIC && c.write_atomic)) race(pc, line, kind, buffer, offset, true, c);
  if (kind != WRITE && buffer < 0 && !written && !uninitialised.found) {
    Place place = place_of(pc, line);
    uninitialised.found = true, uninitialised.thread = current, uninitialised.file = place.file, uninitialised.line = place.line;
    snprintf(uninitialised.text, sizeof uninitialised.text, "uninitialised: %s of %s, which no thread of the block has written", VERBS[kind], name_of(buffer, offset));
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
  // Atomics of several threads that nothing orders: none of them alone stands for the others.
  bool several = !write_ordered;
  c.write_thread = several ? SEVERAL : (uint32_t)current;
  c.write_block = several && c.write_block != me ? SEVERAL : me;
  c.write_epoch = epoch, c.write_stamp = stamp[warp], c.write_pc = pc, c.write_line = line, c.write_atomic = kind == ATOMIC;
  c.read_block = 0, c.read_lanes = 0, c.other_block = 0;
}

// ---- one access ----------------------------------------------------------------------------------
static int shared_variable_at(size_t offset) {
  if (offset < dynamic_bytes) return 0;
  for (int i = 1; i < variable_count; i++)
    if (offset >= variables[i].start && offset < variables[i].start + variables[i].bytes) return i;
  return -1;
}
static void outside_shared(const char* p, int bytes, int kind, uint64_t pc, uint32_t line) {
  size_t offset = (size_t)(p - arena);
  int near = -1;
  for (int i = 0; i < variable_count; i++)
    if (variables[i].bytes && variables[i].start <= offset) near = i;
  if (near < 0) fail_at(pc, line, "out of bounds: %s of shared memory, of which the launch gave no dynamic bytes", VERBS[kind]);
  const Variable& v = variables[near];
  fail_at(pc, line, "out of bounds: %s of %d bytes at shared '%s'[%zu], which has %zu elements", VERBS[kind], bytes, v.name,
          (offset - v.start) / (size_t)v.item, v.bytes / (size_t)v.item);
}
static void outside_arguments(const char* p, int bytes, int kind, uint64_t pc, uint32_t line) {
  if (!p || (size_t)p < 4096) fail_at(pc, line, "out of bounds: %s through a null pointer", VERBS[kind]);
  int near = -1;
  size_t nearest = (size_t)-1;
  for (int i = 0; i < buffer_count; i++) {
    size_t away = p < buffers[i].base ? (size_t)(buffers[i].base - p) : (size_t)(p - buffers[i].base);
    if (away < nearest) nearest = away, near = i;
  }
  if (near < 0) fail_at(pc, line, "out of bounds: %s outside every array", VERBS[kind]);
  Buffer& b = buffers[near];
  ptrdiff_t away = p - b.base, item = b.item;
  fail_at(pc, line, "out of bounds: %s of %d bytes at '%s'[%td], which has %zu elements", VERBS[kind], bytes, b.name,
          away >= 0 ? away / item : -((-away + item - 1) / item), b.bytes / (size_t)b.item);
}
static void check_access(char* p, int bytes, int aligned_to, int kind, uint64_t pc, uint32_t line) {
  if (current < 0) return;
  Fiber& f = fibers[current];
  if (p >= f.stack && p < f.stack + STACK) return;
  fill_pending(current);
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
      if (p >= module_low && p < module_high) return;  // threadIdx, constants: the module's own data
      outside_arguments(p, bytes, kind, pc, line);
    }
  }
  if ((size_t)p % (size_t)aligned_to)
    fail_at(pc, line, "misaligned: %s of %d bytes at %s, which is not at a multiple of %d bytes", VERBS[kind], bytes, name_of(buffer, offset), aligned_to);
  for (size_t o = offset / (size_t)grain * (size_t)grain; o < offset + (size_t)bytes; o += (size_t)grain)
    check_cell(cells[buffer < 0 ? o : o / (size_t)grain], kind, buffer, o, pc, line);
  if (recording) {
    Event* e = record(pc, line, kind);
    if (!e) return;
    e->buffer = (int16_t)buffer, e->offset = (uint32_t)offset, e->bytes = (uint8_t)(bytes > 255 ? 255 : bytes);
    if (kind == READ) memcpy(e->value, p, (size_t)(bytes < 16 ? bytes : 16));
    else pending_write[current] = (int)event_count;
  }
}
void touch(const void* p, int bytes, Access access, const char* file, int line) {
  check_access((char*)p, bytes, bytes, access, (uint64_t)file, (uint32_t)line);
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
  for (int i = 0; i < count && i < MOST_BUFFERS; i++) {
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
ENGINE_EXPORT size_t engine_event_count() { return engine::event_count; }
ENGINE_EXPORT const Event* engine_events() { return engine::events; }
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
ENGINE_EXPORT void __tsan_func_entry(void*) {}
ENGINE_EXPORT void __tsan_func_exit() {}
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
