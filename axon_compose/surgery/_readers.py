"""Parts that read what an earlier layer publishes, such as its keys and values, and have nobody left to read from."""

from __future__ import annotations

from collections.abc import Iterator

from axon_compose.registry import PASS_VALUES, Registry
from axon_compose.surgery._draft import Draft, Part

__all__ = ["lost_writers"]


def lost_writers(draft: Draft, registry: Registry) -> Iterator[tuple[int, str, str, str]]:
    """Readers without a writer in any earlier layer.

    Yields:
        The layer, the component, its option that names the writer, and the name there.
    """
    written: dict[str, set[str]] = {}
    for index, layer in enumerate(draft.layers):
        here: dict[str, set[str]] = {}
        for name, part in layer.parts.items():
            spec = registry.component(part.type)
            reading = dict(_readings(part, registry))
            for value, (option, wanted) in reading.items():
                if value not in written.get(wanted, ()):
                    yield index, name, option, wanted
            here[name] = {value for value in spec.writes if value not in reading}
        for name, values in here.items():
            written.setdefault(name, set()).update(values)


def _readings(part: Part, registry: Registry) -> Iterator[tuple[str, tuple[str, str]]]:
    """Values that a component reads from another, with the option that names it and the name."""
    for value, option in registry.component(part.type).reads.items():
        wanted = part.written.get(option) if option else None
        if option is not None and value not in PASS_VALUES and isinstance(wanted, str):
            yield value, (option, wanted)
