"""A check report for the terminal: one line for each truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_compose.report._style import Style
from axon_compose.report._table import table

if TYPE_CHECKING:
    from axon_compose.proof.check import CheckReport, Truth

__all__ = ["check_text", "head", "rows", "verdict"]

_SIGNS = {"<=": "≤", ">=": "≥"}


def check_text(report: CheckReport, style: Style) -> str:
    """The report as text: ok or FAIL, what was measured and what it may be; below, where the failures are."""
    lines = table(*rows(report), style=style)
    painted = [lines[0]]
    for line, truth in zip(lines[1:], report.truths, strict=True):
        word = "ok" if truth.passed else "FAIL"
        painted.append(line.replace(word, style.paint(word, "good" if truth.passed else "error"), 1))
    where = [f"  {style.bold(truth.name)}: {truth.detail}" for truth in report.truths if not truth.passed]
    return "\n".join([style.bold(head(report)), "", *painted, "", *where, verdict(report)]) + "\n"


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


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return str(int(value)) if value == int(min(max(value, -1e9), 1e9)) else f"{value:.1e}"


def verdict(report: CheckReport) -> str:
    """How many checks passed or failed."""
    total, failed = len(report.truths), len(report.failed)
    if failed:
        return f"{failed} of {total} checks failed"
    return f"{total} checks passed" if total != 1 else "1 check passed"
