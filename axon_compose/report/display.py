"""What a notebook or `print` shows of a result, by its type; `axon_compose.notebook` looks it up here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from axon_compose.analysis.comparison import Comparison
from axon_compose.analysis.cost import CostSheet
from axon_compose.analysis.devices import DevicesSheet, SimulationSheet
from axon_compose.analysis.diff import Difference
from axon_compose.analysis.lint import Advice
from axon_compose.plan import Compiled, Plan
from axon_compose.report._comparison import comparison_html, comparison_text
from axon_compose.report._cost import cost_html
from axon_compose.report._devices import devices_html
from axon_compose.report._diagnostics import render
from axon_compose.report._diff import diff_html, diff_text
from axon_compose.report._healed import healed_html, healed_text
from axon_compose.report._notebook import advice_html, check_html, plan_html, verification_html
from axon_compose.report._race import race_html, race_text
from axon_compose.report._ranking import ranking_html, ranking_text
from axon_compose.report._receipt import receipt_html, receipt_text
from axon_compose.report._simulation import simulation_html
from axon_compose.report._surgery import surgery_html, surgery_text

__all__ = ["html_of", "text_of"]


def html_of(result: Any) -> str:
    """The HTML of a result.

    Raises:
        TypeError: If there is none for its type.
    """
    match result:
        case Compiled():
            from axon_compose.report.draw import embedded  # the others need no picture

            return embedded(result.plan())
        case Plan():
            return plan_html(result)
        case CostSheet():
            return cost_html(result)
        case DevicesSheet():
            return devices_html(result)
        case SimulationSheet():
            return simulation_html(result)
        case Difference():
            return diff_html(result)
        case Comparison():
            return comparison_html(result)
        case Advice():
            return advice_html(result)
    return _html_of_proof(result)


def _html_of_proof(result: Any) -> str:
    from axon_compose.learn.race import RaceResult
    from axon_compose.proof.check import CheckReport  # whoever has such a report has imported mlx
    from axon_compose.proof.verify import Verification

    match result:
        case CheckReport():
            return check_html(result)
        case Verification():
            return verification_html(result)
        case RaceResult():
            return race_html(result)
    if found := _of_surgery(result):
        return found[1](result)
    raise TypeError(f"no HTML for {type(result).__name__}")


def text_of(result: Any) -> str:
    """The text of a result, as its command prints it.

    Raises:
        TypeError: If there is none for its type.
    """
    from axon_compose.learn.race import RaceResult

    match result:
        case Difference():
            return diff_text(result)
        case Comparison():
            return comparison_text(result).rstrip()
        case RaceResult():
            return race_text(result).rstrip()
        case Advice():
            return render(result, dict(result.sources)) if result else "nothing to say"
    if found := _of_surgery(result):
        return found[0](result).rstrip()
    raise TypeError(f"no text for {type(result).__name__}")


def _of_surgery(result: Any) -> tuple[Callable[[Any], str], Callable[[Any], str]] | None:
    """What writes text and HTML of a result about an edited model."""
    from axon_compose.surgery import Healed, Ranking, Receipt, SurgeryPlan

    match result:
        case Receipt():
            return receipt_text, receipt_html
        case Healed():
            return healed_text, healed_html
        case Ranking():
            return ranking_text, ranking_html
        case SurgeryPlan():
            return surgery_text, surgery_html
    return None
