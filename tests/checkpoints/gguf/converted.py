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
    count = config.get("num_hidden_layers") or config["n_layer"]
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


CONVERSIONS = {
    "llama": Conversion(MODEL_ARCH.LLAMA, llama_keys, llama, llama3_factors),
    "mistral": Conversion(MODEL_ARCH.LLAMA, llama_keys, llama, llama3_factors),
    "mixtral": Conversion(MODEL_ARCH.LLAMA, mixtral_keys, mixtral, llama3_factors),
}
