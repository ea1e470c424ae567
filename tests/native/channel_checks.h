// Kernels of channel norms, in the manner of row_checks.h.
#pragma once

#include "row_checks.h"

namespace normkit::native {

// The numbers of every channel, whatever they mean: N arrays of them. `rest` is one that holds what
// rounding another lost.
template <class A, int N>
class PerChannel {
 public:
  PerChannel(int64_t channels, const Case& c, Source& source, int rest = N) {
    for (int i = 0; i < N; ++i) {
      blocks_.emplace_back(channels, c.numbers, c.place);
      const double unit = i == rest ? kEpsilon<A> / 8 : 1;
      source.fill(blocks_.back(), [=](double v) { return v * unit; });
    }
  }
  const A* operator[](int i) const { return blocks_[i].data(); }
  void check() const {
    for (const auto& b : blocks_) b.check("a channel's numbers");
  }

 private:
  std::vector<Block<A>> blocks_;
};

template <class A, int N>
Apply<const A*> as_apply(const PerChannel<A, N>& v) {
  return {v[0], v[1], v[2], v[3]};
}
template <class A, int N>
Hat<const A*> as_hat(const PerChannel<A, N>& v) {
  return {v[0], v[1]};
}
template <class A, int N>
Gradient<const A*> as_gradient(const PerChannel<A, N>& v) {
  return {v[0], v[1], v[2], v[3]};
}
template <class A, int N>
FixedGradient<const A*> as_fixed(const PerChannel<A, N>& v) {
  return {as_hat(v), v[2], v[3]};
}

// An exact result and the size of its terms.
struct Sized {
  Real value, size;
};
inline Sized operator+(Sized a, Sized b) { return {a.value + b.value, a.size + b.size}; }
inline Sized operator*(Sized a, Sized b) { return {a.value * b.value, a.size * b.size}; }
inline Sized sized(Real v) { return {v, std::fabs(v)}; }

// scale_rest is what float32 alone has a use for: elsewhere its channel is multiplied by nothing.
template <class T, class A>
Sized applied(T x, const Apply<const A*>& a, int64_t c) {
  const Real scale = Real(a.scale[c]) + (sizeof(T) == sizeof(float) ? Real(a.scale_rest[c]) : 0);
  return sized(real(x) - a.mean[c]) * sized(scale) + sized(a.bias[c]);
}
template <class T, class A>
Sized x_hat(T x, const Hat<const A*>& h, int64_t c) {
  return sized(real(x) - h.mean[c]) * sized(h.rstd[c]);
}
template <class T, class A>
Sized gradient(T g, T x, const Gradient<const A*>& a, int64_t c) {
  return sized(real(g)) * sized(a.scale[c]) + sized(real(x) - a.mean[c]) * sized(a.pull[c]) +
         sized(a.shift[c]);
}

// As in applied, of scale_rest.
template <class T, class A>
Sized fixed_gradient(T g, const FixedGradient<const A*>& a, int64_t c) {
  const Real rest = sizeof(T) == sizeof(float) ? Real(a.scale_rest[c]) : 0;
  return sized(real(g)) * sized(Real(a.scale[c]) + rest);
}

// x, and for a gradient grad_y: either planes (samples, channels, positions) or rows of channels.
template <class T>
struct ChannelData {
  int64_t samples, channels, positions, step, sample, channel;  // strides: of a position and so on
  Block<T> block;

  static ChannelData planar(const Case& c, int64_t gap, int64_t offset, Source& source) {
    const int64_t plane = c.n + gap;
    return {c.rows, c.channels, c.n, 1, plane * c.channels, plane, c, offset, source};
  }
  static ChannelData interleaved(const Case& c, int64_t gap, int64_t offset, Source& source) {
    return {c.rows, c.n, 1, 1, c.n + gap, 1, c, offset, source};
  }
  ChannelData(int64_t samples, int64_t channels, int64_t positions, int64_t step, int64_t sample,
              int64_t channel, const Case& c, int64_t offset, Source& source)
      : samples(samples),
        channels(channels),
        positions(positions),
        step(step),
        sample(sample),
        channel(channel),
        block(extent(samples, extent(channels, positions, channel), sample), offset, c.place) {
    source.fill(block);
  }

