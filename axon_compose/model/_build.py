"""The fourth stage: a plan to a model, without allocating more than it needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any, Final

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map_with_path

from axon_compose.machine.memory import require
from axon_compose.model._calls import BuildError, blamed, make_module
from axon_compose.model._initial import initial_values, set_initial_values
from axon_compose.model._language_model import LanguageModel
from axon_compose.plan import DTYPES, Plan, Use, number_widths, running_nbytes, weight_nbytes

__all__ = [
    "build",
    "build_nbytes",
    "check_shapes",
    "component_weights",
    "largest_parts",
    "make_module",
    "random_weights",
]

#: How many parameters and components one message names.
_MOST: Final = 10


def build(plan: Plan, *, dtype: str = "float32", seed: int = 0, allow_large: bool = False) -> LanguageModel:
    """Turn a plan into a model with random weights: those that training begins with, as the component records say.

    The weights are lazy: nothing is allocated before the model runs or is saved.

    Args:
        plan: What `resolve_plan` gave.
        dtype: `float32`, `bfloat16` or `float16`; parameters that a component keeps in float32 stay so.
        seed: Of the random weights: the same plan, seed and versions give the same weights.
        allow_large: Do not compare the size with the memory that is free.

    Returns:
        The model, in evaluation mode.

    Raises:
        CheckpointError: If the weights do not fit into memory (`AX401`), naming the layers that weigh most.
        BuildError: If a component's parameters are not those that its spec declares (`AX211`).
        PluginFault: If the code of a component cannot be imported (`AX208`) or raises (`AX212`).
    """
    if not allow_large:
        require(build_nbytes(plan, dtype), f"`{plan.name}` in {dtype}", largest_parts(plan, dtype))
    with blamed(plan):
        model = random_weights(plan, dtype=dtype, seed=seed)
        model.eval()
    return model


def build_nbytes(plan: Plan, dtype: str) -> int:
    """The most bytes that a model with random weights takes until it has run once.

    The numbers of one parameter at a time are drawn in float32.
    """
    drawn = 4 * max(prod(shape) for _, shape in plan.parameters())
    return weight_nbytes(plan, dtype) + max(drawn, running_nbytes(plan, number_widths(plan, dtype)))


def random_weights(plan: Plan, *, dtype: str = "float32", seed: int = 0, as_made: bool = False) -> LanguageModel:
    """The model with lazy random weights, its size unchecked; see `build`.

    Args:
        plan: The model.
        dtype: See `build`.
        seed: See `build`.
        as_made: Leave the parameters as the components' factories make them, instead of the values that training
            begins with.
    """
    with _seeded(seed), blamed(plan):
        model = LanguageModel(plan, make_module)
        check_shapes(plan, model)
        if not as_made:
            set_initial_values(plan, model)
        if DTYPES[dtype] != 4:
            _cast(model, getattr(mx, dtype))
    return model


def component_weights(use: Use, *, seed: int, additions: int) -> dict[str, mx.array]:
    """The lazy weights of one component alone, those that training begins with.

    Args:
        use: The component.
        seed: See `build`.
        additions: How many outputs the model adds to its residual stream; see `Normal`.

    Returns:
        Name to array, in the order of `use.params`.

    Raises:
        BuildError: If the parameters are not those that its spec declares (`AX211`).
        PluginFault: If its code cannot be imported (`AX208`) or raises (`AX212`).
    """
    with _seeded(seed):
        built = dict(tree_flatten(make_module(use).parameters()))
        if {name: tuple(value.shape) for name, value in built.items()} != dict(use.params):
            raise BuildError(f"{use.who} builds other parameters than it declares")
        return {name: built[name] for name in use.params} | dict(initial_values(use, additions))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random numbers of a seed inside; the caller's go on afterwards as if nothing had happened."""
    state: Any = mx.random.state
    high, low = state[0].tolist()
    mx.random.seed(seed)
    try:
        yield
    finally:
        mx.random.seed(high << 32 | low)


def _cast(model: LanguageModel, dtype: mx.Dtype) -> None:
    may_change = model.cast_predicate

    def cast(path: str, value: mx.array) -> mx.array:
        return value.astype(dtype) if may_change(path) and mx.issubdtype(value.dtype, mx.floating) else value

    model.update(tree_map_with_path(cast, model.parameters()))


def check_shapes(plan: Plan, model: nn.Module) -> None:
    """Compare the built parameters with the declared ones.

    Raises:
        BuildError: With what is missing, unexpected or of another shape.
    """
    declared = dict(plan.parameters())
    built = {name: tuple(value.shape) for name, value in tree_flatten(model.parameters())}
    if declared == built:
        return
    faults = dict.fromkeys(declared.keys() - built.keys(), "missing")
    faults |= dict.fromkeys(built.keys() - declared.keys(), "undeclared")
    faults |= {
        name: f"built {built[name]}, declared {declared[name]}:"
        for name in declared.keys() & built.keys()
        if declared[name] != built[name]
    }
    whose = [use.who for use in plan.uses() if any(name.startswith(f"{use.path}.") for name in faults)]
    told = "; ".join(f"{fault} {name}" for name, fault in sorted(faults.items())[:_MOST])
    raise BuildError(f"{' and '.join(whose[:_MOST])} builds other parameters than it declares: {told}")


def largest_parts(plan: Plan, dtype: str = "bfloat16", count: int = 3) -> list[tuple[str, int]]:
    """The components that weigh most, with their bytes."""
    sizes = [(use.path, use.size * DTYPES[dtype]) for use in plan.uses()]
    return sorted(sizes, key=lambda item: -item[1])[:count]
