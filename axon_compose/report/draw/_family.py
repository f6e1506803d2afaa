"""What kind of part a component is, derived from its record alone: no layer is known by name here."""

from __future__ import annotations

from typing import Final, Literal

from axon_compose.plan import Plan, Use, position_words
from axon_compose.registry import KV, CacheSpec, State, cache_leaves

__all__ = ["FAMILIES", "Family", "cache_words", "family", "kept_words", "present"]

Family = Literal[
    "embedding", "attention", "window", "recurrent", "mixed", "feed-forward", "experts", "block", "norm", "head"
]

#: Families in the order of a legend, and what they are called there.
FAMILIES: Final[dict[Family, str]] = {
    "embedding": "embedding",
    "attention": "attention",
    "window": "attention in a window",
    "recurrent": "recurrent state",
    "mixed": "attention and state",
    "feed-forward": "feed-forward",
    "experts": "experts",
    "block": "block, no residual",
    "norm": "norm",
    "head": "head",
}


def family(use: Use) -> Family:
    """The family of a component: by its kind, then by what it keeps, then by how much of it a token uses."""
    match use.spec.kind:
        case "embedding":
            return "embedding"
        case "head":
            return "head"
        case "residual" | "connection":
            return "block"
        case "norm":
            return "norm"
        case "block":
            return "block"
    leaves = list(cache_leaves(use.cache))
    if any(isinstance(leaf, State) for leaf in leaves):
        return "mixed" if any(isinstance(leaf, KV) for leaf in leaves) else "recurrent"
    if use.window is not None or any(leaf.window is not None for leaf in leaves if isinstance(leaf, KV)):
        return "window"
    if leaves or use.source_layers:
        return "attention"
    return "experts" if use.spec.active is not None else "feed-forward"


def cache_words(cache: CacheSpec | None) -> str:
    """What a cache holds, in a few words: `K/V 8 × 128, window 4,096`."""
    return "; ".join(_leaf_words(leaf) for leaf in cache_leaves(cache))


def kept_words(use: Use, plan: Plan) -> tuple[str, ...]:
    """The same, and what gives attention the order of tokens, such as `RoPE`, as far as there is either."""
    chunks = f"chunks of {use.chunk:,}" if use.chunk else ""
    return tuple(filter(None, (cache_words(use.cache), chunks, position_words(use, plan))))


def _leaf_words(leaf: KV | State) -> str:
    if isinstance(leaf, State):
        return "state " + ", ".join(array.name for array in leaf.arrays)
    width = f"{leaf.head_dim}" if leaf.value_dim in (None, leaf.head_dim) else f"({leaf.head_dim} + {leaf.value_dim})"
    reach = "whole context" if leaf.window is None else f"window {leaf.window:,}"
    return f"K/V {leaf.heads} × {width}, {reach}"


def present(plan: Plan) -> list[Family]:
    """The families of a model, in the order of a legend."""
    found = {family(use) for use in plan.uses()}
    return [name for name in FAMILIES if name in found]
