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

# Description; arguments of mlx-lm's model; how our names of weights become theirs; what is added to their norms.
GEMMA2 = (
    {
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
    {
        "attn_norm": "input_layernorm",
        "attn_post_norm": "post_attention_layernorm",
        "mlp_norm": "pre_feedforward_layernorm",
        "mlp_post_norm": "post_feedforward_layernorm",
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
    0,
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
    0,
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
    0,
)


def renamed(name, names):
    """Our name of a weight as theirs."""
    name = re.sub(r"^(embedding|head)\.", "", name).replace(".local", ".attn")
    name = name if name.startswith("lm_head") else f"model.{name}"
    for ours in sorted(names, key=len, reverse=True):
        name = name.replace(f".{ours}.", f".{names[ours]}.")
    return name.replace(".attn.", ".self_attn.")


def decoded(model, x, cache):
    """Logits of 20 tokens at once, then of one at a time."""
    pieces = [x[:, :20], *mx.split(x[:, 20:], x.shape[1] - 20, axis=1)]
    return mx.concatenate([model(piece, cache=cache) for piece in pieces], axis=1)


@pytest.mark.parametrize(
    ("family", "case"), [("gemma2", GEMMA2), ("gpt_oss", GPT_OSS), ("cohere2", COHERE2), ("olmo2", OLMO2)]
)
def test_logits_are_those_of_mlx_lm(family, case):
    description, arguments, names, shift = case
    dims = {"hidden_size": 64, "vocab_size": 97}
    ours = load({"version": 1, "name": family, "dims": dims, **description}).build()
    module = importlib.import_module(f"mlx_lm.models.{family}")
    theirs = module.Model(module.ModelArgs.from_dict({"model_type": family, **SIZES, **arguments}))

    mx.random.seed(0)
    weights = {}
    for name, value in tree_flatten(ours.parameters()):
        weight = 0.3 * mx.random.normal(value.shape) + ("norm" in name)
        ours.load_weights([(name, weight)], strict=False)
        weights[renamed(name, names)] = weight - shift if "norm" in name else weight
    theirs.load_weights(list(weights.items()), strict=True)

    x = mx.random.randint(0, 97, (1, 40))
    for mine, other in (
        (ours(x), theirs(x)),
        (decoded(ours, x, ours.make_cache()), decoded(theirs, x, make_prompt_cache(theirs))),
    ):
        # Float32 through four layers is good to some 4e-6 of the largest; anything forgotten costs a hundredth or more.
        limit = 2e-5 * float(mx.abs(other).max())
        np.testing.assert_allclose(np.array(mine), np.array(other), atol=limit)
