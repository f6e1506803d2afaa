"""A run makes a folder that mlx_lm runs, and an interrupted one is an uninterrupted one."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.callbacks import TrainingCallback

import axon_compose
from axon_compose.checkpoints.files import verify
from axon_compose.diagnostics import CheckpointError
from axon_compose.learn import Cadence, Metrics, Outcome, Recipe, Teaching
from axon_compose.learn.reporting import CallbackListener, reporting_callback
from axon_compose.learn.trainer import Diverged
from tests.helpers import described
from tests.learn.runs import RECIPE, STEPS, go, weights


class Ear:
    """Listens, and does something after a step."""

    def __init__(self, then: Callable[[int], None] = lambda step: None) -> None:
        self.then, self.heard = then, list[str]()

    def step(self, metrics: Metrics, part: float) -> None:
        self.heard.append("step")
        self.then(metrics.step)

    def evaluation(self, line: Any) -> None:
        self.heard.append("evaluation")

    def sample(self, line: Any) -> None:
        self.heard.append("sample")

    def checkpoint(self, folder: Path, steps: int) -> None:
        self.heard.append("checkpoint")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    lines = [json.dumps({"text": f"the {number} of the {number + 1} is not the {number * 7}."}) for number in range(60)]
    path.write_text("\n".join(lines), "utf-8")
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def losses(outcome: Outcome) -> list[float]:
    return [line["loss"] for line in outcome.history.of("step")]


@pytest.fixture(scope="module")
def whole(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """An uninterrupted run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        return go(text, tmp_path_factory.mktemp("whole") / "out")


def test_the_folder_is_a_model_that_mlx_lm_runs(whole: Outcome) -> None:
    from mlx_lm import generate, load

    verify(whole.out)
    model, tokenizer = load(str(whole.out), trust_remote_code=True)
    assert isinstance(generate(model, tokenizer, "the ", max_tokens=3), str)
    ours = axon_compose.load_model(whole.out)
    tokens = mx.array([list(b"the 3 of the 4")])
    assert mx.allclose(model(tokens), ours(tokens), atol=1e-5)
    assert not (whole.out / "training.safetensors").exists()


def test_the_record_has_every_step(whole: Outcome) -> None:
    lines = [json.loads(line) for line in (whole.out / "metrics.jsonl").read_text("utf-8").splitlines()]
    steps = [line for line in lines if line["kind"] == "step"]
    assert [line["step"] for line in steps] == list(range(STEPS))
    assert [line["tokens"] for line in steps] == [32 * (step + 1) for step in range(STEPS)]
    assert {"loss", "learning_rate", "gradient_norm", "seconds", "flops"} <= steps[0].keys()
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    assert [line["step"] for line in evaluations] == [0, STEPS]
    assert evaluations[1]["loss"] < evaluations[0]["loss"]
    assert whole.held_out == evaluations[1]["loss"]
    assert whole.finished
    assert whole.steps == STEPS
    assert json.loads(json.dumps(whole.to_dict()))["loss"] == steps[-1]["loss"]