  Planes<const T> planes(int64_t c = 0) const {
    return {block.data() + c * channel, sample, channel};
  }
  Rows<const T> rows(int64_t row = 0, int64_t c = 0) const {
    return {block.data() + row * sample + c, sample};
  }
  T at(int64_t n, int64_t c, int64_t s) const { return block[n * sample + c * channel + s * step]; }
  // Where the same element of a dense output is.
  int64_t dense(int64_t n, int64_t c, int64_t s) const {
    return (n * channels + c) * positions + s;
  }
  template <class F>
  void each(const F& f) const {
    for (int64_t n = 0; n < samples; ++n)
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t s = 0; s < positions; ++s) f(n, c, s);
  }
};

// A kernel that writes an element for each of x: run(out, begin, end) is to do channels or rows
// [begin, end) of `count`, right(n, c, s) is a result.
template <class T, class Run, class Right>
void check_elements(const Case& c, const ChannelData<T>& x, const Source& source, int64_t count,
                    const Run& run, const Right& right) {
  const int64_t size = x.samples * x.channels * x.positions;
  Block<T> whole(size, c.out, c.place), parts(size, c.again, c.place);
  run(whole.data(), int64_t(0), count);
  whole.check("what is written");
  in_parts(count, c.split, [&](int64_t begin, int64_t end) { run(parts.data(), begin, end); });
  parts.check("what is written in parts");
  x.block.check("x");
  check_same(whole, parts, "whole and in parts");
  if (source.wild()) return;
  x.each([&](int64_t n, int64_t ch, int64_t s) {
    const int64_t i = x.dense(n, ch, s);
    const Sized r = right(n, ch, s);
    check_near(whole[i], r.value, r.size, kRoundings, "what is written", i);
  });
}

// A kernel that sums over each channel: run(begin, end, first, second) does channels [begin, end),
// and terms(n, c, s, sums) adds what an element brings to the two exact sums.
template <class T, class Run, class Term>
void check_sums(const Case& c, const ChannelData<T>& x, const Source& source, const Run& run,
                const Term& term) {
  Block<double> whole[] = {{x.channels, c.out, c.place}, {x.channels, c.out, c.place}};
  Block<double> parts[] = {{x.channels, c.again, c.place}, {x.channels, c.again, c.place}};
  run(int64_t(0), x.channels, whole[0].data(), whole[1].data());
  in_parts(x.channels, c.split, [&](int64_t begin, int64_t end) {
    run(begin, end, parts[0].data() + begin, parts[1].data() + begin);
  });
  x.block.check("x");
  std::vector<Sized> sums[2] = {std::vector<Sized>(x.channels), std::vector<Sized>(x.channels)};
  if (!source.wild())
    x.each([&](int64_t n, int64_t ch, int64_t s) {
      const auto [first, second] = term(n, ch, s);
      sums[0][ch] = sums[0][ch] + first;
      sums[1][ch] = sums[1][ch] + second;
    });
  // In units of what is summed in, not of the double the sums are kept in.
  const double roundings = kRoundings * kEpsilon<accumulate_t<T>> / kEpsilon<double>;
  for (int i = 0; i < 2; ++i) {
    whole[i].check("sums");
    parts[i].check("sums in parts");
    check_same(whole[i], parts[i], "sums, whole and in parts");
    for (int64_t ch = 0; !source.wild() && ch < x.channels; ++ch)
      check_near(whole[i][ch], sums[i][ch].value, sums[i][ch].size, roundings, "sums", ch);
  }
}

// The largest share of squares that is said to have been added at once.
inline void check_peak(const Source& source, double peak, double squares) {
  if (!source.wild() && !(peak >= 0 && peak <= squares * (1 + 0x1p-20)))
    fail("a peak of %g among squares of %g", peak, squares);
}

