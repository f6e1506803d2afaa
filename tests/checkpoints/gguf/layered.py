"""How llama.cpp converts older families, whose norms have means: keys of the metadata, and what happens to a tensor.

Source: llama.cpp, `conversion/falcon.py`, `stablelm.py`, `bloom.py`, `mpt.py` and `starcoder.py`. The first two do not
write the base of rotary positions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.checkpoints.gguf.writing import Arrays, Changed, Config, fixture, usual


def falcon_keys(config: Config) -> dict[str, Any]:
    return _without_rope(config) | {
        "tensor_data_layout": "jploski",
        "feed_forward_length": 4 * config["hidden_size"],
        "attention.head_count_kv": _falcon_heads(config),
    }


def falcon(name: str, array: np.ndarray, config: Config) -> Changed:
    """Queries, keys and values one after the other instead of by group."""
    if ".query_key_value." in name:
        groups = _falcon_heads(config)
        size = config["hidden_size"] // config["num_attention_heads"]
        heads = array.reshape(groups, -1, size, *array.shape[1:])
        parts = heads[:, :-2], heads[:, -2:-1], heads[:, -1:]
        array = np.concatenate([part.reshape(-1, *array.shape[1:]) for part in parts])
    yield name, array


def stablelm_keys(config: Config) -> dict[str, Any]:
    """The block is called parallel where `config.json` does not say, as with the first models."""
    size = config["hidden_size"] // config["num_attention_heads"]
    turned = int(config["rope_parameters"]["partial_rotary_factor"] * size)
    return _without_rope(config) | {"rope.dimension_count": turned, "use_parallel_residual": True}


def stablelm(name: str, array: np.ndarray, config: Config) -> Changed:
    if "_layernorm.norms." not in name:
        yield name, array


def stablelm_norms(config: Config) -> Arrays:
    """The norms of the heads in one tensor."""
    if not config["qk_layernorm"]:
        return {}
    tensors = fixture("stablelm")
    counts = {"q": config["num_attention_heads"], "k": config["num_key_value_heads"]}
    return {
        f"blk.{layer}.attn_{kind}_norm.weight": np.stack(
            [tensors[f"model.layers.{layer}.self_attn.{kind}_layernorm.norms.{head}.weight"] for head in range(count)]
        )
        for layer in range(config["num_hidden_layers"])
        for kind, count in counts.items()
    }


def bloom_keys(config: Config) -> dict[str, Any]:
    return _layers(config["hidden_size"], config["n_layer"], config["n_head"], config["layer_norm_epsilon"]) | {
        "attention.head_count_kv": config["n_head"]
    }


def bloom(name: str, array: np.ndarray, config: Config) -> Changed:
    if ".query_key_value." in name:
        heads = array.reshape(config["n_head"], 3, -1, *array.shape[1:])
        array = heads.swapaxes(0, 1).reshape(array.shape)
    yield name.removeprefix("transformer."), array


def mpt_keys(config: Config) -> dict[str, Any]:
    attention = config["attn_config"]
    return _layers(config["d_model"], config["n_layers"], config["n_heads"], 1e-5) | {
        "attention.clamp_kqv": attention["clip_qkv"],
        "attention.max_alibi_bias": float(attention["alibi_bias_max"]),
    }


def starcoder_keys(config: Config) -> dict[str, Any]:
    return _layers(config["n_embd"], config["n_layer"], config["n_head"], config["layer_norm_epsilon"]) | {
        "attention.head_count_kv": 1
    }


def _layers(width: int, layers: int, heads: int, eps: float) -> dict[str, Any]:
    return {
        "embedding_length": width,
        "feed_forward_length": 4 * width,
        "block_count": layers,
        "attention.head_count": heads,
        "attention.layer_norm_epsilon": eps,
    }


def _without_rope(config: Config) -> dict[str, Any]:
    return {key: value for key, value in usual(config).items() if not key.startswith("rope.")}


def _falcon_heads(config: Config) -> int:
    heads: int = config["num_kv_heads"] if config["new_decoder_architecture"] else 1
    return heads
