"""From an edit file to a healed model: the plan is done, the receipt is read from its notes, what is new learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import axon_compose
from axon_compose.learn import Budget, Cadence, Recipe
from axon_compose.learn.data import token_maker
from axon_compose.surgery import heal, perform, plan_edit, receipt_of
from tests.helpers import described
from tests.learn.runs import weights

RECIPE = Recipe(batch=4, length=24, learning_rate=1e-2, weight_decay=0.0)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and a text."""
    place = tmp_path_factory.mktemp("models")
    data = described(
        dims={"hidden_size": 32, "vocab_size": 259}, stack="a a w", blocks={"a": ["attn", "mlp"], "w": ["swa"]}
    )
    axon_compose.save(axon_compose.load(data).build(), place / "source", tokenizer="bytes")
    (place / "text.txt").write_text("".join(f"the {n} of the {n + 1} is not the {n * 7}. " for n in range(300)))
    return place


def edited(place: Path, name: str, *edits: dict[str, Any]) -> Path:
    plan = plan_edit({"version": 1, "source": str(place / "source"), "edits": list(edits)})
    return perform(plan, place / name)


def test_a_replaced_layer_heals_and_the_others_stay(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    linear = {"type": "gated_delta_net", "num_k_heads": 2, "head_k_dim": 16}
    folder = edited(place, "linear", {"layers": 1, "replace": {"attn": linear}, "init": "random"})
    measured = receipt_of(place / "source", folder, text=place / "text.txt", sequences=2, length=32)
    assert measured.parted == 1
    assert [each.changed for each in measured.layers] == [False, True, False]
    found = heal(
        folder, place / "source", place / "text.txt", place / "healed", recipe=RECIPE, budget=Budget("steps", 20),
        cadence=Cadence(evaluations=1, samples=0, checkpoints=0),
    )  # fmt: skip
    assert found.after.divergence < 0.8 * found.before.divergence
    before, after = weights(folder), weights(place / "healed")
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved
    assert all(name.startswith("layers.1.gated_delta_net.") for name in moved)
    again = receipt_of(place / "source", place / "healed", text=place / "text.txt", sequences=2, length=32)
    assert [each.origin for each in again.layers] == [0, 1, 2]
    assert again.divergence < measured.divergence


def test_layers_that_were_dropped_or_put_in_have_their_place_in_the_receipt(place: Path) -> None:
    shorter = edited(place, "shorter", {"drop": 1})
    measured = receipt_of(place / "source", shorter, text=place / "text.txt", sequences=1, length=32)
    assert [each.origin for each in measured.layers] == [0, 2]
    assert measured.parted == 1
    longer = edited(place, "longer", {"insert": {"after": 0, "block": "a"}, "init": "zero_out"})
    measured = receipt_of(place / "source", longer, text=place / "text.txt", sequences=1, length=32)
    assert [each.origin for each in measured.layers] == [0, None, 1, 2]
    assert measured.exact


def test_a_vocabulary_that_was_cut_is_read_from_the_notes(place: Path) -> None:
    """The merges that no text of the corpus needs are gone; what is read is the text without their tokens."""
    text = (place / "text.txt").read_text()
    maker = token_maker("bpe:290", lambda: [text, "zebra " * 50], place / "cache", "a text and zebras")
    data = described(dims={"hidden_size": 32, "vocab_size": 290})
    axon_compose.save(axon_compose.load(data).build(), place / "merges", tokenizer=maker.choice)
    edits = [{"vocabulary": {"corpus": str(place / "text.txt")}}]
    plan = plan_edit({"version": 1, "source": str(place / "merges"), "edits": edits})
    cut = perform(plan, place / "cut")
    measured = receipt_of(place / "merges", cut, text=place / "text.txt", sequences=1, length=32)
    assert measured.most < 1e-9
    assert all((each.gap or 0.0) < 1e-5 for each in measured.layers)
    assert measured.perplexity < measured.source_perplexity  # fewer tokens to choose from