inline void take_sums(const Block<GradientSums>& sums, int64_t n, double* grad, double* product) {
  sums.check("sums");
  for (int64_t i = 0; i < n; ++i) {
    grad[i] = sums[i].grad;
    product[i] = sums[i].product;
  }
}

// -------------------------------------------------------------------------- planar
template <class T, class A = accumulate_t<T>>
void check_planar_sums(const Kernels<T>& k, const Case& c, Source& source) {
  const auto x = ChannelData<T>::planar(c, c.x_gap, c.x, source);
  const PerChannel<A, 1> shift(c.channels, c, source);
  const auto run = [&](int64_t begin, int64_t end, double* sum, double* squares) {
    Block<Sums> sums(end - begin, 0, c.place);
    k.planar_sums(x.planes(begin), {c.rows, end - begin, c.n, c.traffic}, shift[0] + begin, c.exact,
                  sums.data());
    sums.check("sums");
    for (int64_t i = 0; i < end - begin; ++i) {
      sum[i] = sums[i].sum;
      squares[i] = sums[i].squares;
      check_peak(source, sums[i].peak, sums[i].squares);
    }
  };
  check_sums(c, x, source, run, [&](int64_t n, int64_t ch, int64_t s) {
    const Sized d = sized(real(x.at(n, ch, s)) - shift[0][ch]);
    return std::pair(d, d * d);
  });
  shift.check();
}

template <class T, class A = accumulate_t<T>>
void check_planar_apply(const Kernels<T>& k, const Case& c, Source& source) {
  const auto x = ChannelData<T>::planar(c, c.x_gap, c.x, source);
  const PerChannel<A, 4> numbers(c.channels, c, source, 2);
  const auto a = as_apply(numbers);
  const auto run = [&](T* y, int64_t begin, int64_t end) {
    k.planar_apply(x.planes(begin), {y + begin * c.n, c.channels * c.n, c.n},
                   {c.rows, end - begin, c.n, c.traffic}, a.from(begin));
  };
  check_elements(c, x, source, c.channels, run,
                 [&](int64_t n, int64_t ch, int64_t s) { return applied(x.at(n, ch, s), a, ch); });
  numbers.check();
}

template <class T, class A = accumulate_t<T>>
void check_planar_gradient_sums(const Kernels<T>& k, const Case& c, Source& source) {
  const auto x = ChannelData<T>::planar(c, c.x_gap, c.x, source);
  const auto grad = ChannelData<T>::planar(c, c.grad_gap, c.grad, source);
  const PerChannel<A, 2> numbers(c.channels, c, source);
  const auto hat = as_hat(numbers);
  const auto run = [&](int64_t begin, int64_t end, double* sum, double* product) {
    Block<GradientSums> sums(end - begin, 0, c.place);
    k.planar_gradient_sums(grad.planes(begin), x.planes(begin),
                           {c.rows, end - begin, c.n, c.traffic}, hat.from(begin), sums.data());
    take_sums(sums, end - begin, sum, product);
  };
  check_sums(c, x, source, run, [&](int64_t n, int64_t ch, int64_t s) {
    const Sized g = sized(real(grad.at(n, ch, s)));
    return std::pair(g, g * x_hat(x.at(n, ch, s), hat, ch));
  });
  grad.block.check("grad_y");
  numbers.check();
}

template <class T, class A = accumulate_t<T>>
void check_planar_gradient(const Kernels<T>& k, const Case& c, Source& source) {
  const auto x = ChannelData<T>::planar(c, c.x_gap, c.x, source);
  const auto grad = ChannelData<T>::planar(c, c.grad_gap, c.grad, source);
  const PerChannel<A, 4> numbers(c.channels, c, source);
  const auto a = as_gradient(numbers);
  const auto run = [&](T* grad_x, int64_t begin, int64_t end) {
    k.planar_gradient(grad.planes(begin), x.planes(begin),
                      {grad_x + begin * c.n, c.channels * c.n, c.n},
                      {c.rows, end - begin, c.n, c.traffic}, a.from(begin));
  };
  check_elements(c, x, source, c.channels, run, [&](int64_t n, int64_t ch, int64_t s) {
    return gradient(grad.at(n, ch, s), x.at(n, ch, s), a, ch);
  });
  grad.block.check("grad_y");
  numbers.check();
}

