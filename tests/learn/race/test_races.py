"""A race is the runs that each model would have alone; it can be stopped, continued and widened."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from learn.race.small_race import ATTENTION, STATE, described, raced, without_time

from axon_compose.diagnostics import CheckpointError, Refusal
from axon_compose.learn.race import RaceResult
from axon_compose.learn.race._race import Contender
from axon_compose.learn.race._settings import SWEPT


@pytest.fixture(scope="module")
def whole() -> RaceResult:
    """A race of two models, not interrupted."""
    return raced()


def test_taking_turns_changes_no_number(whole: RaceResult) -> None:
    alone = without_time(raced(ATTENTION)) | without_time(raced(STATE))
    assert without_time(whole) == alone


def test_every_run_is_evaluated_as_often_and_ends(whole: RaceResult) -> None:
    assert whole.finished
    assert {(run.model, run.seed) for run in whole.runs} == {(m, s) for m in ("attention", "state") for s in (0, 1)}
    assert all([point.step for point in run.points] == [2, 4] for run in whole.runs)
    assert whole.sweeps == ()


def test_vocabulary_is_that_of_the_task() -> None:
    found = raced(described("a", vocab_size=5000), task="mqar:pairs=2,vocab=12", budget="1steps", seeds=1)
    assert found.entrants[0].parameters < 5000 * 16


def test_rates_are_tried_with_a_seed_of_their_own() -> None:
    found = raced(ATTENTION, rates=(1e-6, 1e-1), seeds=1)
    assert {(run.seed, run.rate) for run in found.sweeps} == {(SWEPT, 1e-6), (SWEPT, 1e-1)}
    best = min(found.sweeps, key=lambda run: run.points[-1].loss)
    (run,) = found.runs
    assert run.rate == best.rate
    assert found.standings()[0].edge


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize("rounds", [1, 3])
def test_stopped_and_continued_it_is_the_same(
    whole: RaceResult, rounds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from axon_compose.learn.trainer import Trainer

    seen, steps, step = 0, [], Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda self: (steps.append(1), step(self))[1])

    def interrupt(ended: int, runs: int, part: float) -> None:
        nonlocal seen
        seen += 1
        if seen == rounds:
            signal.raise_signal(signal.SIGINT)

    stopped = raced(folder=tmp_path, progress=interrupt)
    assert not stopped.finished
    assert all(not verdict.significant for verdict in stopped.verdicts())
    assert len(steps) == 4 * rounds
    continued = raced(folder=tmp_path)
    assert continued.finished
    assert len(steps) == 4 * 4  # it went on, and did not begin anew
    assert without_time(continued) == without_time(whole)
    assert not any((tmp_path / "states").iterdir())


def test_models_and_seeds_are_added_later(whole: RaceResult, tmp_path: Path) -> None:
    raced(ATTENTION, seeds=1, folder=tmp_path)
    before = json.loads((tmp_path / "race.json").read_text())
    added = raced(folder=tmp_path)
    assert without_time(added) == without_time(whole)
    after = json.loads((tmp_path / "race.json").read_text())
    assert before["runs"][0] in after["runs"]


def test_other_terms_are_another_race(tmp_path: Path) -> None:
    raced(ATTENTION, budget="1steps", seeds=1, folder=tmp_path)
    with pytest.raises(CheckpointError) as caught:
        raced(ATTENTION, budget="2steps", seeds=1, folder=tmp_path)
    assert caught.value.code == "AX911"
    assert "budget" in caught.value.details[0]
    with pytest.raises(CheckpointError) as caught:
        raced(described("attention", hidden_size=32), budget="1steps", seeds=1, folder=tmp_path)
    assert caught.value.code == "AX912"


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"form": 2}', '{"form": 1, "terms": {}, "entrants": [{}], "runs": []}']
)
def test_what_is_no_record_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "race.json").write_text(text)
    with pytest.raises(CheckpointError) as caught:
        raced(ATTENTION, budget="1steps", seeds=1, folder=tmp_path)
    assert caught.value.code == "AX910"


def test_a_text_that_has_changed_is_another_race(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is the same, and so is the number of its tokens; runs that have ended would be compared with it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text = tmp_path / "text.txt"
    terms: dict[str, Any] = {"task": None, "data": str(text), "length": 8, "budget": "1steps", "seeds": 1}
    text.write_text("the cat sat on the mat\n" * 40)
    raced(ATTENTION, folder=tmp_path / "kept", **terms)
    text.write_text("the dog sat on the mat\n" * 40)
    with pytest.raises(CheckpointError) as caught:
        raced(ATTENTION, STATE, folder=tmp_path / "kept", **terms)
    assert caught.value.code == "AX911"


@pytest.mark.parametrize("at", range(5))
def test_killed_between_two_files_and_continued_it_is_the_same(
    whole: RaceResult, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every round is saved; the process ends before the n-th file of the third saving."""
    from axon_compose.learn.race import _race
    from axon_compose.learn.race._lane import Lane

    class Killed(BaseException):
        pass

    files = 0

    def counted(function: Any) -> Any:
        def write(*arguments: Any) -> None:
            nonlocal files
            files += 1
            if files == 2 * 5 + at + 1:
                raise Killed
            function(*arguments)

        return write

    with monkeypatch.context() as patched:
        patched.setattr(_race, "_SAVED", -1.0)
        patched.setattr(_race, "write", counted(_race.write))
        patched.setattr(Lane, "keep", counted(Lane.keep))
        with pytest.raises(Killed):
            raced(folder=tmp_path)
    assert without_time(raced(folder=tmp_path)) == without_time(whole)


