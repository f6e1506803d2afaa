"""One run of a race: a trainer that is moved step by step, and evaluated at equal parts of its budget."""

from __future__ import annotations

import shutil
from dataclasses import replace
from hashlib import sha256
from math import isfinite
from pathlib import Path

import mlx.core as mx
import numpy as np

from axon_compose.learn._checkpoint import STATE_FILE
from axon_compose.learn.batches import LEFT_OUT, Batches
from axon_compose.learn.race._folder import make_folder
from axon_compose.learn.race._material import Material
from axon_compose.learn.race._result import Point, Run
from axon_compose.learn.race._settings import Settings
from axon_compose.learn.recipe import Recipe
from axon_compose.learn.trainer import Diverged, Trainer
from axon_compose.model import LanguageModel, build
from axon_compose.plan import Plan

__all__ = ["Lane", "judged"]


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
        mx.random.seed(run.seed)  # what a task adds is drawn with the same seed
        model = material.wrapped(build(plan, seed=run.seed))
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

    @property
    def over(self) -> bool:
        """Whether there is nothing left to do."""
        return self.run.done or self.run.fault is not None

    def step(self) -> None:
        """One step of training, and an evaluation where one is due."""
        try:
            self.trainer.step()
        except Diverged as error:
            self.run = replace(self.run, fault=error.message)
            return
        part = self.settings.budget.part(self.trainer.spent)
        if part * self.settings.points >= len(self.run.points) + 1 or self.trainer.done:
            point, done = self._point(), self.trainer.done
            if isfinite(point.loss):
                self.run = replace(self.run, points=(*self.run.points, point), done=done)
            else:
                self.run = replace(self.run, fault=f"the held-out loss is {point.loss} after step {point.step:,}")

    def _point(self) -> Point:
        spent = self.trainer.spent
        loss, accuracy = judged(self.trainer.model, self.trainer.batches)
        return Point(spent.steps, spent.tokens, spent.seconds, spent.flops, loss, accuracy)

    def keep(self) -> None:
        """Write what is needed to go on; what has ended needs nothing."""
        if self.folder is None:
            return
        if self.over:
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            make_folder(self.folder)
            self.trainer.save(self.folder)


def judged(model: LanguageModel, batches: Batches) -> tuple[float, float]:
    """Loss and accuracy over the held-out targets that count, by the logits that the model gives."""
    model.eval()
    try:
        found = np.sum([_sums(model, tokens, targets) for tokens, targets in batches.held_out()], axis=0)
    finally:
        model.train()
        mx.eval(model(mx.zeros((1, 1), mx.int32)))  # its weights are put in order outside of a compiled step
    loss, right, number = found.tolist()
    return loss / number, right / number


def _sums(model: LanguageModel, tokens: mx.array, targets: mx.array) -> list[float]:
    logits = model(tokens).astype(mx.float32)
    counts = targets != LEFT_OUT
    wanted = mx.where(counts, targets, 0)
    score = mx.take_along_axis(logits, wanted[..., None], axis=-1)[..., 0]
    losses = mx.where(counts, mx.logsumexp(logits, axis=-1) - score, 0)
    right = counts & (mx.argmax(logits, axis=-1) == wanted)
    return [float(each.sum()) for each in (losses, right, counts)]
