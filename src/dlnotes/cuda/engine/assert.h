// A failed assert ends the launch with an error and not the process. Like the C library's, this may be
// read again after NDEBUG has changed, hence no #pragma once.
#undef assert
#ifdef NDEBUG
#define assert(condition) ((void)0)
#else
#define assert(condition) \
  ((condition) ? (void)0 : engine::fail(__FILE__, __LINE__, "assertion failed: %s", #condition))
#endif
