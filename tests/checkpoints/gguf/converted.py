"""The fixtures of families as GGUF files, written with the package `gguf` the way llama.cpp's converter does.

Names come from the package's own table of tensors, not from the rules that are tested. What the converter changes
(`conversion/*.py` of llama.cpp) is written out here a second time, with NumPy.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGMLQuantizationType, GGUFWriter, get_tensor_name_map
from gguf.quants import quantize

from tests.families.models import FIXTURES

Arrays = dict[str, np.ndarray]
Config = dict[str, Any]

#: Types of values in the metadata.
_FLOATS = ("epsilon", "freq_base", "factor", "softcapping", "scale", "beta", "multiplier", "clamp")


class Conversion(NamedTuple):
    """How one fixture becomes a GGUF file: its architecture there, its keys, and what happens to a tensor."""

    architecture: MODEL_ARCH
    keys: Callable[[Config], dict[str, Any]]
    change: Callable[[str, np.ndarray, Config], Iterator[tuple[str, np.ndarray]]]
    extra: Callable[[Config], Arrays] = lambda config: {}


def write(name: str, path: Path, kind: str | None = None, layers: int | None = None) -> None:
    """Write a fixture; with `kind` every matrix whose rows allow it is quantised so."""
    conversion = CONVERSIONS[name]
    config = json.loads((FIXTURES / name / "config.json").read_text())
    config = {**config, **config.get("text_config", {})}
    writer = GGUFWriter(path, MODEL_ARCH_NAMES[conversion.architecture])
    for key, value in conversion.keys(config).items():
        add(writer, f"{writer.arch}.{key}", value)
    count = config.get("num_hidden_layers") or len(config["layers_block_type"])
    table = get_tensor_name_map(conversion.architecture, count)
    tensors = dict(stacked(fixture(name)))
    for published, array in tensors.items():
        for other, changed in conversion.change(published, array, config):
            place(writer, table.get_name(other, (".weight", ".bias")) or other, changed, kind)
    for other, array in conversion.extra(config).items():
        place(writer, other, array, None)
    finish(writer)


def fixture(name: str) -> Arrays:
    """The tensors of a fixture in float32."""
    files = sorted((FIXTURES / name).glob("model*.safetensors"))
    arrays = {key: value for file in files for key, value in mx.load(str(file)).items()}
    return {key: np.array(value.astype(mx.float32)) for key, value in arrays.items()}


def stacked(arrays: Arrays) -> Iterator[tuple[str, np.ndarray]]:
    """Experts in one tensor with the expert first, under the name without its number."""
    groups: dict[str, dict[int, np.ndarray]] = {}
    for name, array in arrays.items():
        match = re.fullmatch(r"(.+\.experts)\.(\d+)\.(.+)", name)
        if match:
            groups.setdefault(f"{match[1]}.{match[3]}", {})[int(match[2])] = array
        else:
            yield name, array
    for name, members in groups.items():
        yield name, np.stack([members[number] for number in sorted(members)])


def add(writer: GGUFWriter, key: str, value: Any) -> None:
    """A value of the metadata in the type that llama.cpp expects."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, float) or any(word in key for word in _FLOATS):
        writer.add_float32(key, value)
    else:
        writer.add_uint32(key, value)


def place(writer: GGUFWriter, name: str, array: np.ndarray, kind: str | None) -> None:
    array = np.ascontiguousarray(array, dtype=np.float32)
    block = 256 if kind and kind.endswith("_K") else 32
    if kind and array.ndim > 1 and array.shape[-1] % block == 0:
        number = GGMLQuantizationType[kind]
        writer.add_tensor(name, quantize(array, number), raw_dtype=number)
    else:
        writer.add_tensor(name, array)


def finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def usual(config: Config) -> dict[str, Any]:
    """The keys that `TextModel.set_gguf_parameters` writes for every architecture."""
    rope = config.get("rope_parameters") or {}
    rope = rope.get("full_attention", rope)
    found = {
        "block_count": config.get("num_hidden_layers"),
        "context_length": config.get("max_position_embeddings"),
        "embedding_length": config.get("hidden_size"),
        "feed_forward_length": config.get("intermediate_size"),
        "attention.head_count": config.get("num_attention_heads"),
        "attention.head_count_kv": config.get("num_key_value_heads"),
        "attention.layer_norm_rms_epsilon": config.get("rms_norm_eps"),
        "rope.freq_base": rope.get("rope_theta") or config.get("rope_theta"),
        "attention.key_length": config.get("head_dim"),
        "attention.value_length": config.get("head_dim"),
    }
    if rope.get("rope_type") == "yarn":
        found |= {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": rope["factor"],
            "rope.scaling.original_context_length": rope["original_max_position_embeddings"],
        }
    if rope.get("rope_type") == "linear":
        found |= {"rope.scaling.type": "linear", "rope.scaling.factor": rope["factor"]}
    return {key: value for key, value in found.items() if value is not None}


