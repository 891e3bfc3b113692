// The engine that runs CUDA kernels on a CPU: fibers, barriers and, with ENGINE_WATCH, the checks.
// How it works stands in cuda_on_cpu.h and, for readers, in dlnotes.cuda. No C++ library is used,
// so that any compiler will do; never compiled with -fsanitize: its own accesses are not watched.
#define ENGINE_RUNTIME
#include "cuda_on_cpu.h"

#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

// ---- switching stacks: save what a function must preserve, swap the stack pointer --------------------
extern "C" void engine_switch(void** save, void* load);
#ifdef __APPLE__
#define ASM_NAME "_engine_switch"
#else
#define ASM_NAME "engine_switch"
#endif
#if defined(__x86_64__)
asm(".text\n.globl " ASM_NAME "\n" ASM_NAME ":\n"
    " pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
    " movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
    " popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret\n");
#elif defined(__aarch64__)
asm(".text\n.globl " ASM_NAME "\n.p2align 2\n" ASM_NAME ":\n"
    " sub sp, sp, #160\n"
    " stp x19, x20, [sp]\n stp x21, x22, [sp, #16]\n stp x23, x24, [sp, #32]\n"
    " stp x25, x26, [sp, #48]\n stp x27, x28, [sp, #64]\n stp x29, x30, [sp, #80]\n"
    " stp d8, d9, [sp, #96]\n stp d10, d11, [sp, #112]\n stp d12, d13, [sp, #128]\n stp d14, d15, [sp, #144]\n"
    " mov x9, sp\n str x9, [x0]\n mov sp, x1\n"
    " ldp x19, x20, [sp]\n ldp x21, x22, [sp, #16]\n ldp x23, x24, [sp, #32]\n"
    " ldp x25, x26, [sp, #48]\n ldp x27, x28, [sp, #64]\n ldp x29, x30, [sp, #80]\n"
    " ldp d8, d9, [sp, #96]\n ldp d10, d11, [sp, #112]\n ldp d12, d13, [sp, #128]\n ldp d14, d15, [sp, #144]\n"
    " add sp, sp, #160\n ret\n");
#else
#error "the CPU engine of dlnotes.cuda runs on x86-64 and arm64"
#endif
#if defined(__linux__) && defined(__ELF__)
asm(".section .note.GNU-stack,\"\",%progbits\n.text\n");
#endif

// What Python reads after a launch that failed.
struct Failure {
  char text[2048];
  char file[1024];
  int line, has_thread;
  unsigned block[3], thread[3];
};
static Failure failure;
static volatile sig_atomic_t interrupted;

