/** Norms, rotations and gates of one row in float32; `y` may be the row itself. */
#pragma once

#include <cmath>
#include <cstddef>
#include <cstring>
#include <string>

#include "pass.h"

namespace axon {

inline void norm_row(const float* x, const float* weight, float eps, size_t width, float* y) {
  const float scale = 1 / std::sqrt(dot(x, x, width) / width + eps);
  for (size_t i = 0; i < width; ++i) {
    y[i] = x[i] * scale * weight[i];
  }
}

/** Adds to the gradient of the weight, `d_weight`, and makes that of the row, `dx`. */
inline void norm_row_gradient(const float* x, const float* weight, const float* dy, float eps, size_t width, float* dx,
                              float* d_weight) {
  const float scale = 1 / std::sqrt(dot(x, x, width) / width + eps);
  float towards = 0;
  Lanes sum{};
  along(
      width, [&](size_t i) { sum += load(x + i) * load(dy + i) * load(weight + i); },
      [&](size_t i) { towards += x[i] * dy[i] * weight[i]; });
  const float shift = (towards + total(sum)) / width * scale * scale;
  for (size_t i = 0; i < width; ++i) {
    d_weight[i] += dy[i] * x[i] * scale;
    dx[i] = scale * (dy[i] * weight[i] - x[i] * shift);
  }
}

/** Which numbers are turned together: halves of the first 2 `pairs`, or neighbours. */
struct Pairs {
  size_t count;
  bool traditional;
};

inline void rotate_row(const float* x, const float* cosines, const float* sines, size_t width, Pairs pairs, float* y) {
  const size_t step = pairs.traditional ? 2 : 1, other = pairs.traditional ? 1 : pairs.count;
  for (size_t pair = 0; pair < pairs.count; ++pair) {
    const size_t a = pair * step, b = a + other;
    const float first = x[a], second = x[b];
    y[a] = first * cosines[a] + second * sines[a];
    y[b] = second * cosines[b] + first * sines[b];
  }
  for (size_t i = 2 * pairs.count; i < width; ++i) {
    y[i] = x[i] * cosines[i] + x[i] * sines[i];
  }
}

/** The gradient of the row that was rotated into one with the gradient `dy`. */
inline void rotate_row_gradient(const float* dy, const float* cosines, const float* sines, size_t width, Pairs pairs,
                                float* dx) {
  const size_t step = pairs.traditional ? 2 : 1, other = pairs.traditional ? 1 : pairs.count;
  for (size_t pair = 0; pair < pairs.count; ++pair) {
    const size_t a = pair * step, b = a + other;
    const float first = dy[a], second = dy[b];
    dx[a] = first * cosines[a] + second * sines[b];
    dx[b] = second * cosines[b] + first * sines[a];
  }
  for (size_t i = 2 * pairs.count; i < width; ++i) {
    dx[i] = dy[i] * cosines[i] + dy[i] * sines[i];
  }
}

enum class Gate { silu, gelu_tanh, gelu_quick };

/** Throws std::invalid_argument for other names. */
inline Gate gate_named(const std::string& activation) {
  if (activation == "silu") {
    return Gate::silu;
  }
  if (activation == "gelu_tanh") {
    return Gate::gelu_tanh;
  }
  if (activation == "gelu_quick") {
    return Gate::gelu_quick;
  }
  refuse("activation should be silu, gelu_tanh or gelu_quick");
}

constexpr float TANH = 1.5957691216057308f;  // 2 sqrt(2 / pi)

/** What the sigmoid is taken of: all activations here are x times the sigmoid of something. */
template <class Number>
inline Number inner(Gate gate, Number x) {
  switch (gate) {
    case Gate::gelu_tanh:
      return TANH * (x + 0.044715f * x * x * x);
    case Gate::gelu_quick:
      return 1.702f * x;
    default:
      return x;
  }
}

/** The derivative of `inner`. */
template <class Number>
inline Number inner_slope(Gate gate, Number x) {
  switch (gate) {
    case Gate::gelu_tanh:
      return TANH * (1.0f + 3 * 0.044715f * x * x);
    case Gate::gelu_quick:
      return x * 0.0f + 1.702f;
    default:
      return x * 0.0f + 1.0f;
  }
}

/** exp(-|x|) of vectors, and of single numbers. */
inline Lanes exp_of_minus_abs(Lanes x) {
  const Lanes negative = x < 0.0f ? x : -x;
  const Decay e(negative);
  return negative < -87.0f ? Lanes{} : e.base + e.rest;  // which some factor may be large enough to see
}
inline float exp_of_minus_abs(float x) { return std::exp(-std::abs(x)); }

/** x / (1 + exp(-z)), where no exponential overflows. */
template <class Number>
inline Number times_sigmoid(Number x, Number z) {
  const Number e = exp_of_minus_abs(z);
  return x * (z < 0.0f ? e : e * 0.0f + 1.0f) / (1.0f + e);
}

/** The activation of `x`. */
inline void activate_row(Gate gate, const float* x, size_t width, float* y) {
  along(
      width, [&](size_t i) { store(y + i, times_sigmoid(load(x + i), inner(gate, load(x + i)))); },
      [&](size_t i) { y[i] = times_sigmoid(x[i], inner(gate, x[i])); });
}

/** Hands exp(x - highest) of every number to `each`, which gives it back or another one, and returns the sum of these. */
template <class Each>
inline float exponentials(const float* x, size_t width, float highest, Each each) {
  Lanes sum{};
  float rest = 0;
  along(
      width,
      [&](size_t i) {
        const Decay e(load(x + i) - highest);
        sum += each(i, e.base + e.rest);
      },
      [&](size_t i) { rest += each(i, std::exp(x[i] - highest)); });
  return total(sum) + rest;
}

/** What puts an exponential, or some of them, in its place. */
inline auto into(float* to) {
  return [to](size_t i, auto e) {
    std::memcpy(to + i, &e, sizeof(e));
    return e;
  };
}

/** The activation of `x` times `factor`. */
inline void gate_row(Gate gate, const float* x, const float* factor, size_t width, float* y) {
  along(
      width,
      [&](size_t i) { store(y + i, times_sigmoid(load(x + i), inner(gate, load(x + i))) * load(factor + i)); },
      [&](size_t i) { y[i] = times_sigmoid(x[i], inner(gate, x[i])) * factor[i]; });
}

/** 1 / (1 + exp(-z)) and 1 less that, each to its own last digits. */
template <class Number>
struct Sigmoid {
  explicit Sigmoid(Number z) {
    const Number e = exp_of_minus_abs(z), large = 1.0f / (1.0f + e), small = e / (1.0f + e);
    value = z < 0.0f ? small : large;
    rest = z < 0.0f ? large : small;
  }
  Number value, rest;
};

/** The derivative of an activation at x, whose sigmoid that is. */
template <class Number>
inline Number activation_slope(Gate gate, Number x, const Sigmoid<Number>& sigmoid) {
  return sigmoid.value + x * sigmoid.value * sigmoid.rest * inner_slope(gate, x);
}

/** The gradient of `x` where that of its activation is `dy`. */
inline void activate_row_gradient(Gate gate, const float* x, const float* dy, size_t width, float* dx) {
  const auto slope = [gate](auto x) { return activation_slope(gate, x, Sigmoid<decltype(x)>(inner(gate, x))); };
  along(
      width, [&](size_t i) { store(dx + i, load(dy + i) * slope(load(x + i))); },
      [&](size_t i) { dx[i] = dy[i] * slope(x[i]); });
}

/** The gradients of `x` and `factor` where that of their product is `dy`. */
inline void gate_row_gradient(Gate gate, const float* x, const float* factor, const float* dy, size_t width, float* dx,
                              float* d_factor) {
  const auto at = [gate](auto x, auto factor, auto dy, auto put) {
    const Sigmoid<decltype(x)> sigmoid(inner(gate, x));
    put(dy * factor * activation_slope(gate, x, sigmoid), dy * x * sigmoid.value);
  };
  along(
      width,
      [&](size_t i) {
        at(load(x + i), load(factor + i), load(dy + i), [&](Lanes a, Lanes b) {
          store(dx + i, a);
          store(d_factor + i, b);
        });
      },
      [&](size_t i) {
        at(x[i], factor[i], dy[i], [&](float a, float b) {
          dx[i] = a;
          d_factor[i] = b;
        });
      });
}

}  // namespace axon
