"""Parts of attention, by heads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from axon_compose.registry import Cut, Dims, Role, Segment, Split, columns, rows
from axon_core.specs._heads import head_shape, numbers_of_heads
from axon_core.specs.splits._even import part, uneven, unshared
from axon_core.specs.splits._norms import norm_roles, norm_sums
from axon_core.specs.splits._roles import Declared, Splitting, projected

__all__ = ["attention_split", "convolved_split"]


def attention_split(params: Declared) -> Splitting:
    r"""Query heads, with the key/value heads that they share; where there are fewer of those, neighbours have the same.

    Heads do not know of each other until the output: with its matrix cut by columns, :math:`W a = \sum_i W_i a_i` over
    the heads :math:`a_i` of each device. Queries find their keys, for device i of n has of H and K heads those from
    :math:`\lfloor iH/n \rfloor` and :math:`\lfloor iK/n \rfloor` on. Heads of an indexer, each of which chooses for
    neighbouring query heads, are cut as key/value heads are, so that a head's choice is the same; its one key for each
    token is whole, and all of it is where its heads choose together. A norm over all heads has its mean squares summed.
    What other layers read is in parts.

    Args:
        params: The layer's parameters.
    """

    def split(options: Any, dims: Dims, devices: int) -> Split | str:
        heads, kv_heads, width = head_shape(options, dims)
        own = options.kv_from is None
        shared = {"num_kv_heads": kv_heads} if own or options.num_kv_heads else {}
        if fault := uneven(devices, num_heads=heads) or unshared(devices, **shared) or _chooser(options, devices):
            return fault
        changed: dict[str, Any] = {name: max(1, count // devices) for name, count in shared.items()}
        chooses_by_heads = options.indexer is not None and options.indexer.pooling == "max"
        if chooses_by_heads:
            index_heads = max(1, options.indexer.num_heads // devices)
            changed["indexer"] = part(options.indexer, num_heads=index_heads)
        value = options.v_head_dim or width
        keys = rows(kv_heads * width, kv_heads)
        cuts = {
            "q_proj": rows(heads * width, heads),
            "k_proj": keys,
            "v_proj": rows(kv_heads * value, kv_heads),
            "g_proj": rows(heads if options.gate == "head" else heads * value, heads),
            "r_proj": rows(heads * options.relative.rank, heads) if options.relative else rows(heads),
            "o_proj": columns(heads * value, heads),
        }
        names = params(options, dims)
        roles = projected(names, cuts)
        roles |= dict.fromkeys(numbers_of_heads(options, heads), rows(heads))
        own_norms = {"k_norm": kv_heads} if own else {}
        roles |= norm_roles(options.qk_norm, width, q_norm=heads, **own_norms)
        if chooses_by_heads:
            roles |= _indexer_roles(options.indexer)
        return Split(
            part(options, num_heads=heads // devices, head_dim=width, **changed),
            roles,
            published=("kv",),
            inside=norm_sums(options.qk_norm, devices, 2 if own else 1),
        )

    return split


def convolved_split(params: Declared) -> Splitting:
    """As attention; taps belong to a key/value head, or to its channels.

    Args:
        params: The layer's parameters.
    """
    plain = attention_split(params)

    def split(options: Any, dims: Dims, devices: int) -> Split | str:
        found = plain(options, dims, devices)
        if isinstance(found, str):
            return found
        _, kv_heads, width = head_shape(options, dims)
        cut = Cut(2, (Segment(kv_heads, kv_heads),)) if options.taps == "head" else rows(kv_heads * width, kv_heads)
        return replace(found, roles={**found.roles, **dict.fromkeys(("k_conv.weight", "v_conv.weight"), cut)})

    return split


def _chooser(options: Any, devices: int) -> str | None:
    """Why the heads of an indexer cannot be where the heads are that they choose for, or None."""
    indexer = options.indexer
    if indexer is None or indexer.pooling == "mean":
        return None
    if indexer.norm is not None and indexer.norm.over == "all" and indexer.num_heads > 1:
        return "`indexer.norm` normalises all heads together, which would lie on several devices"
    return unshared(devices, **{"indexer.num_heads": indexer.num_heads})


def _indexer_roles(indexer: Any) -> dict[str, Role]:
    heads = indexer.num_heads
    roles: dict[str, Role] = {"indexer.q_proj.weight": rows(heads * indexer.head_dim, heads)}
    return roles | norm_roles(indexer.norm, indexer.head_dim, **{"indexer.q_norm": heads})
