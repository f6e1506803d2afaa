"""The text of an unrolled file in the usual layout: short mappings on a line, one component a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from axon_compose.language.source import scalar_text

__all__ = ["flow_text", "to_text"]

_WIDTH: Final = 110
#: Sections whose entries stand on lines of their own, and how deep.
_OPEN: Final = {"components": 1, "blocks": 1, "overrides": 1, "huggingface": 2}
_SPACED: Final = ("components", "stack", "huggingface")


def to_text(data: Mapping[str, Any], comments: tuple[str, ...] = ()) -> str:
    """Write plain data of a file as YAML.

    Args:
        data: Sections in order.
        comments: Lines before them.
    """
    lines = [f"# {comment}" for comment in comments]
    for section, value in data.items():
        if section in _SPACED:
            lines.append("")
        lines += _entry(section, value, _OPEN.get(section, 0), "")
    return "\n".join(lines) + "\n"


def _entry(key: str, value: Any, depth: int, indent: str) -> Iterator[str]:
    """`key: value`, over several lines where it is open or does not fit."""
    head = f"{indent}{scalar_text(key)}:"
    short = f"{head} {flow_text(value)}"
    if not (isinstance(value, dict | list) and value) or (depth == 0 and len(short) <= _WIDTH):
        yield short
    elif isinstance(value, list):
        yield head
        yield from (f"{indent}  - {flow_text(item)}" for item in value)
    elif depth == 0:
        yield from _wrapped(head, value)
    else:
        yield head
        for name, item in value.items():
            yield from _entry(name, item, depth - 1, indent + "  ")


def _wrapped(head: str, value: Mapping[str, Any], tail: str = "") -> list[str]:
    """A flow mapping over several lines, broken between its entries, and where one is too long inside of it."""
    margin = " " * (len(head) + 2)
    lines, line = [], f"{head} {{"
    for number, (key, item) in enumerate(value.items()):
        end = "," if number < len(value) - 1 else "}" + tail
        text = f"{scalar_text(key)}: {flow_text(item)}{end}"
        if len(line) + len(text) > _WIDTH and not line.endswith("{"):
            lines.append(line.rstrip())
            line = margin
        if len(line) + len(text) > _WIDTH and isinstance(item, Mapping) and len(item) > 1:
            *above, line = _wrapped(f"{line}{scalar_text(key)}:", item, end)
            lines += above
        else:
            line += text
        line += " "
    return [*lines, line.rstrip()]


def flow_text(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar_text(key)}: {flow_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow_text, value)) + "]"
    return scalar_text(value)