namespace engine {
enum State { NEW, READY, AT_WARP_MEETING, AT_GROUP_MEETING, AT_BLOCK_BARRIER, AT_MBARRIER, AT_ACTIVE_MASK, DONE };
struct Fiber {
  void* stack_pointer;
  char* stack;  // lowest address
  uint3 index;
  State state;
  const char *what, *file;  // where it waits
  int line;
  uint64_t site;  // by which calls it came there: of barriers and __activemask
  uint64_t path;  // the same for the function that it is in (watch.h)
  int depth;
  unsigned mask;
  void* argument;
  Meeting meet;
  int vote, barrier, parity;
};
static const int MOST_THREADS = 1024, WARP = 32, MOST_MBARRIERS = 64;
// Stacks begin at different places of their pages: else their ends would compete for a few lines of the cache.
static const size_t LEAST_STACK = 128 << 10, SPREAD = 16 << 10, STACK = LEAST_STACK + SPREAD, GUARD = 16 << 10;
static const size_t GAP = 128, MOST_GAP = 16 << 10;  // between shared variables
static const size_t FENCE = (size_t)16 << 30;        // addresses on each side of what is watched
static size_t most_static = 48 << 10;  // bytes of shared memory that a kernel declares

static Fiber fibers[MOST_THREADS];
static int threads, current = -1;  // in this block; the one that runs, or -1
static char* stacks;               // one region, a guard page below each stack
static void* scheduler;            // its stack pointer while a fiber runs
static void (*kernel_body)(void**);
static void** kernel_arguments;
static sigjmp_buf way_out;
static int barrier_answer;

// The arena of shared memory: the dynamic part first, then static variables, with gaps between.
// Variables at file scope have places of their own, the same in all blocks.
static char* arena;
static const size_t ARENA = 1 << 20, FILE_SCOPE = 512 << 10;
static size_t dynamic_bytes, arena_used, static_bytes;
unsigned block_serial;  // counts the blocks of all launches: a variable placed in an earlier one is stale

// Bytes are watched `grain` at a time: as much as a word of the element, and less once less is accessed.
struct Variable { const char* name; size_t start, bytes; int item, grain, word; char code; };
static const int MOST_VARIABLES = 256;
static Variable variables[MOST_VARIABLES];  // of the current block; 0 is the dynamic part
static int variable_count;
static bool dynamic_declared;
// At file scope: 0 is again the dynamic part, whose place is known when the file is loaded, too.
struct FileVariable { Variable as; const char* file; int line; };
static FileVariable file_variables[MOST_VARIABLES];
static int file_count = 1;
static size_t file_used = FILE_SCOPE;
static void watch_variable(const Variable&);
static void watch_finer(int buffer);
static void watch_block_start();
static void watch_block_end();
static void watch_barrier();
static void watch_sync(const char* file, int line, bool whole_block);
static void watch_syncwarp(int first, unsigned mask);
// Of what runs beside the threads: reads its source, may write from now on, has written; an operand of wgmma.
enum Landing { LANDED, CP_ASYNC, TMA, MBARRIER };
static void watch_source(const char* from, int bytes, int aligned, const char* file, int line);
static void watch_issue(char* to, int bytes, int aligned, const unsigned char* value, Landing by, const char* file, int line);
static void watch_landed(char* to, int bytes, int by);
static void watch_operand(char* at, int bytes, const char* file, int line);
static void watch_operand_done(char* at, int bytes);
static void watch_mbarrier(char* at, bool init, const char* file, int line);
static void watch_fine_order();
static void watch_arrive(int barrier);
static void watch_phase_end(int barrier, uint32_t phase);
static void watch_acquire(int thread, int barrier);
static bool blame_uninitialised(const char* text);
#ifdef ENGINE_WATCH
static const bool STRICT = true;  // refuse what hardware forgives and the programming guide does not
#else
static const bool STRICT = false;
#endif

static void stop(const char* file, int line, const char* format, va_list values) {
  vsnprintf(failure.text, sizeof failure.text, format, values);
  snprintf(failure.file, sizeof failure.file, "%s", file ? file : "");
  failure.line = line;
  failure.has_thread = current >= 0;
  failure.block[0] = blockIdx.x, failure.block[1] = blockIdx.y, failure.block[2] = blockIdx.z;
  if (current >= 0) {
    uint3 t = fibers[current].index;
    failure.thread[0] = t.x, failure.thread[1] = t.y, failure.thread[2] = t.z;
  }
  blame_uninitialised(failure.text);
  siglongjmp(way_out, 1);
}
void fail(const char* file, int line, const char* format, ...) {
  va_list values;
  va_start(values, format);
  if (!file && current >= 0) file = fibers[current].file, line = fibers[current].line;
  stop(file, line, format, values);
  __builtin_unreachable();
}

// ---- fibers --------------------------------------------------------------------------------------
static void to_scheduler() { engine_switch(&fibers[current].stack_pointer, scheduler); }
static void fiber_main() {
  kernel_body(kernel_arguments);
  fibers[current].state = DONE;
  to_scheduler();
  __builtin_trap();
}
static void resume(int i) {
  Fiber& f = fibers[i];
  if (f.state == NEW) {
    void** top = (void**)(f.stack + STACK - (size_t)i * 320 % SPREAD);
#if defined(__x86_64__)
    *--top = 0;
    *--top = (void*)fiber_main;
    top -= 6;
    memset(top, 0, 6 * sizeof(void*));
#else
    top -= 20;
    memset(top, 0, 20 * sizeof(void*));
    top[11] = (void*)fiber_main;  // x30, where `ret` goes
#endif
    f.stack_pointer = top;
  }
  f.state = READY;
  current = i;
  threadIdx = f.index;
  engine_switch(&scheduler, f.stack_pointer);
  current = -1;
}
unsigned lane() { return (unsigned)current % WARP; }
// The lanes that are in the same branch: a lane waits until no other of its warp can go on, and those
// that then wait at the same place have come together.
unsigned active_mask(const char* file, int line, void* from) {
  Fiber& f = fibers[current];
  f.what = "__activemask", f.file = file, f.line = line;
  f.site = f.path ^ (uint64_t)(STRICT ? from : __builtin_return_address(0));
  f.state = AT_ACTIVE_MASK;
  to_scheduler();
  return f.mask;
}
static bool come_together(int first, int end) {
  unsigned mask = 0;
  int leader = -1;
  for (int i = first; i < end; i++) {
    if (fibers[i].state != AT_ACTIVE_MASK) continue;
    if (leader < 0) leader = i;
    if (fibers[i].site == fibers[leader].site && fibers[i].line == fibers[leader].line) mask |= 1u << (i - first);
  }
  for (int i = first; i < end; i++)
    if (mask >> (i - first) & 1) fibers[i].mask = mask, fibers[i].state = READY;
  return mask;
}

// ---- meetings of a warp --------------------------------------------------------------------------
static bool meeting_complete(int i) {
  Fiber& f = fibers[i];
  int first = i & ~(WARP - 1);
  unsigned present = 0;
  void* arguments[WARP];
  for (int l = 0; l < WARP; l++) {
    if (!(f.mask >> l & 1)) continue;
    Fiber& other = fibers[first + l];
    if (first + l >= threads || other.state == DONE) {
      if (STRICT && first + l < threads) {
        current = i;
        fail(f.file, f.line, "divergent warp: the mask %08x of %s names lane %d, which has returned", f.mask, f.what, l);
      }
      continue;
    }
    if (other.state != AT_WARP_MEETING || other.mask != f.mask || other.what != f.what) return false;
    present |= 1u << l;
    arguments[l] = other.argument;
  }
  int caller = current;
  current = i;  // who is named if the meeting fails
  if (f.meet) f.meet(arguments, present);
  else watch_syncwarp(first, present);
  current = caller;
  for (int l = 0; l < WARP; l++)
    if (present >> l & 1) fibers[first + l].state = READY;
  return true;
}
void warp_meeting(unsigned mask, void* argument, Meeting meet, const char* what, const char* file, int line) {
  Fiber& f = fibers[current];
  f.mask = mask, f.argument = argument, f.meet = meet, f.what = what, f.file = file, f.line = line;
  f.state = AT_WARP_MEETING;
  if (!(mask >> lane() & 1)) fail(file, line, "divergent warp: lane %u calls %s with the mask %08x, which does not name it", lane(), what, mask);
  watch_sync(file, line, false);
  if (!meeting_complete(current)) to_scheduler();
}

// The same for the four warps of a warpgroup; `meet` gets all their arguments and the first thread.
static void group_meeting(void* argument, void (*meet)(void**, int), const char* what, const char* file, int line) {
  static const int MANY = 128;
  Fiber& f = fibers[current];
  const int first = current / MANY * MANY;
  f.argument = argument, f.what = what, f.file = file, f.line = line;
  f.state = AT_GROUP_MEETING;
  if (first + MANY > threads) fail(file, line, "divergent warp: %s needs %d threads from %d on, and the block has %d", what, MANY, first, threads);
  void* arguments[MANY];
  for (int i = 0; i < MANY; i++) {
    const Fiber& other = fibers[first + i];
    if (other.state != AT_GROUP_MEETING || other.what != what) {
      to_scheduler();
      return;
    }
    arguments[i] = other.argument;
  }
  meet(arguments, first);
  for (int i = 0; i < MANY; i++) fibers[first + i].state = READY;
}

// ---- barriers of a block -------------------------------------------------------------------------
int block_barrier(const char* what, int vote, const char* file, int line, void* from) {
  Fiber& f = fibers[current];
  f.what = what, f.file = file, f.line = line, f.vote = vote;
  f.site = f.path ^ (uint64_t)from;
  f.state = AT_BLOCK_BARRIER;
  watch_sync(file, line, true);
  to_scheduler();
  return barrier_answer;
}

// "threads 0 to 31 wait at __syncthreads in line 12; threads 32 to 63 have returned"
static bool same_place(const Fiber& f, const Fiber& g) {
  if (f.state != g.state) return false;
  return f.state == DONE || (f.line == g.line && f.what == g.what && (f.state != AT_BLOCK_BARRIER || f.site == g.site));
}
static void describe(char* text, size_t bytes) {
  size_t n = 0;
  const Fiber* barrier = 0;  // the first that waits at one
  for (int i = 0, j; i < threads && n + 200 < bytes; i = j) {
    Fiber& f = fibers[i];
    for (j = i + 1; j < threads; j++) {
      if (!same_place(f, fibers[j])) break;
    }
    n += (size_t)snprintf(text + n, bytes - n, j > i + 1 ? "%sthreads %d to %d " : "%sthread %d ", i ? "; " : "", i, j - 1);
    if (f.state == DONE) n += (size_t)snprintf(text + n, bytes - n, i == j - 1 ? "has returned" : "have returned");
    else n += (size_t)snprintf(text + n, bytes - n, "%s at %s in line %d", i == j - 1 ? "waits" : "wait", f.what, f.line);
    if (f.state != AT_BLOCK_BARRIER) continue;
    if (!barrier) barrier = &f;
    else if (f.line == barrier->line && f.what == barrier->what && f.site != barrier->site)
      n += (size_t)snprintf(text + n, bytes - n, ", reached another way");
  }
}
static void describe_mbarriers(char* text, size_t bytes);
static void stuck(const char* kind) {
  char text[1536] = "";
  describe(text, sizeof text);
  describe_mbarriers(text, sizeof text);
  for (int i = 0; i < threads; i++)
    if (fibers[i].state != DONE) {
      current = i;
      break;
    }
  fail(0, 0, "%s: %s", kind, text);
}
// All threads that have not returned wait at the barrier: let them go on.
static void release_block(int waiting) {
  int votes = 0, first = -1;
  for (int i = 0; i < threads; i++) {
    Fiber& f = fibers[i];
    if (f.state != AT_BLOCK_BARRIER) continue;
    if (first < 0) first = i;
    if (STRICT && !same_place(f, fibers[first])) stuck("divergent barrier");
    votes += f.vote == ENGINE_VOTE_TRUE;
  }
  if (STRICT && waiting < threads) stuck("divergent barrier");
  for (int i = 0; i < threads; i++)
    if (fibers[i].state == AT_BLOCK_BARRIER) fibers[i].state = READY;
  barrier_answer = votes;
  watch_barrier();
}

static size_t gap_around(size_t bytes) { return bytes < GAP ? GAP : bytes < MOST_GAP ? bytes : MOST_GAP; }
static void start_async();
static void finish_async();
static bool mbarrier_ready(int i);
static void run_block() {
  block_serial++;
  arena_used = dynamic_bytes + gap_around(dynamic_bytes);
  static_bytes = 0;
  variable_count = file_count;
  memset(arena, 0xff, dynamic_bytes);  // poison: as floats, NaN
  dynamic_declared = file_variables[0].file;
  variables[0] = dynamic_declared ? file_variables[0].as : Variable{"dynamic shared memory", 0, 0, 1, 1, 1, 'B'};
  variables[0].bytes = dynamic_bytes;
  watch_block_start();
  for (int i = 1; i < file_count; i++) {
    variables[i] = file_variables[i].as;
    memset(arena + variables[i].start, 0xff, variables[i].bytes);
    watch_variable(variables[i]);
  }
  start_async();
  int i = 0;
  for (unsigned z = 0; z < blockDim.z; z++)
    for (unsigned y = 0; y < blockDim.y; y++)
      for (unsigned x = 0; x < blockDim.x; x++, i++) fibers[i].index = uint3{x, y, z}, fibers[i].state = NEW, fibers[i].path = 0, fibers[i].depth = 0;
  for (;;) {
    bool progress = false;
    for (int w = 0; w < threads; w += WARP) {  // each warp runs until all its lanes wait
      int end = w + WARP < threads ? w + WARP : threads;
      for (bool again = true; again;) {
        again = false;
        for (int i = w; i < end; i++)
          if (fibers[i].state <= READY) resume(i), again = progress = true;
        for (int i = w; i < end && !again; i++)
          if (fibers[i].state == AT_WARP_MEETING && meeting_complete(i)) again = progress = true;
          else if (fibers[i].state == AT_MBARRIER && mbarrier_ready(i)) fibers[i].state = READY, again = progress = true;
        if (!again && come_together(w, end)) again = progress = true;
      }
    }
    int done = 0, waiting = 0;
    for (int i = 0; i < threads; i++) done += fibers[i].state == DONE, waiting += fibers[i].state == AT_BLOCK_BARRIER;
    if (done == threads) break;
    if (waiting + done == threads) release_block(waiting);
    else if (!progress) stuck("deadlock");
  }
  finish_async();
  watch_block_end();
}

// ---- shared variables ----------------------------------------------------------------------------
static int grain_of(int item) { return item % 4 == 0 ? 4 : item % 2 == 0 ? 2 : 1; }
static Variable variable_at(size_t start, const char* name, size_t bytes, int item, char code) {
  return Variable{name, start, bytes, item, grain_of(item), grain_of(item), code};
}
static size_t next_place(size_t used, size_t bytes, size_t align) {
  if (align < GAP) align = GAP;
  return (used + gap_around(bytes) + align - 1) / align * align;
}
static void too_much(size_t bytes, const char* name, const char* file, int line) {
  fail(file, line, "%zu bytes of static shared memory with '%s': a block has at most %zu; more must be dynamic", bytes, name, most_static);
}
void Shared::place(size_t bytes, size_t align, int item, char code, const char* file, int line) {
  static_bytes += bytes;
  if (static_bytes > most_static || variable_count == MOST_VARIABLES) too_much(static_bytes, name, file, line);
  const size_t start = next_place(arena_used, bytes, align);
  arena_used = start + bytes + gap_around(bytes);
  address = arena + start;
  serial = block_serial;
  id = variable_count;
  memset(address, 0xff, bytes);
  variables[variable_count++] = variable_at(start, name, bytes, item, code);
  watch_variable(variables[id]);
}
void* dynamic_shared(const char* name, int item, char code) {
  Variable& v = variables[0];
  const Variable before = v;
  v = variable_at(0, name, dynamic_bytes, item, code);
  if (dynamic_declared && before.grain != v.grain) {  // with elements of several sizes: the finest counts
    const bool finer = before.grain > v.grain;
    v.grain = before.grain, v.word = before.word;
    if (finer) watch_finer(-1);
  }
  dynamic_declared = true;
  return arena;
}
static bool reserve_arena();
// These run when the file is loaded. A kernel may use none of them, so only each alone is held against
// the limit, when a kernel is launched.
void* file_shared(const char* name, size_t bytes, size_t align, int item, char code, const char* file, int line) {
  const size_t start = next_place(file_used, bytes, align);
  if (!reserve_arena() || file_count == MOST_VARIABLES || bytes > ARENA || start + bytes + MOST_GAP > ARENA) {
    file_used = ARENA;
    return 0;
  }
  file_variables[file_count++] = FileVariable{variable_at(start, name, bytes, item, code), file, line};
  file_used = start + bytes + gap_around(bytes);
  return arena + start;
}
void* file_dynamic_shared(const char* name, int item, char code, const char* file, int line) {
  if (!reserve_arena()) return 0;
  file_variables[0] = FileVariable{variable_at(0, name, 0, item, code), file, line};
  return arena;
}

}  // namespace engine
#include "async.h"
namespace engine {
// ---- a launch ------------------------------------------------------------------------------------
static pthread_t launcher;
static void on_signal(int number) {
  if (!pthread_equal(pthread_self(), launcher)) {
    pthread_kill(launcher, number);
    return;
  }
  if (number == SIGINT) {
    interrupted = 1;
    fail(0, 0, "interrupted");
  }
  if (number == SIGFPE) fail("", 0, "integer division by zero, or of the smallest integer by -1");
  if (number == SIGILL || number == SIGTRAP) fail("", 0, "the kernel stopped at a trap, which the compiler sets where no code can be right");
  fail("", 0, "access to an address that is not the kernel's, or a stack of more than %zu KB; mode=\"checked\" says where", LEAST_STACK >> 10);
}
static const int SIGNALS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGINT};

