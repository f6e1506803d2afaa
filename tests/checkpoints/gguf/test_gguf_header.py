"""Headers of GGUF files: what the package's own reader says of them, and files that are not what they say."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter

from axon_compose.checkpoints.files import Unchanged
from axon_compose.checkpoints.gguf._header import read_gguf
from axon_compose.diagnostics import CheckpointError
from tests.checkpoints.gguf.converted import write
from tests.checkpoints.gguf.writing import add, finish


def small(path: Path, arch: str = "llama", **keys: object) -> Path:
    """A file with values of several types and two tensors."""
    writer = GGUFWriter(path, arch)
    add(writer, f"{arch}.block_count", 2)
    add(writer, f"{arch}.rope.freq_base", 10000.5)
    add(writer, f"{arch}.attention.layer_norm_rms_epsilon", 1e-5)
    add(writer, "general.name", "a name, ünïcode")
    add(writer, f"{arch}.flag", True)
    add(writer, f"{arch}.numbers", [1, 2, -3])
    add(writer, f"{arch}.texts", ["a", "", "bc"])
    for key, value in keys.items():
        add(writer, key.replace("__", "."), value)
    writer.add_tensor("one", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.add_tensor("two", np.ones((4, 32), np.float16))
    finish(writer)
    return path


def part(path: Path, *names: str) -> None:
    """A file that continues another one."""
    writer = GGUFWriter(path, "llama")
    for name in names:
        writer.add_tensor(name, np.zeros(4, np.float32))
    finish(writer)


def test_metadata_and_tensors_are_those_of_the_package(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write("qwen2", path, "Q5_0")
    for each in (path, small(tmp_path / "small.gguf")):
        found, known = read_gguf(each), GGUFReader(each)
        fields = {key: field.contents() for key, field in known.fields.items() if not key.startswith("GGUF.")}
        assert found.metadata.keys() == fields.keys()
        for key, value in fields.items():
            assert found.metadata[key] == (pytest.approx(value) if isinstance(value, float) else value)
        assert list(found.tensors) == [tensor.name for tensor in known.tensors]
        for tensor in known.tensors:
            mine = found.tensors[tensor.name]
            assert mine.shape == tuple(reversed(tensor.shape.tolist()))
            assert (mine.kind, mine.start, mine.nbytes) == (
                tensor.tensor_type.name,
                tensor.data_offset,
                tensor.n_bytes,
            )


def test_float32_is_read_as_the_number_that_was_meant(tmp_path: Path) -> None:
    found = read_gguf(small(tmp_path / "small.gguf")).metadata
    assert found["llama.attention.layer_norm_rms_epsilon"] == 1e-5
    assert found["llama.rope.freq_base"] == 10000.5


def test_every_truncation_is_reported(tmp_path: Path) -> None:
    whole = small(tmp_path / "small.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in [*range(0, 600, 7), len(whole) - 33, len(whole) - 1]:
        cut.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="AX511"):
            read_gguf(cut)


def changed(path: Path, at: int, code: str, value: int) -> Path:
    content = bytearray(path.read_bytes())
    struct.pack_into(f"<{code}", content, at, value)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("at", "code", "value", "said"),
    [
        (0, "I", 0x46554746, "does not begin with `GGUF`"),
        (4, "I", 1, "of version 1"),
        (4, "I", 0x03000000, "big-endian"),
        (8, "Q", 1000, "1000 entries, more than the file has room for"),
        (16, "Q", 1000, "1000 entries, more than the file has room for"),
        (24, "Q", 5000, "5000 entries, more than the file has room for"),
    ],
)
def test_what_a_header_says_is_compared_with_the_file(
    at: int, code: str, value: int, said: str, tmp_path: Path
) -> None:
    path = changed(small(tmp_path / "small.gguf"), at, code, value)
    with pytest.raises(CheckpointError, match="AX511") as caught:
        read_gguf(path)
    assert said in str(caught.value)


def entry_of(path: Path, name: str) -> int:
    """Where the description of a tensor begins, after its name."""
    return path.read_bytes().index(struct.pack("<Q", len(name)) + name.encode()) + 8 + len(name)


@pytest.mark.parametrize(
    ("offset", "code", "value", "said"),
    [
        (0, "I", 5, "has 5 axes"),
        (4, "Q", 7, "reaches past the end"),
        (4, "Q", 0, "has the shape"),
        (20, "I", 200, "has the type 200"),
        (20, "I", 2, "Q4_0 cannot have"),
        (24, "Q", 1, "not aligned"),
        (24, "Q", 1 << 20, "reaches past the end"),
    ],
)
def test_what_it_says_of_a_tensor_too(offset: int, code: str, value: int, said: str, tmp_path: Path) -> None:
    path = small(tmp_path / "small.gguf")
    changed(path, entry_of(path, "two" if "past" in said else "one") + offset, code, value)
    if value == 7:
        changed(path, entry_of(path, "two") + 12, "Q", 640)
    with pytest.raises(CheckpointError, match="AX511") as caught:
        read_gguf(path)
    assert said in str(caught.value)


def test_a_header_without_end_is_refused(tmp_path: Path) -> None:
    """One byte of an array is eight in memory."""
    path = tmp_path / "long.gguf"
    length = 1 << 30
    key = struct.pack("<Q1sIIQ", 1, b"k", 9, 0, length)
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + key)
    with path.open("r+b") as file:
        file.truncate(length + 1000)
    with pytest.raises(CheckpointError, match=r"AX511.*which is the limit"):
        read_gguf(path)


def test_no_byte_belongs_to_two_tensors(tmp_path: Path) -> None:
    path = small(tmp_path / "small.gguf")
    changed(path, entry_of(path, "two") + 24, "Q", 0)
    with pytest.raises(CheckpointError, match="lies on another tensor"):
        read_gguf(path)


def test_parts_are_one_file(tmp_path: Path) -> None:
    first = small(tmp_path / "m-00001-of-00002.gguf", split__count=2)
    part(tmp_path / "m-00002-of-00002.gguf", "three")
    assert list(read_gguf(first).tensors) == ["one", "two", "three"]
    unchanged = Unchanged(first)
    with pytest.raises(CheckpointError, match=r"AX513.*m-00002-of-00002\.gguf` has changed"), unchanged:
        os.utime(tmp_path / "m-00002-of-00002.gguf", ns=(0, 0))
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    with pytest.raises(CheckpointError, match="AX552"):
        read_gguf(first)
    with pytest.raises(CheckpointError, match="AX552"):
        read_gguf(first.rename(tmp_path / "other.gguf"))


def test_a_header_that_is_held_is_not_read_again_until_a_file_changes(tmp_path: Path) -> None:
    first, second = small(tmp_path / "m-00001-of-00002.gguf", split__count=2), tmp_path / "m-00002-of-00002.gguf"
    part(second, "three")
    held = read_gguf(first)
    assert read_gguf(first) is held
    part(second, "four", "five")
    assert list(read_gguf(first).tensors) == ["one", "two", "four", "five"]
    assert list(held.tensors) == ["one", "two", "three"]