def same(name: str, array: np.ndarray, config: Config) -> Iterator[tuple[str, np.ndarray]]:
    yield name, array


def pairs(array: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from halves to pairs, `LlamaModel.permute`."""
    halves = array.reshape(heads, 2, -1, *array.shape[1:])
    return np.stack([halves[:, 0], halves[:, 1]], axis=2).reshape(array.shape)


# Llama and Mistral, Mixtral.


def llama_keys(config: Config) -> dict[str, Any]:
    dims = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return usual(config) | {"vocab_size": config["vocab_size"], "rope.dimension_count": dims}


def llama(name: str, array: np.ndarray, config: Config) -> Iterator[tuple[str, np.ndarray]]:
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


def mixtral(name: str, array: np.ndarray, config: Config) -> Iterator[tuple[str, np.ndarray]]:
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


def fused_experts(name: str, array: np.ndarray, config: Config) -> Iterator[tuple[str, np.ndarray]]:
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


def plus_one(name: str, array: np.ndarray, config: Config) -> Iterator[tuple[str, np.ndarray]]:
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


def mamba(name: str, array: np.ndarray, config: Config) -> Iterator[tuple[str, np.ndarray]]:
    if name.endswith(".A_log"):
        array = -np.exp(array)
    yield name, array.squeeze() if name.endswith("conv1d.weight") else array


def mamba2_keys(config: Config) -> dict[str, Any]:
    inner = config["num_heads"] * config["head_dim"]
    sizes = {"intermediate_size": inner, "time_step_rank": config["num_heads"]}
    found = mamba_keys(config | sizes) | {"ssm.group_count": config["n_groups"]}
    del found["ssm.dt_b_c_rms"]
    return found


def mamba2(name: str, array: np.ndarray, config: Config) -> Iterator[tuple[str, np.ndarray]]:
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


def granitemoe(name: str, array: np.ndarray, config: Config) -> Iterator[tuple[str, np.ndarray]]:
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


def granitehybrid(name: str, array: np.ndarray, config: Config) -> Iterator[tuple[str, np.ndarray]]:
    for other, changed in granitemoe(name, array, config):
        yield from mamba2(other, changed, config)


# Short convolutions, sinks, latents, and several kinds of layers.


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


def lfm2(name: str, array: np.ndarray, config: Config) -> Iterator[tuple[str, np.ndarray]]:
    yield name, array.squeeze(1) if name.endswith("conv.conv.weight") else array


def gpt_oss_keys(config: Config) -> dict[str, Any]:
    return usual(config) | {
        "attention.sliding_window": config["sliding_window"],
        "expert_feed_forward_length": config["intermediate_size"],
        "expert_count": config["num_local_experts"],
        "expert_used_count": config["num_experts_per_tok"],
    }


def gpt_oss(name: str, array: np.ndarray, config: Config) -> Iterator[tuple[str, np.ndarray]]:
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


def deepseek_keys(config: Config) -> dict[str, Any]:
    rope = config["rope_parameters"]
    return usual({**config, "num_key_value_heads": 1, "head_dim": None}) | {
        "leading_dense_block_count": config["first_k_dense_replace"],
        "vocab_size": config["vocab_size"],
        "attention.q_lora_rank": config["q_lora_rank"],
        "attention.kv_lora_rank": config["kv_lora_rank"],
        "attention.key_length": config["kv_lora_rank"] + config["qk_rope_head_dim"],
        "attention.value_length": config["kv_lora_rank"],
        "attention.key_length_mla": config["qk_nope_head_dim"] + config["qk_rope_head_dim"],
        "attention.value_length_mla": config["v_head_dim"],
        "expert_feed_forward_length": config["moe_intermediate_size"],
        "expert_count": config["n_routed_experts"],
        "expert_used_count": config["num_experts_per_tok"],
        "expert_shared_count": config["n_shared_experts"],
        "expert_group_count": config["n_group"],
        "expert_group_used_count": config["topk_group"],
        "expert_weights_scale": config["routed_scaling_factor"],
        "expert_weights_norm": config["norm_topk_prob"],
        "expert_gating_func": 2,
        "rope.dimension_count": config["qk_rope_head_dim"],
        "rope.scaling.yarn_log_multiplier": 0.1 * rope["mscale_all_dim"],
    }


def deepseek(name: str, array: np.ndarray, config: Config) -> Iterator[tuple[str, np.ndarray]]:
    if name.endswith("kv_b_proj.weight"):
        both = array.reshape(config["num_attention_heads"], -1, array.shape[-1])
        keys, values = np.split(both, [config["qk_nope_head_dim"]], axis=1)
        yield name.replace("kv_b_proj", "k_b_proj"), keys.swapaxes(1, 2)
        yield name.replace("kv_b_proj", "v_b_proj"), values
    else:
        yield name.replace("e_score_correction_bias", "e_score_correction.bias"), array


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


def nemotron_h(name: str, array: np.ndarray, config: Config) -> Iterator[tuple[str, np.ndarray]]:
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


def falcon_h1(name: str, array: np.ndarray, config: Config) -> Iterator[tuple[str, np.ndarray]]:
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


def rwkv7(name: str, array: np.ndarray, config: Config) -> Iterator[tuple[str, np.ndarray]]:
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


CONVERSIONS = {
    "llama": Conversion(MODEL_ARCH.LLAMA, llama_keys, llama, llama3_factors),
    "mistral": Conversion(MODEL_ARCH.LLAMA, llama_keys, llama, llama3_factors),
    "mixtral": Conversion(MODEL_ARCH.LLAMA, mixtral_keys, mixtral, llama3_factors),
    "qwen2": Conversion(MODEL_ARCH.QWEN2, usual, same),
    "qwen3": Conversion(MODEL_ARCH.QWEN3, usual, same),
    "qwen3_moe": Conversion(MODEL_ARCH.QWEN3MOE, qwen3_moe_keys, fused_experts),
    "qwen2_moe": Conversion(MODEL_ARCH.QWEN2MOE, qwen2_moe_keys, fused_experts),
    "gemma": Conversion(MODEL_ARCH.GEMMA, usual, plus_one),
    "gemma2": Conversion(MODEL_ARCH.GEMMA2, gemma2_keys, plus_one),
    "gemma3_text": Conversion(MODEL_ARCH.GEMMA3, gemma3_keys, plus_one),
    "phi3": Conversion(MODEL_ARCH.PHI3, phi3_keys, same, phi3_factors),
    "mamba": Conversion(MODEL_ARCH.MAMBA, mamba_keys, mamba),
    "falcon_mamba": Conversion(MODEL_ARCH.MAMBA, mamba_keys, mamba),
    "mamba2": Conversion(MODEL_ARCH.MAMBA2, mamba2_keys, mamba2),
    "granite": Conversion(MODEL_ARCH.GRANITE, granite_keys, llama),
    "granitemoe": Conversion(MODEL_ARCH.GRANITE_MOE, granitemoe_keys, granitemoe),
    "granitemoeshared": Conversion(MODEL_ARCH.GRANITE_MOE, granitemoe_keys, granitemoe),
    "granitemoehybrid": Conversion(MODEL_ARCH.GRANITE_HYBRID, granitehybrid_keys, granitehybrid),
    "granitemoehybrid_dense": Conversion(MODEL_ARCH.GRANITE_HYBRID, granitehybrid_keys, granitehybrid),
    "lfm2": Conversion(MODEL_ARCH.LFM2, lfm2_keys, lfm2),
    "gpt_oss": Conversion(MODEL_ARCH.GPT_OSS, gpt_oss_keys, gpt_oss),
    "deepseek_v3": Conversion(MODEL_ARCH.DEEPSEEK2, deepseek_keys, deepseek),
    "nemotron_h_published": Conversion(MODEL_ARCH.NEMOTRON_H_MOE, nemotron_h_keys, nemotron_h),
    "falcon_h1": Conversion(MODEL_ARCH.FALCON_H1, falcon_h1_keys, falcon_h1),
    "rwkv7": Conversion(MODEL_ARCH.RWKV7, rwkv7_keys, rwkv7, rwkv7_shares),
}
#: What llama.cpp has no key for, so that the converter loses it: here the fixtures differ from published models.
LOST = {
    "qwen3_moe": ["dims.decoder_sparse_step=2", "dims.mlp_only_layers=[3]"],
    "qwen2_moe": ["dims.mlp_only_layers=[1]"],
    "gemma2": ["dims.query_pre_attn_scalar=24", "dims.rope_theta=7000.0"],
    "gemma3_text": [
        "dims.query_pre_attn_scalar=24", "dims.sliding_window_pattern=3", "dims.rope_local_base_freq=5000.0",
    ],
    "phi3": ["dims.rope_scaling.max_position_embeddings=64"],
    "falcon_mamba": ["dims.mixer_rms_eps=0.001"],
    "mamba2": ["dims.time_step_limit=[0.002, 0.2]"],
    "granitemoehybrid": ["dims.attention_bias=true"],
    "lfm2": ["dims.conv_bias=true"],
    "gpt_oss": ["dims.swiglu_limit=2.0"],
    "deepseek_v3": ["dims.attention_bias=true", "dims.rope_scaling.mscale=0.7"],
    "nemotron_h_published": ["dims.time_step_limit=[0.001, null]"],
}  # fmt: skip
