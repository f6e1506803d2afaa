"""Other tokens: those of a text give the same predictions, those of another tokenizer begin as what they say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from tokenizers import Tokenizer

import axon_compose
from axon_compose import ArchitectureError
from axon_compose.checkpoints.trained import load_model
from axon_compose.checkpoints.weights import _pieces, _some
from axon_compose.learn.data._tokens import _train
from axon_compose.surgery import perform
from axon_compose.surgery._making import Made
from tests.surgery.edits import changed, edited, performed

TEXT = "the cat sat on the mat; the dog lay on the log, and the bird was heard in the third yard. "
OTHER = "a quick brown fox jumps over lazy dogs while seventeen wizards quietly vex bold jumping zebras. "


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a byte-level tokenizer of two texts."""
    place = tmp_path_factory.mktemp("tokens")
    (place / "tokenizer").mkdir()
    _train(400, lambda: [TEXT * 5, OTHER * 5], place / "tokenizer")
    model = changed(dims={"hidden_size": 32, "vocab_size": 410}, head={"tied": False})
    axon_compose.save(axon_compose.load(model).build(seed=1), place / "model", tokenizer=place / "tokenizer")
    (place / "text.txt").write_text(TEXT)
    return place / "model"


def tokenizer(folder: Path) -> Any:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def vocabulary(folder: Path) -> list[int]:
    record = json.loads((folder / "config.json").read_text())["axon_compose"]["edit"]
    return [int(token) for token in record["vocabulary"]]


def test_the_tokens_of_a_text_are_kept(folder: Path, tmp_path: Path) -> None:
    target = performed(folder, tmp_path / "out", {"vocabulary": {"corpus": str(folder.parent / "text.txt")}})
    before, after, kept = tokenizer(folder), tokenizer(target), vocabulary(target)
    assert len(kept) == after.get_vocab_size() < 400
    assert kept == sorted(kept)
    ids = after.encode(TEXT).ids
    assert [kept[token] for token in ids] == before.encode(TEXT).ids
    for text in (OTHER, "ünknown ☃", "<|endoftext|>"):
        assert after.decode(after.encode(text).ids, skip_special_tokens=False) == text
    whole = np.array(load_model(folder)(mx.array([before.encode(TEXT).ids])))
    small = np.array(load_model(target)(mx.array([ids])))
    np.testing.assert_array_equal(small, whole[..., kept])
    config, old = (json.loads((place / "config.json").read_text()) for place in (target, folder))
    assert kept[config["eos_token_id"]] == old["eos_token_id"]
    assert config["vocab_size"] == len(kept)


