"""Skill tasks are solvable, unguessable, and a function of seed and step alone."""

from __future__ import annotations

import json
from itertools import chain, product
from typing import Any

import numpy as np
import pytest
from learn.tasks.solvers import SOLVERS

from axon_compose.diagnostics import Refusal
from axon_compose.learn.tasks import Task, read_task
from axon_compose.registry import Registry

BATCH = 64


def _written(name: str, given: Any) -> str:
    options = ",".join(f"{key}={json.dumps(value).strip(chr(34))}" for key, value in given.items())
    return f"{name}:{options}" if options else name


TASKS = Registry.installed().tasks()
CASES = [_written(name.removeprefix("core/"), given) for name, spec in TASKS.items() for given in ({}, *spec.examples)]


def _right(task: Task, tokens: Any, targets: Any) -> float:
    """The accuracy of the hand-made solver over what is scored."""
    solve = SOLVERS[task.name]
    answers = [list(solve(task.options, row)) for row in tokens.tolist()]
    pairs = [
        (answer, target)
        for answer, target in zip(chain(*answers), targets.ravel().tolist(), strict=True)
        if target != -100
    ]
    return float(np.mean([answer == target for answer, target in pairs]))


def test_every_task_has_a_solver() -> None:
    assert {name.removeprefix("core/") for name in TASKS} == set(SOLVERS)


@pytest.mark.parametrize("text", CASES)
@pytest.mark.parametrize("held_out", [False, True])
def test_a_hand_made_solver_gets_all_of_it(text: str, held_out: bool) -> None:
    task = read_task(text)
    tokens, targets = task.draw(8, seed=3, step=5, held_out=held_out)
    assert _right(task, tokens, targets) == 1
    assert tokens.min() >= 0
    assert max(tokens.max(), targets.max()) < task.vocab_size
    assert set(np.unique(targets[targets < 0])) <= {-100}
    assert held_out or tokens.shape[1] == task.length


@pytest.mark.parametrize("text", CASES)
def test_shuffled_targets_give_chance(text: str) -> None:
    """The best answer that is given blindly is no better than the record says, and the solver falls to it."""
    task = read_task(text)
    rng = np.random.default_rng(0)
    tokens, targets = task.draw(BATCH, seed=3, step=5)
    scored = targets != -100
    shuffled = targets.copy()
    shuffled[scored] = rng.permutation(targets[scored])
    n = int(scored.sum())
    share = np.unique(targets[scored], return_counts=True)[1] / n
    wanted = (share**2).sum() if task.name == "memorisation" else task.chance  # its values are not equally frequent
    noise = 5 * np.sqrt(wanted * (1 - wanted) / n) + 2 / n
    assert abs(_right(task, tokens, shuffled) - wanted) < noise


@pytest.mark.parametrize("text", CASES)
def test_no_constant_answer_beats_chance(text: str) -> None:
    """The frequency of each answer, with the error of its mean over sequences."""
    task = read_task(text)
    _, targets = task.draw(BATCH, seed=4, step=0)
    scored = (targets != -100).sum(axis=1)
    for answer in np.unique(targets[targets != -100]):
        share = ((targets == answer).sum(axis=1) / np.maximum(scored, 1))[scored > 0]
        error = np.sqrt(max(share.var(), task.chance / scored.mean()) / len(share))
        assert share.mean() < task.chance + 6 * error


@pytest.mark.parametrize(
    "text", ["memorisation:vocab=4", "memorisation:vocab=4,table=1", "memorisation:vocab=9,table=2"]
)
def test_the_best_constant_answer_to_facts_gets_chance(text: str) -> None:
    """Over all keys, which are few here; two of two facts may have the same value."""
    task = read_task(text)
    tokens, targets = task.draw(64, seed=0, step=0)
    facts = dict(zip(tokens[:, ::2].ravel().tolist(), targets[:, 1::2].ravel().tolist(), strict=True))
    values = list(facts.values())
    assert task.chance == max(values.count(value) for value in values) / len(values)


SMALL = {
    "mqar": {"pairs": (1, 3), "vocab": (4, 7), "length": (None, 13)},
    "induction": {"length": (8, 9, 13), "vocab": (8,)},
    "in-context-recall": {"length": (4, 10), "vocab": (4, 65, 4096)},
    "noisy-recall": {"length": (4, 10), "vocab": (4, 65), "noise": (0, 0.99), "noise_vocab": (1, 5)},
    "fuzzy-recall": {"length": (4, 7, 33), "vocab": (4, 31), "pairs": (1, 50), "motif": (1, 3, 8)},
    "selective-copying": {"length": (2, 9), "copies": (1, 4), "vocab": (2,)},
    "compression": {"length": (2, 3), "vocab": (2,)},
    "memorisation": {"length": (2, 6), "vocab": (4, 5)},
    "parity": {"length": (1, 2)},
    "s3": {"length": (1, 2)},
    "s5": {"length": (1, 2)},
    "needle": {"distance": (1, 2), "facts": (1, 2), "vocab": (4, 5), "filler": (1,)},
    "extrapolation": {"skill": ("parity", "s3", "induction"), "length": (8, 9, 11), "factor": (2, 3, 7)},
}