// Memory of the given sizes, far from each other and from everything else. What lies between is addresses
// without memory, and as much of it as the system grants: an index that is wrong by gigabytes still leads
// beside its own array and not into another. Where a process may have only so many addresses, as in a
// sandbox, most are left for other uses, the stacks of a block among them.
static size_t whole_pages(size_t bytes) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  return (bytes + page) / page * page;
}
static char* reserve(int count, const size_t* bytes, char** places, size_t* whole) {
  size_t together = 0;
  for (int i = 0; i < count; i++) together += whole_pages(bytes[i]);
  struct rlimit limit;
  const bool limited = !getrlimit(RLIMIT_AS, &limit) && limit.rlim_cur != RLIM_INFINITY;
  for (size_t fence = 2 * FENCE; fence >= 2 * MOST_GAP; fence /= 2) {
    *whole = together + (size_t)(count + 1) * fence;
    if (limited && *whole > together + limit.rlim_cur / 16 && fence > 2 * MOST_GAP) continue;
    char* start = (char*)mmap(0, *whole, PROT_NONE, MAP_PRIVATE | MAP_ANON | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED) continue;
    char* at = start;
    bool usable = true;
    for (int i = 0; i < count; i++) {
      places[i] = at += fence;
      usable &= !mprotect(at, whole_pages(bytes[i]), PROT_READ | PROT_WRITE);
      at += whole_pages(bytes[i]);
    }
    if (usable) return start;
    munmap(start, *whole);
    return 0;
  }
  return 0;
}

