"""Recurrent and latent layers out of attention: what they compute, in float64, of attention's own projections."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

import axon_compose
from axon_compose.registry import load_factory
from tests.surgery.small_layers import arrays_for, output, use_of
from tests.surgery.transplants import difference, made, offered

HEADS = {"type": "attention", "num_heads": 4, "num_kv_heads": 2, "head_dim": 8}
X = np.random.default_rng(5).standard_normal((1, 7, 32)).astype(np.float32)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def projected(arrays: dict[str, np.ndarray], heads: int, tap: float | None = 0.5) -> list[np.ndarray]:
    """Queries, keys and values of attention, (L, heads, 8) in float64, through tap and silu of a recurrent layer."""
    found = []
    for name in "qkv":
        y = (X[0].astype(np.float64) @ arrays[f"{name}_proj.weight"].T).reshape(7, -1, 8)
        y = np.repeat(y, heads // y.shape[1], axis=1)
        found.append(y if tap is None else silu(tap * y))
    return found


def sizes(arrays: dict[str, np.ndarray], heads: int) -> np.ndarray:
    """Root mean square of the values of each head for inputs of unit variance."""
    rows = arrays["v_proj.weight"].astype(np.float64).reshape(-1, 8, 32)
    return np.repeat(np.sqrt((rows**2).sum(axis=2).mean(axis=1)), heads // len(rows))


def unit(x: np.ndarray, eps: float = 1e-6) -> np.ndarray:
    return x / np.sqrt((x**2).sum(axis=-1, keepdims=True) + eps)


def normed(x: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)


def delta(q: np.ndarray, k: np.ndarray, v: np.ndarray, decay: np.ndarray, beta: float) -> np.ndarray:
    """The delta rule, token by token."""
    state, found = np.zeros((q.shape[1], 8, 8)), []
    for t in range(len(q)):
        state = decay[:, None, None] * state
        wrong = v[t] - np.einsum("hvk,hk->hv", state, k[t])
        state = state + beta * np.einsum("hv,hk->hvk", wrong, k[t])
        found.append(np.einsum("hvk,hk->hv", state, q[t]))
    return np.stack(found)


def decaying(q: np.ndarray, k: np.ndarray, v: np.ndarray, decay: np.ndarray) -> np.ndarray:
    """Linear attention that forgets."""
    state, found = np.zeros((q.shape[1], 8, 8)), []
    for t in range(len(q)):
        state = decay[:, None, None] * state + np.einsum("hv,hk->hvk", v[t], k[t])
        found.append(np.einsum("hvk,hk->hv", state, q[t]))
    return np.stack(found)


def half_lives(heads: int, slowest: float) -> np.ndarray:
    return slowest / 64 ** (1 - np.arange(heads) / (heads - 1))


def written(arrays: dict[str, np.ndarray], heads: np.ndarray) -> np.ndarray:
    """What attention's output projection makes of (L, heads, 8)."""
    return heads.reshape(len(heads), -1) @ arrays["o_proj.weight"].T.astype(np.float64)


@pytest.mark.parametrize("options", [{}, {"separate": True, "d_conv": 2}, {"neg_eigval": True}])
def test_a_gated_delta_net_reads_what_attention_read(options: dict[str, Any]) -> None:
    old, new = use_of(HEADS), use_of({"type": "gated_delta_net", "num_k_heads": 4, "head_k_dim": 8, **options})
    arrays = arrays_for(old)
    found = made(new, old, arrays, init={"gate": "random", "half_life": 16.0})
    gate = arrays_for(new)["in_proj_z.weight"]
    q, k, v = projected(arrays, 4)
    decay, beta = 0.5 ** (1 / half_lives(4, 16.0)), 1.0 if options.get("neg_eigval") else 0.5
    o = delta(unit(q) / np.sqrt(8), unit(k), v, decay, beta)
    z = silu(X[0].astype(np.float64) @ gate.T).reshape(7, 4, 8)
    expected = written(arrays, sizes(arrays, 4)[:, None] * normed(o, 1e-6) * z)
    assert difference(output(new, {**found, "in_proj_z.weight": gate}, X)[0], expected) < 1e-5


@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_a_closed_gate_adds_nothing(key_heads: int) -> None:
    old = use_of({**HEADS, "bias": True, "qk_norm": True})
    new = use_of({"type": "gated_delta_net", "num_k_heads": key_heads, "num_v_heads": 4, "head_k_dim": 8})
    assert not output(new, made(new, old, arrays_for(old)), X).any()


