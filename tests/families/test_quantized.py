"""What `mlx_lm.convert -q` writes is read as it is: packed weights, also where a rule divides, joins or stacks them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import granitemoehybrid, qwen3_moe
from mlx_lm.utils import load_model, quantize_model, save_config, save_model

from axon_compose import load
from axon_compose.checkpoints.folder import write_model
from tests.families.models import difference

QWEN3_MOE = {
    "model_type": "qwen3_moe", "hidden_size": 128, "num_hidden_layers": 3, "intermediate_size": 192, "head_dim": 32,
    "num_attention_heads": 4, "num_key_value_heads": 2, "num_experts": 6, "num_experts_per_tok": 2,
    "decoder_sparse_step": 1, "mlp_only_layers": [1], "moe_intermediate_size": 64, "rms_norm_eps": 1e-5,
    "vocab_size": 256, "rope_theta": 5000.0, "tie_word_embeddings": False, "max_position_embeddings": 512,
    "norm_topk_prob": True,
}  # fmt: skip
#: One group of Mamba-2: mlx-lm's gated norm takes all channels together, whatever the number of groups.
GRANITE = {
    "model_type": "granitemoehybrid", "hidden_size": 128, "vocab_size": 256, "intermediate_size": 64,
    "num_hidden_layers": 4, "layer_types": ["mamba", "attention", "mamba", "mamba"], "num_attention_heads": 4,
    "num_key_value_heads": 2, "attention_bias": False, "max_position_embeddings": 512, "embedding_multiplier": 3.0,
    "attention_multiplier": 0.2, "logits_scaling": 2.0, "residual_multiplier": 0.5, "rms_norm_eps": 1e-5,
    "num_local_experts": 6, "num_experts_per_tok": 2, "shared_intermediate_size": 64, "mamba_n_heads": 8,
    "mamba_d_head": 32, "mamba_proj_bias": False, "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_n_groups": 1,
    "mamba_conv_bias": True, "position_embedding_type": "rope", "tie_word_embeddings": True, "rope_theta": 9000.0,
    "time_step_limit": [0.0, 50.0],
}  # fmt: skip
DENSE = GRANITE | {
    "num_local_experts": 0, "num_experts_per_tok": 0, "intermediate_size": 192, "shared_intermediate_size": 192,
    "position_embedding_type": "nope",
}  # fmt: skip


def converted(kind: Any, config: dict[str, Any], folder: Path, **how: Any) -> tuple[mx.array, np.ndarray]:
    """A folder as `mlx_lm.convert -q` writes it, tokens, and what mlx-lm's quantised model gives for them."""
    mx.random.seed(3)
    model = kind.Model(kind.ModelArgs.from_dict(copy.deepcopy(config)))
    spread = [(key, value + 0.3 * mx.random.normal(value.shape)) if value.ndim == 1 else (key, value)
              for key, value in tree_flatten(model.parameters())]  # fmt: skip
    model.load_weights(spread)
    model, written = quantize_model(model, copy.deepcopy(config), **how)
    folder.mkdir()
    save_model(folder, model)
    save_config(written, folder / "config.json")
    tokens = mx.array(np.random.default_rng(4).integers(0, config["vocab_size"], (2, 24)))
    return tokens, np.array(model(tokens))


def read(folder: Path, *settings: str) -> Any:
    return load(checkpoint=folder, settings=settings).build(weights=folder)


def packed(model: nn.Module) -> dict[str, tuple[int, int, str]]:
    """Paths of quantised modules: bits, group size and mode."""
    return {path: (m.bits, m.group_size, m.mode) for path, m in model.named_modules() if hasattr(m, "bits")}


@pytest.mark.parametrize(("bits", "group_size"), [(4, 64), (4, 32), (8, 64), (1, 64), (1, 32)])
def test_qwen3_moe(bits: int, group_size: int, tmp_path: Path) -> None:
    tokens, logits = converted(qwen3_moe, QWEN3_MOE, tmp_path / "q", group_size=group_size, bits=bits)
    model = read(tmp_path / "q")
    assert difference(model(tokens), logits) < 1e-5
    found = packed(model)
    assert found["layers.0.moe.switch_mlp.up_proj"] == (bits, group_size, "affine")
    assert found["layers.1.mlp.down_proj"] == (bits, group_size, "affine")
    assert found["layers.2.attn.q_proj"] == (bits, group_size, "affine")
    assert found["embedding.embed_tokens"] == (bits, group_size, "affine")
    assert found["layers.0.moe.gate"] == (8, 64, "affine")  # mlx-lm keeps what chooses experts finer than the rest


@pytest.mark.parametrize(("bits", "group_size", "mode"), [(4, 32, "mxfp4"), (8, 32, "mxfp8"), (4, 16, "nvfp4")])
def test_formats_without_biases(bits: int, group_size: int, mode: str, tmp_path: Path) -> None:
    def all_but_embedding(path: str, module: nn.Module) -> bool:
        return hasattr(module, "to_quantized") and "embed" not in path  # it would make everything bfloat16

    how = {"group_size": group_size, "bits": bits, "mode": mode, "quant_predicate": all_but_embedding}
    tokens, logits = converted(qwen3_moe, QWEN3_MOE, tmp_path / "q", **how)
    model = read(tmp_path / "q")
    assert difference(model(tokens), logits) < 1e-5
    assert packed(model)["layers.0.moe.switch_mlp.up_proj"] == (bits, group_size, mode)


