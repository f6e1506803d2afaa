"""A plan as a tree in which equal layers are one: what is shown of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from axon_compose.plan import Layer, Use, layer_numbers
from axon_compose.registry import written
from axon_compose.surgery._making import Made
from axon_compose.surgery._plan import Step, SurgeryPlan

__all__ = ["ComponentFold", "LayerFold", "TensorFold", "folded"]


@dataclass(frozen=True, slots=True)
class TensorFold:
    """Tensors of a component that come about alike.

    Attributes:
        names: Their names in the component.
        sources: What they are made from, inside the layer of the source where they come from that.
        rule: How.
        exactness: As in `Step`.
    """

    names: tuple[str, ...]
    sources: tuple[str, ...]
    rule: str
    exactness: str


@dataclass(frozen=True, slots=True)
class ComponentFold:
    """A component: how it comes about, and its tensors where they are not all kept.

    Attributes:
        name: Its name in the layer, or its path.
        type: Its type.
        init: What the edit calls the way; `kept` where every tensor is.
        options: Options that differ from those of the source's component, `option: before → after`.
        tensors: Its tensors; none where all are kept.
    """

    name: str
    type: str
    init: str
    options: tuple[str, ...]
    tensors: tuple[TensorFold, ...]


@dataclass(frozen=True, slots=True)
class LayerFold:
    """Layers that come about alike.

    Attributes:
        title: Their numbers, or the name of a component outside of them.
        origins: The layers of the source that they come from, in words; empty if they are where they were.
        components: What they hold; of layers that are kept as they are, nothing.
    """

    title: str
    origins: str
    components: tuple[ComponentFold, ...]


def folded(plan: SurgeryPlan) -> list[LayerFold]:
    """The parts of a new model in order; layers that come about alike are one, at the place of the first."""
    model = plan.edited.plan()
    steps: dict[str, list[Step]] = {}
    for step in plan.steps:
        steps.setdefault(plan.owners[step.name], []).append(step)
    groups: dict[tuple[ComponentFold, ...], list[Layer]] = {}
    for layer in model.layers:
        if layer.owner is None:
            parts = tuple(_components(plan, layer, steps))
            differs = any(part.init != "kept" or part.options for part in parts)
            groups.setdefault(parts if differs else (), []).append(layer)
    found = [_end(plan, model.embedding, steps), *([_end(plan, model.residual, steps)] if model.residual else [])]
    for parts, layers in groups.items():
        numbers = [layer.index for layer in layers]
        found.append(LayerFold(layer_numbers(numbers), _origins(plan, numbers), parts))
    ends = [use for use in (model.final_norm, model.head) if use is not None and use.params]
    return [*found, *(_end(plan, use, steps) for use in ends)]


def _end(plan: SurgeryPlan, use: Use, steps: dict[str, list[Step]]) -> LayerFold:
    part = _component(plan, use, steps.get(use.path, []), None)
    return LayerFold(use.path, "", (part,) if part.init != "kept" or part.options else ())


def _components(plan: SurgeryPlan, layer: Layer, steps: dict[str, list[Step]]) -> Iterator[ComponentFold]:
    origin = plan.origins[layer.index]
    for use in layer.uses():
        yield _component(plan, use, steps.get(use.path, []), origin)


def _component(plan: SurgeryPlan, use: Use, steps: list[Step], origin: int | None) -> ComponentFold:
    making = plan.makings[use.path]
    kept = all(step.kind == "kept" for step in steps)
    init = "kept" if kept else making.init if isinstance(making, Made) else "kept"
    options = () if making.use.type != use.type else tuple(_differences(making.use, use))
    tensors = () if kept else tuple(_tensors(steps, len(use.path) + 1, origin))
    return ComponentFold(use.key, use.type.removeprefix("core/"), init, options, tensors)


def _tensors(steps: list[Step], cut: int, origin: int | None) -> Iterator[TensorFold]:
    """Tensors in order; those that are kept from one component, and those that begin alike, in one line."""
    own = f"layers.{origin}."
    groups: dict[tuple[str, tuple[str, ...], str, str], list[Step]] = {}
    for step in steps:
        sources = _sources(step, cut, own) if step.kind == "converted" else ()
        groups.setdefault((step.kind, sources, step.rule, step.exactness), []).append(step)
    for (_, sources, rule, exactness), members in groups.items():
        yield TensorFold(tuple(step.name[cut:] for step in members), sources, rule or "kept", exactness)


def _sources(step: Step, cut: int, own: str) -> tuple[str, ...]:
    """What a tensor is made from; the component alone where that has a tensor of the same name."""
    names = tuple(name.removeprefix(own) for name in step.sources)
    if len(names) == 1:
        component, _, name = names[0].partition(".")
        if step.name[cut:].endswith(name):
            return (component,)
    return names


def _differences(before: Use, after: Use) -> Iterator[str]:
    was, now = written(before.options), written(after.options)
    for name in dict.fromkeys((*was, *now)):
        if before.option(name) != after.option(name):
            yield f"{name}: {_word(was.get(name))} → {_word(now.get(name))}"


def _word(value: object) -> str:
    return (
        {None: "none", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)
    )


def _origins(plan: SurgeryPlan, numbers: list[int]) -> str:
    """Where layers come from, if not from those of their own numbers."""
    origins = [plan.origins[number] for number in numbers]
    if origins == numbers:
        return ""
    old = [origin for origin in origins if origin is not None]
    return f"from {layer_numbers(old)}" if old else "new"
