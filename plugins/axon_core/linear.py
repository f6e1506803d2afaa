"""Linear layers whose products are as fast as the BLAS below MLX allows."""

from __future__ import annotations

from typing import Any, ClassVar, Final, cast

import mlx.core as mx
import mlx.nn as nn

from axon_compose.machine.blas import is_reference_blas
from axon_core.alike import Alike, not_offered
from axon_core.cpu import fast
from axon_core.few_rows import few_rows_product
from axon_core.float32_products import Packing, half_product, is_half, quantized_product
from axon_core.kernels import Stored, is_native, native_product

__all__ = ["Embedding", "Linear", "QuantizedEmbedding", "QuantizedLinear", "product", "transposed_factor"]

#: Rows from which on a copy of them is worth it.
_ROWS: Final = 8
#: Rows up to which the kernel of `axon-native` reads a matrix of float32 in half the time that OpenBLAS takes for them.
_FEW: Final = 8


def product(x: mx.array, weight: mx.array) -> mx.array:
    """Multiply by the transpose of a matrix, `x @ weight.T`, as training does it.

    MLX's gradient of the matrix is the transpose of an array: whatever reads it afterwards, as sums and optimisers do,
    takes twice the time. Here it lies as the matrix does.

    The reference BLAS, which the wheel for Linux brings, takes sums of products along rows at half the speed of sums of
    multiples of rows. There the product is written as `(weight @ x.T).T`, and its gradients likewise, with the small
    factor copied. Measured on two shared x86-64 cores, in GFLOP/s, for 512 rows of 384 to 1536: 1.8 as `x @ weight.T`
    and 4.3 so; with OpenBLAS 70 and 51, so there it is left alone.

    Args:
        x: (..., K).
        weight: (N, K).

    Returns:
        (..., N).
    """
    if x.size < _ROWS * x.shape[-1] or x.dtype != weight.dtype or not fast():
        return x @ weight.T
    rows = x.reshape(-1, x.shape[-1])
    y = _transposed_product(rows, weight) if _slow(x, weight) else _product(rows, weight)
    return cast("mx.array", y).reshape(*x.shape[:-1], -1)


def transposed_factor(matrices: mx.array) -> mx.array:
    """The transposes of (..., N, K) as a right factor: copied, where multiplying rows by rows is slow."""
    transposed = matrices.swapaxes(-1, -2)
    return _copied(transposed) if _slow(matrices, matrices) else transposed


def _of_few(x: mx.array, weight: mx.array) -> mx.array | None:
    """The product of a few rows of float32 where a kernel is there for it."""
    if not is_native() or x.size > _FEW * x.shape[-1] or not x.dtype == weight.dtype == mx.float32:
        return None
    return None if is_reference_blas() else native_product(x, weight)


def _slow(a: mx.array, b: mx.array) -> bool:
    return a.dtype == b.dtype == mx.float32 and fast() and is_reference_blas()


def _copied(x: mx.array) -> mx.array:
    """The same in the order of its rows; `mx.contiguous` is a primitive that `mx.export_function` does not know."""
    return x.flatten().reshape(x.shape)


@mx.custom_function
def _product(x: mx.array, weight: mx.array) -> mx.array:
    return x @ weight.T


@_product.vjp
def _product_vjp(primals: tuple[mx.array, mx.array], cotangent: mx.array, _: Any) -> tuple[mx.array, mx.array]:
    x, weight = primals
    return cotangent @ weight, cotangent.T @ x


@mx.custom_function
def _transposed_product(x: mx.array, weight: mx.array) -> mx.array:
    return _copied((weight @ _copied(x.T)).T)


@_transposed_product.vjp
def _transposed_product_vjp(
    primals: tuple[mx.array, mx.array], cotangent: mx.array, _: Any
) -> tuple[mx.array, mx.array]:
    x, weight = primals
    return cotangent @ weight, _copied(cotangent.T) @ x


