"""Skill tasks: generated, exact, a function of seed and step alone. NumPy is imported when they draw."""

from axon_compose.learn.tasks._task import Task, parse_task, read_task

__all__ = ["Task", "parse_task", "read_task"]
