/** What a model computes between its products, in one pass each. Formulas and shapes: `axon_native/__init__.py`. */
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "mlx/array.h"

namespace axon {

mlx::core::array rms_norm(const mlx::core::array& x, const mlx::core::array& weight, float eps, float offset);

mlx::core::array layer_norm(const mlx::core::array& x, const mlx::core::array& weight,
                            const std::optional<mlx::core::array>& bias, float eps);

mlx::core::array gated(const mlx::core::array& gate, const mlx::core::array& factor, const std::string& activation);

mlx::core::array activated(const mlx::core::array& x, const std::string& activation);

mlx::core::array causal_convolution(const mlx::core::array& x, const mlx::core::array& state,
                                    const mlx::core::array& weight, const std::optional<mlx::core::array>& bias,
                                    int dilation);

std::vector<mlx::core::array> likelihood(const mlx::core::array& logits, const mlx::core::array& tokens);

mlx::core::array rotation(const mlx::core::array& x, const mlx::core::array& cosines, const mlx::core::array& sines,
                          int pairs, bool traditional);

mlx::core::array causal_attention(const mlx::core::array& queries, const mlx::core::array& keys,
                                  const mlx::core::array& values, float scale, const std::optional<int>& window);

}  // namespace axon
