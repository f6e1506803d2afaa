/** What `vmap` becomes for an operation that has no axis to spare. */
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "mlx/array.h"
#include "mlx/ops.h"

namespace axon {

/** The results of a call for each entry of the mapped axes, one after the other, stacked along a new first axis.
 *
 * `axes` are those of the inputs, negative where one is the same for all; `call` gives `outputs` arrays.
 */
inline std::pair<std::vector<mlx::core::array>, std::vector<int>> one_by_one(
    const std::vector<mlx::core::array>& inputs, const std::vector<int>& axes, size_t outputs, mlx::core::Stream stream,
    const std::function<std::vector<mlx::core::array>(std::vector<mlx::core::array>)>& call) {
  namespace mx = mlx::core;
  int count = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    count = axes[i] < 0 ? count : inputs[i].shape(axes[i]);
  }
  std::vector<std::vector<mx::array>> found(outputs);
  for (int at = 0; at < count; ++at) {
    std::vector<mx::array> own;
    for (size_t i = 0; i < inputs.size(); ++i) {
      // Side by side in memory, as calls may have made their inputs: an entry of a later axis is a view with gaps.
      own.push_back(axes[i] < 0 ? inputs[i] : mx::contiguous(mx::take(inputs[i], at, axes[i], stream), false, stream));
    }
    const auto results = call(std::move(own));
    for (size_t i = 0; i < outputs; ++i) {
      found[i].push_back(results[i]);
    }
  }
  std::vector<mx::array> stacked;
  for (const auto& each : found) {
    stacked.push_back(mx::stack(each, 0, stream));
  }
  return {stacked, std::vector<int>(outputs, 0)};
}

}  // namespace axon
