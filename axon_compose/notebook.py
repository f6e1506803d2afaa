"""How results show themselves: in a notebook and in `print`, by the one look-up into `axon_compose.report`.

Records of lower rooms inherit from here, so that none of them imports `report`. This module is the one exception to the
order of imports; `tests/test_layering.py` names it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

__all__ = ["Printed", "Shown"]

_DISPLAY: Final = "axon_compose.report.display"


class Shown:
    """Shown in a notebook as `report.display` writes it."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return str(_display().html_of(self))


class Printed(Shown):
    """Also printed as `report.display` writes it."""

    __slots__ = ()

    def __str__(self) -> str:
        return str(_display().text_of(self))


def _display() -> Any:
    return import_module(_DISPLAY)  # only when somebody looks
