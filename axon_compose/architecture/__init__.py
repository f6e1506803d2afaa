"""The front door from Python: `load` a description, look at it, build it, put several side by side.

It imports every room, lazily where that costs, and has no logic of its own; `cli` and `testing` alone import it.
"""

from axon_compose.architecture._architecture import Architecture
from axon_compose.architecture._compare import Model, compare, gather
from axon_compose.architecture._load import load

__all__ = ["Architecture", "Model", "compare", "gather", "load"]
