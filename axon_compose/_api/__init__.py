"""The front door from Python: `load` a description, look at it, build it."""

from axon_compose._api._architecture import Architecture
from axon_compose._api._load import compile_text, load

__all__ = ["Architecture", "compile_text", "load"]