// grad_x, then the sums with or without room for it.
template <class T, class A = accumulate_t<T>>
void check_planar_fixed_gradient(const Kernels<T>& k, const Case& c, Source& source) {
  const auto x = ChannelData<T>::planar(c, c.x_gap, c.x, source);
  const auto grad = ChannelData<T>::planar(c, c.grad_gap, c.grad, source);
  const PerChannel<A, 4> numbers(c.channels, c, source, 3);
  const auto a = as_fixed(numbers);
  const auto call = [&](T* grad_x, int64_t begin, int64_t end, GradientSums* sums) {
    k.planar_fixed_gradient(grad.planes(begin), x.planes(begin), {grad_x, c.channels * c.n, c.n},
                            {c.rows, end - begin, c.n, c.traffic}, a.from(begin), sums);
  };
  check_elements(
      c, x, source, c.channels,
      [&](T* grad_x, int64_t begin, int64_t end) {
        Block<GradientSums> sums(end - begin, 0, c.place);
        call(grad_x + begin * c.n, begin, end, sums.data());
      },
      [&](int64_t n, int64_t ch, int64_t s) { return fixed_gradient(grad.at(n, ch, s), a, ch); });
  Block<T> room(c.rows * c.channels * c.n, c.out, c.place);
  const auto run = [&](int64_t begin, int64_t end, double* sum, double* product) {
    Block<GradientSums> sums(end - begin, 0, c.place);
    call(c.grad_x ? room.data() + begin * c.n : nullptr, begin, end, sums.data());
    take_sums(sums, end - begin, sum, product);
  };
  check_sums(c, x, source, run, [&](int64_t n, int64_t ch, int64_t s) {
    const Sized g = sized(real(grad.at(n, ch, s)));
    return std::pair(g, g * x_hat(x.at(n, ch, s), a.hat, ch));
  });
  grad.block.check("grad_y");
  numbers.check();
}

// --------------------------------------------------------------------- interleaved
template <class T, class A = accumulate_t<T>>
void check_interleaved_sums(const Kernels<T>& k, const Case& c, Source& source) {
  const auto x = ChannelData<T>::interleaved(c, c.x_gap, c.x, source);
  const PerChannel<A, 1> shift(c.n, c, source);
  const auto run = [&](int64_t begin, int64_t end, double* sum, double* squares) {
    Block<double> peak(end - begin, c.out, c.place);
    k.interleaved_sums(x.rows(0, begin), {c.rows, end - begin, c.traffic}, shift[0] + begin,
                       c.exact, sum, squares, peak.data());
    peak.check("peak");
    for (int64_t i = 0; i < end - begin; ++i) check_peak(source, peak[i], squares[i]);
  };
  check_sums(c, x, source, run, [&](int64_t n, int64_t ch, int64_t s) {
    const Sized d = sized(real(x.at(n, ch, s)) - shift[0][ch]);
    return std::pair(d, d * d);
  });
  shift.check();
}

template <class T, class A = accumulate_t<T>>
void check_interleaved_apply(const Kernels<T>& k, const Case& c, Source& source) {
  const auto x = ChannelData<T>::interleaved(c, c.x_gap, c.x, source);
  const PerChannel<A, 4> numbers(c.n, c, source, 2);
  const auto a = as_apply(numbers);
  const auto run = [&](T* y, int64_t begin, int64_t end) {
    k.interleaved_apply(x.rows(begin), y + begin * c.n, {end - begin, c.n, c.traffic}, a);
  };
  check_elements(c, x, source, c.rows, run,
                 [&](int64_t n, int64_t ch, int64_t s) { return applied(x.at(n, ch, s), a, ch); });
  numbers.check();
}

