"""Parts of the three published layers: of the state space by channels, of attention by heads, of experts by width.

A block adds what its parts give to its input, which every device has, so devices sum inside, and its output is whole.
"""

from __future__ import annotations

from typing import Any

from axon_compose.registry import Dims, Role, Split, Summed, columns, rows
from axon_core.specs.splits._even import part, uneven
from axon_core.specs.splits.experts import width_roles
from axon_core.specs.splits.state_spaces import selective_roles

__all__ = ["ssm_block_split", "ssm_moe_block_split", "swa_moe_block_split"]


def ssm_block_split(options: Any, dims: Dims, devices: int) -> Split | str:
    """Channels."""
    channels = options.channels(dims.hidden_size)
    if fault := uneven(devices, ssm_intermediate_dim=channels):
        return fault
    smaller = part(options, ssm_intermediate_dim=channels // devices)
    return Split(smaller, _selective(channels), "whole", inside=_selective_sums(options, dims))


def ssm_moe_block_split(options: Any, dims: Dims, devices: int) -> Split | str:
    """Channels, and the width of experts."""
    channels, inner = options.channels(dims.hidden_size), options.moe_intermediate_dim
    if fault := uneven(devices, ssm_intermediate_dim=channels, moe_intermediate_dim=inner):
        return fault
    smaller = part(options, ssm_intermediate_dim=channels // devices, moe_intermediate_dim=inner // devices)
    sums = (*_selective_sums(options, dims), Summed(dims.hidden_size))
    return Split(smaller, _selective(channels) | _experts(options), "whole", inside=sums)


def swa_moe_block_split(options: Any, dims: Dims, devices: int) -> Split | str:
    """Heads, and the width of experts."""
    heads, inner = options.num_heads, options.moe_intermediate_dim
    width = options.head_dim or dims.hidden_size // heads
    if fault := uneven(devices, num_heads=heads, moe_intermediate_dim=inner):
        return fault
    smaller = part(options, num_heads=heads // devices, head_dim=width, moe_intermediate_dim=inner // devices)
    roles: dict[str, Role] = {f"attention.{name}_proj.weight": rows(heads * width, heads) for name in "qkv"}
    roles["attention.o_proj.weight"] = columns(heads * width, heads)
    return Split(smaller, roles | _experts(options), "whole", inside=2 * (Summed(dims.hidden_size),))


def _selective(channels: int) -> dict[str, Role]:
    return {f"ssm.{name}": role for name, role in selective_roles(channels).items()}


def _selective_sums(options: Any, dims: Dims) -> tuple[Summed, ...]:
    """The step, B and C; and the output."""
    return Summed(2 * options.ssm_d_state + 1), Summed(dims.hidden_size)


def _experts(options: Any) -> dict[str, Role]:
    """Every expert by its width; routers are whole."""
    return {f"moe.{name}": role for name, role in width_roles(options.experts()).items()}
