"""Several devices that share the components of a model, each in a thread of this process, against one that has all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Final

import mlx.core as mx

from axon_compose.devices import TensorPlan, split_plan
from axon_compose.model import in_threads, with_folder_names
from axon_compose.proof.check import _batches, _sequences
from axon_compose.proof.check._batches import left_padded_run
from axon_compose.proof.check._compare import Rows, compare, exact
from axon_compose.proof.check._report import Truth
from axon_compose.proof.check._sequences import plain, run
from axon_compose.proof.check._subject import Subject
from axon_compose.registry import Shard

__all__ = ["Shared", "apart", "caches_on_devices", "devices", "fed", "shared", "ways"]

#: Largest difference, relative to the largest logit, where roundings make less: parts are summed in another order.
_EXACT: Final = 2e-6
#: Tokens in front of the second row of a batch.
_PADDING: Final = 3
#: Truths of caches that are tried on the devices too.
_OF_CACHES: Final = (
    _sequences.one_shot,
    _sequences.chunks,
    _sequences.steps,
    _batches.right_padded,
    _batches.joined,
    _sequences.saved,
    _sequences.trimmed,
)

Way = Callable[[Subject], Rows]


@dataclass(frozen=True, slots=True)
class Shared:
    """How far the logits of several devices are from those of one.

    Attributes:
        tensor: What is split, and why the rest is whole.
        differences: Way in which the tokens are fed, to the largest difference on any device, relative to the largest
            logit.
        limit: What they may be: 2e-6, or four times what a rounding of every weight does to this model.
        places: Way to the first token that is too far off, empty if none is.
    """

    tensor: TensorPlan
    differences: Mapping[str, float]
    limit: float
    places: Mapping[str, str]

    @property
    def worst(self) -> str:
        """The way with the largest difference."""
        return max(self.differences, key=lambda way: self.differences[way])

    @property
    def where(self) -> str:
        """Of the worst way, the first token that is too far off."""
        return self.places[self.worst]


def caches_on_devices(subject: Subject, size: int) -> Truth:
    """What holds of caches on one device holds on several: chunks, batches, padding, saving, trimming.

    Args:
        subject: The model.
        size: Number of devices.
    """

    def work(device: Shard) -> list[Truth]:
        part = _part(subject, device)
        return [truth(part) for truth in _OF_CACHES]

    exact(subject)  # here, for devices that wait for each other cannot wait for one property of Python 3.11 too
    truths = [truth for found in in_threads(size, work) for truth in found]
    failed = [truth for truth in truths if not truth.passed]
    shown = failed[0] if failed else max(truths, key=lambda truth: truth.figure or 0.0)
    names = ", ".join(dict.fromkeys(truth.name for truth in truths))
    detail = f"{shown.name}: {shown.detail}" if failed else names
    claim = f"caches of {size} devices with parts are right"
    return Truth("devices-caches", claim, not failed, shown.figure, shown.limit, detail=detail)


def devices(subject: Subject, size: int) -> Truth:
    """Devices that have a part of each component give what the whole model gives.

    Args:
        subject: The model.
        size: Number of devices.
    """
    found = shared(subject, size)
    figure = found.differences[found.worst]
    split = f"{len(found.tensor.splits)} components split"
    if whole := _whole(subject, found.tensor):
        split += f"; whole: `{'`, `'.join(whole)}`"
    detail = split if figure <= found.limit else "; ".join(filter(None, (found.worst, found.where, split)))
    claim = f"{size} devices with parts give what one gives"
    return Truth("devices", claim, figure <= found.limit, figure, found.limit, detail=detail)


def _part(subject: Subject, device: Shard) -> Subject:
    """The model of a device; it knows what roundings do to the whole one."""
    model = with_folder_names(subject.model)
    model.keep_part(device)
    known = {"rounded": subject.rounded, "unrounded": subject.unrounded}
    return Subject(subject.plan, subject.seed, model=model, **known)


def _whole(subject: Subject, tensor: TensorPlan) -> list[str]:
    """Names of the components that are not split, but for norms and what else is between the others."""
    uses = [use for use in subject.plan.uses() if use.path in tensor.whole]
    return list(dict.fromkeys(use.name for use in uses if use.spec.kind in ("layer", "block", "embedding", "head")))


def shared(subject: Subject, size: int) -> Shared:
    """Run a model whole, and on several devices that have parts of it.

    Args:
        subject: The model, whose weights stay as they are.
        size: Number of devices.

    Raises:
        Refusal: `AX980`, no layer can be split over that number of devices.
    """
    tensor, feeding = split_plan(subject.plan, size), ways(subject)
    rows = _ragged(subject)
    once, alone = apart(plain(subject.forward, subject.sample)), [subject.forward(row) for row in rows]
    limit = exact(subject, _EXACT)

    def work(device: Shard) -> dict[str, Rows]:
        return fed(_part(subject, device), feeding)

    differences, places = dict[str, float](), dict[str, str]()
    for given in in_threads(size, work):
        for name, logits in given.items():
            figure, place = compare(apart(logits), alone if name == "left-padded" else once, limit)
            if name not in differences or not figure <= differences[name]:
                differences[name], places[name] = figure, place
    return Shared(tensor, differences, limit, places)


def ways(subject: Subject) -> dict[str, Way]:
    """Ways to feed a sample of tokens: what they are called, and what they do with a model."""
    tokens, rows = subject.sample, _ragged(subject)
    length = tokens.shape[1]
    prompt = max(1, length - subject.decoded)
    found: dict[str, Way] = {
        "at once": lambda model: plain(model.forward, tokens),
        "chunks": lambda model: [run(model, model.forward, tokens, cycle([7]))],
        "token by token": lambda model: [run(model, model.forward, tokens, [prompt, *[1] * length])],
    }
    if subject.plan.slots:
        found["left-padded"] = lambda model: left_padded_run(model, model.forward, rows, length)
    return found


def fed(part: Subject, feeding: Mapping[str, Way]) -> dict[str, Rows]:
    """What a model gives for the tokens in each of these ways, computed by this thread, for no other one can."""
    found = {name: way(part) for name, way in feeding.items()}
    mx.eval(found)
    return found


def _ragged(subject: Subject) -> Rows:
    """The sample's sequences, of unequal lengths."""
    rows = [subject.sample[:1], subject.sample[1:, _PADDING:]]
    mx.eval(rows)  # here, for a thread cannot compute what another one has begun
    return rows


def apart(batch: Rows) -> Rows:
    """Every sequence of a batch by itself."""
    return [row for rows in batch for row in mx.split(rows, rows.shape[0])]
