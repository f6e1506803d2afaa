"""config.json of a published checkpoint to dims of a family file; imports no mlx."""

from axon_compose.huggingface._config import Config, read_config
from axon_compose.huggingface._dims import fields_used, overlay_of, with_config
from axon_compose.huggingface._families import Family, families, family_of

__all__ = ["Config", "Family", "families", "family_of", "fields_used", "overlay_of", "read_config", "with_config"]
