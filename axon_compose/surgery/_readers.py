"""Parts that read what an earlier layer publishes, such as its keys and values, and who they read from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from axon_compose.registry import PASS_VALUES, Registry
from axon_compose.surgery._draft import Draft, DraftLayer, Part

__all__ = ["Reading", "readings"]


class Reading(NamedTuple):
    """One value that a component reads from another.

    Attributes:
        number: Number of the reader's layer.
        layer: That layer.
        component: The reader.
        option: Its option that names the writer.
        wanted: The name there.
        writer: The nearest earlier layer that has it; None if none has.
    """

    number: int
    layer: DraftLayer
    component: str
    option: str
    wanted: str
    writer: DraftLayer | None

    @property
    def reader(self) -> tuple[int, str, str]:
        """What stays the same while layers come and go; as long as the layer is kept somewhere."""
        return id(self.layer), self.component, self.option


def readings(draft: Draft, registry: Registry) -> Iterator[Reading]:
    """Every value that is read from a component by its name, and the layer that it comes from."""
    writers: dict[tuple[str, str], DraftLayer] = {}
    for index, layer in enumerate(draft.layers):
        published: list[tuple[str, str]] = []
        for name, part in layer.parts.items():
            reading = dict(_readings(part, registry))
            for value, (option, wanted) in reading.items():
                yield Reading(index, layer, name, option, wanted, writers.get((wanted, value)))
            writes = registry.component(part.type).writes
            published += [(name, value) for value in writes if value not in reading]
        writers |= dict.fromkeys(published, layer)


def _readings(part: Part, registry: Registry) -> Iterator[tuple[str, tuple[str, str]]]:
    """Values that a component reads from another, with the option that names it and the name."""
    for value, option in registry.component(part.type).reads.items():
        wanted = part.written.get(option) if option else None
        if option is not None and value not in PASS_VALUES and isinstance(wanted, str):
            yield value, (option, wanted)