def test_a_sigmoid_that_cannot_be_closed_is_half_open() -> None:
    old = use_of(HEADS)
    new = use_of({"type": "gated_delta_net", "num_k_heads": 4, "head_k_dim": 8, "gate_activation": "sigmoid"})
    arrays = arrays_for(old)
    found = made(new, old, arrays, init={"half_life": 16.0, "size": 0.3})
    q, k, v = projected(arrays, 4)
    o = delta(unit(q) / np.sqrt(8), unit(k), v, 0.5 ** (1 / half_lives(4, 16.0)), 0.5)
    expected = written(arrays, 0.3 * sizes(arrays, 4)[:, None] * normed(o, 1e-6))
    assert difference(output(new, found, X)[0], expected) < 1e-5


@pytest.mark.parametrize("options", [{}, {"full_rank": True, "lower_bound": -5.0, "d_conv": 1}])
def test_kimi_delta_attention_reads_what_attention_read(options: dict[str, Any]) -> None:
    old, new = use_of(HEADS), use_of({"type": "kimi_delta_attention", "num_heads": 4, "head_dim": 8, **options})
    arrays = arrays_for(old)
    found = made(new, old, arrays, init={"half_life": 256.0, "size": 1.0})
    q, k, v = projected(arrays, 4)
    o = delta(unit(q) / np.sqrt(8), unit(k), v, 0.5 ** (1 / half_lives(4, 256.0)), 0.5)
    expected = written(arrays, sizes(arrays, 4)[:, None] * normed(o, 1e-5))
    drawn = {name: array for name, array in arrays_for(new).items() if name not in found}
    assert set(drawn) <= {"f_a_proj.weight", "g_a_proj.weight"}  # before matrices of zeros
    assert difference(output(new, {**found, **drawn}, X)[0], expected) < 1e-5


RWKV7 = {"type": "rwkv7_time_mix", "num_heads": 4, "head_dim": 8}


@pytest.mark.parametrize("options", [{}, {"gate_low_rank_dim": 8, "norm_eps": 1e-4}])
@pytest.mark.parametrize("half_life", [256.0, 1.5])
def test_rwkv7_reads_what_attention_read(options: dict[str, Any], half_life: float) -> None:
    """Half of a value is written under a key of length one, times the length it had; the fastest decay is a bound."""
    old, new = use_of(HEADS), use_of({**RWKV7, **options})
    arrays = arrays_for(old)
    found = made(new, old, arrays, init={"half_life": half_life, "size": 1.0})
    drawn = {name: array for name, array in arrays_for(new).items() if name not in found}
    assert set(drawn) == {"w_lora.lora.2.weight", "a_lora.lora.2.weight"}  # after matrices of zeros
    q, k, v = projected(arrays, 4, tap=None)
    lengths = np.linalg.norm(k, axis=-1, keepdims=True)
    decay = np.exp(-np.minimum(np.log(2) / half_lives(4, half_life), 0.99 * np.exp(-0.5)))
    state, o = np.zeros((4, 8, 8)), []
    for t in range(7):
        key = k[t] / lengths[t]
        wrong = lengths[t] * v[t] - np.einsum("hvk,hk->hv", state, key)
        state = decay[:, None, None] * state + np.einsum("hv,hk->hvk", wrong, key) / 2
        o.append(np.einsum("hvk,hk->hv", state, q[t]))
    centred = np.stack(o) - np.mean(o, axis=-1, keepdims=True)
    expected = written(arrays, sizes(arrays, 4)[:, None] * normed(centred, options.get("norm_eps", 64e-5)))
    assert difference(output(new, {**found, **drawn}, X)[0], expected) < 1e-5


