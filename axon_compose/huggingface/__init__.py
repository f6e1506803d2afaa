"""config.json of a published checkpoint to dims of a family file, and back; imports no mlx."""

from axon_compose.huggingface._config import Config, make_config, read_config
from axon_compose.huggingface._dims import fields_used, overlay_of, with_config
from axon_compose.huggingface._families import Family, families, family_of
from axon_compose.huggingface._written import model_type_of, original_config, whole_config, with_dims, with_missing

__all__ = [
    "Config",
    "Family",
    "families",
    "family_of",
    "fields_used",
    "make_config",
    "model_type_of",
    "original_config",
    "overlay_of",
    "read_config",
    "whole_config",
    "with_config",
    "with_dims",
    "with_missing",
]
