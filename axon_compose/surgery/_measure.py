"""What a text says about the parts of a model: how much layers do, which experts are chosen, what channels carry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from axon_compose.diagnostics import CheckpointError
from axon_compose.model import LanguageModel, module_at
from axon_compose.plan import Plan, Use
from axon_compose.proof.verify import layer_outputs
from axon_compose.registry import Normal, matching
from axon_compose.surgery._streamed import Streamed
from axon_compose.surgery.texts import few_at_once

__all__ = ["block_influence", "channel_importance", "expert_usage", "measured", "streamed_influence"]

Numbers = npt.NDArray[np.float64]


def block_influence(model: LanguageModel, tokens: npt.NDArray[Any]) -> Numbers:
    r"""How much each layer turns the hidden states: the layers with the least are dropped first.

    With the input x and the output y of a layer, it is the mean over tokens of

    .. math::
        1 - \frac{x \cdot y}{|x| |y|}

    (Men et al. 2024, "ShortGPT", arXiv:2403.03853).

    Args:
        model: Without a residual scheme.
        tokens: (B, L).

    Returns:
        (layers,), float64.

    Raises:
        CheckpointError: AX952 with a residual scheme there is not one hidden state.
    """
    _require_states(model.plan)
    total = np.zeros(len(model.plan.layers))
    for rows in _rows(model, tokens):
        with layer_outputs(model) as seen:
            model.hidden(rows)
        turns = [_turn(x, y) for x, y in pairwise(seen)]
        total += np.array(mx.stack(turns), np.float64) * rows.size
    return np.asarray(total / tokens.size)


def streamed_influence(source: Streamed, tokens: npt.NDArray[Any]) -> Numbers:
    """The same of a model whose weights are in memory a layer at a time; see `block_influence`.

    Args:
        source: The model.
        tokens: (B, L).

    Raises:
        CheckpointError: AX952 with a residual scheme there is not one hidden state.
    """
    _require_states(source.plan)
    passes, found = source.begin(few_at_once(tokens)), []
    for index in range(len(source.plan.layers)):
        after = source.layer(index, passes)
        turns = [float(_turn(x.h, y.h)) * x.values["tokens"].size for x, y in zip(passes, after, strict=True)]
        found.append(sum(turns) / tokens.size)
        passes = after
    return np.array(found)


def _require_states(plan: Plan) -> None:
    if plan.residual:
        message = f"the layers of `{plan.name}` have a residual scheme, not one hidden state each"
        raise CheckpointError("AX952", message, "name the layers yourself")


def _turn(x: mx.array, y: mx.array) -> mx.array:
    """One minus the cosine, mean over tokens; by the distance of unit vectors, which keeps small ones exact."""
    x, y = (each.astype(mx.float32) for each in (x, y))
    x, y = (each / mx.maximum(mx.linalg.norm(each, axis=-1, keepdims=True), 1e-30) for each in (x, y))
    return (x - y).square().sum(axis=-1).mean() / 2


def expert_usage(model: LanguageModel, tokens: npt.NDArray[Any]) -> dict[str, Numbers]:
    """How often each expert is chosen.

    Args:
        model: With mixtures of experts whose records say that they can show their routing (`Learning.load`).
        tokens: (B, L).

    Returns:
        By the path of each mixture, shares (experts,) of all choices, which sum to one.
    """
    routers = [(f"{layer.index}.{use.key}.routing", use) for layer in model.plan.layers for use in layer.uses()
               if use.spec.learning.load]  # fmt: skip
    counts: dict[str, Numbers] = {}
    for rows in _rows(model, tokens):
        _, values = model.observed(rows, routing=True)
        for name, use in routers:
            scores, chosen = values[name]
            found = np.bincount(np.array(chosen).reshape(-1), minlength=scores.shape[-1]).astype(np.float64)
            counts[use.path] = counts.get(use.path, 0.0) + found
    return {path: np.asarray(found / found.sum()) for path, found in counts.items()}


def channel_importance(model: LanguageModel, tokens: npt.NDArray[Any], paths: list[str]) -> dict[str, Numbers]:
    r"""How much each inner channel of a component adds to the residual stream.

    With the channels a that go into the component's last matrix W (which its record marks as `Normal(residual=True)`),
    that of channel j is the root mean square, over tokens, of what it adds:

    .. math::
        \sqrt{\overline{a_j^2}} \, |W_{:, j}|

    (as in Sun et al. 2023, "Wanda", arXiv:2306.11695, for whole columns).

    Args:
        model: The model.
        tokens: (B, L).
        paths: Of the components.

    Returns:
        By path, (channels,).

    Raises:
        CheckpointError: AX952 a component has no such matrix, or computes with it in another way.
    """
    uses = {use.path: use for use in model.plan.uses()}
    places = {path: _last_matrix(uses[path]) for path in paths}
    squares: dict[str, Numbers] = {}
    with _listening(model, places) as heard:
        for rows in _rows(model, tokens):
            mx.eval(model.hidden(rows))
            for path, sums in heard.items():
                squares[path] = squares.get(path, 0.0) + np.array(sums, np.float64)
            heard.clear()
    found = {}
    for path, place in places.items():
        if path not in squares:
            raise _unmeasured(uses[path])
        parent, key = _place(model, place)
        weight = np.array(parent[key].weight.astype(mx.float32), np.float64)
        found[path] = np.sqrt(squares[path] / tokens.size) * np.linalg.norm(weight, axis=0)
    return found


def measured(
    model: LanguageModel, tokens: npt.NDArray[Any], wanted: Mapping[str, str]
) -> dict[str, dict[str, Numbers]]:
    """What transfers need, out of `axon_compose.registry.NEEDS`.

    Args:
        model: The source.
        tokens: (B, L).
        wanted: Paths of the source's components to what is to be measured of each, `usage` or `importance`.

    Returns:
        By path, what `Case.measured` is.

    Raises:
        CheckpointError: AX952 it cannot be measured of a component.
    """
    found: dict[str, dict[str, Numbers]] = {}
    if "usage" in wanted.values():
        usage = expert_usage(model, tokens)
        for path in (path for path, what in wanted.items() if what == "usage"):
            if path not in usage:
                raise _unmeasured(next(use for use in model.plan.uses() if use.path == path))
            found[path] = {"usage": usage[path]}
    carried = [path for path, what in wanted.items() if what == "importance"]
    if carried:
        importance = channel_importance(model, tokens, carried)
        found |= {path: {"importance": importance[path]} for path in carried}
    return found


def _rows(model: LanguageModel, tokens: npt.NDArray[Any]) -> Iterator[mx.array]:
    """A few sequences at a time."""
    model.eval()
    return (mx.array(rows.astype(np.int32)) for rows in few_at_once(tokens))


def _last_matrix(use: Use) -> str:
    """The path of the module whose weight adds to the residual stream."""
    declared = use.spec.learning.initial
    initial = declared(use.options, use.dims) if declared else {}
    names = [
        name
        for name, shape in use.params.items()
        if len(shape) == 2
        and name.endswith(".weight")
        and isinstance(
            first := next((each for pattern, each in initial.items() if matching(name, [pattern])), None), Normal
        )
        and first.residual
    ]
    if len(names) != 1:
        raise _unmeasured(use)
    return f"{use.path}.{names[0].removesuffix('.weight')}"


def _unmeasured(use: Use) -> CheckpointError:
    message = f"{use.who} does not show what has to be measured of it"
    return CheckpointError("AX952", message, "choose an `init` that needs no text; `describe` lists them")


@contextmanager
def _listening(model: LanguageModel, places: Mapping[str, str]) -> Iterator[dict[str, mx.array]]:
    """Sums of squares (channels,) of what goes into modules, by the paths of their components, as it goes on."""
    heard: dict[str, mx.array] = {}
    kept = []
    for path, place in places.items():
        parent, key = _place(model, place)
        kept.append((parent, key, parent[key]))
        parent[key] = _Ear(parent[key], heard, path)
    try:
        yield heard
    finally:
        for parent, key, module in kept:
            parent[key] = module


class _Ear(nn.Module):  # type: ignore[misc]  # mlx.nn has no types
    """Stands in for a linear layer and adds up the squares of what it reads."""

    def __init__(self, module: Any, heard: dict[str, mx.array], path: str) -> None:
        super().__init__()
        self["module"] = module
        object.__setattr__(self, "_heard", heard)
        object.__setattr__(self, "_path", path)

    def __call__(self, x: mx.array) -> Any:
        squares = x.astype(mx.float32).square().reshape(-1, x.shape[-1]).sum(axis=0)
        self._heard[self._path] = self._heard[self._path] + squares if self._path in self._heard else squares
        call: Callable[[mx.array], Any] = self["module"]
        return call(x)

    def __getattr__(self, name: str) -> Any:
        """What else is asked of the layer is its own."""
        if "module" not in self:
            raise AttributeError(name)
        return getattr(self["module"], name)


def _place(model: LanguageModel, place: str) -> tuple[Any, str]:
    """The module that holds one, and its key there."""
    holder, _, key = model.path_of(place).rpartition(".")
    return module_at(model, holder), key
