r"""A gated delta network out of attention.

With :math:`\mathrm{in\_proj\_a} = 0` a head decays by :math:`\exp(-e^{A} \ln 2)` each token, so :math:`A =
-\ln(\text{half-life})`; with :math:`\mathrm{in\_proj\_b} = 0` each token is written by half. Queries and keys are
brought to length one by the layer, and the output to size one, which the output projection makes up for.

The gate :math:`\mathrm{silu}(z)` multiplies what is written to the stream and its projection has no bias: no z is open
for every token. It begins at zero, as in the conversion that Apriel-H comes with (Ostapenko et al. 2025,
arXiv:2511.02651): the layer adds nothing, yet the gradient reaches z at once. Random gates (`gate: random`, what
MambaInLlama does for Mamba) flip the signs of the output at random, which does more harm: in layers 10 and 20 of
SmolLM2-135M a divergence of 0.43 instead of 0.18. Unlike in that conversion, key/value heads are repeated next to each
other, as the queries share them. A sigmoid cannot be closed without a bias: at zero it is a half for every token, and
the output is as small as that of Kimi delta attention, times two.

Approximate: everything but the projections themselves. Rotation, softmax and its scale are gone, and silu bends what
the convolution gives.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from axon_compose.registry import Case
from axon_core.transfers._heads import Array, read_attention
from axon_core.transfers._recurrent import flat, half_lives, outputs, taps, value_sizes

__all__ = ["from_attention"]


def from_attention(case: Case, arrays: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """Queries, keys, values and output as they are; decays slow, the gate closed, or half open."""
    options, settings, hidden = case.options, case.settings, case.dims.hidden_size
    key_heads, _, heads, value_dim = options.head_shapes()
    read = read_attention(case, arrays)
    rows = {"q": flat(read.q, key_heads), "k": flat(read.k, key_heads), "v": flat(read.v, heads)}
    if options.separate:
        made = {f"{name}_proj.weight": array for name, array in rows.items()}
    else:
        made = {"in_proj_qkv.weight": np.concatenate(list(rows.values()))}
    for name, channels in options.widths.items():
        made[f"{name}conv1d.weight"] = taps(channels, options.d_conv, settings["tap"])
    sizes = value_sizes(read, heads)
    if options.gate_activation == "sigmoid":
        sizes = 2 * np.float32(settings["size"]) * sizes
    if settings["gate"] == "closed":
        made["in_proj_z.weight"] = np.zeros((heads * value_dim, hidden), np.float32)
    for name in "ab":
        made[f"in_proj_{name}.weight"] = np.zeros((heads, hidden), np.float32)
    return made | {
        "A_log": -np.log(half_lives(heads, settings["half_life"])),
        "dt_bias": np.zeros(heads, np.float32),
        "norm.weight": np.ones(value_dim, np.float32),
        "out_proj.weight": outputs(read, sizes),
    }
