/** Norms, rotations and attention of one token, in one pass each where MLX makes many small operations.
 *
 * Their derivatives are those of the operations of MLX that say the same.
 */
#include "passes.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "lanes.h"
#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/ops.h"
#include "mlx/primitives.h"
#include "mlx/transforms.h"
#include "mlx/utils.h"
#include "one_by_one.h"
#include "rows.h"
#include "threads.h"

namespace axon {

namespace mx = mlx::core;
using mx::array;

namespace {

using Arrays = std::vector<array>;

/** How a pass is computed, and what it is in operations of MLX. */
struct Definition {
  const char* name;
  std::function<void(const Arrays& inputs, float* output)> run;
  std::function<Arrays(const Arrays&)> in_operations;
};

/** Numbers of float32 in another type, each rounded once. */
template <class T>
void narrow(const std::vector<float>& numbers, array& y) {
  std::transform(numbers.begin(), numbers.end(), y.data<T>(), [](float number) { return static_cast<T>(number); });
}

/** One output, computed in float32. */
class Pass : public mx::Primitive {
 public:
  Pass(mx::Stream stream, mx::Shape shape, mx::Dtype dtype, std::shared_ptr<const Definition> definition)
      : Primitive(stream), shape_(std::move(shape)), dtype_(dtype), definition_(std::move(definition)) {}

  /** What it makes of some inputs. */
  array of(Arrays inputs) {
    return array(shape_, dtype_, std::make_shared<Pass>(stream(), shape_, dtype_, definition_), std::move(inputs));
  }

  void eval_cpu(const Arrays& inputs, Arrays& outputs) override {
    array& y = outputs[0];
    y.set_data(mx::allocator::malloc(y.nbytes()));
    if (y.size() > 0) {
      mx::cpu::get_command_encoder(stream()).dispatch(
          [definition = definition_, inputs, y = array::unsafe_weak_copy(y)]() mutable { compute(*definition, inputs, y); });
    }
  }
  void eval_gpu(const Arrays&, Arrays&) override {
    throw std::runtime_error(std::string(name()) + " of axon-native runs on the CPU alone");
  }
  Arrays jvp(const Arrays& primals, const Arrays& tangents, const std::vector<int>& argnums) override {
    Arrays all;
    for (const auto& primal : primals) {
      all.push_back(mx::zeros_like(primal, stream()));
    }
    for (size_t i = 0; i < argnums.size(); ++i) {
      all[argnums[i]] = tangents[i];
    }
    return mx::jvp(in_operations(), primals, all).second;
  }
  Arrays vjp(const Arrays& primals, const Arrays& cotangents, const std::vector<int>& argnums,
             const Arrays&) override {
    const Arrays all = mx::vjp(in_operations(), primals, cotangents).second;
    Arrays found;
    for (const int argument : argnums) {
      found.push_back(all[argument]);
    }
    return found;
  }
  std::pair<Arrays, std::vector<int>> vmap(const Arrays& inputs, const std::vector<int>& axes) override {
    return one_by_one(inputs, axes, 1, stream(), [&](Arrays own) { return Arrays{of(std::move(own))}; });
  }
  std::vector<mx::Shape> output_shapes(const Arrays&) override { return {shape_}; }
  const char* name() const override { return definition_->name; }

 private:
  static void compute(const Definition& definition, const Arrays& inputs, array& y) {
    if (y.dtype() == mx::float32) {
      return definition.run(inputs, y.data<float>());
    }
    std::vector<float> numbers(y.size());
    definition.run(inputs, numbers.data());
    y.dtype() == mx::bfloat16 ? narrow<mx::bfloat16_t>(numbers, y) : narrow<mx::float16_t>(numbers, y);
  }

  /** The same in operations of MLX, from and to the same types. */
  std::function<Arrays(const Arrays&)> in_operations() const {
    return [definition = definition_, dtype = dtype_](const Arrays& inputs) {
      Arrays wide;
      for (const auto& input : inputs) {
        wide.push_back(mx::astype(input, mx::float32));
      }
      return Arrays{mx::astype(definition->in_operations(wide)[0], dtype)};
    };
  }

