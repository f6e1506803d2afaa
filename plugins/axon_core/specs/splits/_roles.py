"""Roles of the weights and biases of projections."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from axon_compose.registry import ONCE, Cut, Dims, Role, Split

__all__ = ["Declared", "Splitting", "projected"]

#: The parameters of a component, as its record gives them.
Declared = Callable[[Any, Dims], Mapping[str, tuple[int, ...]]]
Splitting = Callable[[Any, Dims, int], Split | str]


def projected(params: Iterable[str], cuts: Mapping[str, Cut]) -> dict[str, Role]:
    """Roles of the weights and biases of projections.

    A bias is cut with the rows of its matrix. Where columns are cut, outputs are summed, so it is added once.

    Args:
        params: Names of all parameters of the component.
        cuts: Names of projections to how their matrices are cut; those that the component does not have are left out.
    """
    names, roles = set(params), dict[str, Role]()
    for name, cut in cuts.items():
        if f"{name}.weight" in names:
            roles[f"{name}.weight"] = cut
        if f"{name}.bias" in names:
            roles[f"{name}.bias"] = cut if cut.axis == 0 else ONCE
    return roles
