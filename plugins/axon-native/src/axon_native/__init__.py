"""Recurrences, products with stored matrices and steps of a few tokens in C++, as operations of MLX on the CPU.

Recurrences
-----------

All take arrays of any type, compute in float32 and return the outputs of all tokens and the state after the last one.
They have no mask: `axon_core` sees to that. The formulas are those of Gu and Dao 2023, "Mamba"; Dao and Gu 2024,
"Mamba-2"; Yang et al. 2024, "Gated Delta Networks"; Peng et al. 2025, "RWKV-7 Goose".

    selective_scan(A, state, dt, u, B, C)           h = exp(dt A) h + B u
                                                    y = sum_n C h
    ssd_scan(state, log_decay, u, B, C)             S = exp(log_decay) S + u B^T
                                                    y = S C
    gated_delta_rule(state, q, k, v, log_g, beta)   S = S diag(exp(log_g)) (I - beta k k^T) + beta v k^T
                                                    y = S q
    wkv7(state, r, log_w, k, v, a, b)               S = S (diag(exp(log_w)) + a b^T) + v k^T
                                                    y = S r
    linear_scan(state, x, log_a)                    h = exp(log_a) h + x
                                                    y = h

Shapes: of the first, A (N, E), state (Bt, N, E), dt and u (Bt, L, E), B and C (Bt, L, N); of the last, state (B, E), x
and log_a (B, L, E). Of the others, states are
(B, H, Dv, Dk); u and v (B, L, H, Dv); B, C, q and k (B, L, Hk, Dk) where Hk divides H; r, k, a, b and log_w of RWKV-7
(B, L, H, Dk); log_decay and beta (B, L, H); log_g (B, L, H) or (B, L, H, Dk). Logarithms of decays are at most zero.

A call takes as many threads as the process may use. Outputs are within 2e-6 of float64, relative to the largest; where
a state hardly changes over thousands of tokens, with steps of 1e-4, within 1e-4.

A name with `_vjp` is the gradient: of the arguments and the gradients of outputs and last state, `dy` and `dlast`, it
makes those of all arguments. `linear_scan_vjp(state, log_a, y, dy, dlast)` takes the outputs, which are its states; the
others compute states again from some of them, so that what threads work with grows with the root of the sequence. Sums
are made in an order that the shapes alone decide: any number of threads gives the same bits. Gradients are as near to
float64 as those of the reference implementations, 2e-6 of the largest.

Products
--------

    product(x, weight, scales=None, biases=None, indices=None, group_size=0, bits=0, mode="")    y = x W^T

x is (..., K) of any type; it is computed with in float32, as y is, (..., N). The matrix W is read as it is stored:
(N, K) in float32, bfloat16 or float16, or quantised as `mlx.core.quantize` packs it, in the mode `affine` with 2, 3, 4,
5, 6 or 8 bits in groups of 32, 64 or 128, or in `mxfp4`. With `indices` (...) there is a W for each of E experts, x is
(..., R, K), whose leading axes broadcast with those of the indices, and y is (..., R, N); no matrix is copied for that.
Outputs are those of float64, rounded once, and what a sum in float32 loses: 3e-7 of the sum of the sizes of its terms.
Derivatives in every direction are those of MLX operations.

`product_kernels()` names the kernels that the processor has: AVX512VBMI, AVX512, AVX2 or PORTABLE, which is NEON on
ARM. The environment variable AXON_KERNELS asks for lesser ones. `most_threads()` is how many threads a call takes at
most: AXON_THREADS or OMP_NUM_THREADS, or else the processors that the process and its control group may use.

Passes
------

    rms_norm(x, weight, eps, offset=0)                   y = x / sqrt(mean(x^2) + eps) * (offset + weight)
    layer_norm(x, weight, bias, eps)                     y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias
    gated(gate, factor, activation)                      y = act(gate) * factor
    activated(x, activation)                             y = act(x)
    rotation(x, cosines, sines, pairs, traditional)      y_i = x_i c_i + x_j s_i for the partner j of i
    causal_convolution(x, state, weight, bias, dilation=1)      y_t = sum_k w_k x_{t - (K - 1 - k) dilation} + bias
    causal_attention(queries, keys, values, scale, window=None)      y_ht = sum_s softmax(scale q_ht K_g)_s v_s, s <= t
    attention_of_one(queries, keys, values, scale, sinks=None, tokens=0, output=None, base=None)
                                                         y_h = sum_t softmax(scale q_h K_g)_t v_t
    with_token(kept, token, place)                       kept with a token in the place of one of its own

x is (..., D), with rotations (..., L, D); weight (D,), and bias, or None; gate and factor have one shape, and the
activation is `silu`, `gelu_tanh` or `gelu_quick`; cosines and sines (L, D). Partners are the two halves of the first 2
`pairs` numbers, or neighbours if `traditional`; each of those that follow is its own. Queries are (B, H, 1, D), keys
(B, G, S, D), values (B, G, S, V), where G divides H; a sink (H,) is the score of a further token without a value. With
`tokens`, the first so many keys count; with `output`, a linear layer as below, the result is what that makes of all
heads, (B, 1, N), and `base` is added to it. What is kept is (B, G, S, D), a token (B, G, 1, D) of the same type.
Causal attention has queries (B, H, L, D) of the last L tokens, each of which sees `window` tokens, itself included, or
all. A convolution has x (B, L, E), the inputs before it (B, (K - 1) dilation, E), a weight (E, K) and a bias (E,) or
None, and gives float32. All are float32, bfloat16 or float16, with any strides; it is computed in float32, and the
result has the type of the first, that of a norm or a gate the common one, with an offset float32.

    likelihood(logits, tokens)      nll = z - x_token, and z = log(sum(exp(x)))

The logits x are (..., V) in float32, tokens (...) in int32, and both results (...) in float32.

Gradients are passes too, whose sums are made in an order that the shapes alone decide; attention computes its weights
again for them, a block of queries at a time. Those of `layer_norm` and `attention_of_one`, and all other derivatives,
are those of MLX operations.

Layers
------

    gated_mlp(x, gate, up, down, activation)             y = down(act(gate(x)) * up(x))
    gated_experts(x, indices, weights, gate, up, down, activation)      y = sum_j w_j down_e(act(gate_e(x)) * up_e(x))
    routed_experts(x, router, experts, activation, routing, shared=None, shared_gate=None)
    projected_heads(x, queries, keys, values, heads, turn=None, pairs=0, traditional=False, query_norm=None,
                    key_norm=None)
    selective_layer(x, conv_state, state, projections, taps, A_log, D, step_first, norms, steps)

They are for a few rows, of which MLX would make a dozen small operations. All but the second take a norm of x as
`norm`, and all but heads and the second add x to the result if `adds`: with both, y = x + layer(norm(x)).

Linear layers are tuples of a matrix as products read it, its scales and biases or None, what is added (N,) or None,
group size, bits and mode; of experts all have a further first axis. Norms are tuples of a weight (D,) or None for ones,
eps and offset, as of `rms_norm`. The activation is one of `gated`.

x is (..., K) and y (..., N). Indices and weights (..., k) say for each row of x which experts e it meets; a router has
a row for each expert, `experts` and `shared` are gate, up and down, and `routing` is (k, whether the softmax is of the
chosen scores alone, whether weights are made to sum to one, what is added to that sum, a factor of the weights). Of
equal scores the first one is chosen; the shared expert's output is multiplied by the sigmoid of its gate, a layer of
one row.

Of x (B, 1, K) heads are queries (B, H, 1, D), keys (B, G, 1, D) and values (B, G, 1, V), where `heads` is (H, G); the
first two are normalised, head by head, and rotated as `rotation` does, by a pair of cosines and sines (1, D).

The selective layer is that of `selective_scan` for one token x (B, 1, K), of E channels with N states each: projections
are those of x (2 E rows), of steps, B and C (R + 2 N rows, the steps first or last), of steps (E rows) and of the
output; taps (E, K, 1), and what is added to the convolution (E,) or None; `norms` those of steps, B and C; `steps` the
least and the largest step. It takes and gives the last inputs of the convolution, (B, K - 1, E) in the type of x, and
the state, (B, N, E) in float32.

All is computed in float32, and given in the type of x, the sum of experts by indices in float32. Derivatives in every
direction are those of MLX operations.

Raises:
    ImportError: If it was built for another version of MLX, whose arrays it would misread.
"""

