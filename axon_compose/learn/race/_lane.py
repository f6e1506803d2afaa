"""One run of a race: a trainer that is moved step by step, and evaluated at equal parts of its budget."""

from __future__ import annotations

import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from axon_compose.learn._checkpoint import STATE_FILE
from axon_compose.learn.material import Material
from axon_compose.learn.race._folder import make_folder
from axon_compose.learn.race._result import Point, Run
from axon_compose.learn.race._settings import Settings
from axon_compose.learn.recipe import Recipe
from axon_compose.learn.trainer import Diverged, Trainer
from axon_compose.model import build
from axon_compose.plan import Plan

__all__ = ["Lane"]


class Lane:
    """A run under way.

    Args:
        run: What is known of it so far.
        plan: Its model.
        material: What it learns from.
        settings: The terms.
        folder: Where its state is kept between sessions; None for nowhere.
    """

    def __init__(self, run: Run, plan: Plan, material: Material, settings: Settings, folder: Path | None) -> None:
        self.run, self.settings = run, settings
        self.folder = None if folder is None else folder / sha256(repr(self.key).encode()).hexdigest()[:16]
        recipe = replace(
            Recipe(**dict(settings.recipe)),
            batch=settings.batch,
            length=material.length,
            seed=run.seed,
            learning_rate=run.rate,
        )
        model = material.wrapped(build(plan, seed=run.seed), run.seed)
        self.trainer = Trainer(model, material.batches(settings.batch, run.seed), recipe, settings.budget)
        if self.folder is not None and (self.folder / STATE_FILE).exists():
            self.trainer.restore(self.folder)
        # A record is written before the states: it may know of evaluations that come again.
        known = tuple(point for point in run.points if point.step <= self.trainer.spent.steps)
        self.run = replace(run, points=known)

    @property
    def key(self) -> tuple[str, int, float]:
        """Model, seed and learning rate."""
        return self.run.model, self.run.seed, self.run.rate

    def step(self) -> None:
        """One step of training, and an evaluation where one is due."""
        try:
            self.trainer.step()
            part = self.settings.budget.part(self.trainer.spent)
            if part * self.settings.points >= len(self.run.points) + 1 or self.trainer.done:
                self.run = replace(self.run, points=(*self.run.points, self._point()), done=self.trainer.done)
        except Diverged as error:
            self.run = replace(self.run, fault=error.message)

    def _point(self) -> Point:
        """An evaluation.

        Raises:
            Diverged: The loss is not finite.
        """
        spent, found = self.trainer.spent, self.trainer.evaluate(accuracy=True)
        return Point(spent.steps, spent.tokens, spent.seconds, spent.flops, found["loss"], found["accuracy"])

    def keep(self) -> None:
        """Write what is needed to go on; what has ended needs nothing."""
        if self.folder is None:
            return
        if self.run.over:
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            make_folder(self.folder)
            self.trainer.save(self.folder)
