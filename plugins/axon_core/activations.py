"""Activations by name, and what gated layers do with them.

A gated layer multiplies `act(gate)` by a second projection. gpt-oss (OpenAI, 2025) shifts that one by 1, so that a
layer starts out near the identity gate, and bounds both, which helps low precision; others bound without a shift.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import mlx.core as mx
import mlx.nn as nn

from axon_core.elementary import gelu, gelu_tanh, relu2, sigmoid, silu, swiglu, tanh
from axon_core.kernels import native_gated
from axon_core.specs.mlp import ActivationName, Limit

__all__ = ["ACTIVATIONS", "OAI_LIMIT", "gated"]

#: Default bound of `swiglu_oai`.
OAI_LIMIT: Final = 7.0


def _quick_gelu(x: mx.array) -> mx.array:
    return x * sigmoid(1.702 * x)


#: `gelu` is the exact one, `gelu_tanh` its usual approximation, `gelu_quick` the sigmoid form, `relu2` the square of
#: relu. `swiglu_oai`, `swiglu_clipped` and `situ` are no activations by themselves: they are products of gated layers.
ACTIVATIONS: Final[dict[ActivationName, Callable[[mx.array], mx.array]]] = {
    "silu": silu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "gelu_quick": _quick_gelu,
    "relu": nn.relu,
    "relu2": relu2,
}


def _situ(gate: mx.array, x: mx.array, bound: float, other: float | None) -> mx.array:
    dtype, gate, x = x.dtype, gate.astype(mx.float32), x.astype(mx.float32)
    active = bound * tanh(gate / bound) * sigmoid(gate)
    return (active * (x if other is None else other * tanh(x / other))).astype(dtype)


def gated(name: ActivationName, gate: mx.array, x: mx.array, limit: Limit = None) -> mx.array:
    """The inner product of a gated layer.

    Args:
        name: `swiglu_oai`, `swiglu_clipped`, `situ`, or a name of `ACTIVATIONS`.
        gate: Projection that is activated.
        x: Projection of the same shape that is not.
        limit: Bound L. In general `min(act(gate), L) * clip(x, -L, L)`; for `swiglu_oai`
            `g * sigmoid(1.702 g) * (clip(x, -L, L) + 1)` with g = min(gate, L), where L is 7 unless given; for
            `swiglu_clipped` `silu(min(gate, L)) * clip(x, -L, L)`. For `situ` a pair (A, B):
            `A * tanh(gate / A) * sigmoid(gate) * B * tanh(x / B)` in float32, where B may be None for x.

    Returns:
        An array of the shape of both.
    """
    if name == "situ":
        return _situ(gate, x, *(limit if isinstance(limit, tuple) else (1.0, limit)))
    assert not isinstance(limit, tuple), "a pair of bounds is that of `situ`"
    if name == "swiglu_oai":
        limit = limit or OAI_LIMIT
        return _quick_gelu(mx.minimum(gate, limit)) * (mx.clip(x, -limit, limit) + 1)
    if name == "swiglu_clipped":
        assert limit is not None, "it is refused without a limit"
        return swiglu(mx.minimum(gate, limit), mx.clip(x, -limit, limit))
    if limit is None and (y := native_gated(name, gate, x)) is not None:
        return y
    if name == "silu" and limit is None:
        return swiglu(gate, x)
    active = ACTIVATIONS[name](gate)
    return active * x if limit is None else mx.minimum(active, limit) * mx.clip(x, -limit, limit)
