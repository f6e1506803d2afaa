"""What an evaluation of healing reads: whole sequences of text that no step learns from, no more than asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

import axon_compose
from axon_compose.diagnostics import CheckpointError
from axon_compose.learn import Budget, Sources, Teaching
from axon_compose.learn.data import TextBatches, prepare
from axon_compose.learn.distilling import taught_objective
from axon_compose.learn.objective import NextTokens
from axon_compose.surgery._healing import _held_out, measured_of
from tests.surgery.test_heal import RECIPE, cache, folders, go, model, text

__all__ = ["cache", "folders", "text"]


def held_out(path: Path, length: int, measured: int, **options: Any) -> Any:
    prepared = prepare(Sources.of(path), options.pop("tokenizer", "bytes"))
    return _held_out(TextBatches(prepared, batch=2, length=length), measured)


def test_a_quarter_of_what_is_learned_from_and_no_more_than_two_thousand_tokens() -> None:
    recipe = replace(RECIPE, batch=8, length=256)
    assert measured_of(Budget("tokens", 4096), recipe) == 1024
    assert measured_of(Budget("tokens", 8192), recipe) == measured_of(Budget("steps", 300), recipe) == 2048
    assert measured_of(Budget("steps", 2), recipe) == 1024
    assert measured_of(Budget("minutes", 0.1), recipe) == measured_of(Budget("flops", 9e9), recipe) == 2048
    assert measured_of(Budget("tokens", 1), recipe) == 2


@pytest.mark.parametrize(("measured", "sequences"), [(2, 1), (24, 1), (50, 2), (5000, None)])
def test_whole_sequences_of_the_held_out_text(measured: int, sequences: int | None, text: Path) -> None:
    found = held_out(text, 24, measured)
    held = "".join(map(chr, found.reshape(-1).tolist()))
    assert found.shape == (sequences or found.shape[0], 24)
    assert found.shape[0] * 24 <= max(measured, 24)
    assert held.strip("\x00Ā") in text.read_text() or sequences is None


def test_the_loss_of_an_evaluation_is_that_of_its_receipt(folders: dict[str, Path], text: Path, tmp_path: Path) -> None:
    found = go(folders, text, tmp_path / "out", steps=4, measured=72)
    assert found.before.tokens == found.after.tokens == 72
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "evaluation"][-1]
    assert last["loss"] == pytest.approx(log(found.after.perplexity))
    assert last["divergence"] == found.after.divergence
    assert go(folders, text, tmp_path / "out", steps=4, force=True).before.tokens == 96  # of 4 steps of 96 tokens


def test_a_text_within_one_sequence_is_read_without_padding(tmp_path: Path) -> None:
    """A twentieth of 200 bytes is held back: ten, and what ends the text."""
    path = tmp_path / "short.txt"
    path.write_text("".join(chr(33 + n % 90) for n in range(200)))
    found = held_out(path, 64, 2048)
    assert found.shape[0] == 1
    assert "".join(map(chr, found[0, 1:11].tolist())) == path.read_text()[-10:]
    assert found.shape[1] <= 12


def test_nothing_to_hold_back_is_said(tmp_path: Path) -> None:
    """With a tokenizer that has no token for the end."""
    path = tmp_path / "short.txt"
    path.write_text("none")
    prepared = prepare(Sources.of(path), "bytes")
    prepared = replace(prepared, maker=replace(prepared.maker, end=None))
    with pytest.raises(CheckpointError, match="too short to hold some of it back") as caught:
        _held_out(TextBatches(prepared, batch=1, length=3), 16)
    assert caught.value.code == "AX814"


def test_two_tokens_are_measured_on_at_least(folders: dict[str, Path], text: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two tokens"):
        go(folders, text, tmp_path / "out", measured=1)


def test_an_infinite_loss_is_told_before_the_first_step(folders: dict[str, Path], text: Path, tmp_path: Path) -> None:
    broken = model(seed=5, blocks={"a": ["ssm", "mlp"], "s": ["ssm"], "w": ["swa", "mlp"]})
    broken.layers[0].mlp.down_proj.weight = mx.full(broken.layers[0].mlp.down_proj.weight.shape, float("nan"))
    axon_compose.save(broken, tmp_path / "broken", tokenizer="bytes")
    with pytest.raises(CheckpointError, match=r"the weight `layers\.0\.mlp\.down_proj\.weight`") as caught:
        go(folders | {"broken": tmp_path / "broken"}, text, tmp_path / "out", "broken")
    assert caught.value.code == "AX803"


def test_segments_are_computed_again_while_predictions_are_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the teacher alone counts."""
    teacher, learner = model(), model(seed=1)
    tokens = mx.zeros((1, 8), mx.int32)
    seen = []
    observed = type(learner).observed

    def counting(self: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(options.get("segment", 0))
        return observed(self, *arguments, **options)

    monkeypatch.setattr(type(learner), "observed", counting)
    text = NextTokens(learner.plan, replace(RECIPE, segment=2))
    for weight in (1.0, 0.5):
        taught_objective(Teaching(teacher, weight), text)(learner, tokens, tokens)
    assert seen == [0, 2, 0, 2]  # the teacher, which only reads, and the learner
