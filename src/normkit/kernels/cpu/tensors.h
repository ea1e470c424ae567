// What the operators share: threads, dtypes, new tensors, and parameters as plain vectors.
#pragma once

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include <cstring>
#include <memory>
#include <vector>

#include "cache.h"
#include "elements.h"
#include "kernels.h"
#include "lines.h"
#include "tensor.h"

namespace normkit {

// Elements up to which starting a thread, some 4 us, costs more than it brings: in vectors.
constexpr int64_t kGrainVectors = 4096;
inline int64_t grain() { return kGrainVectors * vector_bytes() / int64_t(sizeof(float)); }

// What an element counts that is read twice, and in a forward pass whose backward pass reads twice:
// both are cut up alike, else a core finds its rows in another's cache.
constexpr int64_t kTwoPasses = 2;

// f(begin, end) over [0, count) items of `cost` elements each, on PyTorch's threads.
template <class F>
void parallel(int64_t count, int64_t cost, const F& f) {
  if (count <= 0) return;
  if (count == 1 || count * cost <= grain()) return f(int64_t(0), count);
  torch::stable::parallel_for(0, count, std::max<int64_t>(1, grain() / std::max<int64_t>(1, cost)),
                              f);
}

// The same for an f that may write past the cache: its stores are seen by all when it is done.
template <class F>
void parallel(int64_t count, int64_t cost, Traffic traffic, const F& f) {
  parallel(count, cost, [&](int64_t begin, int64_t end) {
    f(begin, end);
#ifdef __SSE2__
    if (traffic == Traffic::streamed) _mm_sfence();
#endif
  });
}

template <class T>
constexpr ScalarType scalar_type_of();
template <>
constexpr ScalarType scalar_type_of<double>() {
  return ScalarType::Double;
}
template <>
constexpr ScalarType scalar_type_of<float>() {
  return ScalarType::Float;
}
template <>
constexpr ScalarType scalar_type_of<bfloat16>() {
  return ScalarType::BFloat16;
}
template <>
constexpr ScalarType scalar_type_of<float16>() {
  return ScalarType::Half;
}

// Calls f with a value of the kernel type that stands for `type`.
template <class F>
auto with_type(ScalarType type, const char* name, F&& f) {
  switch (type) {
    case ScalarType::Double:
      return f(double{});
    case ScalarType::Float:
      return f(float{});
    case ScalarType::BFloat16:
      return f(bfloat16{});
    case ScalarType::Half:
      return f(float16{});
    default:
      STD_TORCH_CHECK(false, "normkit: ", name, " must be float64, float32, bfloat16 or float16");
  }
}

inline Tensor empty_strided(Sizes sizes, Sizes strides, ScalarType type) {
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      sizes.size(), sizes.data(), strides.data(),
      torch::stable::detail::to<int32_t>(torch::stable::detail::from(type)),
      aoti_torch_device_type_cpu(), 0, &handle));
  return Tensor(handle);
}

inline Tensor empty(Sizes sizes, ScalarType type) {
  constexpr int kInline = 8;
  int64_t small[kInline];
  std::vector<int64_t> large;
  int64_t* strides = small;
  if (sizes.size() > kInline) {
    large.resize(sizes.size());
    strides = large.data();
  }
  int64_t next = 1;
  for (int64_t d = int64_t(sizes.size()) - 1; d >= 0; --d) {
    strides[d] = next;
    next *= std::max<int64_t>(1, sizes[d]);
  }
  return empty_strided(sizes, Sizes(strides, sizes.size()), type);
}

inline Tensor empty(std::initializer_list<int64_t> sizes, ScalarType type) {
  return empty(Sizes(sizes.begin(), sizes.size()), type);
}

// Zeros where nothing will be written: the elements of an empty input have no statistics.
inline Tensor zeros_if(bool zero, std::initializer_list<int64_t> sizes, ScalarType type) {
  Tensor t = empty(sizes, type);
  const int64_t bytes = t.numel() * t.element_size();
  if (zero && bytes > 0) std::memset(t.mutable_data<char>(), 0, bytes);
  return t;
}

inline Tensor none(ScalarType type) { return empty({0}, type); }

// A tensor, or none, as one run of memory: itself or a copy.
class Dense {
 public:
  explicit Dense(const Tensor* t) : tensor_(t) {
    if (!t) return;
    t->data<char>();  // an error where it has no memory
    if (!t->is_contiguous()) tensor_ = &copied_.emplace(contiguous(*t));
  }
  Dense(const Dense&) = delete;

  const Tensor* get() const { return tensor_; }

 private:
  const Tensor* tensor_;
  std::optional<Tensor> copied_;
};

// A weight, bias or running statistic as n numbers of type A. Where it is stored as such it is
// read in place; else it is converted once, so that kernels need no case for the dtype of weights,
// and its NaNs are canonical. run: in which the numbers are to lie apart (kernels.h).
template <class A>
class Vector {
 public:
  Vector(const Tensor* source, const char* name, int64_t n, double offset = 0, bool in_place = true,
         int64_t run = 0)
      : dense_(source) {
    if (!source) return;
    STD_TORCH_CHECK(source->is_cpu(), "normkit: ", name, " must be on the CPU");
    STD_TORCH_CHECK(source->numel() == n, "normkit: ", name, " must have ", n, " elements");
    source = dense_.get();
    const ScalarType type = source->scalar_type();
    if (type == scalar_type_of<A>() && offset == 0 && in_place) {
      data_ = source->data<A>();
      return;
    }
    converted_ = Lines<A>(n);
    with_type(type, name,
              [&](auto element) { convert<decltype(element)>(*source, n, offset, run); });
    data_ = converted_.get();
  }

  const A* get() const { return data_; }

 private:
  template <class W>
  void convert(const Tensor& source, int64_t n, double offset, int64_t run) {
    if constexpr (std::is_same_v<accumulate_t<W>, A>) {
      kernels<W>().widen(source.data<W>(), converted_.get(), n, run != 0);
      for (int64_t i = 0; offset != 0 && i < n; ++i)
        converted_[i] = canonical(A(double(converted_[i]) + offset));
    } else {
      const W* from = source.data<W>();
      for (int64_t i = 0; i < n; ++i)
        converted_[place(i, n, run)] = canonical(A(element(from + i) + offset));
    }
  }

  Dense dense_;
  Lines<A> converted_;
  const A* data_ = nullptr;
};

// value(i) for i in [0, n), rounded once into a tensor of any of the four dtypes.
template <class Value>
void fill(const Tensor& to, int64_t n, const Value& value) {
  STD_TORCH_CHECK(to.numel() == n, "normkit: ", n, " numbers do not fit ", to.numel());
  with_type(to.scalar_type(), "a gradient", [&](auto element) {
    auto* out = to.template mutable_data<decltype(rounded(element, 0))>();
    for (int64_t i = 0; i < n; ++i) out[i] = rounded(element, value(i));
  });
}

}  // namespace normkit
