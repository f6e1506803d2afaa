"""A planned architecture to a short file without generated stacks: what `import` writes; imports no mlx."""

from axon_compose.concrete._layout import flow_text, to_text
from axon_compose.concrete._unroll import unroll

__all__ = ["flow_text", "to_text", "unroll"]
