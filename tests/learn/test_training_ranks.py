"""Processes that train together do what one does, end together, and continue each other's runs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import axon_compose
from axon_compose.checkpoints.files import verify
from axon_compose.learn import Recipe, _train
from axon_compose.learn._train import require_memory
from axon_compose.plan import total_parameters
from tests.children import PATIENCE
from tests.helpers import described
from tests.learn import ranks_script
from tests.learn.race.small_race import raced, without_time
from tests.learn.runs import STEPS, go
from tests.ranks import ended, ring

SCRIPT = Path(ranks_script.__file__)
pytestmark = pytest.mark.xdist_group("training-ranks")  # what the processes saw is asked of them once
PATHS = os.pathsep.join(filter(None, sys.path))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the processes write."""
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def seen(out: Path) -> list[dict[str, Any]]:
    """What each of two processes saw."""
    lines = [json.dumps({"text": f"the {number} of the {number + 1} is not the {number * 7}."}) for number in range(60)]
    (out / "text.jsonl").write_text("\n".join(lines), "utf-8")
    variables = {"OPENBLAS_NUM_THREADS": "1", "XDG_CACHE_HOME": str(out / "cache"), "PYTHONPATH": PATHS}
    with ring(out, [[str(SCRIPT), str(out)]] * 2, **variables) as processes:
        said = ended(processes, 2 * PATIENCE)
    files = [out / f"{rank}.json" for rank in range(2)]
    assert all(file.exists() for file in files), "".join(err for _, _, err in said)
    return [json.loads(file.read_text("utf-8")) for file in files]


def test_values_are_exchanged(seen: list[dict[str, Any]]) -> None:
    for found in seen:
        assert found["size"] == 2
        assert found["values"]["exchanged"] == [{"rank": 0, "text": "ä"}, {"rank": 1, "text": "ä" * 6}]
        assert found["values"]["broadcast"] == 0.1
        assert found["values"]["sums"] == [2e-17, 1.0]
        assert found["values"]["any"] == [True, False]
        assert found["values"]["shared"] == [[0x80000000, 0x7FC00000, 0x3FC00000], 7]
    assert [found["values"]["in turn"] for found in seen] == [0, 1]


@pytest.mark.parametrize("case", ranks_script.CASES)
def test_a_step_of_several_processes_is_that_of_one(seen: list[dict[str, Any]], case: str) -> None:
    """Also where the second process has fewer targets than the first, or none."""
    for found in (each[case] for each in seen):
        require_equal(found["together"], found["alone"])
    assert seen[0][case]["together"] == seen[1][case]["together"]


@pytest.mark.parametrize("case", ranks_script.SHARDED)
def test_so_is_one_of_processes_that_keep_parts_of_the_weights(seen: list[dict[str, Any]], case: str) -> None:
    """Also where matrices cannot be divided evenly."""
    require_equal(seen[0][case]["sharded"], seen[0][case]["alone"])
    for name in ("losses", "norms", "more", "held out"):
        assert seen[0][case]["sharded"][name] == seen[1][case]["sharded"][name]


def require_equal(together: dict[str, Any], alone: dict[str, Any]) -> None:
    np.testing.assert_allclose(together["losses"], alone["losses"], rtol=2e-6)
    np.testing.assert_allclose(together["norms"], alone["norms"], rtol=1e-5)
    np.testing.assert_allclose(together["weights"], alone["weights"], atol=2e-5)
    assert together["held out"] == pytest.approx(alone["held out"], rel=2e-6)
    for one, other in zip(together["more"], alone["more"], strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_a_loss_that_is_no_number_in_one_process_ends_all_with_the_same_words(seen: list[dict[str, Any]]) -> None:
    assert "AX803" in seen[0]["diverged"]
    assert seen[0]["diverged"] == seen[1]["diverged"]


def test_a_run_is_continued_by_as_many_processes_to_the_bit_and_by_one_but_for_rounding(
    seen: list[dict[str, Any]],
) -> None:
    for whole, again, alone in (each["resumed"] for each in seen):
        assert again == whole
        assert alone == pytest.approx(whole, rel=2e-6)
        assert len(set(whole)) == 4


def test_an_error_of_one_process_ends_all(seen: list[dict[str, Any]]) -> None:
    own, others = seen[1]["refused by the last"], seen[0]["refused by the last"]
    assert own == ["CheckpointError", "AX501", "error[AX501]: no room\n    so\n  = help: make some"]
    assert others[:2] == ["CheckpointError", "AX806"]
    assert "process 1 has ended: no room (AX501)\n    so\n  = help: make some" in others[2]
    own, others = (each["refused by the first"] for each in seen)
    assert own == ["FileNotFoundError", "", "no such thing"]
    assert "process 0 has ended: no such thing" in others[2]
    assert [each["refused by all"][1] for each in seen] == ["AX501", "AX501"]


def test_a_run_that_one_process_is_asked_to_end_ends_in_all_and_is_continued(seen: list[dict[str, Any]]) -> None:
    for found in (each["runs"] for each in seen):
        assert found["stopped"] == [3, False, STEPS, True]
        assert found["held out"][0] == found["held out"][1]
    whole, again = seen[0]["runs"]["losses"]
    assert again == whole
    assert len(whole) == STEPS


@pytest.mark.usefixtures("seen")
def test_a_run_of_several_processes_is_continued_by_one(
    seen: list[dict[str, Any]], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(out / "cache"))
    alone = go(out / "text.jsonl", out / "alone", resume=True)
    assert alone.finished
    assert [line["loss"] for line in alone.history.of("step")] == pytest.approx(seen[0]["runs"]["losses"][0], rel=1e-5)


def test_only_the_first_process_writes(seen: list[dict[str, Any]], out: Path) -> None:
    """A folder that it cannot write ends the others too."""
    assert seen[0]["runs"]["failed"][1:] == ["AX503", "error[AX503]: the disk is full"]
    assert seen[1]["runs"]["failed"][1] == "AX806"
    verify(out / "whole")
    lines = (out / "whole" / "metrics.jsonl").read_text("utf-8").splitlines()
    assert sum('"kind": "step"' in line for line in lines) == STEPS


def test_a_budget_of_minutes_ends_by_one_clock(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["minutes"] == seen[1]["minutes"]
    assert seen[0]["minutes"][0] > 0


def test_memory_is_asked_for_as_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of weights and moments, and the weights once more while rank 0 writes them, or while a step runs."""
    asked: list[int] = []
    monkeypatch.setattr(_train, "require", lambda needed, *more: asked.append(needed))
    plan = axon_compose.load(described(dims={"hidden_size": 256, "vocab_size": 259}, stack="a*4")).plan()
    recipe, weights = Recipe(batch=4, length=4), 4 * total_parameters(plan)
    require_memory(plan, recipe, 4)
    require_memory(plan, recipe, 4, sharded=True)
    require_memory(plan, recipe, 1, sharded=True)
    require_memory(plan, recipe)
    assert asked[0] > 3 * weights
    assert 1.75 * weights < asked[1] < asked[0] - weights / 2
    assert asked[2] == asked[3]


def test_a_race_in_several_processes_is_that_of_one(seen: list[dict[str, Any]]) -> None:
    alone = sorted(map(repr, without_time(raced(rates=(1e-2, 1e-3))).items()))
    for stopped, again, unlike, whole, continued in (each["races"] for each in seen):
        assert not stopped
        assert again
        assert whole == alone
        assert continued == alone
        assert unlike[1] == "AX971"
        assert "rank 1 has another set of terms than rank 0" in unlike[2]
