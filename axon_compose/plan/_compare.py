"""Whether two plans are the same model: places, options and wiring of all parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from axon_compose.plan._plan import Layer, Plan, Use

__all__ = ["differences"]


def differences(ours: Plan, other: Plan) -> list[str]:
    """What differs between two models, a line for each fault; names of components and of the file do not count."""
    first, second = _parts(ours), _parts(other)
    lines = [f"`{path}` is not there" for path in first if path not in second]
    lines += [f"`{path}` is there too" for path in second if path not in first]
    for path in (path for path in first if path in second):
        lines += [f"`{path}`: {what}" for what in _differing(first[path], second[path])]
    for mine, theirs in zip(ours.layers, other.layers, strict=False):
        if _wiring(mine) != _wiring(theirs):
            lines.append(f"layer {mine.index} is put together in another way")
    if not lines and (ours.slots, ours.masks, ours.offset) != (other.slots, other.masks, other.offset):
        lines.append("its caches are others")
    return lines


def _parts(plan: Plan) -> dict[str, Use]:
    outside = [plan.embedding, *(use for layer in plan.layers for use in layer.uses()), plan.final_norm, plan.head]
    return {use.path: use for use in outside if use}


def _differing(ours: Use, other: Use) -> Iterator[str]:
    if ours.type != other.type:
        yield f"`{other.type}` instead of `{ours.type}`"
        return
    mine, theirs = _options(ours.options), _options(other.options)
    for name in dict.fromkeys([*mine, *theirs]):
        if mine.get(name) != theirs.get(name):
            yield f"`{name}` is {_short(theirs.get(name))} instead of {_short(mine.get(name))}"
    if mine == theirs:
        wired = [(u.params, u.slot, u.masks, dict(u.reads), u.writes) for u in (ours, other)]
        if wired[0] != wired[1]:
            yield "it is connected in another way"


def _options(options: Any) -> Mapping[str, Any]:
    if isinstance(options, Mapping):
        return options
    return options.model_dump() if hasattr(options, "model_dump") else {"options": options}


def _wiring(layer: Layer) -> list[Any]:
    branches = layer.branches
    return [layer.owner, [(b.scale, b.residual, b.add, [(m.scale, m.keep) for m in b.members]) for b in branches]]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
