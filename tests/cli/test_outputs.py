"""Every command that writes a single file: nothing is replaced unasked, and a failure leaves what was there."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from axon_compose.cli import main
from axon_compose.machine import files

FIXTURE = Path(__file__).resolve().parents[1] / "families" / "fixtures" / "llama"
WRITERS = {
    "schema": ("a.json", ["schema", "-o", "a.json"]),
    "import": ("a.yaml", ["import", str(FIXTURE), "-o", "a.yaml"]),
    "draw": ("a.svg", ["draw", "hybrid-demo", "-o", "a.svg"]),
    "draw a page": ("a.html", ["draw", "hybrid-demo", "-o", "a.html"]),
    "compare": ("a.html", ["compare", "hybrid-demo", "-o", "a.html"]),
}


def names() -> list[str]:
    return [path.name for path in Path().iterdir()]


def _disk_full(path: Path) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def _device_full(path: Path, target: Path, force: bool) -> None:
    _disk_full(path)


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_is_the_old_one_or_the_new_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file, command = WRITERS[name]
    target = tmp_path / file
    target.write_text("mine")
    assert main(command) == 2
    assert f"error[AX507]: `{file}` exists\n  = help: replace it with `--force`\n" in capsys.readouterr().err
    faults: list[tuple[str, Callable[..., None]]] = [("sync", _disk_full), ("_publish", _device_full)]
    for function, fault in faults:
        with monkeypatch.context() as patch:
            patch.setattr(files, function, fault)
            assert main([*command, "--force"]) == 2
        assert f"error[AX503]: cannot write `{file}`: no space left on device" in capsys.readouterr().err
        assert (names(), target.read_text()) == ([file], "mine")
    assert main([*command, "--force"]) == 0
    assert (names(), target.read_text() != "mine") == ([file], True)
    target.unlink()
    assert main(command) == 0
    assert names() == [file]


def test_the_schema_is_compared_with_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["schema", "-o", "a.json"]) == 0
    assert main(["schema", "-o", "a.json", "--check"]) == 0
    Path("a.json").write_text("{}")
    assert main(["schema", "-o", "a.json", "--check"]) == 1
    assert "write it again with `-o` and `--force`" in capsys.readouterr().err
    os.mkfifo("fifo")
    assert main(["schema", "-o", "fifo", "--check"]) == 2
    assert "error[AX500]: `fifo`: Not a regular file" in capsys.readouterr().err
