/** Causal attention of many tokens, a block of queries at a time. */
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "attention.h"
#include "mlx/ops.h"
#include "mlx/transforms.h"
#include "pass.h"
#include "passes.h"
#include "row_passes.h"
#include "rows.h"
#include "threads.h"
#include "tiles.h"

namespace axon {

namespace mx = mlx::core;
using mx::array;

void weigh_block(const AttentionSizes& at, const QueryBlock& block, float* scores, float* sums) {
  for (size_t query = block.start; query < block.stop; ++query, scores += at.scores_row()) {
    const size_t low = at.first(query) - block.first, high = at.place(query) + 1 - block.first;
    const float highest = greatest(scores + low, high - low);
    std::fill_n(scores, low, 0.0f);
    std::fill(scores + high, scores + block.keys(), 0.0f);
    sums[query - block.start] = exponentials(scores + low, high - low, highest, into(scores + low));
  }
}

void gather(const AttentionSizes& at, const array& queries, size_t batch, size_t head, const QueryBlock& block,
            float* to) {
  for (size_t query = block.start; query < block.stop; ++query, to += at.width) {
    const float* from = row(queries, at.by_head(batch, head, query), to);
    std::transform(from, from + at.width, to, [&](float number) { return number * at.scale; });
  }
}

namespace {

/** The outputs of a group of heads, (B, L, H, V), which share keys and values. */
void attend_group(const AttentionSizes& at, const array& queries, const array& keys, const array& values, size_t group,
                  float* y) {
  const size_t batch = group / at.groups, columns = padded(at.wide);
  TransposedPanels keys_across(at.total, at.width);
  Panels values_down(at.total, at.wide);
  std::vector<float> scratch(std::max(at.width, at.wide));
  for (size_t token = 0; token < at.total; ++token) {
    keys_across.set(token, row(keys, group * at.total + token, scratch.data()));
    values_down.set(token, row(values, group * at.total + token, scratch.data()), at.wide);
  }
  std::vector<float> own(QUERIES * at.width), scores(QUERIES * at.scores_row()), out(QUERIES * columns);
  float sums[QUERIES];
  for (size_t head = group % at.groups * at.heads, end = head + at.heads; head < end; ++head) {
    for (size_t start = 0; start < at.length; start += QUERIES) {
      const QueryBlock block(at, start);
      gather(at, queries, batch, head, block, own.data());
      multiply({own.data(), at.width, 1}, keys_across.from(block.first), block.queries(), at.width, block.keys(),
               scores.data(), at.scores_row(), false);
      weigh_block(at, block, scores.data(), sums);
      multiply({scores.data(), at.scores_row(), 1}, values_down.from(block.first), block.queries(), block.keys(),
               columns, out.data(), columns, false);
      for (size_t query = start; query < block.stop; ++query) {
        put(out.data() + (query - start) * columns, at.wide, 1 / sums[query - start],
            y + at.by_token(batch, head, query) * at.wide);
      }
    }
  }
}

/** (B, H, L, D) from (B, L, H, D), or the other way round. */
array turned(const array& x) { return mx::swapaxes(x, 1, 2); }

Arrays all_turned(Arrays all) {
  std::transform(all.begin(), all.end(), all.begin(), turned);
  return all;
}

/** The same, (B, L, H, V), out of operations of MLX. */
array in_operations(const Arrays& in, float scale, int window) {
  const int batch = in[0].shape(0), heads = in[0].shape(1), length = in[0].shape(2);
  const int groups = in[1].shape(1), total = in[1].shape(2);
  const array q = mx::reshape(mx::multiply(in[0], array(scale)), {batch, groups, heads / groups * length, -1});
  const array scores = mx::reshape(mx::matmul(q, mx::swapaxes(in[1], -1, -2)), {batch, heads, length, total});
  const array query = mx::reshape(mx::arange(total - length, total), {length, 1}), key = mx::arange(total);
  array seen = mx::less_equal(key, query);
  if (window != 0) {
    seen = mx::logical_and(seen, mx::greater(key, mx::subtract(query, array(window))));
  }
  const array weights = mx::softmax(mx::where(seen, scores, array(-std::numeric_limits<float>::infinity())), -1);
  const array y = mx::matmul(mx::reshape(weights, {batch, groups, heads / groups * length, total}), in[2]);
  return turned(mx::reshape(y, {batch, heads, length, -1}));
}

/** About how many multiplications a product of all queries with what they see has. */
size_t work_of(const array& queries, const array& keys, const array& values) {
  return queries.size() * keys.shape(2) + queries.size() / queries.shape(3) * values.shape(3) * keys.shape(2);
}

/** The gradients of queries, keys and values, (B, L, H, D) each. */
Arrays gradients(const Arrays& primals, const array& dy, float scale, int window) {
  const auto run = [scale, window](const Arrays& in, const Outputs& d) {
    const AttentionSizes at(in[0], in[1], in[2], scale, window);
    in_parallel(size_t(in[1].shape(0)) * at.groups, 3 * work_of(in[0], in[1], in[2]),
                [&](size_t group) { attention_gradients(at, in, group, d); });
  };
  const auto again = [scale, window](const Arrays& in) {
    const auto forward = [&](const Arrays& some) { return Arrays{in_operations(some, scale, window)}; };
    return all_turned(mx::vjp(forward, {in[0], in[1], in[2]}, {in[3]}).second);
  };
  std::vector<mx::Shape> shapes;
  for (const auto& primal : primals) {
    shapes.push_back({primal.shape(0), primal.shape(2), primal.shape(1), primal.shape(3)});
  }
  return pass(std::move(shapes), mx::float32, {primals[0], primals[1], primals[2], dy},
              {"AxonCausalAttentionGradient", run, again});
}

}  // namespace

array causal_attention(const array& queries, const array& keys, const array& values, float scale,
                       const std::optional<int>& window) {
  const bool axes = queries.ndim() == 4 && keys.ndim() == 4 && values.ndim() == 4;
  if (!axes || queries.size() == 0 || keys.size() == 0 || values.size() == 0 || queries.shape(3) != keys.shape(3) ||
      queries.shape(2) > keys.shape(2) || queries.shape(1) % keys.shape(1) != 0 || queries.shape(0) != keys.shape(0) ||
      !std::equal(keys.shape().begin(), keys.shape().end() - 1, values.shape().begin())) {
    refuse(
        "queries should be (B, H, L, D), keys (B, G, S, D) and values (B, G, S, V), G a divisor of H and L at most S");
  }
  if (window && *window < 1) {
    refuse("window should be at least 1");
  }
  const int seen = window.value_or(0);
  const auto run = [scale, seen](const Arrays& in, const Outputs& y) {
    const AttentionSizes at(in[0], in[1], in[2], scale, seen);
    in_parallel(size_t(in[1].shape(0)) * at.groups, work_of(in[0], in[1], in[2]),
                [&](size_t group) { attend_group(at, in[0], in[1], in[2], group, y[0]); });
  };
  const auto operations = [scale, seen](const Arrays& in) { return Arrays{in_operations(in, scale, seen)}; };
  const auto gradient = [scale, seen](const Arrays& primals, const Arrays& dy) {
    return all_turned(gradients(primals, dy[0], scale, seen));
  };
  // As the layer after it reads them: heads of a token one after the other.
  const mx::Shape shape{queries.shape(0), queries.shape(2), queries.shape(1), values.shape(3)};
  return turned(
      pass(shape, queries.dtype(), {queries, keys, values}, {"AxonCausalAttention", run, operations, gradient}));
}

}  // namespace axon
