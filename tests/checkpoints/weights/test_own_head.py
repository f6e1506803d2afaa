"""Two different matrices are not tied, whatever config.json says; equal ones are."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from axon_compose import load
from axon_compose.checkpoints.export import KINDS, export
from axon_compose.checkpoints.files import CheckpointError
from axon_compose.checkpoints.folder import write_model
from axon_compose.proof.verify import verify

FIXTURES = Path(__file__).parents[2] / "families" / "fixtures"
#: Families with the names of their table and head in the files.
NAMES = {
    "llama": ("model.embed_tokens.weight", "lm_head.weight"),
    "qwen3": ("model.embed_tokens.weight", "lm_head.weight"),
    "gemma2": ("model.embed_tokens.weight", "lm_head.weight"),
    "lfm2": ("model.embed_tokens.weight", "lm_head.weight"),
    "falcon_h1": ("model.embed_tokens.weight", "lm_head.weight"),
    "qwen3_next": ("model.embed_tokens.weight", "lm_head.weight"),
    "granitemoehybrid": ("model.embed_tokens.weight", "lm_head.weight"),
    "gpt2": ("transformer.wte.weight", "lm_head.weight"),
    "mamba": ("backbone.embeddings.weight", "lm_head.weight"),
}
TOKENS = mx.array([[1, 5, 9, 2, 7, 3, 88, 11]])


def with_head(path: Path, family: str, head: Any, *, tied: bool | None) -> Path:
    """A fixture with a head in its file, and what config.json says of it."""
    copytree(FIXTURES / family, path)
    weights: Any = mx.load(str(path / "model.safetensors"), return_metadata=True)
    tensors, metadata = weights
    table, name = NAMES[family]
    table = next(key for key in tensors if key.endswith(table.removeprefix("transformer.")))
    rng = mx.random.normal(tensors[table].shape, key=mx.random.key(3)).astype(tensors[table].dtype)
    tensors[name] = {"own": rng, "copy": tensors[table]}[head]
    mx.save_safetensors(str(path / "model.safetensors"), tensors, metadata)
    config = json.loads((path / "config.json").read_text())
    config = {name: value for name, value in config.items() if name not in ("tie_embedding", "tie_word_embeddings")}
    config |= {} if tied is None else {"tie_word_embeddings": tied}
    (path / "config.json").write_text(json.dumps(config))
    return path


def logits(model: Any) -> np.ndarray[Any, Any]:
    return np.array(model(TOKENS).astype(mx.float32))


@pytest.mark.parametrize("family", NAMES)
def test_a_head_of_its_own_is_kept_and_reported(family: str, tmp_path: Path) -> None:
    checkpoint = with_head(tmp_path / "tied", family, "own", tied=True)
    truth = with_head(tmp_path / "untied", family, "own", tied=False)
    architecture = load(checkpoint=checkpoint)
    assert [warning.code for warning in architecture.warnings] == ["AX611"]
    assert "head.lm_head.weight" in dict(architecture.plan().parameters())
    expected = logits(load(checkpoint=truth).build(weights=truth))
    assert np.array_equal(logits(architecture.build(weights=checkpoint)), expected)


@pytest.mark.parametrize("family", NAMES)
def test_a_copy_of_the_table_is_tied(family: str, tmp_path: Path) -> None:
    checkpoint = with_head(tmp_path / "tied", family, "copy", tied=True)
    architecture = load(checkpoint=checkpoint)
    assert not architecture.warnings
    assert "head.lm_head.weight" not in dict(architecture.plan().parameters())
    architecture.build(weights=checkpoint)


@pytest.mark.parametrize("family", ["llama", "gpt2", "lfm2"])
def test_it_travels_through_build_and_export(family: str, tmp_path: Path) -> None:
    """What is written says so itself, so that tools which obey config.json compute the same."""
    checkpoint = with_head(tmp_path / "tied", family, "own", tied=True)
    architecture = load(checkpoint=checkpoint)
    write_model(architecture, tmp_path / "out", weights=checkpoint, tokenizer=small_tokenizer(tmp_path / "words"))
    expected = logits(architecture.build(weights=checkpoint))
    for kind in KINDS:
        if kind == "mlx-lm" and family != "llama":  # its models have no head of their own
            with pytest.raises(CheckpointError, match="AX620"):
                export(tmp_path / "out", tmp_path / kind, kind)
            continue
        export(tmp_path / "out", tmp_path / kind, kind)
        again = load(checkpoint=tmp_path / kind)
        assert not again.warnings
        assert np.array_equal(logits(again.build(weights=tmp_path / kind)), expected)


@pytest.mark.parametrize("head", [None, {"tied": True}])
def test_a_file_that_ties_without_a_field_is_overruled_too(head: Any, tmp_path: Path) -> None:
    """Tied is the default of the head, and may be written as a constant."""
    checkpoint = with_head(tmp_path / "own", "llama", "own", tied=False)
    config = json.loads((checkpoint / "config.json").read_text())
    del config["tie_word_embeddings"]
    (checkpoint / "config.json").write_text(json.dumps(config))
    family = {**load("llama").data, "head": head or {}}
    family["dims"] = {name: value for name, value in family["dims"].items() if name != "tie_word_embeddings"}
    architecture = load(family, checkpoint=checkpoint)
    assert [warning.code for warning in architecture.warnings] == ["AX611"]
    expected = logits(
        load(checkpoint=with_head(tmp_path / "untied", "llama", "own", tied=False)).build(weights=checkpoint)
    )
    assert np.array_equal(logits(architecture.build(weights=checkpoint)), expected)


def test_verify_knows_what_mlx_lm_does_with_it(tmp_path: Path) -> None:
    """The fixture has fields of transformers 5 too, which mlx-lm does not read."""
    found = {}
    for head in ("own", "copy"):
        checkpoint = with_head(tmp_path / head, "llama", head, tied=True)
        (report,) = verify(checkpoint, tokens=8, against=["mlx-lm"]).peers
        assert report.status == "known fault"
        found[head] = {fault.name for fault in report.faults}
    assert found["own"] - found["copy"] == {"own-head-dropped"}
    assert found["copy"] == {"newer-fields"}


def test_the_default_of_the_model_type_is_overruled_too(tmp_path: Path) -> None:
    """gemma2 ties without a word in config.json."""
    checkpoint = with_head(tmp_path / "tied", "gemma2", "own", tied=None)
    architecture = load(checkpoint=checkpoint)
    assert [warning.code for warning in architecture.warnings] == ["AX611"]
    assert "head.lm_head.weight" in dict(architecture.plan().parameters())


def small_tokenizer(folder: Path) -> Path:
    folder.mkdir()
    model = {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    return folder


@pytest.mark.parametrize("family", NAMES)
def test_a_head_in_the_place_of_the_embedding(family: str, tmp_path: Path) -> None:
    """transformers ties the two whichever is stored; the export has the name that everybody expects."""
    checkpoint = with_head(tmp_path / "both", family, "copy", tied=True)
    truth = logits(load(checkpoint=checkpoint).build(weights=checkpoint))
    weights: Any = mx.load(str(checkpoint / "model.safetensors"), return_metadata=True)
    tensors, metadata = weights
    table = next(key for key in tensors if key.endswith(NAMES[family][0].removeprefix("transformer.")))
    del tensors[table]
    mx.save_safetensors(str(checkpoint / "model.safetensors"), tensors, metadata)
    assert np.array_equal(logits(load(checkpoint=checkpoint).build(weights=checkpoint)), truth)
    write_model(load(checkpoint=checkpoint), tmp_path / "folder", weights=checkpoint)
    export(tmp_path / "folder", tmp_path / "out", "huggingface")
    written: Any = mx.load(str(tmp_path / "out" / "model.safetensors"))
    assert NAMES[family][1] not in written
