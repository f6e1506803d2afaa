"""Which parameters move how: what the component records declare, as optimisers of `mlx.optimizers`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_flatten

from axon_compose.learn.muon import Muon
from axon_compose.learn.ranks import Ranks
from axon_compose.learn.recipe import Recipe
from axon_compose.model import LanguageModel
from axon_compose.plan import Plan, Use

__all__ = ["Group", "Grouped", "groups", "groups_of", "make_optimizer", "set_learning_rate"]

#: Kinds of components whose matrices Muon moves: not tables, the head, or what joins streams.
_HIDDEN: Final = ("layer", "block")


@dataclass(frozen=True, order=True)
class Group:
    """How some parameters move.

    Attributes:
        decays: Whether weight decay pulls at them.
        matrix: Whether they are matrices that Muon may move.
        rate: Factor of the learning rate.
    """

    decays: bool
    matrix: bool
    rate: float = 1.0


def groups(plan: Plan) -> dict[str, Group]:
    """The group of every parameter of a plan, by its name there."""
    return {f"{use.path}.{name}": _group(use, name, shape) for use in plan.uses() for name, shape in use.params.items()}


def _group(use: Use, name: str, shape: tuple[int, ...]) -> Group:
    learning = use.spec.learning
    matrix = use.spec.kind in _HIDDEN and learning.matrix(name, shape)
    return Group(learning.decays(name, shape), matrix, learning.rate(name))


class Grouped(optim.MultiOptimizer):  # type: ignore[misc]
    """An optimiser for each group of parameters, which all follow one learning rate.

    Args:
        members: The group of each optimiser, and the optimiser.
        group_of: The group of every parameter, by its path in the model.
    """

    def __init__(self, members: list[tuple[Group, optim.Optimizer]], group_of: dict[str, Group]) -> None:
        def belongs(group: Group) -> Any:
            return lambda path, value: group_of[path] == group

        super().__init__([each for _, each in members], [belongs(group) for group, _ in members[:-1]])
        self.rates = [group.rate for group, _ in members]

    @property
    def learning_rate(self) -> mx.array:
        """That of parameters whose records ask for no factor."""
        value: mx.array = self.optimizers[0].learning_rate / self.rates[0]
        return value

    @learning_rate.setter
    def learning_rate(self, value: float | mx.array) -> None:
        for each, rate in zip(self.optimizers, self.rates, strict=True):
            each.learning_rate = mx.array(value, mx.float32) * rate


def groups_of(model: LanguageModel, recipe: Recipe) -> dict[str, Group]:
    """The group of every parameter that is to move, by its path in the model.

    Parameters that no record knows, such as those of adapters, decay and are moved by AdamW.

    Args:
        model: With the parameters.
        recipe: Its options; with `optimizer="muon"` the hidden matrices are moved by Muon.
    """
    declared = groups(model.plan)
    unknown = Group(decays=True, matrix=False)
    paths = [path for path, _ in tree_flatten(model.trainable_parameters())]
    group_of = {path: declared.get(model.plan_name(path), unknown) for path in paths}
    if recipe.optimizer != "muon":
        group_of = {path: Group(group.decays, False, group.rate) for path, group in group_of.items()}
    return group_of


def make_optimizer(model: LanguageModel, recipe: Recipe, rows_of: Ranks | None = None) -> Grouped:
    """The optimiser of a model, its state made.

    Args:
        model: With the parameters that are to move.
        recipe: See `groups_of`.
        rows_of: The processes that the rows of Muon's matrices are divided over, if they are.
    """
    group_of = groups_of(model, recipe)
    members = [(group, _made(group, recipe, rows_of)) for group in sorted(set(group_of.values()))]
    optimizer = Grouped(members, group_of)
    optimizer.learning_rate = recipe.learning_rate
    optimizer.init(model.trainable_parameters())
    return optimizer


def _made(group: Group, recipe: Recipe, rows_of: Ranks | None) -> optim.Optimizer:
    decay = recipe.weight_decay if group.decays else 0.0
    if group.matrix:
        return Muon(recipe.learning_rate, weight_decay=decay, rows_of=rows_of)
    betas = [recipe.beta1, recipe.beta2]
    return optim.AdamW(recipe.learning_rate, betas, recipe.epsilon, decay, bias_correction=True)


def set_learning_rate(optimizer: Any, value: float) -> None:
    """Set the learning rate of all groups, before a step."""
    optimizer.learning_rate = mx.array(value, mx.float32)
