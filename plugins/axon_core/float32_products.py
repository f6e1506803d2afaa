"""Products of half-precision and quantised matrices on the CPU, computed in float32.

MLX gives float32 alone to the BLAS; bfloat16 and float16 go through loops of its own, and quantised matrices through
others, whose speed hangs on the type of their scales. So the CPU works in float32 here, and the result gets the type
that it would have had, which is also one rounding instead of many. Measured on one x86-64 core, in milliseconds, for a
matrix 1536 x 576:

=============================  =====  ======  =======
rows                               1      16      128
=============================  =====  ======  =======
bfloat16, MLX's own             0.64    5.3      43
bfloat16, here                  0.35    0.59      2.9
4 bits, bfloat16, MLX's own     6.2   102       809
4 bits, float16, MLX's own     29     434      3680
4 bits, here                    0.9     2.2       4.5
=============================  =====  ======  =======

With `axon-native` all of them go through kernels that read the matrix as it is stored (`kernels.native_product`).
Without it, a few rows are multiplied by MLX's quantised product with float32 scales; more by the matrix that is
unpacked for the moment, where a fast BLAS makes up for it. Large matrices are taken a stretch of rows at a time, so
that no second table is ever in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast

import mlx.core as mx

from axon_compose.machine.blas import is_reference_blas
from axon_core.cpu import fast
from axon_core.kernels import native_product

__all__ = ["Packing", "half_product", "is_half", "quantized_product", "wide"]

_HALF: Final = (mx.bfloat16, mx.float16)
#: Rows up to which the quantised product of MLX is faster than unpacking.
_FEW: Final = 2
#: Elements of a stretch: 1 MiB in float32. MLX makes room for the results of dozens of operations ahead, so this is
#: held about thirty times (`plan.running_nbytes` counts it).
_STRETCH: Final = 256 << 10
#: Numbers of a matrix from which on MLX multiplies one row of bfloat16 faster than stretches do.
_TABLE: Final = 4 << 20


def is_half(*arrays: mx.array) -> bool:
    """Whether the CPU should multiply these in float32: one of them has 16 bits, and fast paths are asked for."""
    for array in arrays:
        if array.itemsize == 2 and array.dtype in _HALF:  # the type alone takes three times as long to compare
            return fast()
    return False


def half_product(x: mx.array, weight: mx.array) -> mx.array:
    """`x @ weight.T` where one or both have 16 bits.

    Args:
        x: (..., K).
        weight: (N, K).

    Returns:
        (..., N), in the type that the product has in MLX.
    """
    dtype = _common(x, weight)
    if (found := native_product(x, weight)) is not None:
        return found.astype(dtype)
    if dtype == mx.bfloat16 and x.size == x.shape[-1] and weight.size > _TABLE:
        return x @ weight.T  # one row times a table: MLX's own is a third faster than stretches
    return cast("mx.array", _half(x.reshape(-1, x.shape[-1]), weight)).astype(dtype).reshape(*x.shape[:-1], -1)


@mx.custom_function
def _half(x: mx.array, weight: mx.array) -> mx.array:
    return _by_stretches(x.astype(mx.float32), weight, lambda part, _: part.astype(mx.float32))


@_half.vjp
def _half_vjp(primals: tuple[mx.array, mx.array], cotangent: mx.array, _: Any) -> tuple[mx.array, mx.array]:
    """The matrix is widened again, so that none in float32 waits for the backward pass."""
    x, weight = primals
    again = mx.depends([weight], [cotangent])[0].astype(mx.float32)
    towards_weight = cotangent.T @ x.astype(mx.float32)
    return (cotangent @ again).astype(x.dtype), towards_weight.astype(weight.dtype)


class Packing(NamedTuple):
    """How a matrix is quantised; see `mlx.core.quantize`."""

    group_size: int
    bits: int
    mode: str = "affine"

    def unpacked(
        self, packed: mx.array, scales: mx.array, biases: mx.array | None, global_scale: mx.array | None = None
    ) -> mx.array:
        """The matrix in float32."""
        how: Any = (self.group_size, self.bits, self.mode, global_scale, mx.float32)
        return mx.dequantize(packed, wide(scales), wide(biases), *how)

    def product(self, x: mx.array, packed: mx.array, scales: mx.array, biases: mx.array | None) -> mx.array:
        """MLX's own, in float32."""
        return mx.quantized_matmul(x, packed, wide(scales), wide(biases), True, self.group_size, self.bits, self.mode)


