/** Rows of arrays whose leading axes may repeat them or turn them around. */
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "mlx/array.h"

namespace axon {

/** Where the row of x begins that is `at` in the order of its first `axes` axes. */
inline int64_t offset(const mlx::core::array& x, size_t at, int axes) {
  int64_t found = 0;
  for (int axis = axes - 1; axis >= 0; --axis) {
    found += static_cast<int64_t>(at % x.shape(axis)) * x.strides(axis);
    at /= x.shape(axis);
  }
  return found;
}

template <class T>
inline const float* row(const mlx::core::array& x, size_t at, float* scratch) {
  const T* from = x.data<T>() + offset(x, at, x.ndim() - 1);
  const int64_t step = x.strides(-1);
  const int width = x.shape(-1);
  if (step == 1) {  // which compilers make vectors of
    std::transform(from, from + width, scratch, [](T number) { return static_cast<float>(number); });
    return scratch;
  }
  for (int i = 0; i < width; ++i) {
    scratch[i] = static_cast<float>(from[i * step]);
  }
  return scratch;
}

/** The row `at` of an array of floats, along its last axis; in `scratch` unless it is there in float32 without gaps. */
inline const float* row(const mlx::core::array& x, size_t at, float* scratch) {
  if (x.dtype() == mlx::core::bfloat16) {
    return row<mlx::core::bfloat16_t>(x, at, scratch);
  }
  if (x.dtype() == mlx::core::float16) {
    return row<mlx::core::float16_t>(x, at, scratch);
  }
  if (x.strides(-1) != 1 && x.shape(-1) != 1) {
    return row<float>(x, at, scratch);
  }
  return x.data<float>() + offset(x, at, x.ndim() - 1);
}

}  // namespace axon
