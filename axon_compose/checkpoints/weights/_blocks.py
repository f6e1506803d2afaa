"""A matrix of a GGUF file in blocks of llama.cpp: packed words of MLX where both can say the same, else its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from axon_compose.checkpoints.gguf._packed import FP4, PACKED_BITS, pack
from axon_compose.checkpoints.weights._packed import Packed, Packing
from axon_compose.checkpoints.weights._source import Form, Source

__all__ = ["Blocks"]

_GROUP: Final = 32


@dataclass(frozen=True, slots=True)
class Blocks(Source):
    """The bytes of a tensor in blocks, (..., bytes); `TensorHeader.blocks` names their type."""

    as_stored: ClassVar[bool] = False
    #: No type of 16 bits holds all of the numbers, and the activations of some models, such as Gemma 3, are no float16.
    unasked: ClassVar[str | None] = "bfloat16"

    shape: tuple[int, ...]

    @property
    def kind(self) -> str:
        """The type as `gguf.GGMLQuantizationType` names it."""
        kind = self.tensors[0].blocks
        assert kind is not None
        return kind

    def forms(self) -> list[Form]:
        """Packed where MLX has an exact form of a matrix."""
        packing = Packing(4, _GROUP, "mxfp4") if self.kind == FP4 else None
        if bits := PACKED_BITS.get(self.kind):
            packing = Packing(bits, _GROUP)
        return [Form(self.shape, packing if len(self.shape) > 1 else None)]

    @property
    def by_rows(self) -> bool:
        """Blocks lie within rows."""
        return True

    def read(self, arrays: Sequence[Any], form: Form) -> Any:
        """`Packed`, or float32 numbers."""
        import mlx.core as mx

        blocks = arrays[0]
        if form.packing is None:
            return mx.array(_decoded(blocks, self.kind).reshape(form.shape))
        words = pack(blocks.reshape(-1, blocks.shape[-1]), self.kind)
        weight, scales, biases = (
            None if part is None else mx.array(part.reshape((*form.shape[:-1], -1))) for part in words
        )
        return Packed(weight, scales, biases, form.packing)


def _decoded(blocks: Any, kind: str) -> Any:
    """The numbers in float32, by the package `gguf`."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    return dequantize(blocks, GGMLQuantizationType[kind])
