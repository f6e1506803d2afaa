"""Layers of a few tokens in one operation, as decoding has them: there operations cost more than what they compute.

Each takes the norm before the layer and the sum behind it too, where a block has nothing else there (`added`).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import ArraysCache

from axon_compose.registry import Shard
from axon_core.kept_tokens import CACHES, keep_one
from axon_core.kernels import (
    Stored,
    StoredNorm,
    native_attended,
    native_experts,
    native_heads,
    native_mlp,
    native_routed,
    native_selective,
    readable,
)
from axon_core.states import write_states

__all__ = [
    "added",
    "attention_of_one",
    "experts_of_few",
    "heads_of_one",
    "inherits",
    "mlp_of_few",
    "routed_of_few",
    "selective_of_one",
    "stored",
]


def added(part: Any, norm: nn.Module, x: mx.array, shard: Shard, **arguments: Any) -> tuple[mx.array, Any]:
    """`x` and what a part of a block makes of its norm; and its cache, None if it has none.

    Args:
        part: Has a `residual`, which does all of this at once and updates its cache in place, or gives None.
        norm: A norm.
        x: (B, L, D).
        shard: Of a block that is split over devices.
        **arguments: Those of the part.
    """
    y = part.residual(norm, x, **arguments) if shard.size == 1 else None
    if y is not None:
        return y, arguments.get("cache")
    y = part(norm(x), **arguments)
    y, cache = y if isinstance(y, tuple) else (y, None)
    return x + shard.sum(y), cache


def mlp_of_few(mlp: Any, x: mx.array, norm: nn.Module | None = None, *, adds: bool = False) -> mx.array | None:
    """`down_proj(act(gate_proj(h)) * up_proj(h))` of `x` (..., D), where h is its norm, or x without one.

    Args:
        mlp: Has these layers and an `activation`, and `is_plain` where it computes nothing else.
        x: (..., D).
        norm: Of x.
        adds: Whether the result is added to x.

    Returns:
        (..., D); None where it has to be computed step by step, here as below: on a GPU, without `axon-native`, for
        more tokens or other types, where there is more to compute, and where a layer is none of `axon_core.linear`,
        such as an adapter.
    """
    if not readable(x) or not mlp.is_plain() or not _reads(norm):
        return None
    layers = stored(mlp, "gate_proj", "up_proj", "down_proj")
    if layers is None:
        return None
    gate, up, down = layers
    return native_mlp(x, gate, up, down, mlp.activation, _norm(norm), adds=adds)


def experts_of_few(experts: nn.Module, x: mx.array, chosen: mx.array, weights: mx.array) -> mx.array | None:
    """The sum of what the chosen experts give, by their weights, each as `mlp_of_few`.

    Args:
        experts: Has these layers for each expert, the activation as `activation.name`, and `is_plain` where it
            computes nothing else.
        x: (..., D).
        chosen: (..., top_k).
        weights: (..., top_k).

    Returns:
        (..., D).
    """
    found = _gated(experts) if readable(x) else None
    if found is None:
        return None
    activation, (gate, up, down) = found
    return native_experts(x, chosen, weights, gate, up, down, activation)


def routed_of_few(moe: Any, x: mx.array, norm: nn.Module | None = None, *, adds: bool = False) -> mx.array | None:
    """What a layer of experts makes of `x` (..., D), its router included.

    Args:
        moe: Has a `gate`, `switch_mlp`, perhaps `shared_expert` and `shared_expert_gate`, and `routing`, which is None
            where weights are made in another way or it computes more.
        x: (..., D).
        norm: Of x.
        adds: Whether the result is added to x.

    Returns:
        (..., D).
    """
    routing = moe.routing() if readable(x) and _reads(norm) else None
    if routing is None:
        return None
    experts, shared = _gated(moe["switch_mlp"]), _gated(moe["shared_expert"]) if "shared_expert" in moe else None
    router, share = _read(moe, "gate"), _read(moe, "shared_expert_gate") if "shared_expert_gate" in moe else None
    if experts is None or router is None:
        return None
    if (shared is None and "shared_expert" in moe) or (share is None and "shared_expert_gate" in moe):
        return None
    activation, layers = experts
    if shared is not None and shared[0] != activation:
        return None
    common = None if shared is None else shared[1]
    return native_routed(x, router, layers, activation, routing, common, share, _norm(norm), adds=adds)


def heads_of_one(
    attention: Any, x: mx.array, offset: int | mx.array, norm: nn.Module | None = None
) -> list[mx.array] | None:
    """The projected and rotated queries and keys, and the projected values, of one token of each sequence.

    Args:
        attention: Has `q_proj`, `k_proj`, `v_proj`, `num_heads`, `num_kv_heads` and perhaps `rope`, `q_norm` and
            `k_norm`, and `is_plain` where it computes nothing else before the scores.
        x: (B, 1, D).
        offset: Position of the token.
        norm: Of x.

    Returns:
        (B, heads, 1, width of a head) each.
    """
    if not readable(x) or x.shape[1] != 1 or not attention.is_plain():
        return None
    own = [norm, attention.get("q_norm"), attention.get("k_norm")]
    layers = stored(attention, "q_proj", "k_proj", "v_proj") if all(map(_reads, own)) else None
    if layers is None:
        return None
    norms = tuple(map(_norm, own))
    heads, rope = (attention.num_heads, attention.num_kv_heads), attention.get("rope")
    if rope is None:
        return native_heads(x, layers, heads, None, 0, traditional=False, norms=norms)
    turn = rope.turn(offset) if isinstance(offset, int) else None
    return turn and native_heads(x, layers, heads, turn, rope.dims // 2, traditional=rope.traditional, norms=norms)


def attention_of_one(
    attention: Any,
    x: mx.array,
    mask: Any,
    cache: Any,
    offset: int | mx.array | None = None,
    norm: nn.Module | None = None,
    *,
    adds: bool = False,
) -> mx.array | None:
    """What an attention layer makes of one token of each sequence, and of what its cache holds.

    Args:
        attention: As for `heads_of_one`, with an `o_proj`, `scale`, `window_size` and perhaps `sinks`, and
            `is_plain_output` where nothing else is computed of the scores and behind them.
        x: (B, 1, D).
        mask: A mask in one of mlx-lm's forms.
        cache: A cache, updated in place.
        offset: Position of the token; the cache's own unless given.
        norm: Of x.
        adds: Whether the result is added to x.

    Returns:
        (B, 1, D).
    """
    plain_mask = mask is None or isinstance(mask, str)
    if not readable(x) or not plain_mask or type(cache) not in CACHES or not attention.is_plain_output():
        return None
    window = attention.window_size
    if window is not None and min(cache.offset + 1, getattr(cache, "max_size", cache.offset + 1)) > window:
        return None
    output = _read(attention, "o_proj")
    offset = cache.offset if offset is None else offset
    heads = None if output is None else heads_of_one(attention, x, offset, norm)
    if heads is None:
        return None
    keys, values, tokens = keep_one(cache, heads[1], heads[2])
    base, sinks = x if adds else None, attention.get("sinks")
    y = native_attended(heads[0], keys, values, attention.scale, sinks, output, base, tokens)
    if y is None:  # as where its projection has another type or packing than those of the heads
        keys, values = keys[..., :tokens, :], values[..., :tokens, :]
        y = attention._output(x, heads[0], (keys, values, None), None, offset, cache)
        y = x + y if adds else y
    return y


def selective_of_one(
    layer: Any, x: mx.array, mask: Any, cache: Any, norm: nn.Module | None = None, *, adds: bool = False
) -> mx.array | None:
    """What a selective state space makes of one token of each sequence, and of what its cache holds.

    Args:
        layer: Has `selective`, its parts as far as kernels read them.
        x: (B, 1, D).
        mask: False on padding, (B, 1), or None.
        cache: mlx-lm's `ArraysCache` of its two states, updated in place.
        norm: Of x.
        adds: Whether the result is added to x.

    Returns:
        (B, 1, D).
    """
    if not readable(x) or x.shape[1] != 1 or type(cache) is not ArraysCache or not _reads(norm):
        return None
    if mask is not None or cache[0] is None or cache[1] is None or cache.make_mask(1) is not None:
        return None
    read = layer.selective()
    found = read and native_selective(x, cache[0], cache[1], read, _norm(norm), adds=adds)
    if not found:
        return None
    write_states(cache, found[1:], 1)
    return found[0]


def inherits(layer: Any, base: Any, *names: str) -> bool:
    """Whether a layer takes these steps as its `base` does, so that they may be taken together."""
    made: Any = type(layer)  # which mypy takes for no key
    return _inherits(made, base, names)


@cache
def _inherits(made: Any, base: Any, names: tuple[str, ...]) -> bool:
    return all(getattr(made, name) is getattr(base, name) for name in names)


def stored(module: nn.Module, *names: str) -> tuple[Stored, ...] | None:
    """What the kernels read of some layers; None if one of them is of another kind."""
    found: list[Stored] = []
    for name in names:
        layer = _read(module, name)
        if layer is None:
            return None
        found.append(layer)
    return tuple(found)


def _gated(part: Any) -> tuple[str, tuple[Stored, ...]] | None:
    """The activation and what the kernels read of a gated layer, or of all experts; None where it does more."""
    is_plain = getattr(part, "is_plain", None)
    layers = stored(part, "gate_proj", "up_proj", "down_proj") if is_plain is not None and is_plain() else None
    return None if layers is None else (getattr(part.activation, "name", part.activation), layers)


def _read(module: nn.Module, name: str) -> Any:
    """What the kernels read of a layer; None if it is of another kind."""
    read = getattr(module[name], "stored", None)
    return None if read is None else read()


def _reads(norm: nn.Module | None) -> bool:
    """Whether kernels have this norm, or there is none."""
    return norm is None or _norm(norm) is not None


def _norm(norm: nn.Module | None) -> StoredNorm | None:
    """What the kernels read of a norm."""
    read = getattr(norm, "stored", None)
    return None if read is None else read()
