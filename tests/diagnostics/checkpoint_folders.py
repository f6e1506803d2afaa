"""Bad checkpoints, made small: a name to what makes the folder, the command, and what a person expects of it.

The folder is a fixture of `tests/families` with one thing wrong. What is expected was written before the golden texts.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

FIXTURES: Final = Path(__file__).parents[1] / "families" / "fixtures"
#: The folder's name in every message.
FOLDER: Final = "checkpoint"
_SIZES: Final = {"F64": 8, "F32": 4, "U32": 4, "F8_E4M3": 1, "BF16": 2}
Change = Callable[[dict[str, "Tensor"]], None]


class Tensor(NamedTuple):
    """One tensor of a file: its type as the format calls it, its shape, its bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


class Case(NamedTuple):
    """A bad checkpoint.

    Attributes:
        make: Writes the folder.
        code: The fault that has to be told.
        shown: Texts that the message has to have.
        command: Arguments before and after the folder: `build llama --weights FOLDER` unless given.
        exit: 1 for what is wrong with a model and a description, 2 for files that cannot be read.
    """

    make: Callable[[Path], None]
    code: str
    shown: tuple[str, ...]
    command: tuple[str, ...] = ("build", "llama", "--dry-run", "--weights", FOLDER)
    exit: int = 2


def zeros(dtype: str, *shape: int) -> Tensor:
    count = 1
    for extent in shape:
        count *= extent
    return Tensor(dtype, shape, bytes(count * _SIZES[dtype]))


def read(path: Path) -> dict[str, Tensor]:
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__", None)
    body = raw[8 + length :]
    return {
        name: Tensor(entry["dtype"], tuple(entry["shape"]), body[slice(*entry["data_offsets"])])
        for name, entry in header.items()
    }


def write(path: Path, tensors: Mapping[str, Tensor], mark: str | None = "pt") -> None:
    header: dict[str, Any] = {"__metadata__": {"format": mark}} if mark else {}
    at = 0
    for name, tensor in tensors.items():
        end = at + len(tensor.data)
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(tensor.data for tensor in tensors.values()))


def copied(name: str, folder: Path) -> Path:
    folder.mkdir()
    for file in ("config.json", "model.safetensors"):
        shutil.copy(FIXTURES / name / file, folder)
    return folder / "model.safetensors"


def tensors(change: Change, name: str = "llama", mark: str | None = "pt") -> Callable[[Path], None]:
    """A fixture with other tensors."""

    def make(folder: Path) -> None:
        path = copied(name, folder)
        found = read(path)
        change(found)
        write(path, found, mark)

    return make


def config(name: str = "llama", **fields: Any) -> Callable[[Path], None]:
    """A fixture with other fields in its configuration."""

    def make(folder: Path) -> None:
        copied(name, folder)
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields, indent=2))

    return make


def config_text(text: bytes) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        copied("llama", folder)
        (folder / "config.json").write_bytes(text)

    return make


# Files.


def truncated(folder: Path) -> None:
    path = copied("llama", folder)
    path.write_bytes(path.read_bytes()[:-100])


def cut_in_the_header(folder: Path) -> None:
    path = copied("llama", folder)
    path.write_bytes(path.read_bytes()[:100])


def empty_file(folder: Path) -> None:
    copied("llama", folder).write_bytes(b"")


