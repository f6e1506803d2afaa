"""The front door from Python: `load` a description, look at it, build it, put several side by side.

It imports every room, lazily where that costs, and has no logic of its own; `cli` and `testing` alone import it.
"""

from typing import TYPE_CHECKING

from axon_compose.architecture._architecture import Architecture
from axon_compose.architecture._load import load
from axon_compose.machine.lazy import importing

if TYPE_CHECKING:
    from axon_compose.architecture._compare import Model, compare, gather

__all__ = ["Architecture", "Model", "compare", "gather", "load"]

# Comparing imports what counts and measures: who validates a file does without.
__getattr__ = importing(__name__, dict.fromkeys(("Model", "compare", "gather"), "_compare"))
