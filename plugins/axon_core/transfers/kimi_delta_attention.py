r"""Kimi delta attention out of attention.

As for the gated delta network, with a decay for each channel of the key, which begin alike in a head. The decay is
:math:`\exp(-e^{A} \mathrm{softplus}(b))`, so b = 0 and :math:`A = -\ln(\text{half-life})`; or with a lower bound l
:math:`\exp(l\, \sigma(e^{A} b))`, so A = 0 and :math:`\sigma(b) = \ln 2 / (-l\, \text{half-life})`.

The gate is a sigmoid: at zero it is a half for every token, and the output projection is twice as large. Of a gate or
decay that is the product of two matrices only the second begins at zero, for two zeros would never move.

Approximate: everything but the projections themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from axon_compose.registry import Case
from axon_core.transfers._heads import Array, read_attention
from axon_core.transfers._recurrent import LN2, flat, half_lives, outputs, taps, value_sizes

__all__ = ["from_attention"]

#: The largest part of the bound that a decay uses which does not depend on the token.
_MOST = 0.99


def from_attention(case: Case, arrays: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """Queries, keys, values and output as they are; decays slow, the gate half open."""
    options, settings, hidden = case.options, case.settings, case.dims.hidden_size
    heads, width = options.num_heads, options.head_dim
    inner = heads * width
    read = read_attention(case, arrays)
    made = {f"{name}_proj.weight": flat(getattr(read, name), heads) for name in "qkv"}
    made |= {f"{name}_conv.conv.weight": taps(inner, options.d_conv, settings["tap"]) for name in "qkv"}
    for name in "fg":
        if name in options.low_rank:
            made[f"{name}_b_proj.weight"] = np.zeros((inner, options.rank), np.float32)
        else:
            made[f"{name}_proj.weight"] = np.zeros((inner, hidden), np.float32)
    rates, steps = _decays(half_lives(heads, settings["half_life"]), options.lower_bound)
    return made | {
        "b_proj.weight": np.zeros((heads, hidden), np.float32),
        "A_log": rates.reshape(1, 1, heads, 1),
        "dt_bias": np.repeat(steps, width),
        "o_norm.weight": np.ones(width, np.float32),
        "o_proj.weight": outputs(read, 2 * np.float32(settings["size"]) * value_sizes(read, heads)),
    }


def _decays(lives: Array, bound: float | None) -> tuple[Array, Array]:
    """`A_log` and the bias of each head."""
    if bound is None:
        return -np.log(lives), np.zeros_like(lives)
    share = np.minimum(LN2 / (-bound * lives), _MOST)
    return np.zeros_like(lives), np.log(share / (1 - share)).astype(np.float32)
