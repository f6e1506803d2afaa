"""A check report for the terminal: one line for each truth."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import TYPE_CHECKING

from axon_compose.report._style import Style
from axon_compose.report._table import table

if TYPE_CHECKING:
    from axon_compose.proof.check import CheckReport, Truth

__all__ = ["check_text", "failures", "head", "rows", "verdict"]

#: Names of checks before one detail.
_NAMED = 4

_SIGNS = {"<=": "≤", ">=": "≥"}


def check_text(report: CheckReport, style: Style) -> str:
    """The report as text: ok or FAIL, what was measured and what it may be; below, where the failures are."""
    lines = table(*rows(report), style=style)
    painted = [lines[0]]
    for line, truth in zip(lines[1:], report.truths, strict=True):
        word = "ok" if truth.passed else "FAIL"
        painted.append(line.replace(word, style.paint(word, "good" if truth.passed else "error"), 1))
    where = [f"  {style.bold(names)}: {text}" for names, text in failures(report)]
    return "\n".join([style.bold(head(report)), "", *painted, "", *where, verdict(report)]) + "\n"


def failures(report: CheckReport, *, figures: bool = False) -> Iterator[tuple[str, str]]:
    """Where the failures are: names of checks, and their detail, once for those that fail in the same way.

    Args:
        report: What was found.
        figures: Say also what was measured.
    """
    alike: dict[str, list[str]] = {}
    for truth in report.failed:
        text = "; ".join(filter(None, [_measured(truth) if figures else "", truth.detail]))
        alike.setdefault(text, []).append(truth.name)
    for text, names in alike.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        yield ", ".join(names[:_NAMED]) + more, text


def head(report: CheckReport) -> str:
    """What was checked."""
    of = f" of {report.layers_described}" if report.layers != report.layers_described else ""
    sizes = " in small sizes" if report.shrunk else ""
    return f"{report.name}: {report.layers}{of} layers{sizes}, seed {report.seed}"


def rows(report: CheckReport) -> tuple[list[list[str]], str]:
    """A row for each check, and how columns are aligned."""
    return [["", "check", "measured", "limit", "claim"], *(_row(truth) for truth in report.truths)], "<<><<"


def _row(truth: Truth) -> list[str]:
    limit = "" if truth.limit is None else f"{_SIGNS[truth.relation]} {_number(truth.limit)}"
    return ["ok" if truth.passed else "FAIL", truth.name, _number(truth.figure), limit, truth.claim]


def _measured(truth: Truth) -> str:
    """What was measured and what it may be, in words; empty if nothing could be."""
    if truth.figure is None or truth.limit is None:
        return ""
    return f"measured {_number(truth.figure)}, limit {_SIGNS[truth.relation]} {_number(truth.limit)}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return str(int(value)) if isfinite(value) and value == int(min(max(value, -1e9), 1e9)) else f"{value:.1e}"


def verdict(report: CheckReport) -> str:
    """How many checks passed or failed."""
    total, failed = len(report.truths), len(report.failed)
    if failed:
        return f"{failed} of {total} checks failed"
    return f"{total} checks passed" if total != 1 else "1 check passed"
