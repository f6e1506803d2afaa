"""The arrays of a safetensors file: by MLX, or around what MLX refuses.

`mx.load` of MLX 0.32 refuses a whole file for one tensor of a type that it lacks, such as a rotary buffer in float64
that no model needs. Since every tensor's place is known, the others are read from there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Protocol

from axon_compose.checkpoints.files._safetensors import NOT_IN_MLX, Entry, data_start, read_header

__all__ = ["Tensors", "open_tensors"]

#: Type of the format to that of NumPy with the same bytes; bfloat16, which NumPy lacks, as 16-bit words.
_NUMPY: Final = {
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
        return _Ranges(path, entries)
    loaded: Any = mx.load(str(path), format="safetensors")
    return loaded


class _Ranges:
    """Reads each tensor from its own range of bytes when it is taken."""

    def __init__(self, path: Path, entries: dict[str, Entry]) -> None:
        self.path, self.entries, self.start = path, entries, data_start(path)

    def pop(self, name: str) -> Any:
        import mlx.core as mx
        import numpy as np

        entry = self.entries[name]
        kind: Any = np.dtype(_NUMPY[entry.dtype])
        count = (entry.end - entry.start) // kind.itemsize
        numbers = np.fromfile(self.path, kind, count, offset=self.start + entry.start).reshape(entry.shape)
        array = mx.array(numbers)
        return array.view(mx.bfloat16) if entry.dtype == "BF16" else array
