"""The table of rules, and the run over all of them."""

from __future__ import annotations

from typing import Final

from axon_compose.analysis.lint import _hardware, _sight, _values, _written
from axon_compose.analysis.lint._rule import Rule
from axon_compose.diagnostics import Diagnostic, Problems
from axon_compose.language.document import Document
from axon_compose.plan import Plan

__all__ = ["RULES", "advise"]

RULES: Final = (
    Rule("AX701", _written.unused_parts),
    Rule("AX702", _written.unused_dims),
    Rule("AX703", _written.idle_overrides),
    Rule("AX704", _hardware.unfused_heads),
    Rule("AX705", _hardware.unquantised_rows),
    Rule("AX706", _hardware.ragged_vocabulary),
    Rule("AX707", _hardware.large_caches),
    Rule("AX708", _sight.nothing_beyond_the_window),
    Rule("AX709", _sight.window_never_closes),
    Rule("AX710", _sight.short_rotation),
    Rule("AX711", _sight.no_positions),
    Rule("AX712", _sight.no_mixer),
    Rule("AX713", _values.every_expert),
    Rule("AX714", _values.unusual_eps),
    Rule("AX715", _values.mostly_vocabulary),
    Rule("AX716", _sight.window_without_positions),
)


def advise(document: Document, plan: Plan) -> tuple[Diagnostic, ...]:
    """Everything that the rules say of a description, in the order of the file; each is a warning."""
    problems = Problems()
    for rule in RULES:
        for found in rule.check(document, plan):
            span = document.place(*found.path, key=found.key)
            problems.warning(rule.code, found.message, span, help=found.help)
    return tuple(problems)
