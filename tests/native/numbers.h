// Numbers of the four dtypes one at a time, and where a case's come from.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>

#include "kernels.h"
#include "memory.h"

namespace normkit::native {

// What the reference computes in: more than any kernel does.
using Real = long double;

inline Real real(double v) { return v; }
inline Real real(float v) { return v; }
inline Real real(bfloat16 v) { return std::bit_cast<float>(uint32_t(v.bits) << 16); }
inline Real real(float16 v) { return Real(std::bit_cast<_Float16>(v.bits)); }

inline void assign(double& to, double v) { to = v; }
inline void assign(float& to, double v) { to = float(v); }
inline void assign(bfloat16& to, double v) {
  to.bits = uint16_t(std::bit_cast<uint32_t>(float(v)) >> 16);
}
inline void assign(float16& to, double v) { to.bits = std::bit_cast<uint16_t>(_Float16(v)); }

// The distance from 1 to the next number.
template <class T>
constexpr double kEpsilon = std::numeric_limits<T>::epsilon();
template <>
inline constexpr double kEpsilon<bfloat16> = 0x1p-7;
template <>
inline constexpr double kEpsilon<float16> = 0x1p-10;

// The largest number, and the exponents of the smallest and the largest.
template <class T>
constexpr double kLargest = std::numeric_limits<T>::max();
template <>
inline constexpr double kLargest<bfloat16> = 0x1.fep127;
template <>
inline constexpr double kLargest<float16> = 65504;
template <class T>
constexpr int kLowest = std::numeric_limits<T>::min_exponent - std::numeric_limits<T>::digits;
template <>
inline constexpr int kLowest<bfloat16> = -133;
template <>
inline constexpr int kLowest<float16> = -24;
template <class T>
constexpr int kHighest = std::numeric_limits<T>::max_exponent - 1;
template <>
inline constexpr int kHighest<bfloat16> = 127;
template <>
inline constexpr int kHighest<float16> = 15;

// The distance between neighbouring numbers at this size.
template <class T>
Real unit(Real size) {
  const int exponent = size > 0 ? std::max(std::ilogb(size), -20000) : -20000;
  return std::max(std::ldexp(Real(kEpsilon<T>), exponent), std::ldexp(Real(1), kLowest<T>));
}

template <class T>
constexpr const char* kName = "float64";
template <>
inline constexpr const char* kName<float> = "float32";
template <>
inline constexpr const char* kName<bfloat16> = "bfloat16";
template <>
inline constexpr const char* kName<float16> = "float16";

// tame: of a size near 1. any_scale: rows of activations and upstream gradients are finite, no
// more; other numbers are tame. wild: any bits at all, often those of NaN, infinity, zero or a
// subnormal number; such results have no reference.
enum class Kind { tame, any_scale, wild };

class Source {
 public:
  explicit Source(uint64_t seed) : state_(seed) {}
  Source(const uint8_t* data, size_t size, Kind kind) : kind_(kind), data_(data), size_(size) {}

  void turn(Kind kind) { kind_ = kind; }
  bool wild() const { return kind_ == Kind::wild; }

