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
from axon_compose.learn.race._processes import Key, Round, divided, exchanged
from axon_compose.learn.race._result import Entrant, RaceResult, Run
from axon_compose.learn.race._settings import SWEPT, Settings
from axon_compose.learn.ranks import Ranks
from axon_compose.machine.memory import require
from axon_compose.model._facts import facts
from axon_compose.model.ranks import differing
from axon_compose.plan import Compiled, Given, Plan, plan_to_dict

__all__ = ["Contender", "Progress", "run"]

#: Called after each round with the runs of the stage that have ended, all of them, and the least part that one of the
#: others has spent of its budget.
Progress: TypeAlias = Callable[[int, int, float], None]
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

    Processes that were launched together, as by `mlx.launch`, each make some of the runs; all of them get the result,
    and the first one writes the record.

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
    ranks = Ranks.launched()
    with ranks.together():
        return _Race(list(contenders), material, settings, folder, progress if ranks.first else None, ranks).run()


class _Race:
    """A race under way: what is known of its runs, by model, seed and learning rate."""

    def __init__(
        self,
        contenders: list[Contender],
        material: Material,
        settings: Settings,
        folder: Path | None,
        progress: Progress | None,
        ranks: Ranks,
    ) -> None:
        self.material, self.settings, self.folder, self.progress = material, settings, folder, progress
        self.ranks = ranks
        self.terms = settings.to_dict() | {
            "material": material.name,
            "digest": material.digest,
            "length": material.length,
        }
        found = kept(folder, self.terms) if folder and ranks.first else Kept()
        self.kept = Kept(ranks.broadcast(found.data))
        self.runs: dict[Key, Run] = dict(self.kept.runs)
        self.plans: dict[str, Plan] = {}
        self.entrants: dict[str, Entrant] = {}
        self.first: Compiled
        for contender in contenders:
            self._enter(contender)
        if ranks.size > 1:
            self._require_alike()
        self.written = time.monotonic()

    def run(self) -> RaceResult:
        rates, seeds = self.settings.rates, range(self.settings.seeds)
        with Stop() as stop:
            sweep = [(name, SWEPT, rate) for name in self.plans for rate in rates] if len(rates) > 1 else []
            if self._go(sweep, stop):
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

    def _require_alike(self) -> None:
        """Refuse to race what is not the same in all processes: AX971."""
        mine = facts(self.first.plan()) | {f"model `{name}`": each.digest for name, each in self.entrants.items()}
        if fault := differing(self.ranks.exchanged(mine | {"set of terms": json.dumps(self.terms)})):
            raise fault

    # Runs.

    def _go(self, keys: list[Key], stop: Stop) -> bool:
        """Move all runs of a stage on, each a step at a time; each round another one begins.

        Returns:
            Whether the next stage may follow: nobody asked for an end.
        """
        open_ = divided(
            [key for key in keys if key not in self.runs or not self.runs[key].over], self._length_of, self.ranks
        )
        self._require(open_)
        lanes = deque(map(self._lane, open_))
        now = self._exchanged(lanes)
        while not (asked := self.ranks.any(stop.asked)) and now.left:
            for lane in lanes:
                lane.step()
            now = self._exchanged(lanes)
            if now.ended or now.due:
                self._save(lanes if now.due else [lane for lane in lanes if lane.run.over])
            lanes = deque(lane for lane in lanes if not lane.run.over)
            lanes.rotate(-1)
            if self.progress:
                self.progress(len(keys) - now.left, len(keys), now.least)
        self._save(lanes)
        return not asked

    def _exchanged(self, lanes: Iterable[Lane]) -> Round:
        """What all processes know after a round: of each other's runs, those that have news."""
        news = [lane.run for lane in lanes if self.runs.get(lane.key) != lane.run]
        parts = [self.settings.budget.part(lane.trainer.spent) for lane in lanes if not lane.run.over]
        due = time.monotonic() - self.written > _SAVED
        now = exchanged(self.ranks, Round(news, len(parts), min(parts, default=1.0), due))
        self.runs |= {(run.model, run.seed, run.rate): run for run in now.news}
        return now

    def _length_of(self, key: Key) -> float:
        """How long a run is, next to others: where steps or tokens are given, its operations say so."""
        same = self.settings.budget.unit in ("minutes", "flops")
        return 1.0 if same else float(max(self.entrants[key[0]].flops, 1))

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
        if self.folder and self.ranks.first:
            entrants = {**self.kept.entrants, **self.entrants}.values()
            runs = [asdict(run) for run in self.runs.values()]
            write(self.folder, self.terms, [asdict(each) for each in entrants], runs)
        self.ranks.exchanged(None)
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
