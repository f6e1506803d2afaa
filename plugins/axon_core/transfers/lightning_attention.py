r"""Lightning attention out of attention.

The layer has queries, keys and values without convolutions, and rotations and norms if asked for; each head forgets at
a rate that is not learned. The gate begins at a half for every token, and the output projection is twice as large; it
is also multiplied by the size of the values, which the norm of the output takes away.

Approximate: softmax becomes :math:`q \cdot k`, which may be negative, and the past decays.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from axon_compose.registry import Case
from axon_core.specs.transfers.recurrent import keeps_norms
from axon_core.transfers._heads import Array, read_attention
from axon_core.transfers._recurrent import flat, outputs, value_sizes

__all__ = ["from_attention"]


def from_attention(case: Case, arrays: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """Queries, keys, values and output as they are; the gate half open."""
    options, hidden = case.options, case.dims.hidden_size
    heads, (_, inner) = options.num_heads, options.widths(hidden)
    read = read_attention(case, arrays, scaled=not keeps_norms(case))
    size = np.sqrt(np.square(value_sizes(read, heads)).mean())  # one norm for all heads, whose proportions stay
    made = {
        "query_key_value.weight": np.concatenate([flat(part, heads) for part in (read.q, read.k, read.v)]),
        "g_proj.weight": np.zeros((inner, hidden), np.float32),
        "g_norm.weight": np.ones(inner, np.float32),
        "dense.weight": outputs(read, np.full(heads, 2 * case.settings["size"] * size, np.float32)),
    }
    if options.bias:
        parts = (read.q_bias, read.k_bias, read.v_bias)
        made["query_key_value.bias"] = np.concatenate([flat(part, heads) for part in parts])
    if options.out_bias:
        made["dense.bias"] = read.o_bias
    if keeps_norms(case):
        norms = {"query_layernorm": "q_norm", "key_layernorm": "k_norm"}
        made |= {f"{new}.{name}": arrays[f"{old}.{name}"] for new, old in norms.items() for name in _learned(options)}
    return made


def _learned(options: object) -> list[str]:
    norm = options.qk_norm  # type: ignore[attr-defined]
    return [name for name in ("weight", "bias") if getattr(norm, name)]
