"""The model while it is edited: its layers as plain data, each part with how its parameters come about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from axon_compose.diagnostics import Problems, Span
from axon_compose.language.document._stack_text import compress, parse_stack
from axon_compose.language.source import Node, to_source
from axon_compose.plan import Branch, Compiled, Layer, Use
from axon_compose.plan._stack import MAX_LAYERS
from axon_compose.plan.concrete import unroll
from axon_compose.plan.concrete._options import pruned
from axon_compose.registry import Dims, Registry
from axon_compose.surgery._making import Kept, Making
from axon_compose.surgery._written import grouped, long_branch, marked, short_branch

if TYPE_CHECKING:
    from axon_compose.surgery._tokens import NewTokens

__all__ = ["ENDS", "Draft", "DraftBranch", "DraftLayer", "Part", "slots"]

#: Parts around the layers by their place in the plan, and the section of a file that describes each.
ENDS: Final = {"embedding": "embedding", "residual": "residual", "norm": "final_norm", "head": "head"}
_FILE: Final = "<edited model>"


@dataclass(frozen=True)
class Part:
    """A component of a layer as a file has it.

    Attributes:
        type: Its type as written.
        written: Its options, formulas resolved.
        span: Where an edit wrote it; None if none did.
        spans: Options to where an edit wrote them.
    """

    type: str
    written: Mapping[str, Any]
    span: Span | None = None
    spans: Mapping[str, Span] = field(default_factory=dict)


@dataclass
class DraftBranch:
    """A branch: how a file has it, and how its components are made, by their slots in it."""

    written: dict[str, Any]
    made: dict[str, Making]

    def members(self) -> Iterator[tuple[str, str]]:
        """Slot and name of every component, norms left out."""
        if "use" in self.written:
            yield "0", self.written["use"]
        for number, member in enumerate(self.written.get("parallel", ())):
            yield str(number), member["use"]

    def rename(self, slot: str, name: str) -> None:
        """Give the component of a slot another name."""
        if "use" in self.written:
            self.written["use"] = name
        else:
            self.written["parallel"][int(slot)]["use"] = name


@dataclass
class DraftLayer:
    """A layer: its branches, the options of its components, and the layer of the source that it comes from."""

    block: str
    branches: list[DraftBranch]
    parts: dict[str, Part]
    share: str | None
    origin: int | None
    #: What edits have said of its components, with the place: of one option, or None for the whole component.
    said: dict[tuple[str, str | None], Span] = field(default_factory=dict, repr=False)

    def copy(self) -> DraftLayer:
        """The same again, which can be changed by itself."""
        return DraftLayer(
            self.block,
            [DraftBranch(deepcopy(branch.written), dict(branch.made)) for branch in self.branches],
            dict(self.parts),
            self.share,
            self.origin,
        )

    def written(self) -> Any:
        """The block as a file has it."""
        branches = [short_branch(branch.written) for branch in self.branches]
        return {"branches": branches, "share": self.share} if self.share else branches

    def slots_of(self, name: str) -> Iterator[tuple[DraftBranch, str]]:
        """Every place of a component in this layer."""
        for branch in self.branches:
            for slot, other in branch.members():
                if other == name:
                    yield branch, slot


def slots(branch: Branch) -> Iterator[tuple[str, Use]]:
    """The components of a planned branch, with a name for the place of each."""
    for name in ("connection", "pre", "post"):
        if (use := getattr(branch, name)) is not None:
            yield name, use
    for number, member in enumerate(branch.members):
        yield str(number), member.use
        for name in ("pre", "post"):
            if (use := getattr(member, name)) is not None:
                yield f"{number}.{name}", use


class Draft:
    """A model to be edited.

    Args:
        source: What is edited.
        registry: The plugins.
    """

    def __init__(self, source: Compiled, registry: Registry) -> None:
        plan = source.plan()
        self.source, self.registry = source, registry
        self.dims: Dims = plan.dims
        self.tokens: NewTokens | None = None
        self._pruned: dict[str, Mapping[str, Any]] = {}
        self.data = unroll(source.document, plan, registry)
        components = source.document.envelope.components
        self.types = {name: component.type for name, component in components.items()}
        named = [name for name, _ in parse_stack(self.data.pop("stack")).expand(MAX_LAYERS)]
        blocks = self.data.pop("blocks")
        self.data.pop("overrides", None)
        self.data.pop("components")
        self.layers = [self._layer(layer, name, blocks[name]) for layer, name in zip(plan.layers, named, strict=True)]
        uses = {"embedding": plan.embedding, "residual": plan.residual, "norm": plan.final_norm, "head": plan.head}
        self.ends: dict[str, Making] = {name: Kept(use) for name, use in uses.items() if use is not None}
        self.marks: dict[tuple[str, ...], Span] = {}

    def _layer(self, layer: Layer, block: str, written: Any) -> DraftLayer:
        share = written.get("share") if isinstance(written, Mapping) else None
        planned = iter(layer.branches)
        branches: list[DraftBranch] = []
        kept: set[str] = set()
        for item in written["branches"] if isinstance(written, Mapping) else written:
            branch = long_branch(item)
            if "add" in branch and branch["add"] not in kept:
                continue  # the plan has no branch that adds what nothing keeps
            kept |= {member["as"] for member in (branch, *branch.get("parallel", ())) if "as" in member}
            branches.append(DraftBranch(branch, {slot: Kept(use) for slot, use in slots(next(planned))}))
        uses = [member.use for branch in layer.branches for member in branch.members]
        parts = {use.name: Part(self.types[use.name], self._short(use)) for use in uses}
        return DraftLayer(block, branches, parts, share, layer.index)

    def _short(self, use: Use) -> Mapping[str, Any]:
        """The options of a component without those that are as by default; most layers have the same."""
        key = f"{use.type} {dict(use.written)!r}"
        if key not in self._pruned:
            self._pruned[key] = pruned(use.spec, use.options, use.written)
        return self._pruned[key]

    # What the model has now.

    @property
    def count(self) -> int:
        """How many layers there are."""
        return len(self.layers)

    def names(self) -> list[str]:
        """Names of all components of layers, in the order of the stack."""
        return list(dict.fromkeys(name for layer in self.layers for name in layer.parts))

    def blocks(self) -> dict[str, DraftLayer]:
        """The first layer of each block by its name."""
        found: dict[str, DraftLayer] = {}
        for layer, name in zip(self.layers, self._block_names(), strict=True):
            found.setdefault(name, layer)
        return found

    @property
    def additions(self) -> int:
        """How many outputs are added to the residual stream, as far as the file says."""
        return sum(len(list(branch.members())) for layer in self.layers for branch in layer.branches)

    # The file of it.

    def description(self) -> dict[str, Any]:
        """The model as plain data of a file."""
        components, overrides = self._components()
        names = self._block_names()
        blocks = {name: layer.written() for name, layer in zip(names, self.layers, strict=True)}
        found: dict[str, Any] = {name: self.data[name] for name in ("version", "name", "dims")}
        found |= {"components": components, "blocks": blocks, "stack": compress(names)}
        if overrides:
            found["overrides"] = overrides
        return found | {name: value for name, value in self.data.items() if name not in found}

    def node(self, problems: Problems) -> Node | None:
        """The same as nodes: what an edit wrote has its place in the edit file."""
        data = self.description()
        node = to_source(data, _FILE, problems)
        for path, span in self._written_by_edits(data):
            node = node and marked(node, path, span)
        return node

    def _components(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Every component with what most of its layers have; what others have goes into overrides."""
        found: dict[str, Any] = {}
        changes: dict[int, dict[str, Any]] = {}
        for name in self.names():
            parts = {index: layer.parts[name] for index, layer in enumerate(self.layers) if name in layer.parts}
            texts = Counter(repr(dict(part.written)) for part in parts.values())
            usual = next(part for part in parts.values() if repr(dict(part.written)) == texts.most_common(1)[0][0])
            everywhere = [option for option in usual.written if all(option in part.written for part in parts.values())]
            base = {option: usual.written[option] for option in everywhere}
            found[name] = {"type": usual.type, **base}
            for index, part in parts.items():
                for option, value in part.written.items():
                    if option not in base or base[option] != value or type(base[option]) is not type(value):
                        changes.setdefault(index, {})[f"{name}.{option}"] = value
        return found, list(grouped(changes))

    def _block_names(self) -> list[str]:
        """A name for every layer's block: the same for layers that are built alike, and for no others."""
        names: dict[str, str] = {}
        keys = [repr(layer.written()) for layer in self.layers]
        for layer, key in zip(self.layers, keys, strict=True):
            if key not in names:
                name, number = layer.block, 2
                if name in names.values():
                    name = layer.block = "_".join(dict.fromkeys(layer.parts))[:90] or layer.block
                while name in names.values():
                    name, number = f"{layer.block}_{number}", number + 1
                names[key] = name
        return [names[key] for key in keys]

    def _written_by_edits(self, data: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], Span]]:
        """Paths in the file that come from an edit, and where it wrote them."""
        yield from self.marks.items()
        for layer in self.layers:
            for name, part in layer.parts.items():
                if part.span and name in data["components"]:
                    yield ("components", name), part.span
        for layer in self.layers:
            for name, part in layer.parts.items():
                for option, span in part.spans.items():
                    if option in data["components"].get(name, {}):
                        yield ("components", name, option), span
                    for number, override in enumerate(data.get("overrides", ())):
                        if f"{name}.{option}" in override["set"]:
                            yield ("overrides", number, "set", f"{name}.{option}"), span
