"""Options with which a component stands in a model, made up until some do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from axon_compose.registry import PASS_VALUES, ComponentSpec, Registry, check_options
from axon_compose.testing._choices import Choices
from axon_compose.testing._model import Section, component_model, planned
from axon_compose.testing._options import draw_options

__all__ = ["drawn_part", "drawn_reader", "reads_embedding"]

#: How often options are made up before it is given up that any fit.
_ATTEMPTS: Final = 60


def drawn_part(
    type_name: str,
    choices: Choices,
    dims: Mapping[str, Any],
    registry: Registry,
    *,
    base: Mapping[str, Any] | None = None,
    sources: Mapping[str, Section] | None = None,
    fixed: Mapping[str, Any] | None = None,
) -> dict[str, Any] | None:
    """Options of one component that its record takes and with which it stands in a model.

    Args:
        type_name: The type as a file writes it.
        choices: Makes every choice.
        dims: Sizes of the model.
        registry: The plugins.
        base: Options to start from instead of an example.
        sources: Components that stand before it.
        fixed: Options that are not made up, such as the component that is read from.

    Returns:
        The options, or None if none of many drawn ones fit.
    """
    spec = registry.component(type_name)
    for _ in range(_ATTEMPTS):
        options = draw_options(spec, choices, base=base) | dict(fixed or {})
        if check_options(spec, options)[1]:
            continue
        if spec.kind == "position" or planned(component_model(type_name, spec.kind, options, dims, sources), registry):
            return options
    return None


def drawn_reader(
    type_name: str, embedding: str, choices: Choices, dims: Mapping[str, Any], registry: Registry
) -> tuple[Section, Section] | None:
    """A component that reads from the embedding, and an embedding that it can read from.

    Args:
        type_name: The component's type.
        embedding: The embedding's type.
        choices: Makes every choice.
        dims: Sizes of the model.
        registry: The plugins.

    Returns:
        Both sections, or None if none of many drawn ones fit each other.
    """
    spec, table = registry.component(type_name), registry.component(embedding)
    for _ in range(5 * _ATTEMPTS):  # both have to be valid, and fit each other
        options = draw_options(spec, choices)
        if check_options(spec, options)[1]:
            continue
        section = {"type": embedding, **draw_options(table, choices, known=options)}
        around = component_model(type_name, spec.kind, options, dims)
        if planned(around | {"embedding": section}, registry):
            return {"type": type_name, **options}, _read(section, table, around, registry)
    return None


def _read(section: Section, table: ComponentSpec, around: Mapping[str, Any], registry: Registry) -> Section:
    """An embedding without options that no example has, where the model can be without: they may publish for nobody."""
    usual = {"type"}.union(*table.examples)
    for name in [name for name in section if name not in usual]:
        less = {other: value for other, value in section.items() if other != name}
        section = less if planned({**around, "embedding": less}, registry) else section
    return section


def reads_embedding(spec: ComponentSpec) -> bool:
    """Whether a component reads what an embedding publishes."""
    return any(option is None and value not in PASS_VALUES for value, option in spec.reads.items())
