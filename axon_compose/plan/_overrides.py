"""`overrides`: options of components changed in some layers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from axon_compose.diagnostics import Problems
from axon_compose.language.document import Document, Path, report_no_component
from axon_compose.plan._numbers import layer_numbers
from axon_compose.plan._stack import MAX_LAYERS
from axon_compose.record import record

__all__ = ["Overrides"]

#: Options changed in all layers together.
MAX_CHANGES: Final = 100_000
#: Steps of `component.option.part.…`; options nest no deeper.
_MAX_KEYS: Final = 64

_RANGE = re.compile(r"(\d{1,6})(?:\.\.(\d{1,6}))?")


@record
class _Change:
    """One `component.option: value` of one override."""

    first: int
    last: int
    component: str
    keys: tuple[str, ...]
    value: Any
    path: Path


@dataclass
class Overrides:
    """The changes of a file, by layer; knows which of them had an effect."""

    document: Document
    problems: Problems
    _changes: list[_Change] = field(default_factory=list)
    _by_layer: dict[tuple[str, int], list[_Change]] = field(default_factory=dict)
    _used: set[Path] = field(default_factory=set)

    def __post_init__(self) -> None:
        left = MAX_CHANGES
        for change in self._read():
            layers = range(change.first, min(change.last, MAX_LAYERS) + 1)
            left -= max(1, len(layers))
            if left < 0:
                message = f"the overrides change more than {MAX_CHANGES:,} options, all layers counted"
                self.problems.error("AX136", message, self.document.place(*change.path, key=True))
                return
            self._changes.append(change)
            for layer in layers:
                self._by_layer.setdefault((change.component, layer), []).append(change)

    def _read(self) -> Iterator[_Change]:
        for index, override in enumerate(self.document.envelope.overrides):
            ranges = list(self._ranges(override.layers, ("overrides", index, "layers")))
            for key, value in override.set.items():
                path: Path = ("overrides", index, "set", key)
                component, *keys = key.split(".")
                if not keys or not all(keys) or len(keys) > _MAX_KEYS:
                    self.problems.error(
                        "AX136", f"`{key}` is not `component.option`", self.document.place(*path, key=True)
                    )
                    continue
                if self._known(component, path):
                    yield from (_Change(a, b, component, tuple(keys), value, path) for a, b in ranges)

    def _ranges(self, text: str, path: Path) -> Iterator[tuple[int, int]]:
        for part in text.split(","):
            match = _RANGE.fullmatch(part.strip())
            first = int(match[1]) if match else 0
            last = int(match[2] or match[1]) if match else -1
            if first > last:
                message = f"`{part.strip()}` is not a layer or a range of layers"
                self.problems.error(
                    "AX136",
                    message,
                    self.document.place(*path),
                    help="write `8`, `8..15` or a list of them; both ends are included",
                )
                continue
            yield first, last

    def _known(self, component: str, path: Path) -> bool:
        if component in self.document.envelope.components:
            return True
        report_no_component(self.document, component, self.document.place(*path, key=True), self.problems)
        return False

    def changes(self, component: str, layer: int) -> bool:
        """Whether the options of a component differ at a layer from what its section says."""
        return (component, layer) in self._by_layer

    def apply(self, component: str, options: Mapping[str, Any], layer: int) -> tuple[dict[str, Any], dict[str, Path]]:
        """The options at a layer, and for each changed option where the change is written."""
        changed, origins = dict(options), dict[str, Path]()
        for change in self._by_layer.get((component, layer), ()):
            self._used.add(change.path)
            changed = _with(changed, change.keys, change.value)
            origins[change.keys[0]] = change.path
        return changed, origins

    def check(self, layers: int) -> None:
        """Report changes that reach past the stack, or that no layer takes up."""
        reported: set[Path] = set()
        for change in self._changes:
            if change.path in reported:
                continue
            if change.last >= layers:
                reported.add(change.path)
                where = self.document.place(*change.path[:2], "layers")
                has = f"the stack has {layer_numbers(range(layers))}"
                self.problems.error("AX137", f"there is no layer {change.last}", where, label=has)
            elif change.path not in self._used:
                reported.add(change.path)
                message = f"none of these layers uses `{change.component}`: the override changes nothing"
                self.problems.error("AX138", message, self.document.place(*change.path, key=True))


def _with(options: Mapping[str, Any], keys: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A copy of nested options with one value replaced."""
    first, rest = keys[0], keys[1:]
    below = options.get(first)
    new = _with(below if isinstance(below, Mapping) else {}, rest, value) if rest else value
    return {**options, first: new}
