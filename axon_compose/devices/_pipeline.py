"""What each device runs and keeps where the layers of a model are divided over several; imports no mlx."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from axon_compose.devices._stages import home, source_use, varies
from axon_compose.devices._tied import beside_embedding
from axon_compose.notebook import Shown
from axon_compose.plan import MaskGroup, Plan
from axon_compose.registry import KV, PASS_VALUES, Array, CacheSpec, Composite, State

__all__ = ["PipelinePlan", "Stage", "Visit", "pipeline_plan"]

#: What decides the class of a cache and its masks: the window of keys and values, or a state.
_Kind = tuple[str, int | None]
_COUNTED = Array("counted", (1,), "bool")


@dataclass(frozen=True)
class Visit:
    """Layers that one stage runs before the hidden state goes on. Without shared weights each stage has one visit.

    Attributes:
        stage: The stage, in the order of the layers.
        layers: Which ones.
        values: Published values that come in with the hidden state, since they are read here or later.
        constant: Those of them that are made of parameters alone: they come in once.
        varies: Whether the shape of one depends on more than the chunk.
    """

    stage: int
    layers: range
    values: tuple[str, ...] = ()
    constant: tuple[str, ...] = ()
    varies: bool = False


@dataclass(frozen=True)
class Stage:
    """What one device keeps between calls.

    Every device has a cache of each kind that the model has. Where its own layers have none, a small one counts the
    tokens: it knows the position of the first token and the padding, it makes the masks for readers of other layers'
    keys, and it can be trimmed exactly if those of all other devices can, as `mlx_lm.server` decides on each by itself.

    Attributes:
        layers: Those of its range with weights of their own; layers elsewhere that use these weights run here too.
        slots: Its caches: of its layers in order, then those that count.
        places: Layer to its slot here.
        counting: How many of the slots only count.
        masks: Those of the plan, with the slots that make them here.
        offset: Slot of the cache that knows the position.
    """

    layers: range
    slots: tuple[CacheSpec, ...]
    places: Mapping[int, int]
    counting: int
    masks: tuple[MaskGroup, ...]
    offset: tuple[int, ...] | None


@dataclass(frozen=True)
class PipelinePlan(Shown):
    """A model whose layers are divided over devices.

    Attributes:
        plan: The whole model.
        stages: In the order of the layers.
        visits: In the order of computation.
        head: The stage that makes the logits. The embedding is on the first one alone, so that is the first one where
            the head reads the embedding's table, and the one that has the last layers otherwise.
    """

    plan: Plan
    stages: tuple[Stage, ...]
    visits: tuple[Visit, ...]
    head: int

    def __repr__(self) -> str:
        numbers = ", ".join(str(len(stage.layers)) for stage in self.stages)
        return f"<PipelinePlan {self.plan.name}: {numbers} layers>"


def pipeline_plan(plan: Plan, ranges: Sequence[range]) -> PipelinePlan:
    """What each stage runs, receives and keeps.

    Args:
        plan: The whole model.
        ranges: Layers of each stage, as `stages` gives them.
    """
    visits = tuple(_visits(plan, ranges))
    found = tuple(_stage(plan, number, ranges, visits) for number in range(len(ranges)))
    return PipelinePlan(plan, found, visits, visits[0 if beside_embedding(plan) else -1].stage)


def _visits(plan: Plan, ranges: Sequence[range]) -> Iterator[Visit]:
    of_layer = {index: number for number, layers in enumerate(ranges) for index in layers}
    for stage, run in groupby(plan.layers, key=lambda layer: of_layer[home(layer)]):
        indices = [layer.index for layer in run]
        first = indices[0]
        values = tuple(dict.fromkeys(_crossing(plan, first))) if first else ()
        constant = tuple(value for value in values if _is_constant(plan, value))
        yield Visit(
            stage, range(first, indices[-1] + 1), values, constant, any(varies(plan, value) for value in values)
        )


def _crossing(plan: Plan, first: int) -> Iterator[str]:
    """Values that are published before a layer and read by it or a later one."""
    for layer in plan.layers[first:]:
        for source in layer.reads:
            place = source.partition(".")[0]
            if source not in PASS_VALUES and (not place.isdigit() or int(place) < first):
                yield source


def _is_constant(plan: Plan, source: str) -> bool:
    return source.rpartition(".")[2] in source_use(plan, source).spec.constant


def _stage(plan: Plan, number: int, ranges: Sequence[range], visits: Sequence[Visit]) -> Stage:
    run = [index for visit in visits if visit.stage == number for index in visit.layers]
    cached = [layer for layer in map(plan.layers.__getitem__, run) if layer.slot is not None]
    slots = [plan.slots[layer.slot] for layer in cached if layer.slot is not None]
    own = {kind for slot in slots for kind, _ in _leaves(slot)}
    wanted = dict.fromkeys(kind for slot in plan.slots for kind, _ in _leaves(slot))
    counting = [_counter(kind) for kind in wanted if kind not in own]
    slots += counting
    at: dict[_Kind, tuple[int, ...]] = {}
    for place, slot in enumerate(slots):
        for kind, inner in _leaves(slot):
            at.setdefault(kind, (place, *inner))
    masks = tuple(replace(group, slot=at[group.kind, group.kept]) for group in plan.masks)
    keys = (place for (kind, _), place in at.items() if kind == "kv")
    places = {layer.index: place for place, layer in enumerate(cached)}
    return Stage(
        ranges[number], tuple(slots), places, len(counting), masks, None if plan.offset is None else next(keys)
    )


def _leaves(cache: CacheSpec) -> Iterator[tuple[_Kind, tuple[int, ...]]]:
    """The kinds of what a slot holds, and where in it they are."""
    if isinstance(cache, Composite):
        for index, child in enumerate(cache.children):
            for kind, inner in _leaves(child):
                yield kind, (index, *inner)
    else:
        yield ("kv", cache.window) if isinstance(cache, KV) else ("state", None), ()


def _counter(kind: _Kind) -> CacheSpec:
    return KV(1, 1, 0, kind[1]) if kind[0] == "kv" else State((_COUNTED,))
