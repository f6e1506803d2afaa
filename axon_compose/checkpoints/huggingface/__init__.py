"""config.json of a published checkpoint to dims of a family file, and back; imports no mlx."""

from axon_compose.checkpoints.huggingface._config import read_config
from axon_compose.checkpoints.huggingface._dims import field_names, fields_used, overlay_of, with_config
from axon_compose.checkpoints.huggingface._families import Family, families, family_of
from axon_compose.checkpoints.huggingface._written import (
    exported_as,
    model_type_of,
    original_config,
    whole_config,
    with_dims,
    with_missing,
)

__all__ = [
    "Family",
    "exported_as",
    "families",
    "family_of",
    "field_names",
    "fields_used",
    "model_type_of",
    "original_config",
    "overlay_of",
    "read_config",
    "whole_config",
    "with_config",
    "with_dims",
    "with_missing",
]
