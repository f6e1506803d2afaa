"""A plan to the plans of several devices that run it together; imports no mlx."""

from axon_compose.devices._tensor import TensorPlan, split_plan

__all__ = ["TensorPlan", "split_plan"]
