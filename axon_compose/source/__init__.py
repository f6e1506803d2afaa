"""Text to nodes that know their place; knows no layer."""

from axon_compose.source._nodes import Entry, Mapping, Node, Scalar, Sequence, plain

__all__ = ["Entry", "Mapping", "Node", "Scalar", "Sequence", "plain"]
