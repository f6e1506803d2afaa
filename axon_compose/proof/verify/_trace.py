"""What a model computes for some tokens: the logits in two ways, and the hidden states between the layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

__all__ = ["Trace", "layer_outputs", "trace"]


@dataclass(frozen=True)
class Trace:
    """A run of a model.

    Attributes:
        logits: (B, L, vocab_size), of one forward pass.
        cached: The same through the caches, a prompt and then token by token; None if that was not tried.
        hidden: (B, L, D) each: what goes into the first layer, then what every layer gives. Empty if it is not known,
            as where several streams run through the layers.
    """

    logits: mx.array
    cached: mx.array | None = None
    hidden: tuple[mx.array, ...] = ()


def trace(model: nn.Module, tokens: mx.array, steps: int) -> Trace:
    """Run a model that is made as mlx-lm makes its own.

    Args:
        model: Has `layers`, and takes tokens and caches.
        tokens: (B, L).
        steps: How many of the last tokens go one by one through the caches.
    """
    with layer_outputs(model) as hidden:
        logits = model(tokens).astype(mx.float32)
        mx.eval(logits, hidden)
    known = all(isinstance(state, mx.array) and state.ndim == 3 for state in hidden)
    return Trace(logits, _cached(model, tokens, steps), tuple(hidden) if known else ())


def _cached(model: nn.Module, tokens: mx.array, steps: int) -> mx.array:
    """(B, L, vocab_size): a prompt in one piece, then the last tokens one by one."""
    from mlx_lm.models.cache import make_prompt_cache

    cache = make_prompt_cache(model)
    start = tokens.shape[1] - steps
    outputs = [model(tokens[:, :start], cache=cache)] if start else []
    for at in range(start, tokens.shape[1]):
        outputs.append(model(tokens[:, at : at + 1], cache=cache))
        mx.eval(outputs[-1])
    return mx.concatenate(outputs, axis=1).astype(mx.float32)


def _held(model: nn.Module) -> list[Any] | None:
    """The list in which a model keeps its layers, wherever it is: `model.layers` may be a view of it."""
    wanted = list(model.layers)
    for module in model.modules():
        for value in module.values():
            if isinstance(value, list) and len(value) == len(wanted) and all(map(_same, value, wanted)):
                return value
    return None


def _same(one: Any, other: Any) -> bool:
    return one is other


def _hidden(arguments: list[Any]) -> Any:
    """The hidden states among the arguments of a layer: the first array of three axes; None if there is none."""
    return next((value for value in arguments if isinstance(value, mx.array) and value.ndim == 3), None)


@contextmanager
def layer_outputs(model: nn.Module) -> Iterator[list[Any]]:
    """See what goes into the first layer of a model and what every layer gives, while the model is called once.

    Args:
        model: Has `layers`.

    Yields:
        A list that fills during the call; it stays empty where the model does not keep its layers in a list.
    """
    seen: list[Any] = []
    layers = _held(model)
    if layers is None:
        yield seen
        return
    kept = list(layers)
    layers[:] = [_Tap(layer, seen) for layer in kept]
    try:
        yield seen
    finally:
        layers[:] = kept


class _Tap:
    """Stands in for a layer and writes down what it gives, whether it is called by position or by keyword."""

    def __init__(self, layer: nn.Module, seen: list[Any]) -> None:
        self._layer, self._seen = layer, seen

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if not self._seen:
            self._seen.append(_hidden([*arguments, *named.values()]))
        out = self._layer(*arguments, **named)
        self._seen.append(out[0] if isinstance(out, tuple) else out)
        return out

    def __getattr__(self, name: str) -> Any:  # models ask their layers what kind they are
        return getattr(self._layer, name)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # … or by isinstance, as mlx-lm's olmo_hybrid does
        return type(self._layer)
