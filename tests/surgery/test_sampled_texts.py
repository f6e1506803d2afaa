"""The sequences of a text that receipts read: one after the other, each begun as the tokenizer begins a text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from axon_compose.diagnostics import CheckpointError
from axon_compose.learn.data import Sources
from axon_compose.surgery.texts import sample_text
from tests.learn.beginning import BEGIN, beginning_tokenizer

END = 256
TEXTS = ("abcdefgh", "ijk")


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    path = tmp_path / "two.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return Sources((str(path),))


def sampled(sources: Sources, tokenizer: str | Path, length: int, **more: object) -> list[list[int]]:
    found: list[list[int]] = sample_text(
        sources, "nowhere", 300, tokenizer=tokenizer, sequences=9, length=length, **more
    ).tokens.tolist()
    return found


def test_without_a_beginning_they_are_the_text(sources: Sources) -> None:
    rows = sampled(sources, "bytes", 4)
    assert [token for row in rows for token in row] == [*b"abcdefgh", END, *b"ijk"]


def test_each_sequence_begins_like_a_text(sources: Sources, tmp_path: Path) -> None:
    """And no token is lost or read twice."""
    folder = beginning_tokenizer(tmp_path / "tokenizer")
    rows = sampled(sources, folder, 5)
    assert rows == [[BEGIN, *b"abcd"], [BEGIN, *b"efgh"], [BEGIN, END, BEGIN, *b"ij"]]
    rows = sampled(sources, folder, 10)
    assert rows == [[BEGIN, *b"abcdefgh", END]]


def test_where_a_text_begins_there_is_no_second_beginning(sources: Sources, tmp_path: Path) -> None:
    folder = beginning_tokenizer(tmp_path / "tokenizer")
    rows = sampled(sources, folder, 4, kept=[*range(256), BEGIN])
    assert rows == [[BEGIN, *b"abc"], [BEGIN, *b"def"], [BEGIN, *b"gh", BEGIN], [BEGIN, *b"ijk"]]
    rows = sampled(sources, folder, 3, kept=[*range(256), BEGIN])
    assert rows == [[BEGIN, *b"ab"], [BEGIN, *b"cd"], [BEGIN, *b"ef"], [BEGIN, *b"gh"], [BEGIN, *b"ij"]]


def test_a_vocabulary_without_it(sources: Sources, tmp_path: Path) -> None:
    folder = beginning_tokenizer(tmp_path / "tokenizer")
    assert sampled(sources, folder, 4, kept=range(256)) == [[*b"abcd"], [*b"efgh"]]


def test_a_text_of_nothing_but_beginnings(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("é")
    with pytest.raises(CheckpointError) as raised:
        sampled(Sources((str(path),)), beginning_tokenizer(tmp_path / "tokenizer"), 4, kept=[BEGIN])
    assert raised.value.diagnostic.code == "AX814"
