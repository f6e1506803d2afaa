"""What is measured while a model heals: the receipt before, and the divergence as it falls."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any, Final

import numpy as np

from axon_compose.checkpoints.edited import Edited
from axon_compose.diagnostics import CheckpointError, Diagnostic
from axon_compose.learn import Budget, Recipe
from axon_compose.learn.data import TextBatches
from axon_compose.learn.history import History
from axon_compose.learn.judging import evaluating
from axon_compose.learn.run import Outcome
from axon_compose.model import LanguageModel
from axon_compose.notebook import Printed
from axon_compose.surgery._reach import other_reach, unreached
from axon_compose.surgery._receipt import receipt
from axon_compose.surgery._records import Receipt, finite

__all__ = ["LAYERS_FILE", "NEAR", "RECEIPTS_FILE", "Healed", "Monitor", "measured_of"]

#: What the folder holds beside what `train` writes: the record of the first stage, and the receipts.
LAYERS_FILE: Final = "metrics-layers.jsonl"
RECEIPTS_FILE: Final = "receipts.json"
#: Tokens of a receipt on held-out text, at most, unless it is said.
_MEASURED: Final = 2048
#: The part of what is learned from that a receipt reads.
_PART: Final = 1 / 4
#: Nats a token between a model and itself, which computes in training as no model does that only predicts.
_ROUNDINGS: Final = 1e-6
#: Nats a token below which there is nothing to heal: weights that were only rounded to bfloat16 make a tenth of it.
NEAR: Final = 1e-3


@dataclass(frozen=True)
class Healed(Printed):
    """How healing ended.

    Attributes:
        outcome: Of the last stage; None before it has ended.
        before: The receipt of the model as it was edited, on held-out text.
        after: That of the model as it was last measured.
        curve: How the divergence on held-out text fell: the stage, tokens learned from since the beginning, divergence.
        warnings: AX957 the sequences are too short to show what was changed; AX958 the divergence has risen.
    """

    outcome: Outcome | None
    before: Receipt
    after: Receipt
    curve: tuple[tuple[str, int, float], ...]
    warnings: tuple[Diagnostic, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        outcome = self.outcome.to_dict() if self.outcome else {}
        receipts = {"before": self.before.to_dict(), "after": self.after.to_dict()}
        return outcome | receipts | {"curve": finite(self.curve)}


class Monitor:
    """Measures a model against its source, on held-out text.

    Args:
        source: The model as it was.
        model: The model that learns.
        record: Where its layers come from.
        batches: Of the text.
        names: Of both, for people.
        measured: About how many tokens are read for it, in whole sequences.

    Attributes:
        before: The receipt of the model as it was edited.
        after: As it was last measured.
        reach: Components of which nothing but how far they reach was changed; see `other_reach`.
        unreached: AX957 where the sequences are too short to show what was changed.
    """

    def __init__(
        self,
        source: LanguageModel,
        model: LanguageModel,
        record: Edited,
        batches: TextBatches,
        names: tuple[str, str],
        measured: int,
    ) -> None:
        self.source, self.model, self.record, self.names = source, model, record, names
        self.reach = other_reach(record, source, model)
        self.unreached = unreached(self.reach, batches.length)
        self._tokens = _held_out(batches, measured)
        self.before = self.after = self._receipt()
        self._moved = False
        self._stage = ""
        self._ended: dict[str, History] = {}

    def _receipt(self) -> Receipt:
        return receipt(
            self.source, self.model, self._tokens, origins=self.record.origins, text="held-out text", names=self.names
        )

    def measure(self) -> Mapping[str, float]:
        """What an evaluation finds; what the first one does, which comes before any step, is known.

        The `loss` is infinite or NaN where the perplexity is.
        """
        if self._moved:
            with evaluating(self.model):
                self.after = self._receipt()
        self._moved = True
        after = self.after
        figures = {"divergence": after.divergence, "agreement": after.agreement}
        return {"loss": log(after.perplexity), "tokens": after.tokens} | figures

    def begin(self, stage: str) -> None:
        """A stage begins."""
        self._stage = stage

    def end(self, history: History) -> None:
        """It has ended, with this record."""
        self._ended[self._stage] = history

    def take_up(self, folder: Path, stage: str) -> None:
        """Go on with a stage of an interrupted run; the one before it has left its record."""
        self._moved = True
        if stage != "layers" and (folder / LAYERS_FILE).exists():
            self._ended["layers"] = History.read(folder, name=LAYERS_FILE)

    def write(self, folder: Path) -> None:
        """Add what is known to a new folder: receipts, and the record of the first stage."""
        receipts = {"before": self.before.to_dict(), "after": self.after.to_dict()}
        (folder / RECEIPTS_FILE).write_text(json.dumps(receipts, indent=2) + "\n", "utf-8")
        if self._stage != "layers" and "layers" in self._ended:
            self._ended["layers"].write(folder, LAYERS_FILE)

    def result(self, outcome: Outcome | None, history: History) -> Healed:
        """What is known now."""
        histories = self._ended | {self._stage: history}
        curve: list[tuple[str, int, float]] = [("", 0, self.before.divergence)]
        start = 0
        for stage, lines in histories.items():
            points = [(start + line["tokens"], line["divergence"]) for line in lines.of("evaluation")]
            curve += [(stage, tokens, value) for tokens, value in points if tokens > curve[-1][1]]
            start += max((line["tokens"] for line in lines.lines), default=0)
        warnings = (*self.unreached, *_risen(self.before.divergence, self.after.divergence))
        return Healed(outcome, self.before, self.after, tuple(curve), warnings)


def _risen(before: float, after: float) -> Iterator[Diagnostic]:
    """AX958 where a model is further from its source than it was, by more than roundings."""
    if after > before * 1.01 + _ROUNDINGS:
        message = f"the divergence has risen from {before:.2g} to {after:.2g}: what was learned does harm"
        hint = "a lower `--learning-rate`, or keep the model as it was edited"
        yield Diagnostic("AX958", message, help=hint, severity="warning")


def measured_of(budget: Budget, recipe: Recipe, wanted: int | None = None) -> int:
    """How many tokens are measured on: those that are wanted, else 2,048, but no more than a quarter of the budget's.

    Raises:
        ValueError: If it is fewer than two.
    """
    if wanted is not None and wanted < 2:
        raise ValueError(f"two tokens are measured on at least, not {wanted}")
    each = {"tokens": 1, "steps": recipe.batch * recipe.length}.get(budget.unit)
    most = _MEASURED if each is None else max(2, min(_MEASURED, int(_PART * each * budget.amount)))
    return wanted or most


def _held_out(batches: TextBatches, measured: int) -> Any:
    """(B, L), whole sequences of the text that no step learns from.

    Raises:
        CheckpointError: AX814 there is no such text.
    """
    whole: list[Any] = []
    ended: list[Any] = []
    for batch in batches.held_out(measured):
        for tokens, targets in zip(np.array(batch.tokens), np.array(batch.targets), strict=True):
            asked = int((targets >= 0).sum())
            if asked == batches.length:
                whole.append(tokens)
            elif asked:  # the text ends here, with its last target
                ended.append(np.append(tokens[:asked], targets[asked - 1]))
    if not (whole or ended):
        raise CheckpointError("AX814", "the text is too short to hold some of it back", "add text")
    return np.stack(whole[: max(1, measured // batches.length)] or ended[:1])
