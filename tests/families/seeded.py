"""Weights of fixtures that are drawn where the tests run, and not kept in the repository.

`tensors.json` of such a fixture has a seed and, for each tensor, its shape and distribution:

    {"seed": 0, "tensors": {"model.norm.weight": [[48], "normal", 1.0, 0.2]}}

The same file gives the same weights everywhere: NumPy's `RandomState` keeps its streams for good.
"""

from __future__ import annotations

import json
import tempfile
import zlib
from pathlib import Path
from shutil import copy
from typing import Any, Final

import numpy as np
from safetensors.numpy import save_file

from tests.families import character_tokenizer, distributions

__all__ = ["complete", "draw", "drawn"]

FIXTURES: Final = Path(__file__).parent / "fixtures"
#: Files that are made here, of which the repository keeps none.
MADE: Final = ("model.safetensors", "tokenizer.json", "tokenizer_config.json")
#: What they are made by, and of.
_CODE: Final = tuple(Path(str(file)) for file in (__file__, character_tokenizer.__file__, distributions.__file__))
_SOURCES: Final = ("config.json", "tensors.json")


def draw(name: str, entry: list[Any], seed: int) -> np.ndarray:
    """The values of one tensor.

    Args:
        name: The tensor's name in the checkpoint, which is part of its seed.
        entry: Its shape, the name of a distribution, and two numbers.
        seed: The seed of the fixture.
    """
    shape, *distribution = entry
    rng = np.random.RandomState([seed, zlib.crc32(name.encode())])
    return distributions.values(distribution, tuple(shape), rng)


def drawn(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of a fixture."""
    found = json.loads((folder / "tensors.json").read_text())
    return {name: draw(name, entry, found["seed"]) for name, entry in found["tensors"].items()}


def complete(fixtures: Path = FIXTURES) -> None:
    """Make the weights and tokenizers of all fixtures that lack them, or that are older than what they are made of."""
    code = max(path.stat().st_mtime for path in _CODE)
    for described in sorted(fixtures.glob("*/tensors.json")):
        folder = described.parent
        if not _is_current(folder, code):
            _make(folder, fixtures.parent / ".cache")


def _is_current(folder: Path, code: float) -> bool:
    newest = max(code, *((folder / name).stat().st_mtime for name in _SOURCES))
    made = [folder / name for name in MADE]
    return all(path.exists() and path.stat().st_mtime >= newest for path in made)


def _make(folder: Path, scratch: Path) -> None:
    """Another run of the tests may read the files that are there: they are made elsewhere, and moved."""
    scratch.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as place:
        made = Path(place)
        copy(folder / "config.json", made)
        character_tokenizer.write_tokenizer(made)
        save_file(drawn(folder), made / "model.safetensors", metadata={"format": "pt"})
        for name in MADE:
            (made / name).replace(folder / name)
