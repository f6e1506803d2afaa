/** What the selective scan and its gradient share. */
#pragma once

#include <algorithm>

#include "recurrence.h"

namespace axon {

/** What both read, or std::invalid_argument if shapes do not fit. */
Arrays scan_inputs(const array& A, const array& state, const array& dt, const array& u, const array& B,
                   const array& C);

/** Copies `rows` rows of `count` numbers, which lie `from_stride` and then `to_stride` apart. */
inline void copy(float* to, size_t to_stride, const float* from, size_t from_stride, size_t rows, size_t count) {
  for (size_t row = 0; row < rows; ++row) {
    std::copy_n(from + row * from_stride, count, to + row * to_stride);
  }
}

}  // namespace axon