def test_experts_one_by_one(tmp_path: Path) -> None:
    """Packed tensors of each expert, as converters write them that do not stack; mlx-lm stacks them when it loads."""
    tokens, logits = converted(qwen3_moe, QWEN3_MOE, tmp_path / "q", group_size=32, bits=4)
    path = tmp_path / "q" / "model.safetensors"
    weights: dict[str, mx.array] = {}
    for name, value in mx.load(str(path)).items():
        before, found, after = name.partition(".switch_mlp.")
        each = {f"{before}.experts.{e}.{after}": value[e] for e in range(len(value))} if found else {name: value}
        weights.update(each)
    assert sum(".experts." in name for name in weights) == 2 * 6 * 3 * 3  # layers, experts, matrices, members of one
    mx.save_safetensors(str(path), weights, metadata={"format": "mlx"})
    (tmp_path / "q" / "model.safetensors.index.json").unlink()
    model = read(tmp_path / "q")
    assert difference(model(tokens), logits) < 1e-5
    assert packed(model)["layers.0.moe.switch_mlp.down_proj"] == (4, 32, "affine")


@pytest.mark.parametrize("config", [GRANITE, DENSE], ids=["experts", "dense"])
@pytest.mark.parametrize(("bits", "group_size"), [(4, 64), (6, 32)])
def test_granite(config: dict[str, Any], bits: int, group_size: int, tmp_path: Path) -> None:
    tokens, logits = converted(granitemoehybrid, config, tmp_path / "q", group_size=group_size, bits=bits)
    model = read(tmp_path / "q")
    assert difference(model(tokens), logits) < 1e-5
    found = packed(model)
    assert found["layers.0.mamba.in_proj"] == (bits, group_size, "affine")
    # One matrix of theirs, two of ours: divided between rows, so that every group stays whole.
    part = "moe.shared_expert" if config is GRANITE else "mlp"
    assert found[f"layers.0.{part}.gate_proj"] == found[f"layers.0.{part}.up_proj"] == (bits, group_size, "affine")


def test_granite_with_groups_as_mlx_lm_normalises(tmp_path: Path) -> None:
    """mlx-lm's gated norm is one over all groups; published models have one for each, which is what is read."""
    tokens, logits = converted(granitemoehybrid, GRANITE | {"mamba_n_groups": 2}, tmp_path / "q", group_size=64, bits=4)
    assert difference(read(tmp_path / "q", "components.mamba.norm_groups=1")(tokens), logits) < 1e-5
    assert difference(read(tmp_path / "q")(tokens), logits) > 1e-2


def test_some_modules_are_left_as_they_are(tmp_path: Path) -> None:
    def only_experts(path: str, module: nn.Module) -> bool | dict[str, Any]:
        if not hasattr(module, "to_quantized") or "switch_mlp" not in path:
            return False
        return {"group_size": 32, "bits": 3} if path.endswith("down_proj") else True

    tokens, logits = converted(
        qwen3_moe, QWEN3_MOE, tmp_path / "q", group_size=64, bits=4, quant_predicate=only_experts
    )
    model = read(tmp_path / "q")
    assert difference(model(tokens), logits) < 1e-5
    found = packed(model)
    assert len(found) == 2 * 3
    assert found["layers.2.moe.switch_mlp.down_proj"] == (3, 32, "affine")
    assert json.loads((tmp_path / "q" / "config.json").read_text())["quantization"]["bits"] == 4


def test_a_built_folder_lists_modules_that_differ(tmp_path: Path) -> None:
    """What `mlx_lm` reads of a folder built from modules of several widths is the model that they came from."""

    def mixed(path: str, module: nn.Module) -> bool | dict[str, Any]:
        if not hasattr(module, "to_quantized"):
            return False
        return {"group_size": 32, "bits": 6} if path.endswith("down_proj") else "gate" not in path.split(".")

    config = QWEN3_MOE | {"vocab_size": 320}  # room for the 259 tokens of bytes
    source, target = tmp_path / "q", tmp_path / "built"
    tokens, logits = converted(qwen3_moe, config, source, group_size=64, bits=4, quant_predicate=mixed)
    write_model(load(checkpoint=source), target, weights=source, tokenizer="bytes")
    written = json.loads((target / "config.json").read_text())["quantization"]
    assert (written["bits"], written["group_size"]) == (4, 64)
    different = {path: how["bits"] for path, how in written.items() if isinstance(how, dict)}
    moe, dense = "mlp.switch_mlp.down_proj", "mlp.down_proj"
    assert different == {f"model.layers.{place}": 6 for place in (f"0.{moe}", f"1.{dense}", f"2.{moe}")}
    model, _ = load_model(target, trust_remote_code=True)
    assert {model.plan_name(path): how for path, how in packed(model).items()} == packed(read(source))
    assert difference(model(tokens), logits) < 1e-5
