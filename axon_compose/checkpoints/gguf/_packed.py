"""Blocks of llama.cpp as the packed words of MLX, without loss: each number is scale · code + bias in both.

A block has 32 numbers, or 256 in eight parts with a scale each, so groups of 32 fit. Scales and biases are float32:
those of 256 are a product of float16 and 6 bits, which no 16-bit type holds. MXFP4 is a format of both, with another
order of the codes.
Source: ggml, `ggml-common.h` (the structs `block_*`) and `ggml-quants.c`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

__all__ = ["FP4", "PACKED_BITS", "Words", "pack"]

#: Types that have such a form, and the bits of their codes.
PACKED_BITS: Final = {"Q4_0": 4, "Q4_1": 4, "Q5_0": 5, "Q5_1": 5, "Q8_0": 8, "Q4_K": 4, "Q5_K": 5}
#: The type whose codes are floats of 4 bits, and whose scales are exponents.
FP4: Final = "MXFP4"


class Words(NamedTuple):
    """(rows, words) uint32, (rows, groups) float32 scales and biases; of MXFP4 uint8 scales and none. NumPy."""

    words: Any
    scales: Any
    biases: Any


class _Codes(NamedTuple):
    """(groups, 32) codes from 0, (groups, 1) scale and bias."""

    codes: Any
    scale: Any
    bias: Any


def pack(blocks: Any, kind: str) -> Words:
    """(rows, bytes) uint8 blocks of a type in `PACKED_BITS`, or of MXFP4, to the words of MLX."""
    import numpy as np
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    rows = blocks.shape[0]
    blocks = blocks.reshape(-1, GGML_QUANT_SIZES[GGMLQuantizationType[kind]][1])
    if kind == FP4:
        return Words(_words(_nibbles(blocks[:, 1:]), 4).reshape(rows, -1), blocks[:, 0].reshape(rows, -1), None)
    codes, scale, bias = _READERS[kind](blocks)
    words = _words(codes, PACKED_BITS[kind]).reshape(rows, -1)
    scales, biases = (part.astype(np.float32).reshape(rows, -1) for part in (scale, bias))
    return Words(words, scales, biases)


def _words(codes: Any, bits: int) -> Any:
    """Codes in a row of bits, the lowest first, as MLX packs any number of bits."""
    import numpy as np

    if bits == 8:
        return codes.view("<u4")
    if bits == 4:
        return (codes[:, 0::2] | codes[:, 1::2] << 4).view("<u4")
    places = np.arange(8, dtype=np.uint64) * np.uint64(bits)
    packs = (codes.reshape(-1, 8).astype(np.uint64) << places).sum(axis=1, dtype=np.uint64)
    kept = np.ascontiguousarray(packs.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :bits])
    return kept.reshape(codes.shape[0], -1).view("<u4")


def _half(blocks: Any, at: int) -> Any:
    """A float16 of each block, in float32: (blocks, 1)."""
    return blocks[:, at : at + 2].copy().view("<f2").astype("<f4")


def _nibbles(quads: Any) -> Any:
    """(n, 16) bytes: the low halves are numbers 0 to 15, the high ones 16 to 31."""
    import numpy as np

    return np.concatenate([quads & 15, quads >> 4], axis=1)


def _fifth(quads: Any, high: Any) -> Any:
    """The same with a fifth bit of each number, 32 in (n, 4) bytes."""
    import numpy as np

    return _nibbles(quads) | np.unpackbits(high, axis=1, bitorder="little") << 4


def _q4_0(blocks: Any) -> _Codes:
    scale = _half(blocks, 0)
    return _Codes(_nibbles(blocks[:, 2:]), scale, -8 * scale)


def _q4_1(blocks: Any) -> _Codes:
    return _Codes(_nibbles(blocks[:, 4:]), _half(blocks, 0), _half(blocks, 2))


def _q5_0(blocks: Any) -> _Codes:
    scale = _half(blocks, 0)
    return _Codes(_fifth(blocks[:, 6:], blocks[:, 2:6]), scale, -16 * scale)


def _q5_1(blocks: Any) -> _Codes:
    return _Codes(_fifth(blocks[:, 8:], blocks[:, 4:8]), _half(blocks, 0), _half(blocks, 2))


def _q8_0(blocks: Any) -> _Codes:
    scale = _half(blocks, 0)
    return _Codes(blocks[:, 2:] ^ 128, scale, -128 * scale)  # from -128 to 127, then from 0


def _of_256(blocks: Any) -> tuple[Any, Any]:
    """Scale and bias of the eight parts: 6-bit factors of the two float16 in front, (blocks, 8, 1)."""
    import numpy as np

    low, high, rest = (blocks[:, 4 + at : 8 + at] for at in (0, 4, 8))
    factors = np.concatenate([low & 63, rest & 15 | low >> 6 << 4], axis=1)
    offsets = np.concatenate([high & 63, rest >> 4 | high >> 6 << 4], axis=1)
    return (_half(blocks, 0) * factors)[..., None], -(_half(blocks, 2) * offsets)[..., None]


def _halves(quads: Any) -> Any:
    """(n, 128) bytes: each 32 are the low halves of one part and the high ones of the next; (n, 8, 32)."""
    import numpy as np

    quads = quads.reshape(-1, 4, 1, 32)
    return np.concatenate([quads & 15, quads >> 4], axis=2).reshape(-1, 8, 32)


def _q4_k(blocks: Any) -> _Codes:
    return _Codes(_halves(blocks[:, 16:]).reshape(-1, 32), *_of_256(blocks))


def _q5_k(blocks: Any) -> _Codes:
    import numpy as np

    # bit p of byte i is the fifth of number i in part p
    fifth = np.unpackbits(blocks[:, 16:48, None], axis=2, bitorder="little").transpose(0, 2, 1)
    return _Codes((_halves(blocks[:, 48:]) | fifth << 4).reshape(-1, 32), *_of_256(blocks))


_READERS: Final[dict[str, Callable[[Any], _Codes]]] = {
    "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "Q8_0": _q8_0, "Q4_K": _q4_k, "Q5_K": _q5_k,
}  # fmt: skip
