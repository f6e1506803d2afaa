"""A folder appears complete or not at all, whatever ends the build."""

# ruff: noqa: PT012 (what happens inside the body of `atomic_folder` is the matter of these tests)

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from checkpoint_models import FailingDisk, build, content

from axon_compose.checkpoints.files import CheckpointError, _disk, atomic_folder, verify
from tests.children import PATIENCE, child

FULL = OSError(errno.ENOSPC, "No space left on device")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def code_of(error: pytest.ExceptionInfo[CheckpointError]) -> str:
    return error.value.code


def test_a_new_folder_with_missing_parents(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "model"
    with atomic_folder(target) as partial:
        assert not target.exists()
        assert partial.parent == target.parent
        (partial / "x").write_text("1")
    assert content(target) == {"x": b"1"}
    assert names(target.parent) == ["model"]


def test_parents_that_another_process_makes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where several runs begin at once, with a cache that is not there yet."""
    original = _disk.create_folder

    def late(path: Path) -> None:
        if path.name in "ab":
            path.mkdir()
        original(path)

    monkeypatch.setattr(_disk, "create_folder", late)
    with atomic_folder(tmp_path / "a" / "b" / "model") as partial:
        (partial / "file").touch()
    assert names(tmp_path / "a" / "b" / "model") == ["file"]


def test_a_failed_body_leaves_nothing_not_even_parents(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "a" / "b") as partial:
        (partial / "x").write_text("1")
        1 / 0  # noqa: B018
    assert names(tmp_path) == []


def test_an_existing_build_needs_force(tmp_path: Path) -> None:
    build(tmp_path / "m")
    old = content(tmp_path / "m")
    with pytest.raises(CheckpointError) as error:
        build(tmp_path / "m", fill=1.0)
    assert code_of(error) == "AX501"
    assert "--force" in str(error.value)
    assert content(tmp_path / "m") == old
    build(tmp_path / "m", fill=1.0, force=True)
    assert content(tmp_path / "m") != old
    verify(tmp_path / "m")
    assert names(tmp_path) == ["m"]


def test_an_empty_folder_is_replaced_by_force_only(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(CheckpointError) as error:
        build(tmp_path / "m")
    assert code_of(error) == "AX501"
    build(tmp_path / "m", force=True)
    verify(tmp_path / "m")


@pytest.mark.parametrize("kind", ["file", "foreign", "foreign record", "ours with a note", "ours with a folder"])
def test_what_we_did_not_write_is_never_replaced(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "m"
    if kind == "file":
        target.write_text("keep me")
    elif kind.startswith("foreign"):
        target.mkdir()
        (target / "thesis.txt").write_text("keep me")
        if kind == "foreign record":
            (target / "build.json").write_text('{"files": {}}')
    else:
        build(target)
        (target / "notes").mkdir() if "folder" in kind else (target / "notes").write_text("keep me")
    old = content(target) if target.is_dir() and kind != "ours with a folder" else None
    for force in (False, True):
        with pytest.raises(CheckpointError) as error:
            build(target, force=force)
        assert code_of(error) == "AX502"
    if "notes" in kind:
        assert "`notes`" in str(error.value)
    if old:
        assert content(target) == old
    assert names(tmp_path) == ["m"]


def test_a_folder_under_the_name_of_one_of_our_files_is_not_ours(tmp_path: Path) -> None:
    build(tmp_path / "m")
    (tmp_path / "m" / "config.json").unlink()
    (tmp_path / "m" / "config.json").mkdir()
    with pytest.raises(CheckpointError, match=r"`config\.json`"):
        build(tmp_path / "m", force=True)


def test_what_python_and_file_managers_drop_does_not_count(tmp_path: Path) -> None:
    build(tmp_path / "m")
    (tmp_path / "m" / "__pycache__").mkdir()
    (tmp_path / "m" / ".DS_Store").touch()
    build(tmp_path / "m", force=True)
    assert not (tmp_path / "m" / "__pycache__").exists()


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    build(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    build(tmp_path / "link", fill=1.0, force=True)
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path) == ["link", "real"]
    verify(tmp_path / "real")


def test_a_target_that_appears_during_the_build_is_not_touched(tmp_path: Path) -> None:
    target = tmp_path / "m"
    with pytest.raises(CheckpointError) as error, atomic_folder(target):
        target.mkdir()
        (target / "x").write_text("from elsewhere")
    assert code_of(error) == "AX502"
    assert names(tmp_path) == ["m"]
    assert content(target) == {"x": b"from elsewhere"}


def test_the_root_is_no_target() -> None:
    with pytest.raises(CheckpointError) as error, atomic_folder(Path("/"), force=True):
        pass
    assert code_of(error) == "AX502"


def test_a_name_that_the_disk_refuses(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        build(tmp_path / ("n" * 250))
    assert code_of(error) == "AX503"
    assert "too long" in str(error.value)


# ---- a failure at every single change to the disk


def calls_of_a_build(monkeypatch: pytest.MonkeyPatch, target: Path, force: bool) -> list[str]:
    with monkeypatch.context() as patch:
        disk = FailingDisk(patch, None, FULL)
        build(target, fill=1.0, force=force)
    return disk.log


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt(), SystemExit(143)], ids=["disk full", "ctrl-c", "sigterm"])
@pytest.mark.parametrize("swap", ["no old folder", "exchange", "two renames"])
def test_every_failure_leaves_old_or_new_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, swap: str
) -> None:
    if swap == "two renames":
        monkeypatch.setattr(_disk, "exchange", lambda first, second: False)
    force = swap != "no old folder"
    target = tmp_path / "deep" / "m"
    if force:
        build(target)
    before = content(target)
    (tmp_path / "copy").mkdir()
    if force:
        build(tmp_path / "copy" / "deep" / "m")
    log = calls_of_a_build(monkeypatch, tmp_path / "copy" / "deep" / "m", force)
    assert log.count("write_chunk") >= 10
    assert log.count("sync") >= 9 + 2  # nine files, their folder and its parent
    assert log.count("rename") == (2 if swap == "two renames" else 0)
    for n in range(1, len(log) + 1):
        with monkeypatch.context() as patch, pytest.raises((CheckpointError, KeyboardInterrupt, SystemExit)) as caught:
            FailingDisk(patch, n, error)
            build(target, fill=1.0, force=force)
        if error is FULL:
            assert caught.value.code == "AX503"
            assert "free some space" in str(caught.value)
        published = n == len(log)  # only the last call, the sync of the parent, comes after the new name
        if published:
            verify(target)
        else:
            assert content(target) == before, f"call {n}, {log[n - 1]}"
        assert [p.name for p in tmp_path.rglob("*") if "partial" in p.name or p.name.endswith(".old")] == []
        assert (tmp_path / "deep").exists() == (force or published)


def test_a_real_limit_of_the_system(tmp_path: Path) -> None:
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
    code = limited + "sys.dont_write_bytecode = True  # it would be cut off, for all that import it later\n" + CHILD
    command = [sys.executable, "-c", code, str(tmp_path / "m"), "once", str(Path(__file__).parent)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert "CheckpointError: error[AX503]" in result.stderr
    assert "file too large" in result.stderr
    assert names(tmp_path) == []


def test_a_file_that_lost_bytes_without_an_error_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_disk, "write_chunk", lambda file, chunk: file.write(chunk[:-1]))
    with pytest.raises(CheckpointError) as error:
        build(tmp_path / "m")
    assert code_of(error) == "AX503"
    assert names(tmp_path) == []


# ---- what killed builds leave


def stale(tmp_path: Path, suffix: str) -> Path:
    return tmp_path / f".m.{2**22 + 1}-0123abcd.{suffix}"


def test_leftovers_of_the_same_target_are_swept(tmp_path: Path) -> None:
    for name in [
        stale(tmp_path, "partial"),
        tmp_path / f".m.{os.getpid()}-0123abcd.partial",
        tmp_path / ".m.1-2.partial",
    ]:
        name.mkdir()
        (name / "x").touch()
    other = tmp_path / ".m.x.99-0123abcd.partial"
    other.mkdir()
    build(tmp_path / "m")
    assert names(tmp_path) == [".m.1-2.partial", ".m.x.99-0123abcd.partial", "m"]


def test_a_swap_that_was_killed_between_its_renames_is_recovered(tmp_path: Path) -> None:
    build(tmp_path / "m")
    old = content(tmp_path / "m")
    (tmp_path / "m").rename(stale(tmp_path, "old"))
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "m", force=True):
        1 / 0  # noqa: B018
    assert content(tmp_path / "m") == old
    assert names(tmp_path) == ["m"]


@pytest.mark.parametrize("locks", [True, False], ids=["flock", "no flock"])
def test_the_partial_folder_of_a_running_build_is_not_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    with builds(tmp_path / "m", "pause"):
        (partial,) = tmp_path.iterdir()
        if not locks:
            monkeypatch.setattr("fcntl.flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "no locks")))
        with atomic_folder(tmp_path / "m"):
            assert partial.exists()
    with atomic_folder(tmp_path / "m", force=True):
        assert not partial.exists()


def test_of_two_builds_of_one_target_the_slower_gives_way(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def faster() -> None:
        try:
            build(tmp_path / "m")
        except BaseException as error:
            failures.append(error)

    with pytest.raises(CheckpointError) as error, atomic_folder(tmp_path / "m") as slower:
        (slower / "x").touch()
        thread = threading.Thread(target=faster)
        thread.start()
        thread.join()
        assert failures == []
        assert content(slower) == {"x": b""}
    assert code_of(error) == "AX501"
    verify(tmp_path / "m")
    assert names(tmp_path) == ["m"]


# ---- signals and real kills

#: Says how many seconds a build took, elsewhere, when the signal may come; after two minutes it has waited in vain.
CHILD = """
import sys, tempfile, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from checkpoint_models import build
from axon_compose.checkpoints.files import atomic_folder
target, mode = Path(sys.argv[1]), sys.argv[2]
end = time.monotonic() + 120
if mode == "pause":
    with atomic_folder(target):
        print(0.0, flush=True)
        time.sleep(120)
elif mode == "once":
    build(target)
else:
    with tempfile.TemporaryDirectory() as elsewhere:
        build(Path(elsewhere, "m"))
        start = time.perf_counter()
        build(Path(elsewhere, "m"), force=True)
        duration = time.perf_counter() - start
    fill = 0.0
    if mode == "first":
        print(duration, flush=True)
    while time.monotonic() < end:
        build(target, fill=fill, force=True)
        if not fill and mode == "again":
            print(duration, flush=True)
        fill += 1.0
"""


@contextmanager
def builds(target: Path, mode: str) -> Iterator[tuple[subprocess.Popen[str], float]]:
    """A process that builds, and the seconds that one of its builds takes."""
    command = [sys.executable, "-c", CHILD, str(target), mode, str(Path(__file__).parent)]
    with child(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        yield process, float(process.stdout.readline())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("mode", ["first", "again"])
def test_real_kills_leave_a_whole_folder_or_none(tmp_path: Path, number: signal.Signals, mode: str) -> None:
    for seed in range(3):
        folder = tmp_path / str(seed)
        folder.mkdir()
        with builds(folder / "m", mode) as (process, duration):
            moment = random.Random(f"{seed}{number}{mode}").uniform(0, 1 if mode == "first" else 4)
            time.sleep(moment * duration)
            assert process.poll() is None
            process.send_signal(number)
            assert process.wait(timeout=PATIENCE) in {-number, 128 + number}
        if mode == "again" or (folder / "m").exists():
            verify(folder / "m")
        if number != signal.SIGKILL and mode == "again":
            assert names(folder) == ["m"]
        build(folder / "m", force=True)
        assert names(folder) == ["m"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, -2)])
def test_a_signal_in_the_body_removes_the_partial_folder(tmp_path: Path, number: signal.Signals, status: int) -> None:
    with builds(tmp_path / "m", "pause") as (process, _):
        assert len(names(tmp_path)) == 1
        process.send_signal(number)
        assert process.wait(timeout=PATIENCE) == status
    assert names(tmp_path) == []


@pytest.mark.usefixtures("default_signals")
def test_signal_handlers_come_back_and_own_ones_are_left_alone(tmp_path: Path) -> None:
    seen = []

    def own(number: int, frame: object) -> None:
        seen.append(number)

    before = signal.signal(signal.SIGHUP, own)
    try:
        with atomic_folder(tmp_path / "m"):
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
            assert signal.getsignal(signal.SIGHUP) is own
            os.kill(os.getpid(), signal.SIGHUP)
        assert seen == [signal.SIGHUP]
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        with pytest.raises(SystemExit) as leave, atomic_folder(tmp_path / "n"):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        assert leave.value.code == 143
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
