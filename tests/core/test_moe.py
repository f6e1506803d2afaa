"""Mixtures of experts: the router against float64, the layer against a loop over tokens."""

from __future__ import annotations

from math import prod
from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from helpers import shrunk
from mlx.utils import tree_flatten
from mlx_lm.models import deepseek_v3, gpt_oss, nemotron_h
from mlx_lm.models.qwen2_moe import ModelArgs, Qwen2MoeSparseMoeBlock
from mlx_lm.models.switch_layers import SwitchGLU
from pydantic import ValidationError

from axon_compose.registry import Dims
from axon_core.experts import ExpertLinear
from axon_core.moe import MoE, SharedExpertMoE
from axon_core.specs._moe_options import (
    ExpertNormOptions,
    LatentNormOptions,
    MoEOptions,
    RouterNormOptions,
    SharedExpertMoEOptions,
)
from axon_core.specs.moe import SPECS

HIDDEN, WIDTH = 16, 12
MOE, SHARED = SPECS


def build(seed=0, **options):
    mx.random.seed(seed)
    layer = MoE(HIDDEN, WIDTH, **({"num_experts": 6, "top_k": 3} | options))
    layer.gate.weight = 2 * layer.gate.weight
    for name, value in tree_flatten(layer.parameters()):
        if name.endswith("bias"):
            _assign(layer, name, 0.5 * mx.random.normal(value.shape))
        if "norm" in name or name in ("per_expert_scale", "gain"):
            _assign(layer, name, mx.random.uniform(0.5, 2, value.shape))
    return layer


def _assign(layer, name, value):
    *path, last = name.split(".")
    for part in path:
        layer = layer[part]
    layer[last] = value


def tokens(count=20, batch=2):
    return mx.array(np.random.default_rng(count).normal(size=(batch, count, HIDDEN)).astype(np.float32))


def parameters(layer):
    return {name: np.array(value.astype(mx.float32), np.float64) for name, value in tree_flatten(layer.parameters())}


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def sqrt_softplus(v):
    return np.sqrt(np.log1p(np.exp(v)))


def softmax(v):
    e = np.exp(v - v.max())
    return e / e.sum()


def route(p, v, layer):
    """Experts and weights of one token, in float64; after those of the chosen, the weights of scored shared experts."""
    if "router_norm.weight" in p:
        v = rms_norm(v, layer.router_norm.eps) * p["router_norm.weight"] * layer.router_scale
    logits = p["gate.weight"] @ v + p.get("gate.bias", 0)
    if layer.router_softcap is not None:
        logits = layer.router_softcap * np.tanh(logits / layer.router_softcap)
    scores = {"sigmoid": sigmoid, "sqrt_softplus": sqrt_softplus}.get(layer.score, softmax)(logits)
    every, all_scores = logits, scores
    logits, scores = logits[: layer.num_outputs], scores[: layer.num_outputs]
    seen = logits if layer.corrected == "logits" else scores
    ranking = seen + p["correction_bias"] if "correction_bias" in p else logits
    if layer.top_k_groups < layer.num_groups:
        ranking = seen + p.get("correction_bias", 0)
        groups = np.split(np.arange(len(logits)), layer.num_groups)
        counted = 1 if layer.group_score == "max" else 2
        strength = [np.sort(ranking[g])[-counted:].sum() for g in groups]
        for g in sorted(range(len(groups)), key=lambda g: (-strength[g], g))[layer.top_k_groups :]:
            ranking[groups[g]] = -np.inf
    chosen = sorted(range(len(logits)), key=lambda e: (-ranking[e], e))[: layer.top_k]
    counted = chosen + list(range(layer.num_outputs, len(every)))
    weights = softmax(every[counted]) if layer.score == "topk_softmax" else all_scores[counted]
    if layer.score == "sparsemixer":
        weights = np.array([mixed(logits, chosen, number, layer.band) for number in range(layer.top_k)])
    if layer.norm_topk:
        weights = weights / (weights.sum() + layer.norm_eps)
    weights = weights * p["per_expert_scale"][chosen] if "per_expert_scale" in p else weights
    return chosen, weights * layer.routed_scaling_factor


