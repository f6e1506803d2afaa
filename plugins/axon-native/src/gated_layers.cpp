/** Gated layers and experts of a few tokens in one operation each, where MLX makes one of every product and gate. */
#include "few_tokens.h"

#include <algorithm>
#include <utility>

#include "mlx/ops.h"
#include "gated_rows.h"
#include "pass.h"
#include "passes.h"
#include "row_inputs.h"
#include "row_passes.h"

namespace axon {

namespace mx = mlx::core;
using mx::array;

namespace {

mx::Shape with_width(const array& x, int width) {
  auto shape = x.shape();
  shape.back() = width;
  return shape;
}

/** The expert of each row; MLX would read beyond the last one. */
std::vector<size_t> chosen_of(const array& indices, size_t experts) {
  std::vector<size_t> found;
  for (size_t at = 0; at < indices.size(); ++at) {
    found.push_back(std::min<size_t>(indices.data<uint32_t>()[offset(indices, at, indices.ndim())], experts - 1));
  }
  return found;
}

}  // namespace

void gated_rows(const Arrays& in, const LinearInput& g, const LinearInput& u, const LinearInput& d, Gate act,
                const std::vector<const float*>& x, const std::vector<size_t>& experts, float* y) {
  const size_t count = x.size(), width = g.columns();
  std::vector<float> gates(count * width), inner(count * width);
  multiply({g.task(in, x, gates.data(), experts), u.task(in, x, inner.data(), experts)});
  g.shift(in, count, gates.data(), experts);
  u.shift(in, count, inner.data(), experts);
  gate_row(act, gates.data(), inner.data(), count * width, inner.data());
  std::vector<const float*> rows;
  for (size_t at = 0; at < count; ++at) {
    rows.push_back(inner.data() + at * width);
  }
  multiply({d.task(in, rows, y, experts)});
  d.shift(in, count, y, experts);
}

array gated_mlp(const array& x, const Layer& gate, const Layer& up, const Layer& down, const std::string& activation,
                const std::optional<Norm>& before, bool adds) {
  if (x.ndim() < 1 || x.shape(-1) == 0 || !is_float(x)) {
    refuse("x should be (..., K), of float32, bfloat16 or float16");
  }
  const Gate act = gate_named(activation);
  const mx::Stream stream = mx::default_stream(mx::Device::cpu);
  Arrays inputs{x};
  const LinearInput g(gate, x.shape(-1), false, inputs, stream), u(up, x.shape(-1), false, inputs, stream);
  const LinearInput d(down, u.columns(), false, inputs, stream);
  const NormInput norm(before, x.shape(-1), inputs);
  if (g.columns() != u.columns() || (adds && d.columns() != x.shape(-1))) {
    refuse("gate and up should have as many rows, and down as many as x is wide where x is added");
  }
  const auto run = [=](const Arrays& in, const Outputs& y) {
    gated_rows(in, g, u, d, act, *RowsOf(in[0], norm, in), {}, y[0]);
    if (adds) {
      RowsOf(in[0]).add_to(y[0]);
    }
  };
  const auto in_operations = [=](const Arrays& in) {
    const array h = norm.of(in, in[0]), y = d.of(in, gated(g.of(in, h), u.of(in, h), activation));
    return Arrays{adds ? mx::add(in[0], y) : y};
  };
  std::vector shapes{with_width(x, d.columns())};
  return pass(std::move(shapes), x.dtype(), std::move(inputs), {"AxonGatedMLP", run, in_operations})[0];
}

array gated_experts(const array& x, const array& indices, const array& weights, const Layer& gate, const Layer& up,
                    const Layer& down, const std::string& activation) {
  const bool axes = x.ndim() > 0 && indices.ndim() == x.ndim() && indices.shape(-1) > 0 && x.shape(-1) > 0;
  if (!axes || !is_float(x) || weights.shape() != indices.shape() || !is_float(weights) ||
      with_width(x, indices.shape(-1)) != indices.shape() || !mx::issubdtype(indices.dtype(), mx::integer)) {
    refuse("x should be (..., K), and indices and weights (..., k), whole numbers and others");
  }
  const Gate act = gate_named(activation);
  const mx::Stream stream = mx::default_stream(mx::Device::cpu);
  Arrays inputs{x, mx::astype(indices, mx::uint32, stream), weights};
  const LinearInput g(gate, x.shape(-1), true, inputs, stream), u(up, x.shape(-1), true, inputs, stream);
  const LinearInput d(down, u.columns(), true, inputs, stream);
  const size_t experts = g.experts(inputs), some = indices.shape(-1), columns = d.columns();
  if (g.columns() != u.columns() || u.experts(inputs) != experts || d.experts(inputs) != experts || experts == 0) {
    refuse("gate, up and down should have as many experts, gate and up as many rows");
  }
  const auto run = [=](const Arrays& in, const Outputs& y) {
    const RowsOf rows(in[0]), shares(in[2]);
    std::vector<const float*> repeated;
    for (const float* each : *rows) {
      repeated.insert(repeated.end(), some, each);
    }
    std::vector<float> found(repeated.size() * columns);
    gated_rows(in, g, u, d, act, repeated, chosen_of(in[1], experts), found.data());
    std::fill_n(y[0], (*rows).size() * columns, 0.0f);
    for (size_t at = 0; at < repeated.size(); ++at) {
      float* const to = y[0] + at / some * columns;
      const float share = (*shares)[at / some][at % some];
      for (size_t i = 0; i < columns; ++i) {
        to[i] += share * found[at * columns + i];
      }
    }
  };
  const auto in_operations = [=](const Arrays& in) {
    const array rows = mx::expand_dims(in[0], {-2, -3}), chosen = mx::minimum(in[1], array(uint32_t(experts - 1)));
    const array y = d.of(in, gated(g.of(in, rows, chosen), u.of(in, rows, chosen), activation), chosen);
    return Arrays{mx::sum(mx::multiply(mx::squeeze(y, -2), mx::expand_dims(in[2], -1)), -2)};
  };
  std::vector shapes{with_width(x, d.columns())};
  return pass(std::move(shapes), mx::float32, std::move(inputs), {"AxonGatedExperts", run, in_operations})[0];
}

}  // namespace axon
