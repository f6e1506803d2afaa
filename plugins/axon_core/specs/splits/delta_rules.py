"""Parts of delta rules, by heads: gated delta networks, Kimi delta attention, and RWKV-7's time mixing.

What comes before the heads, such as token shifts and the first matrices of low-rank pairs, is whole on every device.
"""

from __future__ import annotations

from typing import Any

from axon_compose.registry import Cut, Dims, Role, Segment, Split, columns, rows
from axon_core.specs.splits._even import part, uneven, unshared

__all__ = ["channel_mix_split", "gated_delta_split", "kimi_split", "time_mix_split"]


def gated_delta_split(options: Any, dims: Dims, devices: int) -> Split | str:
    """Value heads, with the key heads that they share; where there are fewer of those, neighbours have the same one."""
    key_heads, key_dim, heads, value_dim = options.head_shapes()
    if fault := uneven(devices, **{"num_v_heads" if options.num_v_heads else "num_k_heads": heads}):
        return fault
    if fault := unshared(devices, num_k_heads=key_heads):
        return fault
    keys, values = Segment(key_heads * key_dim, key_heads), Segment(heads * value_dim, heads)
    fused = {"q_": (keys,), "k_": (keys,), "v_": (values,)} if options.separate else {"": (keys, keys, values)}
    roles: dict[str, Role] = {}
    for name, segments in fused.items():
        roles[f"{name}proj.weight" if name else "in_proj_qkv.weight"] = Cut(0, segments)
        roles[f"{name}conv1d.weight"] = Cut(0, segments)
    roles |= dict.fromkeys(("in_proj_b.weight", "in_proj_a.weight", "A_log", "dt_bias"), rows(heads))
    roles |= {"in_proj_z.weight": Cut(0, (values,)), "out_proj.weight": Cut(1, (values,))}
    return Split(part(options, num_k_heads=max(1, key_heads // devices), num_v_heads=heads // devices), roles)


def kimi_split(options: Any, dims: Dims, devices: int) -> Split | str:
    """Heads."""
    heads = options.num_heads
    if fault := uneven(devices, num_heads=heads):
        return fault
    inner = heads * options.head_dim
    wide = [f"{name}_b_proj.weight" if name in options.low_rank else f"{name}_proj.weight" for name in "fg"]
    wide += [f"{name}_proj.weight" for name in "qkv"] + [f"{name}_conv.conv.weight" for name in "qkv"]
    roles: dict[str, Role] = dict.fromkeys((*wide, "dt_bias"), rows(inner, heads))
    roles |= {"b_proj.weight": rows(heads), "A_log": Cut(2, (Segment(heads, heads),))}
    return Split(part(options, num_heads=heads // devices), roles | {"o_proj.weight": columns(inner, heads)})


def time_mix_split(options: Any, dims: Dims, devices: int) -> Split | str:
    """Heads; values that are mixed in are those of the same heads."""
    heads = options.heads(dims.hidden_size)
    if fault := uneven(devices, **{"num_heads" if options.num_heads else "hidden_size / head_dim": heads}):
        return fault
    inner, low_rank = heads * options.head_dim, "wag" if options.value_from is None else "wagv"
    wide = [f"{name}_proj.weight" for name in "rkv"] + [f"{name}_lora.lora.2.weight" for name in low_rank]
    wide += [f"{name}_lora.lora.2.bias" for name in low_rank if name != "g"]
    roles: dict[str, Role] = dict.fromkeys(wide, rows(inner, heads))
    roles |= dict.fromkeys(("k_k", "k_a", "r_k", "g_norm.weight", "g_norm.bias"), rows(heads))
    roles["o_proj.weight"] = columns(inner, heads)
    return Split(part(options, num_heads=heads // devices), roles, published=("value",))


def channel_mix_split(options: Any, dims: Dims, devices: int) -> Split | str:
    """The width between the matrices."""
    inner = options.intermediate_size
    if fault := uneven(devices, intermediate_size=inner):
        return fault
    roles: dict[str, Role] = {"key.weight": rows(inner), "value.weight": columns(inner)}
    return Split(part(options, intermediate_size=inner // devices), roles)