def mixed(logits, chosen, number, band):
    """The share of one choice among the experts that are left and near (Phi-3.5-MoE)."""
    top = logits[chosen[number]]
    left = [e for e in range(len(logits)) if e not in chosen[:number]]
    near = [e for e in left if (top - logits[e]) / max(abs(logits[e]), top) <= band]
    return np.exp(top) / np.exp(logits[near]).sum()


def rms_norm(v, eps):
    return v / np.sqrt((v**2).mean() + eps)


def product(gate, x, activation, limit):
    if activation == "swiglu_oai":
        gate, x = np.minimum(gate, limit or 7), np.clip(x, -(limit or 7), limit or 7)
        return gate * sigmoid(1.702 * gate) * (x + 1)
    if activation == "situ":
        bound, other = limit
        return bound * np.tanh(gate / bound) * sigmoid(gate) * (other * np.tanh(x / other) if other else x)
    assert activation == "silu"
    bound = limit or np.inf
    return np.minimum(gate * sigmoid(gate), bound) * np.clip(x, -bound, bound)


def feed_forward(p, prefix, v, pick=(), glu=("silu", None)):
    def linear(name, v):
        weight, bias = p[f"{prefix}.{name}.weight"][pick], p.get(f"{prefix}.{name}.bias")
        return weight @ v + (0 if bias is None else bias[pick])

    up, down = ("fc1", "fc2") if f"{prefix}.fc1.weight" in p else ("up_proj", "down_proj")
    if f"{prefix}.gate_proj.weight" in p:
        return linear(down, product(linear("gate_proj", v), linear(up, v), *glu))
    return linear(down, np.maximum(linear(up, v), 0) ** 2)


def reference(layer, x):
    p = parameters(layer)
    activation = layer.switch_mlp.activation
    glu = (activation.name, activation.limit)
    y = np.zeros(x.shape)
    for place in np.ndindex(*x.shape[:-1]):
        v = np.array(x[place].astype(mx.float32), np.float64)
        experts, weights = route(p, v, layer)
        chosen, shares = (experts, weights[: layer.top_k]), weights[layer.top_k :]
        if "expert_norm.weight" in p:
            v = rms_norm(v, layer.expert_norm.eps) * p["expert_norm.weight"]
        latent = "fc1_latent_proj.weight" in p
        inner = p["fc1_latent_proj.weight"] @ v + p.get("fc1_latent_proj.bias", 0) if latent else v
        if "latent_read_norm.weight" in p:
            inner = rms_norm(inner, layer.latent_read_norm.eps) * p["latent_read_norm.weight"]
        routed = 0
        for expert, weight in zip(*chosen, strict=True):
            if expert < layer.num_experts:
                read = inner * weight if layer.input_scaled else inner
                given = feed_forward(p, "switch_mlp", read, expert, glu)
                if "latent_expert_norm.weight" in p:
                    norm = layer.latent_expert_norm
                    given = rms_norm(given * (p["latent_expert_norm.weight"] + norm.offset), norm.eps)
                routed = routed + (1 if layer.input_scaled else weight) * given
        if "latent_sum_norm.weight" in p:
            routed = rms_norm(routed, layer.latent_sum_norm.eps) * p["latent_sum_norm.weight"]
        y[place] = p["fc2_latent_proj.weight"] @ routed + p.get("fc2_latent_proj.bias", 0) if latent else routed
        y[place] += sum(weight for expert, weight in zip(*chosen, strict=True) if expert >= layer.num_experts) * v
        for expert, weight in enumerate(shares):
            y[place] += weight * feed_forward(p, "shared_experts", v, expert, glu)
        if any(name.startswith("shared_expert.") for name in p):
            shared = feed_forward(p, "shared_expert", v, glu=glu)
            gate = (
                p["shared_expert_gate.weight"] @ v + p.get("shared_expert_gate.bias", 0)
                if "shared_expert_gate" in layer
                else []
            )
            if len(gate) == 2:
                share = sigmoid(gate[0] - gate[1])
                y[place] = share * y[place] + (1 - share) * shared
            else:
                y[place] += (sigmoid(gate) if len(gate) else 1) * shared
    return y * p.get("gain", 1)


def close(found, expected, limit=5e-6):
    assert np.abs(np.array(found.astype(mx.float32)) - expected).max() <= limit * np.abs(expected).max()


