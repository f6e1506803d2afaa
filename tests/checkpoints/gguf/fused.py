"""How llama.cpp converts families with queries, keys and values in one tensor, and others with changes of their own.

Source: llama.cpp, `conversion/gpt2.py`, `gptneox.py`, `olmo.py`, `exaone.py`, `mistral3.py`, `qwen3vl.py`,
`bailingmoe.py` and `jamba.py`.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from tests.checkpoints.gguf.attention import experts, fused_experts, llama3_factors, llama_keys
from tests.checkpoints.gguf.experts import predicting
from tests.checkpoints.gguf.recurrent import mamba
from tests.checkpoints.gguf.taken import windowed_keys
from tests.checkpoints.gguf.writing import Arrays, Changed, Config, pairs, usual

# One tensor for queries, keys and values.


def gpt2_keys(config: Config) -> dict[str, Any]:
    return {
        "block_count": config["n_layer"],
        "context_length": config["n_positions"],
        "embedding_length": config["n_embd"],
        "feed_forward_length": 4 * config["n_embd"],
        "attention.head_count": config["n_head"],
        "attention.layer_norm_epsilon": config["layer_norm_epsilon"],
    }


def gpt2(name: str, array: np.ndarray, config: Config) -> Changed:
    yield name, array.T if name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")) else array


def gpt_neox_keys(config: Config) -> dict[str, Any]:
    dims = config["hidden_size"] // config["num_attention_heads"]
    found = usual({**config, "rope_parameters": None}) | {
        "use_parallel_residual": config["use_parallel_residual"],
        "rope.dimension_count": int(config["rope_parameters"]["partial_rotary_factor"] * dims),
    }
    return {key: value for key, value in found.items() if key != "rope.freq_base"}


def gpt_neox(name: str, array: np.ndarray, config: Config) -> Changed:
    if name.endswith((".attention.bias", ".masked_bias", ".inv_freq")):
        return
    if ".query_key_value." in name:
        heads = array.reshape(config["num_attention_heads"], 3, -1, *array.shape[1:])
        array = heads.swapaxes(0, 1).reshape(array.shape)
    yield name, array


def bailing_moe_keys(config: Config) -> dict[str, Any]:
    dims = config["hidden_size"] // config["num_attention_heads"]
    return usual(config) | experts(config) | {
        "vocab_size": config["vocab_size"],
        "rope.dimension_count": int(dims * config["partial_rotary_factor"]),
        "leading_dense_block_count": config["first_k_dense_replace"],
        "expert_shared_feed_forward_length": config["moe_shared_expert_intermediate_size"],
        "expert_shared_count": config["num_shared_experts"],
        "expert_group_count": config["n_group"],
        "expert_group_used_count": config["topk_group"],
        "expert_weights_scale": config["routed_scaling_factor"],
        "expert_weights_norm": config["norm_topk_prob"],
        "expert_gating_func": {"softmax": 1, "sigmoid": 2}[config["score_function"]],
    }  # fmt: skip


def bailing_moe(name: str, array: np.ndarray, config: Config) -> Changed:
    yield name.replace(".expert_bias", ".expert_bias.bias"), array


# OLMo, EXAONE, Mistral, Qwen, Jamba.


def olmo_keys(config: Config) -> dict[str, Any]:
    return usual(config) | {"attention.layer_norm_epsilon": 1e-5, "attention.clamp_kqv": config["clip_qkv"]}


def olmo(name: str, array: np.ndarray, config: Config) -> Changed:
    """Weights alone change their order, not biases."""
    if name.endswith("q_proj.weight"):
        array = pairs(array, config["num_attention_heads"])
    if name.endswith("k_proj.weight"):
        array = pairs(array, config["num_key_value_heads"])
    yield name, array


def olmoe_keys(config: Config) -> dict[str, Any]:
    counts = {"expert_count": config["num_experts"], "expert_used_count": config["num_experts_per_tok"]}
    return usual(config) | counts | {"attention.layer_norm_rms_epsilon": 1e-5}


def exaone_keys(config: Config) -> dict[str, Any]:
    return usual({**config, "num_hidden_layers": config["num_layers"]}) | {"rope.dimension_count": config["head_dim"]}


def exaone_factors(config: Config) -> Arrays:
    return llama3_factors({**config, "rope_parameters": {**config["rope_scaling"], "rope_theta": config["rope_theta"]}})


def exaone_moe_keys(config: Config) -> dict[str, Any]:
    width = config["moe_intermediate_size"]
    return predicting(windowed_keys(config)) | experts(config) | {
        "expert_shared_count": config["num_shared_experts"],
        "expert_shared_feed_forward_length": width * config["num_shared_experts"],
        "expert_group_count": config["n_group"],
        "expert_group_used_count": config["topk_group"],
        "expert_weights_scale": config["routed_scaling_factor"],
        "expert_weights_norm": config["norm_topk_prob"],
        "leading_dense_block_count": config["first_k_dense_replace"],
        "rope.scaling.type": "none",
    }  # fmt: skip


def ministral3_keys(config: Config) -> dict[str, Any]:
    """The multiplier is `mscale_all_dim`, not a tenth of it as in DeepSeek's files."""
    rope = config["rope_parameters"]
    return llama_keys(config) | {
        "rope.scaling.yarn_log_multiplier": rope["mscale_all_dim"],
        "attention.temperature_scale": rope["llama_4_scaling_beta"],
    }


def qwen3_vl_keys(config: Config) -> dict[str, Any]:
    sections = [*config["rope_parameters"]["mrope_section"], 0]
    return usual(config) | {"rope.dimension_sections": sections, "n_deepstack_layers": 3}


def qwen3_vl_moe_keys(config: Config) -> dict[str, Any]:
    return qwen3_vl_keys(config) | experts(config)


def qwen3_vl_moe(name: str, array: np.ndarray, config: Config) -> Changed:
    """Experts are (in, out) in published files."""
    yield from fused_experts(name, array.swapaxes(1, 2) if ".experts." in name else array, config)


def jamba_keys(config: Config) -> dict[str, Any]:
    heads, period, offset = (config[key] for key in ("num_key_value_heads", "attn_layer_period", "attn_layer_offset"))
    return usual(config) | {
        "attention.head_count_kv": [
            heads if layer % period == offset else 0 for layer in range(config["num_hidden_layers"])
        ],
        "ssm.conv_kernel": config["mamba_d_conv"],
        "ssm.inner_size": config["mamba_expand"] * config["hidden_size"],
        "ssm.state_size": config["mamba_d_state"],
        "ssm.time_step_rank": config["mamba_dt_rank"],
        "expert_count": config["num_experts"],
        "expert_used_count": config["num_experts_per_tok"],
    }


def jamba(name: str, array: np.ndarray, config: Config) -> Changed:
    name = re.sub(r"\.feed_forward\.experts\.", ".mlp.experts.", name)
    for other, changed in mamba(name, array, config):
        yield from fused_experts(other, changed, config)
