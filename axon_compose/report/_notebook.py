"""What a notebook shows of results whose text is made for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from axon_compose.diagnostics import Diagnostic
from axon_compose.plan import Plan
from axon_compose.report import _check, _show
from axon_compose.report._html import bold, html_table, paragraph
from axon_compose.report._style import PLAIN
from axon_compose.report._verify import verify_text

if TYPE_CHECKING:
    from axon_compose.proof.check import CheckReport
    from axon_compose.proof.verify import Verification

__all__ = ["advice_html", "check_html", "plan_html", "verification_html"]


def advice_html(advice: Sequence[Diagnostic]) -> str:
    """Code, place, message and help of each."""
    if not advice:
        return paragraph("nothing to say")
    rows = [[d.code, str(d.span or ""), d.message, d.help or ""] for d in advice]
    return html_table([["code", "place", "advice", "what to do"], *rows], "<<<<")


def check_html(report: CheckReport) -> str:
    """A row for each truth, then where the failures are."""
    failed = (paragraph(f"{truth.name}: {truth.detail}") for truth in report.failed if truth.detail)
    return "".join([bold(_check.head(report)), html_table(*_check.rows(report)), *failed, bold(_check.verdict(report))])


def plan_html(plan: Plan) -> str:
    """The stack and its totals, as `show` has them."""
    return "".join([bold(_show.head(plan)), html_table(*_show.layers(plan)), html_table(*_show.totals(plan))])


def verification_html(found: Verification) -> str:
    """The report as it is in a terminal."""
    return f"<pre>{escape(verify_text(found, PLAIN))}</pre>"
