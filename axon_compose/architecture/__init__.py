"""The front door from Python: `load` a description, look at it, build it, put several side by side.

It imports every room, lazily where that costs, and has no logic of its own; `cli` and `testing` alone import it.
"""

from typing import TYPE_CHECKING, Any

from axon_compose.architecture._architecture import Architecture
from axon_compose.architecture._load import load

if TYPE_CHECKING:
    from axon_compose.architecture._compare import Model, compare, gather

__all__ = ["Architecture", "Model", "compare", "gather", "load"]


def __getattr__(name: str) -> Any:
    """Comparing imports what counts and measures: who validates a file does without."""
    if name in ("Model", "compare", "gather"):
        from axon_compose.architecture import _compare

        return getattr(_compare, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
