"""Values of random weights, of the scale that they have in trained models.

An entry is the name of a distribution and its two numbers: `["normal", 1.0, 0.2]`.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

__all__ = ["entry_for", "values"]


def _time_step(rng: Any, low: float, high: float, shape: tuple[int, ...]) -> np.ndarray:
    """Biases whose softplus is log-uniform between `low` and `high`."""
    step = np.exp(rng.uniform(np.log(low), np.log(high), shape))
    return step + np.log(-np.expm1(-step))


#: Each takes a `RandomState` or a `Generator`, two numbers and a shape. Only the first draws integers.
DISTRIBUTIONS: Final[dict[str, Callable[..., np.ndarray]]] = {
    "normal": lambda rng, mean, deviation, shape: mean + deviation * rng.standard_normal(shape),
    "uniform": lambda rng, low, high, shape: rng.uniform(low, high, shape),
    "log_uniform": lambda rng, low, high, shape: np.log(rng.uniform(low, high, shape)),
    "time_step": _time_step,
    "integers": lambda rng, low, high, shape: rng.randint(low, high, shape),
    "indices": lambda rng, low, high, shape: rng.randint(low, high, shape),
}
#: Those that are no floats.
TYPES: Final = {"integers": np.int32, "indices": np.int64}


def values(entry: list[Any], shape: tuple[int, ...], rng: Any) -> np.ndarray:
    """The values of one tensor: float32, int32 for `integers`, int64 for `indices`."""
    kind, first, second = entry
    return np.asarray(DISTRIBUTIONS[kind](rng, first, second, shape), dtype=TYPES.get(kind, np.float32), order="C")


def entry_for(
    name: str, shape: tuple[int, ...], *, tied: bool, initial: float, draws: Mapping[str, list[Any]]
) -> list[Any]:
    """The distribution of a tensor.

    Args:
        name: The tensor's name in the reference's model.
        shape: Its shape.
        tied: Whether the embedding is the head too.
        initial: The size of a new model's values, 0 if all are: norms start at 0 or at 1.
        draws: Distributions for names that match a shell pattern; the last that matches counts.
    """
    matching = [entry for pattern, entry in draws.items() if fnmatch.fnmatch(name, pattern)]
    return matching[-1] if matching else _usual(name, shape, tied, initial)


def _usual(name: str, shape: tuple[int, ...], tied: bool, initial: float) -> list[Any]:
    parent, leaf = ("." + name).split(".")[-2:]
    if leaf == "A_log":
        return ["log_uniform", 1.0, 16.0]
    if leaf == "dt_bias" or (parent == "dt_proj" and leaf == "bias"):
        return ["time_step", 1e-3, 1e-1]
    if leaf == "layer_scalar":
        return ["uniform", 0.5, 1.0]
    if "bias" in leaf:
        return ["normal", 0.0, 0.2]
    if len(shape) <= 1:
        return ["normal", 0.0, 1.0] if leaf == "sinks" else ["normal", 1.0 if initial else 0.0, 0.2]
    if "embed" in name or leaf == "wte":
        return ["normal", 0.0, 1 / math.sqrt(shape[-1]) if tied else 1.0]
    return ["normal", 0.0, (1.5 if parent in ("router", "gate") else 1.0) / math.sqrt(shape[-1])]
