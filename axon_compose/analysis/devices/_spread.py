"""One copy of a model on several devices: each layer shared by some of them, the layers in stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from axon_compose.analysis.devices._collectives import NOTHING, Traffic, all_gather, send
from axon_compose.analysis.devices._hardware import Hardware
from axon_compose.analysis.devices._pieces import Piece, Pieces

__all__ = ["Spread"]


@dataclass(frozen=True)
class Spread:
    """One copy of a model, laid on tensor x pipeline devices. Devices that share a layer have equal parts.

    Every stage has embedding, final norm and head too, as the classes of mlx-lm have them: its tokens are those of all,
    and every device ends with the same scores.

    Attributes:
        pieces: One device's plan.
        cuts: Layers of each stage, in the order of computation.
    """

    pieces: Pieces
    cuts: tuple[range, ...]

    @property
    def stages(self) -> int:
        """How many there are."""
        return len(self.cuts)

    def layers(self, stage: int) -> Sequence[Piece]:
        """The layers of a stage."""
        return [self.pieces.layers[index] for index in self.cuts[stage]]

    def runs(self, stage: int) -> list[Piece]:
        """What a stage computes: the first one looks tokens up, the last one makes scores."""
        first = [self.pieces.first] if stage == 0 else []
        last = [self.pieces.last] if stage == self.stages - 1 else []
        return [*first, *self.layers(stage), *last]

    # What is in memory.

    def weight_bytes(self, stage: int) -> int:
        """Weights of a stage; those of layers that share them are there once."""
        owners = {_home(piece): piece for piece in self.layers(stage)}
        held = [self.pieces.first, *owners.values(), self.pieces.last]
        return sum(map(self.pieces.weights, held))

    def used_bytes(self, stage: int) -> int:
        """Weights that a stage computes with: the first one looks tokens up, the last one makes scores."""
        owners = {_home(piece): piece for piece in self.layers(stage)}
        ends = [self.pieces.first] * (stage == 0) + [self.pieces.last] * (stage == self.stages - 1)
        tied = 0 if self.stages == 1 or stage < self.stages - 1 else self.pieces.tied_bytes()
        return sum(map(self.pieces.weights, [*owners.values(), *ends])) + tied

    def cache_bytes(self, stage: int, batch: int) -> int:
        """Caches of a stage's layers."""
        return batch * sum(map(self.pieces.caches, self.layers(stage)))

    def between_bytes(self, stage: int, batch: int) -> int:
        """About what a pass needs beside weights and caches."""
        return max(self.pieces.between(piece, batch) for piece in [*self.runs(stage), self.pieces.last])

    def saved_bytes(self, stage: int, batch: int) -> int:
        """What a forward pass over whole sequences leaves for the backward pass."""
        return sum(self.pieces.saved(piece, batch) for piece in self.runs(stage))

    def kept_bytes(self, stage: int, batch: int, segment: int | None) -> tuple[int, int]:
        """What a training step keeps of a stage's activations: once, and for each micro-batch until its backward pass.

        Args:
            stage: The stage.
            batch: Sequences of a micro-batch.
            segment: Layers that are computed again at a time, of which the input alone is kept; None or 0 for none.
        """
        if not segment:
            return 0, self.saved_bytes(stage, batch)
        stream = batch * self.pieces.context * self.pieces.hidden * self.pieces.width
        sizes = [self.pieces.saved(piece, batch) for piece in self.layers(stage)]
        ends = self.saved_bytes(stage, batch) - sum(sizes)
        return min(segment + 1, len(sizes)) * max(sizes), ends + -(-len(sizes) // segment) * stream

    # What takes time.

    def moved_bytes(self, stage: int, batch: int) -> int:
        """What memory moves while a stage computes one more token of each sequence."""
        return sum(self.pieces.moved(piece, batch) for piece in self.runs(stage))

    def shared(self, stage: int, tokens: int) -> Traffic:
        """What the devices of a stage send each other in a pass over so many tokens, to share its layers."""
        total = NOTHING
        for piece in self.runs(stage):
            total += self.pieces.exchanged(piece, tokens)
        return total

    def handed_on(self, stage: int, tokens: int) -> Traffic:
        """What a stage sends the next one: what runs through the layers, and values that later layers read."""
        if stage == self.stages - 1:
            return NOTHING
        return send(tokens * self.pieces.hidden * self.pieces.width)

    def told(self, tokens: int) -> Traffic:
        """What all stages exchange after the last one, so that each of them makes the scores."""
        return all_gather(self.stages * tokens * self.pieces.hidden * self.pieces.width, self.stages)

    def path(self, tokens: int) -> Traffic:
        """All that waits for each other in one more token of so many sequences."""
        total = self.told(tokens)
        for stage in range(self.stages):
            total += self.shared(stage, tokens) + self.handed_on(stage, tokens)
        return total

    def step_seconds(self, hardware: Hardware, batch: int) -> float:
        """How long one more token of each sequence takes at least, since the stages work one after another."""
        moved = sum(self.moved_bytes(stage, batch) for stage in range(self.stages))
        return moved / hardware.bandwidth + self.path(batch).seconds(hardware.link, hardware.latency)

    def sent_bytes(self, tokens: int, *, scores: bool) -> float:
        """Bytes that the device sends which sends most, in a pass over so many tokens.

        Args:
            tokens: Of all sequences together.
            scores: Whether the pass ends with scores, as that over a part of a prompt does not.
        """
        return max(self._sent(stage, tokens, scores=scores).nbytes for stage in range(self.stages))

    def _sent(self, stage: int, tokens: int, *, scores: bool) -> Traffic:
        sent = self.handed_on(stage, tokens)
        for piece in self.runs(stage):
            if scores or piece is not self.pieces.last:
                sent += self.pieces.exchanged(piece, tokens)
        if scores:
            sent += self.told(tokens)
        return sent


def _home(piece: Piece) -> int | None:
    """The layer whose weights it has."""
    layer = piece.layer
    if layer is None:
        return None
    return layer.index if layer.owner is None else layer.owner
