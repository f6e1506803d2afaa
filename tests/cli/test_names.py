"""FILE and DIR: names are looked up as names, paths as regular files, and nothing is waited for."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from axon_compose import ArchitectureError, load
from axon_compose.checkpoints.files import CheckpointError
from axon_compose.cli import main
from tests.helpers import described

FIXTURES = Path(__file__).resolve().parents[1] / "families" / "fixtures"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        ["show", "llama"],
        ["validate", "hybrid-demo"],
        ["cost", "hybrid-demo"],
        ["compare", "hybrid-demo", "llama"],
        ["diff", "hybrid-demo", "llama"],
        ["lint", "hybrid-demo"],
        ["import", str(FIXTURES / "llama")],
        ["import", str(FIXTURES / "llama"), "--family", "llama"],
        ["build", "llama", "--weights", str(FIXTURES / "llama"), "--dry-run"],
    ],
    ids=" ".join,
)
def test_a_folder_of_that_name_does_not_matter(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    expected = main(command), capsys.readouterr()
    for name in ("llama", "hybrid-demo"):
        Path(name).mkdir()
    assert (main(command), capsys.readouterr()) == expected
    assert expected[0] == (1 if command[0] == "diff" else 0), expected


def test_a_file_without_a_suffix(capsys: pytest.CaptureFixture[str]) -> None:
    """A regular file is what its path says, but a checkpoint's family is looked up as a name alone."""
    Path("llama").write_text("nothing of use")
    assert main(["validate", "llama"]) == 1
    assert "--> llama:1:1" in capsys.readouterr().out
    assert load(checkpoint=FIXTURES / "llama").name == "llama"


def test_the_folder_itself_is_named_by_its_path(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(FIXTURES / "llama", "hybrid-demo")
    assert main(["compare", "./hybrid-demo"]) == 0
    assert "llama" in capsys.readouterr().out
    assert main(["compare", "hybrid-demo"]) == 0
    assert "llama" not in capsys.readouterr().out
    assert main(["show", "./hybrid-demo/"]) == 0
    assert "llama" in capsys.readouterr().out


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [_fifo, _device])
def test_every_input_file(make: object, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(make)
    make(Path("odd.yaml"))
    for command in (
        ["validate", "odd.yaml"],
        ["show", "odd.yaml"],
        ["build", "odd.yaml"],
        ["diff", "llama", "odd.yaml"],
    ):
        assert main(command) == 2
        assert "error[AX500]: `odd.yaml`: Not a regular file" in capsys.readouterr().err
    with pytest.raises(OSError, match="Not a regular file"):
        load("odd.yaml")
    with pytest.raises(ArchitectureError, match=r"AX11[13]"):  # a device is outside of the folder, too
        load(described(extends="odd.yaml"))
    for name, code in (
        ("config.json", "AX601"),
        ("model.safetensors", "AX511"),
        ("model.safetensors.index.json", "AX511"),
    ):
        checkpoint = folder / name.replace(".", "-")
        shutil.copytree(FIXTURES / "llama", checkpoint)
        (checkpoint / name).unlink(missing_ok=True)
        make(checkpoint / name)
        assert main(["build", "llama", "--weights", str(checkpoint), "--dry-run"]) in (1, 2)
        shown = capsys.readouterr().err.lower()
        assert f"error[{code.lower()}]" in shown
        assert "not a regular file" in shown
    (folder / "config-json" / "build.json").symlink_to("../odd.yaml")
    from axon_compose.checkpoints.export import export
    from axon_compose.checkpoints.files import read_build

    with pytest.raises(CheckpointError, match=r"AX521.*Not a regular file"):
        read_build(folder / "config-json")
    with pytest.raises(CheckpointError, match="AX560"):
        export(folder / "config-json", folder / "exported", "mlx-lm")


@pytest.mark.parametrize("path", ["/dev/fd/{}", "/proc/self/fd/{}"])
def test_what_a_shell_hands_over_is_read(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As in `diff <(make-a) <(make-b)`."""
    if not Path(path).parent.exists():
        pytest.skip(f"needs {Path(path).parent}")
    reader, writer = os.pipe()
    os.write(writer, b"extends: hybrid-demo\n")
    os.close(writer)
    assert main(["validate", path.format(reader)]) == 0
    os.close(reader)
    assert capsys.readouterr().out == f"{path.format(reader)}: ok\n"


def test_a_config_that_is_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    """It is read as YAML, which the implementations that `verify` compares with cannot."""
    shutil.copytree(FIXTURES / "llama", "m")
    config = Path("m/config.json")
    config.write_text(config.read_text() + "# a comment\n")
    assert main(["verify", "m"]) == 2
    assert "error[AX601]: `m/config.json` is not JSON" in capsys.readouterr().err
