/** A layer of a selective state space, for one token. Formulas and shapes: `axon_native/__init__.py`. */
#pragma once

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "matrices.h"
#include "mlx/array.h"
#include "row_inputs.h"

namespace axon {

/** The taps of a causal convolution (E, K, 1), and what is added to its output (E,) or None. */
using Taps = std::tuple<mlx::core::array, std::optional<mlx::core::array>>;

/** Its four projections: of the input, of step, B and C, of the step, of the output. */
using Projections = std::tuple<Layer, Layer, Layer, Layer>;

/** The norms of step, B and C. */
using StepNorms = std::tuple<std::optional<Norm>, std::optional<Norm>, std::optional<Norm>>;

std::vector<mlx::core::array> selective_layer(const mlx::core::array& x, const mlx::core::array& conv_state,
                                              const mlx::core::array& state, const Projections& projections,
                                              const Taps& taps, const mlx::core::array& A_log,
                                              const mlx::core::array& D, bool step_first, const StepNorms& norms,
                                              std::pair<float, float> steps, const std::optional<Norm>& before,
                                              bool adds);

}  // namespace axon
