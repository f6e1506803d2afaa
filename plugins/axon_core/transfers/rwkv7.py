r"""RWKV-7's time mixing out of attention: receptances of queries, keys, values and output (Goldstein et al. 2025).

With an in-context rate of one half and the removal key :math:`\kappa = k / |k|`, the layer's state does

.. math::
    S_t = S_{t-1} \mathrm{diag}(w) + \tfrac12 (|k_t| v_t - S_{t-1} \kappa_t) \kappa_t^T,

the delta rule with half of each write, where values count as much as their keys are long. The decay is :math:`w =
\exp(-e^{-1/2} \sigma(b))`, so :math:`\sigma(b) = e^{1/2} \ln 2 / \text{half-life}`. Shares of the token before are
zero, as are the first matrices of the low ranks, so that decays, rates and gate are the same for every token.

The gate has no bias: it is :math:`\sum_j G_{ij} / 2` with the second matrix G as training draws it, moved until its
rows sum to two. The gate is one then, and the rows of the first matrix have gradients that differ.

Approximate: everything but the projections themselves. Rotation, softmax and biases are gone, and the norm of a head's
output also takes its mean away.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp

import numpy as np

from axon_compose.registry import Case
from axon_core.transfers._heads import Array, read_attention
from axon_core.transfers._recurrent import LN2, flat, half_lives, outputs, value_sizes

__all__ = ["from_attention"]

#: The largest part of the fastest decay that one uses which does not depend on the token.
_MOST = 0.99
#: The part of `value_from` that is let in.
_LET_IN = 1e-3


def from_attention(case: Case, arrays: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """Queries, keys, values and output as they are; decays slow, rates a half, the gate one."""
    options, settings, hidden = case.options, case.settings, case.dims.hidden_size
    heads, width = options.heads(hidden), options.head_dim
    inner, each = heads * width, (heads, width)
    read = read_attention(case, arrays)
    made = {f"{new}_proj.weight": flat(getattr(read, old), heads) for new, old in zip("rkv", "qkv", strict=True)}
    made |= {f"x_{name}": np.zeros((1, 1, hidden), np.float32) for name in "rwkvag"}
    ranks = {"w": options.decay_low_rank_dim, "a": options.a_low_rank_dim, "g": options.gate_low_rank_dim}
    if options.value_from is not None:
        ranks["v"] = options.v_low_rank_dim
        made["v_lora.lora.2.bias"] = np.full(inner, _logit(_LET_IN), np.float32)
    made |= {f"{name}_lora.lora.0.weight": np.zeros((rank, hidden), np.float32) for name, rank in ranks.items()}
    share = np.minimum(exp(0.5) * LN2 / half_lives(heads, settings["half_life"]), _MOST)
    return made | {
        "w_lora.lora.2.bias": np.repeat(_logit(share), width).astype(np.float32),
        "a_lora.lora.2.bias": np.zeros(inner, np.float32),
        "g_lora.lora.2.weight": _open_gate(rng, inner, ranks["g"], hidden),
        "k_k": np.ones(each, np.float32),
        "k_a": np.ones(each, np.float32),
        "r_k": np.zeros(each, np.float32),
        "g_norm.weight": np.ones(each, np.float32),
        "g_norm.bias": np.zeros(each, np.float32),
        "o_proj.weight": outputs(read, np.float32(settings["size"]) * value_sizes(read, heads)),
    }


def _logit(share: Array | float) -> Array:
    """Where the sigmoid is so much."""
    return np.log(np.asarray(share) / (1 - np.asarray(share)))


def _open_gate(rng: np.random.Generator, rows: int, rank: int, hidden: int) -> Array:
    """The second matrix of the gate, (rows, rank): drawn as for training, its rows moved to the sum of two."""
    made = rng.standard_normal((rows, rank), dtype=np.float32) * np.float32(0.1 / hidden**0.5)
    return made + (2 - made.sum(axis=1, keepdims=True)) / np.float32(rank)
