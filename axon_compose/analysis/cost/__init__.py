"""What a plan costs: weights, caches, operations, traffic and memory, from declared shapes alone; imports no mlx."""

from axon_compose.analysis.cost._answers import Answers
from axon_compose.analysis.cost._caches import layer_traffic
from axon_compose.analysis.cost._measure import CONTEXTS, check_sequences, cost, kind, part_name
from axon_compose.analysis.cost._reads import bytes_read
from axon_compose.analysis.cost._sheet import ContextCost, CostSheet, Fit, LayerCost, PartCost, TrainingCost
from axon_compose.analysis.cost._training import Training, tokens_at_once
from axon_compose.analysis.cost._weights import BITS, GROUP_SIZE, Storage

__all__ = [
    "BITS",
    "CONTEXTS",
    "GROUP_SIZE",
    "Answers",
    "ContextCost",
    "CostSheet",
    "Fit",
    "LayerCost",
    "PartCost",
    "Storage",
    "Training",
    "TrainingCost",
    "bytes_read",
    "check_sequences",
    "cost",
    "kind",
    "layer_traffic",
    "part_name",
    "tokens_at_once",
]
