"""Whole models: published checkpoints there and back, and experts that come quantised one by one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

import axon_compose
from axon_compose.checkpoints.files import tensor_specs
from axon_compose.checkpoints.weights import load_checkpoint, plan_load, plan_save, read_checkpoint, save_checkpoint
from axon_compose.checkpoints.weights._plan_save import name_kind

FIXTURES = Path(__file__).parents[2] / "families" / "fixtures"
FAMILIES = {path.stem for path in (Path(__file__).parents[3] / "architectures").glob("*.yaml")}
#: Those of wrappers have their names under prefixes, which are read in `test_wrappers.py`.
READ = sorted(
    path.name
    for path in FIXTURES.iterdir()
    if path.name in FAMILIES and '"text_config"' not in (path / "config.json").read_text()
)


def load(architecture: axon_compose.Architecture, folder: Path) -> dict[str, mx.array]:
    section = architecture.document.huggingface
    assert section is not None
    checkpoint = read_checkpoint(folder)
    plan, dims = architecture.plan(), architecture.document.dims
    model = architecture.build()
    load_checkpoint(model, plan_load(plan, section, dims, checkpoint.tensors, checkpoint.layout))
    return dict(tree_flatten(model.parameters()))


def save(
    architecture: axon_compose.Architecture,
    arrays: dict[str, mx.array],
    folder: Path,
    layout: str,
    names: Iterable[str] = (),
) -> None:
    section = architecture.document.huggingface
    assert section is not None
    plan, dims = architecture.plan(), architecture.document.dims
    folder.mkdir()
    known = [name_kind(name) for name in names]
    save_plan = plan_save(plan, section, dims, tensor_specs(arrays), layout, known=known)  # type: ignore[arg-type]
    save_checkpoint(folder, save_plan, dict(arrays))


@pytest.mark.parametrize("name", READ)
def test_a_published_checkpoint_there_and_back(name: str, tmp_path: Path) -> None:
    """The same names and bytes in the layout of Hugging Face, the same weights through that of MLX."""
    architecture = axon_compose.load(checkpoint=FIXTURES / name)
    section = architecture.document.huggingface
    assert section is not None
    arrays = load(architecture, FIXTURES / name)
    before: Any = mx.load(str(FIXTURES / name / "model.safetensors"))
    save(architecture, arrays, tmp_path / "huggingface", "huggingface", before)
    after: Any = mx.load(str(tmp_path / "huggingface" / "model.safetensors"))
    for tensor, value in after.items():
        assert value.dtype == before[tensor].dtype
        rule = section.weights.get(tensor)
        if rule is not None and rule.unit_rows:  # what the published code makes of them comes back
            unit = before[tensor] / mx.linalg.norm(before[tensor], axis=1, keepdims=True)
            np.testing.assert_allclose(np.array(value), np.array(unit), rtol=1e-6, err_msg=tensor)
        else:
            np.testing.assert_array_equal(np.array(value), np.array(before[tensor]), err_msg=tensor)
    save(architecture, arrays, tmp_path / "mlx", "mlx")
    again = load(architecture, tmp_path / "mlx")
    assert again.keys() == arrays.keys()
    for parameter, value in arrays.items():
        np.testing.assert_allclose(np.array(again[parameter]), np.array(value), rtol=1e-6, atol=1e-6, err_msg=parameter)


def test_there_are_published_checkpoints() -> None:
    assert len(READ) >= 10


RULES = {
    "model.embed_tokens": "embedding.embed_tokens",
    "model.layers.<l>": "layers.<l>",
    "model.layers.<l>.mlp.experts.<e>": {"to": "layers.<l>.moe.switch_mlp", "stack": "e"},
    "model.norm": "norm",
}
EXPERTS = {
    "version": 1,
    "dims": {"hidden_size": 64, "vocab_size": 96},
    "components": {
        "attn": {"type": "attention", "num_heads": 2},
        "moe": {"type": "moe", "num_experts": 11, "top_k": 2, "intermediate_size": 32},
    },
    "blocks": {"layer": ["attn", "moe"]},
    "stack": "layer*2",
    "huggingface": {"model_types": ["case"], "weights": RULES},
}


def test_experts_that_were_quantised_one_by_one(tmp_path: Path) -> None:
    architecture = axon_compose.load(EXPERTS)
    model = architecture.build(seed=3)
    nn.quantize(model, 32, 4, class_predicate=lambda path, m: hasattr(m, "to_quantized") and "norm" not in path)
    arrays = dict(tree_flatten(model.parameters()))
    save(architecture, arrays, tmp_path / "one", "huggingface")
    names = set(mx.load(str(tmp_path / "one" / "model.safetensors")))
    assert "model.layers.1.mlp.experts.10.up_proj.scales" in names
    again = load(architecture, tmp_path / "one")
    assert again.keys() == arrays.keys()
    for name, value in arrays.items():
        assert again[name].dtype == value.dtype
        np.testing.assert_array_equal(np.array(again[name]), np.array(value), err_msg=name)
