"""Reading weights: hostile files are refused by our own checks, before MLX sees them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axon_compose.checkpoints.files import CheckpointError, Entry, load_weights, read_header
from axon_compose.checkpoints.files import _safetensors as module


def tensor(dtype: Any = "F32", shape: Any = (2, 2), offsets: Any = (0, 16)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def raw(header: bytes, data: int | bytes = 16, length: int | None = None) -> bytes:
    stated = len(header) if length is None else length
    return stated.to_bytes(8, "little") + header + (bytes(data) if isinstance(data, int) else data)


def made(data: int = 16, **tensors: Any) -> bytes:
    return raw(json.dumps(tensors).encode(), data)


#: What is wrong: the bytes, and what the message must say.
HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "truncated"),
    "seven bytes": (b"\x02" + bytes(6), "truncated"),
    "length without a header": (raw(b""), "not JSON"),
    "header cut": (raw(b'{"a":', 0, 1000), "truncated"),
    "length 2^63": (raw(b"{}", 0, 2**63), "truncated"),
    "length 2^64 - 1": (raw(b"{}", 0, 2**64 - 1), "truncated"),
    "length too short": (raw(b'{"a": 1}', 16, 4), "not JSON"),
    "not JSON": (raw(b"GGUF garbage"), "not JSON"),
    "pickle": (raw(b"\x80\x04\x95cos\nsystem\n"), "not JSON"),
    "not UTF-8": (raw(b'{"\xff\xfe": {}}'), "not JSON"),
    "deep nesting": (raw(b"[" * 200_000), "not JSON"),
    "5000 digits": (raw(b'{"a": ' + b"9" * 5000 + b"}"), "not JSON"),
    "a list": (raw(b"[1, 2]"), "not a JSON object"),
    "a number": (raw(b"12"), "not a JSON object"),
    "bad metadata": (made(__metadata__={"format": 1}), "__metadata__"),
    "metadata a list": (made(__metadata__=["x"]), "__metadata__"),
    "name twice": (raw(b'{"a": %s, "a": %s}' % ((json.dumps(tensor()).encode(),) * 2)), "`a`: duplicate name"),
    "dtype twice": (
        raw(b'{"a": {"dtype": "F32", "dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}'),
        "`dtype`: duplicate name",
    ),
    "tensor a number": (made(a=5), "`a`: needs exactly"),
    "no offsets": (made(a={"dtype": "F32", "shape": [4]}), "`a`: needs exactly"),
    "more keys": (made(a={**tensor(), "url": "x"}), "`a`: needs exactly"),
    "unknown dtype": (made(a=tensor("F5")), "`a`: unknown dtype F5"),
    "half a byte": (made(a=tensor("F4", (3,))), "`a`: F4 of shape [3] does not fill whole bytes"),
    "dtype a list": (made(a=tensor(["F32"])), "`a`: unknown dtype"),
    "wrong dtype": (made(a=tensor("F16")), "`a`: F16 of shape [2, 2] takes 8 bytes, offsets give 16"),
    "negative dim": (made(a=tensor(shape=(-2, -2))), "`a`: the shape"),
    "dim of text": (made(a=tensor(shape=("4",))), "`a`: the shape"),
    "dim true": (made(a=tensor("F32", [True, 4])), "`a`: the shape"),
    "dim 4.0": (made(a=tensor(shape=(4.0,))), "`a`: the shape"),
    "huge shape": (made(a=tensor(shape=(2**31 - 1, 2**31 - 1))), "`a`: F32 of shape"),
    "product wraps at 2^64": (made(a=tensor(shape=(2**30, 2**30, 16), offsets=(0, 0))), "`a`: F32 of shape"),
    "dim 2^31": (made(a=tensor(shape=(2**31, 0), offsets=(0, 0))), "`a`: the shape"),
    "100 axes": (made(a=tensor(shape=[1] * 100, offsets=(0, 4))), "`a`: the shape"),
    "negative offsets": (made(a=tensor(offsets=(-16, 0))), "`a`: data_offsets"),
    "offsets reversed": (made(a=tensor(offsets=(16, 0))), "`a`: F32 of shape"),
    "three offsets": (made(a=tensor(offsets=(0, 8, 16))), "`a`: data_offsets"),
    "beyond the end": (made(15, a=tensor()), "`a`: ends at byte 16 of 15"),
    "overlap": (made(24, a=tensor(), b=tensor(offsets=(8, 24))), "`b`: starts at byte 8, inside"),
    "same bytes twice": (made(16, a=tensor(), b=tensor()), "`b`: starts at byte 0, inside"),
    "hole": (made(40, a=tensor(), b=tensor(offsets=(24, 40))), "`b`: starts at byte 24, after a gap from byte 16"),
    "hole at the start": (made(24, a=tensor(offsets=(8, 24))), "`a`: starts at byte 8, after a gap"),
    "bytes left over": (made(17, a=tensor()), "1 bytes after the last tensor"),
    "surrogate in the name": (raw(b'{"\\ud800": 1}'), r"`\ud800`: needs exactly"),
    "escape codes in the name": (raw(b'{"\\u001b[2J": 1}'), r"`\x1b[2J`: needs exactly"),
}  # fmt: skip


@pytest.fixture
def no_mlx_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: Any, **options: Any) -> None:
        raise AssertionError("MLX must not open a file that failed our checks")

    monkeypatch.setattr(mx, "load", never)


@pytest.mark.usefixtures("no_mlx_load")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(HOSTILE[name][0])
    for call in (lambda: read_header(path), lambda: load_weights(tmp_path, {"a": (2, 2)})):
        with pytest.raises(CheckpointError) as error:
            call()
        assert error.value.code == "AX511"
        assert "model.safetensors" in error.value.message
        assert HOSTILE[name][1] in error.value.message
        error.value.message.encode()  # can be printed


def test_a_header_above_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write((module.MAX_HEADER_BYTES + 1).to_bytes(8, "little"))
        file.truncate(2 * module.MAX_HEADER_BYTES)  # sparse
    with pytest.raises(CheckpointError, match="above the limit"):
        read_header(path)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: None], ids=["folder", "fifo", "nothing"])
def test_what_is_no_file(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError) as error:
        read_header(tmp_path / "model.safetensors")
    assert error.value.code == "AX511"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=64), st.integers(0, 200))
def test_any_bytes_give_a_header_or_our_error(tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int) -> None:
    good = made(16, a=tensor())
    path = tmp_path_factory.getbasetemp() / "noise.safetensors"
    path.write_bytes(good[:at] + noise + good[at + len(noise) :])
    try:
        header = read_header(path)
    except CheckpointError as error:
        assert error.code == "AX511"  # noqa: PT017
    else:
        assert sum(entry.end - entry.start for entry in header.values()) <= 16


def test_every_truncation_of_a_good_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    mx.save_safetensors(str(path), {"a": mx.ones((2, 2)), "b": mx.ones((3,), dtype=mx.bfloat16)})
    whole = path.read_bytes()
    assert set(read_header(path)) == {"a", "b"}
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            read_header(path)


def test_a_file_that_mlx_wrote(tmp_path: Path) -> None:
    arrays = {"a": mx.arange(6.0).reshape(2, 3), "b": mx.array(3), "c": mx.zeros((0, 4)), "d": mx.array([True])}
    mx.save_safetensors(str(tmp_path / "model.safetensors"), arrays, {"format": "mlx"})
    header = read_header(tmp_path / "model.safetensors")
    assert {name: (entry.dtype, entry.shape) for name, entry in header.items()} == {
        "a": ("F32", (2, 3)),
        "b": ("I32", ()),
        "c": ("F32", (0, 4)),
        "d": ("BOOL", (1,)),
    }
    assert isinstance(header["a"], Entry)
    loaded = load_weights(tmp_path, {name: array.shape for name, array in reversed(arrays.items())})
    assert list(loaded) == ["d", "c", "b", "a"]
    assert all(mx.array_equal(loaded[name], arrays[name]) for name in arrays)


@pytest.mark.usefixtures("no_mlx_load")
def test_names_and_shapes_must_match(tmp_path: Path) -> None:
    arrays = {f"extra.{i:02}": mx.zeros((1,)) for i in range(12)} | {"a": mx.zeros((2, 3)), "b": mx.zeros((2,))}
    mx.save_safetensors(str(tmp_path / "model.safetensors"), arrays)
    with pytest.raises(CheckpointError) as error:
        load_weights(tmp_path, {"a": (3, 2), "b": (2,), "gone": (1,)})
    text = str(error.value)
    assert error.value.code == "AX512"
    assert "1 missing:\n      gone" in text
    assert "12 unexpected:\n      extra." in text
    assert "… and 2 more" in text
    assert text.count("extra.") == 10
    assert "1 of the wrong shape:\n      a is [2, 3], the model has [3, 2]" in text
    assert " b " not in text


@pytest.mark.usefixtures("no_mlx_load")
def test_a_lost_shard_is_named(tmp_path: Path) -> None:
    mx.save_safetensors(str(tmp_path / "model-00002-of-00003.safetensors"), {"b": mx.zeros((1,))})
    mx.save_safetensors(str(tmp_path / "model-00003-of-00003.safetensors"), {"c": mx.zeros((1,))})
    with pytest.raises(CheckpointError, match="shard 1 of 3 is not in the folder"):
        load_weights(tmp_path, {"a": (1,), "b": (1,), "c": (1,)})


@pytest.mark.usefixtures("no_mlx_load")
def test_a_tensor_in_two_files_and_types_that_mlx_lacks(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(made(a=tensor("F64", (2,))))
    with pytest.raises(CheckpointError, match="`a`: MLX has no dtype for F64"):
        load_weights(tmp_path, {"a": (2,)})
    (tmp_path / "model.safetensors").write_bytes(made(a=tensor()))
    (tmp_path / "model-00001-of-00001.safetensors").write_bytes(made(a=tensor()))
    with pytest.raises(CheckpointError, match=r"is also in `model-00001-of-00001\.safetensors`"):
        load_weights(tmp_path, {"a": (2, 2)})


def test_other_formats_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (tmp_path / "weights.npz").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"no `model\*\.safetensors`") as error:
        load_weights(tmp_path, {"a": (1,)})
    assert error.value.code == "AX512"
