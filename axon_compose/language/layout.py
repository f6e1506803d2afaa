"""Plain data as YAML to be read: block style, an option a line, short mappings on one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from axon_compose.language.source import scalar_text

__all__ = ["flow_text", "to_text"]

#: A mapping stands on one line with so many entries at most, and a line has so many characters.
_FEW: Final = 4
_WIDTH: Final = 110
#: Sections with an empty line before them.
_SPACED: Final = ("dims", "components", "blocks", "stack", "overrides", "norm", "residual", "huggingface", "gguf")
#: Sections whose entries have lines of their own, however short they are.
_OPEN: Final = ("components", "blocks", "overrides", "huggingface", "gguf")


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
        if section == "components" and isinstance(value, Mapping) and value:
            lines += ["components:", *_apart(value)]
        else:
            lines += _entry(section, value, "", is_open=section in _OPEN)
    return "\n".join(lines) + "\n"


def _apart(components: Mapping[str, Any]) -> Iterator[str]:
    """Components, those of several lines with an empty line on both sides."""
    long = False
    for number, (name, value) in enumerate(components.items()):
        lines = list(_entry(name, value, "  "))
        if number and (long or len(lines) > 1):
            yield ""
        yield from lines
        long = len(lines) > 1


def _entry(key: str, value: Any, indent: str, *, is_open: bool = False) -> Iterator[str]:
    """`key: value` on one line where that is short, in block style otherwise."""
    head = f"{indent}{scalar_text(key)}:"
    line = f"{head} {flow_text(value)}"
    if not (isinstance(value, dict | list) and value) or (not is_open and _is_short(value, line)):
        yield line
    elif isinstance(value, list):
        yield head
        for item in value:
            yield from _item(item, indent + "  ")
    else:
        yield head
        for name, item in value.items():
            yield from _entry(name, item, indent + "  ", is_open=key in ("huggingface", "gguf") and name == "weights")


def _item(value: Any, indent: str) -> Iterator[str]:
    """One item of a list."""
    line = f"{indent}- {flow_text(value)}"
    if isinstance(value, dict) and value and not _is_short(value, line):
        lines = [line for name, item in value.items() for line in _entry(name, item, indent + "  ")]
        yield f"{indent}- {lines[0].lstrip()}"
        yield from lines[1:]
    else:
        yield line


def _is_short(value: dict[str, Any] | list[Any], line: str) -> bool:
    few = isinstance(value, list) or len(value) <= _FEW
    return few and len(line) <= _WIDTH


def flow_text(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar_text(key)}: {flow_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow_text, value)) + "]"
    return scalar_text(value)
