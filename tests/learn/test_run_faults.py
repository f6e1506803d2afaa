"""What goes wrong in a run, or was done to its folder, costs no good weights and is said in words."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

import axon_compose
from axon_compose.diagnostics import CheckpointError
from axon_compose.learn import Budget, Cadence, Outcome, Recipe, Teaching, read_task, train
from axon_compose.learn.trainer import Diverged
from tests.helpers import described
from tests.learn.runs import STEPS, go, weights


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(" ".join(f"the {number} of {number * 7}." for number in range(99)), "utf-8")
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


#: Half as wide as those of other runs here, and twice as many: the same parameters.
HEADS = described()["components"] | {"attn": {"type": "attention", "num_heads": 4}}


class StopAfter:
    """A listener that sends this process a SIGTERM after a step."""

    def __init__(self, last: int) -> None:
        self.last = last

    def step(self, metrics: Any, part: float) -> None:
        if metrics.step == self.last:
            signal.raise_signal(signal.SIGTERM)

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None


@pytest.fixture(scope="module")
def whole(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        return go(text, tmp_path_factory.mktemp("whole") / "out")


@pytest.fixture
def stopped(text: Path, tmp_path: Path) -> Path:
    """The folder of a run that was stopped after three steps."""
    outcome = go(text, tmp_path / "out", listeners=[StopAfter(2)])
    assert not outcome.finished
    assert outcome.steps == 3
    return outcome.out


@pytest.mark.parametrize("checkpoints", [0, STEPS])
@pytest.mark.parametrize("evaluations", [0, STEPS])
def test_a_checkpoint_is_not_replaced_by_weights_that_have_no_loss(
    checkpoints: int, evaluations: int, text: Path, tmp_path: Path
) -> None:
    """The step before a checkpoint, or the last one, can be the one that ruins them: its own loss was finite."""
    cadence = Cadence(evaluations=evaluations, samples=0, checkpoints=checkpoints)
    for steps in (1, STEPS):
        out, recipe = tmp_path / str(steps), Recipe(batch=2, length=16, learning_rate=1e30, schedule="constant")
        with pytest.raises(Diverged) as raised:
            go(text, out, cadence=cadence, recipe=recipe, budget=Budget("steps", steps))
        assert raised.value.details == (f"`{out}` is the checkpoint from before step 0",)
        assert max(np.abs(value).max() for value in weights(out).values()) < 100
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
        assert all(np.isfinite(line["loss"]) for line in lines)


def test_the_record_of_a_task_has_no_loss_that_is_not_finite(tmp_path: Path) -> None:
    """An evaluation comes before a checkpoint, and has the weights that the last step has ruined."""
    recipe = Recipe(batch=2, learning_rate=1e30, schedule="constant")
    with pytest.raises(Diverged):
        go(read_task("parity:length=8"), tmp_path / "out", cadence=Cadence(evaluations=STEPS), recipe=recipe)
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "evaluation"] == [0]
    assert all(np.isfinite(line["loss"]) for line in lines)


def test_weights_that_are_not_numbers_are_no_beginning(whole: Outcome, text: Path, tmp_path: Path) -> None:
    model = axon_compose.load_model(whole.out)
    model.norm.weight = model.norm.weight * float("nan")
    axon_compose.save(model, tmp_path / "nan")
    with pytest.raises(Diverged, match=r"the weight `norm\.weight`"):
        go(text, tmp_path / "out", init=tmp_path / "nan")
    assert not (tmp_path / "out").exists()


def test_a_run_that_was_stopped_has_no_loss_of_other_weights(text: Path, tmp_path: Path) -> None:
    outcome = go(text, tmp_path / "out", listeners=[StopAfter(2)])
    assert next(outcome.history.of("evaluation"))["step"] == 0
    assert outcome.held_out is None
    assert outcome.bits_per_byte is None


def test_a_record_that_was_cut_off_is_taken_up(stopped: Path, whole: Outcome, text: Path) -> None:
    path = stopped / "metrics.jsonl"
    sample = {"kind": "sample", "step": 3, "tokens": 0, "text": "a\u2028b\x85c"}  # ends of lines, for `splitlines`
    lines = path.read_text("utf-8").split("\n")[:-1]
    steps = [json.loads(line) for line in lines if json.loads(line)["kind"] == "step"]
    lines += [json.dumps(sample, ensure_ascii=False), json.dumps(steps[-1] | {"step": 3, "loss": 0.0}), lines[-1][:20]]
    path.write_text("\n".join(lines), "utf-8")
    outcome = go(text, stopped, resume=True)
    found = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    assert [line["loss"] for line in found if line["kind"] == "step"] == [
        line["loss"] for line in whole.history.of("step")
    ]
    assert sample in found
    assert found == outcome.history.lines


@pytest.mark.parametrize("record", [None, "{", "[]", "{}", '{"spent": 3, "options": {}}'])
def test_a_state_without_a_record_is_none(record: str | None, stopped: Path, text: Path) -> None:
    path = stopped / "training.safetensors"
    arrays: Any = mx.load(str(path))
    mx.eval(arrays)
    mx.save_safetensors(str(path), arrays, {} if record is None else {"axon_compose_training": record})
    with pytest.raises(CheckpointError, match="is no state of a run") as raised:
        go(text, stopped, resume=True)
    assert raised.value.diagnostic.code == "AX801"


def test_another_description_with_the_same_parameters_is_another(stopped: Path, text: Path) -> None:
    with pytest.raises(CheckpointError) as raised:
        go(text, stopped, resume=True, components=HEADS)
    assert raised.value.diagnostic.code == "AX804"
    assert raised.value.details == ("the description is not that of the beginning",)


def test_a_teacher_stays_the_same(whole: Outcome, text: Path, tmp_path: Path) -> None:
    teacher = axon_compose.load_model(whole.out)
    go(text, tmp_path / "out", listeners=[StopAfter(0)], teaching=Teaching(teacher, layers=((0, 1),)))
    for teaching, number in ((None, 4), (Teaching(teacher, weight=0.3), 2)):
        with pytest.raises(CheckpointError) as raised:
            go(text, tmp_path / "out", resume=True, teaching=teaching)
        assert raised.value.diagnostic.code == "AX804"
        assert len(raised.value.details) == number
    assert go(text, tmp_path / "out", resume=True, teaching=Teaching(teacher, layers=((0, 1),))).finished


@pytest.mark.parametrize("options", [{"weight": -0.1}, {"weight": float("nan")}, {"temperature": 0.0}])
def test_a_teacher_out_of_range(options: dict[str, float], whole: Outcome) -> None:
    with pytest.raises(ValueError, match=r"from 0 to 1|above 0"):
        Teaching(axon_compose.load_model(whole.out), **options)


def test_files_of_somebody_else_are_seen_before_a_run_goes_on(stopped: Path, text: Path) -> None:
    (stopped / "notes.txt").touch()
    with pytest.raises(CheckpointError, match=r"`notes.txt`") as raised:
        go(text, stopped, resume=True, listeners=[StopAfter(3)])
    assert raised.value.diagnostic.code == "AX502"
    (stopped / "notes.txt").unlink()
    assert go(text, stopped, resume=True).steps == STEPS


def test_what_is_there_is_not_replaced(whole: Outcome, text: Path) -> None:
    with pytest.raises(CheckpointError) as raised:
        go(text, whole.out)
    assert raised.value.diagnostic.code == "AX501"


@pytest.mark.parametrize("checkpoints", [0, STEPS // 2])
def test_a_file_that_comes_into_the_folder_costs_nothing(
    checkpoints: int, whole: Outcome, text: Path, tmp_path: Path
) -> None:
    """Whether the next checkpoint is one in between or the end."""

    class Careless(StopAfter):
        def step(self, metrics: Any, part: float) -> None:
            if metrics.step == self.last:
                (tmp_path / "out" / "notes.txt").touch()

    cadence = Cadence(evaluations=0, samples=0, checkpoints=checkpoints)
    with pytest.raises(CheckpointError) as raised:
        go(text, tmp_path / "out", listeners=[Careless(0)], cadence=cadence)
    assert raised.value.diagnostic.code == "AX502"
    assert raised.value.diagnostic.help == "move those files, and continue with `--resume`"
    (tmp_path / "out" / "notes.txt").unlink()
    outcome = go(text, tmp_path / "out", resume=True, cadence=cadence)
    assert outcome.finished
    found, wanted = weights(outcome.out), weights(whole.out)
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    assert sum(line["kind"] == "step" for line in outcome.history.lines) == STEPS


def test_a_run_that_can_go_on_is_not_replaced_unasked(stopped: Path, text: Path) -> None:
    with pytest.raises(CheckpointError) as raised:
        go(text, stopped)
    assert raised.value.diagnostic.code == "AX501"
    assert "`--resume` continues it" in str(raised.value.diagnostic.help)
    assert go(text, stopped, force=True).finished


def test_weights_are_looked_at_before_tokens_are_made(whole: Outcome, text: Path, tmp_path: Path) -> None:
    for init, said in ((tmp_path / "nowhere", "AX551"), (whole.out, "AX512")):
        with pytest.raises(CheckpointError, match=said):
            train(
                axon_compose.load(described(dims={"hidden_size": 16, "vocab_size": 259}, stack="a s")),
                text, tmp_path / "out", init=init, progress=lambda *done: pytest.fail("too late"),
            )  # fmt: skip
