"""The tensors of a GGUF file as headers of a checkpoint, and their arrays; blocks are bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from axon_compose.checkpoints.files import CheckpointError
from axon_compose.checkpoints.gguf._header import GgufFile, GgufTensor, read_gguf

__all__ = ["PLAIN", "GgufTensors", "shape_in_numbers", "stored_as"]

#: Types of the format that are single numbers, and what safetensors calls them.
PLAIN: Final = {
    "F32": "F32",
    "F16": "F16",
    "BF16": "BF16",
    "F64": "F64",
    "I8": "I8",
    "I16": "I16",
    "I32": "I32",
    "I64": "I64",
}
_NUMPY: Final = {
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "F64": "<f8",
    "I8": "i1",
    "I16": "<i2",
    "I32": "<i4",
    "I64": "<i8",
}


def stored_as(tensor: GgufTensor) -> tuple[tuple[int, ...], str]:
    """Shape and type of the array that a tensor is read as: rows of bytes for blocks."""
    if tensor.kind in PLAIN:
        return tensor.shape, PLAIN[tensor.kind]
    rows = 1
    for extent in tensor.shape[:-1]:
        rows *= extent
    return (*tensor.shape[:-1], tensor.nbytes // rows), "U8"


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
        import mlx.core as mx
        import numpy as np

        tensor = self._file.tensors[name]
        kind: Any = np.dtype(_NUMPY.get(tensor.kind, "u1"))
        numbers = np.fromfile(tensor.file, kind, tensor.nbytes // kind.itemsize, offset=tensor.start)
        if numbers.nbytes != tensor.nbytes:
            raise CheckpointError("AX511", f"`{tensor.file}` ends within the tensor `{name[:80]}`", "copy it again")
        numbers = numbers.reshape(stored_as(tensor)[0])
        if tensor.kind not in PLAIN:
            return numbers
        array = mx.array(numbers)
        return array.view(mx.bfloat16) if tensor.kind == "BF16" else array
