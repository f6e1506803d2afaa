"""An export gives the names that the checkpoint had, also where another rule would match on the way back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from axon_compose import ArchitectureError, load
from axon_compose.checkpoints.export import export
from axon_compose.checkpoints.files import read_header
from axon_compose.checkpoints.folder import write_model
from axon_compose.checkpoints.weights import name_kind
from axon_compose.language.document import parse_pattern, parse_target

RULES = {
    "emb": "embedding.embed_tokens",
    "nf": "norm",
    "n.<j>": "layers.0.mlp_<j>_norm",
    "feed.<j>": "layers.0.mlp_<j>",
}


def toy(weights: dict[str, Any]) -> dict[str, Any]:
    mlp = {"type": "mlp", "intermediate_size": 4}
    return {
        "version": 1,
        "name": "toy",
        "dims": {"hidden_size": 8, "vocab_size": 320},
        "components": {"mlp_0": mlp, "mlp_1": mlp},
        "blocks": {"layer": ["mlp_0", "mlp_1"]},
        "stack": "layer",
        "huggingface": {"model_types": ["toy"], "weights": weights},
    }


def names_after(tmp_path: Path, weights: dict[str, Any], spelling: dict[str, str]) -> tuple[set[str], set[str]]:
    """The names of a checkpoint, and those of its export."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text(json.dumps({"model_type": "toy", "hidden_size": 8, "vocab_size": 320}))
    random = dict(tree_flatten(load(toy(weights)).build().parameters()))
    tensors = {}
    for name, value in random.items():
        place = max((place for place in spelling if name.startswith(f"{place}.")), key=len)
        tensors[spelling[place] + name.removeprefix(place)] = value
    mx.save_safetensors(str(source / "model.safetensors"), tensors, {"format": "pt"})
    architecture = load(toy(weights), checkpoint=source)
    write_model(architecture, tmp_path / "built", weights=source, tokenizer="bytes")
    export(tmp_path / "built", tmp_path / "out", "huggingface")
    return set(tensors), set(read_header(tmp_path / "out" / "model.safetensors"))


SPELLING = {"embedding.embed_tokens": "emb", "norm": "nf"} | {
    f"layers.0.mlp_{j}{end}": f"{beginning}.{j}" for j in (0, 1) for end, beginning in (("", "feed"), ("_norm", "n"))
}


@pytest.mark.parametrize(
    "weights",
    [RULES, dict(reversed(RULES.items())), RULES | {"n.<j:int>": "layers.0.mlp_<j>_norm"},
     {("feed.<j:int>" if text == "feed.<j>" else text): target for text, target in RULES.items()}],
)  # fmt: skip
def test_the_names_of_the_checkpoint(weights: dict[str, Any], tmp_path: Path) -> None:
    before, after = names_after(tmp_path, weights, SPELLING)
    assert after == before


def test_of_two_rules_the_one_that_was_used(tmp_path: Path) -> None:
    """Both spellings can be read; the export has the one that was there."""
    weights = {key: target for key, target in RULES.items() if not key.startswith("feed")}
    weights |= {"feed.<j:int>": "layers.0.mlp_<j>", "old.block_<j:int>": "layers.0.mlp_<j>"}
    old = SPELLING | {f"layers.0.mlp_{j}": f"old.block_{j}" for j in (0, 1)}
    for number, spelling in enumerate((SPELLING, old)):
        (tmp_path / str(number)).mkdir()
        before, after = names_after(tmp_path / str(number), weights, spelling)
        assert after == before


@pytest.mark.parametrize(
    ("text", "name", "captures"),
    [("a.<l:int>.b", "a.12.b", {"l": "12"}), ("a.<l:int>.b", "a.x.b", None), ("a.<l:int>.b", "a.01.b", None),
     ("a.<l:int>.b", "a.0.b", {"l": "0"}), ("w<n:int>", "w3", {"n": "3"}), ("w<n:int>", "w3a", None),
     ("a.<l:int>.b.<l>", "a.1.b.1", {"l": "1"}), ("a.<l:int>.b.<l>", "a.1.b.2", None)],
)  # fmt: skip
def test_captures_of_indices(text: str, name: str, captures: dict[str, str] | None) -> None:
    found = parse_pattern(text).match(name)
    assert (found.captures if found else None) == captures


def test_a_target_takes_the_kind_from_its_pattern() -> None:
    numbers = parse_pattern("feed.<j:int>").numbers
    assert parse_target("mlp_<j>", numbers).match("mlp_0_norm") is None
    assert parse_target("mlp_<j>").match("mlp_0_norm") is not None
    with pytest.raises(ArchitectureError, match="`<j:int>` in a target"):
        load(toy(RULES | {"feed.<j>": "layers.0.mlp_<j:int>"}))


def test_kinds_of_names() -> None:
    assert name_kind("model.layers.12.mlp.experts.3.w1.weight") == "model.layers.#.mlp.experts.#.w1.weight"
    assert name_kind("model.layers.<l>.block2.weight") == "model.layers.#.block2.weight"
    assert name_kind("0.a.7") == "#.a.#"