def sharded(folder: Path, lost: int | None = None) -> None:
    """Two shards and their index."""
    path = copied("llama", folder)
    found = read(path)
    path.unlink()
    names = list(found)
    shards = {1: names[:20], 2: names[20:]}
    files = {number: f"model-0000{number}-of-00002.safetensors" for number in shards}
    for number, held in shards.items():
        if number != lost:
            write(folder / files[number], {name: found[name] for name in held})
    index = {"weight_map": {name: files[number] for number, held in shards.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def lost_shard(folder: Path) -> None:
    sharded(folder, lost=2)


def truncated_shard(folder: Path) -> None:
    sharded(folder)
    path = folder / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def index_that_leads_away(folder: Path) -> None:
    sharded(folder)
    index = {"weight_map": {"lm_head.weight": "../secret.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def index_that_is_a_list(folder: Path) -> None:
    sharded(folder)
    (folder / "model.safetensors.index.json").write_text("[]")


def pickled(folder: Path) -> None:
    copied("llama", folder).unlink()
    # Unpickled, it would make a file.
    (folder / "pytorch_model.bin").write_bytes(b"cbuiltins\nopen\n(Vowned\nVw\ntR.")


def no_weights(folder: Path) -> None:
    copied("llama", folder).unlink()


def no_config(folder: Path) -> None:
    copied("llama", folder)
    (folder / "config.json").unlink()


def nowhere(folder: Path) -> None:
    """Nothing at all."""


# Tensors.


def without_a_tensor(found: dict[str, Tensor]) -> None:
    del found["model.layers.1.self_attn.q_proj.weight"]


def without_an_expert(found: dict[str, Tensor]) -> None:
    del found["model.layers.1.mlp.experts.2.up_proj.weight"]


def with_another_shape(found: dict[str, Tensor]) -> None:
    found["model.norm.weight"] = zeros("F32", 47)


def with_one_more(found: dict[str, Tensor]) -> None:
    found["model.layers.0.self_attn.q_norm.weight"] = zeros("F32", 12)


def with_a_layer_more(found: dict[str, Tensor]) -> None:
    found["model.layers.9.mlp.up_proj.weight"] = zeros("F32", 72, 48)


def with_everything(found: dict[str, Tensor]) -> None:
    without_a_tensor(found)
    with_another_shape(found)
    with_one_more(found)


def in_float64(found: dict[str, Tensor]) -> None:
    found["model.norm.weight"] = zeros("F64", *found["model.norm.weight"].shape)


def fp8_without_scale(found: dict[str, Tensor]) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    found[name] = zeros("F8_E4M3", *found[name].shape)


def fp8_with_odd_scales(found: dict[str, Tensor]) -> None:
    fp8_without_scale(found)
    found["model.layers.0.mlp.up_proj.weight_scale_inv"] = zeros("F32", 5, 7)


def packed_oddly(found: dict[str, Tensor]) -> None:
    """4 bits in groups of 48: no format of MLX."""
    rows, columns = found["lm_head.weight"].shape
    found["lm_head.weight"] = zeros("U32", rows, columns // 8)
    found["lm_head.scales"] = found["lm_head.biases"] = zeros("F32", rows, 1)


def packed_without_biases(found: dict[str, Tensor]) -> None:
    rows, columns = found["lm_head.weight"].shape
    found["lm_head.weight"] = zeros("U32", rows, columns // 8)
    found["lm_head.scales"] = zeros("F32", rows, 1)


def as_it_is(found: dict[str, Tensor]) -> None:
    """Nothing is changed but the mark."""


def square(folder: Path) -> None:
    """DeepSeek without a mark, its heads as wide as the latent vector: moved or not, the shapes are the same."""
    sizes = {"qk_nope_head_dim": 16, "kv_lora_rank": 16}
    config("deepseek_v3", **sizes)(folder)
    path = folder / "model.safetensors"
    write(path, read(path), mark=None)


FAMILY: Final = ("import", FOLDER)
CASES: Final[dict[str, Case]] = {
    "truncated": Case(truncated, "AX511", ("model.safetensors", "truncated")),
    "cut_in_the_header": Case(cut_in_the_header, "AX511", ("model.safetensors", "truncated")),
    "empty_file": Case(empty_file, "AX511", ("model.safetensors", "0 bytes", "10")),
    "truncated_shard": Case(truncated_shard, "AX511", ("model-00002-of-00002.safetensors", "truncated")),
    "lost_shard": Case(lost_shard, "AX552", ("model-00002-of-00002.safetensors",)),
    "index_that_leads_away": Case(index_that_leads_away, "AX511", ("../secret.safetensors",)),
    "index_that_is_a_list": Case(index_that_is_a_list, "AX511", ("weight_map",)),
    "pickled": Case(pickled, "AX551", ("pytorch_model.bin", "pickle")),
    "no_weights": Case(no_weights, "AX551", (FOLDER, "safetensors")),
    "missing_tensor": Case(
        tensors(without_a_tensor),
        "AX553",
        ("1 missing", "layers.1.attn.q_proj.weight", "model.layers.1.self_attn.q_proj.weight"),
    ),
    "missing_expert": Case(
        tensors(without_an_expert, "qwen3_moe"),
        "AX553",
        ("1 missing", "model.layers.1.mlp.experts.2.up_proj.weight"),
        ("build", "qwen3_moe", "--dry-run", "--weights", FOLDER),
    ),
    "wrong_shape": Case(tensors(with_another_shape), "AX553", ("1 of the wrong shape", "norm.weight", "[47]", "[48]")),
    "unexpected_tensor": Case(
        tensors(with_one_more), "AX553", ("1 unexpected", "model.layers.0.self_attn.q_norm.weight")
    ),
    "a_layer_too_many": Case(tensors(with_a_layer_more), "AX553", ("1 unexpected", "model.layers.9.mlp.up_proj")),
    "several_at_once": Case(
        tensors(with_everything), "AX553", ("1 missing", "1 unexpected", "1 of the wrong shape"), exit=2
    ),
    "float64": Case(tensors(in_float64), "AX555", ("model.norm.weight", "F64")),
    "fp8_without_scale": Case(tensors(fp8_without_scale), "AX555", ("up_proj.weight", "up_proj.weight_scale_inv")),
    "fp8_with_odd_scales": Case(tensors(fp8_with_odd_scales), "AX555", ("weight_scale_inv", "[5, 7]", "[72, 48]")),
    "packed_in_odd_groups": Case(
        tensors(packed_oddly), "AX553", ("1 of the wrong shape", "lm_head.weight", "[96, 48]")
    ),
    "packed_without_biases": Case(tensors(packed_without_biases), "AX555", ("lm_head.weight", "not packed")),
    "no_mark": Case(
        tensors(as_it_is, "gpt_oss", mark=None),
        "AX554",
        ("--layout huggingface", "--layout mlx"),
        ("build", "gpt_oss", "--dry-run", "--weights", FOLDER),
    ),
    "no_rules": Case(
        tensors(as_it_is), "AX605", ("huggingface",), ("build", "bit-axon-small", "--dry-run", "--weights", FOLDER), 1
    ),
    "unknown_model_type": Case(config(model_type="quen3"), "AX606", ("`quen3`", "did you mean `qwen3`?"), FAMILY, 1),
    "strange_model_type": Case(config(model_type="whisper"), "AX606", ("`whisper`", "import --families"), FAMILY, 1),
    "no_model_type": Case(config_text(b"{}"), "AX606", ("no `model_type`",), FAMILY, 1),
    "another_model_type": Case(
        config(mamba_expand=2, model_type="jamba"), "AX602", ("mamba_expand", "is a `jamba`"), exit=1
    ),
    "unhandled_field": Case(config(rope_fraction=0.5), "AX602", ("`rope_fraction`", "huggingface.ignore"), FAMILY, 1),
    "unhandled_value": Case(
        config("qwen3_next", use_sliding_window=True), "AX603", ("use_sliding_window", "`true`", "`false`"), FAMILY, 1
    ),
    "unknown_rope_type": Case(
        config(rope_parameters=None, rope_scaling={"type": "spiral", "factor": 2.0}),
        "AX604",
        ("`spiral`", "yarn"),
        FAMILY,
        1,
    ),
    "unhandled_rope_field": Case(
        config(rope_parameters={"rope_type": "linear", "factor": 2.0, "twist": 3}), "AX602", ("twist",), FAMILY, 1
    ),
    "positions_twice": Case(
        config(
            rope_parameters={"rope_type": "default", "rope_theta": 5e5},
            rope_scaling={"rope_type": "linear", "factor": 2.0},
        ),
        "AX612",
        ("`rope_theta` would get lost", "the other one", "remove `rope_scaling`"),
        FAMILY,
        1,
    ),
    "a_rope_key_that_nobody_reads": Case(
        config(
            rope_parameters=None,
            rope_scaling={"rope_type": "yarn", "factor": 2.0, "attn_factor": 0.8, "attention_novelty": 3},
        ),
        "AX602",
        ("warning[AX613]: `rope_scaling.attn_factor` is not read", "`rope_scaling.attention_novelty`"),
        FAMILY,
        1,
    ),
    "a_field_that_is_a_formula": Case(config(hidden_size="=2 * 24"), "AX601", ("formula",), FAMILY, 1),
    "a_field_of_another_type": Case(config(hidden_size="wide"), "AX102", ("hidden_size",), FAMILY, 1),
    "a_size_of_zero": Case(config(num_key_value_heads=0), "AX102", ("num_kv_heads",), FAMILY, 1),
    "too_many_layers": Case(config(num_hidden_layers=10**9), "AX135", ("4,096",), FAMILY, 1),
    "no_config": Case(no_config, "AX601", ("checkpoint/config.json",), FAMILY, 1),
    "no_folder": Case(nowhere, "AX601", ("checkpoint/config.json",), FAMILY, 1),
    "config_is_cut_off": Case(config_text(b'{"model_type": "llama", "hidden'), "AX001", ("config.json",), FAMILY, 1),
    "config_is_a_list": Case(config_text(b'["llama"]'), "AX601", ("not a mapping",), FAMILY, 1),
    "config_is_binary": Case(config_text(b"\x93NUMPY"), "AX003", ("config.json",), FAMILY, 1),
    "config_is_empty": Case(config_text(b""), "AX006", ("config.json",), FAMILY, 1),
}
