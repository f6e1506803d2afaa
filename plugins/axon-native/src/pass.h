/** One operation over a few arrays where MLX makes many small ones. */
#pragma once

#include <algorithm>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "lanes.h"
#include "mlx/array.h"

namespace axon {

using Arrays = std::vector<mlx::core::array>;
using Outputs = std::vector<float*>;

/** How a pass is computed, and what it is in operations of MLX, from which its derivatives come; these get arrays of
 * float32 in the place of any others with a point. Where there is a `gradient`, it makes those of all inputs out of
 * these and the gradients of the outputs. */
struct PassDefinition {
  const char* name;
  std::function<void(const Arrays& inputs, const Outputs& outputs)> run;
  std::function<Arrays(const Arrays&)> in_operations;
  std::function<Arrays(const Arrays& inputs, const Arrays& cotangents)> gradient = nullptr;
};

/** Outputs of these shapes and types, which are computed in float32. */
Arrays pass(std::vector<mlx::core::Shape> shapes, std::vector<mlx::core::Dtype> dtypes, Arrays inputs,
            PassDefinition definition);

/** The same, all of one type. */
Arrays pass(std::vector<mlx::core::Shape> shapes, mlx::core::Dtype dtype, Arrays inputs, PassDefinition definition);

/** One output, of arrays of float32, bfloat16 or float16; throws std::invalid_argument for others. */
mlx::core::array pass(mlx::core::Shape shape, mlx::core::Dtype dtype, Arrays inputs, PassDefinition definition);

/** A `gradient` of a definition that is a pass too: `run` makes the gradients of all inputs, shaped as they are and in
 * float32, out of the inputs and the gradients of the outputs. Its own derivatives are those of the operations'. */
std::function<Arrays(const Arrays& inputs, const Arrays& cotangents)> gradient_pass(
    const char* name, std::function<void(const Arrays& inputs, const Outputs& outputs)> run,
    std::function<Arrays(const Arrays&)> in_operations);

bool is_float(const mlx::core::array& a);

/** The arrays with these numbers, as derivatives ask for some of all. */
inline Arrays chosen(const Arrays& all, const std::vector<int>& argnums) {
  Arrays some;
  for (const int argument : argnums) {
    some.push_back(all[argument]);
  }
  return some;
}

[[noreturn]] inline void refuse(const std::string& why) { throw std::invalid_argument(why); }

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

inline float sum(const float* a, size_t width) {
  Lanes sum{};
  float rest = 0;
  along(width, [&](size_t i) { sum += load(a + i); }, [&](size_t i) { rest += a[i]; });
  return total(sum) + rest;
}

inline float dot(const float* a, const float* b, size_t width) {
  Lanes sum{};
  float rest = 0;
  along(width, [&](size_t i) { sum += load(a + i) * load(b + i); }, [&](size_t i) { rest += a[i] * b[i]; });
  return total(sum) + rest;
}

/** The largest of some numbers, of which there is one at least. */
inline float greatest(const float* numbers, size_t count) {
  Lanes found = Lanes{} + numbers[0];
  along(
      count, [&](size_t i) { found = load(numbers + i) > found ? load(numbers + i) : found; },
      [&](size_t i) { found[0] = std::max(found[0], numbers[i]); });
  for (int i = 1; i < LANES; ++i) {
    found[0] = std::max(found[0], found[i]);
  }
  return found[0];
}

}  // namespace axon
