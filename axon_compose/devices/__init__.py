"""A plan to the plans of several devices that run it together; imports no mlx."""

from axon_compose.devices._pipeline import PipelinePlan, Stage, Visit, pipeline_plan
from axon_compose.devices._shares import Share, Size, shares
from axon_compose.devices._stages import (
    given_stages,
    layer_loads,
    own_layers,
    require_own_weights,
    source_use,
    stages,
    varies,
)
from axon_compose.devices._tensor import TensorPlan, devices_of, split_plan
from axon_compose.devices._tied import beside_embedding, tables

__all__ = [
    "PipelinePlan",
    "Share",
    "Size",
    "Stage",
    "TensorPlan",
    "Visit",
    "beside_embedding",
    "devices_of",
    "given_stages",
    "layer_loads",
    "own_layers",
    "pipeline_plan",
    "require_own_weights",
    "shares",
    "source_use",
    "split_plan",
    "stages",
    "tables",
    "varies",
]
