/** Layers of a few tokens, in one operation each. Formulas and shapes: `axon_native/__init__.py`. */
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "matrices.h"
#include "mlx/array.h"
#include "row_inputs.h"

namespace axon {

mlx::core::array gated_mlp(const mlx::core::array& x, const Layer& gate, const Layer& up, const Layer& down,
                           const std::string& activation, const std::optional<Norm>& before, bool adds);

mlx::core::array gated_experts(const mlx::core::array& x, const mlx::core::array& indices,
                               const mlx::core::array& weights, const Layer& gate, const Layer& up, const Layer& down,
                               const std::string& activation);

/** How scores become weights: which ones a softmax is of, whether weights are made to sum to one, and a factor. */
struct Routing {
  int some;
  bool of_chosen, to_one;
  float eps, factor;
};

/** Gate, up and down. */
using GatedLayers = std::tuple<Layer, Layer, Layer>;

mlx::core::array routed_experts(const mlx::core::array& x, const Layer& router, const GatedLayers& experts,
                                const std::string& activation,
                                const std::tuple<int, bool, bool, float, float>& routing,
                                const std::optional<GatedLayers>& shared, const std::optional<Layer>& shared_gate,
                                const std::optional<Norm>& before, bool adds);

std::vector<mlx::core::array> projected_heads(
    const mlx::core::array& x, const Layer& queries, const Layer& keys, const Layer& values, std::pair<int, int> heads,
    const std::optional<std::pair<mlx::core::array, mlx::core::array>>& turn, int pairs, bool traditional,
    const std::optional<Norm>& before, const std::optional<Norm>& query_norm, const std::optional<Norm>& key_norm);

}  // namespace axon
