/** Norms, rotations and gates, and their gradients, in one pass each where MLX makes many operations. */
#include "passes.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>
#include <vector>

#include "mlx/ops.h"
#include "mlx/transforms.h"
#include "mlx/utils.h"
#include "pass.h"
#include "row_passes.h"
#include "rows.h"
#include "threads.h"

namespace axon {

namespace mx = mlx::core;
using mx::array;

namespace {

/** Rows of a part that one thread works on; sums over rows are made part by part, whatever the threads. */
constexpr size_t PART = 32;

/** Calls `each(part, begin, end)` for parts of the rows of x, on several threads where they are many numbers. */
void by_part(const array& x, const std::function<void(size_t, size_t, size_t)>& each) {
  constexpr size_t WORK = 8;  // of a number, in multiplications
  const size_t rows = x.size() / x.shape(-1), parts = (rows + PART - 1) / PART;
  in_parallel(parts, WORK * x.size(),
              [&](size_t part) { each(part, part * PART, std::min(rows, (part + 1) * PART)); });
}

/** What a norm multiplies by. */
std::vector<float> scale_of(const array& weight, float offset) {
  std::vector<float> scale(weight.size());
  const float* w = row(weight, 0, scale.data());
  std::transform(w, w + scale.size(), scale.begin(), [offset](float number) { return offset + number; });
  return scale;
}

void norm(const array& x, const array& weight, float eps, float offset, float* y) {
  const size_t width = x.shape(-1);
  const std::vector<float> scale = scale_of(weight, offset);
  by_part(x, [&](size_t, size_t begin, size_t end) {
    std::vector<float> scratch(width);
    for (size_t at = begin; at < end; ++at) {
      norm_row(row(x, at, scratch.data()), scale.data(), eps, width, y + at * width);
    }
  });
}

void norm_gradient(const Arrays& in, float eps, float offset, const Outputs& d) {
  const array &x = in[0], &weight = in[1], &dy = in[2];
  const size_t width = x.shape(-1), parts = (x.size() / width + PART - 1) / PART;
  const std::vector<float> scale = scale_of(weight, offset);
  std::vector<float> sums(parts * width);
  by_part(x, [&](size_t part, size_t begin, size_t end) {
    std::vector<float> scratch(2 * width);
    for (size_t at = begin; at < end; ++at) {
      const float* from = row(x, at, scratch.data());
      const float* slope = row(dy, at, scratch.data() + width);
      norm_row_gradient(from, scale.data(), slope, eps, width, d[0] + at * width, sums.data() + part * width);
    }
  });
  std::fill_n(d[1], width, 0.0f);
  for (size_t part = 0; part < parts; ++part) {
    std::transform(d[1], d[1] + width, sums.data() + part * width, d[1], std::plus<float>());
  }
}

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

/** Rows of x, whose tokens are one axis before the last or two, each by the angles of its token. */
template <class Row>
void rotate(const array& x, const array& cosines, const array& sines, bool heads_inside, float* y, Row turn) {
  const size_t width = x.shape(-1), tokens = cosines.shape(0), heads = heads_inside ? x.shape(-2) : 1;
  by_part(x, [&](size_t, size_t begin, size_t end) {
    std::vector<float> scratch(3 * width);
    for (size_t at = begin; at < end; ++at) {
      const float* c = row(cosines, at / heads % tokens, scratch.data() + width);
      const float* s = row(sines, at / heads % tokens, scratch.data() + 2 * width);
      turn(row(x, at, scratch.data()), c, s, width, y + at * width);
    }
  });
}

void gate_rows(Gate gate, const array& x, const array& factor, float* y) {
  const size_t width = x.shape(-1);
  by_part(x, [&](size_t, size_t begin, size_t end) {
    std::vector<float> scratch(2 * width);
    for (size_t at = begin; at < end; ++at) {
      const float* a = row(x, at, scratch.data());
      gate_row(gate, a, row(factor, at, scratch.data() + width), width, y + at * width);
    }
  });
}

void gate_gradient(Gate gate, const Arrays& in, const Outputs& d) {
  const size_t width = in[0].shape(-1);
  by_part(in[0], [&](size_t, size_t begin, size_t end) {
    std::vector<float> scratch(3 * width);
    for (size_t at = begin; at < end; ++at) {
      const float* x = row(in[0], at, scratch.data());
      const float* factor = row(in[1], at, scratch.data() + width);
      const float* dy = row(in[2], at, scratch.data() + 2 * width);
      gate_row_gradient(gate, x, factor, dy, width, d[0] + at * width, d[1] + at * width);
    }
  });
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

void activate_rows(Gate gate, const array& x, float* y) {
  const size_t width = x.shape(-1);
  by_part(x, [&](size_t, size_t begin, size_t end) {
    std::vector<float> scratch(width);
    for (size_t at = begin; at < end; ++at) {
      activate_row(gate, row(x, at, scratch.data()), width, y + at * width);
    }
  });
}

void activation_gradient(Gate gate, const Arrays& in, float* dx) {
  const size_t width = in[0].shape(-1);
  by_part(in[0], [&](size_t, size_t begin, size_t end) {
    std::vector<float> scratch(2 * width);
    for (size_t at = begin; at < end; ++at) {
      const float* x = row(in[0], at, scratch.data());
      activate_row_gradient(gate, x, row(in[1], at, scratch.data() + width), width, dx + at * width);
    }
  });
}

/** Rotations of (..., L, D), or of (B, L, H, D). */
struct Rotation {
  Pairs pairs;
  bool heads_inside;

  array of(const array& x, const array& cosines, const array& sines) const {
    const auto run = [own = *this](const Arrays& in, const Outputs& y) {
      rotate(in[0], in[1], in[2], own.heads_inside, y[0],
             [&](auto x, auto c, auto s, size_t width, float* to) { rotate_row(x, c, s, width, own.pairs, to); });
    };
    const auto operations = [own = *this](const Arrays& in) { return Arrays{own.in_operations(in)}; };
    const auto gradient = [own = *this](const Arrays& in, const Arrays& dy) { return own.gradients(in, dy[0]); };
    return pass(x.shape(), x.dtype(), {x, cosines, sines}, {"AxonRotation", run, operations, gradient});
  }

  /** Rotated back; those of the angles, which hardly anybody asks for, in operations of MLX. */
  Arrays gradients(const Arrays& in, const array& dy) const {
    const auto run = [own = *this](const Arrays& in, const Outputs& d) {
      rotate(in[0], in[1], in[2], own.heads_inside, d[0], [&](auto x, auto c, auto s, size_t width, float* to) {
        rotate_row_gradient(x, c, s, width, own.pairs, to);
      });
    };
    const auto again = [own = *this](const Arrays& all) {
      const auto forward = [&](const Arrays& some) { return Arrays{own.in_operations({some[0], all[1], all[2]})}; };
      return mx::vjp(forward, {all[0]}, {all[0]}).second;  // linear: it does not matter where
    };
    const auto angles = [own = *this, in](const Arrays& some) {
      return Arrays{mx::astype(own.in_operations({in[0], some[0], some[1]}), in[0].dtype())};
    };
    Arrays found = mx::vjp(angles, {in[1], in[2]}, {dy}).second;
    const PassDefinition back{"AxonRotationGradient", run, again};
    found.insert(found.begin(), pass(dy.shape(), mx::float32, {dy, in[1], in[2]}, back));
    return found;
  }

  array in_operations(const Arrays& in) const {
    const int width = in[0].shape(-1), half = pairs.count, turned = 2 * half;
    std::vector<int> partners(width);
    for (int i = 0; i < width; ++i) {
      partners[i] = i >= turned ? i : pairs.traditional ? i ^ 1 : i < half ? i + half : i - half;
    }
    const array others = mx::take(in[0], array(partners.data(), {width}), -1);
    const auto of_tokens = [&](const array& angles) { return heads_inside ? mx::expand_dims(angles, 1) : angles; };
    return mx::add(mx::multiply(in[0], of_tokens(in[1])), mx::multiply(others, of_tokens(in[2])));
  }
};

}  // namespace

array rms_norm(const array& x, const array& weight, float eps, float offset) {
  if (x.ndim() < 1 || weight.ndim() != 1 || weight.shape(0) != x.shape(-1)) {
    refuse("weight should be as long as the last axis of x");
  }
  const auto run = [=](const Arrays& in, const Outputs& y) { norm(in[0], in[1], eps, offset, y[0]); };
  const auto in_operations = [=](const Arrays& in) {
    const array mean = mx::mean(mx::square(in[0]), -1, true), scale = mx::add(in[1], array(offset));
    return Arrays{mx::multiply(mx::multiply(in[0], mx::rsqrt(mx::add(mean, array(eps)))), scale)};
  };
  const auto slopes = [=](const Arrays& in, const Outputs& d) { norm_gradient(in, eps, offset, d); };
  const auto gradient = gradient_pass("AxonRMSNormGradient", slopes, in_operations);
  const auto dtype = offset == 0 ? mx::promote_types(x.dtype(), weight.dtype()) : mx::float32;
  return pass(x.shape(), dtype, {x, weight}, {"AxonRMSNorm", run, in_operations, gradient});
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
  const auto slopes = [gate](const Arrays& in, const Outputs& d) { gate_gradient(gate, in, d); };
  const auto gradient = gradient_pass("AxonGatedGradient", slopes, in_operations);
  return pass(x.shape(), mx::promote_types(x.dtype(), factor.dtype()), {x, factor},
              {"AxonGated", run, in_operations, gradient});
}

array activated(const array& x, const std::string& activation) {
  if (x.ndim() < 1) {
    refuse("x should be (..., D)");
  }
  const Gate gate = gate_named(activation);
  const auto run = [gate](const Arrays& in, const Outputs& y) { activate_rows(gate, in[0], y[0]); };
  const auto in_operations = [gate](const Arrays& in) {
    return Arrays{mx::multiply(in[0], mx::sigmoid(inner_in_operations(gate, in[0])))};
  };
  const auto slopes = [gate](const Arrays& in, const Outputs& d) { activation_gradient(gate, in, d[0]); };
  const auto gradient = gradient_pass("AxonActivatedGradient", slopes, in_operations);
  return pass(x.shape(), x.dtype(), {x}, {"AxonActivated", run, in_operations, gradient});
}

array rotation(const array& x, const array& cosines, const array& sines, int pairs, bool traditional) {
  if (x.ndim() < 2 || pairs < 0 || pairs > x.shape(-1) / 2) {
    refuse("x should be (..., L, D), and pairs at most D / 2");
  }
  if (const mx::Shape shape{x.shape(-2), x.shape(-1)}; cosines.shape() != shape || sines.shape() != shape) {
    refuse("cosines and sines should be (L, D)");
  }
  const Rotation rotation{{static_cast<size_t>(pairs), traditional}, x.ndim() == 4 && x.shape(1) > 1 && x.shape(2) > 1};
  // Heads of a token stay neighbours where they are such, so that products read them without a copy.
  const array y = rotation.of(rotation.heads_inside ? mx::swapaxes(x, 1, 2) : x, cosines, sines);
  return rotation.heads_inside ? mx::swapaxes(y, 1, 2) : y;
}

}  // namespace axon
