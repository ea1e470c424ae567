// Ends the program at the first thing that is wrong, saying in which case.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

namespace normkit::native {

// What is being run: the sweep and the fuzzer set it before each call.
inline char now[256] = "";

[[noreturn, gnu::format(printf, 1, 2)]] inline void fail(const char* format, ...) {
  std::va_list values;
  va_start(values, format);
  std::fprintf(stderr, "\nFAILED: %s\n  ", now);
  std::vfprintf(stderr, format, values);
  std::fprintf(stderr, "\n");
  std::abort();
}

}  // namespace normkit::native
