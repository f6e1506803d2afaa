"""A look-up that fails in a formula, reported where the value is written that it fails for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from axon_compose.diagnostics import Label, Problems, Span
from axon_compose.language.document._document import Document, Path, within
from axon_compose.language.document._text_error import quote
from axon_compose.language.document.formula import FormulaError, is_formula
from axon_compose.language.document.formula import parse as parse_formula
from axon_compose.language.document.formula._operations import describe

__all__ = ["report_lookup"]

#: Most dims that a value is followed through.
_MAX_STEPS: Final = 16


def report_lookup(
    error: FormulaError, formula: Span, names: Mapping[str, Any], document: Document, problems: Problems
) -> bool:
    """Report a failed look-up at the dim whose value it fails for; false if no dim's value is to blame.

    That is a value which comes from elsewhere than the formula: a config.json, a setting, a file that extends the
    other. Inside of one file the formula is as likely to be wrong.

    Args:
        error: The fault.
        formula: Its characters in the formula.
        names: What the formula knows.
        document: Where dims are written; those of a checkpoint are in its config.json.
        problems: Collects the fault.
    """
    path = _written_at(error.origin, names, document) if error.origin else None
    if path is None or document.place("dims", *path).file == formula.file:
        return False
    value: Any = document.envelope.dims
    for step in path:
        value, outer = value[step], value
    shown = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")
    if error.missing == "key":
        text = quote(value if isinstance(value, str) else json.dumps(value))
        message, label = f"`{shown}` is {text}, which no case of the formula is for", "looked up here"
    elif error.missing == "items":
        message, label = f"`{shown}` is {describe(value)}, and has no items", "an item is asked for here"
    else:
        things = "characters" if isinstance(value, str) else "items"
        message, label = f"`{shown}` has too few {things}: {len(value)}", "more are asked for here"
    hint = error.help if error.missing == "key" else None
    problems.error("AX123", message, _place(document, path, outer), help=hint, labels=[Label(formula, label)])
    return True


def _written_at(origin: Path, names: Mapping[str, Any], document: Document) -> Path | None:
    """The path below `dims` at which a value is written, through formulas that only pass it on."""
    for _ in range(_MAX_STEPS):
        written: Any = document.envelope.dims
        for count, step in enumerate(origin):
            if count == 0 and step not in written:
                return None
            written = written[step]
            if is_formula(written):
                passed = _passed(written, names)
                if passed is None:
                    return None
                origin = (*passed, *origin[count + 1 :])
                break
        else:
            return origin
    return None


def _passed(formula: str, names: Mapping[str, Any]) -> Path | None:
    try:
        return parse_formula(formula).origin(names)
    except FormulaError:
        return None


def _place(document: Document, path: Path, outer: Any) -> Span:
    """A value inside dims, also a character of a text."""
    place = document.place("dims", *path)
    at = path[-1]
    if isinstance(outer, str) and isinstance(at, int):
        at %= len(outer)
        return within(place, at, at + 1, len(outer))
    return place
