"""How llama.cpp converts families of latent attention and of experts with a shared one.

Source: llama.cpp, `conversion/deepseek.py` and `glm.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.checkpoints.gguf.writing import Arrays, Changed, Config, usual


def deepseek_keys(config: Config) -> dict[str, Any]:
    """Keys of what the configuration does not say, or says no to, are missing."""
    rope = config["rope_parameters"]
    given = {
        "attention.q_lora_rank": config["q_lora_rank"],
        "expert_count": config.get("n_routed_experts"),
        "expert_used_count": config.get("num_experts_per_tok"),
        "expert_group_count": config.get("n_group"),
        "expert_group_used_count": config.get("topk_group"),
        "expert_weights_norm": config.get("norm_topk_prob") or None,
        "expert_weights_scale": config.get("routed_scaling_factor"),
        "expert_gating_func": 2 if config["model_type"] == "deepseek_v3" else None,
        "rope.scaling.yarn_log_multiplier": 0.1 * rope["mscale_all_dim"] if "mscale_all_dim" in rope else None,
    }
    found = usual({**config, "num_key_value_heads": 1, "head_dim": None}) | {
        "leading_dense_block_count": config.get("first_k_dense_replace", config["num_hidden_layers"]),
        "vocab_size": config["vocab_size"],
        "attention.kv_lora_rank": config["kv_lora_rank"],
        "attention.key_length": config["kv_lora_rank"] + config["qk_rope_head_dim"],
        "attention.value_length": config["kv_lora_rank"],
        "attention.key_length_mla": config["qk_nope_head_dim"] + config["qk_rope_head_dim"],
        "attention.value_length_mla": config["v_head_dim"],
        "expert_feed_forward_length": config.get("moe_intermediate_size", config["intermediate_size"]),
        "expert_shared_count": config.get("n_shared_experts", 0),
        "rope.dimension_count": config["qk_rope_head_dim"],
    }
    return found | {key: value for key, value in given.items() if value is not None}


def deepseek(name: str, array: np.ndarray, config: Config) -> Changed:
    if name.endswith("kv_b_proj.weight"):
        both = array.reshape(config["num_attention_heads"], -1, array.shape[-1])
        keys, values = np.split(both, [config["qk_nope_head_dim"]], axis=1)
        yield name.replace("kv_b_proj", "k_b_proj"), keys.swapaxes(1, 2)
        yield name.replace("kv_b_proj", "v_b_proj"), values
    elif name != "lm_head.weight" or not config["tie_word_embeddings"]:
        yield name.replace("e_score_correction_bias", "e_score_correction.bias"), array


def deepseek_older_keys(config: Config) -> dict[str, Any]:
    """Files from before April 2025 have the widths of a head, which the latent is not part of."""
    found = deepseek_keys(config) | {"attention.head_count_kv": config["num_attention_heads"]}
    for name in ("key_length", "value_length"):
        found[f"attention.{name}"] = found.pop(f"attention.{name}_mla")
    found.pop("expert_gating_func", None)
    return found


def deepseek_older(name: str, array: np.ndarray, config: Config) -> Changed:
    yield name.replace("e_score_correction_bias", "e_score_correction.bias"), array


# GLM, whose files have the layers that predict further tokens.


def glm_lite_keys(config: Config) -> dict[str, Any]:
    dense = config["mlp_layer_types"].count("dense")
    return predicting(deepseek_keys({**config, "first_k_dense_replace": dense}))


def glm4_moe_keys(config: Config) -> dict[str, Any]:
    return predicting(usual(config)) | {
        "rope.dimension_count": int(config["head_dim"] * config["rope_parameters"]["partial_rotary_factor"]),
        "expert_count": config["n_routed_experts"],
        "expert_used_count": config["num_experts_per_tok"],
        "expert_group_count": config["n_group"],
        "expert_group_used_count": config["topk_group"],
        "expert_feed_forward_length": config["moe_intermediate_size"],
        "expert_shared_count": config["n_shared_experts"],
        "leading_dense_block_count": config["first_k_dense_replace"],
        "expert_gating_func": 2,
        "expert_weights_scale": config["routed_scaling_factor"],
        "expert_weights_norm": config["norm_topk_prob"],
    }


def predicting(keys: dict[str, Any]) -> dict[str, Any]:
    return keys | {"block_count": keys["block_count"] + 1, "nextn_predict_layers": 1}


def predictor(config: Config) -> Arrays:
    """Some of the tensors of a layer that predicts the token after the next."""
    layer, width = config["num_hidden_layers"], config["hidden_size"]
    shapes = {"nextn.eh_proj": (width, 2 * width), "nextn.enorm": (width,), "attn_q": (width, width)}
    return {f"blk.{layer}.{name}.weight": np.ones(shape, np.float32) for name, shape in shapes.items()}


def glm4_moe(name: str, array: np.ndarray, config: Config) -> Changed:
    yield name.replace("e_score_correction_bias", "e_score_correction.bias"), array


# Kimi, with delta attention between.


def kimi_linear_keys(config: Config) -> dict[str, Any]:
    """Of groups only how many are used is written."""
    kinds = config["layer_types"]
    names = {"n_routed_experts": "num_experts", "n_shared_experts": "num_shared_experts"}
    names |= {"num_experts_per_tok": "num_experts_per_token"}
    read = config | {name: config[other] for name, other in names.items()} | {"rope_parameters": {}}
    return deepseek_keys({**read, "first_k_dense_replace": config["mlp_layer_types"].count("dense")}) | {
        "attention.head_count_kv": [1 if kind == "full_attention" else 0 for kind in kinds],
        "ssm.conv_kernel": config["linear_conv_kernel_dim"],
        "kda.head_dim": config["linear_head_dim"],
        "expert_gating_func": 2,
    }


def kimi_linear(name: str, array: np.ndarray, config: Config) -> Changed:
    if name.endswith("_conv1d.weight"):
        array = array.reshape(1, array.shape[0], 1, array.shape[-1])
    elif name.endswith(".A_log"):
        array = -np.exp(array)
    yield from deepseek(name.replace(".dt_bias", ".dt_proj.bias"), array, config)