def test_ctrl_c_saves_and_a_resumed_run_is_the_same_to_the_bit(whole: Outcome, text: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    ear = Ear(lambda step: os.kill(os.getpid(), signal.SIGINT) if step == 2 else None)
    stopped = go(text, tmp_path / "out", listeners=[ear])
    assert signal.getsignal(signal.SIGINT) is before
    assert not stopped.finished
    assert stopped.steps == 3
    assert axon_compose.load_model(stopped.out) is not None
    done = go(text, tmp_path / "out", resume=True)
    assert done.finished
    assert losses(done) == losses(whole)
    got, wanted = weights(done.out), weights(whole.out)
    assert all(np.array_equal(got[name], wanted[name]) for name in wanted)


def test_a_killed_run_goes_on_from_its_last_checkpoint(whole: Outcome, text: Path, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(step: int) -> None:
        if step == 6:
            raise Killed

    with pytest.raises(Killed):
        go(text, tmp_path / "out", listeners=[Ear(kill)], cadence=Cadence(evaluations=0, samples=0, checkpoints=4))
    written = (tmp_path / "out" / "metrics.jsonl").read_text("utf-8").splitlines()
    assert len([line for line in written if '"step"' in line]) > 6
    done = go(text, tmp_path / "out", resume=True)
    assert losses(done) == losses(whole)
    assert [line["step"] for line in done.history.of("step")] == list(range(STEPS))


def test_what_is_finished_cannot_be_resumed(whole: Outcome, text: Path) -> None:
    with pytest.raises(CheckpointError) as raised:
        go(text, whole.out, resume=True)
    assert raised.value.diagnostic.code == "AX801"


def test_a_run_with_other_texts_is_not_resumed(text: Path, tmp_path: Path) -> None:
    ear = Ear(lambda step: signal.raise_signal(signal.SIGTERM) if step == 0 else None)
    go(text, tmp_path / "out", listeners=[ear])
    other = tmp_path / "other.txt"
    other.write_text("something else " * 40, "utf-8")
    with pytest.raises(CheckpointError) as raised:
        go(other, tmp_path / "out", resume=True)
    assert raised.value.diagnostic.code == "AX804"
    assert raised.value.details == ("the texts, the tokenizer or the task are not those of the beginning",)


def test_what_comes_between_the_steps(text: Path, tmp_path: Path) -> None:
    ear = Ear()
    cadence = Cadence(evaluations=4, samples=2, checkpoints=2, prompt="the ", sample_tokens=5)
    done = go(text, tmp_path / "out", listeners=[ear], cadence=cadence, pages=lambda history: {"page.html": b"<p>"})
    middle = ["evaluation", "sample", "checkpoint"]
    assert ear.heard == [
        "evaluation", "checkpoint", "step", "step", "evaluation", "step", "step", *middle,
        "step", "step", "evaluation", "step", "step", *middle,
    ]  # fmt: skip
    assert done.sample is not None
    assert done.sample.startswith("the ")
    assert (done.out / "page.html").read_bytes() == b"<p>"
    assert "page.html" in verify(done.out)["files"]


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from axon_compose.learn import trainer

    original, calls = trainer.Trainer._accumulated, list[int]()

    def broken(self: Any, batch: Any) -> Any:
        gradients, figures = original(self, batch)
        calls.append(1)
        return (gradients, figures) if len(calls) < 6 else (gradients, {"loss": mx.array(float("nan"))})

    monkeypatch.setattr(trainer.Trainer, "_accumulated", broken)
    with pytest.raises(Diverged, match="the loss is nan in step 5") as raised:
        go(text, tmp_path / "out", cadence=Cadence(evaluations=0, samples=0, checkpoints=4))
    assert raised.value.details == (f"`{tmp_path / 'out'}` is the checkpoint from before step 4",)
    assert all(np.isfinite(value).all() for value in weights(tmp_path / "out").values())
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert go(text, tmp_path / "out", resume=True).finished


def test_a_full_disk_keeps_the_last_checkpoint(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from axon_compose.checkpoints.files import _disk

    def full(step: int) -> None:
        if step == 1:
            monkeypatch.setattr(_disk, "write_chunk", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))

    with pytest.raises(CheckpointError) as raised:
        go(text, tmp_path / "out", listeners=[Ear(full)])
    assert raised.value.diagnostic.code == "AX503"
    assert weights(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_state_that_cannot_be_written_is_said_of_the_folder_that_was_asked_for(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written into a folder that gets its name when it is whole."""

    def full(*_: Any) -> None:
        raise RuntimeError("[write] Unable to write 10 bytes to file.")

    monkeypatch.setattr(mx, "save_safetensors", full)
    with pytest.raises(CheckpointError) as raised:
        go(text, tmp_path / "out")
    assert raised.value.message == f"cannot write `{tmp_path / 'out'}`: [write] unable to write 10 bytes to file."
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_is_refused_before_there_is_a_folder(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from axon_compose.machine import memory

    monkeypatch.setattr(memory, "available", lambda: 100_000)
    with pytest.raises(CheckpointError) as raised:
        go(text, tmp_path / "out")
    assert raised.value.code == "AX401"
    assert "on 2 sequences of 16 tokens at once needs" in raised.value.message
    assert "`--accumulate`" in str(raised.value.help)
    assert not (tmp_path / "out").exists()


def test_two_letters_are_a_text(tmp_path: Path) -> None:
    """So short that nothing of it can be held out."""
    path = tmp_path / "two.txt"
    path.write_text("ab", "utf-8")
    done = go(path, tmp_path / "out", steps=1, recipe=Recipe(batch=1, length=1))
    assert done.finished
    assert done.bits_per_byte is None


def test_it_begins_with_weights(whole: Outcome, text: Path, tmp_path: Path) -> None:
    done = go(text, tmp_path / "out", init=whole.out, steps=1, recipe=Recipe(batch=2, length=16, learning_rate=1e-12))
    first = next(done.history.of("evaluation"))
    assert first["loss"] == pytest.approx(whole.held_out, rel=1e-6)
    got, wanted = weights(done.out), weights(whole.out)
    assert all(np.allclose(got[name], wanted[name], atol=1e-7) for name in wanted)


def test_what_is_frozen_stays(text: Path, tmp_path: Path) -> None:
    done = go(text, tmp_path / "out", steps=2, stack="a a", freeze=["layers.*.mlp", "layers.1.attn.q_proj.weight"])
    got = weights(done.out)
    begun = {name: np.array(value) for name, value in tree_flatten(axon_compose.load(done.out).build().parameters())}
    kept = {name for name in got if np.array_equal(got[name], begun[name])}
    assert {name for name in got if ".mlp." in name} | {"layers.1.attn.q_proj.weight"} == kept
    with pytest.raises(CheckpointError) as raised:
        go(text, tmp_path / "other", freeze=["layers.*.mpl"])
    assert raised.value.diagnostic.code == "AX815"
    assert raised.value.diagnostic.help == "did you mean `layers.*.mlp`?"


def test_a_teacher_is_followed(whole: Outcome, text: Path, tmp_path: Path) -> None:
    """The gap to the teacher's predictions and hidden states closes, also where the text counts for nothing."""
    teaching = Teaching(axon_compose.load_model(whole.out), weight=1.0, layers=((0, 0), (1, 1)))
    done = go(text, tmp_path / "out", steps=30, teaching=teaching, recipe=Recipe(batch=2, length=16, seed=5))
    lines = list(done.history.of("step"))
    for key in ("divergence", "gap_0", "gap_1"):
        assert lines[-1][key] < 0.6 * lines[0][key]


def test_a_teacher_that_does_not_fit(whole: Outcome, text: Path, tmp_path: Path) -> None:
    teacher = axon_compose.load(described(dims={"hidden_size": 48, "vocab_size": 300})).build()
    with pytest.raises(CheckpointError) as raised:
        go(text, tmp_path / "out", teaching=Teaching(teacher, layers=((0, 9),)))
    assert raised.value.diagnostic.code == "AX816"
    for said in ("300 tokens", "48 wide", "no layer 9"):
        assert said in raised.value.diagnostic.message


def test_callbacks_of_mlx_lm_are_told(text: Path, tmp_path: Path) -> None:
    class Told(TrainingCallback):
        def __init__(self) -> None:
            self.train, self.val = list[dict[str, Any]](), list[dict[str, Any]]()

        def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
            self.train.append(train_info)

        def on_val_loss_report(self, val_info: dict[str, Any]) -> None:
            self.val.append(val_info)

    told = Told()
    done = go(text, tmp_path / "out", steps=2, listeners=[CallbackListener(told)])
    assert [line["train_loss"] for line in told.train] == losses(done)
    assert [line["iteration"] for line in told.train] == [1, 2]
    assert told.train[1]["trained_tokens"] == 64
    assert [line["iteration"] for line in told.val] == [0, 2]
    assert told.val[1]["val_loss"] == done.held_out


def test_a_service_is_told(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own files do not stand in the way of the model's folder, which is written anew while the run goes on."""
    from mlx_lm.tuner import callbacks

    began, said = [], list[tuple[int, dict[str, Any]]]()

    class Service:
        @staticmethod
        def init(**given: Any) -> None:
            (Path(given["dir"]) / "wandb").mkdir()
            began.append(given)

        @staticmethod
        def log(values: dict[str, Any], step: int) -> None:
            said.append((step, values))

    (tmp_path / "wandb.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(callbacks, "wandb", Service)
    done = go(text, tmp_path / "out", steps=2, report_to="wandb", project="small")
    assert [(given["project"], given["name"]) for given in began] == [("small", "out")]
    assert began[0]["config"]["learning_rate"] == RECIPE.learning_rate
    assert [values["train_loss"] for _, values in said if "train_loss" in values] == losses(done)
    assert verify(done.out)


def test_services_that_there_are_not(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'tensorboard' is none of wandb, swanlab"):
        reporting_callback("tensorboard", "project", tmp_path, {})
