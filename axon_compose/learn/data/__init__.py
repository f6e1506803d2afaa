"""Text to batches: sources to documents, documents to token files that are prepared once, tokens to sequences.

What comes in: names of files, folders, patterns, standard input or the texts of Python itself, and a tokenizer. What
goes out: `TextBatches`. Tokens are written once for each content and mapped into memory.
"""

from axon_compose.learn.data._packed import TextBatches
from axon_compose.learn.data._prepare import Prepared, prepare
from axon_compose.learn.data._sources import PYTHON_DOCS, Sources
from axon_compose.learn.data._tokens import TokenMaker, token_maker

__all__ = ["PYTHON_DOCS", "Prepared", "Sources", "TextBatches", "TokenMaker", "prepare", "token_maker"]
