/** Attention of one token to all keys, and what is made of it, in one pass. */
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "mlx/ops.h"
#include "pass.h"
#include "attention_of_one.h"
#include "row_inputs.h"
#include "row_passes.h"
#include "rows.h"
#include "threads.h"

namespace axon {

namespace mx = mlx::core;
using mx::array;

namespace {

/** Tokens that are worked on together, as many as sums of lanes are made of at once. */
constexpr size_t TOGETHER = 4;

/** Puts exp(score - highest) in the place of every score, and returns the sum of these, the sink's share included. */
float weigh(float* scores, size_t count, float sink) {
  const float highest = std::max(sink, *std::max_element(scores, scores + count));
  const float own = sink == -std::numeric_limits<float>::infinity() ? 0 : std::exp(sink - highest);
  return exponentials(scores, count, highest, into(scores)) + own;
}

/** The rows of keys or values that a group of heads shares, by their token. */
class RowsOfGroup {
 public:
  RowsOfGroup(const array& x, size_t group)
      : x_(x), first_(group * x.shape(2)), step_(x.strides(2)), scratch_(TOGETHER * x.shape(3)) {
    if (x.dtype() == mx::float32 && (x.strides(3) == 1 || x.shape(3) == 1)) {
      base_ = x.data<float>() + offset(x, first_, 3);
    }
  }

  /** A row in float32, until TOGETHER others have been asked for. */
  const float* operator[](size_t token) {
    if (base_ != nullptr) {
      return base_ + static_cast<int64_t>(token) * step_;
    }
    return row(x_, first_ + token, scratch_.data() + token % TOGETHER * x_.shape(3));
  }

