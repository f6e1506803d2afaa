"""A model whose vocabulary was cut learns what its source predicts over the tokens that stayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

import axon_compose
from axon_compose.checkpoints.edited import Edited, read_edited
from axon_compose.checkpoints.trained import load_model
from axon_compose.diagnostics import CheckpointError
from axon_compose.learn import Budget, Cadence, Recipe, Teaching
from axon_compose.learn.batches import LEFT_OUT
from axon_compose.learn.distilling import taught_objective
from axon_compose.learn.objective import NextTokens
from axon_compose.model import LanguageModel
from axon_compose.surgery import heal, receipt
from axon_compose.surgery._kept_tokens import of_tokens
from tests.surgery.edits import changed, performed
from tests.surgery.test_edit_vocabulary import OTHER, TEXT, folder, vocabulary

__all__ = ["folder"]

#: Every other attention becomes a window of four tokens with one head of keys, and the tokens are those of a text.
WINDOWS = {"layers": "0..2 step 2", "set": {"attn.window_size": 4, "attn.num_kv_heads": 1}, "init": "mean"}


@pytest.fixture(scope="module")
def cut(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    edits = [{"vocabulary": {"corpus": str(folder.parent / "text.txt")}}, WINDOWS]
    return performed(folder, tmp_path_factory.mktemp("cut") / "out", *edits)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("heal") / "text.txt"
    path.write_text(TEXT * 40)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def numbers(model: LanguageModel, tokens: np.ndarray) -> np.ndarray:
    """Logits of tokens (B, L), in float64."""
    return np.array(model(mx.array(tokens)), np.float64)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_loss_is_that_of_the_sources_predictions_over_the_kept_tokens(
    folder: Path, cut: Path, temperature: float
) -> None:
    """The source reads its own ids; of its logits those of the kept tokens count, made to sum to one."""
    source, model, kept = load_model(folder), load_model(cut), np.array(vocabulary(cut))
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, len(kept), (3, 11))
    targets = rng.integers(0, len(kept), (3, 11))
    targets[0, 3] = targets[2, :2] = LEFT_OUT
    teaching = Teaching(of_tokens(source, kept.tolist()), 1.0, temperature)
    teaching.require(model)
    loss, shown = taught_objective(teaching, NextTokens(model.plan, Recipe()))(
        model, mx.array(tokens), mx.array(targets)
    )

    theirs = log_softmax(numbers(source, kept[tokens])[..., kept] / temperature)
    ours = log_softmax(numbers(model, tokens) / temperature)
    divergence = (np.exp(theirs) * (theirs - ours)).sum(-1)[targets != LEFT_OUT].sum()
    assert divergence > 1e-3
    np.testing.assert_allclose(float(loss), temperature**2 * divergence, rtol=1e-4)
    np.testing.assert_allclose(float(shown["divergence"]), divergence, rtol=1e-4)


@pytest.mark.parametrize("head", [{"tied": True}, {"tied": False}], ids=["tied", "untied"])
def test_tokens_in_another_order_are_taken_by_their_rows(head: dict[str, Any]) -> None:
    """As many as before, so that no shape differs."""
    model = axon_compose.load(changed(head=head)).build(seed=2)
    kept = np.random.default_rng(1).permutation(64)
    tokens = np.random.default_rng(2).integers(0, 64, (2, 9))
    found = numbers(of_tokens(model, kept.tolist()), tokens)
    np.testing.assert_array_equal(found, numbers(model, kept[tokens])[..., kept])


def test_healing_brings_a_cut_model_nearer(folder: Path, cut: Path, text: Path, tmp_path: Path) -> None:
    """Both stages; the receipt is the one that compares the source, whole, over the tokens that both have."""
    recipe = Recipe(batch=4, length=24, learning_rate=3e-3, weight_decay=0.0)
    found = heal(
        cut, folder, text, tmp_path / "out", recipe=recipe, budget=Budget("steps", 24),
        cadence=Cadence(evaluations=2, samples=0, checkpoints=0),
    )  # fmt: skip
    assert {stage for stage, _, _ in found.curve} == {"", "layers", "logits"}
    assert found.after.divergence < 0.9 * found.before.divergence
    kept = vocabulary(tmp_path / "out")
    assert kept == vocabulary(cut)
    source, model = load_model(folder), load_model(cut)
    record = read_edited(cut, model.plan)
    assert isinstance(record, Edited)
    tokens = np.random.default_rng(3).integers(0, len(kept), (2, 24))
    ours = receipt(of_tokens(source, kept), model, tokens, origins=record.origins)
    whole = receipt(source, model, np.array(kept)[tokens], origins=record.origins, vocabulary=kept)
    np.testing.assert_allclose(ours.divergence, whole.divergence, rtol=1e-6)
    assert ours.agreement == whole.agreement


def test_tokens_that_are_not_one_of_the_source_are_refused(folder: Path, text: Path, tmp_path: Path) -> None:
    from axon_compose.learn.data._tokens import _train

    (tmp_path / "new").mkdir()
    _train(330, lambda: [OTHER * 9], tmp_path / "new")
    other = performed(folder, tmp_path / "other", {"vocabulary": {"tokenizer": str(tmp_path / "new")}})
    assert -1 in vocabulary(other)
    with pytest.raises(CheckpointError, match="not one of") as caught:
        heal(other, folder, text, tmp_path / "out")
    assert caught.value.code == "AX954"
    assert not (tmp_path / "out").exists()
