"""Text to nodes that know their place; knows no layer."""

from axon_compose.language.source._nodes import Entry, Mapping, Node, Scalar, Sequence, Value, nodes_at, plain
from axon_compose.language.source._plain import Unwritable, scalar_text, to_source, to_yaml
from axon_compose.language.source._reader import read, read_again, read_file
from axon_compose.language.source._text import MAX_BYTES

__all__ = [
    "MAX_BYTES",
    "Entry",
    "Mapping",
    "Node",
    "Scalar",
    "Sequence",
    "Unwritable",
    "Value",
    "nodes_at",
    "plain",
    "read",
    "read_again",
    "read_file",
    "scalar_text",
    "to_source",
    "to_yaml",
]
