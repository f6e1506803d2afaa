"""The metadata of a GGUF file as formulas and messages see it: keys without the architecture's name, with places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from axon_compose.checkpoints.gguf._header import GgufFile
from axon_compose.diagnostics import Position, Problems, Span
from axon_compose.language.document import cached_parse, is_formula
from axon_compose.language.source import Mapping as MappingNode
from axon_compose.language.source import to_source

__all__ = ["Metadata"]

#: A longer list is a vocabulary, which formulas and messages have no use for.
_LONGEST: Final = 4096


@dataclass(frozen=True)
class Metadata:
    """What a file says of its model.

    Attributes:
        file: The file.
    """

    file: GgufFile

    @property
    def name(self) -> str:
        """What messages call the place of a key."""
        return f"<metadata of {self.file.path}>"

    @cached_property
    def keys(self) -> dict[str, Any]:
        """Keys of the architecture, without its name: `attention.head_count`."""
        prefix = f"{self.file.architecture}."
        own = ((key, value) for key, value in self._short.items() if key.startswith(prefix))
        return {key.removeprefix(prefix): value for key, value in own}

    @cached_property
    def names(self) -> dict[str, Any]:
        """What formulas know: `keys`, and `tensors` with the shape of each."""
        return {"keys": self.keys, "tensors": {name: list(of.shape) for name, of in self.file.tensors.items()}}

    @cached_property
    def _short(self) -> dict[str, Any]:
        values = self.file.metadata.items()
        return {key: value for key, value in values if not (isinstance(value, list) and len(value) > _LONGEST)}

    @cached_property
    def _nodes(self) -> tuple[MappingNode | None, Mapping[str, str]]:
        problems = Problems()
        node = to_source(self._short, self.name, problems)
        return node if isinstance(node, MappingNode) else None, dict(problems.sources)

    def span(self, key: str | None, problems: Problems) -> Span:
        """Where a key is, for messages; the start of the metadata without one."""
        node, sources = self._nodes
        problems.sources.update(sources)
        full = f"{self.file.architecture}.{key}"
        if node is not None and key is not None and full in node.entries:
            return node.entries[full].key_span
        return node.span if node is not None else Span(self.name, Position(1, 1), Position(1, 1))

    def value(self, written: str) -> Any:
        """A key, or a formula over keys and tensors.

        Raises:
            FormulaError: The formula has no value.
            KeyError: The key is not there.
        """
        return cached_parse(written).evaluate(self.names) if is_formula(written) else self.keys[written]