// Pages, so aligned to 1024 bytes as dynamic shared memory may be asked to be (swizzled tiles).
static char* arena_start;
static size_t arena_whole;
static bool reserve_arena() {
  if (arena) return true;
  const size_t bytes = ARENA;
  if (STRICT) arena_start = reserve(1, &bytes, &arena, &arena_whole);
  else arena = (char*)mmap(0, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
  if (STRICT ? arena_start != 0 : arena != MAP_FAILED) return true;
  arena = 0;
  return false;
}
static const size_t STACKS = MOST_THREADS * (STACK + GUARD);
static void allocate() {
  if (!reserve_arena()) fail("", 0, "no memory for the shared memory of a block");
  if (file_used == ARENA) fail("", 0, "more shared memory at file scope than any block has");
  for (int i = 1; i < file_count; i++) {
    const FileVariable& v = file_variables[i];
    if (v.as.bytes > most_static) too_much(v.as.bytes, v.as.name, v.file, v.line);
  }
  stacks = (char*)mmap(0, STACKS, PROT_NONE, MAP_PRIVATE | MAP_ANON | MAP_NORESERVE, -1, 0);
  if (stacks == MAP_FAILED) {
    stacks = 0;
    fail("", 0, "no memory for the stacks of a block");
  }
  for (int i = 0; i < threads; i++) {
    fibers[i].stack = stacks + (size_t)i * (STACK + GUARD) + GUARD;
    if (mprotect(fibers[i].stack, STACK, PROT_READ | PROT_WRITE)) fail("", 0, "no memory for the stacks of a block");
  }
}
// After each launch: every stack with its guard counts as two mappings, of which Linux allows a
// process 65 530, and a process may have loaded many kernels.
static void release() {
  if (stacks) munmap(stacks, STACKS);
  stacks = 0;
  // Addresses are plenty, but not for every kernel of a process; those at file scope have to stay.
  if (arena_start && file_count == 1 && !file_variables[0].file) munmap(arena_start, arena_whole), arena = arena_start = 0;
}
void launch(void (*body)(void**), void** arguments, const unsigned* shape, size_t shared_bytes) {
  static char signal_stack[64 << 10];
  stack_t ours, theirs;
  memset(&ours, 0, sizeof ours);
  ours.ss_sp = signal_stack, ours.ss_size = sizeof signal_stack;
  struct sigaction action, before[sizeof SIGNALS / sizeof *SIGNALS];
  memset(&action, 0, sizeof action);
  action.sa_handler = on_signal, action.sa_flags = SA_ONSTACK;
  launcher = pthread_self();
  failure.text[0] = 0, interrupted = 0, current = -1;
  kernel_body = body, kernel_arguments = arguments, dynamic_bytes = shared_bytes;
  gridDim = dim3(shape[0], shape[1], shape[2]), blockDim = dim3(shape[3], shape[4], shape[5]);
  threads = (int)(blockDim.x * blockDim.y * blockDim.z);
  sigaltstack(&ours, &theirs);
  for (size_t i = 0; i < sizeof SIGNALS / sizeof *SIGNALS; i++) sigaction(SIGNALS[i], &action, &before[i]);
  if (!sigsetjmp(way_out, 1)) {
    allocate();
    for (blockIdx.z = 0; blockIdx.z < gridDim.z; blockIdx.z++)
      for (blockIdx.y = 0; blockIdx.y < gridDim.y; blockIdx.y++)
        for (blockIdx.x = 0; blockIdx.x < gridDim.x; blockIdx.x++) run_block();
  }
  for (size_t i = 0; i < sizeof SIGNALS / sizeof *SIGNALS; i++) sigaction(SIGNALS[i], &before[i], 0);
  sigaltstack(&theirs, 0);
  current = -1;
  release();
}
}  // namespace engine

