"""A planned architecture to a short file without generated stacks: what `import` writes; imports no mlx."""

from axon_compose.plan.concrete._unroll import unroll

__all__ = ["unroll"]