ROUTERS = [
    {},
    {"norm_topk": False},
    {"score": "topk_softmax"},
    {"score": "sigmoid"},
    {"score": "sparsemixer", "norm_topk": False},
    {"score": "sparsemixer", "norm_topk": False, "band": 0.9, "top_k": 3},
    {"score": "sigmoid", "norm_topk": False, "routed_scaling_factor": 2.5},
    {"router_bias": True},
    {"score": "sigmoid", "correction_bias": True},
    {"score": "sqrt_softplus", "correction_bias": True, "routed_scaling_factor": 1.5},
    {"correction_bias": True, "router_bias": True, "norm_topk": False},
    {"score": "sigmoid", "correction_bias": True, "corrected": "logits"},
    {"top_k": 1},
    {"top_k": 6, "score": "topk_softmax"},
    {"router_softcap": 0.5, "router_bias": True},
    {"norm_eps": 0.25, "score": "sigmoid"},
    {"num_experts": 12, "num_groups": 4, "top_k_groups": 2, "score": "sigmoid", "correction_bias": True},
    {"num_experts": 12, "num_groups": 4, "top_k_groups": 2, "group_score": "max"},
    {"num_experts": 12, "num_groups": 6, "top_k_groups": 3, "score": "topk_softmax"},
    {"num_experts": 12, "num_groups": 3, "top_k_groups": 3, "score": "sigmoid"},
    {"router_norm": RouterNormOptions(eps=0.5, scale=0.7)},
    {"router_norm": RouterNormOptions(), "expert_norm": ExpertNormOptions(eps=0.5), "per_expert_scale": True},
    {"expert_norm": ExpertNormOptions(), "per_expert_scale": True, "score": "sigmoid", "norm_topk": False},
    {"identity_experts": 3, "correction_bias": True, "top_k": 4},
    {"identity_experts": 8, "top_k": 7, "norm_topk": False, "expert_norm": ExpertNormOptions()},
    {"scored_shared": 2, "score": "sigmoid", "correction_bias": True, "routed_scaling_factor": 2.5},
    {"scored_shared": 3, "score": "topk_softmax", "norm_topk": False, "router_bias": True},
    {"scored_shared": 1, "norm_topk": False, "identity_experts": 2, "top_k": 4},
]


@pytest.mark.parametrize("options", ROUTERS, ids=str)
def test_the_router_equals_float64(options):
    layer, x = build(**options), tokens()
    chosen, weights = layer.route(x)
    p = parameters(layer)
    for place in np.ndindex(2, 20):
        expected, expected_weights = route(p, np.array(x[place], np.float64), layer)
        assert chosen[place].tolist() == expected
        np.testing.assert_allclose(np.array(weights[place]), expected_weights[: layer.top_k], rtol=1e-5)


def test_the_correction_counts_in_the_choice_but_not_in_the_weights():
    layer, x = build(score="sigmoid", correction_bias=True, norm_topk=False), tokens()
    layer.correction_bias = mx.array([0, 0, 0, 0, 0, 100.0])
    chosen, weights = layer.route(x)
    assert (chosen[..., 0] == 5).all()
    assert weights.max() < 1


@pytest.mark.parametrize("score", ["softmax", "topk_softmax", "sigmoid", "sqrt_softplus"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 50)])
def test_of_equal_experts_the_lowest_are_chosen(score, shape):
    layer = MoE(HIDDEN, WIDTH, 64, 8, score=score)
    layer.gate.weight = mx.zeros_like(layer.gate.weight)
    chosen, weights = layer.route(mx.random.normal((*shape, HIDDEN)))
    np.testing.assert_array_equal(np.array(chosen), np.broadcast_to(np.arange(8), (*shape, 8)))
    np.testing.assert_allclose(np.array(weights), 1 / 8, rtol=1e-6)

    layer = MoE(HIDDEN, WIDTH, 64, 8, score=score, router_bias=True)
    layer.gate.weight = mx.zeros_like(layer.gate.weight)
    layer.gate.bias = mx.array(np.arange(64) % 7 == 3).astype(mx.float32)
    chosen, _ = layer.route(mx.random.normal((*shape, HIDDEN)))
    np.testing.assert_array_equal(np.array(chosen), np.broadcast_to(np.arange(3, 59, 7), (*shape, 8)))


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_scores_that_round_to_one_number_are_still_told_apart(score):
    layer = MoE(HIDDEN, WIDTH, 4, 1, score=score, router_bias=True)
    layer.gate.weight = mx.zeros_like(layer.gate.weight)
    layer.gate.bias = mx.array([30.0, 30.00001, 31, 32])
    assert layer.route(mx.zeros((1, 1, HIDDEN)))[0].item() == 3
    layer.gate.bias = mx.array([-150.0, -140, -130, -120.0])
    assert layer.route(mx.zeros((1, 1, HIDDEN)))[0].item() == 3


