"""One copy of a model on several devices: each layer shared by some of them, the layers in stages."""

from __future__ import annotations

from dataclasses import dataclass

from axon_compose.analysis.devices._collectives import NOTHING, Traffic, all_reduce, send
from axon_compose.analysis.devices._hardware import Hardware
from axon_compose.analysis.devices._pieces import Piece, Pieces
from axon_compose.devices import PipelinePlan, Visit

__all__ = ["Spread"]


@dataclass(frozen=True)
class Spread:
    """One copy of a model, laid on tensor x pipeline devices. Devices that share a layer have equal parts.

    The embedding is on the first stage alone, and the head on one stage too, as `axon_compose.model` has it; all
    devices get its scores. A layer that uses the weights of another one runs where that one is.

    Attributes:
        pieces: One device's plan.
        plan: Who runs what of it.
    """

    pieces: Pieces
    plan: PipelinePlan

    @property
    def stages(self) -> int:
        """How many there are."""
        return len(self.plan.stages)

    def layers(self, stage: int) -> list[Piece]:
        """The layers that a stage runs."""
        visits = (visit for visit in self.plan.visits if visit.stage == stage)
        return [self.pieces.layers[index] for visit in visits for index in visit.layers]

    def runs(self, stage: int) -> list[Piece]:
        """What a stage computes: the first one looks tokens up, the last one makes scores."""
        first = [self.pieces.first] if stage == self.plan.visits[0].stage else []
        last = [self.pieces.last] if stage == self.plan.visits[-1].stage else []
        return [*first, *self.layers(stage), *last]

    # What is in memory.

    def weight_bytes(self, stage: int) -> int:
        """Weights of a stage when a model runs."""
        first = self.pieces.weights(self.pieces.first) if stage == self.plan.visits[0].stage else 0
        head = self.pieces.storage.nbytes(self.pieces.plan.head)
        norm = self.pieces.weights(self.pieces.last) - head
        return first + self._own(stage) + norm + (head if stage == self.plan.head else 0)

    def used_bytes(self, stage: int) -> int:
        """Weights that a stage computes with: the first one looks tokens up, the last one makes scores."""
        ends = sum(self.pieces.weights(piece) for piece in self.runs(stage) if piece.layer is None)
        tied = stage == self.plan.visits[-1].stage != self.plan.visits[0].stage
        return self._own(stage) + ends + (self.pieces.tied_bytes() if tied else 0)

    def _own(self, stage: int) -> int:
        layers = (self.pieces.layers[index] for index in self.plan.stages[stage].layers)
        return sum(self.pieces.weights(piece) for piece in layers if piece.layer and piece.layer.owner is None)

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
        stream = batch * self.pieces.context * self.pieces.stream
        sizes = [self.pieces.saved(piece, batch) for piece in self.layers(stage)]
        ends = self.saved_bytes(stage, batch) - sum(sizes)
        return min(segment + 1, len(sizes)) * max(sizes), ends + -(-len(sizes) // segment) * stream

    # What takes time.

    def moved_bytes(self, stage: int, batch: int) -> int:
        """What memory moves while a stage computes one more token of each sequence."""
        return sum(self.pieces.moved(piece, batch) for piece in self.runs(stage))

    def shared(self, stage: int, tokens: int, *, scores: bool = True) -> Traffic:
        """What the devices of a stage send each other in a pass over a number of tokens, to share its layers.

        Args:
            stage: The stage.
            tokens: Of all sequences together.
            scores: Whether the pass ends with scores, as that over a part of a prompt does not.
        """
        total = NOTHING
        for piece in self.runs(stage):
            if scores or piece is not self.pieces.last:
                total += self.pieces.exchanged(piece, tokens)
        return total

    def hops(self, tokens: int, batch: int = 1) -> list[tuple[int, Traffic]]:
        """What goes from stage to stage in a pass, one after another: the stage that sends, and how much.

        Stages are a ring, in which arrays take the shorter way.

        Args:
            tokens: Of all sequences together.
            batch: Sequences.
        """
        found = []
        for before, after in zip(self.plan.visits, self.plan.visits[1:], strict=False):
            traffic = send(tokens * self.pieces.stream + self._values(after, tokens, batch))
            found += [(stage, traffic) for stage in self._way(before.stage, after.stage)]
        return found

    def _way(self, start: int, end: int) -> list[int]:
        """The stages that send, from one to another around the ring."""
        ahead = (end - start) % self.stages
        back = self.stages - ahead
        step, number = (1, ahead) if ahead <= back else (-1, back)
        return [(start + step * hop) % self.stages for hop in range(number)]

    def _values(self, visit: Visit, tokens: int, batch: int) -> int:
        """Bytes of the named values that come along: keys and values whole, others as wide as the hidden state."""
        total = 0
        for source in visit.values:
            if source not in visit.constant:
                total += self.pieces.published(source, tokens, batch)
        return total

    def scored(self, tokens: int) -> tuple[Traffic, list[float]]:
        """What is sent after the last layer: what the head reads to the stage that has it, and scores to all.

        Returns:
            What waits for each other, and bytes by the stage that sends them.
        """
        if self.stages == 1:
            return NOTHING, [0.0]
        read = send(tokens * self.pieces.hidden * self.pieces.width)
        scores = all_reduce(tokens * int(self.pieces.plan.dims.vocab_size) * self.pieces.width, self.stages)
        total, sent = scores, [scores.nbytes] * self.stages
        for stage in self._way(self.plan.visits[-1].stage, self.plan.head):
            total += read
            sent[stage] += read.nbytes
        return total, sent

    def path(self, tokens: int) -> tuple[Traffic, Traffic]:
        """All that waits for each other in one more token of each sequence: inside of stages, and between them."""
        inside, (between, _) = NOTHING, self.scored(tokens)
        for stage in range(self.stages):
            inside += self.shared(stage, tokens)
        for _, traffic in self.hops(tokens, tokens):
            between += traffic
        return inside, between

    def waiting_seconds(self, hardware: Hardware, batch: int) -> float:
        """How long that takes."""
        (inside, between), tensor = self.path(batch), self.pieces.tensor
        return hardware.seconds(inside, tensor) + hardware.seconds(between, tensor * self.stages)

    def step_seconds(self, hardware: Hardware, batch: int) -> float:
        """How long one more token of each sequence takes at least, since the stages work one after another."""
        moved = sum(self.moved_bytes(stage, batch) for stage in range(self.stages))
        return moved / hardware.bandwidth + self.waiting_seconds(hardware, batch)

    def sent_bytes(self, tokens: int, *, scores: bool) -> float:
        """Bytes of the device that sends most, in a pass over a number of tokens of one sequence; see `shared`."""
        sent = [self.shared(stage, tokens, scores=scores).nbytes for stage in range(self.stages)]
        for stage, traffic in self.hops(tokens):
            sent[stage] += traffic.nbytes
        if scores:
            sent = [before + more for before, more in zip(sent, self.scored(tokens)[1], strict=True)]
        return max(sent)

    def handed_on(self, stage: int, tokens: int, batch: int) -> Traffic:
        """What a stage gives the next one in a schedule: all that it sends there in a pass, as one message."""
        nbytes = sum(traffic.nbytes for sender, traffic in self.hops(tokens, batch) if sender == stage)
        return send(round(nbytes)) if nbytes else NOTHING
