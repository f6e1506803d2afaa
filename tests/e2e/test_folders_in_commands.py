"""Folders that `build` and the mlx_lm commands wrote, in every command of ours that takes a file or a checkpoint."""

from __future__ import annotations

import json
import re
from pathlib import Path

import mlx.core as mx
import pytest
from commands import SMALL, axon, generated, mlx_lm, settings
from mlx_lm.utils import load as load_both

from axon_compose import load, load_model
from axon_compose.cli import main

pytestmark = pytest.mark.xdist_group("folders-in-commands")  # one worker makes the folders

PROMPT = "State space, a window and experts: describe, trust, run."
KINDS = ("built", "quantised", "fused", "adapters")
TOKENS = mx.array([list(PROMPT.encode())])


@pytest.fixture(scope="module")
def folders(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder of each kind."""
    place = tmp_path_factory.mktemp("own")
    run = ("--train", "--data", data, "--num-layers", 5, "--adapter-path", place / "adapters", "--learning-rate", 0.01)
    sizes = ("--iters", 2, "--batch-size", 1, "--max-seq-length", 32, "--val-batches", 1)
    mlx_lm("lora", "--model", model, *run, *sizes)
    mlx_lm("fuse", "--model", model, "--adapter-path", place / "adapters", "--save-path", place / "fused")
    mlx_lm("convert", "--hf-path", model, "--mlx-path", place / "quantised", "-q")
    return {"built": model, **{kind: place / kind for kind in KINDS[1:]}}


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The standard output of a command that succeeds."""
    assert main([str(argument) for argument in arguments]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


@pytest.mark.parametrize("kind", KINDS)
def test_every_command_takes_the_folder(
    kind: str, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, same = folders[kind], ("hybrid-demo", *settings(*SMALL))
    for command in (("show",), ("show", "--table"), ("cost",), ("cost", "--training")):
        assert run(capsys, command[0], folder, *command[1:]) == run(capsys, command[0], *same, *command[1:])
    assert run(capsys, "validate", folder) == f"{folder}: ok\n"
    advice = [sorted(re.findall(r"AX7\d\d", run(capsys, "lint", *which))) for which in ((folder,), same)]
    assert advice[0] == advice[1]
    assert "compute the same" in run(capsys, "diff", folder, folders["built"])
    assert "checks passed" in run(capsys, "check", folder, "--truth", "parameters,steps")
    run(capsys, "draw", folder, "-o", tmp_path / "a.svg")
    run(capsys, "draw", *same, "-o", tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert "hybrid-demo" in run(capsys, "compare", folder, "llama-small")
    assert load(folder).plan() == load("hybrid-demo", settings=SMALL).plan()


@pytest.mark.usefixtures("forked_subjects")
def test_bench_takes_a_folder(folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ("--prompt", 8, "--steps", 2, "--batch", 1, "--rounds", 1)
    assert "decode" in run(capsys, "bench", folders["quantised"], *sizes)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_the_folder(
    kind: str, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`build FILE --weights`, `build FOLDER`, `load_model` and mlx_lm agree; what is built is again such a folder."""
    fused = folders["fused" if kind == "adapters" else kind]  # adapters are joined as `mlx_lm.fuse` joins them
    wanted = load_both(str(fused), trust_remote_code=True)[0](TOKENS)
    same = ("hybrid-demo", *settings(*SMALL))
    for name, source in (("of-file", same), ("of-folder", (folders[kind],))):
        weights = ("--weights", folders[kind]) if source is same else ()
        assert "all finite" in run(capsys, "build", *source, *weights)
        run(capsys, "build", *source, *weights, "--dry-run", "--out", tmp_path / name)
        run(capsys, "build", *source, *weights, "--out", tmp_path / name)
        assert mx.array_equal(load_model(tmp_path / name)(TOKENS), wanted)
    assert mx.array_equal(load_model(folders[kind])(TOKENS), wanted)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("of-file", "of-folder")]
    assert files[0] == files[1]
    home = folders["built" if kind == "adapters" else kind]
    assert (tmp_path / "of-file" / "tokenizer.json").read_bytes() == (home / "tokenizer.json").read_bytes()


def test_mlx_lm_says_the_same_of_what_was_built_of_a_trained_folder(folders: dict[str, Path], tmp_path: Path) -> None:
    done = axon("build", "hybrid-demo", *settings(*SMALL), "--weights", folders["fused"], "--out", tmp_path / "m")
    assert done.returncode == 0, done.stderr
    assert generated(tmp_path / "m", PROMPT) == generated(folders["fused"], PROMPT)


def test_import_writes_the_description_back(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "import", folders["fused"], "-o", tmp_path / "back.yaml")
    run(capsys, "build", tmp_path / "back.yaml", "--weights", folders["fused"], "--out", tmp_path / "m")
    again, wanted = load_model(tmp_path / "m")(TOKENS), load_model(folders["fused"])(TOKENS)
    assert mx.array_equal(again, wanted)
    assert '"ssm": {"type": "axon_ssm"' in json.dumps(load(tmp_path / "back.yaml").data)


def test_weights_of_another_model_are_named(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in ([], ["--dry-run"], ["--out", str(tmp_path / "m")]):
        assert main(["build", "hybrid-demo", "--weights", str(folders["fused"]), *more]) == 2
        said = capsys.readouterr().err
        assert "error[AX512]" in said
        assert "embed_tokens.weight is [259, 64], the model has [512, 128]" in said
    assert not (tmp_path / "m").exists()


def test_verify_says_what_to_do_with_a_built_folder(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(folders["built"])]) == 1
    assert "`axon-compose export DIR --to huggingface`" in capsys.readouterr().err


def test_weights_for_a_description_of_standard_input(folders: dict[str, Path], tmp_path: Path) -> None:
    text = "extends: hybrid-demo\nname: piped\n"
    done = axon("build", "-", *settings(*SMALL), "--weights", folders["fused"], "--out", tmp_path / "m", stdin=text)
    assert done.returncode == 0, done.stderr
    assert mx.array_equal(load_model(tmp_path / "m")(TOKENS), load_model(folders["fused"])(TOKENS))
    assert axon("cost", "-", "--weights", folders["fused"], stdin=text).stdout.startswith("piped: ")


def test_export_says_what_to_do_with_adapters(folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(folders["adapters"]), "--to", "mlx-lm"]) == 2
    assert f"`axon-compose build {folders['adapters']} --out DIR` joins the two" in capsys.readouterr().err
