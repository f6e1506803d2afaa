/** Causal attention of many tokens and its gradient: scores of a block of queries at a time, which stay in the cache. */
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "mlx/ops.h"
#include "mlx/transforms.h"
#include "pass.h"
#include "passes.h"
#include "rows.h"
#include "threads.h"
#include "tiles.h"

namespace axon {

namespace mx = mlx::core;
using mx::array;

namespace {

/** Queries that are worked on together. */
constexpr size_t QUERIES = 48;

/** What a layer attends with. */
struct Layout {
  Layout(const array& queries, const array& keys, const array& values, float scale, size_t window)
      : groups(keys.shape(1)),
        heads(queries.shape(1) / groups),
        length(queries.shape(2)),
        total(keys.shape(2)),
        width(queries.shape(3)),
        wide(values.shape(3)),
        scale(scale),
        window(window == 0 ? total : window) {}

  size_t groups, heads, length, total, width, wide;
  float scale;
  size_t window;

  size_t scores_row() const { return padded(total) + PANEL; }
  /** The key of a query. */
  size_t place(size_t query) const { return total - length + query; }
  /** The first key that a query sees. */
  size_t first(size_t query) const { return place(query) + 1 > window ? place(query) + 1 - window : 0; }
  /** Where the row of a query lies among those of (B, H, L, D), and among those of (B, L, H, D). */
  size_t by_head(size_t batch, size_t head, size_t query) const {
    return (batch * groups * heads + head) * length + query;
  }
  size_t by_token(size_t batch, size_t head, size_t query) const {
    return (batch * length + query) * groups * heads + head;
  }
};

/** Rows of (tokens, width) as the panels of a right factor, or of its transpose; numbers beyond its edges are zero. */
class Panels {
 public:
  Panels(size_t tokens, size_t width) : tokens_(padded(tokens)), numbers_(tokens_ * padded(width)) {}

  void set(size_t token, const float* from, size_t width) {
    float* to = numbers_.data() + token * PANEL;
    for (size_t column = 0; column < width; column += PANEL, to += tokens_ * PANEL) {
      std::copy_n(from + column, std::min(PANEL, width - column), to);
    }
  }
  /** From one row on. */
  RightFactor from(size_t token) const { return {numbers_.data() + token * PANEL, tokens_ * PANEL}; }

 private:
  size_t tokens_;
  std::vector<float> numbers_;
};

class TransposedPanels {
 public:
  TransposedPanels(size_t tokens, size_t width) : width_(width), numbers_(padded(tokens) * width) {}

  void set(size_t token, const float* from) {
    float* to = numbers_.data() + token / PANEL * PANEL * width_ + token % PANEL;
    for (size_t i = 0; i < width_; ++i) {
      to[i * PANEL] = from[i];
    }
  }
  /** From one column on, a multiple of PANEL. */
  RightFactor from(size_t token) const { return {numbers_.data() + token * width_, PANEL * width_}; }

 private:
  size_t width_;
  std::vector<float> numbers_;
};

/** Some queries of a head, and the keys that any of them sees, rounded to whole panels. */
struct Block {
  size_t start, stop, first, last;

  Block(const Layout& at, size_t start)
      : start(start),
        stop(std::min(start + QUERIES, at.length)),
        first(at.first(start) / PANEL * PANEL),
        last(padded(at.place(stop - 1) + 1)) {}
  size_t queries() const { return stop - start; }
  size_t keys() const { return last - first; }
};

/** Puts softmax weights in the place of scores of a block, zero where a query does not look, and divides by sums. */
void weigh_block(const Layout& at, const Block& block, float* scores, float* sums) {
  for (size_t query = block.start; query < block.stop; ++query, scores += at.scores_row()) {
    const size_t low = at.first(query) - block.first, high = at.place(query) + 1 - block.first;
    const float highest = greatest(scores + low, high - low);
    std::fill_n(scores, low, 0.0f);
    std::fill(scores + high, scores + block.keys(), 0.0f);
    Lanes sum{};
    float rest = 0;
    float* const own = scores + low;
    along(
        high - low,
        [&](size_t i) {
          const Decay e(load(own + i) - highest);
          const Lanes weight = e.base + e.rest;
          sum += weight;
          store(own + i, weight);
        },
        [&](size_t i) { rest += own[i] = std::exp(own[i] - highest); });
    sums[query - block.start] = total(sum) + rest;
  }
}

/** The queries of a block, times the scale, one after the other. */
void gather(const Layout& at, const array& queries, size_t batch, size_t head, const Block& block, float* to) {
  for (size_t query = block.start; query < block.stop; ++query, to += at.width) {
    const float* from = row(queries, at.by_head(batch, head, query), to);
    std::transform(from, from + at.width, to, [&](float number) { return number * at.scale; });
  }
}

void attend_group(const Layout& at, const array& queries, const array& keys, const array& values, size_t group,
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
      const Block block(at, start);
      gather(at, queries, batch, head, block, own.data());
      multiply({own.data(), at.width, 1}, keys_across.from(block.first), block.queries(), at.width, block.keys(),
               scores.data(), at.scores_row(), false);
      weigh_block(at, block, scores.data(), sums);
      multiply({scores.data(), at.scores_row(), 1}, values_down.from(block.first), block.queries(), block.keys(),
               columns, out.data(), columns, false);
      for (size_t query = start; query < block.stop; ++query) {
        const float* from = out.data() + (query - start) * columns;
        const float factor = 1 / sums[query - start];
        std::transform(from, from + at.wide, y + at.by_token(batch, head, query) * at.wide,
                       [factor](float number) { return number * factor; });
      }
    }
  }
}

