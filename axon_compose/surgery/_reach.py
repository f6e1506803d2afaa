"""Components of which an edit has changed how far they reach, and nothing else: windows, chunks, chosen tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import mlx.core as mx
from mlx.utils import tree_flatten

from axon_compose.checkpoints.edited import Edited
from axon_compose.diagnostics import Diagnostic
from axon_compose.model import LanguageModel, module_at
from axon_compose.plan import Use
from axon_compose.registry import KV, option_names

__all__ = ["other_reach", "unreached"]

#: Up to which part of a weight two are the same: an edit may have rounded it to bfloat16.
_ROUNDING: Final = 2**-7


def other_reach(record: Edited, source: LanguageModel, edited: LanguageModel) -> dict[str, tuple[str, int]]:
    """Paths of such components, whose weights are the source's, with their names and the tokens that both reach.

    In sequences of no more tokens they compute what they did.

    Args:
        record: Where the layers come from.
        source: The model as it was.
        edited: The model as it is.
    """
    found = {}
    for layer, origin in zip(edited.plan.layers, record.origins, strict=True):
        known = {use.key: use for use in source.plan.layers[origin].uses()} if origin is not None else {}
        for use in layer.uses():
            before = known.get(use.key)
            if before is None or not _other_limits_alone(before, use):
                continue
            if _same_weights(module_at(source, before.path), module_at(edited, use.path)):
                found[use.path] = use.name, min(each for part in (before, use) for each in _limits(part))
    return found


def unreached(reach: Mapping[str, tuple[str, int]], length: int) -> tuple[Diagnostic, ...]:
    """AX957 where some of them reach over whole sequences.

    Args:
        reach: What `other_reach` gave.
        length: Tokens of a sequence that is learned from.
    """
    found = [(name, tokens) for name, tokens in reach.values() if length <= tokens]
    if not found:
        return ()
    names = ", ".join(f"`{name}`" for name in sorted({name for name, _ in found}))
    places = "one place" if len(found) == 1 else f"{len(found)} places"
    message = f"sequences of {length:,} tokens do not show how far {names} reaches, which was changed in {places}"
    hint = f"read longer ones, `--length {2 * max(tokens for _, tokens in found)}`"
    return (Diagnostic("AX957", message, help=hint, severity="warning"),)


def _other_limits_alone(before: Use, now: Use) -> bool:
    """Whether two components differ, and only in options that say how far they reach."""
    if before.type != now.type or before.params != now.params:
        return False
    other = [name for name in option_names(now.spec) if before.option(name) != now.option(name)]
    values = [(use.option(name), _limits(use)) for use in (before, now) for name in other]
    return bool(other) and all(value is None or value in limits for value, limits in values)


def _limits(use: Use) -> list[int]:
    """How many tokens a query sees or attends to at most, for each reason that there is."""
    kept = use.cache.window if isinstance(use.cache, KV) else None
    return [each for each in (use.window, kept, use.chosen, use.chunk) if each is not None]


def _same_weights(one: Any, other: Any) -> bool:
    theirs = dict(tree_flatten(one.parameters()))
    ours = dict(tree_flatten(other.parameters()))
    return theirs.keys() == ours.keys() and all(
        bool(mx.allclose(ours[name], theirs[name], rtol=_ROUNDING, atol=0)) for name in ours
    )
