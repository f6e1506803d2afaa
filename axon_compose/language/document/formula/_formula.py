"""A formula: its text, the names that it uses, and its value once those are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from axon_compose.language.document.formula._evaluate import evaluate, origin_of
from axon_compose.language.document.formula._parse import parse_tree
from axon_compose.language.document.formula._tree import Node, free_names
from axon_compose.language.document.formula._words import Meter
from axon_compose.record import record

__all__ = ["Formula", "parse"]


@record
class Formula:
    """A formula that was read and found well-formed.

    Attributes:
        text: As written, the leading `=` included.
        tree: Its parts.
        places: Every name that it uses, in the order of the text, with the offsets of each use.
    """

    text: str
    tree: Node = field(repr=False, compare=False)
    places: Mapping[str, tuple[tuple[int, int], ...]] = field(repr=False, compare=False)

    def __str__(self) -> str:
        return self.text

    @property
    def names(self) -> frozenset[str]:
        """The names that it uses, in a branch that is not taken too."""
        return frozenset(self.places)

    def evaluate(self, names: Mapping[str, Any], meter: Meter | None = None) -> Any:
        """Compute the value.

        Operators mean what they mean in Python, with these differences. `/` of two integers is an integer
        if the division is exact (`4096 / 32` is 128) and a float otherwise. A boolean is not a number. Only numbers and
        texts have an order. `+` and `*` work on lists and texts as in Python, `%` on numbers alone. A mapping has no
        key twice; `a | b` has the keys of both mappings, with the values of `b`. `and`, `or` and `a if c else b`
        compute only what they need.

        Args:
            names: Values by name; may hold more than `self.names`. Null, booleans, numbers, strings, lists,
                mappings; anything else can only be passed on and compared.
            meter: Counts the work.

        Returns:
            A value of at most 100,000 parts. Whole numbers have at most 256 bits, floats are finite.

        Raises:
            FormulaError: There is no value: division by zero, a position out of range, an unknown key or name,
                kinds that do not fit, or a result that is too large.
        """
        return evaluate(self.tree, names, meter)

    def origin(self, names: Mapping[str, Any]) -> tuple[str | int, ...] | None:
        """The part of a named value that it passes on as it is, as name, keys and positions; None if it computes.

        Raises:
            FormulaError: There is no value.
        """
        return origin_of(self.tree, names)


def parse(text: str) -> Formula:
    """Read a formula, such as `=hidden_size // num_heads`.

    Takes time linear in the text: at most 2000 characters, at most 64 levels deep.

    Raises:
        FormulaError: It is none; says which characters are to blame, and what was expected.
    """
    tree = parse_tree(text)
    places: dict[str, tuple[tuple[int, int], ...]] = {}
    for name in free_names(tree):
        places[name.id] = (*places.get(name.id, ()), (name.start, name.end))
    return Formula(text, tree, places)
