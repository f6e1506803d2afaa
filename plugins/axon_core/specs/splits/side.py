"""Parts of the transformer layer beside the stack, by heads and by the width of its MLP."""

from __future__ import annotations

from typing import Any

from axon_compose.registry import Dims, Role, Split, Summed, columns, rows
from axon_core.specs.splits._even import part, uneven, unshared

__all__ = ["side_transformer_split"]


def side_transformer_split(options: Any, dims: Dims, devices: int) -> Split | str:
    """Heads and MLP: devices sum what attention gives, for a norm follows.

    The last matrix and the narrow ones of the adapters are whole: each device multiplies its part of the MLP's output
    by the last matrix, so that one sum serves both.
    """
    heads, kv_heads, inner = options.num_heads, options.kv_heads, options.intermediate_size
    fault = uneven(devices, num_heads=heads, intermediate_size=inner) or unshared(devices, num_kv_heads=kv_heads)
    if fault:
        return fault
    smaller = part(
        options,
        num_heads=heads // devices,
        num_kv_heads=max(1, kv_heads // devices),
        intermediate_size=inner // devices,
    )
    roles = {} if options.weights_from is not None else _roles(options, heads, kv_heads, inner)
    return Split(smaller, roles, published=("weights",), inside=(Summed(dims.hidden_size),))


def _roles(options: Any, heads: int, kv_heads: int, inner: int) -> dict[str, Role]:
    """Of the matrices that all uses share, and of the adapters of each."""
    queries = rows(heads * options.head_dim, heads)
    keys, wide = rows(kv_heads * options.head_dim, kv_heads), rows(inner)
    outputs: dict[str, Role] = {"q": queries, "k": keys, "v": keys, "gate": wide, "up": wide}
    roles = {f"{name}_proj.weight": role for name, role in outputs.items()}
    roles["o_proj.weight"] = columns(heads * options.head_dim, heads)
    roles["down_proj.weight"] = columns(inner)
    adapted = outputs if options.attention_adapters else ("gate", "up")
    return roles | {f"use_{use}.{name}_b.weight": outputs[name] for use in options.uses for name in adapted}
