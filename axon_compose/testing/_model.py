"""The small models that components are tried in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from axon_compose.architecture import load
from axon_compose.diagnostics import ArchitectureError
from axon_compose.plan import Plan
from axon_compose.registry import Dims, Registry

__all__ = ["DIMS", "Section", "component_model", "model_plan", "planned"]

Section = dict[str, Any]

#: The default sizes that components are tried with.
DIMS: Final = Dims({"hidden_size": 64, "vocab_size": 97})
#: Parameters of a model that is checked in seconds.
_LARGEST: Final = 2_000_000


def component_model(
    type_name: str,
    kind: str,
    options: Mapping[str, Any],
    dims: Mapping[str, Any] = DIMS,
    sources: Mapping[str, Mapping[str, Any]] | None = None,
) -> Section:
    """The description of a small model around one component.

    Args:
        type_name: `namespace/name`.
        kind: Its kind; `position` components stand in no model by themselves.
        options: As a file writes them.
        dims: Its sizes.
        sources: Components in layers before it.

    Raises:
        ValueError: For a kind that is part of other components.
    """
    section = {"type": type_name, **options}
    description: Section = {"version": 1, "name": "under-test", "dims": dict(dims)}
    components = {name: dict(source) for name, source in (sources or {}).items()}
    blocks = {name: [name] for name in components}
    if kind in ("layer", "block"):
        part = "part" if "part" not in components else "part_under_test"
        components[part], blocks[part] = section, [part]
        return description | {"components": components, "blocks": blocks, "stack": [*components, part]}
    if kind not in ("norm", "embedding", "residual", "head"):
        raise ValueError(f"a component of kind {kind} stands in no model by itself")
    around = {
        "components": {
            "attention": {"type": "attention", "num_heads": 2, "head_dim": 16},
            "mlp": {"type": "mlp", "intermediate_size": 48},
        },
        "blocks": {"around": ["attention", "mlp"]},
        "stack": ["around", "around"],
    }
    return description | around | {kind: section}


def model_plan(
    name: str,
    kind: str,
    options: Mapping[str, Any],
    dims: Mapping[str, Any],
    registry: Registry,
    sources: Mapping[str, Mapping[str, Any]] | None = None,
    around: Mapping[str, Any] | None = None,
) -> Plan:
    """The plan of the small model around one component.

    Args:
        name: The component's type.
        kind: Its kind.
        options: As a file writes them.
        dims: Sizes of the model.
        registry: The plugins.
        sources: Components in layers before it.
        around: Further sections of the model, such as its embedding.

    Raises:
        AssertionError: If it is refused, with the reasons.
    """
    try:
        model = component_model(name, kind, options, dims, sources)
        return load({**model, **(around or {})}, registry=registry).plan()
    except ArchitectureError as error:
        raise AssertionError(f"`{name}` cannot be planned with {dict(options)}:\n{error}") from error


def planned(description: Mapping[str, Any], registry: Registry) -> Plan | None:
    """The plan of a description, or None if it is refused, too large to be tried, or has a window of one token.

    A token that sees only itself has nothing to choose from: its queries and keys are without effect.
    """
    try:
        plan = load(description, registry=registry).plan()
    except ArchitectureError:
        return None
    narrow = any(size == 1 for group in plan.masks for size in (group.window, group.kept))
    return None if narrow or sum(use.size for use in plan.uses()) > _LARGEST else plan
