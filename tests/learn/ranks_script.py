"""Two processes that train together; what each of them saw goes into OUT/RANK.json, for `test_training_ranks`."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

import axon_compose
from axon_compose.diagnostics import CheckpointError
from axon_compose.learn import Batch, Budget, Cadence, Recipe, Trainer
from axon_compose.learn.objective import NextTokens
from axon_compose.learn.ranks import Ranks
from axon_compose.learn.trainer import Diverged
from axon_compose.model import LanguageModel
from tests.learn.race.small_race import raced, without_time
from tests.learn.runs import go
from tests.learn.small import Counting, model

STEPS = 3
RECIPE = Recipe(batch=4, length=12, learning_rate=1e-2, warmup=0.1)
EXPERTS = {"type": "moe", "num_experts": 4, "top_k": 2, "intermediate_size": 16}


class Uneven(Counting):
    """The first sequence asks for little and the last ones, those of the last process, for nothing."""

    def at(self, step: int) -> Batch:
        tokens, targets = super().at(step)
        counts = mx.arange(self.length) < mx.array([2, self.length, self.length - 3, 0])[:, None]
        return Batch(tokens, mx.where(counts, targets, -100))


def mixture(**options: Any) -> LanguageModel:
    text = {
        "version": 1,
        "dims": {"hidden_size": 32, "vocab_size": 64},
        "components": {"attn": {"type": "attention", "num_heads": 2}, "moe": EXPERTS | options},
        "blocks": {"a": ["attn", "moe"], "twice": {"branches": ["moe"], "share": "one"}},
        "stack": "a twice*2",
    }
    return axon_compose.load(text).build()


def biased() -> LanguageModel:
    return mixture(score="sigmoid", correction_bias=True)


def odd() -> LanguageModel:
    """A vocabulary and an inner width that two cannot divide."""
    text = {
        "version": 1,
        "dims": {"hidden_size": 15, "vocab_size": 65},
        "components": {
            "attn": {"type": "attention", "num_heads": 3, "head_dim": 6},
            "mlp": {"type": "mlp", "intermediate_size": 21},
        },
        "blocks": {"a": ["attn", "mlp"]},
        "stack": "a*2",
    }
    return axon_compose.load(text).build()


CASES: dict[str, tuple[Callable[[], LanguageModel], Recipe]] = {
    "plain": (model, RECIPE),
    "parts": (model, replace(RECIPE, accumulate=2, clip=0.1, z_loss=1e-3)),
    "muon and segments": (model, replace(RECIPE, optimizer="muon", segment=1)),
    "odd": (odd, replace(RECIPE, optimizer="muon", clip=0.1)),
    "experts by a loss": (mixture, replace(RECIPE, balance_loss=0.5, accumulate=2)),
    "experts by a bias": (biased, replace(RECIPE, balance_rate=0.01, segment=2)),
}
#: Cases that are also run with every process keeping a part of the weights alone; matrices of `odd` cannot be divided.
SHARDED = ("parts", "muon and segments", "experts by a bias", "odd")


def trained(make: Callable[[], LanguageModel], recipe: Recipe, ranks: Ranks | None, **more: Any) -> dict[str, Any]:
    """What is seen of some steps."""
    trainer = Trainer(make(), Uneven(), recipe, Budget("steps", STEPS), ranks=ranks, **more)
    lines = [trainer.step() for _ in range(STEPS)]
    return {
        "losses": [line.loss for line in lines],
        "norms": [line.gradient_norm for line in lines],
        "more": [line.more for line in lines],
        "held out": trainer.evaluate(accuracy=True),
        "weights": weights(trainer),
    }


def weights(trainer: Trainer) -> list[float]:
    """Some numbers of every parameter; the last process keeps parts alone, where there are parts."""
    with trainer.state.collected():
        if trainer.held.shards and not trainer.ranks.first:
            return []
        return _some(trainer)


def _some(trainer: Trainer) -> list[float]:
    return [float(each) for _, value in tree_flatten(trainer.model.parameters()) for each in np.array(value).flat[:3]]


def diverged(ranks: Ranks) -> str:
    """A loss that is no number in the last process alone."""
    made = model()
    text = NextTokens(made.plan, RECIPE, ranks)

    def broken(model: Any, tokens: mx.array, targets: mx.array) -> Any:
        total, shown = text(model, tokens, targets)
        return total * (float("nan") if ranks.rank else 1.0), shown

    trainer = Trainer(made, Counting(), RECIPE, Budget("steps", STEPS), objective=broken, ranks=ranks)
    try:
        trainer.step()
    except Diverged as error:
        return str(error)
    return "nothing was raised"


def resumed(ranks: Ranks, folder: Path) -> list[list[float]]:
    """Losses of a run, and of its second half by as many processes, and by this one alone."""

    def trainer(ranks: Ranks | None) -> Trainer:
        return Trainer(model(), Uneven(), RECIPE, Budget("steps", 4), ranks=ranks)

    whole = trainer(ranks)
    first = [whole.step().loss for _ in range(2)]
    if ranks.first:
        whole.save(folder)
    found = [[*first, *(whole.step().loss for _ in range(2))]]
    ranks.exchanged(None)
    for together in (ranks, None):
        again = trainer(together)
        again.restore(folder if together is None or ranks.first else folder / "of another machine")
        found.append([*first, *(again.step().loss for _ in range(2))])
    return found


def refused(work: Callable[[], Any]) -> list[str]:
    try:
        work()
    except (CheckpointError, OSError) as error:
        return [type(error).__name__, getattr(error, "code", ""), str(error)]
    return []


def failing(ranks: Ranks, who: int, error: Exception) -> Callable[[], Any]:
    """One process fails, where the others wait for something."""

    def work() -> None:
        with ranks.together():
            if ranks.rank == who:
                raise error
            ranks.in_turn(lambda: ranks.rank)

    return work


def values(ranks: Ranks) -> dict[str, Any]:
    odd = mx.array([-0.0, float("nan"), 1.5]) if ranks.first else mx.zeros((3,))
    shared = ranks.shared({"a": odd, "b": mx.array(7 * (1 - ranks.rank), mx.uint64)})
    return {
        "exchanged": ranks.exchanged({"rank": ranks.rank, "text": "ä" * (1 + 5 * ranks.rank)}),
        "broadcast": ranks.broadcast(0.1 + ranks.rank),
        "sums": ranks.sums(np.array([1e-17, ranks.rank])).tolist(),
        "any": [ranks.any(ranks.rank == 1), ranks.any(False)],
        "shared": [np.array(shared["a"]).view(np.uint32).tolist(), shared["b"].item()],
        "in turn": ranks.in_turn(lambda: ranks.rank),
    }


def step_then(rank: int, number: int, then: Callable[[], Any]) -> Callable[[], None]:
    """Let one process do something once, after a step of its trainer; what puts it back."""
    before, waiting = Trainer.step, [then]

    def step(self: Trainer) -> Any:
        found = before(self)
        if Ranks.launched().rank == rank and found.step == number and waiting:
            waiting.pop()()
        return found

    Trainer.step = step  # type: ignore[method-assign]
    return lambda: setattr(Trainer, "step", before)


def runs(ranks: Ranks, out: Path) -> dict[str, Any]:
    """Runs into folders: one to its end, one that the last process stops and that is continued, one that fails.

    In the first two each process keeps a part of the weights alone.
    """
    text = out / "text.jsonl"
    whole = go(text, out / "whole", fully_shard=True)
    undo = step_then(1, 2, partial(signal.raise_signal, signal.SIGTERM))
    stopped = go(text, out / "run", fully_shard=True)
    undo()
    if ranks.first:
        shutil.copytree(out / "run", out / "alone")
    again = go(text, out / "run", fully_shard=True, resume=True)

    def full(*arguments: Any, **more: Any) -> None:
        raise CheckpointError("AX503", "the disk is full")

    from axon_compose.learn import run

    undo = step_then(0, 1, lambda: setattr(run, "save", full))
    failed = refused(lambda: go(text, out / "failed", cadence=Cadence(evaluations=0, samples=0, checkpoints=4)))
    undo()
    return {
        "losses": [[line["loss"] for line in each.history.of("step")] for each in (whole, again) if ranks.first],
        "stopped": [stopped.steps, stopped.finished, again.steps, again.finished],
        "held out": [whole.held_out, again.held_out],
        "failed": failed,
    }


def races(ranks: Ranks, out: Path) -> list[Any]:
    """A race, and the same again with a stop by the last process after some rounds."""
    whole = raced(rates=(1e-2, 1e-3))
    undo = step_then(1, 2, partial(signal.raise_signal, signal.SIGTERM))
    stopped = raced(rates=(1e-2, 1e-3), folder=out / "race")
    undo()
    again = raced(rates=(1e-2, 1e-3), folder=out / "race")
    unlike = refused(lambda: raced(batch=4 + 4 * ranks.rank))
    known = [sorted(map(repr, without_time(each).items())) for each in (whole, again)]
    return [stopped.finished, again.finished, unlike, *known]


def minutes(ranks: Ranks) -> list[float]:
    """Steps and seconds of a run that ends by the clock, where the last process is slower."""
    trainer = Trainer(model(), Counting(), RECIPE, Budget("minutes", 0.01), ranks=ranks)
    undo = step_then(1, 0, partial(time.sleep, 0.2))
    while not trainer.done:
        trainer.step()
    undo()
    return [trainer.spent.steps, trainer.spent.seconds]


def main(out: Path) -> None:
    ranks = Ranks.launched()
    found: dict[str, Any] = {"size": ranks.size, "values": values(ranks)}
    for name, (make, recipe) in CASES.items():
        found[name] = {"together": trained(make, recipe, ranks), "alone": trained(make, recipe, None)}
        if name in SHARDED:
            found[name]["sharded"] = trained(make, recipe, ranks, sharded=True)
    found["minutes"] = minutes(ranks)
    found["diverged"] = diverged(ranks)
    found["resumed"] = resumed(ranks, out)
    found["refused by the last"] = refused(failing(ranks, 1, CheckpointError("AX501", "no room", "make some", ["so"])))
    found["refused by the first"] = refused(failing(ranks, 0, FileNotFoundError("no such thing")))
    found["refused by all"] = refused(failing(ranks, ranks.rank, CheckpointError("AX501", "no room")))
    found["runs"] = runs(ranks, out)
    found["races"] = races(ranks, out)
    (out / f"{ranks.rank}.json").write_text(json.dumps(found), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
