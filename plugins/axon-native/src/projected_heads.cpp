/** Queries, keys and values of one token in one operation, where MLX makes one of every product, norm and rotation. */
#include <utility>

#include "few_tokens.h"
#include "mlx/ops.h"
#include "pass.h"
#include "passes.h"
#include "row_inputs.h"
#include "row_passes.h"

namespace axon {

namespace mx = mlx::core;
using mx::array;

namespace {

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
  if (asking < 1 || shared < 1 || q.columns() < asking || q.columns() % asking != 0 || k.columns() % shared != 0 || v.columns() % shared != 0 ||
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
        !is_float(turn->second) || pairs < 0 || pairs > width / 2) {
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