def test_equal_outputs_of_zero_are_near_to_each_other():
    layer = build(score="sparsemixer", norm_topk=False)
    layer.gate.weight = mx.zeros_like(layer.gate.weight)
    weights = np.array(layer.route(tokens())[1])
    expected = [1 / (layer.num_experts - earlier) for earlier in range(layer.top_k)]
    np.testing.assert_allclose(weights, np.broadcast_to(expected, weights.shape), rtol=1e-6)


def test_a_router_of_vanishing_scores_divides_by_no_zero():
    layer = MoE(HIDDEN, WIDTH, 4, 2, score="sigmoid", router_bias=True)
    layer.gate.bias = mx.full((4,), -1000.0)
    assert mx.isfinite(layer(tokens())).all()


def test_the_router_works_in_float32_in_a_bfloat16_model():
    layer, x = build(), tokens().astype(mx.bfloat16)
    layer.set_dtype(mx.bfloat16)
    _, weights = layer.route(x)
    assert weights.dtype == mx.float32
    p = parameters(layer)
    for place in np.ndindex(2, 20):
        expected = route(p, np.array(x[place].astype(mx.float32), np.float64), layer)[1]
        np.testing.assert_allclose(np.array(weights[place]), expected, rtol=1e-5)


LAYERS = [
    {},
    {"gated": False, "activation": "relu2"},
    {"bias": True, "score": "topk_softmax"},
    {"shared_intermediate_dim": 20},
    {"shared_intermediate_dim": 20, "shared_gate": True, "bias": True},
    {"shared_intermediate_dim": 20, "shared_gate": "softmax", "latent_dim": 10},
    {"shared_intermediate_dim": 8, "gated": False, "activation": "relu2", "score": "sigmoid", "correction_bias": True},
    {"activation": "swiglu_oai", "bias": True},
    {"activation": "swiglu_oai", "limit": 0.25, "shared_intermediate_dim": 8},
    {"limit": 0.25, "shared_intermediate_dim": 8},
    {"latent_dim": 10, "shared_intermediate_dim": 20, "bias": True},
    {"latent_dim": 10, "shared_intermediate_dim": 20, "shared_bias": True},
    {"shared_intermediate_dim": 20, "bias": True, "shared_bias": False},
    {"shared_intermediate_dim": 20, "input_scaled": True, "score": "sigmoid", "norm_topk": False},
    {"input_scaled": True, "bias": True, "latent_dim": 10, "gated": False, "activation": "relu2"},
    {"latent_dim": 10, "gated": False, "activation": "relu2", "num_groups": 3, "top_k_groups": 2},
    {"latent_dim": 10, "latent_norm": LatentNormOptions(read=True), "activation": "situ", "limit": (2.0, 0.7)},
    {"latent_dim": 10, "latent_norm": LatentNormOptions(sum={"eps": 0.3}), "activation": "situ", "limit": (0.5, None)},
    {"latent_dim": 10, "latent_norm": LatentNormOptions(expert={"eps": 0.1, "scale_first": True, "offset": 1.0})},
    {"scored_shared": 2, "score": "sigmoid", "correction_bias": True, "gain": True, "routed_scaling_factor": 1.5},
    {"scored_shared": 1, "shared_intermediate_dim": 20, "bias": True, "latent_dim": 10, "norm_topk": False},
    {"scored_shared": 2, "gated": False, "activation": "relu2", "expert_norm": ExpertNormOptions(), "gain": True},
]


