"""How llama.cpp converts families whose embeddings, branches, norms or scores are scaled.

Source: llama.cpp, `conversion/llama.py`, `deepseek.py`, `afmoe.py`, `minicpm.py`, `plamo.py`, `nemotron.py`, `jais.py`,
`mistral3.py`, `mimo.py` and `qwenvl.py`.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from tests.checkpoints.gguf.attention import experts, llama, llama_keys
from tests.checkpoints.gguf.experts import deepseek
from tests.checkpoints.gguf.fused import olmo
from tests.checkpoints.gguf.writing import Arrays, Changed, Config, fixture, usual


def llama4_keys(config: Config) -> dict[str, Any]:
    """Chunks, layers without positions, and what queries there are multiplied by are those of published models."""
    return llama_keys({**config, "intermediate_size": config["intermediate_size_mlp"]}) | {
        "expert_count": config["num_local_experts"],
        "expert_used_count": config["num_experts_per_tok"],
        "interleave_moe_layer_step": config["interleave_moe_layer_step"],
        "expert_feed_forward_length": config["intermediate_size"],
    }


def deepseek_moe_keys(config: Config) -> dict[str, Any]:
    """Every layer after the first dense ones is taken to be sparse, as in the published model."""
    return llama_keys(config) | {
        "rope.scaling.type": "none",
        "leading_dense_block_count": config["first_k_dense_replace"],
        "expert_count": config["n_routed_experts"],
        "expert_used_count": config["num_experts_per_tok"],
        "expert_shared_count": config["n_shared_experts"],
        "expert_feed_forward_length": config["moe_intermediate_size"],
        "expert_weights_scale": 1.0,
    }


def deepseek_moe(name: str, array: np.ndarray, config: Config) -> Changed:
    """The fixture is of mlx-lm, which stacks experts too."""
    yield from llama(name.replace(".switch_mlp.", ".experts."), array, config)


def llama4(name: str, array: np.ndarray, config: Config) -> Changed:
    if name.endswith("experts.gate_up_proj"):
        gate, up = np.split(array.swapaxes(1, 2), 2, axis=1)
        yield name.replace("gate_up_proj", "gate_proj.weight"), gate
        yield name.replace("gate_up_proj", "up_proj.weight"), up
    elif name.endswith("experts.down_proj"):
        yield f"{name}.weight", array.swapaxes(1, 2)
    else:
        yield name, array


def afmoe_keys(config: Config) -> dict[str, Any]:
    return llama_keys(config) | experts(config) | {
        "expert_shared_count": config["num_shared_experts"],
        "leading_dense_block_count": config["num_dense_layers"],
        "expert_weights_scale": config["route_scale"],
        "attention.sliding_window": config["sliding_window"],
    }  # fmt: skip


def afmoe(name: str, array: np.ndarray, config: Config) -> Changed:
    yield name.replace(".expert_bias", ".expert_bias.bias"), array


def minicpm_keys(config: Config) -> dict[str, Any]:
    return usual(config) | {
        "embedding_scale": config["scale_emb"],
        "residual_scale": config["scale_depth"] / config["num_hidden_layers"] ** 0.5,
        "logit_scale": config["hidden_size"] / config["dim_model_base"],
    }


minicpm = olmo


def minicpm3_keys(config: Config) -> dict[str, Any]:
    found = usual({**config, "head_dim": None, "rope_parameters": {}}) | {
        "vocab_size": config["vocab_size"],
        "attention.q_lora_rank": config["q_lora_rank"],
        "attention.kv_lora_rank": config["kv_lora_rank"],
        "attention.key_length": config["qk_nope_head_dim"] + config["qk_rope_head_dim"],
        "rope.dimension_count": config["qk_rope_head_dim"],
    }
    return {key: value for key, value in found.items() if key != "rope.freq_base"}


def plamo2_keys(config: Config) -> dict[str, Any]:
    """Windows are not converted."""
    step, layers = config["mamba_step"], range(config["num_hidden_layers"])
    attention = [layer % step == step // 2 for layer in layers]
    return usual({**config, "head_dim": config["hidden_size_per_head"]}) | {
        "vocab_size": config["vocab_size"],
        "attention.head_count": [config["num_attention_heads"] if of else 0 for of in attention],
        "attention.head_count_kv": [config["num_key_value_heads"] if of else 0 for of in attention],
        "rope.freq_base": 10000.0,
        "ssm.state_size": config["mamba_d_state"],
        "ssm.conv_kernel": config["mamba_d_conv"],
        "ssm.time_step_rank": config["mamba_num_heads"],
        "ssm.inner_size": config["mamba_num_heads"] * config["hidden_size_per_head"],
        "ssm.group_count": 0,
    }


def plamo2(name: str, array: np.ndarray, config: Config) -> Changed:
    added = {"pre_mixer_norm": 1.0, "post_mixer_norm": 1 / 5, "pre_mlp_norm": 1.0, "post_mlp_norm": 1 / 5**1.5}
    name = name.replace("_norm_weight", "_norm.weight").replace(".dt_bias", ".dt_proj.bias")
    name = name.replace(".k_weight", ".k.weight").replace(".q_weight", ".q.weight")
    if name.endswith(".A_log"):
        array = -np.exp(array)
    elif name.endswith("conv1d.weight"):
        array = array.squeeze()
    elif name.endswith("norm.weight") and ".mixer." not in name:
        array = array + added.get(name.split(".")[-2], 1.0)
    yield name, array


def plamo3_keys(config: Config) -> dict[str, Any]:
    return usual({**config, "rope_parameters": {"rope_theta": config["rope_theta"]}}) | {
        "vocab_size": config["vocab_size"],
        "rope.freq_base_swa": config["rope_local_theta"],
        "attention.sliding_window": config["sliding_window"],
        "attention.sliding_window_pattern": config["sliding_window_pattern"],
    }


def plamo3(name: str, array: np.ndarray, config: Config) -> Changed:
    added = {"post_mixer_norm": 1 / 5, "post_mlp_norm": 1 / 5**1.5}
    yield name, array + added.get(name.split(".")[-2], 1.0) if name.endswith("norm.weight") else array


def nemotron_keys(config: Config) -> dict[str, Any]:
    turned = int(config["rope_parameters"]["partial_rotary_factor"] * config["hidden_size"])
    return usual(config) | {
        "vocab_size": config["vocab_size"],
        "attention.layer_norm_rms_epsilon": config["norm_eps"],
        "attention.layer_norm_epsilon": config["norm_eps"],
        "rope.dimension_count": turned // config["num_attention_heads"],
        "rope.scaling.type": "none",
    }


def jais2_keys(config: Config) -> dict[str, Any]:
    return usual(config) | {"rope.dimension_count": config["head_dim"]}


def mistral4(name: str, array: np.ndarray, config: Config) -> Changed:
    """Experts are together, and gates and ups in one tensor."""
    yield from deepseek(
        name + (".weight" if name.endswith(("gate_up_proj", "experts.down_proj")) else ""), array, config
    )


def mimo2_keys(config: Config) -> dict[str, Any]:
    """With three layers that predict further tokens, which have windows."""
    rope, further = config["rope_parameters"], 3
    windows = [int(kind == "sliding_attention") for kind in config["layer_types"]] + [1] * further
    heads = config["num_key_value_heads"]
    return usual(config) | {
        "block_count": config["num_hidden_layers"] + further,
        "nextn_predict_layers": further,
        "attention.head_count_kv": [2 * heads if window else heads for window in windows],
        "attention.sliding_window": config["sliding_window"],
        "attention.sliding_window_pattern": windows,
        "attention.value_length": config["v_head_dim"],
        "attention.value_scale": config["attention_value_scale"],
        "rope.dimension_count": int(config["head_dim"] * rope["full_attention"]["partial_rotary_factor"]),
        "rope.freq_base_swa": rope["sliding_attention"]["rope_theta"],
        "expert_count": config["n_routed_experts"],
        "expert_used_count": config["num_experts_per_tok"],
        "expert_group_count": config["n_group"],
        "expert_group_used_count": config["topk_group"],
        "expert_feed_forward_length": config["moe_intermediate_size"],
        "expert_gating_func": 2,
    }


def mimo2(name: str, array: np.ndarray, config: Config) -> Changed:
    name += ".weight" if name.endswith("attention_sink_bias") else ""
    yield name.replace("e_score_correction_bias", "e_score_correction.bias"), array


def mimo2_fused(name: str, array: np.ndarray, config: Config) -> Changed:
    if not re.search(r"\.[qkv]_proj\.", name):
        yield from mimo2(name, array, config)


def mimo2_qkv(config: Config) -> Arrays:
    """What newer checkpoints have in one tensor."""
    tensors = fixture("mimo_v2_flash")
    return {
        f"blk.{layer}.attn_qkv.weight": np.concatenate(
            [tensors[f"model.layers.{layer}.self_attn.{kind}_proj.weight"] for kind in "qkv"]
        )
        for layer in range(config["num_hidden_layers"])
    }


def qwen2_vl_keys(config: Config) -> dict[str, Any]:
    sections = [*config["rope_parameters"]["mrope_section"], 0]
    return usual(config) | {"rope.dimension_sections": sections}


def text_alone(name: str, array: np.ndarray, config: Config) -> Changed:
    if not name.startswith("visual"):
        yield name, array
