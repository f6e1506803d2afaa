"""Packed sequences: every token of every document is a target once in an epoch, and nothing else ever is."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from axon_compose.checkpoints.files._byte_tokenizer import byte_tokenizer
from axon_compose.diagnostics import CheckpointError
from axon_compose.learn.batches import Batches
from axon_compose.learn.data import Prepared, Sources, TextBatches, prepare
from tests.learn.beginning import BEGIN, beginning_tokenizer

END = 256


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """Sixty documents of 1 to 40 letters, each with its own number."""
    path = tmp_path / "lines.jsonl"
    texts = [f"<{number}>" + "x" * (number * 7 % 37) for number in range(60)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    return path


def prepared(*names: object, cache: Path, **more: Any) -> Prepared:
    return prepare(Sources(tuple(map(str, names))), cache=cache / "cache", **more)


def documents(data: Prepared, pieces: Any) -> list[list[int]]:
    return [data.tokens[start:end].tolist() for start, end in pieces]


def epoch(batches: TextBatches) -> list[tuple[list[int], list[int]]]:
    """The sequences of the first epoch: inputs and targets of the positions that count."""
    found = []
    for step in range(-(-batches.sequences // batches.batch)):
        tokens, targets = map(np.array, batches.at(step))
        for row in range(min(batches.batch, batches.sequences - step * batches.batch)):
            counts = targets[row] != -100
            assert not counts[np.argmin(counts) :].any() or counts.all()
            found.append((tokens[row][counts].tolist(), targets[row][counts].tolist()))
    return found


@pytest.mark.parametrize(("batch", "length"), [(1, 8), (3, 16), (4, 50), (2, 333)])
def test_every_token_is_a_target_once_in_an_epoch(batch: int, length: int, lines: Path, tmp_path: Path) -> None:
    data = prepared(lines, cache=tmp_path)
    found = epoch(TextBatches(data, batch=batch, length=length, seed=3))
    wanted: Counter[int] = Counter()
    for document in documents(data, data.training):
        wanted.update([*document, END])
    assert Counter(token for _, targets in found for token in targets) == wanted
    assert sorted(len(targets) for _, targets in found)[1:] == [length] * (len(found) - 1)


def test_each_target_follows_its_input(lines: Path, tmp_path: Path) -> None:
    """Put together in order, the sequences are the documents in some order, each with its end."""
    data = prepared(lines, cache=tmp_path)
    batches = TextBatches(data, batch=1, length=8)
    order = np.argsort(batches._epoch(0)[1])
    found = [epoch(batches)[index] for index in order]
    stream = [token for _, targets in found for token in targets]
    inputs = [token for tokens, _ in found for token in tokens]
    assert inputs == [END, *stream[:-1]]
    texts = "".join(map(chr, stream)).split(chr(END))[:-1]
    assert sorted(texts) == sorted("".join(map(chr, each)) for each in documents(data, data.training))


def test_the_order_is_one_of_seed_and_step(lines: Path, tmp_path: Path) -> None:
    data = prepared(lines, cache=tmp_path)

    def steps(seed: int, numbers: list[int]) -> list[Any]:
        batches = TextBatches(data, batch=4, length=16, seed=seed)
        assert isinstance(batches, Batches)
        assert batches.tokens_of_step == 64
        return [np.array(batches.at(number).targets).tolist() for number in numbers]

    wanted = steps(1, list(range(40)))
    assert steps(1, [39, 7, 20]) == [wanted[39], wanted[7], wanted[20]]
    assert steps(2, [0]) != wanted[:1]
    per_epoch = TextBatches(data, batch=4, length=16).sequences / 4
    assert wanted[0] not in wanted[int(per_epoch) :]  # a later epoch has another order


def test_an_epoch_ends_within_a_step(lines: Path, tmp_path: Path) -> None:
    """Nothing is dropped: the rows that are left go with the first of the next epoch."""
    data = prepared(lines, cache=tmp_path)
    batches = TextBatches(data, batch=5, length=16)
    counts = Counter(token for step in range(5 * batches.sequences // 5) for token in
                     np.array(batches.at(step).targets).ravel().tolist() if token != -100)  # fmt: skip
    once = Counter(token for _, targets in epoch(TextBatches(data, batch=5, length=16)) for token in targets)
    assert counts == Counter({token: 5 * number for token, number in once.items()})


def test_documents_are_held_out_whole(lines: Path, tmp_path: Path) -> None:
    data = prepared(lines, cache=tmp_path)
    kept, learned = documents(data, data.held_out), documents(data, data.training)
    assert len(kept) + len(learned) == 60
    assert 0.03 < sum(map(len, kept)) / len(data.tokens) < 0.15
    assert not {*map(tuple, kept)} & {*map(tuple, learned)}
    batches = TextBatches(data, batch=4, length=16)
    found = Counter()
    for batch in batches.held_out():
        assert batch.tokens.shape == (4, 16)
        found.update(token for token in np.array(batch.targets).ravel().tolist() if token != -100)
    assert found == Counter(token for document in kept for token in [*document, END])
    assert data.bytes_per_token == pytest.approx(sum(map(len, kept)) / sum(found.values()))


def test_of_one_document_the_end_is_held_out(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("ab" * 500, "utf-8")
    data = prepared(path, cache=tmp_path)
    assert data.training.tolist() == [[0, 950]]
    assert data.held_out.tolist() == [[950, 1000]]


@pytest.mark.parametrize("small", [b"read me", b"", b"ab" * 10])
def test_a_small_file_beside_a_large_one_is_not_all_that_is_held_out(small: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"xy" * 5000)
    (tmp_path / "b.txt").write_bytes(small)
    data = prepared(tmp_path / "a.txt", tmp_path / "b.txt", cache=tmp_path)
    assert sum(end - start for start, end in data.held_out) == pytest.approx(0.05 * len(data.tokens), rel=0.02)


def test_one_document_shorter_than_a_sequence(tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("only this", "utf-8")
    data = prepared(path, cache=tmp_path)
    with pytest.raises(CheckpointError) as raised:
        TextBatches(data, batch=1, length=64)
    assert raised.value.diagnostic.code == "AX814"
    assert raised.value.diagnostic.message == "the text has 10 tokens, a sequence 64"
    assert len(epoch(TextBatches(data, batch=1, length=5))) == 2  # what the hint says


def test_tokens_are_prepared_once(lines: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    first = prepared(lines, cache=tmp_path, progress=lambda *done: seen.append(done))
    size = sum(len(json.loads(line)["text"]) for line in lines.read_text("utf-8").splitlines())
    assert seen[-1] == (size, size)
    number = len(seen)
    again = prepared(lines, cache=tmp_path, progress=lambda *done: seen.append(done))
    assert len(seen) == number
    assert again.digest == first.digest
    lines.write_text('{"text": "other text"}\n' * 30, "utf-8")
    assert prepared(lines, cache=tmp_path).digest != first.digest


def test_what_was_lost_of_the_cache_is_made_again(lines: Path, tmp_path: Path) -> None:
    first = prepared(lines, tokenizer="bpe:300", cache=tmp_path)
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(files) == 4
    for path in files:
        damages: list[Callable[[Path], Any]] = [Path.unlink]
        if path.parent.parent.name == "tokens":
            damages += [lambda path: os.truncate(path, path.stat().st_size - 2), lambda path: os.truncate(path, 0)]
        for damage in damages:
            damage(path)
            again = prepared(lines, tokenizer="bpe:300", cache=tmp_path)
            assert np.array_equal(again.tokens, first.tokens)
            assert again.digest == first.digest


def test_texts_that_change_leave_nothing(lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    survey = Sources.survey

    def late(self: Sources) -> Any:
        found = survey(self)
        lines.write_text('{"text": "other"}\n' * 60, "utf-8")
        return found

    monkeypatch.setattr(Sources, "survey", late)
    with pytest.raises(CheckpointError, match="have changed"):
        prepared(lines, cache=tmp_path)
    assert not list((tmp_path / "cache").rglob("*.bin"))


def test_a_cache_that_cannot_be_written(lines: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(CheckpointError) as raised:
        prepared(lines, cache=tmp_path)
    assert raised.value.diagnostic.code == "AX503"
    assert raised.value.diagnostic.help == "`XDG_CACHE_HOME` names another place"


def test_a_tokenizer_that_knows_no_letter_of_it(lines: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    Tokenizer(models.BPE({"é": 0, "è": 1}, [])).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(CheckpointError, match="makes no token of the text") as raised:
        prepared(lines, cache=tmp_path, tokenizer=folder)
    assert raised.value.diagnostic.code == "AX811"


def test_preparing_that_fails_leaves_nothing(lines: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(lines, cache=tmp_path, progress=stop)
    assert not list((tmp_path / "cache").rglob("*.bin"))
    prepared(lines, cache=tmp_path)


def test_a_tokenizer_is_trained_on_what_is_learned_from(tmp_path: Path) -> None:
    data = prepared("python-docs", tokenizer="bpe:600", cache=tmp_path)
    assert data.maker.size == 600
    assert data.tokens.dtype == np.uint16
    assert int(data.tokens.max()) < 600
    assert data.bytes_per_token > 1.8
    start, end = data.held_out[0].tolist()
    text = data.maker.decode(data.tokens[start:end].tolist())
    assert text in set(Sources(("python-docs",)).documents())
    again = prepared("python-docs", tokenizer=data.maker.choice, cache=tmp_path)
    assert again.digest == data.digest


def test_what_spells_a_special_token_is_text(tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for name, content in byte_tokenizer().items():
        (folder / name).write_bytes(content)
    path = tmp_path / "one.txt"
    path.write_text("say <|endoftext|> é" * 9, "utf-8")
    found = [prepared(path, tokenizer=choice, cache=tmp_path).tokens.tolist() for choice in ("bytes", folder)]
    assert found[0] == found[1] == list(path.read_bytes())


def test_texts_begin_as_the_tokenizer_has_them(tmp_path: Path) -> None:
    """As those of Gemma and Llama 3 do; the end is that of the packing, whatever the tokenizer would put there."""
    folder = beginning_tokenizer(tmp_path / "tokenizer")
    path = tmp_path / "two.jsonl"
    path.write_text('{"text": "ab"}\n{"text": "c"}\n', "utf-8")
    data = prepared(path, tokenizer=folder, cache=tmp_path)
    assert data.maker.begin == (BEGIN,)
    assert data.tokens.tolist() == [BEGIN, *b"ab", BEGIN, *b"c"]
    assert data.maker.decode([BEGIN, *b"ab"]) == "ab"


def test_sequences_begin_as_texts_do(lines: Path, tmp_path: Path) -> None:
    """Those that begin within a document too; nothing else is other than without."""
    folder = beginning_tokenizer(tmp_path / "tokenizer")
    data = prepared(lines, tokenizer=folder, cache=tmp_path)
    bare = replace(data, maker=replace(data.maker, begin=()))
    batches, without = (TextBatches(each, batch=1, length=10) for each in (data, bare))
    found = [*map(batches.at, range(batches.sequences)), *batches.held_out()]
    plain = [*map(without.at, range(without.sequences)), *without.held_out()]
    begun = 0
    for batch, other in zip(found, plain, strict=True):
        (tokens,), (targets,) = np.array(batch.tokens), np.array(batch.targets)
        assert np.array(batch.targets).tolist() == np.array(other.targets).tolist()
        assert tokens[1:].tolist() == np.array(other.tokens)[0, 1:].tolist()
        begins = targets[0] == BEGIN  # a document begins here, after the end of another
        assert tokens[0] == (data.maker.end if begins else BEGIN)
        begun += begins
    assert 0 < begun < len(found) / 2


@pytest.mark.parametrize(
    ("tokenizer", "code"),
    [("bpe:100", "AX812"), ("bpe", "AX812"), ("bpe:x", "AX812"), ("nowhere", "AX542"), ("none", "AX812")],
)
def test_tokenizers_that_cannot_be_had(tokenizer: str, code: str, lines: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as raised:
        prepared(lines, cache=tmp_path, tokenizer=tokenizer)
    assert raised.value.diagnostic.code == code
    assert "none" not in str(raised.value.help), "that is no way out: training needs tokens"


def test_more_tokens_than_the_model_has(lines: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as raised:
        prepared(lines, cache=tmp_path, vocabulary=200)
    assert raised.value.diagnostic.code == "AX813"
    assert "--set dims.vocab_size=259" in str(raised.value.diagnostic.help)
