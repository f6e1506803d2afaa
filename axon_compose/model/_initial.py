"""The values with which training begins, as the component records declare them."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from axon_compose.plan import Plan, Use
from axon_compose.registry import Constant, Normal, matching

__all__ = ["additions", "initial_values", "set_initial_values"]


def set_initial_values(plan: Plan, model: nn.Module) -> None:
    """Give a model of `plan` the initial values that its components declare, drawn from MLX's random state.

    What is declared by nobody stays as the factories made it.

    Args:
        plan: The model.
        model: Its modules, named as in the plan.
    """
    number = additions(plan)
    values = [(f"{use.path}.{name}", value) for use in plan.uses() for name, value in initial_values(use, number)]
    if values:
        model.update(tree_unflatten(values))


def additions(plan: Plan) -> int:
    """How many outputs are added to the residual stream of a plan, one after the other or at once."""
    return sum(len(branch.members) for layer in plan.layers for branch in layer.branches if branch.adds)


def initial_values(use: Use, number: int) -> Iterator[tuple[str, mx.array]]:
    """Names in a component and values, in the order in which it declares its parameters.

    Args:
        use: The component.
        number: Of outputs that the model adds to its residual stream.
    """
    declared = use.spec.learning.initial
    rules = declared(use.options, use.dims) if declared else {}
    for name, shape in use.params.items():
        match next((rule for pattern, rule in rules.items() if matching(name, (pattern,))), None):
            case Constant(value):
                yield name, mx.full(shape, value)
            case Normal() as rule:
                yield name, mx.random.normal(shape, scale=rule.deviation(shape, number))
