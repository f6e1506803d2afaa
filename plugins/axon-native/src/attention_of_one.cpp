/** Attention of one token to all keys, in one pass. */
#include <algorithm>
#include <cmath>
#include <limits>
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

/** Puts exp(score - highest) in the place of every score, and returns the sum of these, the sink's share included. */
float weigh(float* scores, size_t count, float sink) {
  const float highest = std::max(sink, *std::max_element(scores, scores + count));
  Lanes sum{};
  float rest = sink == -std::numeric_limits<float>::infinity() ? 0 : std::exp(sink - highest);
  along(
      count,
      [&](size_t i) {
        const Decay e(load(scores + i) - highest);
        const Lanes weight = e.base + e.rest;
        sum += weight;
        store(scores + i, weight);
      },
      [&](size_t i) { rest += scores[i] = std::exp(scores[i] - highest); });
  return total(sum) + rest;
}

/** The queries of a group of heads, which share keys and values. */
void attend(const array& queries, const array& keys, const array& values, float scale, const array* sinks, size_t group,
            float* y) {
  const size_t groups = keys.shape(1), heads = queries.shape(1) / groups, tokens = keys.shape(2);
  const size_t width = queries.shape(3), wide = values.shape(3), first = group % groups * heads;
  const size_t batch = group / groups;
  std::vector<float> scores(heads * tokens), asked(heads * width), scratch(std::max(width, wide));
  for (size_t head = 0; head < heads; ++head) {
    const float* query = row(queries, batch * queries.shape(1) + first + head, scratch.data());
    std::transform(query, query + width, asked.data() + head * width, [scale](float q) { return q * scale; });
  }
  for (size_t token = 0; token < tokens; ++token) {
    const float* key = row(keys, group * tokens + token, scratch.data());
    for (size_t head = 0; head < heads; ++head) {
      scores[head * tokens + token] = dot(asked.data() + head * width, key, width);
    }
  }
  float* const out = y + (batch * queries.shape(1) + first) * wide;
  std::fill_n(out, heads * wide, 0.0f);
  std::vector<float> totals(heads), sinks_scratch(queries.shape(1));
  const float* asked_sinks = sinks == nullptr ? nullptr : row(*sinks, 0, sinks_scratch.data());
  for (size_t head = 0; head < heads; ++head) {
    const float sink = sinks == nullptr ? -std::numeric_limits<float>::infinity() : asked_sinks[first + head];
    totals[head] = weigh(scores.data() + head * tokens, tokens, sink);
  }
  for (size_t token = 0; token < tokens; ++token) {
    const float* value = row(values, group * tokens + token, scratch.data());
    for (size_t head = 0; head < heads; ++head) {
      float* to = out + head * wide;
      const float weight = scores[head * tokens + token];
      for (size_t i = 0; i < wide; ++i) {
        to[i] += weight * value[i];
      }
    }
  }
  for (size_t head = 0; head < heads; ++head) {
    for (size_t i = 0; i < wide; ++i) {
      out[head * wide + i] /= totals[head];
    }
  }
}

}  // namespace

array attention_of_one(const array& queries, const array& keys, const array& values, float scale,
                       const std::optional<array>& sinks) {
  const bool axes = queries.ndim() == 4 && keys.ndim() == 4 && values.ndim() == 4;
  if (!axes || queries.shape(2) != 1 || queries.shape(3) != keys.shape(3) || keys.shape(1) == 0 || keys.shape(2) == 0 ||
      queries.shape(1) % keys.shape(1) != 0 || queries.shape(0) != keys.shape(0) ||
      !std::equal(keys.shape().begin(), keys.shape().end() - 1, values.shape().begin())) {
    refuse("queries should be (B, H, 1, D), keys (B, G, S, D) and values (B, G, S, V), G a divisor of H");
  }
  if (sinks && sinks->shape() != mx::Shape{queries.shape(1)}) {
    refuse("sinks should be (H,)");
  }
  Arrays inputs{queries, keys, values};
  if (sinks) {
    inputs.push_back(*sinks);
  }
  const auto in_operations = [scale](const Arrays& in) {
    const int batch = in[0].shape(0), heads = in[0].shape(1), groups = in[1].shape(1);
    const array q = mx::reshape(mx::multiply(in[0], array(scale)), {batch, groups, heads / groups, -1});
    array scores = mx::reshape(mx::matmul(q, mx::swapaxes(in[1], -1, -2)), {batch, heads, 1, -1});
    if (in.size() > 3) {
      const array sinks = mx::broadcast_to(mx::reshape(in[3], {heads, 1, 1}), {batch, heads, 1, 1});
      scores = mx::concatenate({scores, sinks}, -1);
    }
    array weights = mx::softmax(scores, -1);
    if (in.size() > 3) {
      weights = mx::slice(weights, {0, 0, 0, 0}, {batch, heads, 1, weights.shape(-1) - 1});
    }
    const array y = mx::matmul(mx::reshape(weights, {batch, groups, heads / groups, -1}), in[2]);
    return Arrays{mx::reshape(y, {batch, heads, 1, -1})};
  };
  const auto run = [scale](const Arrays& in, const Outputs& y) {
    const size_t units = size_t(in[1].shape(0)) * in[1].shape(1);
    const size_t work = size_t(in[0].shape(0)) * in[0].shape(1) * in[1].shape(2) * (in[1].shape(3) + in[2].shape(3));
    in_parallel(units, work, [&](size_t group) {
      attend(in[0], in[1], in[2], scale, in.size() > 3 ? &in[3] : nullptr, group, y[0]);
    });
  };
  const mx::Shape shape{queries.shape(0), queries.shape(1), 1, values.shape(3)};
  return pass(shape, queries.dtype(), std::move(inputs), {"AxonAttention", run, in_operations});
}

}  // namespace axon
