/** The recurrences, as operations of MLX. Shapes and formulas: `axon_native/__init__.py`. */
#pragma once

#include <utility>

#include "mlx/array.h"

namespace axon {

namespace mx = mlx::core;
using mx::array;

/** The outputs of all tokens, and the state after the last one. */
using Outcome = std::pair<array, array>;

Outcome selective_scan(const array& A, const array& state, const array& dt, const array& u, const array& B,
                                  const array& C);
Outcome ssd_scan(const array& state, const array& log_decay, const array& u, const array& B,
                            const array& C);
Outcome gated_delta_rule(const array& state, const array& q, const array& k, const array& v,
                                    const array& log_g, const array& beta);
Outcome wkv7(const array& state, const array& r, const array& log_w, const array& k, const array& v,
                        const array& a, const array& b);

}  // namespace axon
