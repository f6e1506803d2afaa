"""Formulas: a value that begins with `=`, computed from named values through a checked tree, never `eval`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_compose.language.document.formula._words import FUNCTIONS, RESERVED, FormulaError, Meter, is_formula
from axon_compose.machine.lazy import importing

if TYPE_CHECKING:
    from axon_compose.language.document.formula._formula import Formula, parse

__all__ = ["FUNCTIONS", "RESERVED", "Formula", "FormulaError", "Meter", "is_formula", "parse"]

# What reads and computes formulas is imported for the first one.
__getattr__ = importing(__name__, dict.fromkeys(("Formula", "parse"), "_formula"))
