"""A ranking is what receipts of models with one layer changed say, and its proposal an edit that fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

import axon_compose
from axon_compose.diagnostics import CheckpointError
from axon_compose.model import LanguageModel
from axon_compose.plan import cache_nbytes
from axon_compose.surgery import Ranking, plan_edit, rank, receipt
from axon_compose.surgery._change import read_change
from tests.helpers import described

DIMS = {"hidden_size": 32, "vocab_size": 259}
LATE = {"type": "attention", "num_heads": 2, "kv_from": "attn", "window_size": 8}
STACK: dict[str, Any] = {
    "dims": DIMS,
    "components": described()["components"] | {"late": LATE},
    "blocks": {"a": ["attn", "mlp"], "s": ["ssm"], "l": ["late", "mlp"]},
    "stack": "a s a l a",
}
CHANGE = "attn -> window:8"


def model(**more: Any) -> LanguageModel:
    found = axon_compose.load(described(**STACK | more)).build(seed=0)
    for layer in (0, 2, 4):  # so that attention has something to say
        block = found.layers[layer].attn
        block.update(tree_map(lambda w, by=layer + 2: by * w, block.parameters()))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ranked")
    axon_compose.save(model(), place / "model", tokenizer="bytes")
    (place / "text.txt").write_text("".join(f"the {n} of the {n + 1} is not the {n * 7}. " for n in range(60)))
    return place / "model"


def go(folder: Path, change: str = CHANGE, **more: Any) -> Ranking:
    return rank(folder, change, text=folder.parent / "text.txt", sequences=2, length=24, context=100, **more)


def test_each_layer_is_what_the_receipt_of_that_change_alone_says(folder: Path) -> None:
    """The last layer but one reads the keys of the layer that is changed before it."""
    found = go(folder)
    tokens = np.frombuffer((folder.parent / "text.txt").read_bytes(), np.uint8)[:48].reshape(2, 24)
    expected = {}
    for layer in (0, 2, 4):
        edited = model(overrides=[{"layers": layer, "set": {"attn.window_size": 8}}])
        edited.load_weights(tree_flatten(model().parameters()))
        alone = receipt(model(), edited, tokens)
        expected[layer] = (alone.divergence, alone.agreement)
    assert {each.index: (each.divergence, each.agreement) for each in found.layers} == {
        layer: pytest.approx(figures, rel=1e-3) for layer, figures in expected.items()
    }
    assert [each.index for each in found.layers] == sorted(expected, key=lambda layer: expected[layer][0])
    assert found.tokens == 48


def test_bytes_that_a_change_saves_are_those_of_the_plan(folder: Path) -> None:
    found = go(folder)
    before = axon_compose.load_model(folder).plan
    assert found.cache_bytes == cache_nbytes(before, 100)
    for each in found.layers:
        data = described(**STACK, overrides=[{"layers": each.index, "set": {"attn.window_size": 8}}])
        assert each.saved_bytes == found.cache_bytes - cache_nbytes(axon_compose.load(data).plan(), 100)


def test_a_proposal_takes_the_layers_that_harm_least_and_fits(folder: Path) -> None:
    free = go(folder)
    assert free.chosen is None
    saved = free.layers[0].saved_bytes
    found = go(folder, budget=free.cache_bytes - saved - 1)
    best = tuple(sorted(each.index for each in free.layers[:2]))
    assert found.chosen == best
    assert found.left_bytes == free.cache_bytes - 2 * saved
    plan = plan_edit(found.edit, folder)
    assert sorted({int(path.split(".")[1]) for path in plan.changed}) == list(best)
    assert cache_nbytes(plan.edited.plan(), 100) == found.left_bytes
    assert go(folder, budget=free.cache_bytes).chosen == ()
    with pytest.raises(CheckpointError, match="with all 3 layers changed") as caught:
        go(folder, budget=10)
    assert caught.value.code == "AX956"


def test_another_type_takes_the_place_of_a_component(folder: Path) -> None:
    found = go(folder, "mlp -> {type: mlp, intermediate_size: 64}")  # wider, padded with zeros: the same
    assert [each.index for each in found.layers] == [0, 2, 3, 4]
    assert all(each.divergence < 1e-9 for each in found.layers)


@pytest.mark.parametrize(
    ("text", "edit"),
    [
        ("attn -> window:8", {"set": {"attn.window_size": 8}}),
        ("attn->window_size = 8", {"set": {"attn.window_size": 8}}),
        ("attn -> {num_heads: 4, window: 8}", {"set": {"attn.num_heads": 4, "attn.window_size": 8}}),
        ("attn -> mamba2", {"replace": {"attn": {"type": "mamba2"}}}),
        ("attn -> acme/hyena", {"replace": {"attn": {"type": "acme/hyena"}}}),
        ("mlp -> {type: moe, num_experts: 4}", {"replace": {"mlp": {"type": "moe", "num_experts": 4}}}),
    ],
)
def test_a_change_is_an_edit(text: str, edit: dict[str, Any]) -> None:
    assert read_change(text, axon_compose.load(described(**STACK)).plan()) == edit


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("attn", "no change of a component"),
        ("attn ->", "no change of a component"),
        ("attn -> {}", "no mapping of options"),
        ("attn -> {a", "cannot be read"),
        ("attn -> two words", "no change of a component"),
        ("atn -> mamba2", "no layer has a component `atn`"),
    ],
)
def test_what_is_no_change(text: str, said: str) -> None:
    with pytest.raises(CheckpointError, match=said) as caught:
        read_change(text, axon_compose.load(described(**STACK)).plan())
    assert caught.value.code == "AX955"


def test_a_change_that_changes_nothing_and_a_source_without_weights(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="changes no layer"):
        go(folder, "attn -> num_heads: 2")
    with pytest.raises(CheckpointError, match="no folder with weights"):
        rank("hybrid-demo", CHANGE)
