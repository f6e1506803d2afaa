"""Parts of short convolutions: of LFM2 by channels, of Gear by heads."""

from __future__ import annotations

from typing import Any

from axon_compose.registry import ONCE, Cut, Dims, Role, Segment, Split, columns, rows
from axon_core.specs.splits._even import part, uneven, unshared
from axon_core.specs.splits._norms import norm_roles, norm_sums

__all__ = ["kv_conv_split", "short_conv_split"]


def short_conv_split(options: Any, dims: Dims, devices: int) -> Split | str:
    """Channels."""
    channels = options.channels(dims.hidden_size)
    if fault := uneven(devices, **{"intermediate_size" if options.intermediate_size else "hidden_size": channels}):
        return fault
    each = Segment(channels, channels)
    fused = Cut(0, (each, each, each))
    roles: dict[str, Role] = {
        "in_proj.weight": fused,
        "conv.weight": rows(channels),
        "out_proj.weight": columns(channels),
    }
    if options.bias:
        roles |= {"in_proj.bias": fused, "conv.bias": rows(channels), "out_proj.bias": ONCE}
    return Split(part(options, intermediate_size=channels // devices), roles)


def kv_conv_split(options: Any, dims: Dims, devices: int) -> Split | str:
    """Heads; where there are fewer key/value heads than devices, neighbours have the same one."""
    heads, kv_heads, width = options.num_heads, options.kv_heads, options.head_dim
    if fault := uneven(devices, num_heads=heads) or unshared(devices, num_kv_heads=kv_heads):
        return fault
    shared = rows(kv_heads * width, kv_heads)
    roles: dict[str, Role] = {"q_proj.weight": rows(heads * width, heads)}
    roles |= {f"{name}.weight": shared for name in ("k_proj", "v_proj", "key_conv", "value_conv")}
    if options.bias:
        roles |= {name.replace("weight", "bias"): role for name, role in roles.items()} | {"o_proj.bias": ONCE}
    roles |= norm_roles(options.qk_norm, width, q_norm=heads, k_norm=kv_heads)
    smaller = part(options, num_heads=heads // devices, num_kv_heads=max(1, kv_heads // devices))
    output: dict[str, Role] = {"o_proj.weight": columns(heads * width, heads)}
    return Split(smaller, roles | output, inside=norm_sums(options.qk_norm, devices))
