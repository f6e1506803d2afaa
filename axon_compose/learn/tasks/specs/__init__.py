"""The records of the built-in skill tasks; imports neither mlx nor NumPy."""

from axon_compose.learn.tasks.specs import mad, reach, recall, states

__all__ = ["FAMILIES"]

FAMILIES = (recall, mad, states, reach)
