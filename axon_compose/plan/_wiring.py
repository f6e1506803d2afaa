"""Caches, masks and shared values: which slot a layer has, which mask it gets, from where it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Literal

from axon_compose.diagnostics import Problems, Span
from axon_compose.plan._change import change_layer, layer_cache
from axon_compose.plan._declared import refusal
from axon_compose.plan._plan import Layer, MaskGroup, Use
from axon_compose.record import record
from axon_compose.registry import KV, PASS_VALUES, CacheSpec, Composite, Dims, Raised, State

__all__ = ["Wiring", "wire"]

#: Where a component of the file is described, for faults.
Place = Callable[[str, str], Span]


#: The value that caches count, and the place of those that the embedding publishes.
POSITION: Final = "offset"
EMBEDDING: Final = "embedding"


@dataclass
class Wiring:
    """The wiring of a stack: its layers, connected, with their caches and masks."""

    embedding: Use
    layers: list[Layer] = field(default_factory=list)
    slots: list[CacheSpec] = field(default_factory=list)
    masks: list[MaskGroup] = field(default_factory=list)
    offset: tuple[int, ...] | None = None


@record
class _Source:
    """A use that could publish, with what its readers need to know; `own` are values that it does not read itself."""

    layer: int
    use: Use
    own: tuple[str, ...]


def wire(layers: list[Layer], embedding: Use, dims: Dims, place: Place, problems: Problems) -> Wiring:
    """Give every layer its slot, its masks and its readings (design rules 1 to 3 and 5).

    Args:
        layers: Layers without slots and masks.
        embedding: What stands before them; it may publish values too.
        dims: Resolved dims.
        place: `(component, option)` to where it is in the file.
        problems: Collects faults.
    """
    return _Wirer(embedding, dims, place, problems).run(layers)


class _Wirer:
    def __init__(self, embedding: Use, dims: Dims, place: Place, problems: Problems) -> None:
        self.dims, self.place, self.problems = dims, place, problems
        self.wiring = Wiring(embedding)
        self.groups: dict[tuple[object, ...], int] = {}
        self.sources: dict[str, list[_Source]] = {}
        self.read: set[str] = set()

    def run(self, layers: list[Layer]) -> Wiring:
        wired = [self._layer(layer) for layer in layers]
        publish = (any(use.spec.writes for use in layer.uses()) for layer in wired)
        self.wiring.layers = [
            change_layer(layer, partial(self._with_writes, layer.index)) if writes else layer
            for layer, writes in zip(wired, publish, strict=True)
        ]
        embedding = self.wiring.embedding
        written = tuple(value for value in embedding.spec.writes if f"{EMBEDDING}.{value}" in self.read)
        reads = {value: value for value in PASS_VALUES if self._asks(embedding, value)}
        self.wiring.embedding = replace(embedding, writes=written, reads=reads)
        self._check_position()
        return self.wiring

    @staticmethod
    def _asks(use: Use, value: str) -> bool:
        """Whether it takes a value of the pass: always, or with the option that the record names."""
        option = use.spec.reads.get(value)
        return value in use.spec.reads and (option is None or use.written.get(option) not in (None, False))

    def _check_position(self) -> None:
        """Only keys and values count tokens: without them a cached pass would not know its position."""
        if self.wiring.offset is not None or not self.wiring.slots:
            return
        uses = [self.wiring.embedding, *(use for layer in self.wiring.layers for use in layer.uses())]
        asking = (use for use in uses if use.reads.get(POSITION) == POSITION)
        if use := next(asking, None):
            self.problems.error(
                "AX149",
                f"`{use.name}` needs token positions, which no layer tracks",
                self.place(use.name, "type"),
                help="add a layer with a KV cache: recurrent caches do not track positions",
            )

    def _layer(self, layer: Layer) -> Layer:
        caches = [use.cache for use in layer.uses() if use.cache is not None]
        slot = len(self.wiring.slots) if caches else None
        children = iter(range(len(caches)))

        def connect(use: Use) -> Use:
            if use.cache is not None:
                assert slot is not None
                child = next(children)
                use = replace(use, slot=(slot, child) if len(caches) > 1 else (slot,))
            alone = use.cache is None and not use.spec.reads and not use.spec.writes
            return use if alone else self._connect(use, layer.index)

        layer = change_layer(layer, connect)
        cache = layer_cache(layer)
        if cache is None:
            return layer
        self.wiring.slots.append(cache)
        return replace(layer, slot=slot, cache=cache)

    def _connect(self, use: Use, layer: int) -> Use:
        """Readings first, since a reader without a cache takes the mask of its source's cache."""
        reads, source = {}, use
        for value, option in use.spec.reads.items():
            name = use.written.get(option) if option else None
            if value in PASS_VALUES:
                if self._asks(use, value):
                    reads[value] = value
            elif option is None:
                if self._from_embedding(use, value):
                    reads[value] = f"{EMBEDDING}.{value}"
                    self.read.add(reads[value])
            elif name is not None:
                found = self._source(use, layer, value, option, str(name))
                if found:
                    reads[value] = f"{found.layer}.{found.use.key}.{value}"
                    self.read.add(reads[value])
                    source = source if value in found.use.spec.constant else found.use
        masks = tuple(self._masks(use, source))
        if own := tuple(value for value in use.spec.writes if not (use.spec.reads.get(value) and value in reads)):
            self.sources.setdefault(use.name, []).append(_Source(layer, use, own))
        chosen = use.chosen or source.chosen
        return replace(use, reads=reads, masks=masks, chosen=chosen) if reads or masks else use

    def _source(self, use: Use, layer: int, value: str, option: str, name: str) -> _Source | None:
        for found in reversed(self.sources.get(name, [])):
            if found.layer < layer and value in found.own:
                if fault := self._refusal(use, found.use, value):
                    self.problems.error(
                        "AX142", f"`{use.name}` cannot read from `{name}`: {fault}", self.place(use.name, option)
                    )
                    return None
                return found
        near = self.problems.nearest(name, self.sources) if name not in self.sources else None
        self.problems.error(
            "AX141",
            f"`{use.name}` reads from `{name}`, which no earlier layer uses",
            self.place(use.name, option),
            help=f"did you mean `{near}`?" if near else "it must be in an earlier layer and publish the value",
        )
        return None

    def _from_embedding(self, use: Use, value: str) -> bool:
        """Whether the embedding publishes a value and the reader accepts it; reported if not."""
        embedding = self.wiring.embedding
        place = self.place(use.name, "type")
        if value not in embedding.spec.writes:
            self.problems.error(
                "AX141", f"`{use.name}` reads `{value}`, which the embedding `{embedding.type}` does not publish", place
            )
            return False
        if fault := self._refusal(use, embedding, value):
            self.problems.error("AX142", f"`{use.name}` cannot read from the embedding: {fault}", place)
        return not fault

    def _refusal(self, use: Use, source: Use, value: str) -> str | None:
        """Why a reader does not take a value of a source, by its own account."""
        try:
            return refusal(use.spec, value, use.options, source.options, self.dims)
        except Raised as raised:
            return f"`accepts` of {use.who} raises {raised}"

    def _masks(self, use: Use, source: Use) -> Iterator[int]:
        """Groups for the caches that the component attends with: its own, or that of its source."""
        cache, slot = (source.cache, source.slot) if use.cache is None else (use.cache, use.slot)
        if cache is None or slot is None:
            return
        children = cache.children if isinstance(cache, Composite) else (cache,)
        for index, child in enumerate(children):
            at = (*slot, index) if isinstance(cache, Composite) else slot
            yield self._group(child, use.window, use.spec.mask, at)

    def _group(
        self, cache: CacheSpec, window: int | None, form: Literal["dense", "banded"], slot: tuple[int, ...]
    ) -> int:
        if isinstance(cache, State):
            group = MaskGroup("state", None, None, "dense", slot)
        else:
            assert isinstance(cache, KV), "a cache inside a component's own Composite is KV or State"
            seen = window if window is not None else cache.window
            group = MaskGroup("kv", cache.window, seen, form if seen is not None else "dense", slot)
            if self.wiring.offset is None:
                self.wiring.offset = slot
        key = (group.kind, group.kept, group.window, group.form)
        if key not in self.groups:
            self.groups[key] = len(self.wiring.masks)
            self.wiring.masks.append(group)
        return self.groups[key]

    def _with_writes(self, layer: int, use: Use) -> Use:
        if not use.spec.writes:
            return use
        return replace(use, writes=tuple(v for v in use.spec.writes if f"{layer}.{use.key}.{v}" in self.read))