def test_rwkv7_hardly_mixes_in_the_values_of_another_layer() -> None:
    """They are as large as the own ones, and a thousandth of them is let in."""
    layers = {"first": dict(RWKV7), "later": {**RWKV7, "value_from": "first"}, "attn": dict(HEADS)}
    plan = axon_compose.load(
        {
            "version": 1,
            "dims": {"hidden_size": 32, "vocab_size": 16},
            "components": layers,
            "blocks": {"a": ["first"], "b": ["later"], "c": ["attn"]},
            "stack": "a b c",
        }
    ).plan()
    first, later, old = (
        next(use for use in plan.layers[index].uses() if use.spec.kind == "layer") for index in range(3)
    )
    arrays = arrays_for(old)
    both = [made(new, old, arrays, init={"size": 1.0}) for new in (first, later)]
    assert both[1].keys() - both[0].keys() == {"v_lora.lora.0.weight", "v_lora.lora.2.bias"}
    alone, mixing = (load_factory(use.spec)(use.options, use.dims) for use in (first, later))
    for layer, found in zip((alone, mixing), both, strict=True):
        layer.load_weights([(name, mx.array(array)) for name, array in found.items()], strict=False)
    values = mx.random.normal((1, 7, 32), key=mx.random.key(0)) * float(sizes(arrays, 4).mean())
    ours, theirs = (np.array(y[0]) for y in (mixing(mx.array(X), value=values), alone(mx.array(X))))
    assert 0 < difference(ours, theirs) < 1e-2


def test_lightning_attention_reads_what_attention_read() -> None:
    old, new = use_of(HEADS), use_of({"type": "lightning_attention", "num_heads": 4, "norm_groups": 4})
    arrays = arrays_for(old)
    q, k, v = projected(arrays, 4, tap=None)
    decay = np.exp(-np.array([2.0 ** (-2 * (head + 1)) for head in range(4)]))
    o = normed(decaying(q / np.sqrt(8), k, v, decay), 1e-6)
    expected = written(arrays, np.sqrt((sizes(arrays, 4) ** 2).mean()) * o)
    assert difference(output(new, made(new, old, arrays, init={"size": 1.0}), X)[0], expected) < 1e-5


def test_lightning_attention_keeps_norms_and_biases() -> None:
    shared = {"num_heads": 4, "head_dim": 8, "qk_norm": True}
    old = use_of({"type": "attention", "bias": True, "rope": False, **shared})
    new = use_of({"type": "lightning_attention", "bias": True, "out_bias": True, **shared})
    arrays = arrays_for(old)
    found = made(new, old, arrays)
    assert np.array_equal(found["query_key_value.weight"][32:64], arrays["k_proj.weight"])
    assert np.array_equal(found["query_key_value.bias"][64:], arrays["v_proj.bias"])
    assert np.array_equal(found["key_layernorm.weight"], arrays["k_norm.weight"])
    assert np.array_equal(found["dense.bias"], arrays["o_proj.bias"])


def test_mamba2_with_a_bias_reads_what_attention_read() -> None:
    options = {"num_heads": 4, "head_dim": 8, "d_state": 8, "n_groups": 2, "bias": True, "norm": False}
    scales = {"input_scale": 1.25, "section_scales": {"x": 0.5, "C": 2.0}}
    old = use_of(HEADS)
    new = use_of({"type": "mamba2", **options, **scales})
    arrays = arrays_for(old)
    found = made(new, old, arrays, init={"half_life": 8.0})
    q, k, v = projected(arrays, 4, tap=None)
    q = np.repeat(q.reshape(7, 2, 2, 8).mean(axis=2), 2, axis=1)  # of two heads that share B and C
    lives = half_lives(4, 8.0)
    o = decaying(silu(0.5 * q / np.sqrt(8)), silu(0.5 * k), silu(0.5 * v), 0.5 ** (1 / lives))
    expected = written(arrays, (np.log(2) / lives)[:, None] * o)
    assert difference(output(new, found, X)[0], expected) < 1e-5


@pytest.mark.parametrize(
    "options", [{}, {"norm_before_gate": True}, {"norm": False, "dt_max": 0.1}, {"dt_min": 2.0, "conv_bias": False}]
)
def test_mamba2_without_a_bias_begins_closed(options: dict[str, Any]) -> None:
    old = use_of(HEADS)
    new = use_of({"type": "mamba2", "num_heads": 4, "head_dim": 8, "d_state": 8, "n_groups": 4, **options})
    found = made(new, old, arrays_for(old))
    assert not output(new, found, X).any()
    assert output(new, made(new, old, arrays_for(old), init={"gate": "random"}), X).any()


