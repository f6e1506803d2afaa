"""Quantised matrices as one array: what keeps groups of a row together acts on the packed numbers, the rest unpacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from axon_compose.checkpoints.weights._steps import Shape

__all__ = ["Packed", "Packing", "packings", "to_packed"]

#: Group sizes of affine quantisation, and of formats with one fixed group size: bits, group size and name.
_GROUPS: Final = (32, 64, 128)
_BITS: Final = (1, 2, 3, 4, 5, 6, 8)
_FORMATS: Final = ((4, 32, "mxfp4"), (8, 32, "mxfp8"), (4, 16, "nvfp4"))


class Packing(NamedTuple):
    """How numbers of a row are packed, in the words of `mlx.core.quantize`."""

    bits: int
    group_size: int
    mode: str = "affine"

    def fits(self, shape: Shape) -> bool:
        """Whether an array of this shape can be packed so."""
        return len(shape) >= 2 and shape[-1] % self.group_size == 0

    def to_dict(self) -> dict[str, Any]:
        """Arguments of a module's `to_quantized`; the mode only where it is not the usual one."""
        fields = self._asdict()
        if self.mode == "affine":
            del fields["mode"]
        return fields


def packings(words: int, groups: int, affine: bool) -> list[tuple[int, Packing]]:
    """What rows of so many 32-bit words and so many groups can be: the row's length, and the packing.

    Several are possible: 4 bits in groups of 64 look like 8 bits in groups of 32. The shape of the parameter decides.
    """
    if affine:
        known = [(32 * words // (groups * size), size, "affine") for size in _GROUPS if groups]
        known = [entry for entry in known if entry[0] in _BITS]
    else:
        known = list(_FORMATS)
    return [
        (groups * size, Packing(bits, size, mode)) for bits, size, mode in known if groups * size * bits == 32 * words
    ]


@dataclass(frozen=True)
class Packed:
    """A quantised array that can be handled like a plain one.

    Attributes:
        weight: (..., K·bits/32) uint32.
        scales: (..., K/group_size).
        biases: As `scales`; None for formats without.
        packing: How the numbers are packed.
    """

    weight: Any
    scales: Any
    biases: Any | None
    packing: Packing

    @property
    def shape(self) -> Shape:
        """(..., K), as if it were not packed."""
        return (*self.weight.shape[:-1], self.scales.shape[-1] * self.packing.group_size)

    @property
    def members(self) -> dict[str, Any]:
        """The arrays by the last part of their names."""
        found = {"weight": self.weight, "scales": self.scales, "biases": self.biases}
        return {name: array for name, array in found.items() if array is not None}

    def reshape(self, shape: Shape) -> Any:
        """Packed as long as the rows stay whole."""
        if shape[-1] != self.shape[-1]:
            return self.dense().reshape(shape)
        return self._each(lambda member: member.reshape((*shape[:-1], member.shape[-1])))

    def in_blocks(self, size: int, change: Callable[[Any, int], Any]) -> Any:
        """What `change(array, size)` makes of a row's blocks of `size` numbers: packed if groups stay whole."""
        if size % self.packing.group_size:
            return change(self.dense(), size)
        count = self.shape[-1] // size
        return self._each(lambda member: change(member, member.shape[-1] // count))

    def transpose(self, axes: Sequence[int]) -> Any:
        """Packed if the last axis stays the last."""
        if axes[-1] != len(axes) - 1:
            return self.dense().transpose(axes)
        return self._each(lambda member: member.transpose(axes))

    def __getitem__(self, key: Any) -> Any:
        """Packed unless the last axis is cut."""
        if isinstance(key, tuple) and len(key) >= len(self.shape):
            return self.dense()[key]
        return self._each(lambda member: member[key])

    def __add__(self, value: float) -> Any:
        return self.dense() + value

    def __mul__(self, value: Any) -> Any:
        """Packed: a factor of whole rows goes into their scales, if those are numbers and not codes."""
        if self.biases is None:
            return self.dense() * value
        return Packed(self.weight, self.scales * value, self.biases * value, self.packing)

    def astype(self, dtype: Any) -> Packed:
        """Scales and biases in another type, where they are numbers of their own and not codes."""
        import mlx.core as mx

        def cast(member: Any) -> Any:
            return member.astype(dtype) if mx.issubdtype(member.dtype, mx.floating) else member

        return self._each(cast)

    def dense(self, dtype: Any = None) -> Any:
        """The numbers themselves, each rounded once.

        Args:
            dtype: Their type; that of the scales unless given, bfloat16 for formats without biases.
        """
        import mlx.core as mx

        how = self.packing._asdict()
        if self.biases is None:
            found = mx.dequantize(self.weight, self.scales, **how)
            return found if dtype is None else found.astype(dtype)
        # MLX computes in the type of the scales, also where it is asked for float32.
        wide = (each.astype(mx.float32) for each in (self.scales, self.biases))
        return mx.dequantize(self.weight, *wide, **how).astype(dtype or self.scales.dtype)

    def stack(self, arrays: Sequence[Packed]) -> Packed:
        """Packed arrays on a new first axis."""
        import mlx.core as mx

        return self._together(arrays, lambda members: mx.stack(members))

    def join(self, arrays: Sequence[Any], axis: int) -> Any:
        """Pieces of one array along an axis: packed unless that is the last one."""
        import mlx.core as mx

        same = all(isinstance(array, Packed) and array.packing == self.packing for array in arrays)
        if same and axis < len(self.shape) - 1:
            return self._together(arrays, lambda members: mx.concatenate(members, axis=axis))
        dense = [array.dense() if isinstance(array, Packed) else array for array in arrays]
        return mx.concatenate(dense, axis=axis)

    def _each(self, change: Callable[[Any], Any]) -> Packed:
        biases = None if self.biases is None else change(self.biases)
        return Packed(change(self.weight), change(self.scales), biases, self.packing)

    def _together(self, arrays: Sequence[Packed], function: Callable[[list[Any]], Any]) -> Packed:
        biases = None if self.biases is None else function([array.biases for array in arrays])
        weight = function([array.weight for array in arrays])
        return Packed(weight, function([array.scales for array in arrays]), biases, self.packing)


def to_packed(array: Any, packing: Packing) -> Packed:
    """A plain array, packed; a packed one as it is."""
    if isinstance(array, Packed):
        return array
    import mlx.core as mx

    weight, scales, *biases = mx.quantize(array, **packing._asdict())
    return Packed(weight, scales, biases[0] if biases else None, packing)
