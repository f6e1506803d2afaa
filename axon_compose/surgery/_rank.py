"""Which layers can be changed at the least harm: each one alone, measured by what it does to the predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from axon_compose.checkpoints.places import compile_place, is_model_folder
from axon_compose.diagnostics import CheckpointError
from axon_compose.learn.data import PYTHON_DOCS, Sources
from axon_compose.learn.divergence import divergence
from axon_compose.notebook import Printed
from axon_compose.plan import Layer, Plan, cache_nbytes, layer_ranges
from axon_compose.surgery._change import read_change
from axon_compose.surgery._logits import logits_of, pieces
from axon_compose.surgery._make import Maker
from axon_compose.surgery._making import Kept
from axon_compose.surgery._plan import SurgeryPlan, plan_edit
from axon_compose.surgery._records import finite
from axon_compose.surgery._streamed import Passing, Streamed
from axon_compose.surgery.texts import sample_text

__all__ = ["RankedLayer", "Ranking", "rank"]


@dataclass(frozen=True)
class RankedLayer:
    """What changing one layer alone does.

    Attributes:
        index: The layer.
        divergence: Mean KL(source || changed) over tokens, in nats.
        agreement: Part of the tokens after which both find the same next one likeliest.
        saved_bytes: By how much its cache is smaller.
    """

    index: int
    divergence: float
    agreement: float
    saved_bytes: int


@dataclass(frozen=True)
class Ranking(Printed):
    """Layers in the order of harm, the least first.

    Attributes:
        source: Name of the model.
        change: As it was written.
        edit: The edit that it stands for, with the layers that are proposed; without any, with all that were tried.
        text: What was read.
        tokens: How many.
        context: Tokens that caches are counted for, in bfloat16.
        layers: The layers that were tried.
        cache_bytes: Of the model as it is.
        budget: Bytes that its caches shall have at most, if that was asked for.
        chosen: Layers that are proposed; None without a budget.
    """

    source: str
    change: str
    edit: dict[str, Any]
    text: str
    tokens: int
    context: int
    layers: tuple[RankedLayer, ...]
    cache_bytes: int
    budget: int | None
    chosen: tuple[int, ...] | None

    @property
    def left_bytes(self) -> int:
        """Caches with the proposed layers changed."""
        return self.cache_bytes - sum(each.saved_bytes for each in self.layers if each.index in (self.chosen or ()))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return dict(finite(asdict(self))) | {"left_bytes": self.left_bytes}


def rank(
    source: str | Path,
    change: str,
    *,
    weights: str | Path | None = None,
    text: Sources | str | Path | Sequence[str] = PYTHON_DOCS,
    tokenizer: str | Path | None = None,
    sequences: int = 2,
    length: int = 512,
    context: int = 32768,
    budget: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Ranking:
    """Change each layer alone, and see how far the predictions move.

    The model runs once, in float32, one layer's weights in memory at a time. After each layer that is tried, a pass
    with that layer changed goes on beside the others to the end.

    Args:
        source: The model: a folder, a GGUF file, or a description with `weights`.
        change: Such as `attn -> window:512`; see `read_change`.
        weights: Folder of the weights, where the source is none.
        text: Files, folders or `python-docs`.
        tokenizer: `bytes` or a folder; that of the weights unless given.
        sequences: How many.
        length: Tokens of each; a window shows in sequences longer than it.
        context: Tokens that caches are counted for.
        budget: Bytes that the caches of a sequence shall have at most; the proposal takes layers by harm for each byte
            that they save until it is met.
        progress: Called with layers done and in all.

    Raises:
        ArchitectureError: The change is not valid; the places are those of the edit that it stands for.
        CheckpointError: AX955 it cannot be read, or changes nothing; AX956 even with all layers changed the caches are
            larger than the budget; else as `plan_edit` and `receipt_of`.
    """
    place = Path(weights) if weights is not None else Path(source)
    if not is_model_folder(place):
        message = f"`{source}` is no folder with weights"
        raise CheckpointError("AX955", message, "name the folder of its weights: `--weights DIR`")
    compiled = compile_place(str(source), weights)
    edit = read_change(change, compiled.plan())
    file = {"version": 1, "source": str(source), "edits": [edit]}
    plan = plan_edit(file, place, dtype="float32")
    before, after = plan.source.plan(), plan.edited.plan()
    tried = sorted({int(path.split(".")[1]) for path in plan.changed})
    if not tried:
        raise CheckpointError("AX955", f"`{change}` changes no layer of `{before.name}`", "change something else")
    sample = sample_text(
        Sources.of(text), place, int(before.dims.vocab_size), tokenizer=tokenizer, sequences=sequences, length=length
    )
    harms = _harms(plan, tried, sample.tokens, progress)
    saved = {index: _cached(before, before.layers[index], context) - _cached(after, after.layers[index], context)
             for index in tried}  # fmt: skip
    layers = [RankedLayer(index, *harms[index], saved[index]) for index in tried]
    layers.sort(key=lambda each: (each.divergence, each.index))
    whole = cache_nbytes(before, context)
    chosen = None if budget is None else _proposed(layers, whole, budget)
    named = {"layers": layer_ranges(tried if chosen is None else chosen)} if chosen != () else {}
    return Ranking(
        source=before.name,
        change=change,
        edit={"version": 1, "source": str(source), "edits": [named | edit]},
        text=sample.text,
        tokens=sample.tokens.size,
        context=context,
        layers=tuple(layers),
        cache_bytes=whole,
        budget=budget,
        chosen=chosen,
    )


def _harms(
    plan: SurgeryPlan, tried: Sequence[int], tokens: npt.NDArray[Any], progress: Callable[[int, int], None] | None
) -> dict[int, tuple[float, float]]:
    """Divergence and agreement with each layer changed."""
    maker = Maker(plan)
    source = Streamed(plan.source.plan(), lambda use: maker.values(Kept(use), use.params))
    changed = Streamed(plan.edited.plan(), lambda use: maker.values(plan.makings[use.path], use.params))
    passes: dict[int, Passing] = {-1: source.begin([tokens])[0]}  # by the layer that is changed, none in the first
    number = len(plan.source.plan().layers)
    for index in range(number):
        after = dict(zip(passes, source.layer(index, passes.values()), strict=True))
        if index in tried:
            (after[index],) = changed.layer(index, [passes[-1]])
        passes = after
        if progress:
            progress(index + 1, number)
    with source.ended() as finish:
        states = {
            key: finish(each).reshape(-1, int(plan.source.plan().dims.hidden_size)) for key, each in passes.items()
        }
        sums = {key: np.zeros(2) for key in tried}
        for piece in pieces(tokens.size, int(plan.source.plan().dims.vocab_size)):
            theirs = logits_of(source.model, states[-1][piece])
            for key in tried:
                ours = logits_of(source.model, states[key][piece])
                same = mx.argmax(theirs, -1) == mx.argmax(ours, -1)
                sums[key] += [float(divergence(theirs, ours).sum()), float(same.sum())]
    return {key: (float(apart) / tokens.size, float(same) / tokens.size) for key, (apart, same) in sums.items()}


def _cached(plan: Plan, layer: Layer, tokens: int) -> int:
    return plan.slots[layer.slot].nbytes(tokens) if layer.slot is not None else 0


def _proposed(layers: Sequence[RankedLayer], whole: int, budget: int) -> tuple[int, ...]:
    """Layers by harm for each byte, until what is left fits.

    Raises:
        CheckpointError: AX956.
    """
    useful = sorted(
        (each for each in layers if each.saved_bytes > 0), key=lambda each: each.divergence / each.saved_bytes
    )
    found: list[int] = []
    for each in useful:
        if whole <= budget:
            break
        found.append(each.index)
        whole -= each.saved_bytes
    if whole > budget:
        message = f"with all {len(useful)} layers changed the caches still take {whole:,} bytes, not {budget:,}"
        raise CheckpointError("AX956", message, "allow more, count them for a shorter `--context`, or change more")
    return tuple(sorted(found))
