"""Experts in one tensor, as transformers 5 holds them in memory and some writers store them, beside one per expert."""

from __future__ import annotations

import re
from pathlib import Path
from shutil import copytree
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from axon_compose import load
from axon_compose.checkpoints.export import export
from axon_compose.checkpoints.files import read_header
from axon_compose.checkpoints.folder import write_model
from tests.families.models import FIXTURES

#: Family to the place of experts, the names of their gate, up and down projections, and the place of the fused ones.
PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
EXPERTS = dict.fromkeys(("qwen2_moe", "qwen3_moe", "qwen3_next", "deepseek_v3"), ("mlp", *PROJECTIONS, "mlp"))
EXPERTS["mixtral"] = ("block_sparse_moe", "w1", "w3", "w2", "mlp")
EXPERTS["jamba"] = ("feed_forward", *PROJECTIONS, "feed_forward")
TOKENS = mx.array([[1, 5, 9, 2, 7, 3]])


def fused(path: Path, family: str) -> Path:
    """A fixture with its experts as transformers 5.24 has them: (E, 2I, H), gate before up, and (E, H, I)."""
    copytree(FIXTURES / family, path)
    weights: Any = mx.load(str(path / "model.safetensors"))
    before_fused, gate, up, down, place = EXPERTS[family]
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for name in list(weights):
        for role, pattern in (("gate", gate), ("up", up), ("down", down)):
            match = re.fullmatch(rf"(.*\.){before_fused}\.experts\.([0-9]+)\.{pattern}\.weight", name)
            if match:
                found.setdefault(match[1], {}).setdefault(int(match[2]), {})[role] = weights.pop(name)
    for before, experts in found.items():
        order = [experts[number] for number in range(len(experts))]
        both = [mx.concatenate([expert["gate"], expert["up"]]) for expert in order]
        weights[f"{before}{place}.experts.gate_up_proj"] = mx.stack(both)
        weights[f"{before}{place}.experts.down_proj"] = mx.stack([expert["down"] for expert in order])
    if family == "mixtral":
        for name in [name for name in weights if ".block_sparse_moe." in name]:
            weights[name.replace(".block_sparse_moe.", ".mlp.")] = weights.pop(name)
    assert found
    mx.save_safetensors(str(path / "model.safetensors"), weights, {"format": "pt"})
    return path


@pytest.mark.parametrize("family", EXPERTS)
def test_both_forms_are_one_model(family: str, tmp_path: Path) -> None:
    folder = fused(tmp_path / "fused", family)
    expected = load(checkpoint=FIXTURES / family).build(weights=FIXTURES / family)(TOKENS)
    found = load(checkpoint=folder).build(weights=folder)(TOKENS)
    assert np.array_equal(np.array(found), np.array(expected))


@pytest.mark.parametrize("family", EXPERTS)
@pytest.mark.parametrize("form", ["fused", "one by one"])
def test_an_export_has_the_form_that_came(form: str, family: str, tmp_path: Path) -> None:
    folder = fused(tmp_path / "fused", family) if form == "fused" else FIXTURES / family
    write_model(load(checkpoint=folder), tmp_path / "built", weights=folder, tokenizer="none")
    export(tmp_path / "built", tmp_path / "out", "huggingface")
    names = [set(read_header(place / "model.safetensors")) for place in (folder, tmp_path / "out")]
    dropped = set(load(checkpoint=folder).load_plan(folder).dropped)
    assert names[1] == names[0] - dropped


@pytest.mark.parametrize("family", EXPERTS)
def test_without_a_checkpoint_an_export_has_one_tensor_per_expert(family: str, tmp_path: Path) -> None:
    write_model(load(load(checkpoint=FIXTURES / family).data), tmp_path / "built", tokenizer="none")
    export(tmp_path / "built", tmp_path / "out", "huggingface")
    assert not any("gate_up_proj" in name for name in read_header(tmp_path / "out" / "model.safetensors"))


def test_hunyuan_has_fused_projections_too(tmp_path: Path) -> None:
    """Queries, keys and values by key heads; the up before the gate projection, also of each expert."""
    folder = Path(copytree(FIXTURES / "hunyuan", tmp_path / "fused"))
    weights: Any = mx.load(str(folder / "model.safetensors"))
    for name in [name for name in weights if re.search(r"layers\.[03]\.self_attn\.q_proj", name)]:
        parts = [weights.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        heads = [part.reshape(2, part.shape[0] // 24, 12, *part.shape[1:]) for part in parts]
        joined = mx.concatenate(heads, axis=1).flatten(0, 2)
        weights[name.replace("q_proj", "qkv_proj")] = joined
    for name in [name for name in weights if name.endswith("up_proj.weight")]:
        both = [weights.pop(name), weights.pop(name.replace("up_proj", "gate_proj"))]
        weights[name.replace("up_proj", "gate_and_up_proj")] = mx.concatenate(both)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "pt"})
    expected = load(checkpoint=FIXTURES / "hunyuan").build(weights=FIXTURES / "hunyuan")(TOKENS)
    assert np.array_equal(np.array(load(checkpoint=folder).build(weights=folder)(TOKENS)), np.array(expected))
