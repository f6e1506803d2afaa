"""Formulas: a value that begins with `=`, computed from named values through a checked tree, never `eval`."""

from __future__ import annotations

from axon_compose.language.document.formula._evaluate import Meter
from axon_compose.language.document.formula._formula import Formula, is_formula, parse
from axon_compose.language.document.formula._tokens import FUNCTIONS, RESERVED, FormulaError

__all__ = ["FUNCTIONS", "RESERVED", "Formula", "FormulaError", "Meter", "is_formula", "parse"]
