/** What layers of a few tokens read: rows in float32, and norms of them. */
#pragma once

#include <optional>
#include <tuple>
#include <vector>

#include "mlx/array.h"
#include "mlx/ops.h"
#include "pass.h"
#include "row_passes.h"
#include "rows.h"

namespace axon {

/** A root-mean-square norm, x / sqrt(mean(x^2) + eps) * (offset + weight): weight (D,) or None for ones, eps, offset. */
using Norm = std::tuple<std::optional<mlx::core::array>, float, float>;

/** A norm, or none, whose weight is an input of an operation. */
class NormInput {
 public:
  /** Appends the weight to `inputs`; throws std::invalid_argument unless it is of rows of `width`. */
  NormInput(const std::optional<Norm>& norm, int width, Arrays& inputs) : there_(norm.has_value()) {
    if (!norm) {
      return;
    }
    const auto& [weight, eps, offset] = *norm;
    eps_ = eps, offset_ = offset;
    if (weight) {
      if (weight->shape() != mlx::core::Shape{width} || !is_float(*weight)) {
        refuse("a norm should have a weight for each number of a row");
      }
      weight_ = inputs.size();
      inputs.push_back(*weight);
    }
  }

  explicit operator bool() const { return there_; }

  /** Normalises rows of `width` into `y`, one after the other; these may be the rows themselves. */
  void run(const Arrays& in, const std::vector<const float*>& x, size_t width, float* y) const {
    std::vector<float> scale(width, 1.0f);
    if (weight_) {
      const float* weight = row(in[weight_], 0, scale.data());
      for (size_t i = 0; i < width; ++i) {
        scale[i] = offset_ + weight[i];
      }
    }
    for (const float* from : x) {
      norm_row(from, scale.data(), eps_, width, y);
      y += width;
    }
  }

  /** The same in operations of MLX; x itself where there is no norm. */
  mlx::core::array of(const Arrays& in, const mlx::core::array& x) const {
    namespace mx = mlx::core;
    if (!there_) {
      return x;
    }
    const mx::array mean = mx::mean(mx::square(x), -1, true);
    const mx::array y = mx::multiply(x, mx::rsqrt(mx::add(mean, mx::array(eps_))));
    return weight_ ? mx::multiply(y, mx::add(in[weight_], mx::array(offset_))) : y;
  }

 private:
  bool there_;
  float eps_ = 0, offset_ = 0;
  size_t weight_ = 0;  // the place among the inputs; 0, which x has, where there is none
};

/** The rows of an array in float32, in scratch where they are not so; with a norm, normalised. */
class RowsOf {
 public:
  explicit RowsOf(const mlx::core::array& x) : scratch_(x.size()) {
    const size_t width = x.shape(-1), count = x.size() / width;
    for (size_t at = 0; at < count; ++at) {
      found_.push_back(row(x, at, scratch_.data() + at * width));
    }
  }
  RowsOf(const mlx::core::array& x, const NormInput& norm, const Arrays& in) : RowsOf(x) {
    if (!norm) {
      return;
    }
    const size_t width = x.shape(-1);
    norm.run(in, found_, width, scratch_.data());
    for (size_t at = 0; at < found_.size(); ++at) {
      found_[at] = scratch_.data() + at * width;
    }
  }
  RowsOf(const RowsOf&) = delete;

  const std::vector<const float*>& operator*() const { return found_; }

  /** Adds each row to one of as many, which lie one after the other. */
  void add_to(float* y) const {
    const size_t width = found_.empty() ? 0 : scratch_.size() / found_.size();
    for (const float* from : found_) {
      for (size_t i = 0; i < width; ++i) {
        y[i] += from[i];
      }
      y += width;
    }
  }

 private:
  std::vector<float> scratch_;
  std::vector<const float*> found_;
};

}  // namespace axon
