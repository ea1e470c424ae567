// Memory of just so many elements, with something past both ends that shows who went there.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "failure.h"

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#endif
#endif
#ifndef ASAN_POISON_MEMORY_REGION
#define ASAN_POISON_MEMORY_REGION(p, n) (void(p), void(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) (void(p), void(n))
#endif

namespace normkit::native {

// Where a block lies: so many elements past the begin of a line, or next to a page that nothing may
// touch. AddressSanitizer does not know every vector instruction; the processor does.
enum class Place { within, first, last };

// Writable pages between two that are not.
class Arena {
 public:
  static constexpr int64_t kPage = 4096, kBytes = int64_t(1) << 20;

  Arena() {
    void* all = mmap(nullptr, kBytes + 2 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) fail("no memory");
    begin_ = static_cast<unsigned char*>(all) + kPage;
    if (mprotect(begin_, kBytes, PROT_READ | PROT_WRITE)) fail("no memory");
    ASAN_POISON_MEMORY_REGION(begin_, kBytes);
  }
  ~Arena() {
    ASAN_UNPOISON_MEMORY_REGION(begin_, kBytes);
    munmap(begin_ - kPage, kBytes + 2 * kPage);
  }
  Arena(const Arena&) = delete;

  unsigned char* begin() const { return begin_; }
  unsigned char* end() const { return begin_ + kBytes; }

  // Those no longer needed are used again: a system call for each block would be most of the time.
  static std::unique_ptr<Arena> take() {
    if (spare().empty()) return std::make_unique<Arena>();
    auto arena = std::move(spare().back());
    spare().pop_back();
    return arena;
  }
  static void give_back(std::unique_ptr<Arena> arena) { spare().push_back(std::move(arena)); }

 private:
  static std::vector<std::unique_ptr<Arena>>& spare() {
    static std::vector<std::unique_ptr<Arena>> arenas;
    return arenas;
  }
  unsigned char* begin_;
};

template <class T>
class Block {
 public:
  Block(int64_t n, int64_t offset, Place place) : arena_(Arena::take()), n_(n) {
    const int64_t bytes = n * int64_t(sizeof(T));
    if (bytes + 2 * kSentinel > Arena::kBytes) fail("a block of %lld bytes", (long long)bytes);
    begin_ = place == Place::within  ? arena_->begin() + kSentinel + offset * int64_t(sizeof(T))
             : place == Place::first ? arena_->begin()
                                     : arena_->end() - bytes;
    end_ = begin_ + bytes;
    ASAN_UNPOISON_MEMORY_REGION(from(), to() - from());
    std::memset(from(), kMark, to() - from());
    close();
  }
  ~Block() {
    if (!arena_) return;
    ASAN_POISON_MEMORY_REGION(begin_, end_ - begin_);
    Arena::give_back(std::move(arena_));
  }
  Block(Block&&) = default;

  int64_t size() const { return n_; }
  T* data() const { return reinterpret_cast<T*>(begin_); }
  T& operator[](int64_t i) const { return data()[i]; }

  // From now on it may only be read.
  void freeze() { frozen_.assign(begin_, end_); }

  // Nothing was written past the ends, nor within, where it is frozen.
  void check(const char* name) const {
    ASAN_UNPOISON_MEMORY_REGION(from(), to() - from());
    for (const unsigned char* p = from(); p < to(); ++p)
      if ((p < begin_ || p >= end_) && *p != kMark)
        fail("%s: a write %lld bytes from its begin, %lld from its end", name,
             (long long)(p - begin_), (long long)(p - end_));
    if (!frozen_.empty() && std::memcmp(begin_, frozen_.data(), frozen_.size()))
      fail("%s, an input, was written to", name);
    close();
  }

  // Whether element i is as it was made.
  bool untouched(int64_t i) const {
    for (size_t b = 0; b < sizeof(T); ++b)
      if (begin_[i * int64_t(sizeof(T)) + int64_t(b)] != kMark) return false;
    return true;
  }

 private:
  static constexpr int64_t kSentinel = 256;
  static constexpr unsigned char kMark = 0xa5;

  unsigned char* from() const {
    return begin_ - arena_->begin() < kSentinel ? arena_->begin() : begin_ - kSentinel;
  }
  unsigned char* to() const {
    return arena_->end() - end_ < kSentinel ? arena_->end() : end_ + kSentinel;
  }
  void close() const {
    ASAN_POISON_MEMORY_REGION(from(), to() - from());
    ASAN_UNPOISON_MEMORY_REGION(begin_, end_ - begin_);
  }

  std::unique_ptr<Arena> arena_;
  int64_t n_;
  unsigned char *begin_, *end_;
  std::vector<unsigned char> frozen_;
};

}  // namespace normkit::native
