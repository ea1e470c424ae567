// How a BatchNorm input (N, C, *) lies in memory, and which kernels that calls for.
#pragma once

#include "tensors.h"

namespace normkit {

struct Layout {
  const Tensor* tensor;  // the input, or a contiguous copy of it
  int64_t batch, channels, positions;
  bool interleaved = false;
  // planar: element (n, c, s) at n * stride_n + c * stride_c + s
  int64_t stride_n = 0, stride_c = 0;
  // interleaved: element (row, c) at row * stride_row + c
  int64_t stride_row = 0;

  explicit Layout(const Tensor& x) : tensor(&x) {
    const Sizes sizes = x.sizes();
    batch = sizes[0];
    channels = sizes[1];
    positions = 1;
    for (size_t d = 2; d < sizes.size(); ++d) positions *= sizes[d];
    if (x.numel() == 0) return;  // no elements, no layout
    // Channels-last is a layout of images and volumes; a transposed (N, L, C) is not, to PyTorch,
    // and its output is contiguous.
    const bool may_interleave = sizes.size() != 3;
    if (positions == 1 ? try_interleaved(x)
                       : try_planar(x) || (may_interleave && try_interleaved(x)))
      return;
    adopt(contiguous(x), positions == 1);
  }

  // grad_output, brought into the same layout as the input.
  Layout(const Tensor& grad, const Layout& like)
      : tensor(&grad), batch(like.batch), channels(like.channels), positions(like.positions) {
    if (grad.numel() == 0 || (like.interleaved ? try_interleaved(grad) : try_planar(grad))) return;
    Tensor dense = like.output(grad);
    copy(dense, grad);
    adopt(std::move(dense), like.interleaved);
  }
  Layout(const Layout&) = delete;

  int64_t rows() const { return batch * positions; }
  int64_t bytes() const { return tensor->numel() * tensor->element_size(); }
  // What is written without a gap, in bytes: a row, or as many planes as are handled together,
  // where they adjoin and none is shorter than a line (planar_norm.h).
  int64_t run(int64_t planes) const {
    const int64_t size = tensor->element_size();
    if (interleaved) return channels * size;
    const bool as_one = planes > 1 && stride_c == positions && positions * size >= 64;
    return positions * size * (as_one ? planes : 1);
  }

  // An uninitialised dense tensor of x's shape and dtype: channels-last where x is, else
  // contiguous.
  Tensor output(const Tensor& x) const {
    const Sizes sizes = x.sizes();
    if (!interleaved || positions == 1) return empty(sizes, x.scalar_type());
    std::vector<int64_t> strides(sizes.size());
    strides[1] = 1;
    int64_t next = channels;
    for (size_t d = sizes.size() - 1; d >= 2; --d) {
      strides[d] = next;
      next *= sizes[d];
    }
    strides[0] = next;
    return empty_strided(sizes, Sizes(strides.data(), strides.size()), x.scalar_type());
  }

 private:
  std::optional<Tensor> copied_;

  void adopt(Tensor dense, bool as_interleaved) {
    tensor = &copied_.emplace(std::move(dense));
    const bool fits = as_interleaved ? try_interleaved(*tensor) : try_planar(*tensor);
    STD_TORCH_CHECK(fits, "normkit: a dense copy is not dense");
  }

  bool try_planar(const Tensor& x) {
    const Sizes sizes = x.sizes(), strides = x.strides();
    int64_t expected = 1;
    for (size_t d = sizes.size() - 1; d >= 2; --d) {
      if (sizes[d] != 1 && strides[d] != expected) return false;
      expected *= sizes[d];
    }
    interleaved = false;
    stride_n = strides[0];
    stride_c = strides[1];
    return true;
  }

  bool try_interleaved(const Tensor& x) {
    const Sizes sizes = x.sizes(), strides = x.strides();
    if (channels != 1 && strides[1] != 1) return false;
    int64_t step = channels, expected = 0;
    bool found = false;  // the innermost dimension that says how far apart rows lie
    const auto fits = [&](size_t d) {
      if (sizes[d] == 1) return true;
      if (!found) step = expected = strides[d];
      found = true;
      if (strides[d] != expected) return false;
      expected *= sizes[d];
      return true;
    };
    for (size_t d = sizes.size() - 1; d >= 2; --d)
      if (!fits(d)) return false;
    if (!fits(0)) return false;
    interleaved = true;
    stride_row = step;
    return true;
  }
};

}  // namespace normkit
