"""Large tensors a piece of rows at a time, so that what they are decoded through never weighs more than a piece.

A block of llama.cpp, and a group of a packed matrix, lie within a row, so a piece is decoded as the whole tensor is, to
the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import prod
from pathlib import Path
from typing import Any, Final, Protocol

from axon_compose.checkpoints.weights._blocks import Blocks
from axon_compose.checkpoints.weights._packed import Packed
from axon_compose.checkpoints.weights._source import Form, Source
from axon_compose.checkpoints.weights._steps import Shape
from axon_compose.checkpoints.weights._transfer import Transfer

__all__ = ["PIECE", "Rows", "by_rows", "decoded_by_rows", "in_pieces", "put_together"]

#: Numbers of a piece: 8 MiB in float32. A tensor that has no more is read as a whole.
PIECE: Final = 1 << 21


class Rows(Protocol):
    """A file whose tensors can be read by rows."""

    def rows(self, name: str, first: int, end: int) -> Any:
        """Rows of a tensor (end - first, K), its leading axes taken as one."""


def by_rows(transfer: Transfer) -> bool:
    """Whether a transfer takes one large tensor as it lies, so that each row of it is a row of the parameter."""
    return transfer.direct and transfer.sources[0].by_rows and prod(transfer.form.shape) > PIECE


def decoded_by_rows(transfer: Transfer) -> bool:
    """Whether it is one of a GGUF file, so that loading decodes it in pieces; others are mapped."""
    return isinstance(transfer.sources[0], Blocks) and by_rows(transfer)


def in_pieces(source: Source, form: Form, opened: Callable[[Path], Rows]) -> Iterator[Any]:
    """A tensor in pieces (rows, K), in order, packed ones still packed.

    Args:
        source: The tensor, with `by_rows`.
        form: Its shape (..., K) and packing.
        opened: Gives the tensors of a file.

    Raises:
        CheckpointError: AX511 a file has become shorter.
    """
    *lead, length = form.shape
    rows, step = prod(lead), max(1, PIECE // length)
    for first in range(0, rows, step):
        end = min(first + step, rows)
        arrays = [opened(header.file).rows(header.name, first, end) for header in source.tensors]
        yield source.read(arrays, Form((end - first, length), form.packing))


def put_together(pieces: Iterable[Any], shape: Shape) -> Any:
    """The tensor of this shape (..., K) that pieces (rows, K) are: all are plain, or all are packed in one way.

    Its memory is taken once, with the first piece, and each piece is let go once it is in there.
    """
    lead, rows, filled = shape[:-1], prod(shape[:-1]), 0
    places: dict[str, _Place] = {}
    packing = None
    for piece in pieces:
        packing = piece.packing if isinstance(piece, Packed) else None
        members = piece.members if isinstance(piece, Packed) else {"": piece}
        places = places or {name: _Place(rows, member) for name, member in members.items()}
        for name, member in members.items():
            places[name].put(filled, member)
        filled += piece.shape[0]
        del piece, members
    arrays = {name: place.array(lead) for name, place in places.items()}
    if packing is None:
        return arrays[""]
    return Packed(arrays["weight"], arrays["scales"], arrays.get("biases"), packing)


class _Place:
    """Memory for an array of so many rows that are like those of a piece (n, K).

    NumPy writes into the memory of an array of MLX; it has no bfloat16, so the numbers are words of their width there.
    """

    def __init__(self, rows: int, piece: Any) -> None:
        import mlx.core as mx
        import numpy as np

        self.dtype = piece.dtype
        self.words = mx.zeros((rows, piece.shape[-1]), _unsigned(self.dtype))
        mx.eval(self.words)
        self.numbers = np.array(self.words, copy=False)

    def put(self, first: int, piece: Any) -> None:
        import numpy as np

        self.numbers[first : first + piece.shape[0]] = np.array(piece.view(self.words.dtype))

    def array(self, lead: Shape) -> Any:
        return self.words.view(self.dtype).reshape((*lead, self.words.shape[-1]))


def _unsigned(dtype: Any) -> Any:
    import mlx.core as mx

    return getattr(mx, f"uint{8 * dtype.size}")