@pytest.mark.parametrize(
    ("new", "learns"),
    [
        ({"type": "gated_delta_net", "num_k_heads": 4, "head_k_dim": 8}, "in_proj_z.weight"),
        ({"type": "mamba2", "num_heads": 4, "head_dim": 8, "d_state": 8}, "norm.weight"),
        ({"type": "mamba2", "num_heads": 4, "head_dim": 8, "d_state": 8, "norm": False}, "in_proj.weight"),
        ({"type": "kimi_delta_attention", "num_heads": 4, "head_dim": 8}, "g_b_proj.weight"),
        ({"type": "lightning_attention", "num_heads": 4}, "g_proj.weight"),
        ({"type": "rwkv7_time_mix", "num_heads": 4, "head_dim": 8}, "g_lora.lora.0.weight"),
    ],
)
def test_a_gradient_reaches_what_opens_the_layer(new: dict[str, Any], learns: str) -> None:
    old, use = use_of(HEADS), use_of(new)
    layer = load_factory(use.spec)(use.options, use.dims)
    found = made(use, old, arrays_for(old))
    layer.load_weights([(name, mx.array(array)) for name, array in found.items()], strict=False)
    wanted = mx.array(np.random.default_rng(3).standard_normal(X.shape).astype(np.float32))
    _, gradients = nn.value_and_grad(layer, lambda x: ((layer(x)[0] - wanted) ** 2).mean())(mx.array(X))
    gradient = dict(tree_flatten(gradients))[learns]
    assert 1e-6 < float(mx.abs(gradient).max()) < 10


# --- latent attention

LATENT = {"type": "latent_attention", "num_heads": 4, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "norm_eps": 1e8}
ROUNDINGS = {mx.float32: 2e-5, mx.bfloat16: 4e-2}


def latent_agrees(old_options: dict[str, Any], new_options: dict[str, Any]) -> None:
    old, new = use_of({**HEADS, **old_options}), use_of({**LATENT, **new_options})
    arrays = arrays_for(old)
    pieces = offered(new, old)
    assert not isinstance(pieces, str)
    assert {piece.exactness for piece in pieces.values()} == {"exact"}
    found = made(new, old, arrays)
    for dtype, limit in ROUNDINGS.items():
        assert difference(output(new, found, X, dtype), output(old, arrays, X, dtype)) < limit, dtype


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({}, {"kv_lora_rank": 32}),
        ({}, {"kv_lora_rank": 40, "qk_nope_head_dim": 12, "v_head_dim": 8, "lora_scale": {"kv": 2.0}}),
        ({"num_kv_heads": 1}, {"kv_lora_rank": 16}),
        ({"v_head_dim": 12, "scale": 0.5}, {"kv_lora_rank": 32, "v_head_dim": 12, "scale": 0.2}),
        ({"bias": {"k": True, "v": True, "o": True}}, {"kv_lora_rank": 32, "bias": True}),
        ({"gate": "head", "sinks": True}, {"kv_lora_rank": 32, "gate": "head", "sinks": True}),
        ({}, {"kv_lora_rank": 32, "gate": "elementwise", "sinks": True}),
        ({}, {"kv_lora_rank": 32, "q_lora_rank": 32, "lora_scale": {"q": 0.5}}),
        ({"num_kv_heads": 4, "k_eq_v": True}, {"kv_lora_rank": 32}),
    ],
)
def test_a_latent_of_full_rank_is_attention(old: dict[str, Any], new: dict[str, Any]) -> None:
    latent_agrees({"rope": False, **old}, {"rope": False, **new})


@pytest.mark.parametrize("pairs", ["traditional", "halves"])
def test_a_single_rotated_key_head_stays_rotated(pairs: str) -> None:
    rope = {"theta": 100.0, "traditional": pairs == "traditional"}
    other = {"theta": 100.0, "traditional": pairs != "traditional"}
    part = {**rope, "dims": 4}
    latent_agrees({"num_kv_heads": 1, "rope": rope}, {"kv_lora_rank": 9, "v_head_dim": 8, "rope": other})
    latent_agrees({"num_kv_heads": 1, "rope": part}, {"kv_lora_rank": 16, "qk_rope_head_dim": 4, "rope": other})


def test_rotated_key_heads_that_are_related_become_one() -> None:
    """They differ by a turn and a factor of each pair: nothing is lost, at any position."""
    old = use_of({**HEADS, "rope": {"theta": 100.0}})
    new = use_of({**LATENT, "kv_lora_rank": 32, "rope": {"theta": 100.0, "traditional": False}})
    arrays = arrays_for(old)
    heads = arrays["k_proj.weight"].reshape(2, 8, 32)
    z = (heads[0, :4] + 1j * heads[0, 4:]) * (1.5 * np.exp(1j * np.arange(4)))[:, None]
    heads[1] = np.concatenate([z.real, z.imag])
    found = made(new, old, arrays)
    for dtype, limit in ROUNDINGS.items():
        assert difference(output(new, found, X, dtype), output(old, arrays, X, dtype)) < limit, dtype


