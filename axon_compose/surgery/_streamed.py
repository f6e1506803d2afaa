"""A model run layer by layer, each layer's weights in memory only while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx.utils import tree_unflatten

from axon_compose.model import module_at, random_weights
from axon_compose.model._calls import call, collapse, expand
from axon_compose.model._forward import make_mask
from axon_compose.plan import Plan, Use

__all__ = ["Passing", "Streamed"]

#: The parameters of a component, by name.
Weights = Callable[[Use], Mapping[str, mx.array]]


@dataclass(frozen=True)
class Passing:
    """A pass between two layers.

    Attributes:
        h: The residual state.
        values: What the layers so far have published, and what belongs to the pass itself.
    """

    h: Any
    values: dict[str, Any]


class Streamed:
    """A model whose weights come and go.

    Args:
        plan: The model.
        weights: Reads them.
    """

    def __init__(self, plan: Plan, weights: Weights) -> None:
        self.plan, self.weights = plan, weights
        self.model = random_weights(plan, as_made=True)  # lazy, and never computed
        self.model.eval()

    @contextmanager
    def holding(self, uses: Iterable[Use]) -> Iterator[None]:
        """Have the weights of some components for a while."""
        kept = []
        for use in uses:
            module = module_at(self.model, use.path)
            kept.append((module, module.parameters()))
            module.update(tree_unflatten(list(self.weights(use).items())))
        try:
            yield
        finally:
            for module, before in kept:
                module.update(before)
            mx.clear_cache()

    def begin(self, parts: Iterable[npt.NDArray[Any]]) -> list[Passing]:
        """What goes into the first layer, of tokens (B, L) each."""
        plan, found = self.plan, []
        with self.holding([plan.embedding, *([plan.residual] if plan.residual else [])]):
            for tokens in parts:
                inputs = mx.array(tokens.astype(np.int32))
                values: dict[str, Any] = {"offset": 0, "tokens": inputs}
                h: Any = self.model._embedded(inputs, values)
                if plan.residual:
                    h = expand(plan.residual, self.model.residual, h)
                mx.eval(h, values)
                found.append(Passing(h, values))
        return found

    def layer(self, index: int, passings: Iterable[Passing]) -> list[Passing]:
        """Passes after a layer."""
        layer = self.plan.layers[index]
        owner = layer if layer.owner is None else self.plan.layers[layer.owner]
        found = []
        with self.holding(owner.uses()):
            for each in passings:
                length = each.values["tokens"].shape[1]
                masks = tuple(make_mask(group, None, length) for group in self.plan.masks)
                read = {source: each.values[source] for source in layer.reads}
                h, published = self.model.layers[index](each.h, masks, None, read)
                mx.eval(h, published)
                found.append(replace(each, h=h, values=each.values | published))
        return found

    @contextmanager
    def ended(self) -> Iterator[Callable[[Passing], mx.array]]:
        """Gives the final hidden states (B, L, D) of a pass after the last layer, while the head has its weights."""
        plan = self.plan
        ends = [plan.embedding, plan.residual, plan.final_norm, plan.head]
        with self.holding([use for use in ends if use is not None]):

            def finish(passing: Passing) -> mx.array:
                shape = (*passing.values["tokens"].shape, int(plan.dims.hidden_size))
                h = passing.h
                if plan.residual:
                    h = collapse(plan.residual, self.model.residual, shape, h)
                return call(plan.final_norm, self.model.norm, shape, h) if plan.final_norm else h

            yield finish