 private:
  const array& x_;
  size_t first_;
  int64_t step_;
  const float* base_ = nullptr;
  std::vector<float> scratch_;
};

/** The products of a query with TOGETHER keys. */
void dots(const float* query, const float* const* keys, size_t width, float* scores) {
  Lanes sums[TOGETHER] = {};
  float rest[TOGETHER] = {};
  along(
      width,
      [&](size_t i) {
        for (size_t each = 0; each < TOGETHER; ++each) {
          sums[each] += load(query + i) * load(keys[each] + i);
        }
      },
      [&](size_t i) {
        for (size_t each = 0; each < TOGETHER; ++each) {
          rest[each] += query[i] * keys[each][i];
        }
      });
  totals(sums, scores);
  for (size_t each = 0; each < TOGETHER; ++each) {
    scores[each] += rest[each];
  }
}

/** Adds TOGETHER values to `to`, each by its weight. */
void add_weighed(const float* weights, const float* const* values, size_t width, float* to) {
  const auto added = [&](auto read, size_t i) {
    return (weights[0] * read(values[0] + i) + weights[1] * read(values[1] + i)) +
           (weights[2] * read(values[2] + i) + weights[3] * read(values[3] + i));
  };
  along(
      width, [&](size_t i) { store(to + i, load(to + i) + added([](const float* from) { return load(from); }, i)); },
      [&](size_t i) { to[i] += added([](const float* from) { return *from; }, i); });
}

/** Calls `some(token, rows)` for the rows of TOGETHER tokens at a time, and `single(token, row)` for the last ones. */
template <class Some, class Single>
void by_token(RowsOfGroup& x, size_t tokens, Some some, Single single) {
  size_t token = 0;
  for (; token + TOGETHER <= tokens; token += TOGETHER) {
    const float* rows[TOGETHER];
    for (size_t each = 0; each < TOGETHER; ++each) {
      rows[each] = x[token + each];
    }
    some(token, rows);
  }
  for (; token < tokens; ++token) {
    single(token, x[token]);
  }
}

/** The queries of a group of heads, which share the keys and values of the first `tokens`. */
void attend(const array& queries, const array& keys, const array& values, size_t tokens, float scale,
            const array* sinks, size_t group, float* y) {
  const size_t groups = keys.shape(1), heads = queries.shape(1) / groups;
  const size_t width = queries.shape(3), wide = values.shape(3), first = group % groups * heads;
  const size_t batch = group / groups;
  std::vector<float> scores(heads * tokens), asked(heads * width), scratch(width);
  for (size_t head = 0; head < heads; ++head) {
    const float* query = row(queries, batch * queries.shape(1) + first + head, scratch.data());
    std::transform(query, query + width, asked.data() + head * width, [scale](float q) { return q * scale; });
  }
  RowsOfGroup own_keys(keys, group), own_values(values, group);
  const auto for_heads = [&](auto each) {
    for (size_t head = 0; head < heads; ++head) {
      each(head, scores.data() + head * tokens);
    }
  };
  by_token(
      own_keys, tokens,
      [&](size_t token, const float* const* rows) {
        for_heads([&](size_t head, float* own) { dots(asked.data() + head * width, rows, width, own + token); });
      },
      [&](size_t token, const float* key) {
        for_heads([&](size_t head, float* own) { own[token] = dot(asked.data() + head * width, key, width); });
      });
  float* const out = y + (batch * queries.shape(1) + first) * wide;
  std::fill_n(out, heads * wide, 0.0f);
  std::vector<float> totals(heads), sinks_scratch(queries.shape(1));
  const float* asked_sinks = sinks == nullptr ? nullptr : row(*sinks, 0, sinks_scratch.data());
  for_heads([&](size_t head, float* own) {
    const float sink = sinks == nullptr ? -std::numeric_limits<float>::infinity() : asked_sinks[first + head];
    totals[head] = weigh(own, tokens, sink);
  });
  by_token(
      own_values, tokens,
      [&](size_t token, const float* const* rows) {
        for_heads([&](size_t head, const float* own) { add_weighed(own + token, rows, wide, out + head * wide); });
      },
      [&](size_t token, const float* value) {
        for_heads([&](size_t head, const float* own) {
          for (size_t i = 0; i < wide; ++i) {
            out[head * wide + i] += own[token] * value[i];
          }
        });
      });
  for (size_t head = 0; head < heads; ++head) {
    for (size_t i = 0; i < wide; ++i) {
      out[head * wide + i] /= totals[head];
    }
  }
}

}  // namespace

array attention_of_one(const array& queries, const array& keys, const array& values, float scale,
                       const std::optional<array>& sinks, int tokens, const std::optional<Layer>& output,
                       const std::optional<array>& base) {
  const bool axes = queries.ndim() == 4 && keys.ndim() == 4 && values.ndim() == 4;
  if (!axes || queries.shape(2) != 1 || queries.shape(3) != keys.shape(3) || keys.shape(1) == 0 || keys.shape(2) == 0 ||
      queries.shape(1) % keys.shape(1) != 0 || queries.shape(0) != keys.shape(0) || tokens < 0 ||
      tokens > keys.shape(2) || !std::equal(keys.shape().begin(), keys.shape().end() - 1, values.shape().begin())) {
    refuse("queries should be (B, H, 1, D), keys (B, G, S, D) and values (B, G, S, V), G a divisor of H, and tokens at most S");
  }
  if (!is_float(queries) || !is_float(keys) || !is_float(values)) {
    refuse("arrays should be of float32, bfloat16 or float16");
  }
  const int batch = queries.shape(0), heads = queries.shape(1), wide = values.shape(3);
  const size_t seen = tokens == 0 ? keys.shape(2) : tokens;
  Arrays inputs{queries, keys, values};
  const auto place = [&](const std::optional<array>& a, const mx::Shape& shape, const char* why) -> size_t {
    if (!a) {
      return 0;
    }
    if (a->shape() != shape || !is_float(*a)) {
      refuse(why);
    }
    inputs.push_back(*a);
    return inputs.size() - 1;
  };
  const size_t sink = place(sinks, {heads}, "sinks should be (H,)");
  std::optional<LinearInput> o;
  if (output) {
    o.emplace(*output, heads * wide, false, inputs, mx::default_stream(mx::Device::cpu));
  }
  const mx::Shape shape = o ? mx::Shape{batch, 1, o->columns()} : mx::Shape{batch, heads, 1, wide};
  const size_t added = place(base, shape, "what is added to should have the shape of the result");
  const auto in_operations = [=](const Arrays& in) {
    const int groups = in[1].shape(1), last = static_cast<int>(seen);
    const array q = mx::reshape(mx::multiply(in[0], array(scale)), {batch, groups, heads / groups, -1});
    const array k = mx::slice(in[1], {0, 0, 0, 0}, {batch, groups, last, in[1].shape(3)});
    const array v = mx::slice(in[2], {0, 0, 0, 0}, {batch, groups, last, wide});
    array scores = mx::reshape(mx::matmul(q, mx::swapaxes(k, -1, -2)), {batch, heads, 1, -1});
    if (sink) {
      const array sinks = mx::broadcast_to(mx::reshape(in[sink], {heads, 1, 1}), {batch, heads, 1, 1});
      scores = mx::concatenate({scores, sinks}, -1);
    }
    const array weights = mx::slice(mx::softmax(scores, -1), {0, 0, 0, 0}, {batch, heads, 1, last});
    const array mixed = mx::matmul(mx::reshape(weights, {batch, groups, heads / groups, -1}), v);
    const array y = o ? o->of(in, mx::reshape(mixed, {batch, 1, -1})) : mx::reshape(mixed, {batch, heads, 1, -1});
    return Arrays{added ? mx::add(in[added], y) : y};
  };
  const auto run = [=](const Arrays& in, const Outputs& y) {
    std::vector<float> mixed(o ? size_t(batch) * heads * wide : 0);
    float* const to = o ? mixed.data() : y[0];
    const size_t units = size_t(batch) * in[1].shape(1), work = size_t(batch) * heads * seen * (in[1].shape(3) + wide);
    in_parallel(units, work, [&](size_t group) {
      attend(in[0], in[1], in[2], seen, scale, sink ? &in[sink] : nullptr, group, to);
    });
    if (o) {
      std::vector<const float*> rows;
      for (int at = 0; at < batch; ++at) {
        rows.push_back(to + size_t(at) * heads * wide);
      }
      multiply({o->task(in, rows, y[0])});
      o->shift(in, batch, y[0]);
    }
    if (added) {
      RowsOf(in[added]).add_to(y[0]);
    }
  };
  return pass(std::vector{shape}, queries.dtype(), std::move(inputs), {"AxonAttention", run, in_operations})[0];
}

}  // namespace axon
