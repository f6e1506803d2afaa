"""How long each stage of a pipeline takes for a micro-batch, and with what: the figures that a schedule is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from axon_compose.analysis.devices._collectives import NOTHING, Traffic, all_reduce, all_to_all, send
from axon_compose.analysis.devices._hardware import Hardware
from axon_compose.analysis.devices._layout import Layout
from axon_compose.analysis.devices._pieces import Experts, Piece
from axon_compose.analysis.devices._schedule import Handing
from axon_compose.analysis.devices._spread import Spread

__all__ = ["StageTimes", "Took"]

#: Operations of a backward pass for each of the forward pass: gradients of inputs and of weights.
_BACKWARD = 2
#: Bytes of a token.
_TOKEN = 4


@dataclass(frozen=True)
class Took:
    """Seconds of one job of a stage.

    Attributes:
        computing: Operations, or what memory moves, whichever takes longer.
        tensor: Messages of the devices that share a layer.
        experts: Messages that bring tokens to their experts and back.
    """

    computing: float = 0.0
    tensor: float = 0.0
    experts: float = 0.0

    @property
    def seconds(self) -> float:
        """All together, for each waits for the others."""
        return self.computing + self.tensor + self.experts


@dataclass(frozen=True)
class StageTimes:
    """Times and bytes of the stages of one layout, for micro-batches of one size.

    Attributes:
        spread: One replica.
        layout: How devices are divided.
        hardware: What is assumed of them.
        sequences: Of a micro-batch.
        by_rank: Whether replicas share the experts, of which each then has a part.
        recomputed: Whether the backward pass computes layers again.
    """

    spread: Spread
    layout: Layout
    hardware: Hardware
    sequences: int
    by_rank: bool = False
    recomputed: bool = False

    def forward(self, stage: int) -> Took:
        """A forward pass over whole sequences."""
        tokens = self.sequences * self.spread.pieces.context
        operations = self.sequences * sum(map(self.spread.pieces.prompt_flops, self.spread.runs(stage)))
        weights = sum(map(self.spread.pieces.weights, self.spread.runs(stage)))
        computing = max(operations / self.hardware.flops, weights / self.hardware.bandwidth)
        return Took(computing, self._shared(stage, tokens), self._experts(stage, tokens))

    def backward(self, stage: int) -> Took:
        """Its backward pass, which sends as much as the forward pass; twice as many operations, or three times."""
        ahead = self.forward(stage)
        again = 1 if self.recomputed else 0
        return Took((_BACKWARD + again) * ahead.computing, (1 + again) * ahead.tensor, (1 + again) * ahead.experts)

    def decode(self, stage: int) -> Took:
        """One more token of each sequence."""
        moved = self.spread.moved_bytes(stage, self.sequences)
        if self.by_rank:
            moved += sum(self._moved_by_rank(piece) for piece in self.spread.runs(stage))
        shared = self._shared(stage, self.sequences)
        return Took(moved / self.hardware.bandwidth, shared, self._experts(stage, self.sequences))

    def _moved_by_rank(self, piece: Piece) -> int:
        """What changes in the bytes that memory moves: fewer experts, asked by the tokens of all replicas."""
        return sum(
            experts.read(self.sequences * self.layout.data) // self.layout.data - experts.read(self.sequences)
            for experts in self.spread.pieces.experts(piece)
        )

    def _experts(self, stage: int, tokens: int) -> float:
        """Tokens to their experts and back."""
        if not self.by_rank:
            return 0.0
        pieces, total = self.spread.pieces, NOTHING
        for piece in self.spread.runs(stage):
            for experts in pieces.experts(piece):
                sent = tokens * experts.chosen * pieces.hidden * pieces.width
                total += all_to_all(sent, self.layout.data).times(2)
        return self.hardware.seconds(total, self.layout.devices)

    def _shared(self, stage: int, tokens: int) -> float:
        """Outputs of the devices of a tensor group to each other."""
        return self.hardware.seconds(self.spread.shared(stage, tokens), self.layout.tensor)

    def handing(self, stage: int, *, decoding: bool) -> Handing:
        """What goes from a stage to the next one, or back, for a micro-batch.

        New tokens go from the last stage to the first one.
        """
        tokens = self.sequences * (1 if decoding else self.spread.pieces.context)
        sent = self.spread.handed_on(stage, tokens, self.sequences)
        if decoding and stage == self.spread.stages - 1 > 0:
            sent = send(_TOKEN * self.sequences)
        took = self.hardware.seconds(sent, self.layout.tensor * self.layout.pipeline)
        latency = self.hardware.latency * sent.messages
        return Handing(took - latency, latency)

    # Bytes.

    def weight_bytes(self, stage: int) -> int:
        """Weights of one device of a stage."""
        held = self.spread.used_bytes(stage)
        if not self.by_rank:
            return held
        data = self.layout.data
        return held - sum(experts.nbytes - experts.nbytes // data for experts in self._every(stage))

    def _every(self, stage: int) -> Iterator[Experts]:
        for piece in self.spread.runs(stage):
            yield from self.spread.pieces.experts(piece)

    def gradient_seconds(self, stage: int) -> list[float]:
        """How long the sums of `gradients` take."""
        return [self.hardware.seconds(each, self.layout.devices) for each in self.gradients(stage)]

    def gradients(self, stage: int) -> list[Traffic]:
        """Sums of gradients over replicas, one for each piece in the order in which they are ready: the last first.

        Gradients of experts that replicas share are those of all tokens already.
        """
        sums = []
        for piece in reversed(self.spread.runs(stage)):
            nbytes = self.spread.pieces.weights(piece)
            if self.by_rank:
                nbytes -= sum(experts.nbytes for experts in self.spread.pieces.experts(piece))
            sums.append(all_reduce(nbytes, self.layout.data))
        return sums
