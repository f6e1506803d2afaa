/** Norms, rotations and gates of one row in float32; `y` may be the row itself. */
#pragma once

#include <cmath>
#include <cstddef>
#include <string>

#include "pass.h"

namespace axon {

inline void norm_row(const float* x, const float* weight, float eps, size_t width, float* y) {
  const float scale = 1 / std::sqrt(dot(x, x, width) / width + eps);
  for (size_t i = 0; i < width; ++i) {
    y[i] = x[i] * scale * weight[i];
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

/** exp(-|x|) of vectors, and of single numbers. */
inline Lanes exp_of_minus_abs(Lanes x) {
  const Decay e(x < 0.0f ? x : -x);
  return e.base + e.rest;
}
inline float exp_of_minus_abs(float x) { return std::exp(-std::abs(x)); }

/** x / (1 + exp(-z)), where no exponential overflows. */
template <class Number>
inline Number times_sigmoid(Number x, Number z) {
  const Number e = exp_of_minus_abs(z);
  return x * (z < 0.0f ? e : e * 0.0f + 1.0f) / (1.0f + e);
}

/** The activation of `x` times `factor`. */
inline void gate_row(Gate gate, const float* x, const float* factor, size_t width, float* y) {
  along(
      width,
      [&](size_t i) { store(y + i, times_sigmoid(load(x + i), inner(gate, load(x + i))) * load(factor + i)); },
      [&](size_t i) { y[i] = times_sigmoid(x[i], inner(gate, x[i])) * factor[i]; });
}

}  // namespace axon
