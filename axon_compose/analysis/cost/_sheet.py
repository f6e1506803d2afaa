"""The cost sheet: figures as plain data, for one model in one way of storing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from axon_compose.notebook import Shown

__all__ = ["ContextCost", "CostSheet", "Fit", "LayerCost", "PartCost", "TrainingCost"]


@dataclass(frozen=True)
class PartCost:
    """One component of the file, over all places where it stands.

    Attributes:
        name: Its name; norms are one part, `norm`, and connections belong to the part `residual`.
        type: Its type, `namespace/name`.
        uses: Places where it runs.
        parameters: Weights that are shared count once.
        active: Parameters that one token uses.
        weight_bytes: As stored.
        decode_flops: Of one token of one sequence at each context, all places together; None if unknown.
        prefill_flops: Of a whole prompt of one sequence of that length; None if unknown.
    """

    name: str
    type: str
    uses: int
    parameters: int
    active: int
    weight_bytes: int
    decode_flops: tuple[int | None, ...]
    prefill_flops: tuple[int | None, ...]


@dataclass(frozen=True)
class LayerCost:
    """One layer of the stack.

    Attributes:
        index: Its place, from 0.
        block: The block's name.
        parameters: Those that it adds; 0 for a layer with the weights of another one.
        active: Those of them that one token uses.
        weight_bytes: As stored.
        cache_bytes: Of all sequences of the batch at each context.
        decode_flops: Of one token of one sequence at each context; None if unknown.
    """

    index: int
    block: str
    parameters: int
    active: int
    weight_bytes: int
    cache_bytes: tuple[int, ...]
    decode_flops: tuple[int | None, ...]


@dataclass(frozen=True)
class TrainingCost:
    """Memory of a training step in which every weight moves, evaluated in one go; see `cost._training`.

    Attributes:
        weights: Bytes of the weights, not quantised.
        optimizer: Two moments of every weight, as Adam keeps them.
        activations: What the backward pass needs of the forward pass.
        in_flight: What comes and goes: gradients and new weights of a layer, the scores and their loss, or the largest
            arrays of the backward pass.
        segment: Of a step of `axon-compose train`: layers that are computed again at a time, 0 for none; None for a
            loop of MLX's own functions.
    """

    weights: int
    optimizer: int
    activations: int
    in_flight: int
    segment: int | None = None

    @property
    def total(self) -> int:
        """All together."""
        return self.weights + self.optimizer + self.activations + self.in_flight


@dataclass(frozen=True)
class ContextCost:
    """What depends on the number of tokens.

    Attributes:
        tokens: Length of each sequence.
        growing_bytes: Keys and values of all tokens, over the batch as all bytes here.
        window_bytes: Keys and values within windows.
        state_bytes: States of constant size.
        memory_bytes: Weights and caches; what a pass needs in between comes on top.
        prefill_flops: A pass over a whole prompt of every sequence, logits of all positions included. At least, if some
            component is unknown.
        decode_flops: One more token of one sequence; at least, if some component is unknown.
        moved_bytes: What one decoding step over the batch reads and writes of weights and caches.
        tokens_per_second: All sequences together, if that traffic alone takes time; None without a bandwidth.
        training: Memory of a training step on sequences of this length, if asked for.
    """

    tokens: int
    growing_bytes: int
    window_bytes: int
    state_bytes: int
    memory_bytes: int
    prefill_flops: int
    decode_flops: int
    moved_bytes: int
    tokens_per_second: float | None = None
    training: TrainingCost | None = None

    @property
    def cache_bytes(self) -> int:
        """All caches."""
        return self.growing_bytes + self.window_bytes + self.state_bytes

    @property
    def needed_bytes(self) -> int:
        """Memory of what was asked for: training, or else weights and caches."""
        return self.training.total if self.training else self.memory_bytes


@dataclass(frozen=True)
class Fit:
    """Whether the model fits into memory.

    Attributes:
        memory_bytes: What there is.
        fits: Whether it fits at each context.
        longest: Most tokens of each sequence that fit; 0 if not even one does, None if any number does.
    """

    memory_bytes: int
    fits: tuple[bool, ...]
    longest: int | None


@dataclass(frozen=True)
class CostSheet(Shown):
    """What a model costs.

    Attributes:
        name: The file's `name`.
        dtype: Of weights and caches.
        quantize: Bits of quantised weights, or None.
        batch: Sequences per batch.
        parameters: All of them; shared and tied ones count once.
        active_parameters: Those that one token uses.
        embedding_parameters: Those of the embedding.
        quantized_parameters: Those of matrices that are quantised; 0 where groups fit into no row.
        weight_bytes: As stored, scales and biases of quantised groups included.
        parts: By component.
        layers: By layer.
        contexts: By number of tokens.
        unknown: Types whose operations are not known, each with the reason: totals of operations are then a lower
            bound.
        estimated: Types that do not declare what they save for the backward pass, each with the reason: training memory
            is then an estimate out of the shapes of their matrices.
        fit: The answer for an amount of memory, if one was given.
        faulty: Types whose plugin fails when it is asked what is read or recomputed, each with how.
    """

    name: str
    dtype: str
    quantize: int | None
    batch: int
    parameters: int
    active_parameters: int
    embedding_parameters: int
    quantized_parameters: int
    weight_bytes: int
    parts: tuple[PartCost, ...]
    layers: tuple[LayerCost, ...]
    contexts: tuple[ContextCost, ...]
    unknown: Mapping[str, str]
    estimated: Mapping[str, str] = field(default_factory=dict)
    fit: Fit | None = None
    faulty: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<CostSheet {self.name}: {self.parameters:,} parameters, {self.weight_bytes:,} bytes in {self.stored}>"

    @property
    def stored(self) -> str:
        """How the weights are stored, in words."""
        return f"{self.quantize} bits and {self.dtype}" if self.quantized_parameters else self.dtype

    @property
    def exact_flops(self) -> bool:
        """Whether every component says how much it computes; if not, totals are "at least"."""
        return not self.unknown

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready data."""
        data = asdict(self)
        data["exact_flops"] = self.exact_flops
        for cost, written in zip(self.contexts, data["contexts"], strict=True):
            written["cache_bytes"] = cost.cache_bytes
            if cost.training:
                written["training"]["total"] = cost.training.total
        return data
