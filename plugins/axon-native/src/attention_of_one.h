/** Attention of one token. Formulas and shapes: `axon_native/__init__.py`. */
#pragma once

#include <optional>

#include "matrices.h"
#include "mlx/array.h"

namespace axon {

mlx::core::array with_token(const mlx::core::array& kept, const mlx::core::array& token, int place);

mlx::core::array attention_of_one(const mlx::core::array& queries, const mlx::core::array& keys,
                                  const mlx::core::array& values, float scale,
                                  const std::optional<mlx::core::array>& sinks, int tokens,
                                  const std::optional<Layer>& output, const std::optional<mlx::core::array>& base);

}  // namespace axon
