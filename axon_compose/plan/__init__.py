"""A document and a registry to a plan, layer by layer; imports no mlx."""

from axon_compose.plan._change import change_layer, layer_cache
from axon_compose.plan._compile import (
    Compiled,
    Given,
    Overlay,
    Text,
    compile_node,
    compile_source,
    compile_text,
    is_shipped,
)
from axon_compose.plan._declared import Declared, declared, refusal
from axon_compose.plan._numbers import layer_numbers, layer_ranges
from axon_compose.plan._plan import Branch, Layer, MaskGroup, Member, Plan, Use
from axon_compose.plan._positions import attends, position_words, takes_position
from axon_compose.plan._print import plan_to_dict
from axon_compose.plan._resolve import resolve_plan
from axon_compose.plan._totals import (
    DTYPES,
    Capabilities,
    active_parameters,
    cache_nbytes,
    capabilities,
    kept_in_float32,
    number_widths,
    running_nbytes,
    total_parameters,
    weight_nbytes,
)

__all__ = [
    "DTYPES",
    "Branch",
    "Capabilities",
    "Compiled",
    "Declared",
    "Given",
    "Layer",
    "MaskGroup",
    "Member",
    "Overlay",
    "Plan",
    "Text",
    "Use",
    "active_parameters",
    "attends",
    "cache_nbytes",
    "capabilities",
    "change_layer",
    "compile_node",
    "compile_source",
    "compile_text",
    "declared",
    "is_shipped",
    "kept_in_float32",
    "layer_cache",
    "layer_numbers",
    "layer_ranges",
    "number_widths",
    "plan_to_dict",
    "position_words",
    "refusal",
    "resolve_plan",
    "running_nbytes",
    "takes_position",
    "total_parameters",
    "weight_nbytes",
]
