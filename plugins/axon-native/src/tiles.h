/** Products of matrices of float32 that fit into the cache. */
#pragma once

#include <cstddef>

namespace axon {

/** Columns of a panel. A right factor lies in panels: all rows of the first 16 columns, then those of the next 16. */
constexpr size_t PANEL = 16;

/** A width rounded up to whole panels. */
inline size_t padded(size_t width) { return (width + PANEL - 1) / PANEL * PANEL; }

/** A left factor: its number in row i and column k is `from[i * row + k * column]`. */
struct LeftFactor {
  const float* from;
  size_t row, column;
};

/** A right factor in panels, or some rows of one: row k of its first panel is at `from + k * PANEL`. */
struct RightFactor {
  const float* from;
  size_t panel;  // from one panel to the next
};

/** y = a b, or y += a b, with `rows` of a, `depth` columns of it and as many rows of b, and columns of whole panels.
 *
 * A row of y begins `y_row` numbers after the one before it.
 */
void multiply(LeftFactor a, RightFactor b, size_t rows, size_t depth, size_t columns, float* y, size_t y_row, bool add);

}  // namespace axon