@pytest.mark.parametrize("order", ["sorted", "any"])
def test_rows_are_taken_out_of_pieces_of_the_table(
    order: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same file as of the whole table, which is not in memory at any time."""
    edit = {"vocabulary": {"corpus": str(folder.parent / "text.txt")}}

    def weights(name: str) -> bytes:
        plan = edited(folder, edit)
        if order == "any":
            makings = {path: shuffled(making) for path, making in plan.makings.items()}
            plan = replace(plan, makings=makings)
        return (perform(plan, tmp_path / name) / "model.safetensors").read_bytes()

    whole = weights("whole")
    monkeypatch.setattr(_pieces, "PIECE", 33 * 32)
    monkeypatch.setattr(_some, "put_together", None)
    assert weights("pieces") == whole


def shuffled(making: Any) -> Any:
    """The tokens in another order, one of them twice."""
    if not isinstance(making, Made) or not making.axes:
        return making
    rows = [making.rows[index] for index in np.random.default_rng(0).permutation(len(making.rows))]
    return replace(making, rows=(*rows[:-1], rows[0]))


def test_a_plan_says_which_rows(folder: Path) -> None:
    plan = edited(folder, {"vocabulary": {"corpus": str(folder.parent / "text.txt")}}, {"drop": 0})
    steps = {step.name: step for step in plan.steps}
    for name in ("embedding.embed_tokens.weight", "head.lm_head.weight"):
        assert (steps[name].kind, steps[name].exactness) == ("converted", "exact")
        assert steps[name].shape[0] == plan.edited.plan().dims.vocab_size
    assert plan.origins == (1, 2, 3, 4, 5)


def test_another_tokenizer_begins_with_what_its_tokens_say(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    _train(330, lambda: [OTHER * 9], tmp_path / "new")
    target = performed(folder, tmp_path / "out", {"vocabulary": {"tokenizer": str(tmp_path / "new")}})
    old, new, kept = tokenizer(folder), tokenizer(target), vocabulary(target)
    assert len(kept) == new.get_vocab_size()
    table = np.array(load_model(folder).embedding.embed_tokens.weight)
    found = np.array(load_model(target).embedding.embed_tokens.weight)
    same = [(token, row) for token, row in enumerate(kept) if row >= 0]
    assert len(same) > 256
    for token, row in same:
        assert new.id_to_token(token) == old.id_to_token(row)
        np.testing.assert_array_equal(found[token], table[row])
    others = [token for token, row in enumerate(kept) if row < 0]
    assert others
    for token in others:
        pieces = old.encode(new.decode([token]), add_special_tokens=False).ids
        np.testing.assert_allclose(found[token], table[pieces].mean(0), rtol=1e-6, atol=1e-7)


def test_a_tokenizer_of_as_many_tokens_takes_their_rows(folder: Path, tmp_path: Path) -> None:
    """The same tokens under other numbers: no shape changes."""
    data = json.loads((folder / "tokenizer.json").read_text())
    words = data["model"]["vocab"]
    one, other = words["t"], words["a"]
    count = tokenizer(folder).get_vocab_size()
    model = changed(dims={"hidden_size": 32, "vocab_size": count}, head={"tied": False})
    axon_compose.save(axon_compose.load(model).build(seed=1), tmp_path / "model", tokenizer=folder)
    words["t"], words["a"] = other, one
    (tmp_path / "new").mkdir()
    for path in folder.glob("tokenizer*.json"):
        (tmp_path / "new" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "new" / "tokenizer.json").write_text(json.dumps(data))
    target = performed(tmp_path / "model", tmp_path / "out", {"vocabulary": {"tokenizer": str(tmp_path / "new")}})
    kept = list(range(count))
    kept[one], kept[other] = other, one
    assert vocabulary(target) == kept
    tokens = np.array([[one, 5, other, 9, one]])
    whole = np.array(load_model(tmp_path / "model")(mx.array(np.array(kept)[tokens])))
    np.testing.assert_array_equal(np.array(load_model(target)(mx.array(tokens))), whole[..., kept])


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [({}, "is that of a `corpus`"), ({"corpus": "a", "tokenizer": "b"}, "is that of a `corpus`")],
)
def test_a_vocabulary_is_one_of_two(folder: Path, vocabulary: dict[str, str], message: str) -> None:
    with pytest.raises(ArchitectureError, match="AX932") as caught:
        edited(folder, {"vocabulary": vocabulary})
    assert message in caught.value.diagnostics[0].message


@pytest.mark.parametrize(
    "parts",
    [{"embedding": {"padded_vocab_size": 416}}, {"head": {"tied": False, "padded_vocab_size": 416}}],
    ids=["embedding", "head"],
)
def test_rows_beyond_the_tokens_are_not_cut(folder: Path, tmp_path: Path, parts: Any) -> None:
    model = changed(dims={"hidden_size": 32, "vocab_size": 410}, **parts)
    axon_compose.save(axon_compose.load(model).build(seed=1), tmp_path / "model", tokenizer=folder)
    with pytest.raises(ArchitectureError, match="AX932") as caught:
        edited(tmp_path / "model", {"vocabulary": {"corpus": str(folder.parent / "text.txt")}})
    assert "has 416 rows for 410 tokens" in caught.value.diagnostics[0].message


def test_without_a_tokenizer_nothing_can_be_cut(folder: Path) -> None:
    description = folder.parent / "model.yaml"
    description.write_text(json.dumps(axon_compose.load(folder).data))
    with pytest.raises(ArchitectureError, match="AX932"):
        edited(description, {"vocabulary": {"corpus": str(folder.parent / "text.txt")}})
