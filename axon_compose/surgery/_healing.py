"""What is measured while a model heals: the receipt before, and the divergence as it falls."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from axon_compose.checkpoints.edited import Edited
from axon_compose.diagnostics import Diagnostic
from axon_compose.learn.data import TextBatches
from axon_compose.learn.history import History
from axon_compose.learn.judging import evaluating
from axon_compose.learn.run import Outcome
from axon_compose.model import LanguageModel
from axon_compose.notebook import Printed
from axon_compose.surgery._reach import other_reach, unreached
from axon_compose.surgery._receipt import receipt
from axon_compose.surgery._records import Receipt, finite

__all__ = ["LAYERS_FILE", "RECEIPTS_FILE", "Healed", "Monitor"]

#: What the folder holds beside what `train` writes: the record of the first stage, and the receipts.
LAYERS_FILE: Final = "metrics-layers.jsonl"
RECEIPTS_FILE: Final = "receipts.json"
#: Tokens of a receipt on held-out text.
_MEASURED: Final = 2048
#: Nats a token between a model and itself, which computes in training as no model does that only predicts.
_ROUNDINGS: Final = 1e-6


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

    Attributes:
        before: The receipt of the model as it was edited.
        after: As it was last measured.
        reach: Components of which nothing but how far they reach was changed; see `other_reach`.
        unreached: AX957 where the sequences are too short to show what was changed.
    """

    def __init__(
        self, source: LanguageModel, model: LanguageModel, record: Edited, batches: TextBatches, names: tuple[str, str]
    ) -> None:
        self.source, self.model, self.record, self.names = source, model, record, names
        self.reach = other_reach(record, source, model)
        self.unreached = unreached(self.reach, batches.length)
        self._tokens = _held_out(batches)
        self.before = self.after = self._receipt()
        self._moved = False
        self._stage = ""
        self._ended: dict[str, History] = {}

    def _receipt(self) -> Receipt:
        return receipt(
            self.source, self.model, self._tokens, origins=self.record.origins, text="held-out text", names=self.names
        )

    def measure(self) -> Mapping[str, float]:
        """Further figures of an evaluation; those of the first, which comes before any step, are known."""
        if self._moved:
            with evaluating(self.model):
                self.after = self._receipt()
        self._moved = True
        return {"divergence": self.after.divergence, "agreement": self.after.agreement}

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


def _held_out(batches: TextBatches) -> Any:
    """(B, L), whole sequences of the text that no step learns from."""
    found: list[Any] = []
    for batch in batches.held_out():
        whole = np.array((batch.targets >= 0).all(axis=1))
        found += list(np.array(batch.tokens)[whole])
        if len(found) * batches.length >= _MEASURED:
            break
    if not found:  # a short text: one sequence, padded at its end, where nothing is asked
        found = [np.array(next(iter(batches.held_out())).tokens)[0]]
    return np.stack(found[: max(1, _MEASURED // batches.length)])