@pytest.mark.parametrize("count", [1, 3, 40])
@pytest.mark.parametrize("options", LAYERS, ids=str)
def test_forward_equals_the_loop_over_tokens(options, count):
    layer, x = build(**options), tokens(count)
    y = layer(x)
    assert y.dtype == mx.float32
    close(y, reference(layer, x))


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16], ids=str)
@pytest.mark.parametrize("count", [1, 40])
def test_low_precision_works_on_every_device(count, dtype):
    layer = build(shared_intermediate_dim=20, shared_gate=True)
    x = tokens(count).astype(dtype)
    layer.set_dtype(dtype)
    y = layer(x)
    assert y.dtype == dtype
    # Rounded at each of the three matrices, to 8 (11) bits.
    close(y, reference(layer, x), 0.03 if dtype == mx.bfloat16 else 0.004)


def test_a_token_does_not_depend_on_its_company():
    layer, x = build(shared_intermediate_dim=20), tokens(40)
    alone = mx.concatenate([layer(x[:, i : i + 1]) for i in range(40)], axis=1)
    np.testing.assert_allclose(np.array(layer(x)), np.array(alone), atol=1e-6)


@pytest.mark.parametrize("options", LAYERS, ids=str)
def test_gradients_are_finite_and_reach_every_trainable_parameter(options):
    layer, x = build(**options), tokens(40)
    layer.freeze()
    layer.unfreeze()
    grads = dict(tree_flatten(nn.value_and_grad(layer, lambda x: layer(x).square().sum())(x)[1]))
    assert set(parameters(layer)) - set(grads) <= {"correction_bias"}
    for name, value in grads.items():
        assert mx.isfinite(value).all(), name
        assert mx.abs(value).max() > 0, name


def test_gradient_of_the_router_agrees_with_differences():
    layer, x = build(), tokens(5, 1)
    weight = np.random.default_rng(1).normal(size=x.shape)
    w = mx.array(weight.astype(np.float32))
    gradient = np.array(nn.value_and_grad(layer, lambda x: (w * layer(x)).sum())(x)[1]["gate"]["weight"])
    direction = np.random.default_rng(2).normal(size=gradient.shape)
    base, sums = layer.gate.weight, []
    for step in (1e-3, -1e-3):
        layer.gate.weight = base + mx.array((step * direction).astype(np.float32))
        sums.append((weight * reference(layer, x)).sum())
    scale = np.abs(gradient * direction).sum()
    assert (sums[0] - sums[1]) / 2e-3 == pytest.approx((gradient * direction).sum(), abs=1e-3 * scale)


def test_quantised_experts_stay_close_and_the_router_is_left_alone():
    mx.random.seed(0)
    layer = SharedExpertMoE(64, 64, 4, 2)
    x = mx.random.normal((2, 20, 64))
    expected = np.array(layer(x))
    nn.quantize(
        layer, 32, 8, class_predicate=lambda path, m: path not in SHARED.unquantized and hasattr(m, "to_quantized")
    )
    assert isinstance(layer.gate, nn.Linear)
    assert isinstance(layer.shared_expert_gate, nn.Linear)
    assert not isinstance(layer.switch_mlp.up_proj, ExpertLinear)
    close(layer(x), expected, 0.02)


def test_the_shared_expert_layer_is_that_of_qwen2_moe():
    mx.random.seed(0)
    layer = SharedExpertMoE(HIDDEN, WIDTH, 6, 2)
    assert isinstance(layer.switch_mlp, SwitchGLU)
    args = ModelArgs("qwen2_moe", HIDDEN, 1, WIDTH, 2, 2, 6, WIDTH, WIDTH, 1e-6, 8, 2)
    other = Qwen2MoeSparseMoeBlock(args)
    other.update(layer.parameters(), strict=True)
    x = tokens(40)
    np.testing.assert_allclose(np.array(layer(x)), np.array(other(x)), atol=1e-6)
    close(layer(x), reference(layer, x))


def same(layer, theirs, renamed):
    """Our layer with the weights of one of mlx-lm's, whose names start otherwise, gives what theirs gives."""
    mx.random.seed(1)
    weights = []
    for name, value in tree_flatten(theirs.parameters()):
        value = 0.5 * mx.random.normal(value.shape)
        theirs.load_weights([(name, value)], strict=False)
        head = next((old for old in renamed if name.startswith(old)), "")
        weights.append((renamed.get(head, "") + name.removeprefix(head), value))
    layer.load_weights(weights, strict=True)
    np.testing.assert_allclose(np.array(layer(tokens(40))), np.array(theirs(tokens(40))), atol=1e-5)


