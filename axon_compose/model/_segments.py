"""Layers as training runs them: with their routing shown, and in segments that are computed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import RLock, get_ident
from typing import Any, Final

import mlx.core as mx
from mlx.utils import tree_map

from axon_compose.plan import Layer, Use

__all__ = ["run_in_segments", "showing_routing"]

Values = dict[str, Any]
#: A layer of the plan, and the module that runs it.
Step = tuple[Layer, Any]
#: What draws random numbers from the state of MLX, unless it is given a key, and where among its arguments the key is.
_DRAWS: Final = {
    "bernoulli": 2,
    "categorical": 4,
    "gumbel": 2,
    "laplace": 4,
    "multivariate_normal": 4,
    "normal": 4,
    "permutation": 2,
    "randint": 4,
    "truncated_normal": 4,
    "uniform": 4,
}
#: Held while functions of MLX are replaced, so that two threads put them back in the right order.
_REPLACING: Final = RLock()


def showing_routing(layer: Layer, module: Any) -> Step:
    """A layer whose mixtures of experts publish their routing, and what runs it."""

    def shown(use: Use) -> Use:
        return replace(use, writes=(*use.writes, "routing")) if use.spec.learning.load else use

    branches = tuple(
        replace(branch, members=tuple(replace(member, use=shown(member.use)) for member in branch.members))
        for branch in layer.branches
    )
    return replace(layer, branches=branches), _As(module, replace(layer, branches=branches))


class _As:
    """A layer's module that runs another layer's plan."""

    def __init__(self, module: Any, layer: Layer) -> None:
        self.owner, self.layer = getattr(module, "owner", module), layer

    def __call__(self, *arguments: Any) -> Any:
        return self.owner(*arguments, self.layer)


def run_in_segments(steps: Sequence[Step], h: Any, masks: Sequence[Any], values: Values, size: int) -> Any:
    """Run layers so that the backward pass keeps what goes into each segment, and computes the rest again.

    Random numbers, as of a dropout, are drawn from a key that goes into a segment like everything else: what is
    computed again has the mask of the first time. (A state that runs on, as in `mlx_lm`'s checkpoints, gives another
    one, and gradients of a model that was never run.)

    Args:
        steps: All layers.
        h: The residual state.
        masks: Of the pass.
        values: Named values so far; what the layers publish is added.
        size: Layers of a segment.

    Returns:
        The residual state after the last layer.
    """
    for start in range(0, len(steps), size):
        h, published = _checkpointed(steps[start : start + size], h, masks, values)
        values.update(published)
    return h


def _checkpointed(steps: Sequence[Step], h: Any, masks: Sequence[Any], values: Values) -> tuple[Any, Values]:
    blocks: dict[str, Any] = {str(index): getattr(module, "owner", module) for index, (_, module) in enumerate(steps)}
    read = {source: values[source] for layer, _ in steps for source in layer.reads if source in values}

    key = mx.random.randint(0, 2**31 - 1, (2,), dtype=mx.uint32)

    def run(weights: Any, h: Any, read: Values) -> tuple[Any, Values]:
        published: Values = {}
        with _holding(blocks, weights), _drawing_from(key):
            for layer, module in steps:
                known = tree_map(_constant, read) | published
                h, more = module(h, masks, None, {source: known[source] for source in layer.reads})
                published |= more
        return h, tree_map(_computed, published)

    weights = {name: block.trainable_parameters() for name, block in blocks.items()}
    out: tuple[Any, Values] = mx.checkpoint(run)(weights, h, read)
    return out


def _constant(value: Any) -> Any:
    """The same; MLX takes whatever goes into a checkpoint for something to differentiate by, token ids too."""
    number = isinstance(value, mx.array) and mx.issubdtype(value.dtype, mx.inexact)
    return value if number or not isinstance(value, mx.array) else mx.stop_gradient(value)


def _computed(value: Any) -> Any:
    """The same; MLX gives the cotangent of an output that is a `stop_gradient` to the one before it."""
    return value + mx.zeros((), value.dtype) if isinstance(value, mx.array) else value


@contextmanager
def _holding(blocks: dict[str, Any], weights: Any) -> Iterator[None]:
    """Let blocks run with other arrays for a while."""
    before = {name: block.trainable_parameters() for name, block in blocks.items()}
    try:
        for name, block in blocks.items():
            block.update(weights[name])
        yield
    finally:
        for name, block in blocks.items():
            block.update(before[name])


@contextmanager
def _drawing_from(key: mx.array) -> Iterator[None]:
    """Draw random numbers from a key for a while: MLX's state can be seeded by an integer alone, which no trace has.

    Other threads draw as before. One that runs a segment too waits for this one.
    """
    keys, thread = _keys(key), get_ident()

    def drawing(function: Callable[..., Any], place: int) -> Callable[..., Any]:
        def draw(*arguments: Any, **named: Any) -> Any:
            given = arguments[place] if len(arguments) > place else named.get("key")
            if given is not None or get_ident() != thread:
                return function(*arguments, **named)
            if len(arguments) > place:
                return function(*arguments[:place], next(keys), *arguments[place + 1 :], **named)
            return function(*arguments, **named | {"key": next(keys)})

        return draw

    with _REPLACING:
        before = {name: getattr(mx.random, name) for name in _DRAWS}
        try:
            for name, place in _DRAWS.items():
                setattr(mx.random, name, drawing(before[name], place))
            yield
        finally:
            for name, function in before.items():
                setattr(mx.random, name, function)


def _keys(key: mx.array) -> Iterator[mx.array]:
    while True:
        key, one = mx.random.split(key)
        yield one
