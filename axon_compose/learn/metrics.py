"""What is known of a step. Imports no mlx."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from axon_compose.learn.budget import Spent

__all__ = ["Metrics"]


@dataclass(frozen=True)
class Metrics:
    """What is known of a step.

    Attributes:
        step: Its number, from 0.
        loss: Mean cross entropy of its targets, in nats.
        learning_rate: Of the step.
        gradient_norm: Before clipping.
        spent: What training has used, this step included.
        more: Further figures of the objective, such as the load of experts; means over the targets.
    """

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    spent: Spent
    more: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """One flat record for a line of JSON."""
        own = {name: getattr(self, name) for name in ("step", "loss", "learning_rate", "gradient_norm")}
        spent = asdict(self.spent)
        del spent["steps"]
        return own | spent | self.more
