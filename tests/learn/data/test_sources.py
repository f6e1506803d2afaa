"""Every kind of source gives its documents, in one order; what cannot be read is reported with its place."""

from __future__ import annotations

import json
import os
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from axon_compose.diagnostics import CheckpointError
from axon_compose.learn.data import Sources


def fault(*names: str, **more: object) -> CheckpointError:
    with pytest.raises(CheckpointError) as raised:
        Sources(names, **more).survey()
    return raised.value


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    (tmp_path / "b.txt").write_text("second\n", encoding="utf-8")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.md").write_text("\ufefffirst é\n", encoding="utf-8")
    (tmp_path / "a" / "picture.bin").write_bytes(b"P6\0\0\1")
    (tmp_path / ".hidden").write_text("never", encoding="utf-8")
    (tmp_path / "c.jsonl").write_text('{"text": "third"}\n\n{"text": "", "n": 1}\n{"text": "fourth"}\n', "utf-8")
    return tmp_path


def test_a_folder_gives_its_texts_in_order(texts: Path) -> None:
    assert list(Sources((str(texts),)).documents()) == ["first é\n", "second\n", "third", "fourth"]


def test_files_patterns_and_standard_input(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(texts)
    names = ("b.txt", "**/*.md", "-", "c.jsonl")
    assert list(Sources(names, piped=b"piped").documents()) == ["second\n", "first é\n", "piped", "third", "fourth"]
    assert list(Sources((str(texts / "*.txt"),)).documents()) == ["second\n"]


def test_python_carries_texts() -> None:
    survey = Sources(("python-docs",)).survey()
    assert len(survey.sizes) == len(topics)
    assert sum(survey.sizes) == sum(len(text.encode()) for text in topics.values())


def test_the_digest_tells_documents_apart(texts: Path) -> None:
    path = texts / "c.jsonl"
    first = Sources((str(path),)).survey()
    assert first == Sources((str(path),)).survey()
    path.write_text('{"text": "thirdf"}\n{"text": "ourth"}\n', "utf-8")
    assert Sources((str(path),)).survey().digest != first.digest


def test_another_field(tmp_path: Path) -> None:
    path = tmp_path / "lines.ndjson"
    path.write_text('{"content": "here", "n": 3}\n', "utf-8")
    assert list(Sources((str(path),), field="content").documents()) == ["here"]
    found = fault(str(path), field="contents")
    assert found.diagnostic.message.endswith("line 1: no text under `contents`")
    assert found.diagnostic.help == "say where the text is: `--field content`"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"text": "a"}\n{"text": \n', "line 2: not JSON"),
        (b'{"text": "a"}\n[1]\n', "line 2: no text under `text`"),
        (b'{"text": "a"}\n{"text": "\xff"}\n', "line 2: not UTF-8, at byte 10"),
        (b'{"text": 3}\n', "line 1: no text under `text`"),
        (b'{"text": null}\n', "line 1: no text under `text`"),
        (b'{"text": "a\\ud800b"}\n', "line 1: the text has half of a surrogate pair, at character 1"),
        (b'{"text": "\\udc00\\ud800"}\n', "at character 0"),
    ],
)
def test_a_line_that_cannot_be_read(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(content)
    found = fault(str(path))
    assert found.diagnostic.code == "AX810"
    assert said in found.diagnostic.message


def test_what_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes("é".encode("latin-1"))
    assert fault(str(path)).diagnostic.code == "AX810"
    assert "at byte 0" in fault(str(path)).diagnostic.message
    assert fault(str(tmp_path / "*.md")).diagnostic.message.endswith("matches no file")
    with pytest.raises(FileNotFoundError):
        Sources((str(tmp_path / "none.txt"),)).survey()
    os.mkfifo(tmp_path / "pipe")
    for name in (tmp_path / "pipe", "/dev/zero"):
        assert "is not a regular file" in fault(str(name)).diagnostic.message


def test_a_whole_pair_of_surrogates_is_a_text(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"text": "\\ud83d\\ude00"}\n', "utf-8")
    assert list(Sources((str(path),)).documents()) == ["😀"]


@pytest.mark.parametrize("now", ["other", "one\nmore", ""])
def test_texts_that_change_are_not_those_that_were_surveyed(now: str, tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"text": "first"}\n{"text": "last"}\n', "utf-8")
    sources = Sources((str(path),))
    survey = sources.survey()
    assert list(sources.again(survey)) == ["first", "last"]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in ["first", *now.split("\n")]), "utf-8")
    with pytest.raises(CheckpointError, match="have changed while they were read"):
        list(sources.again(survey))


@pytest.mark.parametrize("name", ["empty.txt", "-", "folder"])
def test_no_text(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").touch()
    (tmp_path / "folder").mkdir()
    found = fault(name)
    assert found.diagnostic.code == "AX811"
    assert found.diagnostic.message == f"there is no text in `{name}`"
