"""How llama.cpp converts families of the gated delta rule: Qwen3-Next and Qwen3.5.

Source: llama.cpp, `conversion/qwen.py`.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from tests.checkpoints.gguf.attention import fused_experts, qwen2_moe_keys
from tests.checkpoints.gguf.experts import predicting
from tests.checkpoints.gguf.writing import Changed, Config, usual


def qwen3_next_keys(config: Config) -> dict[str, Any]:
    """The interval is one of config.json in its published form, where `layer_types` is not read."""
    heads = config["linear_num_value_heads"]
    return (qwen2_moe_keys if "num_experts" in config else usual)(config) | {
        "ssm.conv_kernel": config["linear_conv_kernel_dim"],
        "ssm.state_size": config["linear_key_head_dim"],
        "ssm.group_count": config["linear_num_key_heads"],
        "ssm.time_step_rank": heads,
        "ssm.inner_size": config["linear_value_head_dim"] * heads,
        "full_attention_interval": config["layer_types"].index("full_attention") + 1,
        "rope.dimension_count": int(config["head_dim"] * config["rope_parameters"]["partial_rotary_factor"]),
    }


def qwen3_next(name: str, array: np.ndarray, config: Config) -> Changed:
    if name.endswith("in_proj_qkvz.weight"):
        key, value = config["linear_key_head_dim"], config["linear_value_head_dim"]
        heads = config["linear_num_key_heads"]
        value *= config["linear_num_value_heads"] // heads
        grouped = array.reshape(heads, 2 * key + 2 * value, -1)
        parts = np.split(grouped, [key, 2 * key, 2 * key + value], axis=1)
        q, k, v, z = (part.reshape(-1, array.shape[-1]) for part in parts)
        layer = name.split(".")[2]
        yield f"blk.{layer}.attn_qkv.weight", np.concatenate([q, k, v])
        yield f"blk.{layer}.attn_gate.weight", z
    else:
        yield from qwen3_next_older(name, array, config)


def qwen3_next_older(name: str, array: np.ndarray, config: Config) -> Changed:
    """Older files have the projection of queries, keys, values and gates as it is."""
    if name.endswith(".A_log"):
        array = -np.exp(array)
    elif "conv1d" in name:
        array = array.squeeze()
    elif name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight"):
        array = array + 1
    yield from fused_experts(name.replace(".dt_bias", ".dt_proj.bias"), array, config)


def qwen3_5_keys(config: Config) -> dict[str, Any]:
    """With a layer that predicts further tokens, as published models have it."""
    found = predicting(qwen3_next_keys(config)) | {"rope.dimension_sections": [11, 11, 10, 0]}
    return {key: value for key, value in found.items() if value is not None}


def qwen3_5(name: str, array: np.ndarray, config: Config) -> Changed:
    """Value heads one of each key head after the other, `_LinearAttentionVReorderBase`."""
    size, heads = config["linear_value_head_dim"], config["linear_num_value_heads"]
    if ".out_proj." in name and "linear_attn" in name:
        array = tiled(array.T, size, config).T
    elif re.search(r"linear_attn\.(in_proj_(qkv|z)|conv1d)", name):
        first, values = np.split(array, [len(array) - heads * size])
        array = np.concatenate([first, tiled(values, size, config)])
    elif re.search(r"linear_attn\.(in_proj_[ab]|A_log|dt_bias)", name):
        array = tiled(array, 1, config)
    yield from qwen3_next_older(name, array, config)


def tiled(array: np.ndarray, size: int, config: Config) -> np.ndarray:
    heads = array.reshape(config["linear_num_key_heads"], -1, size, *array.shape[1:])
    return heads.swapaxes(0, 1).reshape(array.shape)
