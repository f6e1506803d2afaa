"""Parts of the tensors of a model folder, read from where they are: for a device that keeps no more than its share."""

from __future__ import annotations

from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Final

from axon_compose.checkpoints.files._safetensors import NOT_IN_MLX, Entry, damaged, data_start, read_header
from axon_compose.checkpoints.files._tensors import NUMPY, in_mlx

__all__ = ["FolderParts"]

#: Bytes that are read at once, of rows of which parts are kept.
_WINDOW: Final = 64 << 10


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

    def part(self, name: str, like: Any, axis: int, ranges: tuple[tuple[int, int], ...], zeros: int = 0) -> Any:
        """Ranges of a tensor, put together along an axis.

        Args:
            name: The tensor.
            like: An array of the shape and type that it has to have.
            axis: The axis, from 0.
            ranges: First entries and ends.
            zeros: Entries after them.

        Returns:
            An array of MLX, or None if there is no such tensor.

        Raises:
            CheckpointError: AX511 a file is damaged, or has become shorter.
        """
        import mlx.core as mx
        import numpy as np

        if name not in self._tensors:
            return None
        path, start, entry = self._tensors[name]
        if entry.dtype in NOT_IN_MLX or entry.dtype.startswith("F8") or entry.shape != tuple(like.shape):
            return None
        kind: Any = np.dtype(NUMPY[entry.dtype])
        if in_mlx(np.empty(0, kind), entry.dtype).dtype != like.dtype:
            return None
        outer, length = prod(entry.shape[:axis]), entry.shape[axis]
        inner = prod(entry.shape[axis + 1 :]) * kind.itemsize
        kept = sum(end - first for first, end in ranges)
        shape = (*entry.shape[:axis], kept + zeros, *entry.shape[axis + 1 :])
        if not prod(shape):
            return mx.zeros(shape, like.dtype)
        words = mx.zeros(shape, getattr(mx, f"uint{8 * kind.itemsize}"))
        mx.eval(words)
        out = np.array(words, copy=False).view(np.uint8).reshape(outer, -1)  # the memory of `words`
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(start)
                pieces = [(first * inner, end * inner) for first, end in ranges]
                _read_rows(file, length * inner, pieces, out[:, : kept * inner])
        except (OSError, EOFError) as error:
            raise damaged(path, f"the file ends within it: {error}", name) from error
        return words.view(like.dtype)


def _read_rows(file: Any, length: int, pieces: list[tuple[int, int]], out: Any) -> None:
    """Read the same pieces of every row, from where the file is.

    Args:
        file: Without a buffer.
        length: Bytes of a row.
        pieces: First bytes and ends.
        out: (rows, bytes of all pieces), written to.
    """
    import numpy as np

    if not (step := _WINDOW // length):
        for row in out:
            begin, done = file.tell(), 0
            for first, end in pieces:
                file.seek(begin + first)
                _fill(file, row[done : done + end - first])
                done += end - first
            file.seek(begin + length)
        return
    block = np.empty((min(step, len(out)), length), np.uint8)
    for first in range(0, len(out), step):
        rows = out[first : first + step]
        read = block[: len(rows)]
        _fill(file, read)
        np.concatenate([read[:, slice(*piece)] for piece in pieces], axis=1, out=rows)


def _fill(file: Any, numbers: Any) -> None:
    """Read bytes into an array without gaps; one call of the system reads 2 GiB at most."""
    left = memoryview(numbers).cast("B")
    while left:
        if not (count := file.readinto(left)):
            raise EOFError(f"{len(left)} bytes are missing")
        left = left[count:]
