"""A description with small sizes and the same structure, so that a model of any size can be tried out in seconds.

It starts from the plan, where formulas are numbers, sharing is explicit and every layer is written out, and ends in a
description again, so that the copy passes through the same stages as the original.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from axon_compose.diagnostics import ArchitectureError
from axon_compose.plan import Branch, Compiled, Layer, Member, Plan, Use, compile_source
from axon_compose.registry import ComponentSpec, Registry, shrunken

__all__ = ["VOCABULARY", "deepened", "registry_of", "shrink", "small_architecture"]

#: Hidden sizes to try. Powers of two divide among heads; quantisation wants a multiple of 32.
HIDDEN_SIZES: Final = (64, 128, 256)
#: A prime, so that an array with this extent is known to belong to the vocabulary.
VOCABULARY: Final = 97
#: Layers of one kind that are kept: two, since some faults need a second one.
ALIKE: Final = 2


def small_architecture(plan: Plan, *, alike: int = ALIKE, vocabulary: int = VOCABULARY) -> Compiled:
    """The plan's model in the smallest of a few widths that all of its components can live with.

    Args:
        plan: The model.
        alike: Layers of one kind that are kept.
        vocabulary: Tokens, if the model has more.

    Raises:
        ArchitectureError: If none does, not even its own.
        PluginFault: If a component's `shrink` fails (`AX212`).
    """
    own = int(plan.dims.hidden_size)
    sizes = [*(size for size in HIDDEN_SIZES if size < own), own]
    registry = registry_of(plan)
    for size in sizes[:-1]:
        try:
            small = shrink(plan, hidden_size=size, alike=alike, vocabulary=vocabulary)
            return compile_source(small, registry=registry)
        except ArchitectureError:
            continue
    return compile_source(shrink(plan, hidden_size=own, alike=alike, vocabulary=vocabulary), registry=registry)


def deepened(plan: Plan, layers: int) -> Compiled:
    """The same model with all its layers in a row repeated, until there are at least so many.

    Raises:
        ArchitectureError: If a layer cannot stand where it would come.
    """
    description = shrink(plan, hidden_size=int(plan.dims.hidden_size), alike=len(plan.layers))
    description["stack"] = f"({' '.join(description['stack'])})*{-(-layers // len(plan.layers))}"
    return compile_source(description, registry=registry_of(plan))


def registry_of(plan: Plan) -> Registry:
    """The installed plugins, and those of the plan that are not installed."""
    plugins: dict[str, dict[str, ComponentSpec]] = {}
    for use in _every_use(plan):
        if use.spec.kind == "connection":
            continue  # a part of its scheme
        namespace, _, name = use.type.partition("/")
        plugins.setdefault(namespace, {})[name] = use.spec
    strangers = {namespace: list(specs.values()) for namespace, specs in plugins.items() if namespace != "core"}
    return Registry.with_plugins(strangers, plan.plugins)


def shrink(
    plan: Plan, *, hidden_size: int = HIDDEN_SIZES[0], alike: int = ALIKE, vocabulary: int = VOCABULARY
) -> dict[str, Any]:
    """Describe the same model in small sizes.

    Options are made small by each component's own `shrink`; where a spec has none they stay. Of the layers, the
    first two of each kind stay, in their order, with the layers that they read from or share weights with.

    Args:
        plan: The model.
        hidden_size: Its new width, if that is less.
        alike: Layers of one kind that are kept.
        vocabulary: Tokens, if the model has more.

    Returns:
        A description for `load`, free of formulas.

    Raises:
        PluginFault: If a component's `shrink` fails (`AX212`).
    """
    return _Shrinker(plan, hidden_size, vocabulary, kept_layers(plan, alike)).describe()


class _Shrinker:
    def __init__(self, plan: Plan, hidden_size: int, vocabulary: int, kept: set[int]) -> None:
        self.plan, self.kept = plan, kept
        self.vocabulary = min(vocabulary, int(plan.dims.vocab_size))
        self.hidden_size = min(hidden_size, int(plan.dims.hidden_size))
        self.components: dict[str, dict[str, Any]] = {}
        self.blocks: dict[str, dict[str, Any]] = {}
        self.taken = set(plan.dims)

    def describe(self) -> dict[str, Any]:
        plan = self.plan
        stack = [self.block(layer) for layer in plan.layers if layer.index in self.kept]
        dims = {name: value for name, value in plan.dims.items() if name not in ("embedding_size", "embedding_rows")}
        return {
            "version": 1,
            "name": plan.name,
            "dims": {**dims, "hidden_size": self.hidden_size, "vocab_size": self.vocabulary},
            "components": self.components,
            "blocks": self.blocks,
            "stack": stack,
            "embedding": typed(plan.embedding),
            **({"residual": typed(plan.residual)} if plan.residual else {}),
            "final_norm": typed(plan.final_norm) if plan.final_norm else "none",
            "head": typed(plan.head),
        }

    def block(self, layer: Layer) -> str:
        block: dict[str, Any] = {"branches": [self.branch(*each) for each in connected(layer)]}
        group = shared_group(self.plan, layer)
        if group is not None:
            block["share"] = f"weights_{group}"
        return self.named(self.blocks, "layer" if layer.block == "=" else layer.block, block)

    def branch(self, branch: Branch, connection: str | None) -> Any:
        joined: dict[str, Any] = {"skip": branch.skip} if branch.skip != 1.0 else {}
        if connection:
            joined["residual"] = connection
        if branch.add is not None:
            return {"add": branch.add, "scale": branch.scale} | joined
        if not branch.adds:
            return {"use": self.component(branch.members[0].use)} | joined
        items: list[dict[str, Any]] = [
            {"use": self.component(m.use), "scale": m.scale, "norm": norm(m)} | ({"as": m.keep} if m.keep else {})
            for m in branch.members
        ]
        if len(items) == 1 and items[0]["norm"] == "none":
            item = {**items[0], "scale": branch.scale * branch.members[0].scale}
        else:
            item = {"parallel": items, "scale": branch.scale}
        return item | {"norm": norm(branch)} | joined

    def component(self, use: Use) -> str:
        """The name of a component with the use's options, small."""
        options = typed(use)
        for value, option in use.spec.reads.items():
            # The position comes from no component: the option only says whether it is wanted.
            if option is not None and value in use.reads and use.reads[value] != value:
                options[option] = self.component(self.source(use.reads[value]))
        return self.named(self.components, use.name, options)

    def source(self, published: str) -> Use:
        """The use that publishes `layer.key.value`."""
        index, _, rest = published.partition(".")
        key = rest.rpartition(".")[0]
        return next(use for use in self.plan.layers[int(index)].uses() if use.key == key)

    def named(self, section: dict[str, dict[str, Any]], wanted: str, entry: dict[str, Any]) -> str:
        """The name of an entry, the first of its kind under the name that it had."""
        number, name = 1, wanted
        while name in section or name in self.taken:
            if section.get(name) == entry:
                return name
            number += 1
            name = f"{wanted}_v{number}"
        section[name] = entry
        return name


