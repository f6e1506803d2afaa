"""In the wheel `mlx_lm/models/axon_compose.py`: where mlx_lm looks for the classes of a folder without `model_file`."""

from axon_compose.model.mlx_lm import Model, ModelArgs

__all__ = ["Model", "ModelArgs"]
