#include "tiles.h"

#include "lanes.h"

namespace axon {

namespace {

/** Rows of y that are made at once: with two vectors each their sums fit into 16 registers. */
constexpr size_t TILE = 6;

template <int ROWS>
void tile(LeftFactor a, const float* b, size_t depth, float* y, size_t y_row, bool add) {
  Lanes sums[ROWS][2] = {};
  for (size_t k = 0; k < depth; ++k, b += PANEL) {
    const Lanes first = load(b), second = load(b + LANES);
    const float* const column = a.from + k * a.column;
#pragma GCC unroll 6
    for (int i = 0; i < ROWS; ++i) {
      sums[i][0] += column[i * a.row] * first;
      sums[i][1] += column[i * a.row] * second;
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < ROWS; ++i, y += y_row) {
    store(y, add ? load(y) + sums[i][0] : sums[i][0]);
    store(y + LANES, add ? load(y + LANES) + sums[i][1] : sums[i][1]);
  }
}

using Tile = void (*)(LeftFactor, const float*, size_t, float*, size_t, bool);
/** By their rows. */
constexpr Tile TILES[TILE + 1] = {nullptr, tile<1>, tile<2>, tile<3>, tile<4>, tile<5>, tile<6>};

}  // namespace

void multiply(LeftFactor a, RightFactor b, size_t rows, size_t depth, size_t columns, float* y, size_t y_row,
              bool add) {
  for (size_t column = 0; column < columns; column += PANEL, b.from += b.panel) {
    LeftFactor some = a;
    for (size_t at = 0; at < rows; at += TILE, some.from += TILE * a.row) {
      TILES[rows - at < TILE ? rows - at : TILE](some, b.from, depth, y + at * y_row + column, y_row, add);
    }
  }
}

}  // namespace axon
