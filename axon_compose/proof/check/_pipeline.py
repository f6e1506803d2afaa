"""Several devices that have some of the layers each, as threads of this process, against one that has all."""

from __future__ import annotations

from axon_compose.model import Parts, divided
from axon_compose.proof.check._compare import Rows, compare
from axon_compose.proof.check._devices import apart, fed, ways
from axon_compose.proof.check._report import Truth
from axon_compose.proof.check._subject import Subject

__all__ = ["pipeline"]


def pipeline(subject: Subject, size: int) -> Truth:
    """Devices that have some of the layers give what the whole model gives, bit for bit.

    Args:
        subject: The model, whose weights stay as they are.
        size: Number of devices; fewer are tried if the model has fewer layers with weights of their own.
    """
    size = min(size, sum(layer.owner is None for layer in subject.plan.layers))
    feeding = ways(subject)
    expected = fed(subject, feeding)
    parts = divided(subject.model, size)

    def work(model: object) -> dict[str, Rows]:
        return fed(Subject(subject.plan, subject.seed, model=model), feeding)  # type: ignore[arg-type]

    worst, where = 0.0, ""
    for rank, given in enumerate(parts.run(work)):
        for name, logits in given.items():
            figure, place = compare(apart(logits), apart(expected[name]), 0.0)
            if not figure <= worst:
                worst, where = figure, f"{name}, rank {rank}, {place}"
    claim = f"{size} devices with some of the layers give what one gives, bit for bit"
    return Truth("pipeline", claim, worst == 0.0, worst, 0.0, detail=where or _layers(parts))


def _layers(parts: Parts) -> str:
    """How many layers each device has, in the order of the layers."""
    numbers = [len(part.model.pipeline_layers) for part in reversed(parts.models)]
    return f"layers: {', '.join(map(str, numbers))}"
