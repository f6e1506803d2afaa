"""Kernels under the transformations of MLX, which know nothing of what a kernel computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import mlx.core as mx

__all__ = ["in_place_of"]

Recurrence = Callable[..., tuple[mx.array, mx.array]]


def in_place_of(reference: Recurrence, kernel: Recurrence | None) -> Recurrence:
    """A kernel with the derivatives and `vmap` of the reference implementation, or that one itself without a kernel.

    The backward pass runs the reference from the start, in its own chunks: training takes the memory of the reference,
    and one forward pass more. `mx.vmap` and `mx.jvp` first ask the kernel, and MLX's own for GPUs refuse: they need
    `reference_implementations` there.

    Args:
        reference: `(*arrays) -> (outputs, state)` out of operations of MLX.
        kernel: The same in another way, if there is one here.
    """
    if kernel is None:
        return reference
    wrapped = mx.custom_function(kernel)

    @wrapped.vjp  # type: ignore[untyped-decorator, unused-ignore]
    def _vjp(primals: tuple[mx.array, ...], cotangents: tuple[mx.array, ...], _: Any) -> Any:
        # Not before the backward pass comes here: the states between chunks would stay alive for every layer.
        primals = mx.depends(list(primals), list(cotangents))
        return mx.vjp(reference, list(primals), list(cotangents))[1]

    @wrapped.jvp  # type: ignore[untyped-decorator, unused-ignore]
    def _jvp(primals: tuple[mx.array, ...], tangents: tuple[mx.array, ...]) -> Any:
        return mx.jvp(reference, list(primals), list(tangents))[1]

    @wrapped.vmap  # type: ignore[untyped-decorator, unused-ignore]
    def _vmap(arrays: tuple[mx.array, ...], axes: tuple[int | None, ...]) -> Any:
        return mx.vmap(reference, in_axes=tuple(axes), out_axes=0)(*arrays), (0, 0)

    return cast("Recurrence", wrapped)
