"""axon-compose: a compiler from a YAML file to a working MLX language model.

`load` reads a description, `Architecture.plan` says what it is, `Architecture.build` makes the model::

    import axon_compose

    model = axon_compose.load("hybrid-demo").build()
    cache = model.make_cache()

`save` writes a model with what it has learned as a folder, and `load_model` reads it back.

`Architecture.cost`, `check`, `diff` and `lint` say what it needs, whether it is right, how it differs from another
one and what is valid but suspicious; `compare` puts several side by side.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from axon_compose.diagnostics import ArchitectureError, Diagnostic

if TYPE_CHECKING:
    from axon_compose.architecture import Architecture, compare, load
    from axon_compose.checkpoints.saved import save
    from axon_compose.checkpoints.trained import load_model

__version__ = "0.2.0"

__all__ = ["Architecture", "ArchitectureError", "Diagnostic", "__version__", "compare", "load", "load_model", "save"]

#: Where the names come from that are imported when they are asked for.
_HOMES: Final = {
    "Architecture": "axon_compose.architecture",
    "compare": "axon_compose.architecture",
    "load": "axon_compose.architecture",
    "load_model": "axon_compose.checkpoints.trained",
    "save": "axon_compose.checkpoints.saved",
}


def __getattr__(name: str) -> Any:
    """Import the compiler when it is asked for: a plugin that imports the registry does not pay for it."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
