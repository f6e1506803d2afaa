"""The tensors of a GGUF file as headers of a checkpoint, and their arrays; blocks are bytes."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any, Final

from axon_compose.checkpoints.files._tensors import in_mlx, read_numbers, read_rows
from axon_compose.checkpoints.gguf._header import GgufFile, GgufTensor, read_gguf

__all__ = ["PLAIN", "GgufTensors", "shape_in_numbers", "stored_as"]

#: Types of the format that are single numbers, not blocks; safetensors has the same names.
PLAIN: Final = frozenset({"F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64"})


def stored_as(tensor: GgufTensor) -> tuple[tuple[int, ...], str]:
    """Shape and type of the array that a tensor is read as: rows of bytes for blocks."""
    if tensor.kind in PLAIN:
        return tensor.shape, tensor.kind
    rows = tensor.shape[:-1]
    return (*rows, tensor.nbytes // prod(rows)), "U8"


def shape_in_numbers(shape: tuple[int, ...], kind: str) -> tuple[int, ...]:
    """The shape of what rows of bytes in blocks of a type hold."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return (*shape[:-1], shape[-1] // size * block)


class GgufTensors:
    """Reads each tensor from its own range of bytes when it is taken."""

    def __init__(self, path: Path) -> None:
        self._file: GgufFile = read_gguf(path)

    def pop(self, name: str) -> Any:
        """The array of a tensor: blocks as uint8 in NumPy, numbers in MLX.

        Raises:
            CheckpointError: AX511 the file has become shorter.
        """
        tensor = self._file.tensors[name]
        shape, dtype = stored_as(tensor)
        numbers = read_numbers(tensor.file, name, dtype, shape, tensor.start)
        return in_mlx(numbers, dtype) if tensor.kind in PLAIN else numbers

    def rows(self, name: str, first: int, end: int) -> Any:
        """Some rows of a tensor (end - first, K), its leading axes taken as one; else as `pop`."""
        tensor = self._file.tensors[name]
        shape, dtype = stored_as(tensor)
        numbers = read_rows(tensor.file, name, dtype, shape, tensor.start, (first, end))
        return in_mlx(numbers, dtype) if tensor.kind in PLAIN else numbers
