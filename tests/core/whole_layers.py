"""Layers token after token, with what is around them in a block, by the fast path and in steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten, tree_map, tree_unflatten
from stored_layers import drawn

from axon_compose.registry import Shard
from axon_core.attention import Attention
from axon_core.cpu import reference_implementations
from axon_core.few_tokens import added
from axon_core.norms import RMSNorm
from axon_core.ssm import AxonSSM, SSMConfig

WIDTH, INNER, HEADS = 64, 96, 2
TOKENS = 12
types = pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)


def varied(layer: Any, dtype: mx.Dtype = mx.float32) -> Any:
    """A layer whose numbers are all drawn: ones and zeros would hide what is left out."""
    layer.eval()
    drawn_ones = [
        (name, value + 0.2 * drawn(*value.shape, seed=i)) if mx.issubdtype(value.dtype, mx.floating) else (name, value)
        for i, (name, value) in enumerate(tree_flatten(layer.parameters()))
    ]
    layer.update(tree_unflatten(drawn_ones))
    layer.set_dtype(dtype)
    return layer


def decoded(
    layer: Any, norm: Any, cache: Any, dtype: mx.Dtype, batch: int = 2, of: mx.Dtype = mx.float32, **more: Any
) -> mx.array:
    """Token after token, rounded to a type before; where there is no norm, what the layer itself gives."""
    x, found = drawn(batch, TOKENS, WIDTH, seed=100).astype(of).astype(dtype), []
    arguments = more if cache is None else {"cache": cache, **more}
    for i in range(TOKENS):
        token = x[:, i : i + 1]
        if norm is None:
            y = layer(token, **arguments)
            y = y[0] if isinstance(y, tuple) else y
        else:
            y, _ = added(layer, norm, token, Shard(), **arguments)
        assert y.dtype == dtype
        found.append(y)
        mx.eval(y)
    return mx.concatenate(found, axis=1)


def agree(layer: Any, cache: Callable[[], Any], dtype: mx.Dtype = mx.float32, norm: Any = None, **more: Any) -> bool:
    """Whether a layer gives the same as in reference implementations, by itself and with a norm and a sum."""
    norms = (None, varied(RMSNorm(WIDTH, 1e-5, offset=1.0), dtype)) if norm is None else (norm,)
    for each in norms:
        y = decoded(layer, each, cache(), dtype, **more)
        with reference_implementations():
            steps = decoded(layer, each, cache(), dtype, **more)
        if dtype == mx.float32:
            if not mx.abs(y - steps).max() <= 1e-5 * mx.abs(steps).max():
                return False
            continue
        truth = widened(layer, each, cache(), dtype, **more)
        lost, known = (mx.abs(found.astype(mx.float32) - truth).max() for found in (y, steps))
        if not lost <= 1.5 * known + 2.0**-8 * mx.abs(truth).max():
            return False
    return True


def widened(layer: Any, norm: Any, cache: Any, dtype: mx.Dtype, **more: Any) -> mx.array:
    """What the same numbers give in float32, in steps: those in 16 bits round every one of them."""
    parts = [part for part in (layer, norm) if part is not None]
    held = [part.parameters() for part in parts]
    for part, own in zip(parts, held, strict=True):
        part.update(tree_map(lambda a: a.astype(mx.float32) if a.dtype == dtype else a, own))
    try:
        with reference_implementations():
            return decoded(layer, norm, cache, mx.float32, of=dtype, **more)
    finally:
        for part, own in zip(parts, held, strict=True):
            part.update(own)


def doubled(base: type, name: str) -> type:
    """A class one of whose methods gives twice what that of its base gives."""

    def twice(each: Any) -> Any:
        return 2 * each if isinstance(each, mx.array) and each.dtype in (mx.float32, mx.bfloat16) else each

    def method(self: Any, *arguments: Any, **options: Any) -> Any:
        found = getattr(base, name)(self, *arguments, **options)
        return tuple(map(twice, found)) if isinstance(found, tuple) else twice(found)

    return type("Doubled", (base,), {name: method})


def attention(**options: Any) -> Attention:
    return varied(Attention(WIDTH, options.pop("num_heads", HEADS), **options))


def ssm(**options: Any) -> AxonSSM:
    return varied(AxonSSM(SSMConfig(WIDTH, INNER, **options)))
