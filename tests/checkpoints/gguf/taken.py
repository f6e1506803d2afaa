"""How llama.cpp converts families whose tensors it takes nearly as they are: keys of the metadata, and other names.

Source: llama.cpp, `conversion/command_r.py`, `olmo.py`, `exaone.py`, `glm.py`, `ernie.py`, `hunyuan.py`, `dots1.py` and
`minimax.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.checkpoints.gguf.writing import Changed, Config, usual


def bias_named(name: str, array: np.ndarray, config: Config) -> Changed:
    """Corrections of an expert's score are called a bias."""
    yield name.replace("e_score_correction_bias", "e_score_correction.bias"), array


def rotated(config: Config) -> dict[str, Any]:
    share = config["rope_parameters"]["partial_rotary_factor"]
    return usual(config) | {"rope.dimension_count": int(config["head_dim"] * share)}


# Windows.


def cohere_keys(config: Config) -> dict[str, Any]:
    return usual(config) | {"logit_scale": config["logit_scale"], "rope.scaling.type": "none"}


def cohere2_keys(config: Config) -> dict[str, Any]:
    return cohere_keys(config) | {
        "attention.sliding_window": config["sliding_window"],
        "vocab_size": config["vocab_size"],
        "rope.dimension_count": config["hidden_size"] // config["num_attention_heads"],
    }


def windowed_keys(config: Config) -> dict[str, Any]:
    return usual(config) | {
        "vocab_size": config["vocab_size"],
        "attention.sliding_window": config["sliding_window"],
        "attention.sliding_window_pattern": [kind == "sliding_attention" for kind in config["layer_types"]],
    }


# Experts.


def ernie_moe_keys(config: Config) -> dict[str, Any]:
    return usual(config) | {
        "expert_count": config["moe_num_experts"],
        "expert_used_count": config["moe_k"],
        "interleave_moe_layer_step": config["moe_layer_interval"],
        "leading_dense_block_count": config["moe_layer_start_index"],
        "expert_feed_forward_length": config["moe_intermediate_size"],
        "expert_shared_count": config["moe_num_shared_experts"],
        "expert_shared_feed_forward_length": config["intermediate_size"] // config["num_key_value_heads"],
    }


def hunyuan_keys(config: Config) -> dict[str, Any]:
    """The base of the frequencies is stretched; that no scaling is left is said by three keys."""
    rope, dims = config["rope_parameters"], config["head_dim"]
    return usual(config) | {
        "rope.freq_base": rope["rope_theta"] * rope["alpha"] ** (dims / (dims - 2)),
        "rope.scaling.type": "none",
        "rope.scaling.factor": 1,
        "rope.scaling.original_context_length": 256 * 1024,
        "context_length": 256 * 1024,
    }


def hunyuan_moe_keys(config: Config) -> dict[str, Any]:
    return hunyuan_keys(config) | {
        "expert_shared_feed_forward_length": config["intermediate_size"],
        "expert_feed_forward_length": config["intermediate_size"],
        "expert_count": config["num_experts"],
        "expert_used_count": config["moe_topk"][0],
        "expert_shared_count": 1,
    }


def dots1_keys(config: Config) -> dict[str, Any]:
    return usual(config) | {
        "expert_count": config["n_routed_experts"],
        "expert_used_count": config["num_experts_per_tok"],
        "expert_group_count": config["n_group"],
        "expert_group_used_count": config["topk_group"],
        "expert_feed_forward_length": config["moe_intermediate_size"],
        "expert_shared_count": config["n_shared_experts"],
        "expert_gating_func": 2,
        "expert_weights_scale": config["routed_scaling_factor"],
        "expert_weights_norm": config["norm_topk_prob"],
        "leading_dense_block_count": config["first_k_dense_replace"],
    }


def minimax_m2_keys(config: Config) -> dict[str, Any]:
    return rotated(config) | {
        "expert_count": config["num_local_experts"],
        "expert_used_count": config["num_experts_per_tok"],
        "expert_gating_func": 2,
        "expert_feed_forward_length": config["intermediate_size"],
    }
