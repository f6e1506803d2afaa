/** Products of matrices of float32 that fit into the cache. */
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

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

/** Rows of (tokens, width) as the panels of a right factor; numbers beyond its edges are zero. */
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

/** Rows of (tokens, width) as the panels of a right factor whose columns they are. */
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

}  // namespace axon
