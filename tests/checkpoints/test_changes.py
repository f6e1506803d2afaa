"""A checkpoint that changes while it is read ends in one diagnostic, and nothing is written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from axon_compose import ArchitectureError, load
from axon_compose.checkpoints import export as exporting
from axon_compose.checkpoints import trained
from axon_compose.checkpoints.files import CheckpointError, Unchanged
from axon_compose.cli import main
from axon_compose.model.mlx_lm import ModelArgs
from axon_compose.model.names import description_in

SIZES = (
    "hidden_size=32",
    "num_attention_heads=2",
    "num_key_value_heads=1",
    "num_hidden_layers=2",
    "intermediate_size=48",
)


def _rewritten(path: Path, change: Callable[[dict[str, mx.array]], dict[str, mx.array]]) -> None:
    arrays = dict(mx.load(str(path)))
    mx.eval(arrays)
    mx.save_safetensors(str(path), change(arrays), {"format": "pt"})


def _replaced(path: Path) -> None:
    new = path.with_name("new")
    shutil.copy(path, new)
    new.replace(path)


CHANGES: dict[str, Callable[[Path], None]] = {
    "gone": Path.unlink,
    "cut": lambda path: os.truncate(path, path.stat().st_size - 1000),
    "cut within the header": lambda path: os.truncate(path, 100),
    "empty": lambda path: os.truncate(path, 0),
    "renamed": lambda path: _rewritten(path, lambda arrays: {f"x.{name}": value for name, value in arrays.items()}),
    "reshaped": lambda path: _rewritten(path, lambda arrays: {name: value[:1] for name, value in arrays.items()}),
    "retyped": lambda path: _rewritten(path, lambda arrays: {n: v.astype(mx.float16) for n, v in arrays.items()}),
    "other numbers": lambda path: _rewritten(path, lambda arrays: {name: value + 1 for name, value in arrays.items()}),
    "replaced by its like": _replaced,
    "no longer safetensors": lambda path: path.write_bytes(b"{}"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `built`, and `m`, the checkpoint that it is exported to."""
    folder = tmp_path_factory.mktemp("made")
    sizes = [f"--set=dims.{size}" for size in (*SIZES, "vocab_size=260")]
    assert main(["build", "llama", *sizes, "--out", str(folder / "built")]) == 0
    assert main(["export", str(folder / "built"), "--to", "huggingface", "-o", str(folder / "m")]) == 0
    return folder


@pytest.fixture(autouse=True)
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("built", "m"):
        shutil.copytree(made / name, name)
    return tmp_path


def _first(change: Callable[[], None], function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, the change made before it runs."""

    def changed(*arguments: Any, **named: Any) -> Any:
        change()
        return function(*arguments, **named)

    return changed


@pytest.mark.parametrize("name", CHANGES)
def test_between_headers_and_weights(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = Path("m/model.safetensors")
    after_headers = _first(lambda: CHANGES[name](weights), trained.random_weights)
    monkeypatch.setattr(trained, "random_weights", after_headers)
    assert main(["build", "llama", "--weights", "m", "--out", "new", "--json"]) == 2
    out, err = capsys.readouterr()
    (fault,) = json.loads(out)["diagnostics"]
    what = "has gone" if name == "gone" else "has changed"
    assert (fault["code"], fault["message"]) == ("AX513", f"`{weights}` {what} while the checkpoint was read")
    assert err == ""
    assert not Path("new").exists()


@pytest.mark.parametrize("name", CHANGES)
def test_in_the_middle_of_the_weights(name: str) -> None:
    """MLX has the file open, and reads on from what is left of it."""
    calls = []

    def progress(done: int, total: int) -> None:
        if not calls:
            CHANGES[name](Path("m/model.safetensors"))
        calls.append(done)

    with pytest.raises(CheckpointError) as caught:
        load(checkpoint="m").build(weights="m", dtype="float16", progress=progress)
    assert caught.value.code == "AX513"
    assert calls


@pytest.mark.parametrize("name", CHANGES)
def test_while_it_is_exported(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    weights = Path("built/model.safetensors")
    monkeypatch.setattr(exporting, "save_checkpoint", _first(lambda: CHANGES[name](weights), exporting.save_checkpoint))
    capsys.readouterr()
    assert main(["export", "built", "--to", "mlx-lm", "-o", "exported"]) == 2
    assert f"error[AX513]: `{weights}` has " in capsys.readouterr().err
    assert not Path("exported").exists()


def test_a_shard_that_is_added_and_a_configuration_that_is_edited() -> None:
    for name in ("model-2.safetensors", "config.json"):
        unchanged = Unchanged(Path("m"))
        with pytest.raises(CheckpointError, match=f"AX513.*`m/{name}` has changed"), unchanged:
            Path("m", name).write_bytes(b"new")


def test_what_does_not_change_is_no_fault() -> None:
    with pytest.raises(ZeroDivisionError), Unchanged(Path("m")):
        1 / 0  # noqa: B018
    with Unchanged(Path("nowhere")), Unchanged(Path("m")):
        Path("m/model.safetensors").read_bytes()
        Path("m/notes.txt").write_text("another file")


WRONG = {
    "a text": "/etc/hostname",
    "the name of a model": "hybrid-demo",
    "a list": ["hybrid-demo"],
    "nothing": None,
    "a file beside it": {"extends": "other.yaml"},
    "a shipped model": {"extends": "hybrid-demo"},
}


@pytest.mark.parametrize("name", WRONG)
def test_the_description_of_a_built_folder_is_no_path(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("other.yaml").write_text("extends: hybrid-demo\n")
    config = {"model_type": "axon_compose", "axon_compose": {"architecture": WRONG[name]}}
    with pytest.raises(CheckpointError, match="AX560"):
        ModelArgs.from_dict(config)
    Path("m/config.json").write_text(json.dumps(config))
    assert main(["export", "m", "--to", "mlx-lm"]) == 2
    assert "error[AX560]" in capsys.readouterr().err


@pytest.mark.parametrize(
    "config", [None, [], {}, {"axon_compose": None}, {"axon_compose": {"architecture": {}, "source": 1}}]
)
def test_what_is_no_built_folder(config: Any) -> None:
    with pytest.raises(CheckpointError, match="AX560"):
        description_in(config)


def test_a_description_is_read_as_before() -> None:
    described = {"architecture": load("hybrid-demo").data, "source": {"a": 1}}
    assert description_in({"axon_compose": described}) == described
    with pytest.raises(ArchitectureError):
        ModelArgs.from_dict({"axon_compose": {"architecture": {"version": 1}}})
