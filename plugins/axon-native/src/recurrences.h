/** The recurrences and their gradients, as operations of MLX. Shapes and formulas: `axon_native/__init__.py`. */
#pragma once

#include <vector>

#include "mlx/array.h"

namespace axon {

namespace mx = mlx::core;
using mx::array;

/** The outputs of all tokens, and the state after the last one; or the gradients of all arguments, in their order. */
using Arrays = std::vector<array>;

Arrays selective_scan(const array& A, const array& state, const array& dt, const array& u, const array& B,
                      const array& C);
Arrays ssd_scan(const array& state, const array& log_decay, const array& u, const array& B, const array& C);
Arrays gated_delta_rule(const array& state, const array& q, const array& k, const array& v, const array& log_g,
                        const array& beta);
Arrays linear_scan(const array& state, const array& x, const array& log_a);
Arrays wkv7(const array& state, const array& r, const array& log_w, const array& k, const array& v, const array& a,
            const array& b);

// Those of `sum(dy * y) + sum(dlast * last)`.
Arrays selective_scan_vjp(const array& A, const array& state, const array& dt, const array& u, const array& B,
                          const array& C, const array& dy, const array& dlast);
/** It takes the outputs as well, which are the states. */
Arrays linear_scan_vjp(const array& state, const array& log_a, const array& y, const array& dy, const array& dlast);
Arrays ssd_scan_vjp(const array& state, const array& log_decay, const array& u, const array& B, const array& C,
                    const array& dy, const array& dlast);
Arrays gated_delta_rule_vjp(const array& state, const array& q, const array& k, const array& v, const array& log_g,
                            const array& beta, const array& dy, const array& dlast);
Arrays wkv7_vjp(const array& state, const array& r, const array& log_w, const array& k, const array& v, const array& a,
                const array& b, const array& dy, const array& dlast);

}  // namespace axon
