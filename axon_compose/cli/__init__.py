"""The command line: arguments to one of the other packages, and what comes back to the terminal."""

from axon_compose.cli._imports import kept, without_plugins

without_plugins()
with kept():
    from axon_compose.cli._main import main

__all__ = ["main"]
