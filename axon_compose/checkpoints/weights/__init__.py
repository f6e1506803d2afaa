"""Tensors of a published checkpoint to the weights of a model and back, by the rules of the section `huggingface`.

Planning (`plan_load`, `plan_save`) needs headers alone and imports no mlx; `load_checkpoint` and `save_checkpoint` do.
"""

from axon_compose.checkpoints.weights._checkpoint import checkpoint_plan
from axon_compose.checkpoints.weights._faults import WeightFaults, WeightMismatch
from axon_compose.checkpoints.weights._headers import Checkpoint, TensorHeader, read_checkpoint
from axon_compose.checkpoints.weights._load import Progress, load_checkpoint
from axon_compose.checkpoints.weights._memory import load_nbytes
from axon_compose.checkpoints.weights._packed import Packing
from axon_compose.checkpoints.weights._pieces import by_rows
from axon_compose.checkpoints.weights._plan_load import LoadPlan, plan_load
from axon_compose.checkpoints.weights._plan_save import SavePlan, name_kind, plan_save
from axon_compose.checkpoints.weights._save import save_checkpoint
from axon_compose.checkpoints.weights._some import Parameters
from axon_compose.checkpoints.weights._transfer import Output, Transfer

__all__ = [
    "Checkpoint",
    "LoadPlan",
    "Output",
    "Packing",
    "Parameters",
    "Progress",
    "SavePlan",
    "TensorHeader",
    "Transfer",
    "WeightFaults",
    "WeightMismatch",
    "by_rows",
    "checkpoint_plan",
    "load_checkpoint",
    "load_nbytes",
    "name_kind",
    "plan_load",
    "plan_save",
    "read_checkpoint",
    "save_checkpoint",
]
