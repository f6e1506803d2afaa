"""Several models in one table: what each costs, and what was measured of it."""

from axon_compose.comparison._columns import Column
from axon_compose.comparison._compare import Model, compare, gather
from axon_compose.comparison._table import Comparison, Row, UnknownColumn

__all__ = ["Column", "Comparison", "Model", "Row", "UnknownColumn", "compare", "gather"]
