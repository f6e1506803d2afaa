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

if TYPE_CHECKING:
    from axon_compose.architecture import Architecture, compare, load
    from axon_compose.checkpoints.saved import save
    from axon_compose.checkpoints.trained import load_model
    from axon_compose.diagnostics import ArchitectureError, Diagnostic

__version__ = "0.2.0"

__all__ = ["Architecture", "ArchitectureError", "Diagnostic", "__version__", "compare", "load", "load_model", "save"]

#: Where the names come from that are imported when they are asked for.
_HOMES: Final = {
    "Architecture": "architecture",
    "ArchitectureError": "diagnostics",
    "Diagnostic": "diagnostics",
    "compare": "architecture",
    "load": "architecture",
    "load_model": "checkpoints.trained",
    "save": "checkpoints.saved",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: neither a plugin that imports the registry nor a command that begins pays for more."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, also those that are not imported yet: what completion in a shell or notebook offers."""
    helpers = {"Any", "Final", "TYPE_CHECKING", "import_module"}
    return sorted({*globals(), *__all__} - helpers)
