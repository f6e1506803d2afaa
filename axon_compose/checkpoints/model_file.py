"""What a built folder's `model_file` imports: the classes that `mlx_lm` asks of an architecture, with their folder."""

from __future__ import annotations

from pathlib import Path

from axon_compose.checkpoints.files import FolderParts
from axon_compose.model.mlx_lm import Model, ModelArgs

__all__ = ["ModelArgs", "model_in"]


def model_in(file: str) -> type[Model]:
    """The class of the model of a folder: a device of several reads its part of the weights from there.

    Args:
        file: The Python file in the folder.
    """
    return type(
        "Model", (Model,), {"reader": FolderParts(Path(file).absolute().parent), "__module__": Model.__module__}
    )
