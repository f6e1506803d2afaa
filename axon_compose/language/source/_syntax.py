"""The parser's own complaints, in words that help."""

from __future__ import annotations

from typing import Any, Final

from axon_compose.diagnostics import Label, Position, Problems, Span
from axon_compose.language.source._builder import report_depth
from axon_compose.language.source._text import position

__all__ = ["report_syntax_error"]

# What the parser says (either of the two, C or Python), what we say, what to do about it.
_FIT: Final = ("this does not fit here", "check the indentation and the quotes before it")
_DASH: Final = ("this does not fit the list around it", "give each `- ` of a list the same indentation")
_COLON: Final = ("a line without `key: value`", "add the `:`, or indent it if it belongs to the line above")
_BAR: Final = ("unexpected text after `|` or `>`", "begin the text on the next line, or put it in quotes")
_WORDS: Final[tuple[tuple[str, tuple[str, str | None]], ...]] = (
    (
        "mapping values are not",
        ("unexpected `:`", "check the indentation, or quote a text with `: ` in it"),
    ),
    ("sequence entries are not", ("a list cannot begin here", "begin `- ` on a line of its own")),
    ("could not find expected ':'", _COLON),
    ("expected key", _FIT),
    ("expected '-' indicator", _DASH),
    ("expected <block end>", _FIT),
    ("',' or '}'", ("expected `,` or `}`", None)),
    ("',' or ']'", ("expected `,` or `]`", None)),
    ("undefined tag handle", ("a tag that is not defined", "remove it: tags are not supported")),
    ("unknown escape", ("an unknown escape in double quotes", "write `\\\\` for a backslash, or use single quotes")),
    ("invalid Unicode", ("an escape that is not a character", None)),
    ("incompatible YAML", ("a YAML version that is not supported", "remove the line; YAML 1.2 is what is read")),
    ("comment or line break", _BAR),
    ("chomping or indentation", _BAR),
    ("alphabetic or numeric", ("a name must follow `*` and `&`", "quote a text that begins with one of them")),
    ("node content", ("expected a value", None)),
    ("<document start>", ("text after the end of the document", "check the indentation and the brackets before it")),
)


def report_syntax_error(error: Any, text: str, bracket: Span | None, file: str, problems: Problems) -> None:
    """Report a `yaml.MarkedYAMLError` as AX001, or AX002 for a tab in the indentation.

    Args:
        error: What the parser raised.
        text: What it was parsing.
        bracket: The innermost bracket that is open.
        file: Name for the span.
        problems: Where to report.
    """
    at, context, problem = error.problem_mark or error.context_mark, error.context_mark, error.problem or ""
    if at is None:
        problems.error("AX001", _clean(problem), _point(file, Position(1, 1)))
        return
    if "could not find expected ':'" in problem and context is not None:
        at = context  # the parser notices on the next line
    character = text[at.index : at.index + 1]
    span = _point(file, _position(at, text), character)
    if "nesting depth" in problem:
        report_depth(span, problems)
        return
    opened = bracket and _point(file, bracket.start, "[")
    if "cannot start any token" in problem:
        _report_character(character, span, problems)
    elif "quoted scalar" in (error.context or "") and "end of" in problem:
        quote = _point(file, _position(context, text), '"')
        problems.error("AX001", "this quote is never closed", quote, label="opened here")
    elif opened and at.index >= len(text.rstrip()):
        problems.error("AX001", "this bracket is never closed", opened, label="opened here")
    else:
        message, advice = next((ours for theirs, ours in _WORDS if theirs in problem), (_clean(problem), None))
        labels = (Label(opened, "opened here"),) if opened else ()
        advice = (opened and _inside_brackets(text, at.index)) or advice
        problems.error("AX001", message, span, label="unexpected", help=advice, labels=labels)


def _report_character(character: str, span: Span, problems: Problems) -> None:
    if character == "\t":
        problems.error("AX002", "a tab where only spaces are allowed", span, label="a tab", help="indent with spaces")
        return
    advice = f"put a text that begins with `{character}` in quotes"
    problems.error("AX001", f"a value cannot begin with `{character}`", span, label="unexpected", help=advice)


def _inside_brackets(text: str, index: int) -> str | None:
    """Advice for brackets inside brackets, which a formula or `${...}` needs quotes for."""
    line = text[:index].splitlines()[-1] if index else ""
    value = max(line.rfind(mark) for mark in ",:[{") + 1
    if line[value:].lstrip().startswith("="):
        return "inside `{}` and `[]`, put a formula that has brackets, braces or commas in quotes"
    if text[index - 1 : index + 1] == "${":
        return "there is no `${...}` here: write a formula such as `=hidden_size`"
    return None


def _position(mark: Any, text: str) -> Position:
    """Where a mark stands; libyaml's end of the text is on a line of its own, which may not be there."""
    return position(text, mark.index) if mark.index >= len(text) else Position(mark.line + 1, mark.column + 1)


def _point(file: str, start: Position, character: str = "") -> Span:
    width = 1 if character.strip() or character == "\t" else 0
    return Span(file, start, Position(start.line, start.column + width))


def _clean(text: str) -> str:
    return " ".join(text.split()) or "this is not YAML"