def quantized_product(
    x: mx.array, packed: mx.array, scales: mx.array, biases: mx.array | None, packing: Packing
) -> mx.array:
    """The product by the transpose of a quantised matrix.

    Args:
        x: (..., K).
        packed: (N, K * bits / 32), integers.
        scales: (N, K / group size).
        biases: The same, or None where the mode has none.
        packing: Group size, bits and mode.

    Returns:
        (..., N), in the type that the product has in MLX.
    """
    group_size, bits, mode = packing
    found = native_product(x, packed, scales, biases, group_size=group_size, bits=bits, mode=mode)
    if found is not None and x.dtype == mx.float32:
        return found
    dtype = x.dtype if biases is None else _common(x, scales)
    if found is not None:
        return found.astype(dtype)
    rows = x.reshape(-1, x.shape[-1]).astype(mx.float32)
    if rows.shape[0] <= _FEW or is_reference_blas():
        y = packing.product(rows, packed, scales, biases)
    elif biases is None:
        y = _unpacking(packing, packed, scales)(rows)
    else:
        y = _affine(packing, packed)(rows, scales, biases)
    return y.astype(dtype).reshape(*x.shape[:-1], -1)


def _affine(packing: Packing, packed: mx.array) -> Callable[[mx.array, mx.array, mx.array], mx.array]:
    """The product of `x`, scales and biases, which all may be trained."""

    @mx.custom_function
    def product(x: mx.array, scales: mx.array, biases: mx.array) -> mx.array:
        return _by_stretches(x, packed, lambda part, rows: packing.unpacked(part, scales[rows], biases[rows]))

    @product.vjp
    def _vjp(primals: tuple[mx.array, ...], cotangent: mx.array, _: Any) -> tuple[mx.array, ...]:
        x, scales, biases = primals
        again = mx.depends([scales], [cotangent])[0]  # unpacked anew, so that none waits for the backward pass
        groups = (cotangent.T @ x).reshape(*scales.shape, -1)
        numbers = packing.unpacked(packed, mx.ones_like(wide(scales)), mx.zeros_like(wide(biases)))
        towards_scales = (groups * numbers.reshape(groups.shape)).sum(axis=-1)
        return (
            cotangent @ packing.unpacked(packed, again, biases),
            towards_scales.astype(scales.dtype),
            groups.sum(axis=-1).astype(biases.dtype),
        )

    return cast("Callable[[mx.array, mx.array, mx.array], mx.array]", product)


def _unpacking(packing: Packing, packed: mx.array, scales: mx.array) -> Callable[[mx.array], mx.array]:
    """The product of `x` where the scales are no numbers that could be trained."""

    @mx.custom_function
    def product(x: mx.array) -> mx.array:
        return _by_stretches(x, packed, lambda part, rows: packing.unpacked(part, scales[rows], None))

    @product.vjp
    def _vjp(_primal: mx.array, cotangent: mx.array, _: Any) -> mx.array:
        again = mx.depends([scales], [cotangent])[0]
        return cotangent @ packing.unpacked(packed, again, None)

    return cast("Callable[[mx.array], mx.array]", product)


def _by_stretches(x: mx.array, stored: mx.array, matrix: Callable[[mx.array, slice], mx.array]) -> mx.array:
    """The product by a transpose, whose rows are widened a stretch at a time: as many as fit into memory that is kept.

    Args:
        x: (rows, K), float32.
        stored: The matrix as it is stored, (N, ...).
        matrix: Some of its rows in float32; takes them as stored, and which they are.
    """
    outputs: list[mx.array] = []
    count, width = stored.shape[0], x.shape[-1]
    step = max(1, _STRETCH // width)
    for start in range(0, count, step):
        rows = slice(start, start + step)
        part = mx.depends([stored], outputs[-1:])[0] if outputs else stored  # one stretch after the other
        outputs.append(x @ matrix(part[rows], rows).T)
    return outputs[0] if len(outputs) == 1 else mx.concatenate(outputs, axis=-1)


def _common(x: mx.array, other: mx.array) -> mx.Dtype:
    """The type of a product in MLX: bfloat16 and float16 together are float32."""
    return mx.result_type(x, other)


def wide(array: mx.array | None) -> Any:
    """Scales in float32; those that are exponents of two stay bytes."""
    return array.astype(mx.float32) if array is not None and mx.issubdtype(array.dtype, mx.floating) else array