/** Of a block with weights and the gradients of these, the gradients of scores: w (d - sum w d). */
void differentiate(const Layout& at, const Block& block, const float* sums, float* weights, float* slopes) {
  const size_t keys = block.keys();
  for (size_t query = 0; query < block.queries(); ++query, weights += at.scores_row(), slopes += at.scores_row()) {
    const float factor = 1 / sums[query], mean = dot(weights, slopes, keys) * factor;
    for (size_t i = 0; i < keys; ++i) {
      weights[i] *= factor;
      slopes[i] = weights[i] * (slopes[i] - mean);
    }
  }
}

/** A row times a factor. */
void put(const float* from, size_t width, float factor, float* to) {
  std::transform(from, from + width, to, [factor](float number) { return number * factor; });
}

void differentiate_group(const Layout& at, const Arrays& in, size_t group, const Outputs& d) {
  const array &queries = in[0], &keys = in[1], &values = in[2], &dy = in[3];
  const size_t batch = group / at.groups, columns = padded(at.width), wide = padded(at.wide);
  TransposedPanels keys_across(at.total, at.width), values_across(at.total, at.wide);
  Panels keys_down(at.total, at.width);
  std::vector<float> scratch(std::max(at.width, at.wide));
  for (size_t token = 0; token < at.total; ++token) {
    const float* key = row(keys, group * at.total + token, scratch.data());
    keys_across.set(token, key);
    keys_down.set(token, key, at.width);
    values_across.set(token, row(values, group * at.total + token, scratch.data()));
  }
  std::vector<float> own(QUERIES * at.width), slope(QUERIES * at.wide), weights(QUERIES * at.scores_row());
  std::vector<float> slopes(weights.size()), out(QUERIES * columns);
  std::vector<float> d_keys(padded(at.total) * columns), d_values(padded(at.total) * wide);
  Panels own_down(QUERIES, at.width), slope_down(QUERIES, at.wide);
  float sums[QUERIES];
  for (size_t head = group % at.groups * at.heads, end = head + at.heads; head < end; ++head) {
    for (size_t start = 0; start < at.length; start += QUERIES) {
      const Block block(at, start);
      const size_t count = block.queries(), step = at.scores_row();
      gather(at, queries, batch, head, block, own.data());
      for (size_t query = 0; query < count; ++query) {
        const float* from = row(dy, at.by_token(batch, head, start + query), scratch.data());
        std::copy_n(from, at.wide, slope.data() + query * at.wide);
        slope_down.set(query, from, at.wide);
        own_down.set(query, own.data() + query * at.width, at.width);
      }
      multiply({own.data(), at.width, 1}, keys_across.from(block.first), count, at.width, block.keys(), weights.data(),
               step, false);
      multiply({slope.data(), at.wide, 1}, values_across.from(block.first), count, at.wide, block.keys(), slopes.data(),
               step, false);
      weigh_block(at, block, weights.data(), sums);
      differentiate(at, block, sums, weights.data(), slopes.data());
      multiply({slopes.data(), step, 1}, keys_down.from(block.first), count, block.keys(), columns, out.data(), columns,
               false);
      for (size_t query = 0; query < count; ++query) {
        put(out.data() + query * columns, at.width, at.scale, d[0] + at.by_token(batch, head, start + query) * at.width);
      }
      multiply({slopes.data(), 1, step}, own_down.from(0), block.keys(), count, columns,
               d_keys.data() + block.first * columns, columns, true);
      multiply({weights.data(), 1, step}, slope_down.from(0), block.keys(), count, wide,
               d_values.data() + block.first * wide, wide, true);
    }
  }
  for (size_t token = 0; token < at.total; ++token) {
    const size_t to = (batch * at.total + token) * at.groups + group % at.groups;
    put(d_keys.data() + token * columns, at.width, 1, d[1] + to * at.width);
    put(d_values.data() + token * wide, at.wide, 1, d[2] + to * at.wide);
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
    const Layout at(in[0], in[1], in[2], scale, window);
    in_parallel(size_t(in[1].shape(0)) * at.groups, 3 * work_of(in[0], in[1], in[2]),
                [&](size_t group) { differentiate_group(at, in, group, d); });
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
    refuse("queries should be (B, H, L, D), keys (B, G, S, D) and values (B, G, S, V), G a divisor of H and L at most S");
  }
  if (window && *window < 1) {
    refuse("window should be at least 1");
  }
  const int seen = window.value_or(0);
  const auto run = [scale, seen](const Arrays& in, const Outputs& y) {
    const Layout at(in[0], in[1], in[2], scale, seen);
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
