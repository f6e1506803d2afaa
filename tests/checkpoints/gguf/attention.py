"""How llama.cpp converts families of attention and experts: keys of the metadata, and what happens to a tensor."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from tests.checkpoints.gguf.writing import Arrays, Changed, Config, pairs, usual

# Llama and Mistral, Mixtral.


def llama_keys(config: Config) -> dict[str, Any]:
    dims = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return usual(config) | {"vocab_size": config["vocab_size"], "rope.dimension_count": dims}


def llama(name: str, array: np.ndarray, config: Config) -> Changed:
    if ".q_proj." in name:
        array = pairs(array, config["num_attention_heads"])
    if ".k_proj." in name:
        array = pairs(array, config["num_key_value_heads"])
    yield name, array


def llama3_factors(config: Config) -> Arrays:
    rope = config["rope_parameters"]
    if rope["rope_type"] != "llama3":
        return {}
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    dims = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    found = []
    for i in range(0, dims, 2):
        turns = rope["original_max_position_embeddings"] / (2 * math.pi * rope["rope_theta"] ** (i / dims))
        smooth = (turns - low) / (high - low)
        found.append(1.0 if smooth > 1 else factor if smooth < 0 else 1 / ((1 - smooth) / factor + smooth))
    return {"rope_freqs.weight": np.array(found)}


def mixtral_keys(config: Config) -> dict[str, Any]:
    counts = {"expert_count": config["num_local_experts"], "expert_used_count": config["num_experts_per_tok"]}
    return llama_keys(config) | counts


def mixtral(name: str, array: np.ndarray, config: Config) -> Changed:
    name = re.sub(r"model\.layers\.(\d+)\.block_sparse_moe\.experts\.", r"layers.\1.feed_forward.experts.", name)
    if name.endswith("mlp.experts.gate_up_proj"):
        layer = name.split(".")[2]
        gate, up = np.split(array, 2, axis=1)
        yield f"layers.{layer}.feed_forward.experts.w1.weight", gate
        yield f"layers.{layer}.feed_forward.experts.w3.weight", up
    elif name.endswith("mlp.experts.down_proj"):
        yield f"layers.{name.split('.')[2]}.feed_forward.experts.w2.weight", array
    else:
        yield from llama(name.replace(".mlp.gate.", ".block_sparse_moe.gate."), array, config)


# Qwen, Gemma, Phi.


def experts(config: Config) -> dict[str, Any]:
    return {
        "expert_count": config.get("num_experts") or config.get("num_local_experts"),
        "expert_used_count": config["num_experts_per_tok"],
        "expert_feed_forward_length": config["moe_intermediate_size"],
    }


def qwen3_moe_keys(config: Config) -> dict[str, Any]:
    return usual(config) | experts(config)


def qwen2_moe_keys(config: Config) -> dict[str, Any]:
    shared = {"expert_shared_feed_forward_length": config["shared_expert_intermediate_size"]}
    return usual(config) | experts(config) | shared


def fused_experts(name: str, array: np.ndarray, config: Config) -> Changed:
    """Experts whose gate and up projections are one tensor, `Qwen2MoeModel.modify_tensors`; dense layers in between."""
    if dense := re.fullmatch(r"model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj\.weight", name):
        yield f"blk.{dense[1]}.ffn_{dense[2]}.weight", array
        return
    if name.endswith("mlp.experts.gate_up_proj"):
        gate, up = np.split(array, 2, axis=1)
        yield name.replace("gate_up_proj", "gate_proj.weight"), gate
        yield name.replace("gate_up_proj", "up_proj.weight"), up
    else:
        yield name + (".weight" if name.endswith("experts.down_proj") else ""), array


def plus_one(name: str, array: np.ndarray, config: Config) -> Changed:
    yield name, array + 1 if name.endswith("norm.weight") else array


def gemma2_keys(config: Config) -> dict[str, Any]:
    names = ("attn_logit_softcapping", "final_logit_softcapping")
    found = usual(config) | {name: config[name] for name in names if config.get(name)}
    found.pop("rope.freq_base")
    return found | {"attention.sliding_window": config["sliding_window"]}


def gemma3_keys(config: Config) -> dict[str, Any]:
    return usual(config) | {"attention.sliding_window": config["sliding_window"]}


def phi3_keys(config: Config) -> dict[str, Any]:
    rope = config["rope_parameters"]
    original = rope["original_max_position_embeddings"]
    growth = config["max_position_embeddings"] / original
    return usual(config) | {
        "rope.scaling.original_context_length": original,
        "rope.scaling.attn_factor": math.sqrt(1 + math.log(growth) / math.log(original)),
        "rope.dimension_count": int(rope["partial_rotary_factor"] * config["hidden_size"])
        // config["num_attention_heads"],
        "attention.sliding_window": config["sliding_window"] or 0,
    }


def phi3_factors(config: Config) -> Arrays:
    rope = config["rope_parameters"]
    return {f"rope_factors_{kind}.weight": np.array(rope[f"{kind}_factor"]) for kind in ("long", "short")}


# Sinks.


def gpt_oss_keys(config: Config) -> dict[str, Any]:
    return usual(config) | {
        "attention.sliding_window": config["sliding_window"],
        "expert_feed_forward_length": config["intermediate_size"],
        "expert_count": config["num_local_experts"],
        "expert_used_count": config["num_experts_per_tok"],
    }


def gpt_oss(name: str, array: np.ndarray, config: Config) -> Changed:
    name += ".weight" if name.endswith("sinks") else ""
    for whole, parts in (("gate_up_proj", ("gate_proj", "up_proj")), ("down_proj", ("down_proj",))):
        if name.endswith((whole, f"{whole}_bias")):
            bias = name.endswith("_bias")
            array = array if bias else array.swapaxes(-1, -2)
            for at, part in enumerate(parts):
                rows = array[:, at :: len(parts)]
                yield name.removesuffix("_bias").replace(whole, part) + (".bias" if bias else ".weight"), rows
            return
    yield name, array