def typed(use: Use) -> dict[str, Any]:
    """A component section: the type, and options made small."""
    return {"type": use.type, **_small(use)}


def _small(use: Use) -> dict[str, Any]:
    options = {name: value for name, value in use.written.items() if name != "type"}
    return shrunken(use.spec, options, use.dims, use.who)


def norm(around: Branch | Member) -> Any:
    """The norm of a branch, or of a component in it, as it is written in a file."""
    use = around.pre or around.post
    if use is None:
        return "none"
    place = "sandwich" if around.pre and around.post else "pre" if around.pre else "post"
    return {"place": place, **typed(use)}


def connected(layer: Layer) -> Iterator[tuple[Branch, str | None]]:
    """Branches with the names of their connections; those that follow each other in one have the same."""
    name = None
    for branch in layer.branches:
        if branch.connection:
            name = branch.connection.name
        yield branch, name


def kept_layers(plan: Plan, alike: int = ALIKE) -> set[int]:
    """Indices of the layers that show all there is to see."""
    counts: Counter[str] = Counter()
    kept: set[int] = set()
    for layer in plan.layers:
        kind = _kind(plan, layer)
        counts[kind] += 1
        if counts[kind] <= alike:
            kept |= {layer.index, *_needed(plan, layer)}
    return kept


def _needed(plan: Plan, layer: Layer) -> Iterator[int]:
    """Layers without which this one cannot stand."""
    if layer.owner is not None:
        yield layer.owner
    for use in layer.uses():
        for source in use.source_layers:
            yield source
            yield from _needed(plan, plan.layers[source])


def shared_group(plan: Plan, layer: Layer) -> int | None:
    """The layer that owns the weights which this one shares with others, or None if there is none."""
    if layer.owner is not None:
        return layer.owner
    return layer.index if any(other.owner == layer.index for other in plan.layers) else None


def _kind(plan: Plan, layer: Layer) -> str:
    """Layers with the same text are alike. Fractions (scales, thetas) make no kind of their own."""
    branches = [
        [
            connection,
            branch.residual,
            branch.add,
            [(m.use.name, m.use.type, m.keep, _coarse(_small(m.use)), sorted(m.use.reads)) for m in branch.members],
            [_coarse(norm(branch)), *(_coarse(norm(member)) for member in branch.members)],
        ]
        for branch, connection in connected(layer)
    ]
    return repr([branches, shared_group(plan, layer), layer.owner is None])


def _coarse(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _coarse(part) for name, part in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [_coarse(part) for part in value]
    return "float" if isinstance(value, float) else value


def _every_use(plan: Plan) -> Iterator[Use]:
    yield from plan.uses()
    for layer in plan.layers:
        yield from layer.uses()
