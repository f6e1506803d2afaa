"""Diagnostics as text for people, one line each, annotations of GitHub, or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from axon_compose.diagnostics import Diagnostic, Label, Position, Span
from axon_compose.report._cells import escape, shorten
from axon_compose.report._excerpt import Mark, excerpt, split_lines
from axon_compose.report._style import PLAIN, Style

__all__ = ["FORMS", "Form", "as_dicts", "render"]

Form = Literal["text", "concise", "github", "json"]
FORMS: Final = ("text", "concise", "github", "json")

#: More than a screen does not help.
MAX_SHOWN: Final = 20
_MESSAGE: Final = 500


def render(
    diagnostics: Iterable[Diagnostic],
    sources: Mapping[str, str] | None = None,
    form: Form = "text",
    style: Style = PLAIN,
    *,
    dropped: int = 0,
) -> str:
    """Return diagnostics for a reader, sorted by file and place, without a final line break.

    Args:
        diagnostics: What was found.
        sources: File name to text, for excerpts.
        form: `text` shows excerpts; `concise` is one line each; `github` is workflow commands that annotate a pull
            request; `json` is a list of objects. The first two show 20 and count the rest.
        style: Colours of `text` and `concise`.
        dropped: Further diagnostics that were counted and not kept (`Problems.dropped`).
    """
    found = sorted(diagnostics, key=_order)
    if form == "json":
        return json.dumps(as_dicts(found), indent=2, ensure_ascii=False)
    if form == "github":
        return "\n".join(_github(d) for d in found)
    if form == "concise":
        parts, gap = [_concise(d, style) for d in found[:MAX_SHOWN]], "\n"
    else:
        lines = {file: split_lines(text) for file, text in (sources or {}).items()}
        parts, gap = ["\n".join(_text(d, lines, style)) for d in found[:MAX_SHOWN]], "\n\n"
    rest = max(0, len(found) - MAX_SHOWN) + dropped
    if rest:
        parts.append(style.paint(f"and {rest} more", "strong"))
    return gap.join(parts)


def as_dicts(diagnostics: Iterable[Diagnostic]) -> list[dict[str, Any]]:
    """Return diagnostics as plain data, sorted; lines and columns count from 1, ends are exclusive."""
    return [
        {
            "code": d.code,
            "severity": d.severity,
            "message": d.message,
            "label": d.label or None,
            **_place(d.span),
            "help": d.help,
            "details": list(d.details),
            "labels": [{"message": label.text, **_place(label.span)} for label in d.labels],
        }
        for d in sorted(diagnostics, key=_order)
    ]


def _order(d: Diagnostic) -> tuple[bool, str, Position]:
    return (d.span is None, d.span.file if d.span else "", d.span.start if d.span else Position(0, 0))


def _place(span: Span | None) -> dict[str, Any]:
    if span is None:
        return dict.fromkeys(("file", "line", "column", "end_line", "end_column"))
    start, end = span.start, span.end
    return {
        "file": span.file,
        "line": start.line,
        "column": start.column,
        "end_line": end.line,
        "end_column": end.column,
    }


def _text(d: Diagnostic, sources: Mapping[str, Sequence[str]], style: Style) -> Iterator[str]:
    """Headline, excerpts file by file, details, help."""
    yield f"{style.paint(f'{d.severity}[{d.code}]', d.severity)}{style.paint(': ' + _line(d.message), 'strong')}"
    marks = [Mark(d.span, d.label, "^", d.severity)] if d.span else []
    marks += [Mark(label.span, label.text, "-", "frame") for label in d.labels]
    margin = _margin(marks, sources)
    pad, bar = " " * margin, style.paint("|", "frame")
    for index, file in enumerate(dict.fromkeys(mark.span.file for mark in marks)):
        here = [mark for mark in marks if mark.span.file == file]
        arrow = "-->" if index == 0 else ":::"
        yield f"{pad}{style.paint(arrow, 'frame')} {escape(str(here[0].span))}"
        if sources.get(file):
            yield f"{pad} {bar}"
            yield from excerpt(here, sources[file], margin, style)
        else:
            yield from (f"{pad} = {_line(mark.label)}" for mark in here if mark.label)
    yield from (f"    {_line(line)}" for line in d.details)
    if d.help:
        yield f"{pad} {style.paint('=', 'frame')} {style.paint('help', 'note')}: {_line(d.help)}"


def _margin(marks: Sequence[Mark], sources: Mapping[str, Sequence[str]]) -> int:
    """Columns for the largest line number that is shown."""
    shown = [min(mark.span.end.line, len(sources.get(mark.span.file, ())) or 1) for mark in marks]
    return len(str(max(shown, default=1)))


def _concise(d: Diagnostic, style: Style) -> str:
    where = f"{escape(str(d.span))}: " if d.span else ""
    helped = f" ({_line(d.help)})" if d.help else ""
    message = " ".join([d.message, *map(str.strip, d.details)])
    return f"{where}{style.paint(f'{d.severity}[{d.code}]', d.severity)}: {_line(message)}{helped}"


def _line(text: str) -> str:
    return escape(shorten(text, _MESSAGE))


def _github(d: Diagnostic) -> str:
    """A workflow command; GitHub decodes %25, %0D, %0A, and in properties %3A and %2C."""
    parts = [d.message, *d.details, d.label, f"help: {d.help}" if d.help else "", *map(_github_label, d.labels)]
    message = "\n".join(_line(part) for part in parts if part)
    properties = {"title": d.code}
    if d.span:
        start, end = d.span.start, d.span.end
        properties = {"file": escape(d.span.file), "line": str(start.line), "col": str(start.column)}
        if end.line > start.line:
            properties["endLine"] = str(end.line)
        elif end.column > start.column:
            properties["endColumn"] = str(end.column - 1)
        properties["title"] = d.code
    fields = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{d.severity} {fields}::{_data(message)}"


def _github_label(label: Label) -> str:
    return f"{label.span}: {label.text}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
