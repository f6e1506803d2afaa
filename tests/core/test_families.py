"""Whole models of families whose parts are options here: the logits of mlx-lm's, in one pass and in decoding."""

import importlib
import re

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache

from axon_compose import load

ATTENTION = {"type": "attention", "num_heads": 4, "num_kv_heads": 2}
MLP = {"type": "mlp", "intermediate_size": 96}
SIZES = {"hidden_size": 64, "vocab_size": 97, "num_attention_heads": 4, "num_key_value_heads": 2}

# Description; arguments of mlx-lm's model; how our names of weights become theirs; around what weights of norms lie.
SANDWICH = {
    "attn_norm": "input_layernorm",
    "attn_post_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
}
GEMMA2 = (
    {
        "norm": {"offset": 1.0},
        "embedding": {"scale": 8.0},
        "components": {
            "attn": ATTENTION | {"softcap": 5.0, "scale": 0.2},
            "mlp": MLP | {"activation": "gelu_tanh"},
        },
        "blocks": {"layer": [{"use": "attn", "norm": "sandwich"}, {"use": "mlp", "norm": "sandwich"}]},
        "stack": "layer*4",
        "head": {"softcap": 30.0},
    },
    {
        "num_hidden_layers": 4,
        "intermediate_size": 96,
        "head_dim": 16,
        "rms_norm_eps": 1e-6,
        "attn_logit_softcapping": 5.0,
        "query_pre_attn_scalar": 25.0,
    },
    SANDWICH,
    0,
)
GEMMA3 = (
    {
        "norm": {"offset": 1.0},
        "embedding": {"scale": 8.0},
        "components": {
            "local": ATTENTION | {"scale": 0.2, "qk_norm": {"offset": 1.0}, "window_size": 8},
            "attn": ATTENTION
            | {
                "scale": 0.2,
                "qk_norm": {"offset": 1.0},
                "rope": {"theta": 1e6, "scaling": {"type": "linear", "factor": 8.0}},
            },
            "mlp": MLP | {"activation": "gelu_tanh"},
        },
        "blocks": {
            "near": [{"use": "local", "norm": "sandwich"}, {"use": "mlp", "norm": "sandwich"}],
            "far": [{"use": "attn", "norm": "sandwich"}, {"use": "mlp", "norm": "sandwich"}],
        },
        "stack": "(near*2 far)*2",
        "head": {"tied": False},
    },
    {
        "num_hidden_layers": 6,
        "intermediate_size": 96,
        "head_dim": 16,
        "query_pre_attn_scalar": 25.0,
        "sliding_window": 8,
        "sliding_window_pattern": 3,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    },
    SANDWICH,
    0,
)

