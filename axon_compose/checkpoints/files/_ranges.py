"""Parts of the tensors of a model folder, read from where they are: for a device that keeps no more than its share."""

from __future__ import annotations

from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Final

from axon_compose.checkpoints.files._safetensors import NOT_IN_MLX, Entry, damaged, data_start, read_header
from axon_compose.checkpoints.files._tensors import NUMPY, in_mlx

__all__ = ["FolderParts"]

#: Bytes that are looked at at once.
_WINDOW: Final = 16 << 20


class FolderParts:
    """Reads parts of the tensors of a folder, in memory of little more than the part.

    Args:
        folder: With `model*.safetensors`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _tensors(self) -> dict[str, tuple[Path, int, Entry]]:
        """File, first byte and entry of every tensor, of those files that mlx_lm reads."""
        found: dict[str, tuple[Path, int, Entry]] = {}
        for path in sorted(self.folder.glob("model*.safetensors")):
            start = data_start(path)
            found |= {name: (path, start + entry.start, entry) for name, entry in read_header(path).items()}
        return found

    def part(self, name: str, like: Any, axis: int, ranges: tuple[tuple[int, int], ...]) -> Any:
        """Ranges of a tensor, put together along an axis.

        Args:
            name: The tensor.
            like: An array of the shape and type that it has to have.
            axis: The axis, from 0.
            ranges: First entries and ends.

        Returns:
            An array of MLX, or None if there is no such tensor.

        Raises:
            CheckpointError: AX511 a file is damaged, or has become shorter.
        """
        import numpy as np

        if name not in self._tensors:
            return None
        path, start, entry = self._tensors[name]
        if entry.dtype in NOT_IN_MLX or entry.dtype.startswith("F8") or entry.shape != tuple(like.shape):
            return None
        kind: Any = np.dtype(NUMPY[entry.dtype])
        outer, length, inner = prod(entry.shape[:axis]), entry.shape[axis], prod(entry.shape[axis + 1 :])
        kept = sum(end - first for first, end in ranges)
        out = np.empty((outer, kept, inner), kind)
        each = length * inner * kind.itemsize
        step = max(1, _WINDOW // max(1, each))
        for first in range(0, outer, step):
            count = min(step, outer - first)
            try:
                rows: Any = np.memmap(path, kind, "r", start + first * each, (count, length, inner))
            except (OSError, ValueError) as error:
                raise damaged(path, f"the file ends within it: {error}", name) from error
            np.concatenate([rows[:, slice(*both)] for both in ranges], axis=1, out=out[first : first + count])
            del rows
        part = in_mlx(out.reshape(*entry.shape[:axis], kept, *entry.shape[axis + 1 :]), entry.dtype)
        return part if part.dtype == like.dtype else None
