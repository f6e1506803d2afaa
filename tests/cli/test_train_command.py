"""`train`: flags are the recipe's, faults are diagnostics, and what it wrote goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import mlx.core as mx
import pytest

from axon_compose import load
from axon_compose.cli import main
from axon_compose.cli._parser import make_parser
from axon_compose.cli._training_flags import SERVICES, options_of
from axon_compose.diagnostics import CheckpointError
from axon_compose.learn import Budget, Cadence, Recipe, Trainer, read_task
from axon_compose.learn.race import race
from axon_compose.learn.reporting import SERVICES as KNOWN
from axon_compose.learn.tasks._batches import TaskBatches
from axon_compose.model import build
from tests.children import PATIENCE, child
from tests.helpers import described
from tests.ranks import ended, launched, ring

TRAIN = ["-m", "axon_compose", "train", "small.json", "--data", "text.txt", "--out", "out"]
FAST = ["--batch", "2", "--length", "16", "--evaluations", "0", "--samples", "0"]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a description and a text."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    data = described(dims={"hidden_size": 32, "vocab_size": 259}, stack="a", name="small")
    Path("small.json").write_text(json.dumps(data), "utf-8")
    Path("text.txt").write_text("one and two and three. " * 40, "utf-8")
    return tmp_path


def go(capsys: pytest.CaptureFixture[str], *arguments: str, file: str = "small.json") -> tuple[int, str, str]:
    try:
        code = main(["train", file, *arguments])
    except SystemExit as error:
        code = int(error.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_every_option_is_a_flag() -> None:
    arguments = make_parser().parse_args(["train", "f", "--data", "d", "--out", "o"])
    assert options_of(arguments, Recipe()) == Recipe()
    assert options_of(arguments, Cadence()) == Cadence()
    given = ["--learning-rate", "1e-4", "--schedule", "wsd", "--batch", "6", "--accumulate", "3", "--prompt", "x"]
    arguments = make_parser().parse_args(["train", "f", "--data", "d", "--out", "o", "--tokens", "20M", *given])
    assert options_of(arguments, Recipe()) == Recipe(learning_rate=1e-4, schedule="wsd", batch=6, accumulate=3)
    assert options_of(arguments, Cadence()).prompt == "x"
    assert arguments.budget == Budget("tokens", 20e6)
    (commands,) = (action for action in make_parser()._actions if action.dest == "command")
    text = " ".join(commands.choices["train"].format_help().split())  # type: ignore[index]
    for options in (Recipe, Cadence):
        for each in fields(options):
            assert f"--{each.name.replace('_', '-')}" in text, each.name


TASK = ["--task", "mqar:pairs=2,vocab=8", "--steps", "4", "--batch", "8", "--samples", "0", "--evaluations", "1"]


def test_a_task_is_learned_as_in_a_race(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    """The same sequences, steps and evaluation, by a loop of its own."""
    code, out, err = go(capsys, *TASK, "--out", "out", "--learning-rate", "1e-2")
    assert code == 0
    found = race([place / "small.json"], task=TASK[1], budget="4steps", seeds=1, rates=(1e-2,), batch=8, points=1)
    (point,) = found.runs[0].points
    lines = [json.loads(line) for line in Path("out/metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "evaluation"][-1]
    assert (last["loss"], last["accuracy"]) == (point.loss, point.accuracy)
    assert f"mqar:pairs=2,vocab=8: {point.accuracy:.1%} of answers right; a blind answer gets 25.0%" in out
    assert f"{point.accuracy:.1%} of answers right" in err
    assert json.loads(Path("out/config.json").read_text())["vocab_size"] == 8
    assert not Path("out/tokenizer.json").exists()
    code, out, _ = go(capsys, *TASK, "--out", "further", "--json", file="out")
    assert code == 0
    lines = [json.loads(line) for line in Path("further/metrics.jsonl").read_text().splitlines()]
    assert lines[0]["accuracy"] == point.accuracy  # it begins where the other one ended
    assert 0 <= json.loads(out)["result"]["accuracy"] <= 1


def test_the_head_of_a_task_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    """What is trained through it is."""
    task = ["--task", "compression:length=6,vocab=4", *TASK[2:]]
    for rate in ("1e-2", "1e-3"):
        assert go(capsys, *task, "--out", rate, "--learning-rate", rate)[0] == 0
    fast, slow = (mx.load(f"{rate}/model.safetensors") for rate in ("1e-2", "1e-3"))
    assert not any(name.startswith(("up.", "down.", "positions.")) for name in fast)
    assert not any(mx.array_equal(fast[name], slow[name]) for name in fast)


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (["--length", "8"], 2, "arguments --tokenizer and --length are for --data"),
        (["--data", "text.txt"], 2, "not allowed with argument"),
        (["--task", ""], 2, "error[AX903]"),
        (["--task", "needel"], 1, "did you mean `needle`?"),
        (["--set", "dims.vocab_size=4"], 2, "error[AX813]: the task `mqar:pairs=2,vocab=8` has 8 tokens, the model 4"),
    ],
)
def test_faults_of_tasks(given: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    found, _, err = go(capsys, *TASK, "--out", "out", *given)
    assert said in err
    assert found == code
    assert not Path("out").exists()


def test_a_run_on_a_task_goes_on_with_that_task_alone(place: Path) -> None:
    """Another one may have sequences of the same shape."""

    def trainer(task: str) -> Trainer:
        return Trainer(build(load(place / "small.json").plan()), TaskBatches(read_task(task), batch=2))

    trainer("parity:length=8").save(place)
    trainer("parity:length=8").restore(place)
    with pytest.raises(CheckpointError) as caught:
        trainer("mqar:pairs=2,vocab=8").restore(place)
    assert caught.value.code == "AX804"
    assert "the task are not those" in caught.value.details[0]


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (["--batch", "0"], 2, "argument --batch: '0' is below 1"),
        (["--learning-rate", "fast"], 2, "argument --learning-rate: 'fast' is not a number"),
        (["--batch", "3", "--accumulate", "2"], 2, "`accumulate` does not divide `batch`: 3 by 2"),
        (["--minutes", "-1"], 2, "argument --minutes: '-1' is no number of minutes such as 5"),
        (["--steps", "1", "--minutes", "1"], 2, "not allowed with argument"),
        (["--data", "none.txt"], 2, "`none.txt`: No such file or directory"),
        (["--data", "*.md"], 2, "error[AX810]: `*.md` matches no file"),
        (["--tokenizer", "bpe:400"], 2, "error[AX813]: the tokenizer has"),
        (["--length", "4000"], 2, "error[AX814]: the text has"),
        (["--freeze", "layer"], 2, "error[AX815]: `layer` names no parameter"),
        (["--freeze", "*"], 2, "error[AX815]: every parameter is frozen"),
        (["--teacher-layers", "0"], 2, "`--teacher-layers` need a `--teacher`"),
        (["--teacher-weight", "0.5"], 2, "need a `--teacher`"),
        (["--temperature", "1"], 2, "need a `--teacher`"),
        (["--prompt", "\udcff"], 2, "error: `prompt` is not a text in UTF-8"),
        (["--data", ""], 2, "error[AX810]: an empty name is no text"),
        (["--tokenizer", "none"], 2, "error[AX812]: without a tokenizer there are no tokens"),
        (["--init", "nowhere"], 2, "error[AX551]: `nowhere` has no safetensors file"),
        (["--batch", "1000000000"], 2, "compute a step in parts with `--accumulate`"),
        (["--resume"], 2, "error[AX801]"),
        (["--report-to", "paper"], 2, "'paper' is none of wandb, swanlab"),
        (["--set", "dims.vocab_size=-1"], 1, "error[AX"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_faults_are_diagnostics(
    given: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    found, out, err = go(capsys, "--data", "text.txt", "--out", "out", "--steps", "1", *FAST, *given)
    assert said in err
    assert found == code
    assert not out
    assert not Path("out").exists()


def test_the_services_are_those_of_mlx_lm() -> None:
    from mlx_lm.tuner.callbacks import SUPPORT_CALLBACK

    assert SERVICES == KNOWN == tuple(SUPPORT_CALLBACK)


def test_an_empty_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty.txt").touch()
    code, _, err = go(capsys, "--data", "empty.txt", "--out", "out")
    assert code == 2
    assert "error[AX811]: there is no text in `empty.txt`" in err


def test_it_trains_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = go(capsys, "--data", "text.txt", "--out", "out", "--steps", "3", *FAST)
    assert code == 0
    assert out.startswith("small: 3 steps, 96 tokens in ")
    assert "axon-compose train out --data TEXT --out DIR" in err
    assert {"curves.html", "loss.svg", "metrics.jsonl"} <= {path.name for path in Path("out").iterdir()}
    first = [json.loads(line) for line in Path("out/metrics.jsonl").read_text("utf-8").splitlines()]
    code, out, _ = go(capsys, "--data", "text.txt", "--out", "on", "--steps", "1", *FAST, "--json", file="out")
    assert code == 0
    result = json.loads(out)["result"]
    assert result["steps"] == 1
    again = [json.loads(line) for line in Path("on/metrics.jsonl").read_text("utf-8").splitlines()]
    assert again[0]["loss"] == pytest.approx(first[-1]["loss"], rel=1e-6)  # it begins where the other one ended


def test_standard_input_and_ctrl_c(place: Path) -> None:
    """In a process of its own: the text comes by a pipe, and the first Ctrl-C ends the run with what it has."""
    command = [sys.executable, "-m", "axon_compose", "train", "small.json", "--data", "-", "--out", "out"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with child([*command, "--minutes", "600", *FAST], env=env, text=False, **pipes) as run:
        run.stdin.write(b"a text of some length, said again. " * 20)
        run.stdin.close()
        run.stdin = None
        while (
            not (place / "out" / "metrics.jsonl").exists()
            or (place / "out" / "metrics.jsonl").read_text().count('"step"') < 4
        ):
            assert run.poll() is None, run.stderr.read()
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=PATIENCE)
    assert run.returncode == 130
    assert b"`--resume` continues where it was" in err
    assert b"steps" in out
    assert (place / "out" / "training.safetensors").exists()


def test_several_processes_say_once_what_is_wrong(tmp_path: Path) -> None:
    """Each of them refuses the batch; the first one speaks."""
    with launched(2, [*TRAIN, "--batch", "7"], cwd=tmp_path) as process:
        said, _ = process.communicate(timeout=PATIENCE)
    assert said.count("error[AX805]: `batch` (7) cannot be divided over 2 processes") == 1
    assert "such as `--batch 8`" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_a_process_that_is_killed_ends_the_others_with_a_message(tmp_path: Path) -> None:
    """No launcher ends them here; what was learned until the last checkpoint is kept."""
    command = [*TRAIN, *FAST, "--steps", "100000"]
    with ring(tmp_path, [command, command]) as (first, second):
        while not (tmp_path / "out" / "training.safetensors").exists():
            assert first.poll() is None
            time.sleep(0.05)
        second.kill()
        (code, _, said), _ = ended([first, second])
    assert code == 2
    assert "error[AX806]: another process of the run is gone" in said
    assert "--resume" in said
    assert (tmp_path / "out" / "training.safetensors").exists()
