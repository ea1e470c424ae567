// Room for numbers that kernels go through: where it begins.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace normkit {

// n numbers without a value yet. They begin at a line: new leaves them at any 16 bytes, and half of
// the vectors there, or all, would lie on two lines. And where asked for so far into a page: what
// lies alike in its page meets in one set of the innermost cache.
template <class A>
class Lines {
 public:
  Lines() = default;
  explicit Lines(int64_t n) : Lines(n, kLine, 0) {}
  Lines(int64_t n, uintptr_t into_page) : Lines(n, kPage, into_page / kLine * kLine % kPage) {}

  A* get() const { return numbers_; }
  A& operator[](int64_t i) const { return numbers_[i]; }

  // The least distance between several runs of n that all begin at a line.
  static constexpr int64_t stride(int64_t n) { return (n + kEach - 1) / kEach * kEach; }
  // One at which a few do not lie alike in their pages where n is a power of two.
  static constexpr int64_t skewed(int64_t n) { return stride(n) + 5 * kEach; }

 private:
  static constexpr uintptr_t kLine = 64, kPage = 4096;
  static constexpr int64_t kEach = kLine / sizeof(A);

  Lines(int64_t n, uintptr_t unit, uintptr_t into)
      : room_(std::make_unique_for_overwrite<std::byte[]>(n * sizeof(A) + unit)) {
    const auto begin = reinterpret_cast<uintptr_t>(room_.get());
    numbers_ = reinterpret_cast<A*>(room_.get() + (into - begin) % unit);
  }

  std::unique_ptr<std::byte[]> room_;
  A* numbers_ = nullptr;
};

}  // namespace normkit
