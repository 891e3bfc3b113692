// A libcuda.so.1 without a card: it keeps the rules of the driver API that a launch depends on, and
// remembers the launches. Tests put it in the real one's place, so that cuda-bindings itself is in between.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, INVALID_IMAGE = 200, INVALID_CONTEXT = 201, NOT_FOUND = 500 };
static __thread void* stack[8];  // a thread begins without a context
static __thread int depth;
static char context[2], module, function;
static int granted = -1;

struct Launch { unsigned shape[6], shared_bytes; void *stream, *values[3]; };
struct Launch paper_launches[64];
int paper_count, paper_static, paper_retained;

static int number(const char* name, int otherwise) {
  const char* text = getenv(name);
  return text ? atoi(text) : otherwise;
}
static int in_context(void) { return depth > 0 && stack[depth - 1] != NULL; }

int cuInit(unsigned flags) { return flags ? INVALID_VALUE : SUCCESS; }
int cuGetExportTable(const void** table, const void* id) {  // NVRTC asks, and goes on without
  *table = NULL;
  return id ? NOT_FOUND : INVALID_VALUE;
}
int cuDriverGetVersion(int* version) { *version = number("PAPER_VERSION", 13000); return SUCCESS; }
int cuGetErrorString(int error, const char** text) {
  *text = error == INVALID_VALUE ? "invalid argument" : error == INVALID_CONTEXT ? "invalid device context" : "some error";
  return SUCCESS;
}
int cuDeviceGet(int* device, int ordinal) { *device = ordinal; return ordinal < 2 ? SUCCESS : 101; }
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  *value = attribute == 97 ? number("PAPER_SHARED", 232448) : 0;  // MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
  return device < 2 && attribute == 97 ? SUCCESS : INVALID_VALUE;
}
int cuDevicePrimaryCtxRetain(void** out, int device) { *out = &context[device]; paper_retained++; return SUCCESS; }
int cuCtxGetCurrent(void** out) { *out = depth ? stack[depth - 1] : NULL; return SUCCESS; }
int cuCtxSetCurrent(void* c) {
  if (!depth) depth = 1;
  stack[depth - 1] = c;
  return SUCCESS;
}
int cuCtxPushCurrent_v2(void* c) { stack[depth++] = c; return SUCCESS; }
int cuCtxPopCurrent_v2(void** c) {
  if (!depth) return INVALID_CONTEXT;
  *c = stack[--depth];
  return SUCCESS;
}
int cuModuleLoadData(void** out, const void* image) {
  if (!in_context()) return INVALID_CONTEXT;
  *out = &module;
  return memcmp(image, "\x7f" "ELF", 4) ? INVALID_IMAGE : SUCCESS;
}
int cuModuleGetFunction(void** out, void* m, const char* name) {
  *out = &function;
  return !in_context() ? INVALID_CONTEXT : m == &module && name[0] ? SUCCESS : NOT_FOUND;
}
int cuFuncGetAttribute(int* value, int attribute, void* f) {
  *value = attribute == 0 ? 1024 : attribute == 1 ? paper_static : -1;  // MAX_THREADS_PER_BLOCK, SHARED_SIZE_BYTES
  return f == &function && *value >= 0 ? SUCCESS : INVALID_VALUE;
}
int cuFuncSetAttribute(void* f, int attribute, int value) {
  if (attribute != 8 || paper_static + value > number("PAPER_SHARED", 232448)) return INVALID_VALUE;
  granted = value;  // MAX_DYNAMIC_SHARED_SIZE_BYTES
  return SUCCESS;
}
int cuTensorMapEncodeTiled(void* map, int kind, uint32_t rank, void* address, const uint64_t* sizes, const uint64_t* strides,
                           const uint32_t* box, const uint32_t* steps, int interleave, int swizzle, int promotion, int outside) {
  if ((uintptr_t)map % 128 || !address || (uintptr_t)address % 16 || rank != 2) return INVALID_VALUE;
  for (unsigned i = 0; i < rank; i++)
    if (!sizes[i] || !box[i] || box[i] > 256 || steps[i] != 1) return INVALID_VALUE;
  if (strides[0] % 16 || interleave || outside) return INVALID_VALUE;
  const uint64_t told[16] = {(uintptr_t)address, sizes[0], sizes[1], strides[0], box[0], box[1], kind, swizzle, promotion};
  memcpy(map, told, sizeof told);
  return SUCCESS;
}
int cuLaunchKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared_bytes,
                   void* stream, void** parameters, void** extra) {
  if (!in_context()) return INVALID_CONTEXT;
  const unsigned allowed = granted < 0 ? 48 * 1024 - paper_static : granted;
  if (f != &function || extra || !gx || !bx || shared_bytes > allowed) return INVALID_VALUE;
  struct Launch* launch = &paper_launches[paper_count++ % 64];
  const unsigned shape[] = {gx, gy, gz, bx, by, bz};
  memcpy(launch->shape, shape, sizeof shape);
  launch->shared_bytes = shared_bytes, launch->stream = stream;
  for (int i = 0; i < 3; i++) launch->values[i] = *(void**)parameters[i];  // the tests' kernels have three
  return SUCCESS;
}
int cuGetProcAddress_v2(const char* name, void** out, int version, uint64_t flags, int* status) {
  *out = dlsym(RTLD_DEFAULT, name);
  if (!*out) {
    char with_version[128] = "";
    strncat(with_version, name, 100);
    *out = dlsym(RTLD_DEFAULT, strcat(with_version, "_v2"));
  }
  if (status) *status = *out ? 0 : 1;
  return version >= 12000 && !flags ? (*out ? SUCCESS : NOT_FOUND) : INVALID_VALUE;
}
