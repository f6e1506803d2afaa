"""A built folder stops where mlx_lm stops on the checkpoint, and samples as it says."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from mlx_lm.utils import load_config, load_tokenizer

from axon_compose import load
from axon_compose.checkpoints.export import KINDS, export
from axon_compose.checkpoints.files._generation import generation_of
from axon_compose.checkpoints.folder import write_model

FIXTURES = Path(__file__).parents[2] / "families" / "fixtures"
SAMPLING = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.9}


def made(path: Path, config: dict[str, Any], generation: dict[str, Any] | None, family: str = "llama") -> Path:
    """A fixture with a tokenizer of four words, and these fields."""
    copytree(FIXTURES / family, path)
    vocab = {"a": 0, "b": 1, "</s>": 2, "<unk>": 3}
    model = {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}
    (path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    written = json.loads((path / "config.json").read_text())
    for name in ("eos_token_id", "bos_token_id", "pad_token_id"):
        written.pop(name, None)
    (path / "config.json").write_text(json.dumps(written | config))
    if generation is not None:
        (path / "generation_config.json").write_text(json.dumps(generation))
    return path


def stops(folder: Path) -> set[int]:
    """Where mlx_lm stops: as its `load` asks for it."""
    return set(load_tokenizer(folder, eos_token_ids=load_config(folder).get("eos_token_id")).eos_token_ids)


CASES: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "one in config, three in generation": ({"eos_token_id": 56}, {"eos_token_id": [56, 58, 7], **SAMPLING}),
    "none in config": ({}, {"eos_token_id": [56, 58]}),
    "one in generation": ({"eos_token_id": [56, 58]}, {"eos_token_id": 7}),
    "null in generation": ({"eos_token_id": [56, 58]}, {"eos_token_id": None, "top_k": 3}),
    "zero": ({"eos_token_id": 5}, {"eos_token_id": 0}),
    "no generation file": ({"eos_token_id": [56, 58]}, None),
    "none at all": ({}, None),
    "only settings of sampling": ({"eos_token_id": 6}, SAMPLING),
}


@pytest.mark.parametrize("name", CASES)
def test_stop_tokens_and_sampling(name: str, tmp_path: Path) -> None:
    config, generation = CASES[name]
    checkpoint = made(tmp_path / "checkpoint", config, generation)
    out = tmp_path / "out"
    write_model(load(checkpoint=checkpoint), out, weights=checkpoint)
    for kind in KINDS:
        export(out, tmp_path / kind, kind)
    for folder in (out, *(tmp_path / kind for kind in KINDS)):
        assert stops(folder) == stops(checkpoint)
        written = json.loads((folder / "generation_config.json").read_text())
        assert written.items() >= {key: value for key, value in (generation or {}).items() if value is not None}.items()


def test_the_top_of_a_wrapper_counts(tmp_path: Path) -> None:
    """Gemma 4 has [1, 106] at the top and 1 inside."""
    inner = json.loads((FIXTURES / "gemma3_text" / "config.json").read_text()) | {"eos_token_id": 1}
    top = {"model_type": "gemma3", "text_config": inner, "eos_token_id": [1, 58]}
    checkpoint = made(tmp_path / "checkpoint", {}, None, "gemma3_text")
    (checkpoint / "config.json").write_text(json.dumps(top))
    write_model(load(checkpoint=checkpoint), tmp_path / "out", weights=checkpoint)
    assert stops(tmp_path / "out") == stops(checkpoint) == {1, 2, 58}


def test_another_tokenizer_brings_its_own_tokens(tmp_path: Path) -> None:
    checkpoint = made(tmp_path / "checkpoint", {"eos_token_id": 56}, {"eos_token_id": [56, 58], **SAMPLING})
    other = made(tmp_path / "other", {}, {"eos_token_id": [1, 2], "temperature": 9.0})
    out = tmp_path / "out"
    write_model(load(checkpoint=checkpoint), out, weights=checkpoint, tokenizer=other)
    assert stops(out) == {1, 2}
    assert json.loads((out / "generation_config.json").read_text()) == {"eos_token_id": [1, 2], **SAMPLING}
    assert generation_of(checkpoint, None) == SAMPLING
    assert generation_of(None, None) == {}


@pytest.mark.parametrize("content", [b"", b"[", b"[]", b"\xff", b'"text"'])
def test_a_file_that_is_no_object_counts_as_none(content: bytes, tmp_path: Path) -> None:
    """As transformers and mlx_lm take it, but for bytes that are not UTF-8, which mlx_lm cannot read."""
    checkpoint = made(tmp_path / "checkpoint", {"eos_token_id": 56}, None)
    (checkpoint / "generation_config.json").write_bytes(content)
    write_model(load(checkpoint=checkpoint), tmp_path / "out", weights=checkpoint)
    assert stops(tmp_path / "out") == {2, 56}