template <class T, class A = accumulate_t<T>>
void check_interleaved_gradient_sums(const Kernels<T>& k, const Case& c, Source& source) {
  const auto x = ChannelData<T>::interleaved(c, c.x_gap, c.x, source);
  const auto grad = ChannelData<T>::interleaved(c, c.grad_gap, c.grad, source);
  const PerChannel<A, 2> numbers(c.n, c, source);
  const auto hat = as_hat(numbers);
  const auto run = [&](int64_t begin, int64_t end, double* sum, double* product) {
    k.interleaved_gradient_sums(grad.rows(0, begin), x.rows(0, begin),
                                {c.rows, end - begin, c.traffic}, hat.from(begin), sum, product);
  };
  check_sums(c, x, source, run, [&](int64_t n, int64_t ch, int64_t s) {
    const Sized g = sized(real(grad.at(n, ch, s)));
    return std::pair(g, g * x_hat(x.at(n, ch, s), hat, ch));
  });
  grad.block.check("grad_y");
  numbers.check();
}

template <class T, class A = accumulate_t<T>>
void check_interleaved_gradient(const Kernels<T>& k, const Case& c, Source& source) {
  const auto x = ChannelData<T>::interleaved(c, c.x_gap, c.x, source);
  const auto grad = ChannelData<T>::interleaved(c, c.grad_gap, c.grad, source);
  const PerChannel<A, 4> numbers(c.n, c, source);
  const auto a = as_gradient(numbers);
  const auto run = [&](T* grad_x, int64_t begin, int64_t end) {
    k.interleaved_gradient(grad.rows(begin), x.rows(begin), grad_x + begin * c.n,
                           {end - begin, c.n, c.traffic}, a);
  };
  check_elements(c, x, source, c.rows, run, [&](int64_t n, int64_t ch, int64_t s) {
    return gradient(grad.at(n, ch, s), x.at(n, ch, s), a, ch);
  });
  grad.block.check("grad_y");
  numbers.check();
}

// As of planes; the sums of channels in parts have no room, as what is written is whole rows.
template <class T, class A = accumulate_t<T>>
void check_interleaved_fixed_gradient(const Kernels<T>& k, const Case& c, Source& source) {
  const auto x = ChannelData<T>::interleaved(c, c.x_gap, c.x, source);
  const auto grad = ChannelData<T>::interleaved(c, c.grad_gap, c.grad, source);
  const PerChannel<A, 4> numbers(c.n, c, source, 3);
  const auto a = as_fixed(numbers);
  check_elements(
      c, x, source, c.rows,
      [&](T* grad_x, int64_t begin, int64_t end) {
        Block<double> sums[] = {{c.n, c.out, c.place}, {c.n, c.out, c.place}};
        k.interleaved_fixed_gradient(grad.rows(begin), x.rows(begin), grad_x + begin * c.n,
                                     {end - begin, c.n, c.traffic}, a, sums[0].data(),
                                     sums[1].data());
      },
      [&](int64_t n, int64_t ch, int64_t s) { return fixed_gradient(grad.at(n, ch, s), a, ch); });
  Block<T> room(c.rows * c.n, c.out, c.place);
  const auto run = [&](int64_t begin, int64_t end, double* sum, double* product) {
    T* grad_x = c.grad_x && end - begin == c.n ? room.data() : nullptr;
    k.interleaved_fixed_gradient(grad.rows(0, begin), x.rows(0, begin), grad_x,
                                 {c.rows, end - begin, c.traffic}, a.from(begin), sum, product);
  };
  check_sums(c, x, source, run, [&](int64_t n, int64_t ch, int64_t s) {
    const Sized g = sized(real(grad.at(n, ch, s)));
    return std::pair(g, g * x_hat(x.at(n, ch, s), a.hat, ch));
  });
  grad.block.check("grad_y");
  numbers.check();
}

}  // namespace normkit::native
