"""How llama.cpp converts families of the gated delta rule.

Source: llama.cpp, `conversion/qwen.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.checkpoints.gguf.attention import fused_experts, qwen2_moe_keys
from tests.checkpoints.gguf.writing import Changed, Config


def qwen3_next_keys(config: Config) -> dict[str, Any]:
    """The interval is one of config.json in its published form, where `layer_types` is not read."""
    heads = config["linear_num_value_heads"]
    return qwen2_moe_keys(config) | {
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
