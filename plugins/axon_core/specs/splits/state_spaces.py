"""Parts of state spaces: of Mamba by channels, of Mamba-2, Mamba-3 and PLaMo 2 by heads.

Steps, B and C of Mamba and of PLaMo 2 are projected from all channels, so devices sum what each projects from its own.
In Mamba-2 and 3 they are projected from the input: B and C go with their groups of heads, and where there are fewer
groups than devices, neighbours have the same one. So does the norm, unless its groups lie on several devices, which
then sum squares.
"""

from __future__ import annotations

from math import gcd
from typing import Any

from axon_compose.registry import ONCE, Cut, Dims, Role, Segment, Split, Summed, columns, rows
from axon_core.specs.splits._even import part, uneven, unshared

__all__ = ["mamba2_split", "mamba3_split", "mamba_split", "multihead_mamba_split", "selective_roles", "spread_sums"]


def selective_roles(channels: int, *, bias: bool = False, conv_bias: bool = True) -> dict[str, Role]:
    """Of the parameters of `axon_core.ssm.AxonSSM`, by channels."""
    each = Segment(channels, channels)
    fused = Cut(0, (each, each))
    roles: dict[str, Role] = {
        "in_proj.weight": fused,
        "conv1d.weight": rows(channels),
        "x_proj.weight": columns(channels),
        "dt_proj.weight": rows(channels),
        "dt_proj.bias": rows(channels),
        "out_proj.weight": columns(channels),
        "A_log": rows(channels),
        "D": rows(channels),
    }
    if conv_bias:
        roles["conv1d.bias"] = rows(channels)
    return roles | {"in_proj.bias": fused, "out_proj.bias": ONCE} if bias else roles


def mamba_split(options: Any, dims: Dims, devices: int) -> Split | str:
    """Channels; norms of steps, B and C are whole, for so are those after their sum."""
    channels = options.channels(dims.hidden_size)
    name = "intermediate_size" if options.intermediate_size else "expand * hidden_size"
    if fault := uneven(devices, **{name: channels}):
        return fault
    summed = options.shapes(dims.hidden_size)["x_proj.weight"][0]
    return Split(
        part(options, "expand", intermediate_size=channels // devices),
        selective_roles(channels, bias=options.bias, conv_bias=options.conv_bias),
        inside=(Summed(summed),),
    )


def mamba2_split(options: Any, dims: Dims, devices: int) -> Split | str:
    """Heads, with their groups."""
    heads, groups = options.heads(dims.hidden_size), options.n_groups
    inner, states = heads * options.head_dim, groups * options.d_state
    if fault := uneven(devices, num_heads=heads) or unshared(devices, n_groups=groups):
        return fault
    if options.norm and inner // devices % options.norm_groups:
        return f"`norm_groups` ({options.norm_groups}) does not divide the channels of a device ({inner // devices})"
    channels, shared, steps = Segment(inner, heads), Segment(states, groups), Segment(heads, heads)
    projected = Cut(0, (channels, channels, shared, shared, steps))
    convolved = Cut(0, (channels, shared, shared))
    roles: dict[str, Role] = {
        "in_proj.weight": projected,
        "conv1d.weight": convolved,
        **dict.fromkeys(("A_log", "dt_bias", "D"), rows(heads)),
        "out_proj.weight": columns(inner, heads),
    }
    if options.conv_bias:
        roles["conv1d.bias"] = convolved
    if options.bias:
        roles["in_proj.bias"] = projected
    if options.output_bias:
        roles["out_proj.bias"] = ONCE
    if options.norm:
        roles["norm.weight"] = rows(inner, heads)
    smaller = part(options, "expand", num_heads=heads // devices, n_groups=max(1, groups // devices))
    return Split(smaller, roles, inside=spread_sums(inner, options.norm_groups, devices) if options.norm else ())


def mamba3_split(options: Any, dims: Dims, devices: int) -> Split | str:
    """Heads, with their groups; angles are those of all heads."""
    heads, groups = options.heads(dims.hidden_size), options.n_groups
    if fault := uneven(devices, num_heads=heads) or unshared(devices, n_groups=groups):
        return fault
    inner, states = heads * options.head_dim, groups * options.d_state
    channels, each = Segment(inner, heads), Segment(heads, heads)
    shared = options.rank * (Segment(states, groups),)
    projected = (channels, channels, *shared, *shared, each, each, each, Segment(options.pairs, None))
    names = ["dt_bias", "B_bias", "C_bias", "D"]
    if options.mimo_rank:
        names += ["mimo_x", "mimo_z", "mimo_o"]
    roles: dict[str, Role] = dict.fromkeys(names, rows(heads))
    roles |= {"in_proj.weight": Cut(0, projected), "out_proj.weight": columns(inner, heads)}
    if options.norm:
        roles["norm.weight"] = rows(inner, heads)
    return Split(part(options, "expand", num_heads=heads // devices, n_groups=max(1, groups // devices)), roles)


def multihead_mamba_split(options: Any, dims: Dims, devices: int) -> Split | str:
    """Heads."""
    heads, inner = options.num_heads, options.channels
    if fault := uneven(devices, num_heads=heads):
        return fault
    return Split(
        part(options, num_heads=heads // devices),
        {
            "in_proj.weight": rows(2 * inner, heads),
            "conv1d.weight": rows(inner, heads),
            "bcdt_proj.weight": columns(inner, heads),
            **dict.fromkeys(("dt_proj.weight", "A_log", "dt_bias", "D"), rows(heads)),
            "out_proj.weight": columns(inner, heads),
        },
        inside=(Summed(2 * options.d_state + options.rank(dims.hidden_size)),),
    )


def spread_sums(channels: int, groups: int, devices: int) -> tuple[Summed, ...]:
    """What `axon_core.sharded.spread_group_norm` sums: squares of blocks, unless each group lies on one device."""
    if groups % devices == 0:
        return ()
    return (Summed(channels // gcd(channels // devices, channels // groups), "float32"),)
