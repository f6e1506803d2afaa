"""A plan for the terminal: the stack as a table, totals, caches and what they allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from axon_compose.machine.units import count, human
from axon_compose.plan import (
    Branch,
    Layer,
    Plan,
    Use,
    active_parameters,
    cache_nbytes,
    capabilities,
    layer_numbers,
    layer_ranges,
    plan_to_dict,
    position_words,
    total_parameters,
    weight_nbytes,
)
from axon_compose.registry import KV, CacheSpec, Composite, State
from axon_compose.report._style import Style
from axon_compose.report._table import table

__all__ = ["describe_cache", "show_data", "show_text"]

#: Contexts for which cache sizes are shown.
CONTEXTS = (4096, 65536)


def show_text(plan: Plan, style: Style, stack: Sequence[str] | None = None, more: Sequence[list[str]] = ()) -> str:
    """The plan as text: totals, the stack, and what follows from it.

    Args:
        plan: The model.
        style: Whether there are colours.
        stack: Lines that draw the stack; unless given, a table in which layers that are alike stand in one row.
        more: Rows below the totals, of a word and its text each.
    """
    rows, aligned = totals(plan)
    lines = stack or _table(plan, style)
    last = table([*rows, *more], aligned, style=style, heads=0)
    return "\n".join([style.bold(head(plan)), "", *lines, "", *last]) + "\n"


def head(plan: Plan) -> str:
    """How large it is."""
    total, active = total_parameters(plan), active_parameters(plan)
    text = f"{plan.name}: {len(plan.layers)} layers, {total:,} parameters ({count(total)})"
    return text if active == total else f"{text}, {count(active)} active per token"


def _table(plan: Plan, style: Style) -> list[str]:
    return table(*layers(plan), style=style)


def layers(plan: Plan) -> tuple[list[list[str]], str]:
    """The stack as rows, layers that are alike in one, and how columns are aligned."""
    return [["layers", "block", "components", "parameters", "cache"], *_rows(plan)], "<<<><"


def _rows(plan: Plan) -> Iterator[list[str]]:
    yield ["", "embedding", _type(plan.embedding), f"{plan.embedding.size:,}", "-"]
    if plan.residual:
        yield ["", "residual", _type(plan.residual), f"{plan.residual.size:,}", "-"]
    for _, group in groupby(plan.layers, key=lambda layer: _likeness(layer, plan)):
        layers = list(group)
        first = layers[0]
        number = layer_ranges(layer.index for layer in layers)
        sizes = {layer.size for layer in layers}
        each = " each" if len(layers) > 1 else ""
        size = f"{first.size:,}{each}" if len(sizes) == 1 else f"{sum(layer.size for layer in layers):,} together"
        yield [number, first.block, _components(first), size, _kept(first, plan)]
    if plan.final_norm:
        yield ["", "norm", _type(plan.final_norm), f"{plan.final_norm.size:,}", "-"]
    yield ["", "head", _type(plan.head), f"{plan.head.size:,}" if plan.head.size else "tied", "-"]


def _likeness(layer: Layer, plan: Plan) -> tuple[Any, ...]:
    return layer.block, _components(layer), layer.size, layer.cache, _kept(layer, plan), layer.owner


def _kept(layer: Layer, plan: Plan) -> str:
    """Its cache, and what gives its attention the order of tokens: `KVCache, RoPE`."""
    words = dict.fromkeys(position_words(use, plan) for use in layer.uses())
    found = [describe_cache(layer.cache) if layer.cache is not None else "", *words]
    return ", ".join(filter(None, found)) or "-"


def _type(use: Use) -> str:
    return use.type.removeprefix("core/")


def _components(layer: Layer) -> str:
    text = " → ".join(_branch(branch) for branch in layer.branches)
    return text if layer.owner is None else f"{text} (weights of layer {layer.owner})"


def _branch(branch: Branch) -> str:
    if branch.add:
        return f"+{branch.add}"
    names = [
        member.use.name + _reading(member.use) + (f" as {member.keep}" if member.keep else "")
        for member in branch.members
    ]
    return names[0] if len(names) == 1 else f"({' ∥ '.join(names)})"


def _reading(use: Use) -> str:
    """From which layers values come, or from the embedding, for components that read them."""
    sources = [layer_numbers(use.source_layers)] if use.source_layers else []
    if any(source.startswith("embedding.") for source in use.reads.values()):
        sources.append("embedding")
    return f" ← {', '.join(sources)}" if sources else ""


def describe_cache(cache: CacheSpec | None) -> str:
    """A cache in a few words, named after mlx-lm's class."""
    match cache:
        case KV(window=None):
            return "KVCache"
        case KV(window=window):
            return f"RotatingKVCache {window:,}"
        case State():
            return "ArraysCache " + ", ".join(array.name for array in cache.arrays)
        case Composite():
            return "CacheList(" + "; ".join(describe_cache(child) for child in cache.children) + ")"
    return "-"


def totals(plan: Plan) -> tuple[list[list[str]], str]:
    """Sizes, and what the caches allow, as rows; and how columns are aligned."""
    able = capabilities(plan)
    caches = ", ".join(f"{human(cache_nbytes(plan, tokens))} at {tokens:,} tokens" for tokens in CONTEXTS)
    rows = [
        [
            "weights",
            f"{human(weight_nbytes(plan, 'bfloat16'))} in bfloat16, {human(weight_nbytes(plan, 'float32'))} in float32",
        ],
        ["caches", f"{len(plan.slots)} slots, {caches} (bfloat16)" if plan.slots else "none"],
        ["masks", f"{len(plan.masks)} made per forward pass" if plan.masks else "none"],
        ["batches", "of unequal length" if able.batchable else "no"],
        ["cache trimming", able.trimmable],
        ["speculative decoding", "yes" if able.speculative else "no"],
        ["KV quantisation", able.quantizable],
        ["plugins", ", ".join(f"{name} ({version})" for name, version in plan.plugins.items())],
    ]
    return rows, "<<"


def show_data(plan: Plan) -> dict[str, Any]:
    """The same as JSON-ready data: the whole plan with totals and capabilities."""
    able = capabilities(plan)
    return {
        **plan_to_dict(plan),
        "weight_bytes": {dtype: weight_nbytes(plan, dtype) for dtype in ("float32", "bfloat16")},
        "cache_bytes": {str(tokens): cache_nbytes(plan, tokens) for tokens in CONTEXTS},
        "capabilities": {name: getattr(able, name) for name in able.__dataclass_fields__},
    }
