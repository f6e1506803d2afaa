"""Kernels under the transformations of MLX, which know nothing of what a kernel computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import mlx.core as mx

__all__ = ["Gradient", "Recurrence", "in_place_of"]

#: `(*arrays) -> (outputs, state)`.
Recurrence = Callable[..., tuple[mx.array, mx.array]]
#: The gradients of all arrays, `(*arrays, d_outputs, d_state) -> (d_array, ...)`; some take the outputs before those.
Gradient = Callable[..., Sequence[mx.array]]

_OUTPUTS: Final = 2


def in_place_of(
    reference: Recurrence, kernel: Recurrence | None, gradient: Gradient | None = None, *, of_outputs: bool = False
) -> Recurrence:
    """A kernel with the derivatives and `vmap` of the reference implementation, or that one itself without a kernel.

    Where the kernel has no gradient of its own, the backward pass runs the reference from the start, in its own chunks:
    training takes the memory of the reference, and one forward pass more. `mx.vmap` and `mx.jvp` first ask the kernel,
    and MLX's own for GPUs refuse: they need `reference_implementations` there.

    Args:
        reference: The recurrence out of operations of MLX.
        kernel: The same in another way, if there is one here.
        gradient: Its gradient, if there is a kernel for that too.
        of_outputs: Whether that is given the outputs and the state after all tokens, which are then kept for it.
    """
    return reference if kernel is None else _wrapped(reference, kernel, gradient, of_outputs)


def _wrapped(
    reference: Callable[..., Any], kernel: Callable[..., Any], gradient: Gradient | None, of_outputs: bool = False
) -> Any:
    def reference_gradient(*arrays: mx.array) -> list[mx.array]:
        given = len(arrays) - (2 * _OUTPUTS if of_outputs else _OUTPUTS)
        return _gradient(reference, list(arrays[:given]), list(arrays[-_OUTPUTS:]))

    wrapped = mx.custom_function(kernel)

    @wrapped.vjp  # type: ignore[untyped-decorator, unused-ignore]
    def _vjp(primals: tuple[mx.array, ...], cotangents: tuple[mx.array, ...], outputs: Any) -> Any:
        if gradient is None:
            return _gradient(reference, list(primals), list(cotangents))
        own_gradient = _wrapped(reference_gradient, gradient, None)
        return list(own_gradient(*primals, *(outputs if of_outputs else ()), *cotangents))[: len(primals)]

    @wrapped.jvp  # type: ignore[untyped-decorator, unused-ignore]
    def _jvp(primals: tuple[mx.array, ...], tangents: tuple[mx.array, ...]) -> Any:
        return mx.jvp(reference, list(primals), list(tangents))[1]

    @wrapped.vmap  # type: ignore[untyped-decorator, unused-ignore]
    def _vmap(arrays: tuple[mx.array, ...], axes: tuple[int | None, ...]) -> Any:
        found = mx.vmap(reference, in_axes=tuple(axes), out_axes=0)(*arrays)
        return found, (0,) * len(found)

    return wrapped


def _gradient(reference: Callable[..., Any], primals: list[mx.array], cotangents: list[mx.array]) -> list[mx.array]:
    # Not before the backward pass comes here: the states between chunks would stay alive for every layer.
    primals = mx.depends(primals, cotangents)
    found: list[mx.array] = mx.vjp(reference, primals, cotangents)[1]
    return found
