// What calls in eager mode share. They go to the core itself where PyTorch's dispatcher would do
// nothing but find it: that, and packing arguments for it, takes longer than a small input's
// kernel.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/record_function.h>

#include <optional>
#include <tuple>

#include "../kernels/cpu/entries.h"

namespace normkit::eager {

using at::Tensor;
using MaybeTensor = std::optional<Tensor>;
using MaybeNumber = std::optional<double>;
using Handle = Entries::Handle;

inline const Entries* core = nullptr;  // until normkit.ops has found one

// ------------------------------------------------------------- who has a say
inline c10::DispatchKeySet keys_of(const Tensor& t) { return t.key_set(); }
inline c10::DispatchKeySet keys_of(const MaybeTensor& t) {
  return t ? t->key_set() : c10::DispatchKeySet();
}
template <class P>
c10::DispatchKeySet keys_of(const P&) {
  return {};
}

// The keys a call is dispatched by.
template <class... P>
c10::DispatchKeySet keys_of_call(const P&... p) {
  const auto local = c10::impl::tls_local_dispatch_key_set();
  return ((keys_of(p) | ...) | local.included_) - local.excluded_;
}

// Whether, autograd aside, only the core would be found: no mode, transformation, tracer, autocast,
// other device or kind of tensor, and no profiler listens.
inline bool only_the_core(c10::DispatchKeySet keys) {
  constexpr auto kAside = c10::autograd_dispatch_keyset_with_ADInplaceOrView |
                          c10::DispatchKeySet(c10::DispatchKey::BackendSelect);
  return core && (keys - kAside).highestPriorityTypeId() == c10::DispatchKey::CPU &&
         !at::getStepCallbacksUnlessEmpty(at::RecordScope::FUNCTION);
}

// ---------------------------------------------------------- to the core and back
inline Handle passed(const Tensor& t) { return reinterpret_cast<Handle>(const_cast<Tensor*>(&t)); }
inline Handle passed(const MaybeTensor& t) { return t ? passed(*t) : nullptr; }
template <class P>
P passed(const P& p) {
  return p;
}

inline Tensor taken(Handle handle) {
  Tensor t = std::move(*reinterpret_cast<Tensor*>(handle));
  aoti_torch_delete_tensor_object(handle);
  return t;
}
template <size_t N>
auto taken(const std::array<Handle, N>& handles) {
  return std::apply([](auto... handle) { return std::tuple(taken(handle)...); }, handles);
}

// An operator of several results, at the core or by the dispatcher.
template <class Signature>
class Operator;

template <class R, class... P>
class Operator<R(P...)> {
 public:
  template <class Entry>
  Operator(const char* name, Entry Entries::* entry)
      : dispatched_(c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<R(P...)>()),
        direct_(core ? core->*entry : nullptr) {}

  R call(P... p) const {
    return direct_ && only_the_core(keys_of_call(p...)) ? taken(direct_(passed(p)...))
                                                        : dispatched_.call(p...);
  }

 private:
  using Handles = std::array<Handle, std::tuple_size_v<R>>;

  c10::TypedOperatorHandle<R(P...)> dispatched_;
  Handles (*direct_)(decltype(passed(std::declval<P>()))...);
};

// ------------------------------------------------------- with nodes (autograd.cpp)
Tensor row_norm_with_grad(const Tensor& input, const MaybeTensor& weight, const MaybeTensor& bias,
                          MaybeNumber eps, bool centred, int64_t trailing, bool outside,
                          double gain_offset);
Tensor batch_norm_step_with_grad(const Tensor& input, const MaybeTensor& weight,
                                 const MaybeTensor& bias, double eps,
                                 const MaybeTensor& running_mean, const MaybeTensor& running_var,
                                 const MaybeTensor& num_batches_tracked, MaybeNumber momentum);
Tensor batch_norm_fixed_with_grad(const Tensor& input, const Tensor& running_mean,
                                  const Tensor& running_var, const MaybeTensor& weight,
                                  const MaybeTensor& bias, double eps);

}  // namespace normkit::eager
