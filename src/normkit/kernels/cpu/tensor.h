// PyTorch's tensors and calls over its stable C interface, at the least cost per call: where
// torch::stable::Tensor shares its handle, this Tensor owns it alone, and TORCH_BOX's copies of
// arguments are references. A small input's time is mostly spent here.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <tuple>
#include <utility>

namespace normkit {

using torch::headeronly::ScalarType;
using Sizes = torch::headeronly::IntHeaderOnlyArrayRef;

class Tensor {
 public:
  explicit Tensor(AtenTensorHandle handle) : handle_(handle) {}
  Tensor(Tensor&& other) noexcept : handle_(other.release()) {}
  Tensor& operator=(Tensor&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Tensor() {
    if (handle_) aoti_torch_delete_tensor_object(handle_);
  }

  AtenTensorHandle get() const { return handle_; }
  AtenTensorHandle release() { return std::exchange(handle_, nullptr); }

  int64_t dim() const { return ask<int64_t>(aoti_torch_get_dim); }
  int64_t numel() const { return ask<int64_t>(aoti_torch_get_numel); }
  bool is_contiguous() const { return ask<bool>(aoti_torch_is_contiguous); }
  bool is_cpu() const {
    return ask<int32_t>(aoti_torch_get_device_type) == aoti_torch_device_type_cpu();
  }
  Sizes sizes() const { return Sizes(ask<int64_t*>(aoti_torch_get_sizes), dim()); }
  Sizes strides() const { return Sizes(ask<int64_t*>(aoti_torch_get_strides), dim()); }
  ScalarType scalar_type() const {
    return torch::stable::detail::to<ScalarType>(
        torch::stable::detail::from(ask<int32_t>(aoti_torch_get_dtype)));
  }
  int64_t element_size() const {
    return aoti_torch_dtype_element_size(ask<int32_t>(aoti_torch_get_dtype));
  }
  template <class T>
  const T* data() const {
    return static_cast<const T*>(allocated(ask<const void*>(torch_get_const_data_ptr)));
  }
  template <class T>
  T* mutable_data() const {
    return static_cast<T*>(allocated(ask<void*>(torch_get_mutable_data_ptr)));
  }

 private:
  // A tensor whose storage was taken away (as sharded training does) has elements but no memory.
  template <class P>
  P allocated(P p) const {
    STD_TORCH_CHECK(p || numel() == 0, "normkit: a tensor's data is not allocated");
    return p;
  }

  template <class R>
  R ask(AOTITorchError (*question)(AtenTensorHandle, R*)) const {
    R answer;
    TORCH_ERROR_CODE_CHECK(question(handle_, &answer));
    return answer;
  }

  AtenTensorHandle handle_;
};

inline Tensor another(AtenTensorHandle handle) {
  AtenTensorHandle copy;
  TORCH_ERROR_CODE_CHECK(aoti_torch_new_tensor_handle(handle, &copy));
  return Tensor(copy);
}

inline torch::stable::Tensor shared(const Tensor& t) {
  return torch::stable::Tensor(another(t.get()).release());
}

inline Tensor contiguous(const Tensor& t) {
  return another(torch::stable::contiguous(shared(t)).get());
}

inline void copy(const Tensor& to, const Tensor& from) {
  torch::stable::Tensor target = shared(to);
  torch::stable::copy_(target, shared(from));
}

inline bool same_sizes(const Tensor& a, const Tensor& b) {
  const Sizes x = a.sizes(), y = b.sizes();
  return std::equal(x.begin(), x.end(), y.begin(), y.end());
}

// ---------------------------------------------------------------- boxed calls
// One unpacked argument, owned while the operator runs.
template <class P>
struct Argument {  // double, int64_t, bool
  P value;
  explicit Argument(StableIValue v) : value(torch::stable::detail::to<P>(v)) {}
  P get() const { return value; }
};

template <>
struct Argument<const Tensor&> {
  Tensor value;
  explicit Argument(StableIValue v) : value(torch::stable::detail::to<AtenTensorHandle>(v)) {}
  const Tensor& get() const { return value; }
};

// An optional argument arrives as a pointer to its value, which is ours to delete, or null.
template <class P>
std::optional<P> unpack_optional(StableIValue v) {
  return torch::stable::detail::to<std::optional<P>>(v);
}

template <>
struct Argument<const Tensor*> {
  Tensor value;
  explicit Argument(StableIValue v)
      : value(unpack_optional<AtenTensorHandle>(v).value_or(nullptr)) {}
  const Tensor* get() const { return value.get() ? &value : nullptr; }
};

template <>
struct Argument<std::optional<double>> {
  std::optional<double> value;
  explicit Argument(StableIValue v) : value(unpack_optional<double>(v)) {}
  std::optional<double> get() const { return value; }
};

inline void pack(StableIValue* stack, Tensor result) {
  stack[0] = torch::stable::detail::from(result.release());
}

template <class... T>
void pack(StableIValue* stack, std::tuple<T...> results) {
  std::apply([&](auto&... result) { (pack(stack++, std::move(result)), ...); }, results);
}

template <auto* function>
struct Boxed;

template <class R, class... P, R (*function)(P...)>
struct Boxed<function> {
  static void call(StableIValue* stack, uint64_t, uint64_t) {
    unpack(stack, std::index_sequence_for<P...>{});
  }

 private:
  template <size_t... I>
  static void unpack(StableIValue* stack, std::index_sequence<I...>) {
    const std::tuple<Argument<P>...> arguments{Argument<P>(stack[I])...};
    if constexpr (std::is_void_v<R>)
      function(std::get<I>(arguments).get()...);
    else
      pack(stack, function(std::get<I>(arguments).get()...));
  }
};

// --------------------------------------------------------------- direct calls
// What an argument is passed as, borrowed while the operator runs.
template <class P>
struct Passed {  // double, int64_t, bool, std::optional<double>
  using type = P;
  P value;
  P get() const { return value; }
};

struct Borrowed {
  using type = AtenTensorHandle;
  Tensor value;
  explicit Borrowed(AtenTensorHandle handle) : value(handle) {}
  ~Borrowed() { value.release(); }
};
template <>
struct Passed<const Tensor&> : Borrowed {
  using Borrowed::Borrowed;
  const Tensor& get() const { return value; }
};
template <>
struct Passed<const Tensor*> : Borrowed {
  using Borrowed::Borrowed;
  const Tensor* get() const { return value.get() ? &value : nullptr; }
};

inline AtenTensorHandle returned(Tensor result) { return result.release(); }
template <class... T>
std::array<AtenTensorHandle, sizeof...(T)> returned(std::tuple<T...> results) {
  return std::apply([](auto&... result) { return std::array{result.release()...}; }, results);
}

template <auto* function>
struct Direct;

template <class R, class... P, R (*function)(P...)>
struct Direct<function> {
  static auto call(typename Passed<P>::type... p) {
    return returned(function(Passed<P>{p}.get()...));
  }
};

}  // namespace normkit
