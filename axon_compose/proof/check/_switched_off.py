"""Layers and components that are switched off for a while: they run, keep and publish what they always do."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx.utils import tree_map

from axon_compose.plan import Use

__all__ = ["Skipped", "silent"]


def silent(use: Use, module: Any) -> Any:
    """What runs instead of a component that shall mix no tokens."""
    if use.spec.kind == "connection":
        return _TokenByToken(module)
    return _Silent(module, whole=use.spec.kind in ("block", "norm"))


class Skipped:
    """A layer that gives back its input, and publishes what it always does."""

    def __init__(self, block: Any) -> None:
        self.block = block

    def __call__(self, x: mx.array, *arguments: Any) -> Any:
        return x, self.block(x, *arguments)[1]


class _TokenByToken:
    """A connection that runs for each token as if it was the only one."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def read(self, state: Any, **arguments: Any) -> Any:
        return self.module.read(state, **arguments)

    def write(self, held: Any, y: mx.array, **arguments: Any) -> Any:
        self.module.write(held, y, **arguments)  # which moves its cache
        batch, length = y.shape[:2]

        def reshaped(tree: Any, old: tuple[int, int], new: tuple[int, int]) -> Any:
            def one(a: Any) -> Any:
                return a.reshape(*new, *a.shape[2:]) if isinstance(a, mx.array) and a.shape[:2] == old else a

            return tree_map(one, tree)

        whole, apart = (batch, length), (batch * length, 1)
        return reshaped(self.module.write(reshaped(held, whole, apart), reshaped(y, whole, apart)), apart, whole)


class _Silent:
    """A component that runs and adds nothing."""

    def __init__(self, module: Any, whole: bool) -> None:
        self.module, self.whole = module, whole

    def __call__(self, x: mx.array, **arguments: Any) -> mx.array:
        self.module(x, **arguments)
        return x if self.whole else mx.zeros_like(x)
