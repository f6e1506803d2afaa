"""What a plan costs: weights, caches, operations, traffic and memory, from declared shapes alone; imports no mlx."""

from axon_compose.analysis.cost._measure import CONTEXTS, cost, part_name
from axon_compose.analysis.cost._sheet import ContextCost, CostSheet, Fit, LayerCost, PartCost, TrainingCost
from axon_compose.analysis.cost._training import tokens_at_once
from axon_compose.analysis.cost._weights import BITS, GROUP_SIZE, Storage

__all__ = [
    "BITS",
    "CONTEXTS",
    "GROUP_SIZE",
    "ContextCost",
    "CostSheet",
    "Fit",
    "LayerCost",
    "PartCost",
    "Storage",
    "TrainingCost",
    "cost",
    "part_name",
    "tokens_at_once",
]
