"""Parts of attention whose heads share what is cached: by heads; latents, shared keys and indexers are whole."""

from __future__ import annotations

from typing import Any

from axon_compose.registry import Cut, Dims, Role, Segment, Split, columns, rows
from axon_core.specs._heads import numbers_of_heads
from axon_core.specs.splits._even import part, uneven
from axon_core.specs.splits._roles import Declared, Splitting, projected

__all__ = ["compressed_split", "latent_split"]


def latent_split(params: Declared) -> Splitting:
    """Heads, whose keys and values every device makes for its own out of latents that all have.

    The latent of a token is one for all heads, so each device computes and caches all of it. An indexer makes one
    choice for all heads, out of the scores of all of its own, so it is whole too, and every device chooses the same.

    Args:
        params: The layer's parameters.
    """

    def split(options: Any, dims: Dims, devices: int) -> Split | str:
        heads, value = options.num_heads, options.value_dim
        if fault := uneven(devices, num_heads=heads):
            return fault
        queries = rows(heads * (options.qk_nope_head_dim + options.qk_rope_head_dim), heads)
        cuts = {
            "q_proj": queries,
            "q_b_proj": queries,
            "embed_q": rows(heads),
            "unembed_out": rows(heads),
            "g_proj": rows(options.gate_dim, heads),
            "o_proj": columns(heads * value, heads),
        }
        names = params(options, dims)
        roles = projected(names, cuts) | dict.fromkeys(numbers_of_heads(options, heads), rows(heads))
        return Split(part(options, num_heads=heads // devices), roles)

    return split


def compressed_split(options: Any, dims: Dims, devices: int) -> Split | str:
    """Heads, with the groups that they are projected in; the one key of all heads and compressed entries are whole.

    Where all heads are one group, its matrix is cut by inputs: no more than a product follows, so the devices' sums
    are those of the whole.
    """
    heads, groups, inner = options.num_heads, options.o_groups, options.num_heads * options.head_dim
    if fault := uneven(devices, num_heads=heads):
        return fault
    roles: dict[str, Role] = {"q_b_proj.weight": rows(inner, heads), "sinks": rows(heads)}
    if groups == 1:
        roles["o_a_proj.weight"] = Cut(2, (Segment(inner, heads),))
    elif fault := uneven(devices, o_groups=groups):
        return fault
    else:
        roles |= {"o_a_proj.weight": rows(groups), "o_b_proj.weight": columns(groups * options.o_lora_rank, groups)}
    return Split(part(options, num_heads=heads // devices, o_groups=max(1, groups // devices)), roles)
