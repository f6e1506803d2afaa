"""Editing trained models: an edit file to a plan, a plan to a folder; planning imports no mlx."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from axon_compose.surgery._perform import perform
    from axon_compose.surgery._plan import Step, SurgeryPlan, plan_edit

__all__ = ["Step", "SurgeryPlan", "perform", "plan_edit"]

#: Where the names come from; what writes and runs models needs mlx.
_HOMES: Final = {
    "Step": "_plan",
    "SurgeryPlan": "_plan",
    "perform": "_perform",
    "plan_edit": "_plan",
}


def __getattr__(name: str) -> Any:
    """Each name is imported when it is asked for."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