ENGINE_EXPORT const Failure* engine_failure() { return failure.text[0] ? &failure : 0; }
ENGINE_EXPORT int engine_interrupted() { return interrupted; }
ENGINE_EXPORT void engine_most_static(size_t bytes) { engine::most_static = bytes; }

#ifndef ENGINE_WATCH
namespace engine {
static void watch_variable(const Variable&) {}
static void watch_finer(int) {}
static void watch_block_start() {}
static void watch_block_end() {}
static void watch_barrier() {}
static void watch_sync(const char*, int, bool) {}
static void watch_syncwarp(int, unsigned) {}
static bool blame_uninitialised(const char*) { return false; }
void touch(const void*, int, Access, const char*, int) {}
static void watch_source(const char*, int, int, const char*, int) {}
static void watch_issue(char*, int, int, const unsigned char*, Landing, const char*, int) {}
static void watch_landed(char*, int, int) {}
static void watch_operand(char*, int, const char*, int) {}
static void watch_operand_done(char*, int) {}
static void watch_mbarrier(char*, bool, const char*, int) {}
static void watch_fine_order() {}
static void watch_arrive(int) {}
static void watch_phase_end(int, uint32_t) {}
static void watch_acquire(int, int) {}
}  // namespace engine
#else
#include "watch.h"
#endif