from importlib.metadata import version

import mlx.core  # noqa: F401  # loads the library that the kernels are linked with, wherever MLX is installed

from axon_native._kernels import (
    BUILT_FOR,
    activated,
    attention_of_one,
    causal_attention,
    causal_convolution,
    gated,
    gated_delta_rule,
    gated_delta_rule_vjp,
    gated_experts,
    gated_mlp,
    layer_norm,
    likelihood,
    linear_scan,
    linear_scan_vjp,
    most_threads,
    product,
    product_kernels,
    projected_heads,
    rms_norm,
    rotation,
    routed_experts,
    selective_layer,
    selective_scan,
    selective_scan_vjp,
    ssd_scan,
    ssd_scan_vjp,
    with_token,
    wkv7,
    wkv7_vjp,
)

__all__ = [
    "activated",
    "attention_of_one",
    "causal_attention",
    "causal_convolution",
    "gated",
    "gated_delta_rule",
    "gated_delta_rule_vjp",
    "gated_experts",
    "gated_mlp",
    "layer_norm",
    "likelihood",
    "linear_scan",
    "linear_scan_vjp",
    "most_threads",
    "product",
    "product_kernels",
    "projected_heads",
    "rms_norm",
    "rotation",
    "routed_experts",
    "selective_layer",
    "selective_scan",
    "selective_scan_vjp",
    "ssd_scan",
    "ssd_scan_vjp",
    "with_token",
    "wkv7",
    "wkv7_vjp",
]

_BUILT_FOR = ".".join(map(str, BUILT_FOR))
if version("mlx").split(".dev")[0] != _BUILT_FOR:
    raise ImportError(f"axon-native was built for mlx {_BUILT_FOR}, not {version('mlx')}: build it again")
