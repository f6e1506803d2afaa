"""Mismatches between a checkpoint and a model, collected and reported together."""

from __future__ import annotations

from dataclasses import dataclass, field

from axon_compose.checkpoints.files import CheckpointError
from axon_compose.checkpoints.files._safetensors import listing, shown

__all__ = ["WeightFaults", "WeightMismatch"]


class WeightMismatch(CheckpointError):
    """AX553, with every fault.

    Attributes:
        faults: What is missing, unexpected, or of another shape.
    """

    faults: WeightFaults


@dataclass
class WeightFaults:
    """The faults of a whole checkpoint, as lines; the first ten of each kind are reported."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshaped: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)

    def raise_if_any(self, name: str) -> None:
        """End with the faults of the model `name`, if there are any.

        Raises:
            WeightMismatch: AX553 the weights are others.
            CheckpointError: AX554 they depend on a layout that is not known.
        """
        kinds = {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "of the wrong shape": self.misshaped,
            "assigned twice": self.repeated,
            "not as the model computes them": self.different,
        }
        details = [line for kind, lines in kinds.items() for line in listing(kind, lines)]
        if details:
            message = f"the tensors of the checkpoint do not match `{shown(name)}`"
            mismatch = WeightMismatch("AX553", message, details=details)
            mismatch.faults = self
            raise mismatch
        if self.undecided:
            message = "the files do not say whether Hugging Face or mlx-lm wrote them, and these tensors depend on it"
            hint = "pass `--layout huggingface` or `--layout mlx`"
            raise CheckpointError("AX554", message, hint, listing("undecided", list(dict.fromkeys(self.undecided))))
