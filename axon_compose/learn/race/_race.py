"""Several models, the same data, order and budget, one step of each at a time."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, TypeAlias

from axon_compose.analysis.cost import cost
from axon_compose.checkpoints.places import compile_place
from axon_compose.diagnostics import CheckpointError, Refusal
from axon_compose.learn._stop import Stop
from axon_compose.learn.material import Material
from axon_compose.learn.race._folder import Kept, kept, write
from axon_compose.learn.race._lane import Lane
from axon_compose.learn.race._match import figure, matched
from axon_compose.learn.race._result import Entrant, RaceResult, Run
from axon_compose.learn.race._settings import SWEPT, Settings
from axon_compose.machine.memory import require
from axon_compose.plan import Compiled, Given, Plan, plan_to_dict

__all__ = ["Contender", "Progress", "run"]

#: Called after each round with the runs of the stage that have ended, all of them, and the least part that one of the
#: others has spent of its budget.
Progress: TypeAlias = Callable[[int, int, float], None]
Key: TypeAlias = tuple[str, int, float]
#: Seconds between two savings of states.
_SAVED: Final = 30.0


@dataclass(frozen=True)
class Contender:
    """A model that enters: what its description is given as, and values laid over it.

    Attributes:
        source: A path, a name, a mapping.
        settings: `key.key=value` texts.
        name: What the result calls it; the file's own name unless given.
    """

    source: Given
    settings: tuple[str, ...] = ()
    name: str | None = None


def run(
    contenders: Iterable[Contender],
    material: Material,
    settings: Settings,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> RaceResult:
    """Race models, or go on with a race.

    Args:
        contenders: The models; the first one is what others are made equal to.
        material: What they learn.
        settings: The terms.
        folder: Where everything is kept: the same race goes on there, and models and seeds may be added.
        progress: Called after each round.

    Returns:
        What is known: of all runs, or after a Ctrl-C, which ends the round that is under way, of those so far.

    Raises:
        ArchitectureError: A description has errors.
        CheckpointError: AX910 to AX912, the folder is that of another race or model; AX401, a model does not fit.
        Refusal: AX913, a model cannot be made equal; AX914, two models have one name.
    """
    return _Race(list(contenders), material, settings, folder, progress).run()


class _Race:
    """A race under way: what is known of its runs, by model, seed and learning rate."""

    def __init__(
        self,
        contenders: list[Contender],
        material: Material,
        settings: Settings,
        folder: Path | None,
        progress: Progress | None,
    ) -> None:
        self.material, self.settings, self.folder, self.progress = material, settings, folder, progress
        self.terms = settings.to_dict() | {
            "material": material.name,
            "digest": material.digest,
            "length": material.length,
        }
        self.kept = kept(folder, self.terms) if folder else Kept()
        self.runs: dict[Key, Run] = dict(self.kept.runs)
        self.plans: dict[str, Plan] = {}
        self.entrants: dict[str, Entrant] = {}
        self.first: Compiled
        for contender in contenders:
            self._enter(contender)
        self.written = time.monotonic()

    def run(self) -> RaceResult:
        rates, seeds = self.settings.rates, range(self.settings.seeds)
        with Stop() as stop:
            if len(rates) > 1:
                self._go([(name, SWEPT, rate) for name in self.plans for rate in rates], stop)
            if not stop.asked:
                self._go([(name, seed, self._rate(name)) for seed in seeds for name in self.plans], stop)
        return self._result()

    # Models.

    def _enter(self, contender: Contender) -> None:
        """Compile a model with the vocabulary of the material, and make it equal to the first."""

        def make(dims: Mapping[str, int]) -> Compiled:
            laid = {"vocab_size": self.material.vocab_size, **dims}
            texts = (f"dims.{name}={value}" for name, value in laid.items())
            return compile_place(contender.source, settings=[*contender.settings, *texts])

        length, equal = self.material.length, self.settings.match if self.plans else None
        target = figure(self.first, equal, length) if equal else 0
        dims = matched(make, equal, target, length, self.settings.scale) if equal else {}
        compiled = make(dims)
        off = figure(compiled, equal, length) / target - 1 if equal else 0.0
        name = contender.name or compiled.name
        if name in self.plans:
            raise Refusal("AX914", f"two models are called `{name}`", "give each file a `name` of its own")
        if not self.plans:
            self.first = compiled
        entrant = _entrant(name, compiled.plan(), length, dims, off)
        before = self.kept.entrants.get(name)
        if before and before.digest != entrant.digest:
            hint = "give the changed model another `name`, or the race another `--folder`"
            raise CheckpointError("AX912", f"`{name}` is another model than the one of `{self.folder}`", hint)
        self.plans[name], self.entrants[name] = compiled.plan(), entrant

    # Runs.

    def _go(self, keys: list[Key], stop: Stop) -> None:
        """Move all runs of a stage on, each a step at a time; each round another one begins."""
        open_ = [key for key in keys if key not in self.runs or not self.runs[key].over]
        self._require(open_)
        lanes = deque(map(self._lane, open_))
        while lanes and not stop.asked:
            for lane in lanes:
                lane.step()
                self.runs[lane.key] = lane.run
            if ended := [lane for lane in lanes if lane.run.over]:
                self._save(ended)
                lanes = deque(lane for lane in lanes if not lane.run.over)
            lanes.rotate(-1)
            if time.monotonic() - self.written > _SAVED:
                self._save(lanes)
            if self.progress:
                least = min((self.settings.budget.part(lane.trainer.spent) for lane in lanes), default=1.0)
                self.progress(len(keys) - len(lanes), len(keys), least)
        self._save(lanes)

    def _require(self, keys: list[Key]) -> None:
        """Refuse what does not fit: weights and moments of all runs together, activations of one at a time."""
        length, batch = self.material.length, self.settings.batch
        held: dict[str, int] = dict.fromkeys(self.plans, 0)
        passing = 0
        for name in {name for name, _, _ in keys}:
            sheet = cost(self.plans[name], context=length, batch=batch, dtype="float32", training=True, segment=0)
            training = sheet.contexts[0].training
            assert training is not None
            held[name] = (training.weights + training.optimizer) * sum(key[0] == name for key in keys)
            passing = max(passing, training.activations + training.in_flight)
        parts = [*held.items(), ("the step of one run", passing)]
        hint = "fewer `--seeds`, `--rates` or models are fewer runs, and a smaller `--batch` is a smaller step"
        require(sum(held.values()) + passing, f"a race of {len(keys)} runs in turns", parts, hint)

    def _lane(self, key: Key) -> Lane:
        name, seed, rate = key
        states = self.folder / "states" if self.folder else None
        run = self.runs.get(key, Run(name, seed, rate))
        return Lane(run, self.plans[name], self.material, self.settings, states)

    def _save(self, lanes: Iterable[Lane]) -> None:
        """The record first: it knows of all evaluations up to a state, and of the end of a run whose state goes."""
        if self.folder:
            entrants = {**self.kept.entrants, **self.entrants}.values()
            runs = [asdict(run) for run in self.runs.values()]
            write(self.folder, self.terms, [asdict(each) for each in entrants], runs)
        for lane in lanes:
            lane.keep()
        self.written = time.monotonic()

    def _rate(self, name: str) -> float:
        """The learning rate whose run ended with the lowest loss; the smallest where none did."""
        rates = self.settings.rates
        tried = [self.runs.get((name, SWEPT, rate)) for rate in rates]
        ended = [run for run in tried if run and run.done and run.points]
        return min(ended, key=lambda run: run.points[-1].loss).rate if ended else min(rates)

    # What is known.

    def _result(self) -> RaceResult:
        mine = [run for run in self.runs.values() if run.model in self.plans]
        return RaceResult(
            material=self.material.name,
            chance=self.material.chance,
            scored=self.material.scored(self.settings.batch),
            length=self.material.length,
            settings=self.settings,
            entrants=tuple(self.entrants.values()),
            runs=tuple(run for run in mine if run.seed != SWEPT and run.seed < self.settings.seeds),
            sweeps=tuple(run for run in mine if run.seed == SWEPT),
            bits=self.material.bits(1.0),
        )


def _entrant(name: str, plan: Plan, length: int, dims: dict[str, int], off: float) -> Entrant:
    sheet = cost(plan, context=length)
    (context,) = sheet.contexts
    digest = sha256(json.dumps(plan_to_dict(plan), sort_keys=True, default=str).encode()).hexdigest()
    return Entrant(name, digest, sheet.parameters, context.prefill_flops // length, context.cache_bytes, dims, off)
