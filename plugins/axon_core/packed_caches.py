"""Products with quantised keys, values and latents, as the quantised caches of mlx-lm hand them out.

On the CPU MLX adds up the products of quantised numbers in the type of the other factor: in bfloat16 a sum of equal
numbers stops growing after 256 of them, in float16 after 2,048, and the mean of as many values comes out too small
(mlx-lm's attention with `--kv-bits` has that). There both factors are float32 here, and what comes out is rounded once.
"""

from __future__ import annotations

import mlx.core as mx

from axon_core.float32_products import wide

__all__ = ["Packed", "Packing", "group_and_bits", "packed_product", "sums_in_half", "widened"]

#: (packed, scales, biases), each (B, G, S, ·).
Packed = tuple[mx.array, mx.array, mx.array]
#: Group size and bits.
Packing = tuple[int, int]


def group_and_bits(packed: Packed, width: int) -> Packing:
    """Group size and bits of keys or values of that width."""
    return width // packed[1].shape[-1], packed[0].shape[-1] * 32 // width


def sums_in_half(x: mx.array) -> bool:
    """Whether MLX would add up in 16 bits what `x` is multiplied by, if that is quantised."""
    return x.dtype in (mx.bfloat16, mx.float16) and mx.default_device() == mx.cpu


def widened(packed: Packed) -> Packed:
    """The same numbers with scales and biases in float32."""
    codes, scales, biases = packed
    return codes, wide(scales), wide(biases)


def packed_product(x: mx.array, packed: Packed, packing: Packing, *, transpose: bool) -> mx.array:
    """`x @ packed`, or by its transpose, matrix by matrix.

    Args:
        x: (B, G, L, n).
        packed: Of numbers (B, G, S, width).
        packing: Group size and bits.
        transpose: Whether n is the width, or else S.

    Returns:
        (B, G, L, S), or else (B, G, L, width), in the type of `x`.
    """
    if not sums_in_half(x):
        return mx.quantized_matmul(x, *packed, transpose, *packing)
    return mx.quantized_matmul(x.astype(mx.float32), *widened(packed), transpose, *packing).astype(x.dtype)
