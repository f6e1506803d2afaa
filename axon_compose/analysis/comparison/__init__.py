"""Several models in one table: what each costs, and what was measured of it."""

from axon_compose.analysis.comparison._columns import Column
from axon_compose.analysis.comparison._table import Comparison, Row, UnknownColumn

__all__ = ["Column", "Comparison", "Row", "UnknownColumn"]
