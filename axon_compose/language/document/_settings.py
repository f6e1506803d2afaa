"""`--set`: values from outside laid over a file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from axon_compose.diagnostics import Position, Problems, Span
from axon_compose.language.document._document import Document
from axon_compose.language.document._formulas import names_in_formulas
from axon_compose.language.document._merge import merge
from axon_compose.language.source import Entry, Mapping, Node, Sequence, plain, read

__all__ = ["check_new_dims", "names_from_settings", "reading_first", "with_settings"]

#: What spans of a setting have in place of a file, before its text.
_FILE: Final = "--set"


def names_from_settings(node: Node | None) -> list[Any]:
    """The items of a list that settings have added."""
    items = node.items if isinstance(node, Sequence) else ()
    return [plain(item) for item in items if item.span.file.startswith(f"{_FILE} ")]


def reading_first(settings: Iterable[str]) -> tuple[list[str], list[str]]:
    """The settings that say how a config.json is read, which come before it is laid over the file, and the others."""
    found: tuple[list[str], list[str]] = [], []
    for setting in settings:
        section = setting.partition("=")[0].partition(".")[0].strip()
        found[section not in ("huggingface", "gguf")].append(setting)
    return found


def with_settings(node: Mapping, settings: Iterable[str], problems: Problems) -> Mapping:
    """Lay `key.key=value` texts over a node; the value is YAML."""
    for setting in settings:
        laid = _setting(setting, problems)
        if laid is not None:
            node = merge(node, laid)
    return node


def _setting(setting: str, problems: Problems) -> Mapping | None:
    path, equals, text = setting.partition("=")
    file = f"{_FILE} {setting}"
    span = Span(file, Position(1, 1), Position(1, max(2, len(setting) + 1)))
    keys = path.strip().split(".")
    if not equals or not all(keys):
        problems.sources[file] = setting
        problems.error("AX114", "expected `key.key=value`", span, help="for example `--set dims.hidden_size=512`")
        return None
    # Read as `key: value`, with a key one shorter than the path, since `: ` is one longer than `=`.
    laid = read(f"{'x' * max(1, len(path) - 1)}: {text}", file, problems)
    problems.sources[file] = setting
    if not isinstance(laid, Mapping) or len(laid.entries) != 1:
        return None
    value = next(iter(laid.entries.values())).node
    for key in reversed(keys):
        value = Mapping({key: Entry(span, value)}, span)
    return value if isinstance(value, Mapping) else None


def check_new_dims(document: Document, before: Mapping, problems: Problems) -> None:
    """Report dims that settings add and that no formula uses: such a name can only be misspelt.

    Args:
        document: The file with the settings.
        before: The file without them.
        problems: Collects faults.
    """
    written = before.get("dims")
    known = written.entries if isinstance(written, Mapping) else {}
    new = [name for name in document.envelope.dims if name not in known]
    if not new or any(str(path[0]).endswith(".formula") for path in document.broken):
        return
    used = names_in_formulas(document.node) | {"hidden_size", "vocab_size"}
    for name in new:
        if name not in used:
            near = problems.nearest(name, known)
            problems.error(
                "AX101",
                f"unknown dim `{name}`",
                document.place("dims", name, key=True),
                label="not a dim of the file, and no formula uses it",
                help=f"did you mean `{near}`?" if near else f"dims are {', '.join(known)}",
            )
