"""Checkpoints that no family reads: which is nearest, what it lacks, and the draft of a family file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
import yaml

from axon_compose import load
from axon_compose.checkpoints.draft import draft_text
from axon_compose.checkpoints.likeness import Likeness, likenesses
from axon_compose.registry import Registry
from tests.families.models import FIXTURES, SETTINGS, copied, difference, expected

#: One of each kind of structure.
NAMES = [
    "cohere2",
    "deepseek_v3",
    "falcon_h1",
    "gemma3_text",
    "gpt2",
    "llama",
    "mamba2",
    "mistral",
    "qwen3_moe",
    "rwkv7",
]


def renamed(name: str, folder: Path, more: dict[str, Any] | None = None) -> Path:
    """A fixture whose model type nobody knows."""
    copied(name, folder)
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "quill"} | (more or {})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def nearest(folder: Path) -> list[Likeness]:
    return likenesses(folder, Registry.installed())


@pytest.mark.parametrize("name", NAMES)
def test_a_family_under_another_name_is_nearest_to_itself(name: str, tmp_path: Path) -> None:
    found = nearest(renamed(name, tmp_path / "c"))
    assert {"mistral": "llama"}.get(name, name) in [
        one.family.name for one in found if one.differences == 0
    ]  # an heir of a family may read it too
    assert found[0].differences == 0
    assert any(one.differences for one in found)


@pytest.mark.parametrize("name", ["llama", "qwen3_moe", "mamba2"])
def test_a_draft_without_anything_to_decide_is_the_model(name: str, tmp_path: Path) -> None:
    folder = renamed(name, tmp_path / "c")
    (tmp_path / "quill.yaml").write_text(draft_text(folder, nearest(folder)[0]))
    found = load(tmp_path / "quill.yaml", checkpoint=folder, settings=SETTINGS.get(name, []))
    tokens, logits = expected(name)
    assert difference(found.build(weights=folder)(tokens), logits) < 2e-5


def test_what_differs_is_named_once_for_all_layers(tmp_path: Path) -> None:
    folder = renamed("olmo2", tmp_path / "c", {"quill_scale": 0.5, "rope_interleaved": True})
    (found,) = likenesses(folder, Registry.installed(), "llama")
    assert found.unknown == ("quill_scale",)
    assert found.unsupported == ("rope_interleaved",)
    assert "model.layers.<l>.self_attn.q_norm.weight" in found.unexpected
    assert found.missing == ("layers.<l>.attn_norm.weight",)
    assert found.misshaped == ()


def test_a_draft_says_what_is_to_be_decided(tmp_path: Path) -> None:
    folder = renamed("olmo2", tmp_path / "c", {"quill_scale": 0.5, "rope_interleaved": True})
    text = draft_text(folder, likenesses(folder, Registry.installed(), "llama")[0])
    (tmp_path / "draft.yaml").write_text(text)
    found = load(tmp_path / "draft.yaml", checkpoint=folder)
    assert found.document.dims["quill_scale"] == 0.5
    assert [d.message for d in load(tmp_path / "draft.yaml").lint() if d.code == "AX702"] == [
        "no formula uses the dim `quill_scale`"
    ]
    assert "rope_interleaved: true" in text
    assert (
        "#   model.layers.<l>.self_attn.q_norm.weight [48]  (norms of queries and keys: `qk_norm` of attention)" in text
    )


def test_a_component_that_nothing_fills_differs_once(tmp_path: Path) -> None:
    """However many matrices it has: the base is the plainest family that has the rest."""
    folder = renamed("llama", tmp_path / "c")
    weights = mx.load(str(folder / "model.safetensors"))
    kept = {name.replace(".mlp.", ".experts."): array for name, array in weights.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), kept, {"format": "pt"})
    first = nearest(folder)[0]
    assert first.family.name == "llama"
    assert len(first.missing) == 6  # matrices and biases
    assert first.differences == len(first.unexpected) + 1
    assert "experts.gate_proj.weight [72, 48]  (experts: `moe`;" in draft_text(folder, first)


def test_config_json_alone_is_enough(tmp_path: Path) -> None:
    folder = renamed("qwen3_moe", tmp_path / "c")
    (folder / "model.safetensors").unlink()
    first = nearest(folder)[0]
    assert (first.family.name, first.differences) == ("qwen3_moe", 0)


def test_a_folder_of_the_hub_cache_is_its_snapshot(tmp_path: Path) -> None:
    cache = tmp_path / "models--acme--quill"
    for commit in ("b" * 40, "a" * 40):
        (cache / "snapshots").mkdir(parents=True, exist_ok=True)
        copied("llama" if commit[0] == "b" else "qwen3", cache / "snapshots" / commit)
    assert load(checkpoint=cache).name == "qwen3"  # the last that was fetched
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("b" * 40)
    assert load(checkpoint=cache).name == "llama"
    assert load(checkpoint=FIXTURES / "llama").name == "llama"


def test_a_draft_holds_names_of_one_line(tmp_path: Path) -> None:
    """What a config.json calls its type ends no comment."""
    model_type = "quill\nstack: [other]"
    folder = renamed("qwen3", tmp_path / "c", {"model_type": model_type})
    data = yaml.safe_load(draft_text(folder, nearest(folder)[0]))
    assert data.keys() == {"version", "name", "extends", "dims", "huggingface"}
    assert data["huggingface"]["model_types"] == [model_type]