def test_equals_gpt_oss():
    args = gpt_oss.ModelArgs(hidden_size=HIDDEN, intermediate_size=WIDTH, num_local_experts=6, num_experts_per_tok=3)
    layer = build(activation="swiglu_oai", bias=True, router_bias=True, score="topk_softmax")
    same(layer, gpt_oss.MLPBlock(args), {"experts.": "switch_mlp.", "router.": "gate."})


@pytest.mark.parametrize("groups", [(1, 1), (4, 2)], ids=str)
def test_equals_deepseek_v3(groups):
    args = deepseek_v3.ModelArgs(
        hidden_size=HIDDEN, moe_intermediate_size=WIDTH, n_routed_experts=12, n_shared_experts=2, n_group=groups[0],
        topk_group=groups[1], num_experts_per_tok=3, routed_scaling_factor=2.5, norm_topk_prob=True,
    )  # fmt: skip
    layer = build(
        num_experts=12, score="sigmoid", correction_bias=True, num_groups=groups[0], top_k_groups=groups[1],
        routed_scaling_factor=2.5, shared_intermediate_dim=2 * WIDTH, norm_eps=1e-20,
    )  # fmt: skip
    renamed = {"gate.e_score_correction_bias": "correction_bias", "shared_experts.": "shared_expert."}
    same(layer, deepseek_v3.DeepseekV3MoE(args), renamed)


def test_equals_nemotron_h():
    args = SimpleNamespace(
        hidden_size=HIDDEN, moe_intermediate_size=WIDTH, n_routed_experts=12, n_shared_experts=1, n_group=4,
        topk_group=2, num_experts_per_tok=3, routed_scaling_factor=2.5, norm_topk_prob=True, moe_latent_size=10,
        moe_shared_expert_intermediate_size=20, mlp_bias=False, intermediate_size=20,
    )  # fmt: skip
    layer = build(
        num_experts=12, score="sigmoid", correction_bias=True, num_groups=4, top_k_groups=2, latent_dim=10,
        routed_scaling_factor=2.5, shared_intermediate_dim=20, activation="relu2", gated=False,
    )  # fmt: skip
    renamed = {"gate.e_score_correction_bias": "correction_bias", "shared_experts.": "shared_expert."}
    same(layer, nemotron_h.NemotronHMoE(args), renamed)


def test_a_table_of_tokens_chooses_whatever_the_scores_are():
    layer = build(score="sqrt_softplus", hashed_tokens=11, routed_scaling_factor=1.5)
    table = np.array([[(5 * token + 2 * k) % 6 for k in range(3)] for token in range(11)])
    layer.experts_of_token = mx.array(table, mx.float32)
    x, ids = tokens(), mx.array(np.random.default_rng(0).integers(0, 11, (2, 20)))
    chosen, weights = layer.route(x, ids)
    np.testing.assert_array_equal(np.array(chosen), table[np.array(ids)])
    scores = sqrt_softplus(np.array(x, np.float64) @ parameters(layer)["gate.weight"].T)
    scores = np.take_along_axis(scores, table[np.array(ids)], axis=-1)
    np.testing.assert_allclose(np.array(weights), 1.5 * scores / scores.sum(-1, keepdims=True), rtol=1e-5)
    assert "experts_of_token" not in dict(tree_flatten(layer.unfreeze().trainable_parameters()))


def test_a_table_beyond_the_experts_reads_the_last_one():
    layer = build(hashed_tokens=11)
    layer.experts_of_token = mx.full((11, 3), 1e6)
    assert mx.all(layer.route(tokens(), mx.zeros((2, 20), mx.int32))[0] == 5)


def test_experts_outside_of_the_best_groups_are_never_chosen():
    """Not even where the correction bias makes all scores of those groups negative; mlx-lm would send tokens there."""
    layer = build(num_experts=4, top_k=2, num_groups=2, top_k_groups=1, score="sigmoid", correction_bias=True)
    layer.correction_bias = mx.array([-3.0, -2, -9, -9])
    assert layer.route(tokens(3))[0].tolist() == [[[1, 0]] * 3] * 2


