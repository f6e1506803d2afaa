"""The third stage: a document and a registry to a plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from axon_compose.diagnostics import Flood, Label, Problems, Span
from axon_compose.language.document import Component, Document
from axon_compose.plan._connections import Connections
from axon_compose.plan._layers import LayerPlanner
from axon_compose.plan._parts import IN_LAYERS, Broken, Part, Parts
from axon_compose.plan._plan import Layer, Plan, Use
from axon_compose.plan._stack import StackLayer, expand_stack
from axon_compose.plan._wiring import wire
from axon_compose.registry import Dims, Registry

__all__ = ["resolve_plan"]

#: Word for a file that wants no final norm.
NO_NORM = "none"


def resolve_plan(document: Document, registry: Registry, problems: Problems) -> Plan | None:
    """Write a model out, layer by layer.

    Args:
        document: A validated file.
        registry: The installed plugins.
        problems: Collects faults; everything that can be checked is checked, also after a fault.

    Returns:
        The plan, or None if an error was reported.
    """
    try:
        return _resolve(document, registry, problems)
    except Flood:
        return None


def _resolve(document: Document, registry: Registry, problems: Problems) -> Plan | None:
    if not {"hidden_size", "vocab_size"} <= document.dims.keys():
        _check_types_only(document, registry, problems)
        return None
    ends = _Ends(document, registry, problems)
    parts = ends.parts
    stack = expand_stack(document, problems)
    connections = Connections(parts, ends.scheme)
    layers = _layers(stack, parts, connections) if stack and ends.schemed else None
    parts.check_all(without=connections.only_wide())
    parts.check_norms(without=connections.only_wide())
    if layers is None or problems.failed or not ends.complete:
        return None
    parts.overrides.check(len(layers))

    def place(component: str, option: str) -> Span:
        return document.place("components", component, option)

    assert ends.embedding is not None
    assert ends.head is not None
    wiring = wire(layers, ends.embedding, parts.dims, place, problems)
    if problems.failed:
        return None
    plan = Plan(
        name=document.envelope.name,
        dims=parts.dims,
        embedding=wiring.embedding,
        layers=tuple(wiring.layers),
        final_norm=ends.final_norm,
        head=ends.head,
        slots=tuple(wiring.slots),
        masks=tuple(wiring.masks),
        offset=wiring.offset,
        plugins={},
        residual=ends.residual,
    )
    return _with_plugins(plan, registry)


def _check_types_only(document: Document, registry: Registry, problems: Problems) -> None:
    """Without sizes no shape is known, but types can be looked up."""
    parts = Parts(document, registry, problems, Dims(document.dims))
    for name, component in document.envelope.components.items():
        parts.spec(component, ("components", name), IN_LAYERS)


class _Ends:
    """What stands before and after the stack."""

    def __init__(self, document: Document, registry: Registry, problems: Problems) -> None:
        envelope = document.envelope
        plain = Dims(document.dims)
        early = Parts(document, registry, problems, plain)
        part = self._part(early, "embedding", envelope.embedding)
        table = _table(part.options if part else None, plain)
        self.parts = Parts(document, registry, problems, Dims({**document.dims, **table}))
        self.parts.overrides = early.overrides
        self.embedding: Use | None = part.at("embedding") if part else None
        self.final_norm: Use | None = None
        norm = self._part(self.parts, "norm", envelope.norm)
        wanted = envelope.final_norm
        if wanted.type != NO_NORM:
            if wanted.type or wanted.options:
                base = Component() if wanted.type else envelope.norm
                component = Component(type=wanted.type or base.type, **{**base.options, **wanted.options})
                norm = self._part(self.parts, "norm", component, ("final_norm",))
            self.final_norm = norm.at("norm") if norm else None
        self.scheme: Part | None = None
        self.residual: Use | None = None
        if envelope.residual:
            self.scheme = self._part(self.parts, "residual", envelope.residual)
            self.residual = self.scheme.at("residual") if self.scheme else None
        head = self._part(self.parts, "head", envelope.head)
        self.head: Use | None = head.at("head") if head else None
        normed = norm is not None or wanted.type == NO_NORM
        #: Whether it is known how branches are joined.
        self.schemed = self.scheme is not None or envelope.residual is None
        self.complete = part is not None and head is not None and normed and self.schemed

    @staticmethod
    def _part(parts: Parts, kind: str, component: Component, path: tuple[str, ...] | None = None) -> Part | None:
        path = path or (kind,)
        if path in parts.document.broken:
            return None
        try:
            return parts.resolve(kind, component, path, (kind,))  # type: ignore[arg-type]
        except Broken:
            return None


def _table(embedding: Any, dims: Dims) -> dict[str, int]:
    """Sizes of the embedding's table, for a head that is tied to it: its width, and its rows if they are padded.

    Args:
        embedding: Options of the embedding, or None.
        dims: Sizes of the model, which may have a size of one of these names.
    """
    width, rows = (getattr(embedding, name, None) for name in ("size", "padded_vocab_size"))
    sizes = {"embedding_size": width or dims.hidden_size, "embedding_rows": rows or dims.get("vocab_size")}
    return sizes if rows or "embedding_rows" in dims else {"embedding_size": sizes["embedding_size"]}


def _layers(stack: list[StackLayer], parts: Parts, connections: Connections) -> list[Layer] | None:
    layers: list[Layer] = []
    owners: dict[str, Layer] = {}
    failed = False
    for index, written in enumerate(stack):
        owner = owners.get(written.share) if written.share else None
        try:
            layer = LayerPlanner(parts, connections, index, owner.index if owner else None).plan(written)
        except Broken:
            failed = True
            continue
        if written.share and owner is None:
            owners[written.share] = layer
        elif owner is not None and not _same_weights(owner, layer):
            _report_unlike(owner, layer, written, parts)
            failed = True
        layers.append(layer)
    return None if failed else layers


def _same_weights(owner: Layer, layer: Layer) -> bool:
    first, second = ([(use.path, use.type, use.params) for use in each.uses()] for each in (owner, layer))
    return first == second


def _report_unlike(owner: Layer, layer: Layer, written: StackLayer, parts: Parts) -> None:
    document = parts.document
    parts.problems.error(
        "AX148",
        f"layer {layer.index} cannot share `{written.share}` with layer {owner.index}: they are built differently",
        document.place("blocks", layer.block, "share"),
        labels=[Label(document.place("blocks", owner.block, key=True), "first used with this block")]
        if owner.block != layer.block
        else [],
        help="options that change shapes must be the same wherever weights are shared",
    )


def _with_plugins(plan: Plan, registry: Registry) -> Plan:
    everywhere = [*plan.uses(), *(use for layer in plan.layers for use in layer.uses())]
    namespaces = sorted({use.type.partition("/")[0] for use in everywhere})
    return replace(plan, plugins={name: registry.distribution(name) for name in namespaces})