# Everything that Gemma 4 has in one model; the published ones have per-layer inputs or experts.
GEMMA4_ATTENTION = {"type": "attention", "num_heads": 4, "scale": 1.0, "qk_norm": True}
GEMMA4_LOCAL = {"num_kv_heads": 2, "head_dim": 16, "window_size": 8}
GEMMA4_FULL = {
    "num_kv_heads": 1,
    "head_dim": 32,
    "rope": {"theta": 1e6, "fraction": 0.25, "scaling": {"type": "proportional"}},
}
GEMMA4 = (
    {
        "embedding": {"scale": 8.0, "per_layer": {"size": 8, "layers": "=6", "vocab_size": 101}},
        "components": {
            "local": GEMMA4_ATTENTION | GEMMA4_LOCAL | {"v_norm": True},
            "full": GEMMA4_ATTENTION | GEMMA4_FULL | {"v_norm": True, "k_eq_v": True},
            "local_reader": GEMMA4_ATTENTION | GEMMA4_LOCAL | {"kv_from": "local"},
            "full_reader": GEMMA4_ATTENTION | GEMMA4_FULL | {"kv_from": "full"},
            "mlp": MLP | {"activation": "gelu_tanh", "intermediate_size": "=96 if i < 3 else 192"},
            "moe": {
                "type": "moe",
                "num_experts": 4,
                "top_k": 2,
                "intermediate_size": 32,
                "activation": "gelu_tanh",
                "router_norm": {"scale": "=hidden_size ** -0.5"},
                "expert_norm": True,
                "per_expert_scale": True,
            },
            "token": {"type": "per_layer_input", "size": 8, "index": "=i"},
            "factor": "layer_scale",
        },
        "stack": {
            "layers": 6,
            "block": [
                {
                    "use": "=[local, local, full, local_reader, local_reader, full_reader][i]",
                    "norm": "sandwich",
                },
                {"parallel": [{"use": "mlp", "norm": "sandwich"}, {"use": "moe", "norm": "post"}], "norm": "post"},
                {"use": "token", "norm": "post"},
                "factor",
            ],
        },
        "head": {"softcap": 30.0},
    },
    {
        "num_hidden_layers": 6,
        "intermediate_size": 96,
        "head_dim": 16,
        "global_head_dim": 32,
        "num_global_key_value_heads": 1,
        "attention_k_eq_v": True,
        "num_kv_shared_layers": 3,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
        "sliding_window": 8,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 101,
        "enable_moe_block": True,
        "num_experts": 4,
        "top_k_experts": 2,
        "moe_intermediate_size": 32,
    },
    {
        **dict.fromkeys(("attn", "attn_reader", "full", "full_reader"), "self_attn"),
        **{f"{kind}_norm": "input_layernorm" for kind in ("attn", "attn_reader", "full", "full_reader")},
        **{f"{kind}_post_norm": "post_attention_layernorm" for kind in ("attn", "attn_reader", "full", "full_reader")},
        "mlp_norm": "pre_feedforward_layernorm",
        "mlp_post_norm": "post_feedforward_layernorm_1",
        "moe.expert_norm": "pre_feedforward_layernorm_2",
        "moe_post_norm": "post_feedforward_layernorm_2",
        "mlp_moe_post_norm": "post_feedforward_layernorm",
        "moe.router_norm.weight": "router.scale",
        "moe.per_expert_scale": "router.per_expert_scale",
        "moe.gate": "router.proj",
        "moe.switch_mlp": "experts.switch_glu",
        "token.gate_proj": "per_layer_input_gate",
        "token.down_proj": "per_layer_projection",
        "token_post_norm": "post_per_layer_input_norm",
        "factor.scale": "layer_scalar",
        "per_layer.embed_tokens": "embed_tokens_per_layer",
        "per_layer.proj": "per_layer_model_projection",
        "per_layer.norm": "per_layer_projection_norm",
    },
    1,
)
GPT_OSS = (
    {
        "components": {
            "local": ATTENTION | {"sinks": True, "bias": True, "window_size": 8},
            "attn": ATTENTION | {"sinks": True, "bias": True},
            "moe": {
                "type": "moe",
                "num_experts": 8,
                "top_k": 4,
                "intermediate_size": 32,
                "score": "topk_softmax",
                "norm_topk": False,
                "router_bias": True,
                "bias": True,
                "activation": "swiglu_oai",
            },
        },
        "blocks": {"near": ["local", "moe"], "far": ["attn", "moe"]},
        "stack": "(near far)*2",
        "head": {"tied": False},
    },
    {
        "num_hidden_layers": 4,
        "num_local_experts": 8,
        "num_experts_per_tok": 4,
        "rms_norm_eps": 1e-6,
        "intermediate_size": 32,
        "head_dim": 16,
        "sliding_window": 8,
        "rope_theta": 10000,
    },
    {
        "attn_norm": "input_layernorm",
        "moe_norm": "post_attention_layernorm",
        "moe.gate": "mlp.router",
        "moe.switch_mlp": "mlp.experts",
    },
    1,
)
COHERE2 = (
    {
        "norm": {"type": "layer_norm", "bias": False},
        "components": {
            "local": ATTENTION | {"window_size": 8, "rope": {"traditional": True}},
            "attn": ATTENTION | {"rope": False},
            "mlp": MLP,
        },
        "blocks": {"near": [{"parallel": ["local", "mlp"]}], "far": [{"parallel": ["attn", "mlp"]}]},
        "stack": "near*3 far",
        "head": {"scale": 0.0625},
    },
    {
        "num_hidden_layers": 4,
        "intermediate_size": 96,
        "head_dim": 16,
        "rope_theta": 10000.0,
        "layer_norm_eps": 1e-5,
        "logit_scale": 0.0625,
        "sliding_window": 8,
        "sliding_window_pattern": 4,
        "layer_norm_bias": False,
    },
    {"attn_mlp_norm": "input_layernorm"},
    1,
)
OLMO2 = (
    {
        "components": {"attn": ATTENTION | {"qk_norm": {"over": "all"}}, "mlp": MLP},
        "blocks": {"layer": [{"use": "attn", "norm": "post"}, {"use": "mlp", "norm": "post"}]},
        "stack": "layer*2",
        "head": {"tied": False},
    },
    {"num_hidden_layers": 2, "intermediate_size": 96, "rms_norm_eps": 1e-6, "tie_word_embeddings": False},
    {"attn_post_norm": "post_attention_layernorm", "mlp_post_norm": "post_feedforward_layernorm"},
    1,
)


def renamed(name, names):
    """Our name of a weight as theirs."""
    name = re.sub(r"^(embedding|head)\.", "", name).replace(".local", ".attn")
    name = name if name.startswith("lm_head") else f"model.{name}"
    for ours in sorted(names, key=len, reverse=True):
        name = re.sub(rf"\.{re.escape(ours)}(?=\.|$)", f".{names[ours]}", name)
    return name.replace(".attn.", ".self_attn.")


def decoded(model, x, cache):
    """Logits of 20 tokens at once, then of one at a time."""
    pieces = [x[:, :20], *mx.split(x[:, 20:], x.shape[1] - 20, axis=1)]
    return mx.concatenate([model(piece, cache=cache) for piece in pieces], axis=1)


@pytest.mark.parametrize(
    ("family", "case"),
    [
        ("gemma2", GEMMA2),
        ("gemma3_text", GEMMA3),
        ("gemma4_text", GEMMA4),
        ("gpt_oss", GPT_OSS),
        ("cohere2", COHERE2),
        ("olmo2", OLMO2),
    ],
)
def test_logits_are_those_of_mlx_lm(family, case):
    description, arguments, names, middle = case
    dims = {"hidden_size": 64, "vocab_size": 97}
    ours = load({"version": 1, "name": family, "dims": dims, **description}).build()
    module = importlib.import_module(f"mlx_lm.models.{family}")
    theirs = module.Model(module.ModelArgs.from_dict({"model_type": family, **SIZES, **arguments}))

    mx.random.seed(0)
    weights = {}
    for name, value in tree_flatten(ours.parameters()):
        weight = 0.3 * mx.random.normal(value.shape) + (middle if "norm" in name or "scale" in name else 0)
        ours.load_weights([(name, weight)], strict=False)
        weights[renamed(name, names)] = weight
    theirs.load_weights(list(weights.items()), strict=True)

    x = mx.random.randint(0, 97, (1, 40))
    for mine, other in (
        (ours(x), theirs(x)),
        (decoded(ours, x, ours.make_cache()), decoded(theirs, x, make_prompt_cache(theirs))),
    ):
        # Float32 through four layers is good to some 4e-6 of the largest; anything forgotten costs a hundredth or more.
        limit = 2e-5 * float(mx.abs(other).max())
        np.testing.assert_allclose(np.array(mine), np.array(other), atol=limit)
