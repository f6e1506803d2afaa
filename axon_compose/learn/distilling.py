"""Learning from a teacher: its predictions, softened, and the hidden states of its layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from typing import Any

import mlx.core as mx

from axon_compose.diagnostics import CheckpointError
from axon_compose.learn.batches import LEFT_OUT
from axon_compose.learn.loss import distillation
from axon_compose.learn.objective import NextTokens, Objective
from axon_compose.model import LanguageModel
from axon_compose.proof.verify import layer_outputs

__all__ = ["Teaching", "pairs_of", "taught_objective"]


@dataclass(frozen=True)
class Teaching:
    r"""What is learned from a teacher, beside the text.

    With the loss :math:`L` of the text, the divergence :math:`K` of the predictions at temperature T (Hinton et al.
    2015, arXiv:1503.02531), and hidden states h of the model and g of the teacher after pairs of layers, what is made
    small is the mean over the targets that count of

    .. math::
        (1 - w) L + w T^2 K + \sum_{\text{pairs}} \frac{|h - g|^2}{|g|^2}

    Attributes:
        teacher: Has the vocabulary of the model.
        weight: w, from 0 to 1.
        temperature: T, above 0.
        layers: Pairs of layers, the model's and the teacher's, by their numbers.

    Raises:
        ValueError: The weight or the temperature is out of range.
    """

    teacher: LanguageModel
    weight: float = 0.5
    temperature: float = 2.0
    layers: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is out of range; see the class."""
        if not 0 <= self.weight <= 1:
            raise ValueError(f"the weight of a teacher is from 0 to 1, not {self.weight}")
        if not (self.temperature > 0 and isfinite(self.temperature)):
            raise ValueError(f"a temperature is above 0, not {self.temperature}")

    @property
    def options(self) -> dict[str, Any]:
        """Plain values, for the state of a run."""
        pairs = " ".join(f"{mine}={theirs}" for mine, theirs in self.layers)
        plain = {"teacher_weight": self.weight, "temperature": self.temperature, "teacher_layers": pairs}
        return {"teacher": self.teacher.plan.name} | plain

    def require(self, model: LanguageModel) -> None:
        """Refuse a teacher that cannot teach a model.

        Raises:
            CheckpointError: AX816 it has another vocabulary or width, or there is no such layer.
        """
        ours, theirs = model.plan, self.teacher.plan
        faults = [f"its vocabulary has {theirs.dims.vocab_size} tokens, that of `{ours.name}` {ours.dims.vocab_size}"]
        faults *= int(theirs.dims.vocab_size) != int(ours.dims.vocab_size)
        if self.layers and int(theirs.dims.hidden_size) != int(ours.dims.hidden_size):
            faults.append(f"its hidden states are {theirs.dims.hidden_size} wide, not {ours.dims.hidden_size}")
        for pair in self.layers:
            for layer, plan in zip(pair, (ours, theirs), strict=True):
                if not 0 <= layer < len(plan.layers):
                    faults.append(f"`{plan.name}` has the layers 0 to {len(plan.layers) - 1}, no layer {layer}")
        if self.layers and (ours.residual or theirs.residual):
            faults.append("with a residual scheme, what runs between the layers is not one hidden state")
        if faults:
            raise CheckpointError("AX816", f"`{theirs.name}` cannot teach `{ours.name}`: {'; '.join(faults)}")


def taught_objective(teaching: Teaching, text: NextTokens) -> Objective:
    """What is made small under a teacher; see `Teaching`.

    Args:
        teaching: The teacher, and how much it counts.
        text: What is made small without one. Where the teacher alone counts, its loss is only shown.
    """
    teacher, weight = teaching.teacher, teaching.weight
    teacher.eval()

    def objective(model: Any, tokens: mx.array, targets: mx.array) -> tuple[mx.array, dict[str, mx.array]]:
        with layer_outputs(teacher) as theirs:
            taught = mx.stop_gradient(teacher.hidden(tokens))
        with layer_outputs(model) as ours:
            h, uneven, loads = text.hidden(model, tokens, targets)
        total, shown = mx.array(0.0), dict[str, mx.array]()
        if weight < 1:
            loss, shown = text.of(model, h, targets)
            total = (1 - weight) * (loss if uneven is None else loss + uneven)
        if weight:
            losses = distillation(model, h, teacher, taught, targets, temperature=teaching.temperature)
            total = total + weight * losses.total
            shown = {"loss": losses.nll} | shown | {"divergence": losses.divergence}
        counts = (targets != LEFT_OUT).astype(mx.float32)
        for mine, other in teaching.layers:
            gap = _gap(ours[mine + 1], mx.stop_gradient(theirs[other + 1]), counts)
            total = total + gap
            shown = shown | {f"gap_{mine}": gap}
        return total, shown | loads

    objective.balance = text.balance  # type: ignore[attr-defined]
    objective.options = teaching.options  # type: ignore[attr-defined]
    return objective


def _gap(h: mx.array, g: mx.array, counts: mx.array) -> mx.array:
    """The sum over tokens of the squared distance, as a part of the teacher's square."""
    h, g = h.astype(mx.float32), g.astype(mx.float32)
    squares = (h - g).square().sum(-1) / mx.maximum(g.square().sum(-1), 1e-12)
    return (squares * counts).sum()


def pairs_of(texts: Iterable[str]) -> tuple[tuple[int, int], ...]:
    """Read pairs of layers: `3=5`, or `3` for the same number of both.

    Raises:
        ValueError: If it is none.
    """
    found = []
    for text in texts:
        mine, _, theirs = text.partition("=")
        if not mine.isdecimal() or not (theirs or mine).isdecimal():
            raise ValueError(f"{text!r} is no pair of layers such as 3=5")
        found.append((int(mine), int(theirs or mine)))
    return tuple(found)
