/** What causal attention and its gradient share: sizes, and scores of a block of queries, which stay in the cache. */
#pragma once

#include <algorithm>
#include <cstddef>

#include "mlx/array.h"
#include "pass.h"
#include "tiles.h"

namespace axon {

/** Queries that are worked on together. */
constexpr size_t QUERIES = 48;

/** What a layer attends with. */
struct AttentionSizes {
  AttentionSizes(const mlx::core::array& queries, const mlx::core::array& keys, const mlx::core::array& values,
                 float scale, size_t window)
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

/** Some queries of a head, and the keys that any of them sees, rounded to whole panels. */
struct QueryBlock {
  size_t start, stop, first, last;

  QueryBlock(const AttentionSizes& at, size_t start)
      : start(start),
        stop(std::min(start + QUERIES, at.length)),
        first(at.first(start) / PANEL * PANEL),
        last(padded(at.place(stop - 1) + 1)) {}
  size_t queries() const { return stop - start; }
  size_t keys() const { return last - first; }
};

/** Puts softmax weights in the place of scores of a block, zero where a query does not look; they are not divided by
 * their sums. */
void weigh_block(const AttentionSizes& at, const QueryBlock& block, float* scores, float* sums);

/** The queries of a block, times the scale, one after the other. */
void gather(const AttentionSizes& at, const mlx::core::array& queries, size_t batch, size_t head,
            const QueryBlock& block, float* to);

/** A row times a factor. */
inline void put(const float* from, size_t width, float factor, float* to) {
  std::transform(from, from + width, to, [factor](float number) { return number * factor; });
}

/** Of queries (B, H, L, D), keys, values and the gradient of the output (B, L, H, V), the gradients of the first, with
 * heads inside too, as far as a group of heads has a part in them. */
void attention_gradients(const AttentionSizes& at, const Arrays& in, size_t group, const Outputs& d);

}  // namespace axon
