"""Matrices of integers as other quantisers store them, read into MLX's own packing where that is exact.

Every format here means w = s·(q - z), with a scale s and a zero point z for each group of a row. MLX means w = s·q + b,
so b = -s·z. Where z is half of the range, a power of two, b has the same digits as s and no parameter is rounded: these
stay packed. Other zero points would be rounded, and are unpacked to the type of the scales.

* GPTQ (Frantar et al. 2022; AutoGPTQ): `qweight` (K·bits/32, N), `qzeros` (G, N·bits/32), `scales` (G, N) and `g_idx`
  (K,), the group of each column. Version 1 stores z - 1.
* AWQ (Lin et al. 2023; AutoAWQ's "gemm"): `qweight` (K, N·bits/32), `qzeros` (G, N·bits/32), `scales` (G, N); the eight
  columns of a word are in the order 0 2 4 6 1 3 5 7.
* compressed-tensors: `weight_packed` (N, K·bits/32) of q + 2^(bits-1), `weight_scale` (N, G), perhaps
  `weight_zero_point` (N·bits/32, G) and `weight_g_idx` (K,); or int8 as it is, `weight` (N, K) with `weight_scale`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple

from axon_compose.checkpoints.weights._headers import TensorHeader
from axon_compose.checkpoints.weights._packed import Packed, Packing
from axon_compose.checkpoints.weights._source import Form, Source

__all__ = ["NOT_DECLARED", "Declared", "Unknown", "integers"]

_FLOATS: Final = ("F32", "F16", "BF16")
_BITS: Final = (2, 4, 8)
#: Group sizes of MLX.
_GROUPS: Final = (128, 64, 32)
_AWQ_ORDER: Final = (0, 2, 4, 6, 1, 3, 5, 7)


class Declared(NamedTuple):
    """What config.json says of integer weights.

    Attributes:
        method: `quant_method`, None without one.
        symmetric: Every zero point is half of the range.
        zero_offset: What is added to stored zero points: 1 in GPTQ's first version.
        reordered: Columns are in groups by `g_idx` rather than in order.
    """

    method: str | None = None
    symmetric: bool = False
    zero_offset: int = 0
    reordered: bool = False


NOT_DECLARED: Final = Declared()


class Unknown(ValueError):
    """Tensors that are not what their names say; the message completes "tensor `x` …".

    Attributes:
        name: What they would be.
        tensors: These tensors.
    """

    def __init__(self, name: str, tensors: tuple[TensorHeader, ...], message: str) -> None:
        super().__init__(message)
        self.name, self.tensors = name, tensors


def integers(name: str, header: TensorHeader, named: Mapping[str, TensorHeader], declared: Declared) -> Source | None:
    """The source that a tensor of integers is the first part of, or None if it is none.

    Raises:
        Unknown: It is, and its parts do not fit together.
    """
    base, _, last = name.rpartition(".")
    parts = {end: named[f"{base}.{end}"] for end in _PARTS.get(last, ()) if f"{base}.{end}" in named}
    make = _columns if last == "qweight" else _rows
    if last not in _PARTS or (last == "weight" and (header.dtype != "I8" or "weight_scale" not in parts)):
        return None
    try:
        return make(f"{base}.weight", header, parts, declared)
    except ValueError as error:
        raise Unknown(f"{base}.weight", (header, *parts.values()), str(error)) from error


_PARTS: Final = {
    "qweight": ("qzeros", "scales", "g_idx"),
    "weight_packed": ("weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx"),
    "weight": ("weight_scale", "weight_zero_point"),
}


def _columns(name: str, header: TensorHeader, parts: Mapping[str, TensorHeader], declared: Declared) -> Source:
    """GPTQ or AWQ, which the shapes tell apart: GPTQ packs along the input, AWQ along the output."""
    zeros, scales = parts.get("qzeros"), parts.get("scales")
    if zeros is None or scales is None or not len(header.shape) == len(zeros.shape) == len(scales.shape) == 2:
        raise ValueError("has no `qzeros` and `scales` beside it")
    (rows, columns), (groups, outputs) = header.shape, scales.shape
    bits, rest = divmod(32 * zeros.shape[1], outputs) if outputs else (0, 1)
    awq = columns * 32 == outputs * bits
    inputs = rows if awq else rows * 32 // max(bits, 1)
    fits = awq or columns == outputs
    if rest or bits not in ((4,) if awq else _BITS) or not fits or zeros.shape[0] != groups or not groups:
        shapes = f"{list(header.shape)}, {list(zeros.shape)} and {list(scales.shape)}"
        raise ValueError(f"is not GPTQ of 2, 4 or 8 bits, nor AWQ of 4: shapes {shapes}")
    if inputs % groups or scales.dtype not in _FLOATS:
        raise ValueError(f"has {groups} groups of {scales.dtype} for {inputs} columns")
    index = parts.get("g_idx") if declared.reordered else None
    tensors = (header, zeros, scales, *((index,) if index else ()))
    known = tuple(part for part in parts.values() if part not in tensors)
    return _Columns(name, tensors, known, (outputs, inputs), bits, declared, awq=awq)


def _rows(name: str, header: TensorHeader, parts: Mapping[str, TensorHeader], declared: Declared) -> Source:
    """The forms of compressed-tensors."""
    scales = parts.get("weight_scale")
    if scales is None or scales.dtype not in _FLOATS or len(header.shape) != 2:
        raise ValueError("has no `weight_scale` of floats beside it")
    if scales.shape not in ((), (1,)) and (len(scales.shape) != 2 or scales.shape[0] != header.shape[0]):
        raise ValueError(f"has scales {list(scales.shape)}, not one for each group of each of {header.shape[0]} rows")
    more = [parts[end] for end in ("weight_zero_point", "weight_g_idx") if end in parts]
    known = tuple(part for part in parts.values() if part is not scales and part not in more)
    return _Rows(name, (header, scales, *more), known, declared, zeros="weight_zero_point" in parts)


@dataclass(frozen=True, slots=True)
class _Integers(Source):
    """What the formats have in common."""

    as_stored: ClassVar[bool] = False

    #: Tensors beside it that say nothing more.
    known: tuple[TensorHeader, ...]

    def members(self) -> tuple[TensorHeader, ...]:
        """See `Source.members`."""
        return (*self.tensors, *self.known)


@dataclass(frozen=True, slots=True)
class _Columns(_Integers):
    """GPTQ and AWQ: (K, N), as their kernels multiply."""

    shape: tuple[int, int]
    bits: int
    declared: Declared
    awq: bool = False

    def forms(self) -> list[Form]:
        """(N, K)."""
        groups = self.tensors[2].shape[0]
        exact = self.declared.symmetric and not self.declared.reordered
        return [Form(self.shape, _packing(self.bits, self.shape[1], groups) if exact else None)]

    def read(self, arrays: Sequence[Any], form: Form) -> Any:
        """Packed for MLX, or the numbers."""
        words, zeros, scales, *index = arrays
        order = _AWQ_ORDER if self.awq else None
        zero = (_unpacked(zeros, self.bits, order).T + self.declared.zero_offset) & ((1 << self.bits) - 1)
        codes = _unpacked(words, self.bits, order).T if self.awq else _unpacked(words.T, self.bits)
        return _finished(codes, scales.T, zero, index[0] if index else None, form)


@dataclass(frozen=True, slots=True)
class _Rows(_Integers):
    """compressed-tensors: (N, K), as MLX has it."""

    declared: Declared
    zeros: bool = False

    def forms(self) -> list[Form]:
        """(N, K) for each width that the words can have; the parameter decides."""
        (rows, words), stored = self.tensors[0].shape, self.tensors[0].dtype
        scales = self.tensors[1].shape
        groups = scales[1] if len(scales) == 2 else 1
        exact = len(self.tensors) == 2
        widths = [(8, words)] if stored == "I8" else [(bits, words * 32 // bits) for bits in (4, 8)]
        return [
            Form((rows, length), _packing(bits, length, groups) if exact else None)
            for bits, length in widths
            if length % groups == 0
        ]

    def read(self, arrays: Sequence[Any], form: Form) -> Any:
        """Packed for MLX, or the numbers."""
        import mlx.core as mx

        words, scales, *more = arrays
        rows, length = form.shape
        if self.tensors[0].dtype == "I8":
            bits, codes = 8, words.astype(mx.int32) + 128
        else:
            bits = words.shape[-1] * 32 // length
            codes = _unpacked(words, bits)
        scales = mx.broadcast_to(
            scales.reshape(1, 1) if scales.size == 1 else scales, (rows, max(scales.size // rows, 1))
        )
        zero = mx.full(scales.shape, 1 << (bits - 1), dtype=mx.int32)
        if self.zeros:
            stored = more.pop(0)
            plain = stored.dtype == mx.int8
            zero = stored.astype(mx.int32) + (1 << (bits - 1)) if plain else _unpacked(stored.T, bits).T[:rows]
        return _finished(codes, scales, zero, more[0] if more else None, form)


def _packing(bits: int, length: int, groups: int) -> Packing | None:
    """MLX's packing of rows in so many groups: its own groups divide the given ones, with repeated scales."""
    size = next((size for size in _GROUPS if groups and length % groups == 0 and length // groups % size == 0), None)
    return Packing(bits, size) if size else None


def _unpacked(words: Any, bits: int, order: Sequence[int] | None = None) -> Any:
    """(..., n) words to (..., n·32/bits) int32, the lowest bits first."""
    import mlx.core as mx

    count = 32 // bits
    shifts = mx.array([bits * place for place in range(count)], dtype=mx.uint32)
    codes = (mx.contiguous(words).view(mx.uint32)[..., None] >> shifts) & ((1 << bits) - 1)
    if order is not None:
        codes = codes[..., mx.array([order.index(column) for column in range(count)])]
    return codes.reshape(*words.shape[:-1], -1).astype(mx.int32)


def _finished(codes: Any, scales: Any, zero: Any, index: Any, form: Form) -> Any:
    """(N, K) codes with (N, G) scales and zero points: packed as the form says, else s·(q - z) in the scales' type."""
    import mlx.core as mx

    length, groups = codes.shape[-1], scales.shape[-1]
    if form.packing is None:
        if index is None:
            index = mx.arange(length) // (length // groups)
        spread = mx.take(scales, index, axis=1).astype(mx.float32)
        return (spread * (codes - mx.take(zero, index, axis=1))).astype(scales.dtype)
    bits, size, _ = form.packing
    repeats = length // groups // size
    scales, zero = (mx.repeat(part, repeats, axis=1) for part in (scales, zero))
    biases = (-scales.astype(mx.float32) * zero).astype(scales.dtype)
    return Packed(_packed(codes, bits), mx.contiguous(scales), biases, form.packing)


def _packed(codes: Any, bits: int) -> Any:
    """(N, K) codes to (N, K·bits/32) words, as `mx.quantize` packs them."""
    import mlx.core as mx

    count = 32 // bits
    shifts = mx.array([bits * place for place in range(count)], dtype=mx.uint32)
    return (codes.astype(mx.uint32).reshape(codes.shape[0], -1, count) << shifts).sum(axis=-1).astype(mx.uint32)
