// The operators as plain functions, for a caller in PyTorch's own C++ (ops/eager.h) that has
// nothing to box. Tensors are borrowed handles, null for none; those returned are the caller's.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <array>
#include <cstdint>
#include <optional>

namespace normkit {

struct Entries {
  using Handle = AtenTensorHandle;
  using Number = std::optional<double>;

  Handle (*layer_norm)(Handle input, Handle weight, Handle bias, double eps, int64_t trailing);
  Handle (*rms_norm)(Handle input, Handle weight, Handle bias, Number eps, int64_t trailing,
                     bool outside, double gain_offset);
  std::array<Handle, 2> (*row_norm_fwd)(Handle input, Handle weight, Handle bias, Number eps,
                                        bool centred, int64_t trailing, bool outside,
                                        double gain_offset);
  std::array<Handle, 3> (*row_norm_bwd)(Handle grad_output, Handle input, Handle statistics,
                                        Handle weight, Handle bias, Number eps, bool centred,
                                        int64_t trailing, bool outside, double gain_offset,
                                        bool input_grad, bool weight_grad, bool bias_grad);

  Handle (*batch_norm)(Handle input, Handle running_mean, Handle running_var, Handle weight,
                       Handle bias, double eps);
  std::array<Handle, 2> (*batch_norm_fixed_fwd)(Handle input, Handle running_mean,
                                                Handle running_var, Handle weight, Handle bias,
                                                double eps);
  std::array<Handle, 2> (*batch_norm_step)(Handle input, Handle weight, Handle bias, double eps,
                                           Handle running_mean, Handle running_var,
                                           Handle num_batches_tracked, Number momentum);
  std::array<Handle, 3> (*batch_norm_bwd)(Handle grad_output, Handle input, Handle statistics,
                                          Handle weight, Handle bias, double eps, bool training,
                                          bool input_grad, bool weight_grad, bool bias_grad);
};

// Each fills in its own.
void add_row_norm(Entries& to);
void add_batch_norm(Entries& to);
void add_batch_norm_backward(Entries& to);

}  // namespace normkit
