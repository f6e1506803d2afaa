"""Advice on a valid description: what is valid but suspicious; imports no mlx."""

from axon_compose.analysis.lint._advice import Advice
from axon_compose.analysis.lint._rule import Finding, Rule
from axon_compose.analysis.lint._rules import RULES, advise

__all__ = ["RULES", "Advice", "Finding", "Rule", "advise"]
