"""The loop of training, one step at a time: a caller decides what comes between the steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map, tree_map_with_path

from axon_compose.analysis.cost import cost
from axon_compose.diagnostics import CheckpointError
from axon_compose.learn._checkpoint import STATE_FILE
from axon_compose.learn._compiling import pays
from axon_compose.learn._finite import first_not_finite
from axon_compose.learn._state import State
from axon_compose.learn.balance import Balance
from axon_compose.learn.batches import LEFT_OUT, Batch, Batches
from axon_compose.learn.budget import Budget, Spent
from axon_compose.learn.groups import groups_of, make_optimizer, set_learning_rate
from axon_compose.learn.holding import Copied
from axon_compose.learn.judging import answers, evaluating, put_in_order
from axon_compose.learn.loss import cross_entropy
from axon_compose.learn.metrics import Metrics
from axon_compose.learn.objective import NextTokens, Objective
from axon_compose.learn.ranks import Ranks
from axon_compose.learn.recipe import Recipe
from axon_compose.learn.sharding import Sharded
from axon_compose.machine.files import cannot_write
from axon_compose.model import LanguageModel

__all__ = ["Diverged", "Trainer"]


class Diverged(CheckpointError):
    """The loss or the gradient is not a number any more; the weights are those before that step."""


class Trainer:
    """A model, its optimiser and its data, moved one step at a time.

    Several can take turns. A step depends on the model, the recipe, the batch and its number alone: random numbers are
    drawn from the seed and the number of the step.

    Args:
        model: Is trained in place; frozen parameters stay. Left in training mode.
        batches: What it learns from.
        recipe: The defaults of `Recipe` unless given.
        budget: When it is done, and what the learning rate is a function of; 1,000 steps unless given.
        objective: What is made small; `NextTokens` of the recipe unless given. One with an attribute `balance` has the
            load of experts evened out after each step; `options` are plain values that a run is continued with.
        ranks: The processes that train the model together; this one alone unless given. All of them have the same
            model, batches and options: a step is that of one process on the whole batch, but for rounding.
        sharded: Let each of them keep a part of the weights alone; see `axon_compose.learn.sharding`.

    Attributes:
        spent: What it has used so far.
        state: What it is continued from.

    Raises:
        ValueError: If no parameter may move.
    """

    def __init__(
        self,
        model: LanguageModel,
        batches: Batches,
        recipe: Recipe | None = None,
        budget: Budget | None = None,
        *,
        objective: Objective | None = None,
        ranks: Ranks | None = None,
        sharded: bool = False,
    ) -> None:
        self.model, self.batches, self.ranks = model, batches, ranks or Ranks()
        self.recipe, self.budget = recipe or Recipe(), budget or Budget("steps", 1000)
        self.objective: Objective = objective or NextTokens(model.plan, self.recipe, self.ranks)
        self.balance: Balance | None = getattr(self.objective, "balance", None)
        if not tree_flatten(model.trainable_parameters()):
            raise ValueError("every parameter is frozen, there is nothing to train")
        self.spent = Spent()
        self._flops: int | None = None
        model.train()
        put_in_order(model)
        model.update(self.ranks.shared(model.parameters()))
        self.held = _held(model, self.recipe, self.ranks, sharded)
        self.state = State(self)
        self.optimizer = make_optimizer(model, self.recipe, self.ranks if self.held.by_rows else None)
        self._gradients: Callable[..., Any] = self._compiled(self._gradients_of, [model.state, mx.random.state])
        self._apply: Callable[..., Any] = self._compiled(self._apply_to, [model.state, self.optimizer.state])
        self._judge: Callable[..., Any] = self._compiled(self._loss_of, [model.state])

    @property
    def done(self) -> bool:
        """Whether the budget is used up."""
        return self.budget.part(self.spent) >= 1

    def step(self) -> Metrics:
        """Learn from the next batch.

        Raises:
            Diverged: AX803 the loss or the gradient is not finite; the weights are still those before.
        """
        began, step = time.perf_counter(), self.spent.steps
        batch = self.batches.at(step)
        rate = self._learning_rate(batch)
        mx.random.seed((self.recipe.seed * 0x9E3779B97F4A7C15 + step + self.ranks.rank * 0xD1B54A32D192ED03) % 2**64)
        gradients, figures = self._accumulated(batch)
        mx.eval(gradients, figures)  # before their norm, whose sum would keep what every layer has computed again
        set_learning_rate(self.optimizer, rate)
        gradients, norm = self.held.clip(gradients, self.recipe.clip or float("inf"))
        mx.eval(gradients, norm, figures)
        loss, size = float(figures["loss"]), float(norm)
        if not (isfinite(loss) and isfinite(size)):
            raise self._diverged(step, batch, loss, size)
        self._apply(gradients)
        more = self._settled({name: value for name, value in figures.items() if name != "loss"})
        mx.eval(self.model.state, self.optimizer.state)
        self.spent += self._spent_on(batch, self._agreed(time.perf_counter() - began))
        return Metrics(step, loss, rate, size, self.spent, more)

    def evaluate(self, *, accuracy: bool = False) -> dict[str, float]:
        """The mean cross entropy on what is held out, `loss`, and the number of its `tokens`; NaN if there are none.

        Args:
            accuracy: Give `accuracy` too, the part of the targets that have the largest logit. All logits of what is
                computed at once are in memory then.

        Raises:
            Diverged: AX803 the loss is not finite.
        """
        if accuracy:
            return self._judged(self.batches.held_out(), partial(answers, self.model), ("loss", "accuracy"))
        return self._judged(self.batches.held_out(), self._judge)

    def require_finite(self) -> None:
        """Refuse weights that are good for nothing, before they take the place of others.

        Raises:
            Diverged: AX803 the loss of the next batch is not finite.
        """
        self._judged([self.batches.at(self.spent.steps)], self._judge)

    def _judged(
        self, batches: Iterable[Batch], measure: Callable[..., mx.array], names: tuple[str, ...] = ("loss",)
    ) -> dict[str, float]:
        """Means of what a measure gives as sums over the targets, the loss first."""
        sums, number = np.zeros(len(names)), 0
        with self.held.running(), evaluating(self.model):
            for batch in batches:
                found = (np.array(measure(*part), np.float64) for part in self._parts(batch))
                sums = sums + self.ranks.sums(sum(found, np.zeros(len(names))))
                number += int((batch.targets != LEFT_OUT).sum())
                if not isfinite(sums[0]):
                    raise self._diverged(self.spent.steps, batch, float(sums[0]), 0.0)
        means = sums / number if number else sums * float("nan")
        return dict(zip(names, means.tolist(), strict=True)) | {"tokens": number}

    def save(self, folder: Path) -> Path:
        """Write all that is needed to continue, to the bit, into a folder that is there; see `restore`.

        Raises:
            CheckpointError: AX503.
        """
        try:
            return self.write(folder)
        except OSError as error:
            raise cannot_write(folder / STATE_FILE, error) from error

    def write(self, folder: Path) -> Path:
        """`save` into a folder that has another name later, so that the caller says what cannot be written.

        Raises:
            OSError: As on a full disk.
        """
        return self.state.write(folder)

    def restore(self, folder: Path) -> None:
        """Continue from what `save` wrote; of several ranks the first one reads it.

        Raises:
            CheckpointError: AX801 there is nothing to continue from; AX802 it belongs to another model; AX804 it was
                begun with another recipe or budget, other data, or another description of the same parameters.
        """
        self.state.restore(folder)

    def _learning_rate(self, batch: Batch) -> float:
        """That of the next step, at its middle."""
        seconds = self.spent.seconds / max(self.spent.steps, 1)  # how long it will take is guessed from those before
        step = self._spent_on(batch, seconds)
        return self.recipe.learning_rate_at(self.budget.part(self.spent) + self.budget.part(step) / 2)

    def _spent_on(self, batch: Batch, seconds: float) -> Spent:
        sequences, length = batch.tokens.shape
        if self._flops is None:
            (sheet,) = cost(self.model.plan, context=length, batch=sequences).contexts
            self._flops = 3 * sheet.prefill_flops
        return Spent(1, sequences * length, seconds, self._flops)

    def _accumulated(self, batch: Batch) -> tuple[Any, dict[str, mx.array]]:
        """Gradients and figures of a step, each a mean over all targets that count, those of other ranks too."""
        share = self.ranks.size / mx.maximum((batch.targets != LEFT_OUT).sum(), 1).astype(mx.float32)
        parts = self._parts(batch)
        gradients, figures = self._gradients(*next(parts), share)
        for tokens, targets in parts:
            mx.eval(gradients, figures)  # so that only one part's activations are there at a time
            more, shown = self._gradients(tokens, targets, share)
            gradients = tree_map(mx.add, gradients, more)
            figures = {name: value + shown[name] for name, value in figures.items()}
        gradients, values = self.held.mean(gradients, list(figures.values()))
        return gradients, dict(zip(figures, values, strict=True))

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        """The sequences that are computed at once: of each part of the batch, those of this rank."""
        size = -(-batch.tokens.shape[0] // self.recipe.accumulate)
        for start in range(0, batch.tokens.shape[0], size):
            part = self.ranks.rows(Batch(*(each[start : start + size] for each in batch)))
            if part.tokens.size:
                yield part

    def _gradients_of(self, tokens: mx.array, targets: mx.array, share: mx.array) -> tuple[Any, dict[str, mx.array]]:
        def goal(weights: Any) -> tuple[mx.array, dict[str, mx.array]]:
            self.model.update(self.held.taken(self._cast(weights)))
            made_small, shown = self.objective(self.model, tokens, targets)
            return made_small * share, {name: mx.stop_gradient(value) * share for name, value in shown.items()}

        weights = self.model.trainable_parameters()
        try:
            (_, figures), gradients = mx.value_and_grad(goal)(weights)
        finally:
            self.model.update(weights)  # also where a layer raises: traced arrays are of no use to anybody
        return gradients, figures

    def _agreed(self, seconds: float) -> float:
        """How long a step took; where that decides when training ends, by the clock of the first rank."""
        agreed: float = self.ranks.broadcast(seconds) if self.budget.unit == "minutes" else seconds
        return agreed

    def _settled(self, figures: dict[str, mx.array]) -> dict[str, float]:
        """Even out the load of experts by that of the step; figures to show."""
        loads = {name: value for name, value in figures.items() if value.ndim}
        shown = {name: float(value) for name, value in figures.items() if not value.ndim}
        if not self.balance or not loads:
            return shown
        self.balance.settle(self.model, loads)
        return shown | self.balance.shown(loads)

    def _apply_to(self, gradients: Any) -> None:
        self.optimizer.update(self.model, gradients)

    def _loss_of(self, tokens: mx.array, targets: mx.array) -> mx.array:
        return cross_entropy(self.model, self.model.hidden(tokens), targets, gradient=False).nll

    def _cast(self, weights: Any) -> Any:
        """The weights in the type of the computation, but for those that their components keep in float32."""
        name = self.recipe.dtype
        if name == "auto":
            name = "float32" if mx.default_device() == mx.cpu else "bfloat16"
        if name == "float32":
            return weights
        dtype, may_change = getattr(mx, name), self.model.cast_predicate
        return tree_map_with_path(lambda path, value: value.astype(dtype) if may_change(path) else value, weights)

    def _compiled(self, function: Callable[..., Any], state: list[Any]) -> Callable[..., Any]:
        how = self.recipe.compile
        if how == "off" or (how == "auto" and not pays(self.budget, self.batches.tokens_of_step)):
            return function
        compiled: Callable[..., Any] = mx.compile(function, inputs=state, outputs=state)
        return compiled

    def _diverged(self, step: int, batch: Batch, loss: float, norm: float) -> Diverged:
        what = f"the loss is {loss}" if not isfinite(loss) else f"the norm of the gradient is {norm}"
        with self.held.running():
            where = self.ranks.broadcast(first_not_finite(self.model, batch.tokens))
        hint = "lower `learning_rate`, or let it rise over a larger part with `warmup`"
        return Diverged("AX803", f"{what} in step {step}: the first that is not finite is {where}", hint)


def _held(model: LanguageModel, recipe: Recipe, ranks: Ranks, sharded: bool) -> Copied:
    """How the ranks hold the weights."""
    if not sharded or ranks.size == 1:
        return Copied(model, ranks)
    return Sharded(model, ranks, [path for path, group in groups_of(model, recipe).items() if group.matrix])
