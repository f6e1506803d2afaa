"""Weights of fixtures that are drawn where the tests run, and not kept in the repository.

`tensors.json` of such a fixture has a seed and, for each tensor, its shape and distribution:

    {"seed": 0, "tensors": {"model.norm.weight": [[48], "normal", 1.0, 0.2]}}

The same file gives the same weights everywhere: NumPy's `RandomState` keeps its streams for good.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors.numpy import save_file

from tests.families.character_tokenizer import write_tokenizer

__all__ = ["complete", "draw", "drawn"]

FIXTURES: Final = Path(__file__).parent / "fixtures"
#: Files that are made here, of which the repository keeps none.
MADE: Final = ("model.safetensors", "tokenizer.json", "tokenizer_config.json")


def _time_step(rng: np.random.RandomState, low: float, high: float, shape: tuple[int, ...]) -> np.ndarray:
    """Biases whose softplus is log-uniform between `low` and `high`."""
    step = np.exp(rng.uniform(np.log(low), np.log(high), shape))
    return step + np.log(-np.expm1(-step))


#: Each takes two numbers and a shape.
DISTRIBUTIONS: Final[dict[str, Callable[..., np.ndarray]]] = {
    "normal": lambda rng, mean, deviation, shape: mean + deviation * rng.standard_normal(shape),
    "uniform": lambda rng, low, high, shape: rng.uniform(low, high, shape),
    "log_uniform": lambda rng, low, high, shape: np.log(rng.uniform(low, high, shape)),
    "time_step": _time_step,
    "integers": lambda rng, low, high, shape: rng.randint(low, high, shape),
    "indices": lambda rng, low, high, shape: rng.randint(low, high, shape),
}


#: Those that are no floats.
_TYPES: Final = {"integers": np.int32, "indices": np.int64}


def draw(name: str, entry: list[Any], seed: int) -> np.ndarray:
    """The values of one tensor: float32, int32 for `integers`, int64 for `indices`.

    Args:
        name: The tensor's name in the checkpoint, which is part of its seed.
        entry: Its shape, the name of a distribution, and two numbers.
        seed: The seed of the fixture.
    """
    shape, kind, first, second = entry
    rng = np.random.RandomState([seed, zlib.crc32(name.encode())])
    values = DISTRIBUTIONS[kind](rng, first, second, tuple(shape))
    return np.asarray(values, dtype=_TYPES.get(kind, np.float32), order="C")


def drawn(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of a fixture."""
    found = json.loads((folder / "tensors.json").read_text())
    return {name: draw(name, entry, found["seed"]) for name, entry in found["tensors"].items()}


def complete(fixtures: Path = FIXTURES) -> None:
    """Make the weights and tokenizers of all fixtures that lack them, or whose `tensors.json` is younger."""
    for described in sorted(fixtures.glob("*/tensors.json")):
        weights = described.with_name("model.safetensors")
        sources = (described, Path(__file__))
        if not weights.exists() or weights.stat().st_mtime < max(path.stat().st_mtime for path in sources):
            write_tokenizer(described.parent)
            partial = described.with_name(f"model.{os.getpid()}.partial")
            save_file(drawn(described.parent), partial, metadata={"format": "pt"})
            partial.replace(weights)