def test_a_token_cannot_be_sent_to_more_experts_than_there_are():
    with pytest.raises(ValueError, match="larger than num_experts"):
        MoE(HIDDEN, WIDTH, 2, 3)
    with pytest.raises(ValueError, match="needs a shared expert"):
        MoE(HIDDEN, WIDTH, 2, 1, shared_gate=True)


@pytest.mark.parametrize(
    ("spec", "example"), [(spec, example) for spec in SPECS for example in spec.examples], ids=lambda v: str(v)[:40]
)
def test_the_record_states_what_is_built(spec, example):
    options, dims = spec.options.model_validate(example), Dims({"hidden_size": HIDDEN, "vocab_size": 8})
    layer = {"moe": MoE, "shared_expert_moe": SharedExpertMoE}[spec.name].from_options(options, dims)
    shapes = {name: value.shape for name, value in tree_flatten(layer.parameters())}
    assert shapes == spec.params(options, dims)
    unused = 1 - layer.top_k / layer.num_experts
    routed = sum(prod(shape) for name, shape in shapes.items() if name.startswith("switch_mlp"))
    assert spec.active(options, dims) == sum(map(prod, shapes.values())) - round(unused * routed)
    assert set(spec.unquantized) >= {name for name, _ in layer.named_modules() if "gate" in name and "." not in name}
    small = spec.options.model_validate(shrunk(spec, example))
    assert small.num_experts <= 4
    chosen = layer.route(tokens(2), mx.array([[3, 7], [0, 1]]))[1]
    general = options.general() if isinstance(options, SharedExpertMoEOptions) else options
    if general.norm_topk and not general.shared_sink:
        np.testing.assert_allclose(np.array(chosen.sum(-1)), general.routed_scaling_factor, rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        (MoEOptions, {"num_experts": 4, "top_k": 5}, r"`top_k` \(5\) is larger than `num_experts` \(4\)"),
        (SharedExpertMoEOptions, {"top_k": 9}, r"`top_k` \(9\) is larger than `num_experts` \(8\)"),
        (MoEOptions, {"num_experts": 4, "shared_gate": True}, "`shared_gate` needs a shared expert"),
        (MoEOptions, {"num_experts": 4, "num_shared_experts": 1, "shared_intermediate_size": 9}, "give one of"),
        (MoEOptions, {"num_experts": 4, "shared_sink": True}, "`shared_sink` needs `num_shared_experts`"),
        (
            MoEOptions,
            {"num_experts": 4, "shared_sink": True, "num_shared_experts": 1, "shared_gate": True},
            "and neither `shared_gate`",
        ),
        (MoEOptions, {"num_experts": 4, "score": "soft"}, "'sqrt_softplus' or 'sparsemixer'"),
        (MoEOptions, {"num_experts": 0}, "greater than 0"),
        (MoEOptions, {"num_experts": 4, "hashed": True, "correction_bias": True}, "no scores are compared"),
        (
            MoEOptions,
            {"num_experts": 6, "num_groups": 4},
            r"`num_experts` \(6\) is not a multiple of `num_groups` \(4\)",
        ),
        (MoEOptions, {"num_experts": 6, "num_groups": 2, "top_k_groups": 3}, "is larger than `num_groups`"),
        (MoEOptions, {"num_experts": 6, "num_groups": 3, "top_k": 3}, "larger than the 2 experts of `top_k_groups`"),
        (MoEOptions, {"num_experts": 4, "num_groups": 4, "top_k": 1}, "needs groups of two experts"),
        (MoEOptions, {"num_experts": 4, "gated": False, "activation": "swiglu_oai"}, "needs `gated: true`"),
        (MoEOptions, {"num_experts": 4, "gated": False, "limit": 1.0}, "needs `gated: true`"),
    ],
    ids=str,
)
def test_options_that_make_no_layer_are_refused_in_plain_words(model, options, words):
    with pytest.raises(ValidationError, match=words) as caught:
        model.model_validate({"intermediate_size": 8} | options)
    assert len(caught.value.errors()) == 1