class Linear(nn.Linear, metaclass=Alike):
    """`x @ weight.T + bias`, by the fastest product that the CPU has for its types."""

    alike: Final = nn.Linear
    narrow: ClassVar[type[Linear]]

    def __call__(self, x: mx.array) -> mx.array:
        """Transform `x` (..., input) to (..., output)."""
        weight = self["weight"]
        if is_half(x, weight):
            y = half_product(x, weight)
        elif (few := _of_few(x, weight)) is not None:
            y = few
        elif self.training and x.size >= _ROWS * x.shape[-1]:
            y = product(x, weight)
        elif (pieced := few_rows_product(x, weight)) is not None:
            y = pieced
        elif "bias" in self:
            return mx.addmm(self["bias"], x, weight.T)
        else:
            return x @ weight.T
        return y + self["bias"] if "bias" in self else y

    def stored(self) -> Stored | None:
        """What kernels read of it; None where its matrix lies by columns, for the reference BLAS, or it does more."""
        weight = self["weight"]
        if type(self).__call__ is not Linear.__call__ or (weight.dtype == mx.float32 and is_reference_blas()):
            return None
        return weight, None, None, self.get("bias"), 0, 0, ""

    def to_quantized(
        self,
        group_size: int | None = None,
        bits: int | None = None,
        mode: str = "affine",
        quantize_input: bool = False,
    ) -> nn.Module:
        """The quantised layer, as `mlx.nn.Linear` gives it, with products of its own for the CPU."""
        if quantize_input:
            return super().to_quantized(group_size, bits, mode, quantize_input)
        return QuantizedLinear.from_linear(self, group_size, bits, mode=mode)


class NarrowLinear(Linear):
    """A linear layer whose width no group of quantised numbers divides; see `axon_core.alike`."""

    to_quantized = not_offered


Linear.narrow = NarrowLinear


class QuantizedLinear(nn.QuantizedLinear, metaclass=Alike):
    """A quantised linear layer; on the CPU it computes in float32, whatever type its scales and inputs have."""

    alike: Final = nn.QuantizedLinear

    def __call__(self, x: mx.array) -> mx.array:
        """Transform `x` (..., input) to (..., output)."""
        if not fast():
            return super().__call__(x)
        packing = Packing(self.group_size, self.bits, self.mode)
        y = quantized_product(x, self["weight"], self["scales"], self.get("biases"), packing)
        return y + self["bias"] if "bias" in self else y

    def stored(self) -> Stored | None:
        """What kernels read of it; None where it does more."""
        if type(self).__call__ is not QuantizedLinear.__call__:
            return None
        arrays = self["weight"], self["scales"], self.get("biases"), self.get("bias")
        return *arrays, self.group_size, self.bits, self.mode


class Embedding(nn.Embedding):
    """A table of vectors that is a linear layer too, as `Linear` is one."""

    def as_linear(self, x: mx.array) -> mx.array:
        """Scores (..., vectors) of `x` (..., width)."""
        weight = self["weight"]
        if is_half(x, weight):
            return half_product(x, weight)
        if (few := _of_few(x, weight)) is not None:
            return few
        if (pieced := few_rows_product(x, weight)) is not None:
            return pieced
        return product(x, weight) if self.training else super().as_linear(x)

    def to_quantized(
        self,
        group_size: int | None = None,
        bits: int | None = None,
        mode: str = "affine",
        quantize_input: bool = False,
    ) -> nn.Module:
        """The quantised table, as `mlx.nn.Embedding` gives it, with products of its own for the CPU."""
        if quantize_input:
            return super().to_quantized(group_size, bits, mode, quantize_input)
        return QuantizedEmbedding.from_embedding(self, group_size, bits, mode=mode)


class QuantizedEmbedding(nn.QuantizedEmbedding):
    """A quantised table that is a linear layer too, as `QuantizedLinear` is one."""

    def as_linear(self, x: mx.array) -> mx.array:
        """Scores (..., vectors) of `x` (..., width)."""
        if not fast():
            return super().as_linear(x)
        packing = Packing(self.group_size, self.bits, self.mode)
        return quantized_product(x, self["weight"], self["scales"], self.get("biases"), packing)
