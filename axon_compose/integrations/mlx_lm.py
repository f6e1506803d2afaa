"""What `axon_model.py` of a folder built by version 0.1 imports."""

from axon_compose.model.mlx_lm import Model, ModelArgs

__all__ = ["Model", "ModelArgs"]
