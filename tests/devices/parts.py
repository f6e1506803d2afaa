"""A small model and its parts on several devices, which are threads of this process."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import mlx.core as mx

from axon_compose.model import FolderModel, LanguageModel, in_threads, with_folder_names
from axon_compose.plan import compile_source
from axon_compose.proof.check._shrink import registry_of, shrink
from axon_compose.proof.check._subject import Subject
from axon_compose.registry import Shard
from tests.shipped import shipped

#: Divides among no number of devices, other than that of `check`.
VOCABULARY = 97


@cache
def small(name: str) -> Subject:
    """A shipped architecture in small sizes, with weights."""
    plan = shipped(name).plan()
    data = shrink(plan)
    data["dims"]["vocab_size"] = VOCABULARY
    return Subject(compile_source(data, registry=registry_of(plan)).plan())


def part(model: LanguageModel, device: Shard) -> FolderModel:
    """What a device keeps of a model, which stays as it is."""
    copy = with_folder_names(model)
    copy.eval()
    copy.keep_part(device)
    return copy


def together(model: LanguageModel, size: int, run: Callable[[LanguageModel], list[mx.array]]) -> list[list[mx.array]]:
    """What each of several devices gives that run a model together."""

    def work(device: Shard) -> list[mx.array]:
        found = run(part(model, device))
        mx.eval(found)
        return found

    return in_threads(size, work)


def far(found: mx.array, wanted: mx.array) -> float:
    """The largest difference, relative to the largest number."""
    return float((mx.abs(found - wanted).max() / mx.abs(wanted).max()).item())
