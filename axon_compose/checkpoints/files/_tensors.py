"""The arrays of a safetensors file: by MLX, or around what MLX refuses.

`mx.load` of MLX 0.32 refuses a whole file for one tensor of a type that it lacks, such as a rotary buffer in float64
that no model needs. Since every tensor's place is known, the others are read from there.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any, Final, Protocol

from axon_compose.checkpoints.files._safetensors import NOT_IN_MLX, Entry, damaged, data_start, read_header

__all__ = ["NUMPY", "Ranges", "Tensors", "in_mlx", "open_tensors", "read_numbers", "read_rows"]

#: Type of the format to that of NumPy with the same bytes; bfloat16, which NumPy lacks, as 16-bit words.
NUMPY: Final = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "F8_E4M3": "u1", "F8_E8M0": "u1", "I16": "<i2", "U16": "<u2", "F16": "<f2",
    "BF16": "<u2", "I32": "<i4", "U32": "<u4", "F32": "<f4", "I64": "<i8", "U64": "<u8", "C64": "<c8",
}  # fmt: skip


class Tensors(Protocol):
    """Name to array; each can be taken once."""

    def pop(self, name: str, /) -> Any:
        """The array of a name, which is forgotten."""


def open_tensors(path: Path) -> Tensors:
    """The arrays of a file whose header has been checked: lazy ones of MLX where it can read all of them."""
    import mlx.core as mx

    entries = read_header(path)
    if any(entry.dtype in NOT_IN_MLX for entry in entries.values()):
        return Ranges(path, entries)
    loaded: Any = mx.load(str(path), format="safetensors")
    return loaded


class Ranges:
    """Reads each tensor from its own range of bytes when it is taken, which may be several times."""

    def __init__(self, path: Path, entries: dict[str, Entry]) -> None:
        self.path, self.entries, self.start = path, entries, data_start(path)

    def pop(self, name: str) -> Any:
        """The array of a tensor, computed.

        Raises:
            CheckpointError: AX511 the file has become shorter.
        """
        entry = self.entries[name]
        return in_mlx(read_numbers(self.path, name, entry.dtype, entry.shape, self.start + entry.start), entry.dtype)

    def rows(self, name: str, first: int, end: int) -> Any:
        """Some rows of a tensor (end - first, K), its leading axes taken as one; raises as `pop` does."""
        entry = self.entries[name]
        start = self.start + entry.start
        return in_mlx(read_rows(self.path, name, entry.dtype, entry.shape, start, (first, end)), entry.dtype)


def read_numbers(path: Path, name: str, dtype: str, shape: tuple[int, ...], start: int) -> Any:
    """One tensor out of its range of bytes, in NumPy.

    Args:
        path: The file, whose header has been checked.
        name: The tensor, for messages.
        dtype: As safetensors calls it; bfloat16 becomes 16-bit words.
        shape: Of the tensor.
        start: Where its bytes begin in the file.

    Raises:
        CheckpointError: AX511 the file has become shorter.
    """
    import numpy as np

    kind: Any = np.dtype(NUMPY[dtype])
    numbers = np.fromfile(path, kind, prod(shape), offset=start)
    if numbers.size != prod(shape):
        raise damaged(path, "the file ends within it", name)
    return numbers.reshape(shape)


def read_rows(path: Path, name: str, dtype: str, shape: tuple[int, ...], start: int, between: tuple[int, int]) -> Any:
    """Rows of one tensor, from the first to before the last of `between`; else as `read_numbers`."""
    import numpy as np

    first, end = between
    width: int = shape[-1] * np.dtype(NUMPY[dtype]).itemsize
    return read_numbers(path, name, dtype, (end - first, shape[-1]), start + first * width)


def in_mlx(numbers: Any, dtype: str) -> Any:
    """What `read_numbers` gave as an array of MLX."""
    import mlx.core as mx

    array = mx.array(numbers)
    return array.view(mx.bfloat16) if dtype == "BF16" else array
