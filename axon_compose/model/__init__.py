"""A plan to an `mlx.nn.Module` with caches and masks wired; knows no YAML."""

from axon_compose.model._alone import needed_layers, run_alone
from axon_compose.model._block import Block, Reuse
from axon_compose.model._build import build, check_shapes, component_weights, largest_parts, random_weights
from axon_compose.model._caches import make_cache, make_caches
from axon_compose.model._calls import BuildError, blamed, weight_fault
from axon_compose.model._folder_model import FolderModel, with_folder_names
from axon_compose.model._group import counting, in_threads, joining
from axon_compose.model._language_model import LanguageModel
from axon_compose.model._places import module_at
from axon_compose.model._quantize import GROUP_SIZE, quantize, rounding
from axon_compose.model._ring import Parts, divided
from axon_compose.model._trial import Trial, try_out

__all__ = [
    "GROUP_SIZE",
    "Block",
    "BuildError",
    "FolderModel",
    "LanguageModel",
    "Parts",
    "Reuse",
    "Trial",
    "blamed",
    "build",
    "check_shapes",
    "component_weights",
    "counting",
    "divided",
    "in_threads",
    "joining",
    "largest_parts",
    "make_cache",
    "make_caches",
    "module_at",
    "needed_layers",
    "quantize",
    "random_weights",
    "rounding",
    "run_alone",
    "try_out",
    "weight_fault",
    "with_folder_names",
]
