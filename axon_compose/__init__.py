"""axon-compose: a compiler from a YAML file to a working MLX language model.

`load` reads a description, `Architecture.plan` says what it is, `Architecture.build` makes the model::

    import axon_compose

    model = axon_compose.load("hybrid-demo").build()
    cache = model.make_cache()
"""

from axon_compose._api import Architecture, load
from axon_compose.diagnostics import ArchitectureError, Diagnostic

__version__ = "0.1.0"

__all__ = ["Architecture", "ArchitectureError", "Diagnostic", "__version__", "load"]
