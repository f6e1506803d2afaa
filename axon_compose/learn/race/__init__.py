"""Races: several models on the same data, in the same order, with the same budget, one step of each at a time.

What comes in: descriptions, a skill task or text, and `Settings`. What goes out: a `RaceResult`, with
intervals for the differences. It never draws; mlx is imported when models run.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from axon_compose.learn.budget import Budget
from axon_compose.learn.material import Material, TaskMaterial, TextMaterial
from axon_compose.learn.race._result import Entrant, Point, RaceResult, Run, Standing, Verdict
from axon_compose.learn.race._settings import Settings
from axon_compose.machine.lazy import importing

if TYPE_CHECKING:
    from axon_compose.learn.race._race import Contender, Progress

__all__ = [
    "Contender",
    "Entrant",
    "Material",
    "Point",
    "RaceResult",
    "Run",
    "Settings",
    "Standing",
    "TaskMaterial",
    "TextMaterial",
    "Verdict",
    "race",
]


def race(
    models: Iterable[Any],
    *,
    task: str | None = None,
    data: str | Iterable[str] | None = None,
    material: Material | None = None,
    budget: str | Budget = "300steps",
    tokenizer: str = "bytes",
    length: int = 128,
    folder: str | Path | None = None,
    progress: Progress | None = None,
    **terms: Any,
) -> RaceResult:
    """Race several models.

    Args:
        models: What `axon_compose.load` takes: paths, names of shipped architectures, descriptions. `vocab_size`
            becomes that of the task or tokenizer.
        task: A skill task, such as `mqar:pairs=32,vocab=64`; `mqar` unless there is `data`.
        data: Text: files, folders, or `python-docs`.
        material: Either of them, ready.
        budget: Of each run: `300steps`, `20Mtok`, `5min` or `1e14flop`.
        tokenizer: For text: `bytes`, `bpe:N` or a folder.
        length: For text: tokens of a sequence.
        folder: Where everything is kept: the same call goes on there, and models and seeds may be added.
        progress: Called after each round.
        terms: Further fields of `Settings`, such as `seeds`, `rates`, `batch` and `match`.

    Raises:
        ArchitectureError: A description has errors.
        Refusal: AX901 to AX914.
        ValueError: If a term is out of its range, or there is both a task and data.
    """
    from axon_compose.learn.race._race import Contender, run

    if task is not None and data is not None:
        raise ValueError("a race is on a task or on data, not on both")
    if material is None:
        material = (
            TaskMaterial.of("mqar" if task is None else task)
            if data is None
            else TextMaterial.of(data, tokenizer, length)
        )
    settings = Settings(Budget.parse(budget) if isinstance(budget, str) else budget, **terms)
    contenders = [model if isinstance(model, Contender) else Contender(model) for model in models]
    return run(contenders, material, settings, folder=None if folder is None else Path(folder), progress=progress)


# What runs models is imported when it is asked for.
__getattr__ = importing(__name__, {"Contender": "_race"})