  mx::Shape shape_;
  mx::Dtype dtype_;
  std::shared_ptr<const Definition> definition_;
};

[[noreturn]] void refuse(const std::string& why) { throw std::invalid_argument(why); }

array pass(mx::Shape shape, mx::Dtype dtype, Arrays inputs, Definition definition) {
  for (const auto& input : inputs) {
    if (input.dtype() != mx::float32 && input.dtype() != mx::bfloat16 && input.dtype() != mx::float16) {
      refuse("arrays should be of float32, bfloat16 or float16");
    }
  }
  const mx::Stream stream = mx::default_stream(mx::Device::cpu);
  return Pass(stream, std::move(shape), dtype, std::make_shared<const Definition>(std::move(definition)))
      .of(std::move(inputs));
}

/** Calls `whole` for every vector of a row and `single` for the numbers after the last one. */
template <class Vector, class Single>
inline void along(size_t width, Vector whole, Single single) {
  size_t i = 0;
  for (; i + LANES <= width; i += LANES) {
    whole(i);
  }
  for (; i < width; ++i) {
    single(i);
  }
}

inline float dot(const float* a, const float* b, size_t width) {
  Lanes sum{};
  float rest = 0;
  along(width, [&](size_t i) { sum += load(a + i) * load(b + i); }, [&](size_t i) { rest += a[i] * b[i]; });
  return total(sum) + rest;
}

void norm(const array& x, const array& weight, float eps, float* y) {
  const size_t width = x.shape(-1), rows = x.size() / width;
  std::vector<float> scratch(2 * width);
  const float* w = row(weight, 0, scratch.data());
  for (size_t at = 0; at < rows; ++at, y += width) {
    const float* from = row(x, at, scratch.data() + width);
    const float scale = 1 / std::sqrt(dot(from, from, width) / width + eps);
    for (size_t i = 0; i < width; ++i) {
      y[i] = from[i] * scale * w[i];
    }
  }
}

void rotate(const array& x, const array& cosines, const array& sines, size_t pairs, bool traditional, float* y) {
  const size_t width = x.shape(-1), tokens = x.shape(-2), rows = x.size() / width;
  std::vector<float> scratch(3 * width);
  const size_t step = traditional ? 2 : 1, other = traditional ? 1 : pairs;
  for (size_t at = 0; at < rows; ++at, y += width) {
    const float* from = row(x, at, scratch.data());
    const float* c = row(cosines, at % tokens, scratch.data() + width);
    const float* s = row(sines, at % tokens, scratch.data() + 2 * width);
    for (size_t pair = 0; pair < pairs; ++pair) {
      const size_t a = pair * step, b = a + other;
      y[a] = from[a] * c[a] + from[b] * s[a];
      y[b] = from[b] * c[b] + from[a] * s[b];
    }
    for (size_t i = 2 * pairs; i < width; ++i) {
      y[i] = from[i] * c[i] + from[i] * s[i];
    }
  }
}

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

array rms_norm(const array& x, const array& weight, float eps) {
  if (x.ndim() < 1 || weight.ndim() != 1 || weight.shape(0) != x.shape(-1)) {
    refuse("weight should be as long as the last axis of x");
  }
  const auto run = [eps](const Arrays& in, float* y) { norm(in[0], in[1], eps, y); };
  const auto in_operations = [eps](const Arrays& in) {
    const array mean = mx::mean(mx::square(in[0]), -1, true);
    return Arrays{mx::multiply(mx::multiply(in[0], mx::rsqrt(mx::add(mean, array(eps)))), in[1])};
  };
  return pass(x.shape(), mx::promote_types(x.dtype(), weight.dtype()), {x, weight}, {"AxonRMSNorm", run, in_operations});
}

array rotation(const array& x, const array& cosines, const array& sines, int pairs, bool traditional) {
  if (x.ndim() < 2 || pairs < 0 || 2 * pairs > x.shape(-1)) {
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
  const auto run = [pairs, traditional](const Arrays& in, float* y) {
    rotate(in[0], in[1], in[2], pairs, traditional, y);
  };
  return pass(x.shape(), x.dtype(), {x, cosines, sines}, {"AxonRotation", run, in_operations});
}

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
  const auto run = [scale](const Arrays& in, float* y) {
    const size_t units = size_t(in[1].shape(0)) * in[1].shape(1);
    const size_t work = size_t(in[0].shape(0)) * in[0].shape(1) * in[1].shape(2) * (in[1].shape(3) + in[2].shape(3));
    in_parallel(units, work, [&](size_t group) {
      attend(in[0], in[1], in[2], scale, in.size() > 3 ? &in[3] : nullptr, group, y);
    });
  };
  const mx::Shape shape{queries.shape(0), queries.shape(1), 1, values.shape(3)};
  return pass(shape, queries.dtype(), std::move(inputs), {"AxonAttention", run, in_operations});
}

}  // namespace axon
