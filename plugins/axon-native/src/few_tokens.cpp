/** Layers of a few tokens in one operation each, where MLX makes one of every product, rotation and gate. */
#include "few_tokens.h"

#include <algorithm>
#include <utility>

#include "mlx/ops.h"
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

/** down(act(gate(x)) * up(x)) of rows, by the layers of all or by those of each row's expert. */
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

/** The expert of each row; MLX would read beyond the last one. */
std::vector<size_t> chosen_of(const array& indices, size_t experts) {
  std::vector<size_t> found;
  for (size_t at = 0; at < indices.size(); ++at) {
    found.push_back(std::min<size_t>(indices.data<uint32_t>()[offset(indices, at, indices.ndim())], experts - 1));
  }
  return found;
}

/** Normalises and rotates heads of one token; `angles` is the place of cosines and sines among the inputs, 0 for none. */
void finish_heads(const Arrays& in, float* heads, int count, size_t width, const NormInput& norm, size_t angles,
                  Pairs pairs) {
  if (norm) {
    std::vector<const float*> rows;
    for (int head = 0; head < count; ++head) {
      rows.push_back(heads + head * width);
    }
    norm.run(in, rows, width, heads);
  }
  if (angles == 0) {
    return;
  }
  const RowsOf cosines(in[angles]), sines(in[angles + 1]);
  for (int head = 0; head < count; ++head, heads += width) {
    rotate_row(heads, (*cosines)[0], (*sines)[0], width, pairs, heads);
  }
}

}  // namespace

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
    const array rows = mx::expand_dims(in[0], {-2, -3});
    const array y = d.of(in, gated(g.of(in, rows, in[1]), u.of(in, rows, in[1]), activation), in[1]);
    return Arrays{mx::sum(mx::multiply(mx::squeeze(y, -2), mx::expand_dims(in[2], -1)), -2)};
  };
  std::vector shapes{with_width(x, d.columns())};
  return pass(std::move(shapes), mx::float32, std::move(inputs), {"AxonGatedExperts", run, in_operations})[0];
}

std::vector<array> projected_heads(const array& x, const Layer& queries, const Layer& keys, const Layer& values,
                                   std::pair<int, int> heads, const std::optional<std::pair<array, array>>& turn,
                                   int pairs, bool traditional, const std::optional<Norm>& before,
                                   const std::optional<Norm>& query_norm, const std::optional<Norm>& key_norm) {
  if (x.ndim() != 3 || x.shape(1) != 1 || x.shape(2) == 0 || !is_float(x)) {
    refuse("x should be (B, 1, K), of float32, bfloat16 or float16");
  }
  const mx::Stream stream = mx::default_stream(mx::Device::cpu);
  Arrays inputs{x};
  const auto& [asking, shared] = heads;
  const LinearInput q(queries, x.shape(-1), false, inputs, stream), k(keys, x.shape(-1), false, inputs, stream),
      v(values, x.shape(-1), false, inputs, stream);
  if (asking < 1 || shared < 1 || q.columns() % asking != 0 || k.columns() % shared != 0 || v.columns() % shared != 0 ||
      q.columns() / asking != k.columns() / shared) {
    refuse("projections should have a whole number of rows for each head, as many for queries as for keys");
  }
  const int width = q.columns() / asking, batch = x.shape(0);
  const NormInput norm(before, x.shape(-1), inputs), of_queries(query_norm, width, inputs),
      of_keys(key_norm, width, inputs);
  const size_t angles = turn ? inputs.size() : 0;
  if (turn) {
    const mx::Shape shape{1, width};
    if (turn->first.shape() != shape || turn->second.shape() != shape || !is_float(turn->first) ||
        !is_float(turn->second) || pairs < 0 || 2 * pairs > width) {
      refuse("cosines and sines should be (1, D), and pairs at most D / 2");
    }
    inputs.push_back(turn->first);
    inputs.push_back(turn->second);
  }
  const auto run = [=](const Arrays& in, const Outputs& y) {
    const RowsOf rows(in[0], norm, in);
    multiply({q.task(in, *rows, y[0]), k.task(in, *rows, y[1]), v.task(in, *rows, y[2])});
    q.shift(in, batch, y[0]);
    k.shift(in, batch, y[1]);
    v.shift(in, batch, y[2]);
    finish_heads(in, y[0], asking * batch, width, of_queries, angles, {static_cast<size_t>(pairs), traditional});
    finish_heads(in, y[1], shared * batch, width, of_keys, angles, {static_cast<size_t>(pairs), traditional});
  };
  const auto in_operations = [=](const Arrays& in) {
    const array h = norm.of(in, in[0]);
    const auto turned = [&](const LinearInput& layer, int count, const NormInput& own) {
      const array y = own.of(in, mx::reshape(layer.of(in, h), {batch, count, 1, width}));
      return angles == 0 ? y : rotation(y, in[angles], in[angles + 1], pairs, traditional);
    };
    const array values = mx::reshape(v.of(in, h), {batch, shared, 1, -1});
    return Arrays{turned(q, asking, of_queries), turned(k, shared, of_keys), values};
  };
  std::vector<mx::Shape> shapes{
      {batch, asking, 1, width}, {batch, shared, 1, width}, {batch, shared, 1, v.columns() / shared}};
  return pass(std::move(shapes), x.dtype(), std::move(inputs), {"AxonHeads", run, in_operations});
}

}  // namespace axon
