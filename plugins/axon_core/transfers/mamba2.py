r"""Mamba-2 out of attention: x of values, B of keys, C of queries (Wang et al. 2024, "The Mamba in the Llama").

The scan is :math:`h_t = e^{A d_t} h_{t-1} + d_t x_t B_t^T,\ y_t = h_t C_t + D x_t`. With steps d of one (their rows in
the projection are zero, softplus(bias) = 1), :math:`A = -\ln 2 / \text{half-life}` and D = 0 that is linear attention
which forgets.

The gate :math:`\mathrm{silu}(z)`: with a bias in the projection, z = 1.2785 for every token, where silu is one.
Without, no z is open everywhere; the paper leaves it random, here it begins at zero, or, where a norm comes after the
gate and would blow zeros up, random with a scale of the norm of zero: the layer adds nothing until it is trained.
`gate: random` is the paper's.

Without a norm the sum over the past is divided by the number of tokens that it holds, half-life / ln 2, and the
softmax scale is multiplied into C.

Approximate: everything but the projections themselves. Rotation and softmax are gone, and silu bends x, B and C.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import expm1, log

import numpy as np

from axon_compose.registry import Case
from axon_core.specs.transfers.recurrent import closed_by_norm
from axon_core.transfers._heads import Array, Projections, drawn, read_attention
from axon_core.transfers._recurrent import LN2, flat, half_lives, outputs, taps, value_sizes

__all__ = ["from_attention"]

#: Where silu is one.
_OPEN = 1.2784645


def from_attention(case: Case, arrays: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """Values, keys, queries and output as they are; steps of one, slow decays."""
    options, settings, hidden = case.options, case.settings, case.dims.hidden_size
    heads = options.heads(hidden)
    inner, convolved = options.widths(hidden)
    read, lives = read_attention(case, arrays), half_lives(heads, settings["half_life"])
    step = min(max(1.0, options.dt_min), options.dt_max or 1.0)
    closed, by_norm = settings["gate"] == "closed" and not options.bias, closed_by_norm(options)
    gate = np.zeros((inner, hidden), np.float32)
    if not options.bias and (by_norm or not closed):
        gate = drawn(rng, inner, hidden)
    sizes = np.float32(settings["size"]) * value_sizes(read, heads) if options.norm else LN2 / lives / np.float32(step)
    made = {
        "in_proj.weight": _projection(case, read, gate),
        "conv1d.weight": taps(convolved, options.d_conv, settings["tap"]),
        "A_log": np.log(LN2 / (lives * np.float32(step))).astype(np.float32),
        "dt_bias": np.full(heads, log(expm1(step)), np.float32),
        "D": np.zeros(heads, np.float32),
        "out_proj.weight": outputs(read, sizes),
    }
    if options.norm:
        made["norm.weight"] = np.full(inner, 0.0 if closed and by_norm else 1.0, np.float32)
    if options.conv_bias:
        made["conv1d.bias"] = np.zeros(convolved, np.float32)
    if options.bias:
        made["in_proj.bias"] = _biases(case, read)
    if options.output_bias:
        made["out_proj.bias"] = read.o_bias
    return made


def _projection(case: Case, read: Projections, gate: Array) -> Array:
    """Rows of z, x, B, C and the steps, without the constant factors that the layer multiplies with."""
    options, hidden = case.options, case.dims.hidden_size
    heads, groups = options.heads(hidden), options.n_groups
    scales = options.section_scales
    parts = [
        flat(read.v, heads) / np.float32(scales.x),
        flat(read.k, groups) / np.float32(scales.B),
        flat(read.q, groups) * np.float32(_score_scale(case) / scales.C),
    ]
    steps = np.zeros((heads, hidden), np.float32)
    return np.concatenate([gate, *(part / np.float32(options.input_scale) for part in parts), steps])


def _biases(case: Case, read: Projections) -> Array:
    options = case.options
    heads, groups, scales = options.heads(case.dims.hidden_size), options.n_groups, options.section_scales
    inner, _ = options.widths(case.dims.hidden_size)
    parts = [
        np.full(inner, _OPEN / scales.z, np.float32),
        flat(read.v_bias, heads) / np.float32(scales.x),
        flat(read.k_bias, groups) / np.float32(scales.B),
        flat(read.q_bias, groups) * np.float32(_score_scale(case) / scales.C),
        np.zeros(heads, np.float32),
    ]
    return np.concatenate(parts)


def _score_scale(case: Case) -> float:
    """Factor of the scores, where no norm takes it away again."""
    if case.options.norm:
        return 1.0
    return case.source_options.scale or case.options.d_state**-0.5
