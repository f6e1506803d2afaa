"""Writing GGUF files with the package `gguf`, and what its converters do for every architecture."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize

from tests.families.models import FIXTURES

Arrays = dict[str, np.ndarray]
Config = dict[str, Any]
Changed = Iterator[tuple[str, np.ndarray]]

#: Fields of config.json for the epsilon of norms that subtract the mean.
_LAYER_NORM_EPS = ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")
#: Types of values in the metadata.
_FLOATS = ("epsilon", "freq_base", "factor", "softcapping", "scale", "beta", "multiplier", "clamp")


class Conversion(NamedTuple):
    """How one fixture becomes a GGUF file: its architecture there, its keys, and what happens to a tensor."""

    architecture: MODEL_ARCH
    keys: Callable[[Config], dict[str, Any]]
    change: Callable[[str, np.ndarray, Config], Changed]
    extra: Callable[[Config], Arrays] = lambda config: {}


def fixture(name: str) -> Arrays:
    """The tensors of a fixture in float32."""
    files = sorted((FIXTURES / name).glob("model*.safetensors"))
    arrays = {key: value for file in files for key, value in mx.load(str(file)).items()}
    return {key: np.array(value.astype(mx.float32)) for key, value in arrays.items()}


def stacked(arrays: Arrays) -> Changed:
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
        "attention.layer_norm_epsilon": next((config[key] for key in _LAYER_NORM_EPS if config.get(key)), None),
        "rope.freq_base": rope.get("rope_theta") or config.get("rope_theta"),
        "attention.key_length": config.get("head_dim"),
        "attention.value_length": config.get("head_dim"),
    }
    if rope.get("rope_type") == "yarn":
        found |= {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": rope["factor"],
            "rope.scaling.original_context_length": rope["original_max_position_embeddings"],
            "rope.scaling.yarn_beta_fast": rope["beta_fast"],
            "rope.scaling.yarn_beta_slow": rope["beta_slow"],
        }
    if rope.get("rope_type") == "linear":
        found |= {"rope.scaling.type": "linear", "rope.scaling.factor": rope["factor"]}
    return {key: value for key, value in found.items() if value is not None}


def same(name: str, array: np.ndarray, config: Config) -> Changed:
    yield name, array


def pairs(array: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from halves to pairs, `LlamaModel.permute`."""
    return array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
