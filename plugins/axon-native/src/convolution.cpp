/** The causal depthwise convolution before recurrent layers, and its gradient, in one pass over the tokens each. */
#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "mlx/ops.h"
#include "pass.h"
#include "passes.h"
#include "rows.h"
#include "threads.h"

namespace axon {

namespace mx = mlx::core;
using mx::array;

namespace {

/** Tokens that one thread works on; sums over tokens are made part by part, whatever the threads. */
constexpr size_t TOKENS = 64;

/** Adds the products of two rows to a third one. */
void add_products(const float* a, const float* b, size_t width, float* to) {
  along(
      width, [&](size_t i) { store(to + i, load(to + i) + load(a + i) * load(b + i)); },
      [&](size_t i) { to[i] += a[i] * b[i]; });
}

/** Inputs x (B, L, E), the state before them (B, S, E), taps (E, K), and what is added (E,) if it is there. */
class Convolution {
 public:
  Convolution(const Arrays& in, size_t dilation)
      : x_(in[0]),
        state_(in[1]),
        length_(x_.shape(1)),
        before_(state_.shape(1)),
        channels_(x_.shape(2)),
        taps_(in[2].shape(1)),
        dilation_(dilation),
        weight_(taps_ * channels_) {
    std::vector<float> scratch(taps_);
    for (size_t channel = 0; channel < channels_; ++channel) {
      const float* from = row(in[2], channel, scratch.data());
      for (size_t tap = 0; tap < taps_; ++tap) {
        weight_[tap * channels_ + channel] = from[tap];
      }
    }
  }

  void forward(const array* bias, float* y) const {
    by_part([&](size_t, size_t begin, size_t end) {
      std::vector<float> scratch(channels_);
      for (size_t at = begin; at < end; ++at) {
        float* const to = y + at * channels_;
        if (bias == nullptr) {
          std::fill_n(to, channels_, 0.0f);
        } else {
          std::copy_n(row(*bias, 0, scratch.data()), channels_, to);
        }
        for (size_t tap = 0; tap < taps_; ++tap) {
          add_products(input(at, tap, scratch.data()), weight(tap), channels_, to);
        }
      }
    });
  }

  /** Of x, state, taps, and of what is added if there is a fourth output. */
  void gradients(const array& dy, const Outputs& d) const {
    for (size_t at = 0; at < batches() * before_; ++at) {
      towards(dy, at / before_, at % before_, d[1] + at * channels_);
    }
    const size_t parts = (batches() * length_ + TOKENS - 1) / TOKENS, sums = (taps_ + 1) * channels_;
    std::vector<float> of_parts(std::max<size_t>(parts, 1) * sums);
    by_part([&](size_t part, size_t begin, size_t end) {
      std::vector<float> scratch(2 * channels_);
      float* const own = of_parts.data() + part * sums;
      for (size_t at = begin; at < end; ++at) {
        towards(dy, at / length_, at % length_ + before_, d[0] + at * channels_);
        const float* slope = row(dy, at, scratch.data());
        for (size_t tap = 0; tap < taps_; ++tap) {
          add_products(slope, input(at, tap, scratch.data() + channels_), channels_, own + tap * channels_);
        }
        float* const bias = own + taps_ * channels_;
        std::transform(bias, bias + channels_, slope, bias, std::plus<float>());
      }
    });
    for (size_t part = 1; part < parts; ++part) {
      std::transform(of_parts.begin(), of_parts.begin() + sums, of_parts.begin() + part * sums, of_parts.begin(),
                     std::plus<float>());
    }
    for (size_t channel = 0; channel < channels_; ++channel) {
      for (size_t tap = 0; tap < taps_; ++tap) {
        d[2][channel * taps_ + tap] = of_parts[tap * channels_ + channel];
      }
    }
    if (d.size() > 3) {
      std::copy_n(of_parts.data() + taps_ * channels_, channels_, d[3]);
    }
  }

 private:
  size_t batches() const { return x_.shape(0); }
  const float* weight(size_t tap) const { return weight_.data() + tap * channels_; }

  void by_part(const std::function<void(size_t, size_t, size_t)>& each) const {
    const size_t rows = batches() * length_;
    in_parallel((rows + TOKENS - 1) / TOKENS, taps_ * rows * channels_,
                [&](size_t part) { each(part, part * TOKENS, std::min(rows, (part + 1) * TOKENS)); });
  }

  /** What a tap meets at the token in row `at` of x. */
  const float* input(size_t at, size_t tap, float* scratch) const {
    const size_t batch = at / length_, place = at % length_ + tap * dilation_;  // from the first row of the state on
    return place < before_ ? row(state_, batch * before_ + place, scratch)
                           : row(x_, batch * length_ + place - before_, scratch);
  }

  /** The gradient of the input at a place, counted from the first row of the state on. */
  void towards(const array& dy, size_t batch, size_t place, float* to) const {
    std::vector<float> scratch(channels_);
    std::fill_n(to, channels_, 0.0f);
    for (size_t tap = 0; tap < taps_ && tap * dilation_ <= place; ++tap) {
      if (const size_t token = place - tap * dilation_; token < length_) {
        add_products(row(dy, batch * length_ + token, scratch.data()), weight(tap), channels_, to);
      }
    }
  }

  const array &x_, &state_;
  size_t length_, before_, channels_, taps_, dilation_;
  std::vector<float> weight_;  // (K, E)
};

/** The same in operations of MLX. */
Arrays in_operations(const Arrays& in, int dilation) {
  const array window = mx::concatenate({in[1], in[0]}, 1);
  const int batch = in[0].shape(0), length = in[0].shape(1), channels = in[0].shape(2), taps = in[2].shape(1);
  array y = in.size() > 3 ? mx::broadcast_to(in[3], in[0].shape()) : mx::zeros(in[0].shape());
  for (int tap = 0; tap < taps; ++tap) {
    const int first = tap * dilation;
    const array met = mx::slice(window, {0, first, 0}, {batch, first + length, channels});
    y = mx::add(y, mx::multiply(met, mx::take(in[2], tap, 1)));
  }
  return {y};
}

}  // namespace

array causal_convolution(const array& x, const array& state, const array& weight, const std::optional<array>& bias,
                         int dilation) {
  if (x.ndim() != 3 || state.ndim() != 3 || weight.ndim() != 2 || x.shape(0) != state.shape(0) ||
      x.shape(2) != state.shape(2) || weight.shape(0) != x.shape(2) || weight.shape(1) < 1 || dilation < 1 ||
      state.shape(1) != (weight.shape(1) - 1) * dilation || (bias && bias->shape() != mx::Shape{x.shape(2)})) {
    refuse("x should be (B, L, E), the state (B, (K - 1) * dilation, E), the taps (E, K) and the bias (E,)");
  }
  Arrays inputs{x, state, weight};
  if (bias) {
    inputs.push_back(*bias);
  }
  const auto run = [dilation](const Arrays& in, const Outputs& y) {
    Convolution(in, dilation).forward(in.size() > 3 ? &in[3] : nullptr, y[0]);
  };
  const auto operations = [dilation](const Arrays& in) { return in_operations(in, dilation); };
  const auto slopes = [dilation](const Arrays& in, const Outputs& d) {
    Convolution(in, dilation).gradients(in.back(), d);
  };
  const auto gradient = gradient_pass("AxonCausalConvolutionGradient", slopes, operations);
  return pass(x.shape(), mx::float32, std::move(inputs), {"AxonCausalConvolution", run, operations, gradient});
}

}  // namespace axon
