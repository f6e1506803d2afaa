/** Norms, rotations and gates of one token, in one pass each where MLX makes many small operations. */
#include "passes.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "mlx/ops.h"
#include "mlx/utils.h"
#include "pass.h"
#include "row_inputs.h"
#include "row_passes.h"
#include "rows.h"

namespace axon {

namespace mx = mlx::core;
using mx::array;

namespace {

void layer_norm_of_rows(const array& x, const array& weight, const array* bias, float eps, float* y) {
  const size_t width = x.shape(-1), rows = x.size() / width;
  std::vector<float> scratch(3 * width);
  const float* w = row(weight, 0, scratch.data());
  const float* b = bias == nullptr ? nullptr : row(*bias, 0, scratch.data() + width);
  for (size_t at = 0; at < rows; ++at, y += width) {
    const float* from = row(x, at, scratch.data() + 2 * width);
    const float mean = sum(from, width) / width;
    std::transform(from, from + width, y, [mean](float number) { return number - mean; });
    const float scale = 1 / std::sqrt(dot(y, y, width) / width + eps);
    for (size_t i = 0; i < width; ++i) {
      y[i] = b == nullptr ? y[i] * scale * w[i] : y[i] * scale * w[i] + b[i];
    }
  }
}

void rotate(const array& x, const array& cosines, const array& sines, Pairs pairs, float* y) {
  const size_t width = x.shape(-1), tokens = x.shape(-2), rows = x.size() / width;
  std::vector<float> scratch(3 * width);
  for (size_t at = 0; at < rows; ++at, y += width) {
    const float* c = row(cosines, at % tokens, scratch.data() + width);
    const float* s = row(sines, at % tokens, scratch.data() + 2 * width);
    rotate_row(row(x, at, scratch.data()), c, s, width, pairs, y);
  }
}

void gate_rows(Gate gate, const array& x, const array& factor, float* y) {
  const size_t width = x.shape(-1), rows = x.size() / width;
  std::vector<float> scratch(2 * width);
  for (size_t at = 0; at < rows; ++at, y += width) {
    const float* a = row(x, at, scratch.data());
    const float* b = row(factor, at, scratch.data() + width);
    gate_row(gate, a, b, width, y);
  }
}

array inner_in_operations(Gate gate, const array& x) {
  switch (gate) {
    case Gate::gelu_tanh:
      return mx::multiply(array(TANH), mx::add(x, mx::multiply(array(0.044715f), mx::multiply(x, mx::square(x)))));
    case Gate::gelu_quick:
      return mx::multiply(array(1.702f), x);
    default:
      return x;
  }
}

}  // namespace

array rms_norm(const array& x, const array& weight, float eps, float offset) {
  if (x.ndim() < 1) {
    refuse("weight should be as long as the last axis of x");
  }
  Arrays inputs{x};
  const NormInput norm(Norm{weight, eps, offset}, x.shape(-1), inputs);
  const size_t width = x.shape(-1);
  const auto run = [=](const Arrays& in, const Outputs& y) { norm.run(in, *RowsOf(in[0]), width, y[0]); };
  const auto in_operations = [=](const Arrays& in) { return Arrays{norm.of(in, in[0])}; };
  const auto dtype = offset == 0 ? mx::promote_types(x.dtype(), weight.dtype()) : mx::float32;
  return pass(x.shape(), dtype, std::move(inputs), {"AxonRMSNorm", run, in_operations});
}

array layer_norm(const array& x, const array& weight, const std::optional<array>& bias, float eps) {
  const mx::Shape shape{x.ndim() < 1 ? 0 : x.shape(-1)};
  if (x.ndim() < 1 || weight.shape() != shape || (bias && bias->shape() != shape)) {
    refuse("weight and bias should be as long as the last axis of x");
  }
  Arrays inputs{x, weight};
  auto dtype = mx::promote_types(x.dtype(), weight.dtype());
  if (bias) {
    inputs.push_back(*bias);
    dtype = mx::promote_types(dtype, bias->dtype());
  }
  const auto run = [eps](const Arrays& in, const Outputs& y) {
    layer_norm_of_rows(in[0], in[1], in.size() > 2 ? &in[2] : nullptr, eps, y[0]);
  };
  const auto in_operations = [eps](const Arrays& in) {
    const array centred = mx::subtract(in[0], mx::mean(in[0], -1, true));
    const array scale = mx::rsqrt(mx::add(mx::mean(mx::square(centred), -1, true), array(eps)));
    const array y = mx::multiply(mx::multiply(centred, scale), in[1]);
    return Arrays{in.size() > 2 ? mx::add(y, in[2]) : y};
  };
  return pass(x.shape(), dtype, std::move(inputs), {"AxonLayerNorm", run, in_operations});
}

array gated(const array& x, const array& factor, const std::string& activation) {
  if (x.shape() != factor.shape() || x.ndim() < 1) {
    refuse("gate and factor should have one shape");
  }
  const Gate gate = gate_named(activation);
  const auto run = [gate](const Arrays& in, const Outputs& y) { gate_rows(gate, in[0], in[1], y[0]); };
  const auto in_operations = [gate](const Arrays& in) {
    return Arrays{mx::multiply(mx::multiply(in[0], mx::sigmoid(inner_in_operations(gate, in[0]))), in[1])};
  };
  return pass(x.shape(), mx::promote_types(x.dtype(), factor.dtype()), {x, factor}, {"AxonGated", run, in_operations});
}

array rotation(const array& x, const array& cosines, const array& sines, int pairs, bool traditional) {
  if (x.ndim() < 2 || pairs < 0 || pairs > x.shape(-1) / 2) {
    refuse("x should be (..., L, D), and pairs at most D / 2");
  }
  if (const mx::Shape shape{x.shape(-2), x.shape(-1)}; cosines.shape() != shape || sines.shape() != shape) {
    refuse("cosines and sines should be (L, D)");
  }
  const auto in_operations = [pairs, traditional](const Arrays& in) {
    const int width = in[0].shape(-1), turned = 2 * pairs;
    std::vector<int> partners(width);
    for (int i = 0; i < width; ++i) {
      partners[i] = i >= turned ? i : traditional ? i ^ 1 : i < pairs ? i + pairs : i - pairs;
    }
    const array others = mx::take(in[0], array(partners.data(), {width}), -1);
    return Arrays{mx::add(mx::multiply(in[0], in[1]), mx::multiply(others, in[2]))};
  };
  const auto run = [pairs, traditional](const Arrays& in, const Outputs& y) {
    rotate(in[0], in[1], in[2], {static_cast<size_t>(pairs), traditional}, y[0]);
  };
  return pass(x.shape(), x.dtype(), {x, cosines, sines}, {"AxonRotation", run, in_operations});
}

}  // namespace axon
