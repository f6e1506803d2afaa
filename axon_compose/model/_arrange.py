"""In which order the numbers of a matrix stand in memory: that of the work to come.

A linear layer multiplies by the transpose of its weight. For a few rows on the CPU that is 2.4 times as fast with the
reference BLAS, and a little faster with others, if the weight stands by columns: the product then adds multiples of
what stands side by side, instead of summing products one by one. Gradients and optimisers want it by rows.

Shapes, names and numbers stay; a file that is written from either is the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
import mlx.nn as nn

__all__ = ["arrange"]


def arrange(module: nn.Module, *, by_columns: bool, tables: bool = False) -> bool:
    """Put the matrices of all linear layers in order, one after the other, so that only one is there twice.

    Layers of `mlx.nn.Linear` and of classes that say `by_columns = True` take part, with their `weight`.

    Args:
        module: A model or a part of it.
        by_columns: For inference on the CPU; else by rows.
        tables: Tables of embeddings that multiply take part too.

    Returns:
        Whether it was done: while MLX traces a function, nothing can be computed, and all stays as it is.
    """
    for layer in _layers(module, tables):
        weight = layer["weight"]
        if weight.dtype != mx.float32 or weight.ndim < 2:
            continue  # for other types MLX has products of its own
        ordered = mx.contiguous(weight.swapaxes(-1, -2)).swapaxes(-1, -2) if by_columns else mx.contiguous(weight)
        try:
            mx.eval(ordered)
        except ValueError:
            return False
        layer["weight"] = ordered
    return True


def _layers(module: nn.Module, tables: bool) -> Iterator[nn.Module]:
    for _, layer in module.named_modules():
        told = getattr(layer, "by_columns", isinstance(layer, nn.Linear))
        if told and "weight" in layer and (tables or not isinstance(layer, nn.Embedding)):
            yield layer
