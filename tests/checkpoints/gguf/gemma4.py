"""How llama.cpp converts Gemma 4: keys of the metadata, and what happens to a tensor.

Source: llama.cpp, `conversion/gemma.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.checkpoints.gguf.writing import Arrays, Changed, Config, usual


def keys(config: Config) -> dict[str, Any]:
    """Global layers have sizes of their own, here in `per_layer_config`."""
    local = [kind == "sliding_attention" for kind in config["layer_types"]]
    (whole,) = {tuple(sizes.items()) for sizes in config["per_layer_config"].values()}
    sizes, width = dict(whole), config["intermediate_size"]
    own = config["num_hidden_layers"] - config["num_kv_shared_layers"]
    found = usual(config) | {
        "attention.sliding_window": config["sliding_window"],
        "attention.sliding_window_pattern": local,
        "attention.shared_kv_layers": config["num_kv_shared_layers"],
        "attention.head_count_kv": [
            config["num_key_value_heads"] if of else sizes["num_key_value_heads"] for of in local
        ],
        "attention.key_length": sizes["head_dim"],
        "attention.value_length": sizes["head_dim"],
        "attention.key_length_swa": config["head_dim"],
        "attention.value_length_swa": config["head_dim"],
        "embedding_length_per_layer_input": config["hidden_size_per_layer_input"],
        "final_logit_softcapping": config["final_logit_softcapping"],
        "rope.freq_base_swa": config["rope_parameters"]["sliding_attention"]["rope_theta"],
        "rope.dimension_count": sizes["head_dim"],
        "rope.dimension_count_swa": config["head_dim"],
    }
    if config["use_double_wide_mlp"]:
        found["feed_forward_length"] = [width if at < own else 2 * width for at in range(config["num_hidden_layers"])]
    if config["enable_moe_block"]:
        found |= {
            "expert_count": config["num_experts"],
            "expert_used_count": config["top_k_experts"],
            "expert_feed_forward_length": config["moe_intermediate_size"],
        }
    return found


def tensors(name: str, array: np.ndarray, config: Config) -> Changed:
    layer = "".join(name.split(".")[2:3])
    if name.endswith("router.scale"):
        yield f"blk.{layer}.ffn_gate_inp.scale", array
    elif name.endswith("per_expert_scale"):
        yield f"blk.{layer}.ffn_down_exps.scale", array
    else:
        yield name + ("" if name.endswith(".weight") else ".weight"), array


def factors(config: Config) -> Arrays:
    """Frequencies of global layers that are not turned are divided by a number that is nearly infinite."""
    (dims,) = {sizes["head_dim"] for sizes in config["per_layer_config"].values()}
    turned = int(dims * config["rope_parameters"]["full_attention"]["partial_rotary_factor"]) // 2
    return {"rope_freqs.weight": np.array([1.0] * turned + [1e30] * (dims // 2 - turned))}
