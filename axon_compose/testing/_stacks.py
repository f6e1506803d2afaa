"""Whole descriptions, made up from the components of every installed plugin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from axon_compose.plan import Plan
from axon_compose.registry import Dims, LookupFailure, Registry
from axon_compose.testing._choices import Choices
from axon_compose.testing._model import Section, planned
from axon_compose.testing._parts import drawn_part, drawn_reader, reads_embedding

__all__ = ["drawn_stack"]

#: Two layers tell of wiring between layers, a third one of what stands between two.
_LAYERS: Final = (2, 1, 3)
_HIDDEN_SIZES: Final = (32, 64)
_VOCABULARY: Final = 97
_SCALES: Final = (0.5, 2.0)
#: Of a branch without a norm: unscaled, what reads its own output grows with every layer, in 48 of them beyond float32.
_SMALL: Final = 0.125


def drawn_stack(choices: Choices, registry: Registry) -> Section | None:
    """A whole description that `load` takes, or None if what was drawn does not fit together."""
    return _Stack(choices, registry).description()


class _Stack:
    """A description in the making: components first, then blocks of them, then the stack."""

    def __init__(self, choices: Choices, registry: Registry) -> None:
        self.choose, self.choices, self.registry = choices.choose, choices, registry
        self.types = registry.components()
        self.dims = Dims({"hidden_size": self.choose(_HIDDEN_SIZES), "vocab_size": _VOCABULARY})
        self.components: dict[str, Section] = {}
        self.blocks: dict[str, Any] = {}
        self.around: Section = {}

    def description(self) -> Section | None:
        count = self.choose(_LAYERS)
        stack: list[str] = []
        for _ in range(count):
            if stack and self.chance(3):
                stack.append(self.choose(list(self.blocks)))
            else:
                stack.append(self.block())
        self.surroundings()
        description = {
            "version": 1,
            "name": "random",
            "dims": dict(self.dims),
            "components": self.components,
            "blocks": self.blocks,
            "stack": stack,
            **self.around,
        }
        plan = planned(description, self.registry)
        return description if plan is not None and not _ends_in_a_factor(plan) else None

    def chance(self, one_in: int) -> bool:
        """True once in this number of times; False is the simpler choice."""
        return self.choose(range(one_in)) == one_in - 1

    def block(self) -> str:
        """A new block of one or two branches, by name."""
        name = f"block_{len(self.blocks) + 1}"
        earlier = list(self.components)
        branches: list[Any] = []
        for _ in range(self.choose((1, 2))):
            branches += self.branch(earlier)
        shared = self.chance(4)
        self.blocks[name] = {"branches": branches, "share": f"weights_{len(self.blocks)}"} if shared else branches
        return name

    def branch(self, earlier: list[str]) -> Iterator[Any]:
        """A branch; two of them where the output of the first one is kept for later."""
        name = self.component(earlier)
        if self.kind(name) == "block":
            yield name
        elif self.chance(4):
            members = [name, *(n for n in [self.component(earlier)] if self.kind(n) == "layer")]
            yield {"parallel": [self.member(n) for n in members], **self.manner()}
        elif self.chance(5):
            yield {"use": name, "as": f"kept_by_{name}", **self.manner()}
            other = self.component(earlier)
            yield other
            yield {"add": f"kept_by_{name}", **({"scale": self.choose(_SCALES)} if self.chance(2) else {})}
        else:
            manner = self.manner()
            yield {"use": name, **manner} if manner else name

    def member(self, name: str) -> Any:
        manner = self.manner() if self.chance(3) else {}
        return {"use": name, **manner} if manner else name

    def manner(self) -> Section:
        """Norm and scale of a branch or of a component in it."""
        manner: Section = {}
        if self.chance(3):
            place = self.choose(("pre", "sandwich", "post", "none"))
            manner["norm"] = place
            if place != "none" and self.chance(3):
                manner["norm"] = {"place": place, **self.section("norm")}
        if self.chance(4):
            manner["scale"] = self.choose(_SCALES)
        if manner.get("norm") == "none":
            manner["scale"] = _SMALL
        return manner

    def kind(self, name: str) -> str:
        return self.registry.component(self.components[name]["type"]).kind

    def component(self, earlier: list[str]) -> str:
        """A component for a branch: one that there is, one that reads from an earlier layer, or a new one."""
        if self.components and self.chance(4):
            return self.choose(list(self.components))
        readers = list(self.readers(earlier))
        if readers and self.chance(2):
            source, option = self.choose(readers)
            if name := self.reader(source, option):
                return name
        if self.chance(12) and (name := self.reader_of_the_embedding()):
            return name
        names = [n for n, spec in self.types.items() if spec.kind in ("layer", "block") and not reads_embedding(spec)]
        for type_name in [self.choose(names), *names]:
            options = drawn_part(type_name, self.choices, self.dims, self.registry)
            if options is not None:
                return self.named(type_name, options)
        raise LookupFailure("AX202", "no component of the installed plugins can stand in a layer")

    def readers(self, earlier: list[str]) -> Iterator[tuple[str, str]]:
        """Components of earlier layers that a component of the same type may read from, and by which option."""
        for name in earlier:
            spec = self.registry.component(self.components[name]["type"])
            for value, option in spec.reads.items():
                if option is not None and value in spec.writes and option not in self.components[name]:
                    yield name, option

    def reader(self, source: str, option: str) -> str | None:
        section = self.components[source]
        base = {name: value for name, value in section.items() if name != "type"}
        options = drawn_part(
            section["type"],
            self.choices,
            self.dims,
            self.registry,
            base=base,
            sources={source: section},
            fixed={option: source},
        )
        return None if options is None else self.named(section["type"], options)

    def reader_of_the_embedding(self) -> str | None:
        names = [name for name, spec in self.types.items() if reads_embedding(spec)]
        tables = [name for name, spec in self.types.items() if spec.kind == "embedding" and spec.writes]
        if not names or not tables or "embedding" in self.around:
            return None
        found = drawn_reader(self.choose(names), self.choose(tables), self.choices, self.dims, self.registry)
        if found is None:
            return None
        (type_name, *_), options = found[0].values(), dict(found[0])
        self.around["embedding"] = found[1]
        return self.named(type_name, {name: value for name, value in options.items() if name != "type"})

    def named(self, type_name: str, options: Mapping[str, Any]) -> str:
        stem = type_name.rpartition("/")[2]
        count = sum(name.rpartition("_v")[0] == stem for name in self.components)
        name = f"{stem}_v{count + 1}"
        self.components[name] = {"type": type_name, **options}
        return name

    def section(self, kind: str) -> Section:
        """A component of some other kind: type and options."""
        names = [name for name, spec in self.types.items() if spec.kind == kind]
        type_name = self.choose(names)
        options = drawn_part(type_name, self.choices, self.dims, self.registry)
        return {"type": type_name, **(options or {})}

    def surroundings(self) -> None:
        """Embedding, norms and head, where they are not the default ones."""
        for kind in ("embedding", "norm", "head"):
            if kind not in self.around and self.chance(2):
                self.around[kind] = self.section(kind)
        if self.chance(6):
            self.around["final_norm"] = "none"


def _ends_in_a_factor(plan: Plan) -> bool:
    """Whether the stack ends in a block that mixes no tokens: it may be one factor, which a final norm takes out."""
    last = plan.layers[-1].branches[-1]
    return not last.adds and last.members[0].use.cache is None