  // The fuzzer's bytes as long as they last, then random ones that follow from them.
  uint8_t byte() {
    if (at_ < size_) return last_ = data_[at_++];
    state_ += 0x9e3779b97f4a7c15 + last_;
    uint64_t z = (state_ ^ (state_ >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return uint8_t(z >> 40);
  }
  uint64_t below(uint64_t n) {  // n at most 65536
    const uint64_t low = byte();
    return (n > 256 ? low | uint64_t(byte()) << 8 : low) % n;
  }
  bool coin() { return byte() & 1; }

  // In [-4, 4), never 0.
  double near_one() { return (double(byte()) - 127.5 + double(byte()) / 512) / 32; }

  template <class T>
  T number() {
    return wild() ? any_bits<T>() : rounded<T>(near_one());
  }

  template <class T>
  void fill(Block<T>& block) {
    for (int64_t i = 0; i < block.size(); ++i) block[i] = number<T>();
    block.freeze();
  }
  // Numbers that are to be positive, or small.
  template <class T, class F>
  void fill(Block<T>& block, const F& f) {
    for (int64_t i = 0; i < block.size(); ++i) {
      block[i] = number<T>();
      if (!wild()) assign(block[i], f(double(real(block[i]))));
    }
    block.freeze();
  }

  // Rows `stride` elements apart.
  template <class T>
  void fill_rows(Block<T>& block, int64_t stride) {
    if (kind_ != Kind::any_scale) return fill(block);
    for (int64_t i = 0; i < block.size(); i += stride)
      fill_row(block.data() + i, std::min(stride, block.size() - i));
    block.freeze();
  }

 private:
  // The largest where it is larger.
  template <class T>
  static T rounded(double v) {
    T to;
    assign(to, v);
    if (!std::isfinite(real(to))) assign(to, std::copysign(kLargest<T>, v));
    return to;
  }
  template <class T>
  T scaled(int exponent) {
    return rounded<T>(std::ldexp(near_one(), exponent));
  }
  template <class T>
  T finite_bits() {
    const T v = bits<T>();
    return std::isfinite(real(v)) ? v : rounded<T>(INFINITY);
  }

  // What is hard for a norm: scales of any size, few elements that are all of the sum, and nearly
  // equal ones.
  template <class T>
  void fill_row(T* row, int64_t n) {
    const uint64_t kind = below(6);
    const int scale = kLowest<T> + int(below(uint64_t(kHighest<T> - kLowest<T> + 1)));
    const double base = double(real(scaled<T>(scale)));
    const int64_t spike = int64_t(below(uint64_t(n)));
    const uint64_t places = uint64_t(1) << below(16);
    for (int64_t i = 0; i < n; ++i)
      row[i] = kind == 0   ? scaled<T>(0)
               : kind == 1 ? scaled<T>(scale)
               : kind == 2 ? scaled<T>(scale + int(below(61)) - 30)
               : kind == 3 ? finite_bits<T>()
               : kind == 4 ? rounded<T>(i == spike ? base : 0)
                           : rounded<T>(base * (1 + kEpsilon<T> * double(below(places))));
  }

  template <class T>
  T bits() {
    T v;
    unsigned char bytes[sizeof(T)];
    for (unsigned char& b : bytes) b = byte();
    std::memcpy(&v, bytes, sizeof v);
    return v;
  }
  template <class T>
  T any_bits() {
    static constexpr double kEnds[] = {0.0,  -0.0,  INFINITY, -INFINITY, NAN,    1e-310, -1e-40,
                                       1e25, -1e38, 1e200,    1e-30,     6.1e-5, 65504,  1};
    T v;
    if (const uint8_t choice = byte(); choice < 64) {
      assign(v, kEnds[choice % std::size(kEnds)]);
      return v;
    }
    return bits<T>();
  }

  Kind kind_ = Kind::tame;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0, at_ = 0;
  uint64_t state_ = 0;
  uint8_t last_ = 0;
};

// The same number, or both none.
template <class T>
bool same(T a, T b) {
  const Real x = real(a), y = real(b);
  return std::isnan(x) ? std::isnan(y) : !std::memcmp(&a, &b, sizeof a);
}

template <class T>
void check_same(const Block<T>& a, const Block<T>& b, const char* what) {
  for (int64_t i = 0; i < a.size(); ++i)
    if (!same(a[i], b[i]))
      fail("%s: element %lld of %lld is %Lg and %Lg", what, (long long)i, (long long)a.size(),
           real(a[i]), real(b[i]));
}

template <class T>
void check_within(T found, Real right, Real allowed, const char* what, int64_t i) {
  if (!(std::fabs(real(found) - right) <= allowed))
    fail("%s: element %lld is %.20Lg, not %.20Lg +- %Lg", what, (long long)i, real(found), right,
         allowed);
}

// A result made of terms of this size, by `roundings` roundings in A, then rounded to T.
template <class T>
void check_near(T found, Real right, Real size, double roundings, const char* what, int64_t i) {
  using A = accumulate_t<T>;
  Real allowed = roundings * kEpsilon<A> * size;
  // The last rounding; the smallest float16 are coarse.
  if (sizeof(T) < sizeof(A))
    allowed += (std::fabs(right) + allowed) * kEpsilon<T> / 2 + Real(0x1p-25);
  // What rounds to more than float16 holds is infinite.
  const bool beyond = std::is_same_v<T, float16> && std::fabs(right) + allowed >= 65520;
  if (beyond && real(found) == std::copysign(Real(INFINITY), right)) return;
  check_within(found, right, allowed, what, i);
}

}  // namespace normkit::native
