// Bytes to a call of a kernel, for libFuzzer: any shape, any place, any bits as data. The checks
// are those of the sweep. NORMKIT_CPU names the instruction set.
#include "check.h"

namespace normkit::native {
namespace {

// Most cases are short; some reach over a tile's end.
int64_t length(Source& source) {
  const uint64_t kind = source.below(8);
  if (kind < 6) return int64_t(source.below(kind < 3 ? 40 : 140));
  return int64_t(source.below(kind < 7 ? 600 : 2100));
}

Case decode(Kernel kernel, Source& source) {
  Case c;
  choose_flags(c, source);
  c.n = std::max<int64_t>(length(source), of_rows(kernel));
  const bool is_short = c.n < 140;
  c.rows = int64_t(source.below(is_short ? 20 : 6));
  if (planar(kernel)) c.channels = 1 + int64_t(source.below(is_short ? 34 : 6));
  c.split = int64_t(source.below(1 + uint64_t(std::max({c.n, c.rows, c.channels}))));
  for (int64_t* offset : {&c.x, &c.grad, &c.out, &c.again, &c.numbers})
    *offset = int64_t(source.below(32));
  c.place = Place(source.below(3));
  c.traffic = source.coin() ? Traffic::streamed : Traffic::cached;
  return c;
}

void run(const uint8_t* data, size_t size) {
  if (size < 3) return;
  const Kernel kernel = Kernel(data[0] % kKernels);
  Source source(data + 3, size - 3, Kind(data[1] % 3));
  const Case c = decode(kernel, source);
  const bool all = std::strcmp(instruction_set(), "avx512bf16");  // which has but one dtype
  switch (all ? data[2] % 4 : 0) {
    case 0:
      return check<bfloat16>(kernel, c, source);
    case 1:
      return check<float>(kernel, c, source);
    case 2:
      return check<float16>(kernel, c, source);
    default:
      return check<double>(kernel, c, source);
  }
}

}  // namespace
}  // namespace normkit::native

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  normkit::native::run(data, size);
  return 0;
}
