"""What several devices need, as plain data: a row for each way to spread a model, and which one to take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from axon_compose.analysis.devices._hardware import Hardware
from axon_compose.analysis.devices._layout import Layout
from axon_compose.diagnostics import Diagnostic
from axon_compose.notebook import Shown

__all__ = ["Assumed", "DevicesSheet", "Impossible", "StrategyCost", "TrainingStrategy"]


@dataclass(frozen=True)
class StrategyCost:
    """A way to spread a model over devices; of bytes, those of the device that has or sends most.

    Attributes:
        layout: How the devices are divided.
        layers: Layers of each stage; one entry where there are no stages.
        weight_bytes: Of weights.
        cache_bytes: Of the caches of its sequences.
        activation_bytes: About what a pass over a chunk of a prompt needs in between.
        sent_per_token: Bytes that it sends for a decoded token.
        sent_per_prompt_token: Bytes that it sends for a token of a prompt.
        messages_per_token: Messages that wait for each other, for a decoded token.
        one: Tokens per second of one sequence, at most.
        together: Tokens per second of all sequences, at most.
        waiting: Part of the time of one sequence that goes into messages.
        whole: Components that every device of a tensor group has whole, norms aside, each with the reason.
        fits: Whether it fits into a device's memory; None if nobody asked.
    """

    layout: Layout
    layers: tuple[int, ...]
    weight_bytes: int
    cache_bytes: int
    activation_bytes: int
    sent_per_token: float
    sent_per_prompt_token: float
    messages_per_token: int
    one: float
    together: float
    waiting: float
    whole: Mapping[str, str] = field(default_factory=dict)
    fits: bool | None = None

    @property
    def name(self) -> str:
        """Such as `tensor 4`."""
        return self.layout.name

    @property
    def memory_bytes(self) -> int:
        """Weights, caches and what a pass needs in between."""
        return self.weight_bytes + self.cache_bytes + self.activation_bytes


@dataclass(frozen=True)
class TrainingStrategy:
    """A way to train on several devices, each with some of the sequences; bytes of one device.

    Attributes:
        name: `replicas` or `fully sharded`.
        weight_bytes: Its own weights.
        optimizer_bytes: Its moments of Adam.
        gradient_bytes: Gradients that are there at once.
        gathered_bytes: Weights of the others that are there until the backward pass has used them.
        activation_bytes: What the backward pass needs of the forward pass, and what is in flight.
        sent_per_step: Bytes that it sends in a step.
        fits: Whether it fits into a device's memory; None if nobody asked.
    """

    name: str
    weight_bytes: int
    optimizer_bytes: int
    gradient_bytes: int
    gathered_bytes: int
    activation_bytes: int
    sent_per_step: float
    fits: bool | None = None

    @property
    def memory_bytes(self) -> int:
        """All together."""
        held = self.weight_bytes + self.optimizer_bytes + self.gradient_bytes
        return held + self.gathered_bytes + self.activation_bytes


@dataclass(frozen=True)
class Impossible:
    """A way that cannot be gone.

    Attributes:
        layout: How the devices would be divided.
        fault: Why not, and what to do.
    """

    layout: Layout
    fault: Diagnostic


@dataclass(frozen=True)
class Assumed:
    """What a sheet of several devices was counted for.

    Attributes:
        name: The file's `name`.
        devices: How many.
        hardware: What is assumed of each.
        dtype: Of weights and caches; of gradients and moments too where training is simulated.
        quantize: Bits of quantised weights, or None.
        batch: Sequences, all devices together.
        context: Tokens of each.
    """

    name: str
    devices: int
    hardware: Hardware
    dtype: str
    quantize: int | None
    batch: int
    context: int

    def assumed(self) -> dict[str, Any]:
        """These figures alone as JSON-ready data."""
        data = {each.name: getattr(self, each.name) for each in fields(Assumed)}
        return data | {"hardware": asdict(self.hardware)}


@dataclass(frozen=True)
class DevicesSheet(Assumed, Shown):
    """A model on several devices.

    Attributes:
        strategies: Ways to spread it.
        impossible: Ways that cannot be gone.
        recommended: The name of the one to take, None if none fits.
        reason: Why, in a sentence.
        training: Ways to train it, if asked for.
        training_reason: Which of those to take, in a sentence.
        faults: What a plan like this meets, such as that nothing fits.
    """

    strategies: tuple[StrategyCost, ...]
    impossible: tuple[Impossible, ...] = ()
    recommended: str | None = None
    reason: str = ""
    training: tuple[TrainingStrategy, ...] = ()
    training_reason: str = ""
    faults: tuple[Diagnostic, ...] = ()

    def __repr__(self) -> str:
        return f"<DevicesSheet {self.name}: {self.devices} devices, {self.recommended or 'nothing fits'}>"

    def strategy(self, name: str) -> StrategyCost:
        """One of the ways, by its name.

        Raises:
            KeyError: There is none of that name.
        """
        return {strategy.name: strategy for strategy in self.strategies}[name]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready data."""
        data = self.assumed()
        data |= {name: getattr(self, name) for name in ("recommended", "reason", "training_reason")}
        data["strategies"] = [_written(row) for row in self.strategies]
        data["impossible"] = [
            {"name": row.layout.name, "code": row.fault.code, "reason": row.fault.message} for row in self.impossible
        ]
        data["training"] = [_written(row) for row in self.training]
        return data


def _written(row: StrategyCost | TrainingStrategy) -> dict[str, Any]:
    return asdict(row) | {"name": row.name, "memory_bytes": row.memory_bytes}
