"""The memory layout of weights under the reference BLAS: column-major for inference, row-major for training.

A linear layer multiplies by the transpose of its weight. For a few rows that is 2.4 times as fast with the reference
BLAS if the weight is column-major: the product then adds multiples of contiguous columns, instead of summing products
one by one. Gradients and optimisers want it row-major. With OpenBLAS both are alike (one thread, x86-64: 4096 x 1024
times one row 3.6 and 2.7 ms, times 256 rows 24.9 and 23.9 ms), and weights stay as they come.

An embedding table that is the head too stays row-major: looked up it is read by rows, and a second copy of the largest
matrix costs more than it gains (49152 x 576 times one row: 20 ms by rows with OpenBLAS, 39 by columns).

Shapes, names and values stay; a file that is written from either is the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

__all__ = ["arrange", "make_weights"]


def arrange(module: nn.Module, *, column_major: bool) -> bool:
    """Lay out the weights of all linear layers, one after the other, so that only one is in memory twice.

    Layers of `mlx.nn.Linear` and of classes with `column_major = True` take part, with their `weight`.

    Args:
        module: A model or a part of it.
        column_major: For inference with the reference BLAS; row-major otherwise.

    Returns:
        Whether it was done: while MLX traces a function, nothing can be computed, and all stays as it is.
    """
    for layer in _layers(module):
        weight = layer["weight"]
        if weight.dtype != mx.float32 or weight.ndim < 2:
            continue  # for other types MLX has products of its own
        ordered = mx.contiguous(weight.swapaxes(-1, -2)).swapaxes(-1, -2) if column_major else mx.contiguous(weight)
        try:
            mx.eval(ordered)
        except ValueError:
            return False
        layer["weight"] = ordered
    return True


def make_weights(module: nn.Module) -> bool:
    """Compute the weights that are lazy still, one after the other.

    Left to the first call they would be made side by side, random ones in float32 whatever they become. What they
    leave behind is given back.

    Args:
        module: A model or a part of it.

    Returns:
        Whether it was done; see `arrange`.
    """
    for _, weight in tree_flatten(module.parameters()):
        try:
            mx.eval(weight)
        except ValueError:
            return False
    mx.clear_cache()
    return True


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    for _, layer in module.named_modules():
        takes_part = getattr(layer, "column_major", isinstance(layer, nn.Linear))
        if takes_part and "weight" in layer:
            yield layer
