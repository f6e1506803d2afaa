"""Layers of a few tokens in C++ where `axon-native` is installed: one operation for all that a layer projects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf
from typing import Any, Final, NamedTuple

import mlx.core as mx

from axon_core.kernels import _native
from axon_core.kernels._native import TYPES, native
from axon_core.kernels._products import is_known

__all__ = [
    "Routing",
    "Selective",
    "Stored",
    "StoredNorm",
    "native_attended",
    "native_experts",
    "native_heads",
    "native_kept",
    "native_mlp",
    "native_routed",
    "native_selective",
    "readable",
]

#: A linear layer: weight (N, ...), scales and biases of a quantised one or None, what is added (N,) or None, group
#: size, bits and mode, which are 0 and empty where it is not quantised. Arrays of experts have a further first axis.
Stored = tuple[mx.array, mx.array | None, mx.array | None, mx.array | None, int, int, str]
#: A root-mean-square norm `x / sqrt(mean(x²) + eps) * (offset + weight)`: weight (D,) or None for ones, eps, offset.
StoredNorm = tuple[mx.array | None, float, float]

#: Rows up to which it is taken: for more, products cost more than operations, and the BLAS has faster ones of float32.
_ROWS: Final = 4


def readable(x: mx.array) -> bool:
    """Whether layers of `x` (..., D) may run in one operation: a few rows of floats on the CPU, with the kernels."""
    return native() is not None and x.size <= _ROWS * x.shape[-1] and x.dtype in TYPES


def native_mlp(
    x: mx.array,
    gate: Stored,
    up: Stored,
    down: Stored,
    activation: str,
    norm: StoredNorm | None = None,
    *,
    adds: bool = False,
) -> mx.array | None:
    """`down(act(gate(h)) * up(h))` of `x` (..., D), which is `readable`, where h is its norm, or x without one.

    Args:
        x: (..., D).
        gate: A layer.
        up: Another.
        down: Another.
        activation: A name of `GATES`.
        norm: Of x.
        adds: Whether the result is added to x.

    Returns:
        (..., D); None where MLX has to compute it, or to say why not, here as below: for packings, types and shapes
        that the kernels do not read.
    """
    module: Any = _native.installed()
    call = module.gated_mlp
    return _read(call, x, gate, up, down, activation, norm, adds) if _known(x, gate, up, down) else None


def native_experts(
    x: mx.array, chosen: mx.array, weights: mx.array, gate: Stored, up: Stored, down: Stored, activation: str
) -> mx.array | None:
    """`sum_j w_j down_e(act(gate_e(x)) * up_e(x))` of `x` (..., D), which is `readable`.

    Args:
        x: (..., D).
        chosen: The experts e of each row, (..., top_k).
        weights: Their weights w, (..., top_k).
        gate: Layers of all experts.
        up: The same.
        down: The same.
        activation: As for `native_mlp`.

    Returns:
        (..., D).
    """
    module: Any = _native.installed()
    call = module.gated_experts
    return _read(call, x, chosen, weights, gate, up, down, activation) if _known(x, gate, up, down) else None


class Routing(NamedTuple):
    """How the scores of a router become the weights of experts.

    Attributes:
        top_k: Experts that a row meets.
        of_chosen: Whether the softmax is of their scores alone, not of all.
        to_one: Whether weights are divided by their sum.
        eps: What is added to that sum.
        factor: Of the weights.
    """

    top_k: int
    of_chosen: bool
    to_one: bool
    eps: float
    factor: float


def native_routed(
    x: mx.array,
    router: Stored,
    experts: tuple[Stored, ...],
    activation: str,
    routing: Routing,
    shared: tuple[Stored, ...] | None = None,
    shared_gate: Stored | None = None,
    norm: StoredNorm | None = None,
    *,
    adds: bool = False,
) -> mx.array | None:
    """`native_experts` by a router, and what a shared expert gives, times the sigmoid of its gate if there is one.

    Args:
        x: (..., D).
        router: A layer with a row for each expert.
        experts: Gate, up and down of all experts.
        activation: As for `native_mlp`.
        routing: How their weights are made.
        shared: Gate, up and down of an expert that every row meets.
        shared_gate: A layer of one row.
        norm: Of x.
        adds: Whether the result is added to x.

    Returns:
        (..., D), in the type of x.
    """
    module: Any = _native.installed()
    layers = router, *experts, *(shared or ()), *(() if shared_gate is None else (shared_gate,))
    call = module.routed_experts
    return (
        _read(call, x, router, experts, activation, routing, shared, shared_gate, norm, adds)
        if _known(x, *layers)
        else None
    )


def native_heads(
    x: mx.array,
    projections: tuple[Stored, ...],
    heads: tuple[int, int],
    turn: tuple[mx.array, mx.array] | None,
    pairs: int,
    *,
    traditional: bool,
    norms: tuple[StoredNorm | None, ...] = (None, None, None),
) -> list[mx.array] | None:
    """The queries, keys and values of `x` (B, 1, D), which is `readable`, queries and keys rotated.

    Args:
        x: (B, 1, D).
        projections: Those of queries, keys and values.
        heads: Of queries, and of keys and values.
        turn: Cosines and signed sines (1, head_dim), as for `native_rotation`; no rotation unless given.
        pairs: As for `native_rotation`.
        traditional: The same.
        norms: Of x, and of each query and key before it is rotated.

    Returns:
        (B, heads, 1, width of a head) each.
    """
    module: Any = _native.installed()
    call = module.projected_heads
    return _read(call, x, *projections, heads, turn, pairs, traditional, *norms) if _known(x, *projections) else None


def native_attended(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    scale: float,
    sinks: mx.array | None,
    output: Stored,
    base: mx.array | None,
    tokens: int = 0,
) -> mx.array | None:
    """What a layer makes of `native_attention`, added to `base`.

    Args:
        queries: (B, H, 1, D), which a layer of a `readable` x has made.
        keys: (B, G, S, D).
        values: (B, G, S, V).
        scale: As for `native_attention`.
        sinks: The same.
        output: The layer, of H V numbers.
        base: (B, 1, N), or None.
        tokens: How many of the keys are attended to, from the first on; 0 for all.

    Returns:
        (B, 1, N).
    """
    module: Any = _native.installed()
    call = module.attention_of_one
    return _read(call, queries, keys, values, scale, sinks, tokens, output, base) if _known(queries, output) else None


def native_kept(kept: mx.array, token: mx.array, place: int) -> mx.array:
    """`kept` (B, G, S, D) with one token (B, G, 1, D) of its type at a place, in the same memory if it is free."""
    module: Any = _native.installed()
    y: mx.array = module.with_token(kept, token, place)
    return y


class Selective(NamedTuple):
    """A layer of a selective state space, see `axon_core.ssm`.

    Attributes:
        projections: `in_proj`, `x_proj`, `dt_proj` and `out_proj`.
        taps: Those of the convolution (E, K, 1), and its bias (E,) or None.
        A_log: (E, N).
        D: (E,).
        step_first: Whether `x_proj` gives the step before B and C.
        norms: Of step, B and C.
        steps: The least and the largest step.
    """

    projections: tuple[Stored, ...]
    taps: tuple[mx.array, mx.array | None]
    A_log: mx.array
    D: mx.array
    step_first: bool = False
    norms: tuple[StoredNorm | None, ...] = (None, None, None)
    steps: tuple[float, float] = (0.0, inf)


def native_selective(
    x: mx.array,
    conv_state: mx.array,
    state: mx.array,
    layer: Selective,
    norm: StoredNorm | None = None,
    *,
    adds: bool = False,
) -> list[mx.array] | None:
    """A selective state space over one token of each sequence, `x` (B, 1, D), which is `readable`.

    Args:
        x: (B, 1, D).
        conv_state: Inputs of the convolution before it, (B, K - 1, E).
        state: (B, N, E).
        layer: The layer.
        norm: Of x.
        adds: Whether the result is added to x.

    Returns:
        (B, 1, D), and the next conv_state and state, this in float32.
    """
    module: Any = _native.installed()
    known = _known(x, *layer.projections) and conv_state.dtype == x.dtype
    return _read(module.selective_layer, x, conv_state, state, *layer, norm, adds) if known else None


def _read(call: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a call; None where it refuses what it is given, before it has computed anything."""
    try:
        return call(*arguments)
    except ValueError:
        return None


def _known(x: mx.array, *layers: Stored) -> bool:
    """Whether there are kernels for layers, and steps would give the type of `x`, as these do."""
    for layer in layers:
        if not is_known(layer[6], layer[5], layer[4]):
            return False
    return x.dtype == mx.float32 or all(array.dtype == x.dtype for layer in layers for array in _typed(layer))


def _typed(layer: Stored) -> Iterator[mx.array]:
    """The arrays whose types count in the result's."""
    weight, scales, biases, added, *_, mode = layer
    if not mode:
        yield weight
    elif scales is not None and biases is not None:
        yield scales
    if added is not None:
        yield added
