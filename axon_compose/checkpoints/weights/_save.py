"""Writing the weights of a model as a published checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from axon_compose.checkpoints.files import MAX_SHARD_BYTES, FileRecord, write_shards
from axon_compose.checkpoints.weights._load import Progress
from axon_compose.checkpoints.weights._plan_save import SavePlan
from axon_compose.language.document import Layout

__all__ = ["save_checkpoint"]

#: What the files of a layout have as `format` in their metadata.
_MARKS: Final[dict[Layout, str]] = {"huggingface": "pt", "mlx": "mlx"}


def save_checkpoint(
    folder: Path,
    save_plan: SavePlan,
    arrays: dict[str, Any],
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Progress | None = None,
) -> dict[str, FileRecord]:
    """Write safetensors files and their index, one tensor at a time.

    Args:
        folder: An existing folder without these files.
        save_plan: What `plan_save` gave.
        arrays: The parameters by name; emptied on the way. Drop the model that they come from, so that each is freed.
        max_shard_bytes: Bytes of tensors in one file.
        progress: Called with the bytes written so far and in all.

    Returns:
        File name to size and hash.
    """
    return write_shards(
        folder,
        save_plan.specs,
        save_plan.tensors(arrays),
        max_shard_bytes=max_shard_bytes,
        progress=progress,
        mark=_MARKS[save_plan.layout],
    )
