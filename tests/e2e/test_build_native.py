"""axon-native as `make` gets it: built once, found again, and left out without a word where it cannot be built."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.children import PATIENCE, child
from tests.native import build_native as native


class Pip:
    """In the place of pip: knows what it was asked, and builds a wheel of no content, unless it fails."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fails = False

    def __call__(self, *arguments: str, **_: str) -> subprocess.CompletedProcess[str]:
        self.asked.append(arguments[0])
        if arguments[0] == "wheel" and not self.fails:
            Path(arguments[arguments.index("--wheel-dir") + 1], "axon_native-0-any.whl").touch()
        return subprocess.CompletedProcess([], int(self.fails), "what the compiler says", "")


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Pip:
    """A machine that can build it, with sources, wheels and an environment of its own."""
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "kernels.cpp").write_text("int main() {}")
    found = Pip()
    replaced = {
        "SOURCES": sources,
        "KEPT": tmp_path / "kept",
        "STAMP": tmp_path / "stamp",
        "lacking": lambda: None,
        "_install_tools": lambda: None,
        "_fault": lambda: "",
        "_pip": found,
    }
    for name, value in replaced.items():
        monkeypatch.setattr(native, name, value)
    return found


def test_it_is_built_once_and_found_again(pip: Pip, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert native.main([]) == 0
    assert pip.asked == ["wheel", "install"]
    assert capsys.readouterr().out.count("\n") == 1
    assert native.main([]) == 0
    assert pip.asked == ["wheel", "install"]
    (tmp_path / "stamp").unlink()  # a new environment
    assert native.main([]) == 0
    assert pip.asked == ["wheel", "install", "install"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("change", ["sources", "mlx", "nanobind", "processor"])
def test_it_is_built_again_for_another(pip: Pip, change: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert native.main([]) == 0
    if change == "sources":
        (tmp_path / "sources" / "kernels.cpp").write_text("int main() { return 1; }")
    elif change == "processor":
        monkeypatch.setattr(native, "_instructions", lambda: "others")
    else:
        versions = native.version
        monkeypatch.setattr(native, "version", lambda name: "99.0" if name == change else versions(name))
    assert native.main([]) == 0
    assert pip.asked == ["wheel", "install"] * 2


def test_a_text_about_it_changes_nothing(pip: Pip, tmp_path: Path) -> None:
    before = native.key()
    (tmp_path / "sources" / "README.md").write_text("About it")
    assert native.key() == before


@pytest.mark.parametrize("name", ["CXX", "CXXFLAGS", "CMAKE_ARGS", "CMAKE_TOOLCHAIN_FILE"])
def test_another_way_of_building_it_gives_another(name: str, pip: Pip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(name, raising=False)
    before = native.key()
    monkeypatch.setenv(name, "-DAXON_PROCESSOR=")
    assert native.key() != before


@pytest.mark.parametrize("lacks", ["PATH without a compiler", "a compiler of another language", "one that hangs"])
def test_a_machine_that_cannot_build_it_goes_on_in_silence(
    lacks: str, pip: Pip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(native, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr(native, "_pip", pip)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(native, "_SECONDS", 0.2 if lacks == "one that hangs" else PATIENCE)
    if lacks != "PATH without a compiler":
        does = f"import time; time.sleep({PATIENCE})" if lacks == "one that hangs" else "raise SystemExit(1)"
        (tmp_path / "c++").write_text(f"#!{sys.executable}\n{does}\n")
        (tmp_path / "c++").chmod(0o755)
    assert native.main([]) == 0
    assert capsys.readouterr() == ("", "")
    assert native.main(["--required"]) == 1
    assert capsys.readouterr().err.startswith("axon-native is left out: ")
    assert pip.asked == []


def test_what_could_not_be_built_is_tried_again_only_if_it_is_required(
    pip: Pip, capsys: pytest.CaptureFixture[str]
) -> None:
    pip.fails = True
    assert native.main([]) == 0
    message = capsys.readouterr().err
    assert "build.log" in message
    assert Path(message.split()[-1]).read_text() == "what the compiler says"
    assert native.main([]) == 0
    assert capsys.readouterr().err == ""
    assert pip.asked == ["wheel"]
    pip.fails = False
    assert native.main(["--required"]) == 0
    assert pip.asked == ["wheel", "wheel", "install"]
    assert not Path(message.split()[-1]).exists()


def test_one_that_mlx_does_not_take_is_removed(
    pip: Pip, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(native, "_fault", lambda: "ImportError: another nanobind")
    assert native.main([]) == 0
    assert pip.asked == ["wheel", "install", "uninstall"]
    assert not native.STAMP.exists()
    assert capsys.readouterr().err == ""
    assert native.main(["--required"]) == 1
    assert "another nanobind" in capsys.readouterr().err


def test_what_a_killed_build_left_is_removed(pip: Pip) -> None:
    left = native.KEPT / native.key() / ".building-1"
    left.mkdir(parents=True)
    (left / "half.whl").touch()
    assert native.main([]) == 0
    assert [path.name for path in left.parent.glob("*.whl")] == ["axon_native-0-any.whl"]
    assert not left.exists()


def test_one_builds_at_a_time(pip: Pip, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*arguments: str, **_: str) -> subprocess.CompletedProcess[str]:
        if arguments[0] == "wheel":
            with (native.KEPT / native.key() / "lock").open("w") as lock, pytest.raises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return pip(*arguments)

    monkeypatch.setattr(native, "_pip", build)
    assert native.main([]) == 0
    assert pip.asked == ["wheel", "install"]


def test_what_another_has_built_meanwhile_is_found(pip: Pip) -> None:
    folder = native.KEPT / native.key()
    folder.mkdir(parents=True)
    with ThreadPoolExecutor() as others:
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = others.submit(native.wheel)
            (folder / "built.whl").touch()
        assert found.result(PATIENCE) == folder / "built.whl"
    assert pip.asked == []


def test_a_folder_that_cannot_be_written_stops_nobody(pip: Pip, capsys: pytest.CaptureFixture[str]) -> None:
    native.KEPT.touch()
    assert native.main([]) == 0
    assert str(native.KEPT) in capsys.readouterr().err
    assert native.main(["--required"]) == 1


#: Holds a named pipe open, until nobody reads from it any more.
HOLDS = "exec 9>'{}'; (while echo it runs >&9; do sleep 1; done) >/dev/null 2>&1 &"
#: Runs it as `make` would run a compiler.
SCRIPT = "import sys; from tests.native import build_native as n; n.end_at_signals(); n._run(['sh', '-c', sys.argv[1]])"


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """What holds a pipe open, and who reads from that to its end."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with child(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        yield HOLDS.format(pipe), reader


def test_what_a_program_leaves_running_is_ended(held: tuple[str, subprocess.Popen[str]]) -> None:
    holds, reader = held
    assert native._run(["sh", "-c", f"{holds} exit 3"]).returncode == 3
    reader.communicate(timeout=PATIENCE)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_what_was_started_too(number: signal.Signals, held: tuple[str, subprocess.Popen[str]]) -> None:
    holds, reader = held
    assert reader.stdout is not None
    asked = "trap 'echo asked to end >&9; exit' TERM"  # as ninja must be, to end compilers
    with child([sys.executable, "-c", SCRIPT, f"{asked}; {holds} wait"]) as process:
        assert reader.stdout.readline() == "it runs\n"
        process.send_signal(number)
        assert "asked to end\n" in reader.communicate(timeout=PATIENCE)[0]
        assert process.wait(PATIENCE) in (128 + number, -number)
