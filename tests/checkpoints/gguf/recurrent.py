"""How llama.cpp converts families with recurrences: keys of the metadata, and what happens to a tensor."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from tests.checkpoints.gguf.attention import llama, llama_keys
from tests.checkpoints.gguf.writing import Arrays, Changed, Config, fixture, usual

# State spaces.


def mamba_keys(config: Config) -> dict[str, Any]:
    return {
        "context_length": 1 << 20,
        "embedding_length": config["hidden_size"],
        "feed_forward_length": 0,
        "attention.head_count": 0,
        "block_count": config["num_hidden_layers"],
        "ssm.conv_kernel": config["conv_kernel"],
        "ssm.inner_size": config["intermediate_size"],
        "ssm.state_size": config["state_size"],
        "ssm.time_step_rank": config["time_step_rank"],
        "attention.layer_norm_rms_epsilon": config["layer_norm_epsilon"],
        "ssm.dt_b_c_rms": config["model_type"] == "falcon_mamba",
    }


def mamba(name: str, array: np.ndarray, config: Config) -> Changed:
    if name.endswith(".A_log"):
        array = -np.exp(array)
    yield name, array.squeeze() if name.endswith("conv1d.weight") else array


def mamba2_keys(config: Config) -> dict[str, Any]:
    inner = config["num_heads"] * config["head_dim"]
    sizes = {"intermediate_size": inner, "time_step_rank": config["num_heads"]}
    found = mamba_keys(config | sizes) | {"ssm.group_count": config["n_groups"]}
    del found["ssm.dt_b_c_rms"]
    return found


def mamba2(name: str, array: np.ndarray, config: Config) -> Changed:
    groups = config.get("n_groups") or config["mamba_n_groups"]
    if name.endswith(".A_log"):
        array = -np.exp(array)
    if name.endswith((".A_log", ".D")):
        array = array[:, None]
    if name.endswith(("mixer.norm.weight", "mamba.norm.weight")):
        array = array.reshape(groups, -1)
    array = array.squeeze() if name.endswith("conv1d.weight") else array
    yield name.replace(".dt_bias", ".dt_proj.bias"), array


# Granite.


def granite_keys(config: Config) -> dict[str, Any]:
    return llama_keys({**config, "head_dim": None}) | {
        "attention.scale": config["attention_multiplier"],
        "embedding_scale": config["embedding_multiplier"],
        "residual_scale": config["residual_multiplier"],
        "logit_scale": config["logits_scaling"],
    }


def granitemoe_keys(config: Config) -> dict[str, Any]:
    found = granite_keys(config)
    if config["num_local_experts"]:
        found |= {"expert_count": config["num_local_experts"], "expert_used_count": config["num_experts_per_tok"]}
    if config.get("shared_intermediate_size"):
        found["expert_shared_feed_forward_length"] = config["shared_intermediate_size"]
    return found


def granitemoe(name: str, array: np.ndarray, config: Config) -> Changed:
    layer = "".join(name.split(".")[2:3])
    ending = "" if not config["num_local_experts"] else "_shexp"
    if name.endswith("block_sparse_moe.input_linear.weight"):
        gate, up = np.split(array, 2, axis=1)
        yield f"blk.{layer}.ffn_gate_exps.weight", gate
        yield f"blk.{layer}.ffn_up_exps.weight", up
    elif name.endswith("shared_mlp.input_linear.weight"):
        gate, up = np.split(array, 2)
        yield f"blk.{layer}.ffn_gate{ending}.weight", gate
        yield f"blk.{layer}.ffn_up{ending}.weight", up
    elif name.endswith("shared_mlp.output_linear.weight"):
        yield f"blk.{layer}.ffn_down{ending}.weight", array
    else:
        yield from llama(name, array, config)


def granitehybrid_keys(config: Config) -> dict[str, Any]:
    kinds = config["layer_types"]
    heads = config["num_key_value_heads"]
    return granitemoe_keys(config) | {
        "ssm.conv_kernel": config["mamba_d_conv"],
        "ssm.state_size": config["mamba_d_state"],
        "ssm.group_count": config["mamba_n_groups"],
        "ssm.inner_size": config["mamba_n_heads"] * config["mamba_d_head"],
        "ssm.time_step_rank": config["mamba_n_heads"],
        "attention.head_count_kv": [heads if kind == "full_attention" else 0 for kind in kinds],
        "rope.scaling.finetuned": config["position_embedding_type"] == "rope",
    }


def granitehybrid(name: str, array: np.ndarray, config: Config) -> Changed:
    for other, changed in granitemoe(name, array, config):
        yield from mamba2(other, changed, config)


# Short convolutions, and several kinds of layers.


def lfm2_keys(config: Config) -> dict[str, Any]:
    heads = config["num_key_value_heads"]
    width = config["block_ffn_dim_multiplier"] * (2 * config["intermediate_size"] // 3)
    multiple = config["block_multiple_of"]
    return usual(config) | {
        "attention.head_count_kv": [0 if kind == "conv" else heads for kind in config["layer_types"]],
        "vocab_size": config["vocab_size"],
        "shortconv.l_cache": config["conv_L_cache"],
        "attention.layer_norm_rms_epsilon": config["norm_eps"],
        "feed_forward_length": multiple * math.ceil(int(width) / multiple),
    }


def lfm2(name: str, array: np.ndarray, config: Config) -> Changed:
    yield name, array.squeeze(1) if name.endswith("conv.conv.weight") else array


def lfm2_moe_keys(config: Config) -> dict[str, Any]:
    heads = config["num_key_value_heads"]
    return usual(config) | {
        "attention.head_count_kv": [0 if kind == "conv" else heads for kind in config["layer_types"]],
        "attention.layer_norm_rms_epsilon": config["norm_eps"],
        "shortconv.l_cache": config["conv_L_cache"],
        "expert_count": config["num_experts"],
        "expert_used_count": config["num_experts_per_tok"],
        "expert_feed_forward_length": config["moe_intermediate_size"],
        "leading_dense_block_count": config["num_dense_layers"],
        "expert_gating_func": 2,
    }


def lfm2_moe(name: str, array: np.ndarray, config: Config) -> Changed:
    layer = "".join(name.split(".")[2:3])
    if name.endswith("feed_forward.experts.gate_up_proj"):
        gate, up = np.split(array, 2, axis=1)
        yield f"blk.{layer}.ffn_gate_exps.weight", gate
        yield f"blk.{layer}.ffn_up_exps.weight", up
    elif found := re.search(r"feed_forward\.experts\.(w[123]\.weight|down_proj)$", name):
        part = {"w1.weight": "gate", "w3.weight": "up"}.get(found[1], "down")
        yield f"blk.{layer}.ffn_{part}_exps.weight", array
    else:
        yield from lfm2(name.replace(".expert_bias", ".expert_bias.bias"), array, config)


def nemotron_h_keys(config: Config) -> dict[str, Any]:
    kinds = config["layers_block_type"]
    heads, inner = config["num_key_value_heads"], config["mamba_num_heads"] * config["mamba_head_dim"]
    return usual({**config, "num_hidden_layers": len(kinds)}) | {
        "attention.layer_norm_rms_epsilon": config["layer_norm_epsilon"],
        "attention.head_count_kv": [heads if kind == "full_attention" else 0 for kind in kinds],
        "feed_forward_length": [config["moe_intermediate_size"] if kind == "moe" else 0 for kind in kinds],
        "ssm.conv_kernel": config["conv_kernel"],
        "ssm.state_size": config["ssm_state_size"],
        "ssm.group_count": config["n_groups"],
        "ssm.inner_size": inner,
        "ssm.time_step_rank": config["mamba_num_heads"],
        "rope.scaling.finetuned": False,
        "rope.dimension_count": config["head_dim"],
        "expert_feed_forward_length": config["moe_intermediate_size"],
        "expert_shared_feed_forward_length": config["moe_shared_expert_intermediate_size"],
        "expert_count": config["n_routed_experts"],
        "expert_used_count": config["num_experts_per_tok"],
        "expert_shared_count": config["n_shared_experts"],
        "expert_weights_norm": config["norm_topk_prob"],
        "expert_weights_scale": config["routed_scaling_factor"],
        "expert_group_count": config["n_group"],
    }


def nemotron_h(name: str, array: np.ndarray, config: Config) -> Changed:
    if merged := re.fullmatch(r"backbone(\.layers\.\d+)\.mixer(\.experts\..+)", name):
        yield f"model{merged[1]}.mlp{merged[2]}", array
        return
    for other, changed in mamba2(name, array, config):
        other = other.replace(".dt_proj.bias", ".dt.bias")
        yield from llama(other.replace("e_score_correction_bias", "e_score_correction.bias"), changed, config)


def falcon_h1_keys(config: Config) -> dict[str, Any]:
    return usual({**config, "head_dim": config["hidden_size"] // config["num_attention_heads"]}) | {
        "vocab_size": config["vocab_size"],
        "ssm.conv_kernel": config["mamba_d_conv"],
        "ssm.state_size": config["mamba_d_state"],
        "ssm.group_count": config["mamba_n_groups"],
        "ssm.inner_size": config["mamba_d_ssm"],
        "ssm.time_step_rank": config["mamba_n_heads"],
    }


def falcon_h1(name: str, array: np.ndarray, config: Config) -> Changed:
    """Factors of an input go into the weight alone, those of an output into the bias too."""
    weight = name.endswith(".weight")
    before, after = 1.0, 1.0
    if "feed_forward.gate_proj" in name:
        after = config["mlp_multipliers"][0]
    elif "feed_forward.down_proj" in name:
        after = config["mlp_multipliers"][1]
    elif re.search(r"self_attn\.[qkv]_proj", name):
        before = config["attention_in_multiplier"]
        after = config["key_multiplier"] if ".k_proj" in name else 1.0
    elif "self_attn.o_proj" in name:
        after = config["attention_out_multiplier"]
    elif "mamba.out_proj" in name:
        after = config["ssm_out_multiplier"]
    elif "mamba.in_proj" in name:
        before = config["ssm_in_multiplier"]
        states = config["mamba_n_groups"] * config["mamba_d_state"]
        sizes = [config["mamba_d_ssm"]] * 2 + [states] * 2 + [config["mamba_n_heads"]]
        rows = np.repeat(config["ssm_multipliers"], sizes)
        array = array * (rows[:, None] if weight else rows)
    elif name == "lm_head.weight":
        after = config["lm_head_multiplier"]
    elif name == "model.embed_tokens.weight":
        after = config["embedding_multiplier"]
    array = array * (before if weight else 1.0) * after
    for other, changed in mamba2(name, array, config):
        yield re.sub(r"model\.layers\.(\d+)\.pre_ff_layernorm\.weight", r"blk.\1.ffn_norm", other), changed


def rwkv7_keys(config: Config) -> dict[str, Any]:
    return {
        "context_length": 1 << 20,
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "attention.layer_norm_epsilon": config["norm_eps"],
        "wkv.head_size": config["head_dim"],
        "attention.decay_lora_rank": config["decay_low_rank_dim"],
        "attention.iclr_lora_rank": config["a_low_rank_dim"],
        "attention.value_residual_mix_lora_rank": config["v_low_rank_dim"],
        "attention.gate_lora_rank": config["gate_low_rank_dim"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": 0,
    }


def rwkv7(name: str, array: np.ndarray, config: Config) -> Changed:
    """The six shares of a layer come as one tensor, `rwkv7_shares`."""
    if re.search(r"\.attn\.x_[rwkvag]$", name):
        return
    name = name.replace(".ffn.", ".feed_forward.").replace(".ffn_norm", ".ln2").replace(".g_norm", ".ln_x")
    name = name.replace("attn", "attention")
    for ending, other in (("0.weight", "1.weight"), ("2.weight", "2.weight"), ("2.bias", "0.weight")):
        name = name.replace(f"_lora.lora.{ending}", other)
    array = array.flatten() if name.endswith("r_k") else array.squeeze()
    name += "" if name.endswith((".weight", ".bias")) else ".weight"
    if ".0.attention.a" in name and re.search(r"\.a[012]\.weight", name):
        yield re.sub(r"model\.layers\.0\.attention\.a", "blk.0.time_mix_v", name), array
    yield name, array


def rwkv7_shares(config: Config) -> Arrays:
    arrays = fixture("rwkv7")
    return {
        f"blk.{layer}.time_mix_lerp_fused.weight": np.stack(
            [arrays[f"model.layers.{layer}.attn.x_{share}"] for share in "rwkvag"]
        )
        for layer in range(config["num_hidden_layers"])
    }
