#include "cache.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>

namespace normkit {
namespace {

struct Cache {
  int64_t bytes;
  int64_t cores;  // that share it
};

// "0-3,8" names five CPUs.
int64_t count_cpus(const std::string& list) {
  int64_t count = 0;
  for (size_t at = 0; at < list.size();) {
    const size_t end = std::min(list.find(',', at), list.size());
    const std::string part = list.substr(at, end - at);
    const size_t dash = part.find('-');
    const int64_t first = std::atoll(part.c_str());
    const int64_t last = dash == std::string::npos ? first : std::atoll(&part[dash + 1]);
    count += last - first + 1;
    at = end + 1;
  }
  return std::max<int64_t>(1, count);
}

std::string read_line(const std::string& path) {
  char line[256] = "";
  if (std::FILE* file = std::fopen(path.c_str(), "r")) {
    if (!std::fgets(line, sizeof line, file)) line[0] = 0;
    std::fclose(file);
  }
  return line;
}

// A larger last cache is a socket's: tens of cores share it, whatever a virtual machine is told of
// them, and it answers little faster than memory. What a thread has of one:
constexpr int64_t kSocket = int64_t(128) << 20, kShare = int64_t(4) << 20;

// Shorter rows and planes share too many lines, where they are not whole lines, to go past a cache.
constexpr int64_t kLongRun = 512;

// As Linux tells it (sysconf does not know a virtual machine's); a usual one where it does not.
Cache read_last_cache() {
  const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index3/";
  const int64_t kilobytes = std::atoll(read_line(folder + "size").c_str());
  if (kilobytes <= 0) return {int64_t(16) << 20, int64_t(1) << 20};
  return {kilobytes * 1024, count_cpus(read_line(folder + "shared_cpu_list"))};
}

// What NORMKIT_CACHE_BYTES sets; anything but a number sets nothing.
std::optional<int64_t> read_given() {
  const char* text = std::getenv("NORMKIT_CACHE_BYTES");
  int64_t bytes = 0;
  if (!text || std::from_chars(text, text + std::strlen(text), bytes).ec != std::errc()) return {};
  return bytes;
}

// With half of the last cache, or all of it, for what is to stay. Half or all of what is given, or
// of a thread's part of a socket's cache, is the same.
Traffic traffic_within(bool half, int64_t bytes, int64_t run) {
  static const Cache last = read_last_cache();
  static const std::optional<int64_t> given = read_given();
  if (run % 64 != 0 && run < kLongRun) return Traffic::cached;
  if (given) return bytes > *given ? Traffic::streamed : Traffic::cached;
  const int64_t threads = torch::stable::get_num_threads();
  if (last.bytes > kSocket) return bytes > threads * kShare ? Traffic::streamed : Traffic::cached;
  // The threads may have several last caches between them. An eighth more than there is, as there
  // are sizes of a power of two and one.
  const int64_t all = std::max<int64_t>(1, threads / last.cores) * last.bytes;
  const int64_t ours = half ? all / 2 : all;
  return bytes > ours + ours / 8 ? Traffic::streamed : Traffic::cached;
}

}  // namespace

// Half is left to other users.
Traffic traffic(int64_t bytes, int64_t run) { return traffic_within(true, bytes, run); }
Traffic traffic_of_copy(int64_t written, int64_t run) {
  return traffic_within(false, written, run);
}

}  // namespace normkit
