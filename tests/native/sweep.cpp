// Every kernel at every length from 0 to four vectors of the widest kind and around the ends of
// tiles, at every misalignment of what it reads and writes, in both kinds of traffic; what else may
// differ (rows, gaps, what is asked for) changes from case to case. NORMKIT_CPU names the
// instruction set.
#include "check.h"

namespace normkit::native {
namespace {

int64_t cases = 0;

// Four vectors, or pairs of them, are 256 bytes of T, and no fewer than 64 elements where T is
// half of what is computed in.
template <class T>
std::vector<int64_t> lengths() {
  std::vector<int64_t> all;
  for (int64_t n = 0; n <= 256 / int64_t(sizeof(T)); ++n) all.push_back(n);
  for (int64_t end : {256, 512, 1024, 2048})
    for (int64_t n = end - 1; n <= end + 1; ++n)
      if (n > all.back()) all.push_back(n);
  return all;
}

// Which of the operands lie `offset` past the begin of a line: all, or one while the others lie on
// one.
constexpr int kAlone = 4;
void arrange(Case& c, int alone, int64_t offset) {
  if (alone == 0) c.x = c.grad = c.out = c.numbers = offset;
  if (alone == 1) c.x = offset;
  if (alone == 2) c.grad = offset;
  if (alone == 3) c.out = offset;
  if (alone == 4) c.numbers = offset;
}

Case make(Kernel kernel, int64_t n, Source& random) {
  Case c;
  choose_flags(c, random);
  c.n = n;
  const bool often = n <= 256;
  c.rows = int64_t(random.below(often ? 10 : 4));
  if (often && random.below(16) == 0) c.rows += 30;  // more than one pass over rows
  if (planar(kernel)) c.channels = 1 + int64_t(random.below(often ? 6 : 2));
  if (planar(kernel) && n < 64 && random.below(16) == 0) c.channels += 30;
  c.split = int64_t(random.below(1 + std::max(c.rows, c.channels)));
  if (!planar(kernel) && !of_rows(kernel) && random.coin())
    c.split = int64_t(random.below(1 + uint64_t(n)));
  c.again = int64_t(random.below(8));
  return c;
}

template <class T>
void run(Kernel kernel, Case c, Source& random) {
  for (Kind kind : {Kind::tame, Kind::any_scale})
    for (Traffic traffic : {Traffic::cached, Traffic::streamed}) {
      if (kind == Kind::any_scale && !of_rows(kernel)) continue;
      random.turn(kind);
      c.traffic = traffic;
      check<T>(kernel, c, random);
      ++cases;
    }
}

template <class T>
void sweep(Kernel kernel) {
  Source random(uint64_t(kernel) + 1);
  for (int64_t n : lengths<T>()) {
    if (n == 0 && of_rows(kernel)) continue;  // the operators return before
    for (Place place : {Place::first, Place::last}) {
      Case c = make(kernel, n, random);
      c.place = place;
      run<T>(kernel, c, random);
    }
    for (int64_t offset = 0; offset < 64 / int64_t(sizeof(T)); ++offset)
      for (int alone : {0, 1 + int((n + offset) % kAlone)}) {
        Case c = make(kernel, n, random);
        arrange(c, alone, offset);
        run<T>(kernel, c, random);
      }
  }
}

template <class T>
void sweep_all() {
  for (int k = 0; k < kKernels; ++k) sweep<T>(Kernel(k));
}

// The floor has no shapes but a length.
int64_t sweep_floor() {
  int64_t count = 0;
  const Floor& k = floor_kernels();
  for (int64_t n = 0; n <= 1024; n += 64)
    for (int64_t offset = 0; offset < 16; ++offset)
      for (Traffic traffic : {Traffic::cached, Traffic::streamed}) {
        Source random{uint64_t(n + offset)};
        std::snprintf(now, sizeof now, "%s floor n=%d offset=%d", instruction_set(), int(n),
                      int(offset));
        Block<float> a(n, offset, Place::within), b(n, 16 - offset, Place::within);
        Block<float> copied(n, traffic == Traffic::cached ? offset : 0, Place::within);
        Block<float> added(n, traffic == Traffic::cached ? offset : 0, Place::within);
        random.fill(a);
        random.fill(b);
        k.copy(a.data(), copied.data(), n, traffic);
        k.triad(a.data(), b.data(), added.data(), n, traffic);
        Real sum = 0, sum_both = 0;
        for (int64_t i = 0; i < n; ++i) {
          if (copied[i] != a[i] || added[i] != a[i] + b[i]) fail("element %lld", (long long)i);
          sum += a[i];
          sum_both += Real(a[i]) + b[i];
        }
        check_near(float(k.read(a.data(), n)), sum, Real(4 * n), kRoundings, "read", n);
        check_near(float(k.read2(a.data(), b.data(), n)), sum_both, Real(8 * n), kRoundings,
                   "read2", n);
        for (const auto* block : {&a, &b, &copied, &added}) block->check("the floor's");
        count += 4;
      }
  return count;
}

}  // namespace
}  // namespace normkit::native

int main() {
  using namespace normkit;
  using namespace normkit::native;
  const char* isa = instruction_set();
  sweep_all<bfloat16>();
  if (std::strcmp(isa, "avx512bf16")) {  // which differs from avx512 in bfloat16 alone
    sweep_all<double>();
    sweep_all<float>();
    sweep_all<float16>();
    cases += sweep_floor();
  }
  std::printf("sweep: %s, %lld cases, each run whole and in parts\n", isa, (long long)cases);
}
