"""A description that fails, without all that it does not need to fail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, Final

from axon_compose.architecture import load
from axon_compose.diagnostics import ArchitectureError
from axon_compose.proof.check import CheckReport, check_plan
from axon_compose.registry import Registry
from axon_compose.testing._model import Section

__all__ = ["minimal"]

Path = tuple[Any, ...]

#: Keys without which there is no description, or nothing is any smaller.
_KEPT: Final = ("version", "name", "dims", "type", "branches", "use", "parallel")


def minimal(description: Section, report: CheckReport, registry: Registry) -> Section:
    """The description without each part that it does not need to fail in one of the same truths.

    Layers, branches, components, options and what is inside of them are taken out one by one, as long as the rest still
    fails. What it takes is one check of the failed truths for each part that is tried.

    Args:
        description: What failed.
        report: In what.
        registry: The plugins.
    """
    names = [truth.name for truth in report.failed]
    model, smaller = deepcopy(description), None
    while smaller is None or smaller != model:
        smaller, number = model, 0
        while number < len(parts := list(_parts(model))):
            tried = _unused(_without(model, parts[number]))
            if _fails(tried, names, report.seed, registry):
                model = tried
            else:
                number += 1
    return model


def _fails(model: Section, names: list[str], seed: int, registry: Registry) -> bool:
    try:
        plan = load(model, registry=registry).plan()
    except ArchitectureError:
        return False
    return any(truth.name in names for truth in check_plan(plan, seed=seed, truths=names).failed)


def _parts(data: Any, path: Path = ()) -> Iterator[Path]:
    """Places of everything that can be left out, the stack first, outer parts before inner ones."""
    if isinstance(data, Mapping):
        keys: Any = sorted(data, key=lambda key: key != "stack") if not path else list(data)
    else:
        keys = range(len(data)) if isinstance(data, list) and len(data) > 1 else ()
    for key in keys:
        here = (*path, key)
        if key not in _KEPT and here not in (("stack",), ("components",), ("blocks",)):
            yield here
        if key not in ("dims", "type"):
            yield from _parts(data[key], here)


def _without(data: Any, path: Path) -> Any:
    copied = deepcopy(data)
    inner = copied
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return copied


def _unused(model: Section) -> Section:
    """The model without blocks that the stack does not name, and components that no block and no component names."""
    blocks = {name: block for name, block in model["blocks"].items() if name in model["stack"]}
    rest = [*_words(blocks), *_words(model["components"])]
    components = {name: part for name, part in model["components"].items() if name in rest}
    return {**model, "blocks": blocks, "components": components}


def _words(data: Any) -> Iterator[str]:
    """Every text in nested data, keys left out."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, Mapping | list):
        for part in data.values() if isinstance(data, Mapping) else data:
            yield from _words(part)
