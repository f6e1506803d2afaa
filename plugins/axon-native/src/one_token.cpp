/** Layers of a few tokens in one operation each, where MLX makes one of every product, rotation and gate. */
#include "one_token.h"

#include <algorithm>
#include <utility>

#include "mlx/ops.h"
#include "pass.h"
#include "passes.h"
#include "row_passes.h"
#include "rows.h"

namespace axon {

namespace mx = mlx::core;
using mx::array;

namespace {

/** The rows of an array in float32, in scratch where they are not so. */
class RowsOf {
 public:
  explicit RowsOf(const array& x) : scratch_(x.size()) {
    const size_t width = x.shape(-1), count = x.size() / width;
    for (size_t at = 0; at < count; ++at) {
      found_.push_back(row(x, at, scratch_.data() + at * width));
    }
  }

  const std::vector<const float*>& operator*() const { return found_; }

 private:
  std::vector<float> scratch_;
  std::vector<const float*> found_;
};

mx::Shape with_width(const array& x, int width) {
  auto shape = x.shape();
  shape.back() = width;
  return shape;
}

}  // namespace

array gated_mlp(const array& x, const Layer& gate, const Layer& up, const Layer& down, const std::string& activation) {
  if (x.ndim() < 1 || x.shape(-1) == 0 || !is_float(x)) {
    refuse("x should be (..., K), of float32, bfloat16 or float16");
  }
  const Gate act = gate_named(activation);
  const mx::Stream stream = mx::default_stream(mx::Device::cpu);
  Arrays inputs{x};
  const LinearInput g(gate, x.shape(-1), inputs, stream), u(up, x.shape(-1), inputs, stream);
  const LinearInput d(down, u.columns(), inputs, stream);
  if (g.columns() != u.columns()) {
    refuse("gate and up should have as many rows");
  }
  const auto run = [=](const Arrays& in, const Outputs& y) {
    const RowsOf rows(in[0]);
    const size_t count = (*rows).size(), width = g.columns();
    std::vector<float> gates(count * width), inner(count * width);
    multiply({g.task(in, *rows, gates.data()), u.task(in, *rows, inner.data())});
    g.shift(in, count, gates.data());
    u.shift(in, count, inner.data());
    gate_row(act, gates.data(), inner.data(), count * width, inner.data());
    std::vector<const float*> inners;
    for (size_t at = 0; at < count; ++at) {
      inners.push_back(inner.data() + at * width);
    }
    multiply({d.task(in, inners, y[0])});
    d.shift(in, count, y[0]);
  };
  const auto in_operations = [=](const Arrays& in) {
    return Arrays{d.of(in, gated(g.of(in, in[0]), u.of(in, in[0]), activation))};
  };
  std::vector shapes{with_width(x, d.columns())};
  return pass(std::move(shapes), mx::float32, std::move(inputs), {"AxonGatedMLP", run, in_operations})[0];
}

std::vector<array> projected_heads(const array& x, const Layer& queries, const Layer& keys, const Layer& values,
                                   std::pair<int, int> heads, const std::optional<std::pair<array, array>>& turn,
                                   int pairs, bool traditional) {
  if (x.ndim() != 3 || x.shape(1) != 1 || x.shape(2) == 0 || !is_float(x)) {
    refuse("x should be (B, 1, K), of float32, bfloat16 or float16");
  }
  const mx::Stream stream = mx::default_stream(mx::Device::cpu);
  Arrays inputs{x};
  const auto& [asking, shared] = heads;
  const LinearInput q(queries, x.shape(-1), inputs, stream), k(keys, x.shape(-1), inputs, stream),
      v(values, x.shape(-1), inputs, stream);
  if (asking < 1 || shared < 1 || q.columns() % asking != 0 || k.columns() % shared != 0 || v.columns() % shared != 0 ||
      q.columns() / asking != k.columns() / shared) {
    refuse("projections should have a whole number of rows for each head, as many for queries as for keys");
  }
  const int width = q.columns() / asking, batch = x.shape(0);
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
    const RowsOf rows(in[0]);
    multiply({q.task(in, *rows, y[0]), k.task(in, *rows, y[1]), v.task(in, *rows, y[2])});
    q.shift(in, batch, y[0]);
    k.shift(in, batch, y[1]);
    v.shift(in, batch, y[2]);
    if (angles == 0) {
      return;
    }
    const RowsOf cosines(in[angles]), sines(in[angles + 1]);
    for (const auto& [to, count] : {std::pair{y[0], asking * batch}, std::pair{y[1], shared * batch}}) {
      for (int head = 0; head < count; ++head) {
        float* numbers = to + static_cast<size_t>(head) * width;
        rotate_row(numbers, (*cosines)[0], (*sines)[0], width, {static_cast<size_t>(pairs), traditional}, numbers);
      }
    }
  };
  const auto in_operations = [=](const Arrays& in) {
    const auto turned = [&](const LinearInput& layer, int count) {
      const array y = mx::reshape(layer.of(in, in[0]), {batch, count, 1, width});
      return angles == 0 ? y : rotation(y, in[angles], in[angles + 1], pairs, traditional);
    };
    return Arrays{turned(q, asking), turned(k, shared), mx::reshape(v.of(in, in[0]), {batch, shared, 1, -1})};
  };
  std::vector<mx::Shape> shapes{
      {batch, asking, 1, width}, {batch, shared, 1, width}, {batch, shared, 1, v.columns() / shared}};
  return pass(std::move(shapes), mx::float32, std::move(inputs), {"AxonHeads", run, in_operations});
}

}  // namespace axon
