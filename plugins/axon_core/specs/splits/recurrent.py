"""Parts of lightning attention, and of Griffin's recurrent block."""

from __future__ import annotations

from typing import Any

from axon_compose.registry import ONCE, Cut, Dims, Role, Segment, Split, columns, rows
from axon_core.specs.splits._even import part, uneven
from axon_core.specs.splits._norms import norm_roles, norm_sums
from axon_core.specs.splits.state_spaces import spread_sums

__all__ = ["griffin_split", "lightning_split"]


def lightning_split(options: Any, dims: Dims, devices: int) -> Split | str:
    """Heads; the part knows which of them it has, for their slopes."""
    heads = options.num_heads
    width, inner = options.widths(dims.hidden_size)
    if fault := uneven(devices, num_heads=heads):
        return fault
    if inner // devices % options.norm_groups:
        return f"`norm_groups` ({options.norm_groups}) does not divide the channels of a device ({inner // devices})"
    each = Segment(inner, heads)
    roles: dict[str, Role] = {
        "query_key_value.weight": Cut(0, (each, each, each)),
        "g_proj.weight": rows(inner, heads),
        "g_norm.weight": rows(inner, heads),
        "dense.weight": columns(inner, heads),
    }
    if options.bias:
        roles["query_key_value.bias"] = Cut(0, (each, each, each))
    if options.out_bias:
        roles["dense.bias"] = ONCE
    roles |= norm_roles(options.qk_norm, width, query_layernorm=heads, key_layernorm=heads)
    smaller = part(options, num_heads=heads // devices, head_dim=width)
    sums = (*norm_sums(options.qk_norm, devices), *spread_sums(inner, options.norm_groups, devices))
    return Split(smaller, roles, inside=sums)


def griffin_split(options: Any, dims: Dims, devices: int) -> Split | str:
    """Heads, for the matrices of the gates are blocks of one each."""
    heads, channels = options.num_heads, options.channels(dims.hidden_size)
    if fault := uneven(devices, num_heads=heads):
        return fault
    wide = ("linear_x.weight", "linear_x.bias", "linear_y.weight", "linear_y.bias", "conv_1d.weight", "conv_1d.bias")
    roles: dict[str, Role] = dict.fromkeys((*wide, "rg_lru.recurrent_param"), rows(channels, heads))
    for gate in ("input", "recurrent"):
        roles |= dict.fromkeys((f"rg_lru.{gate}_gate_weight", f"rg_lru.{gate}_gate_bias"), rows(heads))
    roles |= {"linear_out.weight": columns(channels, heads), "linear_out.bias": ONCE}
    return Split(part(options, num_heads=heads // devices, lru_width=channels // devices), roles)