@pytest.mark.parametrize("name", [name.removeprefix("core/") for name in TASKS])
def test_what_options_allow_can_be_drawn(name: str) -> None:
    """The ends of every range, together: the options are refused, or each sequence of each split has a target."""
    drawn = 0
    for values in product(*SMALL[name].values()):
        try:
            task = read_task(_written(name, dict(zip(SMALL[name], values, strict=True))))
        except Refusal:
            continue
        drawn += 1
        for held_out, step in product((False, True), range(3)):
            tokens, targets = task.draw(4, seed=1, step=step, held_out=held_out)
            assert (targets != -100).any(axis=1).all()
            assert _right(task, tokens, targets) == 1
            assert held_out or tokens.shape[1] == task.length
    assert drawn


@pytest.mark.parametrize("name", [name.removeprefix("core/") for name in TASKS])
def test_batches_are_a_function_of_seed_step_and_split(name: str) -> None:
    task = read_task(name)

    def drawn(**more: Any) -> bytes:
        return b"".join(each.tobytes() for each in task.draw(4, **({"seed": 1, "step": 2} | more)))

    assert drawn() == drawn()
    assert len({drawn(), drawn(seed=2), drawn(step=3), drawn(held_out=True)}) == 4


def test_a_step_of_one_seed_is_no_step_of_another() -> None:
    """A seed is not added to the step: otherwise the next seed would see the same batches one step earlier."""
    task = read_task("mqar")
    seen = {task.draw(2, seed=seed, step=step)[0].tobytes() for seed in range(8) for step in range(8)}
    assert len(seen) == 64


def test_queries_of_mqar_follow_the_power_law() -> None:
    task = read_task("mqar:pairs=4,vocab=64,length=200,power=0.1")
    places = np.concatenate([np.nonzero(task.draw(256, seed=0, step=s)[1] != -100)[1] for s in range(8)])
    first = (places == 8).mean() * 4  # share of sequences that ask at the first place
    p = np.arange(1, 97) ** -0.9
    p = p / p.sum()
    # Inclusion in four draws without replacement, by simulation with NumPy's own.
    rng = np.random.default_rng(1)
    expected = np.mean([0 in rng.choice(96, 4, replace=False, p=p) for _ in range(2000)])
    assert abs(first - expected) < 0.05


@pytest.mark.parametrize("distance", [1, 7, 100])
def test_no_needle_is_nearer_than_it_says(distance: int) -> None:
    task = read_task(f"needle:distance={distance},facts=3")
    tokens, targets = task.draw(32, seed=0, step=0)
    found = [
        at - row.tolist().index(value)
        for row, wanted in zip(tokens, targets, strict=True)
        for at, value in enumerate(wanted)
        if value != -100 and row.tolist().count(value) == 1
    ]
    assert min(found) == distance


def test_extrapolation_scores_what_lies_beyond() -> None:
    task = read_task("extrapolation:skill=parity,length=8,factor=3")
    assert task.draw(2, seed=0, step=0)[0].shape == (2, 8)
    tokens, targets = task.draw(2, seed=0, step=0, held_out=True)
    assert tokens.shape == (2, 24)
    assert (targets[:, :8] == -100).all()
    assert (targets[:, 8:] >= 0).all()


def test_facts_to_memorise_are_those_of_the_table() -> None:
    def facts(table: int, seed: int) -> dict[int, int]:
        tokens, targets = read_task(f"memorisation:vocab=16,table={table}").draw(64, seed=seed, step=0)
        return dict(zip(tokens[:, ::2].ravel().tolist(), targets[:, 1::2].ravel().tolist(), strict=True))

    assert facts(0, 1) == facts(0, 2) != facts(1, 1)


def test_s5_is_the_symmetric_group() -> None:
    from axon_compose.learn.tasks.states import composition

    table = composition(5)
    assert table.shape == (120, 120)
    assert (table[0] == np.arange(120)).all()
    assert (table[:, 0] == np.arange(120)).all()
    assert all(len(set(row)) == 120 for row in (*table, *table.T))
    a, b, c = np.random.default_rng(0).integers(120, size=(3, 200))
    assert (table[table[a, b], c] == table[a, table[b, c]]).all()
    assert (table[a, b] != table[b, a]).any()
