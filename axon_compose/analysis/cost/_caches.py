"""Bytes of caches by how they grow, and what a decoded token reads and writes of them."""

from __future__ import annotations

from collections.abc import Iterator

from axon_compose.plan import Layer, Plan, Use
from axon_compose.registry import KV, State, cache_leaves

__all__ = ["cache_parts", "cache_traffic", "layer_traffic"]


def cache_parts(plan: Plan, tokens: int, dtype: str) -> tuple[int, int, int]:
    """Bytes for one sequence: keys and values of all tokens, those within windows, and states of constant size."""
    growing = window = state = 0
    for slot in plan.slots:
        for leaf in cache_leaves(slot):
            size = leaf.nbytes(tokens, dtype)
            if isinstance(leaf, State):
                state += size
            elif leaf.window is None:
                growing += size
            else:
                window += size
    return growing, window, state


def cache_traffic(plan: Plan, tokens: int, dtype: str) -> int:
    """Bytes that the last of `tokens` tokens of one sequence moves.

    Keys and values are read whole and those of one token are written, states are read and written. Where a layer
    chooses what it attends to, of its keys with values only the chosen ones are read. A layer that attends to another
    one's keys and values reads them once more.
    """
    return sum(layer_traffic(plan, layer, tokens, dtype) for layer in plan.layers)


def layer_traffic(plan: Plan, layer: Layer, tokens: int, dtype: str) -> int:
    """What one layer has of `cache_traffic`."""
    moved = 0
    for use in layer.uses():
        for leaf in cache_leaves(use.cache):
            if isinstance(leaf, State):
                moved += 2 * leaf.nbytes(tokens, dtype)
            else:
                read = tokens if use.chosen is None or leaf.value_dim == 0 else min(tokens, use.chosen)
                moved += leaf.nbytes(read, dtype) + leaf.nbytes(1, dtype)
        if use.cache is None and use.masks:
            moved += sum(_seen(use, leaf, tokens, dtype) for leaf in _sources(plan, use))
    return moved


def _sources(plan: Plan, use: Use) -> Iterator[KV]:
    """Keys and values of other layers that a component without a cache attends to."""
    for index in use.source_layers:
        keys = {source.split(".")[1] for source in use.reads.values() if source.startswith(f"{index}.")}
        for other in plan.layers[index].uses():
            if other.key in keys:
                yield from (leaf for leaf in cache_leaves(other.cache) if isinstance(leaf, KV))


def _seen(use: Use, leaf: KV, tokens: int, dtype: str) -> int:
    return leaf.nbytes(tokens if use.window is None else min(tokens, use.window), dtype)