def test_the_error_of_a_low_rank_is_that_of_the_best() -> None:
    old = use_of({**HEADS, "rope": False})
    new = use_of({**LATENT, "rope": False, "kv_lora_rank": 10, "norm_eps": 1e8})
    arrays = arrays_for(old)
    found = made(new, old, arrays)
    right = found["kv_a_proj_with_mqa.weight"][:10].astype(np.float64) * found["kv_a_layernorm.weight"][:, None] / 1e4
    keys = np.einsum("hrw,rd->hwd", found["embed_q.weight"][::2], right).reshape(16, 32)
    values = np.einsum("hvr,rd->hvd", found["unembed_out.weight"][::2], right).reshape(16, 32)
    k, v = (arrays[f"{name}_proj.weight"].astype(np.float64) for name in "kv")
    balance = np.linalg.norm(v) / np.linalg.norm(k)
    error = np.hypot(balance * np.linalg.norm(keys - k), np.linalg.norm(values - v))
    dropped = np.linalg.svd(np.concatenate([balance * k, v]), compute_uv=False)[10:]
    assert error == pytest.approx(np.linalg.norm(dropped), rel=1e-4)
    pieces = offered(new, old)
    assert not isinstance(pieces, str)
    assert "rank 10 of 32" in pieces["embed_q.weight"].rule
    assert pieces["embed_q.weight"].exactness == "near"


def test_a_small_norm_eps_is_undone_on_average() -> None:
    """Inputs of one length in an orthonormal latent of full rank have one length there too: nothing is lost."""
    old = use_of({**HEADS, "rope": False, "num_kv_heads": 4})
    new = use_of({**LATENT, "rope": False, "kv_lora_rank": 32, "norm_eps": 1e-6})
    arrays = arrays_for(old)
    x = normed(X.astype(np.float64), 0.0).astype(np.float32)
    found = made(new, old, arrays, init={"reads": 0.25})
    assert difference(output(new, found, 0.25 * x), output(old, arrays, 0.25 * x)) < 2e-5


@pytest.mark.parametrize(
    ("heads", "norm"), [(1, {}), (1, {"weight": False}), (1, {"offset": 1.0}), (2, {"over": "all"})]
)
def test_norms_of_queries_and_keys_keep_their_scale(heads: int, norm: dict[str, Any]) -> None:
    """Orthogonal projections of inputs of one length have one length too, which is all that the norms divide by."""
    sizes = {"num_heads": heads, "num_kv_heads": heads, "head_dim": 32 // heads}
    old = use_of({"type": "attention", "rope": False, "qk_norm": norm or True, **sizes})
    shapes = {"num_heads": heads, "qk_nope_head_dim": 32 // heads, "v_head_dim": 32 // heads}
    new = use_of({**LATENT, **shapes, "rope": False, "kv_lora_rank": 32})
    arrays = arrays_for(old)
    for name, size in (("q", 3.0), ("k", 0.5)):
        arrays[f"{name}_proj.weight"] = size * np.linalg.qr(arrays[f"{name}_proj.weight"])[0]
        if f"{name}_norm.weight" in arrays:
            arrays[f"{name}_norm.weight"] *= 5
    x = 0.25 * normed(X.astype(np.float64), 0.0).astype(np.float32)
    assert difference(output(new, made(new, old, arrays, init={"reads": 0.25}), x), output(old, arrays, x)) < 2e-5


@pytest.mark.parametrize(
    ("old", "lost"),
    [
        ({}, "rotated keys are what 2 heads have in common"),
        ({"num_kv_heads": 1, "qk_norm": True}, "`qk_norm` is gone"),
        ({"num_kv_heads": 1, "softcap": 5.0}, "`softcap` is gone"),
        ({"num_kv_heads": 1, "bias": {"q": True}}, "biases are gone"),
        ({"num_kv_heads": 1, "head_dim": 16, "v_head_dim": 8}, "dimensions lose their rotation"),
    ],
)
def test_what_a_latent_loses_is_reported(old: dict[str, Any], lost: str) -> None:
    pieces = offered(use_of({**LATENT, "kv_lora_rank": 32}), use_of({**HEADS, **old}))
    assert not isinstance(pieces, str)
    assert lost in pieces["q_proj.weight"].rule
    assert {piece.exactness for piece in pieces.values()} == {"near"}
