"""One reader and one writer of single files."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from axon_compose.diagnostics import CheckpointError, Refusal
from axon_compose.machine import files
from axon_compose.machine.files import check_output, read_regular, write_output


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


@pytest.mark.parametrize(
    "make", [os.mkfifo, _socket, lambda path: path.symlink_to("/dev/zero")], ids=["fifo", "socket", "device"]
)
def test_what_is_not_a_file_is_refused_at_once(
    make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    make(Path("odd"))
    with pytest.raises(OSError, match="Not a regular file: 'odd'"):
        read_regular(Path("odd"))
    before = os.lstat("odd")
    for force in (False, True):
        with pytest.raises(Refusal, match=r"AX507.*`odd` exists and is not a regular file"):
            write_output(Path("odd"), b"new", force)
    assert os.lstat("odd") == before
    assert names(Path()) == ["odd"]


def test_a_fifo_that_takes_the_place_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a"
    os.mkfifo(file)
    monkeypatch.setattr(files, "_require_regular", _only_the_second_time(files._require_regular))
    with pytest.raises(OSError, match="Not a regular file"):
        read_regular(file)


def _only_the_second_time(check: Callable[[Path, os.stat_result], None]) -> Callable[[Path, os.stat_result], None]:
    calls: list[Path] = []

    def second(path: Path, status: os.stat_result) -> None:
        calls.append(path)
        if len(calls) == 2:
            check(path, status)

    return second


def test_folders_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none")
    with pytest.raises(Refusal, match="AX507"):
        check_output(tmp_path, force=True)


def test_reading(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    (tmp_path / "link").symlink_to("a")
    assert read_regular(tmp_path / "a") == b"0123456789"
    assert read_regular(tmp_path / "link", 4) == b"0123"


def test_writing(tmp_path: Path) -> None:
    target = tmp_path / "a"
    write_output(target, b"old")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask
    with pytest.raises(Refusal, match=r"AX507.*`.*a` exists\n.*--force"):
        write_output(target, b"new")
    assert target.read_bytes() == b"old"
    target.chmod(0o640)
    write_output(target, b"new", force=True)
    assert (target.read_bytes(), stat.S_IMODE(target.stat().st_mode)) == (b"new", 0o640)
    assert names(tmp_path) == ["a"]


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real/a")
    with pytest.raises(Refusal, match="AX507"):
        write_output(tmp_path / "link", b"new")
    for data in (b"first", b"second"):
        write_output(tmp_path / "link", data, force=True)
        assert (tmp_path / "real" / "a").read_bytes() == data
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "link", "real"]


@pytest.mark.parametrize("force", [False, True], ids=["new", "replacing"])
@pytest.mark.parametrize("name", ["_write", "_publish", "sync"])
def test_a_failure_leaves_what_was_there(
    name: str, force: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a"
    if force:
        target.write_bytes(b"old")

    def full(path: Path, *arguments: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(files, name, full)
    with pytest.raises(
        CheckpointError, match=r"AX503.*cannot write `.*/a`: no space left on device\n.*free some space"
    ):
        write_output(target, b"new", force)
    assert names(tmp_path) == ["a"] * force
    assert not force or target.read_bytes() == b"old"


def test_an_interrupt_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "sync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_output(tmp_path / "a", b"new", force=True)
    assert (names(tmp_path), (tmp_path / "a").read_bytes()) == (["a"], b"old")


def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    write_output(tmp_path / "a", b"old")
    with pytest.raises(Refusal, match="AX507"):
        write_output(tmp_path / "a", b"new")
    assert (names(tmp_path), (tmp_path / "a").read_bytes()) == (["a"], b"old")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot write `.*/none/a`: no such file or directory"):
        write_output(tmp_path / "none" / "a", b"new")


def test_the_longest_name_that_a_file_can_have(tmp_path: Path) -> None:
    target = tmp_path / ("ü" * 127)
    write_output(target, b"new")
    write_output(target, b"newer", force=True)
    assert target.read_bytes() == b"newer"
