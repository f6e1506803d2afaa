/** Products with the transposes of matrices of 16 bits and of quantised ones, as an operation of MLX. */
#pragma once

#include <optional>
#include <string>

#include "mlx/array.h"

namespace axon {

/** `x @ weight.T`, in float32; see `axon_native/__init__.py`. */
mlx::core::array product(const mlx::core::array& x, const mlx::core::array& weight,
                         const std::optional<mlx::core::array>& scales, const std::optional<mlx::core::array>& biases,
                         const std::optional<mlx::core::array>& indices, int group_size, int bits,
                         const std::string& mode);

}  // namespace axon
