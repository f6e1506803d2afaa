"""Integers of a checkpoint that the model computes itself: the same ones are no fault, others are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from axon_compose import load
from axon_compose.checkpoints.files import CheckpointError
from axon_compose.checkpoints.weights import LoadPlan
from tests.families.models import copied

PREFIX = "model.layers.3.ple.ple_embedding."
#: What transformers' class computes for the second layer of n-grams of this fixture.
HELD = {
    "layer_multipliers": [11898109220238007, 39767805627325113, 26344874617237965],
    "ngram_heads_vocab_sizes": [71, 73, 79, 83],
    "ngram_heads_offsets": [0, 71, 144, 223],
}
MULTIPLIERS = "layers.3.ple.multipliers by the rule `model.layers.<l>.ple.ple_embedding.layer_multipliers`"


def plan_with(place: Path, **changes: object) -> LoadPlan:
    folder = copied("qwen4_exp", place / "model")
    held = {name: np.array(numbers, np.int64) for name, numbers in HELD.items()} | changes
    tensors = load_file(folder / "model.safetensors")
    tensors |= {PREFIX + name: np.asarray(array) for name, array in held.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return load(checkpoint=folder).load_plan(folder)


def test_the_same_integers_are_no_parameters(tmp_path: Path) -> None:
    found = plan_with(tmp_path, ngram_heads_vocab_sizes=np.int32(HELD["ngram_heads_vocab_sizes"]))
    assert {each.tensor.name.removeprefix(PREFIX) for each in found.compared} == HELD.keys()
    assert found.dropped == ()


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("layer_multipliers", [11898109220238007, 5, 7], "entry 1 is 5, the model computes 39767805627325113"),
        ("layer_multipliers", [11898109220238007, 5], "it is [2], the model has [3]"),
        ("layer_multipliers", np.float32([1, 5, 7]), "it is stored as F32, and has to hold integers"),
        ("ngram_heads_offsets", [0, 71, 144, 224], "entry 3 is 224, the model computes 223"),
    ],
    ids=["numbers", "length", "type", "places"],
)
def test_others_are_a_fault(tmp_path: Path, name: str, array: object, said: str) -> None:
    with pytest.raises(CheckpointError, match="AX553") as caught:
        plan_with(tmp_path, **{name: array})
    lines = "\n".join(caught.value.details)
    assert said in lines
    assert name != "layer_multipliers" or MULTIPLIERS in lines


def test_another_seed_is_a_fault(tmp_path: Path) -> None:
    folder = copied("qwen4_exp", tmp_path / "model")
    tensors = load_file(folder / "model.safetensors") | {
        PREFIX + "layer_multipliers": np.int64(HELD["layer_multipliers"])
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="AX553"):
        load(checkpoint=folder, settings=["dims.seed=78"]).build(weights=folder)
