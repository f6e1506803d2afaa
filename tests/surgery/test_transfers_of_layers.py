"""Exactness claims of transfers between layers, each against the source model or a formula in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from axon_compose import Architecture, load
from axon_compose.plan import Use
from tests.surgery.small_layers import architecture, arrays_for, output, use_of
from tests.surgery.transplants import agree, arrays_of, made, offered, transplanted

TOKENS = mx.array([[3, 1, 4, 1, 5, 9, 2, 6]])
HEADS = {"type": "attention", "num_heads": 4, "num_kv_heads": 2, "head_dim": 8}
MLP = {"type": "mlp", "intermediate_size": 24}


def model_of(source: Architecture, seed: int = 1) -> Any:
    """A model none of whose parameters has a special value."""
    built = source.build()
    rng = np.random.default_rng(seed)
    found = arrays_of(built)
    built.load_weights(
        [
            (name, mx.array(array + (rng.standard_normal(array.shape) * 0.2).astype(np.float32)))
            for name, array in found.items()
        ]
    )
    return built


def agrees(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    init: str = "transfer",
    prepare: Any = None,
    measured: Any = None,
    **settings: Any,
) -> None:
    """The edited model gives the logits of the source."""
    source = architecture(old)
    model = model_of(source)
    if prepare is not None:
        changed = {name: prepare(name, array) for name, array in arrays_of(model).items()}
        model.load_weights([(name, mx.array(array)) for name, array in changed.items()])
    built = transplanted(source, model, architecture(new), init, settings, measured)
    assert agree(built, model, TOKENS)


# --- heads


def equal_pairs(name: str, array: np.ndarray) -> np.ndarray:
    """Neighbouring key/value heads made equal."""
    if ".layer.k_proj" not in name and ".layer.v_proj" not in name:
        return array
    heads = array.reshape(2, 2, 8, *array.shape[1:])
    return np.repeat(heads[:, :1], 2, axis=1).reshape(array.shape)


@pytest.mark.parametrize("init", ["transfer", "mean"])
def test_merged_heads_that_were_equal_change_nothing(init: str) -> None:
    old = {**HEADS, "num_kv_heads": 4, "bias": True, "qk_norm": True}
    agrees(old, {**old, "num_kv_heads": 2}, init, equal_pairs)


def related_pairs(name: str, array: np.ndarray) -> np.ndarray:
    """Neighbouring key heads that differ by a turn and a factor of each rotated pair, value heads by a matrix."""
    if ".layer.k_proj" not in name and ".layer.v_proj" not in name:
        return array
    heads = array.reshape(2, 2, 8, *array.shape[1:]).copy()
    one = heads[:, 0]
    if ".v_proj" in name:
        mixed = np.einsum("vw,gw...->gv...", np.random.default_rng(7).standard_normal((8, 8)), one)
    else:
        z = (one[:, :2] + 1j * one[:, 2:4]) * np.exp([1j, 2.5j]).reshape(2, *[1] * (array.ndim - 1)) * 1.5
        still = np.einsum("vw,gw...->gv...", np.random.default_rng(8).standard_normal((4, 4)), one[:, 4:])
        mixed = np.concatenate([z.real, z.imag, still], axis=1)
    heads[:, 1] = mixed
    return heads.reshape(array.shape).astype(np.float32)


@pytest.mark.parametrize("options", [{}, {"bias": True, "sinks": True}, {"gate": "head", "softcap": 3.0}])
def test_aligned_heads_that_were_related_change_nothing(options: dict[str, Any]) -> None:
    old = {**HEADS, "num_kv_heads": 4, "rope": {"theta": 50.0, "dims": 4}, **options}
    for init in ("align", "transfer"):
        agrees(old, {**old, "num_kv_heads": 2}, init, related_pairs)


@pytest.mark.parametrize("rope", [True, False, {"traditional": True}])
def test_aligned_heads_are_nearer_than_means(rope: Any) -> None:
    old, new = use_of({**HEADS, "num_kv_heads": 4, "rope": rope}), use_of({**HEADS, "rope": rope})
    arrays = arrays_for(old)
    x = np.random.default_rng(2).standard_normal((4, 8, 32)).astype(np.float32)
    wanted = output(old, arrays, x)
    errors = [np.linalg.norm(output(new, made(new, old, arrays, init), x) - wanted) for init in ("align", "mean")]
    assert errors[0] < 0.9 * errors[1]


def test_merged_heads_are_means() -> None:
    old, new = use_of({**HEADS, "num_kv_heads": 4}), use_of(HEADS)
    arrays = arrays_for(old)
    found = made(new, old, arrays, "mean")
    mean = arrays["k_proj.weight"].astype(np.float64).reshape(2, 2, 8, 32).mean(axis=1)
    np.testing.assert_allclose(found["k_proj.weight"].reshape(2, 8, 32), mean, rtol=1e-6)
    assert all(np.array_equal(found[name], arrays[name]) for name in ("q_proj.weight", "o_proj.weight"))


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ({"num_heads": 8, "num_kv_heads": 2, "gate": "head"}, {"gate": "head", "qk_norm": {"per_head": True}}),
        ({"num_heads": 8, "num_kv_heads": 8, "sinks": True}, {"qk_norm": {"over": "all"}, "sinks": True}),
        ({"num_kv_heads": 4}, {"num_kv_heads": 1, "head_gain": True, "log_scaling": True, "bias": True}),
        ({"log_scaling": True}, {}),
        ({"k_eq_v": False}, {"k_eq_v": True, "bias": True, "v_norm": True}),
        ({"gate": "elementwise", "gate_activation": "softplus", "bias": {"g": True, "o": True}}, {}),
    ],
)
def test_heads_and_parts_that_change_nothing(new: dict[str, Any], old: dict[str, Any]) -> None:
    agrees({**HEADS, **old}, {**HEADS, **old, **new})


@pytest.mark.parametrize(
    "old", [{"bias": True}, {"gate": "elementwise", "sinks": True}, {"gate": "head", "v_head_dim": 12}]
)
def test_split_heads_change_nothing(old: dict[str, Any]) -> None:
    value = old.get("v_head_dim", 8) // 2
    agrees({**HEADS, **old}, {**HEADS, **old, "num_heads": 8, "num_kv_heads": 4, "v_head_dim": value}, "split")


# --- experts


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ({}, {"bias": True}),
        ({"score": "topk_softmax", "norm_topk": False, "router_bias": True}, {"gate_scale": 0.5}),
        ({"norm_topk": False}, {}),
        (
            {"score": "sigmoid", "norm_topk": False, "routed_scaling_factor": 2.5, "correction_bias": True},
            {"bias": True},
        ),
        ({"score": "sqrt_softplus", "norm_topk": False}, {"activation": "relu2", "gated": False, "bias": True}),
        ({"score": "sparsemixer", "norm_topk": False}, {}),
        ({"top_k": 1, "input_scaled": True}, {"activation": "gelu_tanh"}),
        ({"hashed": True, "intermediate_size": 12, "per_expert_scale": True}, {}),
        ({"intermediate_size": 12, "router_norm": True}, {"bias": True}),
        ({"intermediate_size": 6, "top_k": 4, "score": "sigmoid", "norm_topk": False}, {"gated": False}),
        ({"intermediate_size": 12, "num_experts": 8, "num_groups": 2, "norm_topk": False, "group_score": "max"}, {}),
    ],
)
def test_experts_are_the_layer(new: dict[str, Any], old: dict[str, Any]) -> None:
    source = {**MLP, **old}
    alike = {name: source[name] for name in ("activation", "gated", "bias") if name in source}
    agrees(source, {"type": "moe", "num_experts": 4, "top_k": 2, "intermediate_size": 24, **alike, **new})


@pytest.mark.parametrize(
    "new",
    [
        {"type": "shared_expert_moe", "num_experts": 4, "intermediate_size": 10, "shared_intermediate_size": 24},
        {"type": "moe", "num_experts": 4, "intermediate_size": 10, "shared_intermediate_size": 24},
        {"type": "moe", "num_experts": 4, "intermediate_size": 12, "num_shared_experts": 2, "shared_gate": "softmax"},
        {"type": "moe", "num_experts": 4, "intermediate_size": 24, "num_shared_experts": 1, "latent_size": 8},
    ],
)
def test_a_shared_expert_is_the_layer(new: dict[str, Any]) -> None:
    agrees({**MLP, "bias": True, "gate_scale": 0.5}, {**new, "bias": True}, "shared")


MOE = {"type": "moe", "num_experts": 4, "top_k": 2, "intermediate_size": 12}


@pytest.mark.parametrize(
    "options",
    [
        {"bias": True},
        {"norm_topk": False, "shared_intermediate_size": 20, "shared_gate": True},
        {"score": "sigmoid", "norm_topk": False, "correction_bias": True},
        {"score": "sqrt_softplus", "per_expert_scale": True, "gated": False, "activation": "relu2"},
    ],
)
def test_repeated_experts_change_nothing(options: dict[str, Any]) -> None:
    agrees({**MOE, **options}, {**MOE, **options, "num_experts": 8, "top_k": 4}, "repeat")


@pytest.mark.parametrize("more", [{"router_bias": True}, {"correction_bias": True, "per_expert_scale": True}])
def test_a_router_gets_parts_that_change_nothing(more: dict[str, Any]) -> None:
    agrees(MOE, {**MOE, **more})


def test_what_changes_beside_the_experts_is_reported() -> None:
    pieces = offered(use_of({**MOE, "top_k": 4, "score": "sigmoid"}), use_of(MOE))
    assert not isinstance(pieces, str)
    assert {piece.rule for piece in pieces.values()} == {"the same, though `top_k`, `score` differ"}
    pieces = offered(use_of({**MLP, "activation": "relu2"}), use_of({**MLP, "bias": True}))
    assert not isinstance(pieces, str)
    assert {piece.rule for piece in pieces.values()} == {"the same, though `activation`, `bias` differ"}


def test_merged_experts_that_were_equal_change_nothing() -> None:
    def equal(name: str, array: np.ndarray) -> np.ndarray:
        if ".layer.switch_mlp." not in name and ".layer.gate." not in name:
            return array
        return np.repeat(array[::2], 2, axis=0)

    agrees({**MOE, "bias": True}, {**MOE, "bias": True, "num_experts": 2, "top_k": 1}, prepare=equal)


def test_pruned_experts_that_were_never_chosen_change_nothing() -> None:
    def unused(name: str, array: np.ndarray) -> np.ndarray:
        return np.array([9.0, -9.0, 9.0, 9.0], np.float32) if name.endswith(".layer.correction_bias") else array

    options = {**MOE, "correction_bias": True, "score": "sigmoid"}
    agrees(options, {**options, "num_experts": 3}, "prune", unused, {"usage": np.array([0.2, 0.0, 0.3, 0.5])})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": True, "shared_intermediate_size": 6},
        {"score": "sigmoid", "norm_topk": False},
        {"bias": True, "per_expert_scale": True},
    ],
)
def test_experts_side_by_side_are_all_experts(options: dict[str, Any]) -> None:
    def even(name: str, array: np.ndarray) -> np.ndarray:
        return np.zeros_like(array) if ".layer.gate." in name else array

    source = {**MOE, **options, "top_k": 4}
    width = 48 + source.get("shared_intermediate_size", 0)
    agrees(source, {**MLP, "intermediate_size": width, "bias": source.get("bias", False)}, prepare=even)


def test_the_mean_of_equal_experts_is_one_of_them() -> None:
    def equal(name: str, array: np.ndarray) -> np.ndarray:
        return np.repeat(array[:1], 4, axis=0) if ".layer.switch_mlp." in name else array

    agrees({**MOE, "bias": True}, {**MLP, "intermediate_size": 12, "bias": True}, prepare=equal)


# --- widths


@pytest.mark.parametrize("init", ["transfer", "slice"])
def test_channels_that_were_zero_may_be_dropped(init: str) -> None:
    def zero(name: str, array: np.ndarray) -> np.ndarray:
        if not name.endswith(".layer.down_proj.weight"):
            return array
        return np.where(np.arange(24) % 3 == 1, 0.0, array).astype(np.float32)

    use = {"importance": np.where(np.arange(24) % 3 == 1, 0.0, 1.0)} if init == "slice" else None
    agrees({**MLP, "bias": True}, {**MLP, "bias": True, "intermediate_size": 16}, init, zero, use)


@pytest.mark.parametrize("new", [{"bias": True}, {"gate_scale": 0.5}, {"bias": True, "intermediate_size": 30}])
def test_factors_of_the_gate_and_biases_change_nothing(new: dict[str, Any]) -> None:
    agrees({**MLP, "gate_scale": 2.0}, {**MLP, **new})


@pytest.mark.parametrize("options", [{"bias": True}, {"gated": False, "activation": "xielu"}, {"gate_scale": 0.5}])
def test_new_channels_add_nothing_and_learn(options: dict[str, Any]) -> None:
    agrees({**MLP, **options}, {**MLP, **options, "intermediate_size": 30})
    old, new = use_of({**MLP, **options}), use_of({**MLP, **options, "intermediate_size": 30})
    found = made(new, old, arrays_for(old))
    assert not found["down_proj.weight"][:, 24:].any()
    assert found["up_proj.weight"][24:].any()  # else no gradient would ever reach the new columns


# --- norms and tables


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ({"type": "layer_norm", "bias": False}, {"type": "rms_norm", "center": True}),
        ({"type": "layer_norm", "offset": 1.0}, {"type": "layer_norm", "bias": False}),
        ({"type": "rms_norm", "center": True, "offset": 1.0}, {"type": "layer_norm", "bias": False}),
        ({"type": "rms_norm"}, {"type": "rms_norm", "weight": False}),
        ({"type": "rms_norm", "offset": 1.0}, {"type": "rms_norm"}),
    ],
)
def test_norms_that_contain_each_other(new: dict[str, Any], old: dict[str, Any]) -> None:
    new, old = ({"eps": 1e-5, **norm} for norm in (new, old))
    source, edited = architecture(MLP, old), architecture(MLP, new)
    model = model_of(source)
    built = transplanted(source, model, edited)
    assert agree(built, model, TOKENS)
    pieces = offered(norm_of(edited), norm_of(source))
    assert not isinstance(pieces, str)
    assert {piece.exactness for piece in pieces.values()} == {"exact"}


def norm_of(described: Architecture) -> Use:
    return next(use for use in described.plan().uses() if use.path == "layers.0.layer_norm")


def test_norms_that_do_not_contain_each_other_say_so() -> None:
    pieces = offered(norm_of(architecture(MLP, {"type": "layer_norm"})), norm_of(architecture(MLP)))
    assert not isinstance(pieces, str)
    assert pieces["weight"].exactness == "near"
    assert "the mean is subtracted now" in pieces["weight"].rule


def test_a_head_of_its_own_is_the_table() -> None:
    def described(**head: Any) -> dict[str, Use]:
        data = {"version": 1, "dims": {"hidden_size": 32, "vocab_size": 16}, "components": {"mlp": MLP}}
        data |= {"blocks": {"block": ["mlp"]}, "stack": "block", "head": {"type": "lm_head", **head}}
        return {use.path: use for use in load(data).plan().uses()}

    tied, untied = described(), described(tied=False, bias=True)
    table = arrays_for(tied["embedding"])
    found = made(untied["head"], tied["embedding"], table)
    assert np.array_equal(found["lm_head.weight"], table["embed_tokens.weight"])
    assert not found["lm_head.bias"].any()
    again = made(tied["embedding"], untied["head"], found)
    assert np.array_equal(again["embed_tokens.weight"], table["embed_tokens.weight"])
