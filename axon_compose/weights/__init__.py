"""Tensors of a published checkpoint to the weights of a model, by the rules of the section `huggingface`.

Planning (`plan_load`) reads headers alone and imports no mlx; `load_checkpoint` does when called.
"""

from axon_compose.weights._checkpoint import checkpoint_plan
from axon_compose.weights._headers import Checkpoint, TensorHeader, read_checkpoint
from axon_compose.weights._load import Progress, load_checkpoint
from axon_compose.weights._packed import Packing
from axon_compose.weights._plan_load import LoadPlan, plan_load
from axon_compose.weights._transfer import Output, Transfer

__all__ = [
    "Checkpoint",
    "LoadPlan",
    "Output",
    "Packing",
    "Progress",
    "TensorHeader",
    "Transfer",
    "checkpoint_plan",
    "load_checkpoint",
    "plan_load",
    "read_checkpoint",
]