def test_a_loss_that_is_no_number_ends_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last step may be the one that ruins the weights; that rate must not win, nor the result hold a NaN."""
    from axon_compose.learn.trainer import Trainer

    step = Trainer.step

    def ruined(self: Trainer) -> Any:
        metrics = step(self)
        if self.model.plan.name == "state":
            self.model.norm.weight = self.model.norm.weight * float("nan")
        return metrics

    monkeypatch.setattr(Trainer, "step", ruined)
    found = raced(rates=(1e-3, 1e-2), seeds=1)
    assert found.finished
    ended = [run for run in (*found.runs, *found.sweeps) if run.fault]
    assert {run.model for run in ended} == {"state"}
    assert all("the loss is nan in step" in str(run.fault) for run in ended)
    json.dumps(found.to_dict(), allow_nan=False)


def test_two_models_of_one_name_are_refused() -> None:
    with pytest.raises(Refusal) as caught:
        raced(ATTENTION, ATTENTION)
    assert caught.value.code == "AX914"
    found = raced(ATTENTION, Contender(ATTENTION, name="again"), budget="1steps", seeds=1)
    assert without_time(found)[("attention", 0, 1e-2)] == without_time(found)[("again", 0, 1e-2)]


def test_a_run_that_diverges_does_not_end_the_race(monkeypatch: pytest.MonkeyPatch) -> None:
    from axon_compose.learn.trainer import Diverged, Trainer

    step = Trainer.step

    def failing(self: Trainer) -> Any:
        if self.recipe.seed == 1 and self.model.plan.name == "state" and self.spent.steps == 2:
            raise Diverged("AX803", "the loss is nan in step 2")
        return step(self)

    monkeypatch.setattr(Trainer, "step", failing)
    found = raced()
    assert found.finished
    (ended,) = [run for run in found.runs if run.fault]
    assert (ended.model, ended.seed, ended.fault) == ("state", 1, "the loss is nan in step 2")
    assert not found.verdicts()[0].significant  # one pair is left
    assert ended.points  # it had been evaluated, before the budget was spent
    (whole,) = [run for run in found.runs if run.model == "state" and run.done]
    assert found.standing("state").scores == (found.score(whole.points[-1]),)


def test_matched_models_say_what_is_left() -> None:
    found = raced(match="params", budget="1steps", seeds=1)
    first, second = found.entrants
    assert (first.dims, first.off) == ({}, 0)
    assert abs(second.parameters / first.parameters - 1) <= 0.01
    assert second.off == pytest.approx(second.parameters / first.parameters - 1)


def test_a_width_that_makes_nothing_equal_stays() -> None:
    """Caches depend on heads alone here: no width can halve them, and none may shrink for nothing."""
    heads = {"type": "attention", "num_heads": 2}
    wide = described("wide", heads | {"head_dim": 16})
    found = raced(described("narrow", heads | {"head_dim": 8}), wide, match="state", budget="1steps", seeds=1)
    assert found.entrants[1].dims == {}
    assert found.entrants[1].off == pytest.approx(1.0)


def test_nothing_is_made_equal_to_no_caches() -> None:
    none = described("none") | {"blocks": {"b": ["mlp"]}}
    with pytest.raises(Refusal) as caught:
        raced(none, ATTENTION, match="state")
    assert caught.value.code == "AX913"
    assert "without caches" in caught.value.message


def test_a_task_with_a_head_of_its_own_is_raced() -> None:
    found = raced(task="compression:length=6,vocab=4", seeds=1, budget="30steps", points=1)
    assert found.scored == 8 * 4 * 5
    assert all(run.points[-1].accuracy is not None for run in found.runs)


def test_runs_that_do_not_fit_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each alone would: all have their weights and moments in memory at once."""
    from axon_compose.machine import memory

    monkeypatch.setattr(memory, "available", lambda: 1_000_000)
    raced(ATTENTION, seeds=1, budget="1steps")
    with pytest.raises(CheckpointError) as caught:
        raced(ATTENTION, seeds=40, budget="1steps")
    assert caught.value.code == "AX401"
    assert "a race of 40 runs in turns" in caught.value.message
    assert "fewer `--seeds`" in str(caught.value.help)
    assert "`the step of one run` takes" in caught.value.details[0]


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"seeds": 0}, "seeds"),
        ({"seeds": 10**12}, "seeds"),
        ({"rates": ()}, "rates"),
        ({"rates": (1e-3, 1e-3)}, "rates"),
        ({"points": 0}, "points"),
    ],
)
def test_terms_out_of_range_are_refused(terms: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        raced(ATTENTION, **terms)


def test_a_race_is_on_one_thing() -> None:
    with pytest.raises(ValueError, match="not on both"):
        raced(ATTENTION, data="python-docs")
