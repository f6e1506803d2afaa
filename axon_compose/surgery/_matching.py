"""The first stage of healing: each changed layer learns, by itself, what the teacher's layer does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx

from axon_compose.learn.batches import LEFT_OUT
from axon_compose.model import LanguageModel, needed_layers, run_alone
from axon_compose.proof.verify import layer_outputs

__all__ = ["LayerMatching", "matched_layers"]


def matched_layers(
    model: LanguageModel, teacher: LanguageModel, origins: Sequence[int | None], changed: Sequence[str]
) -> tuple[int, ...]:
    """Layers that can learn by themselves: those with something changed in them that do in the teacher's place.

    Args:
        model: The edited model.
        teacher: What it was made of.
        origins: Layers of the teacher, or None, by layer of the model.
        changed: Paths of components that were changed.
    """
    if model.plan.residual or teacher.plan.residual or model.plan.dims.hidden_size != teacher.plan.dims.hidden_size:
        return ()
    touched = {int(path.split(".")[1]) for path in changed if path.startswith("layers.")}
    return tuple(
        layer
        for layer in sorted(touched)
        if all(origins[needed] is not None for needed in needed_layers(model, [layer]))
    )


class LayerMatching:
    r"""How far changed layers are from the teacher's, each on the teacher's own input.

    With the input x and the output g of the teacher's layer, and h what the model's layer gives for the same x, it is
    the mean over tokens of

    .. math::
        \sum_\text{layers} \frac{|h - g|^2}{|g - x|^2}

    so 1 is a layer that adds nothing. All layers learn at once from one pass of the teacher, and no gradient runs from
    layer to layer (as the second stage of MOHAWK, Bick et al. 2024, arXiv:2408.10189).

    Args:
        teacher: Is only read.
        origins: Layers of the teacher by layer of the model.
        layers: Layers of the model that learn.

    Attributes:
        options: What a run is continued with.
    """

    def __init__(self, teacher: LanguageModel, origins: Sequence[int | None], layers: Sequence[int]) -> None:
        self.teacher, self.origins, self.layers = teacher, origins, tuple(layers)
        self.options = {"stage": "layers", "teacher": teacher.plan.name, "layers": list(self.layers)}
        teacher.eval()

    def __call__(self, model: Any, tokens: mx.array, targets: mx.array) -> tuple[mx.array, dict[str, mx.array]]:
        """See `axon_compose.learn.objective.Objective`."""
        gaps = self.gaps(model, tokens, targets)
        total = mx.stack(list(gaps.values())).sum()
        return total, {"loss": total} | {f"layer_{layer}": gap for layer, gap in gaps.items()}

    def gaps(self, model: LanguageModel, tokens: mx.array, targets: mx.array) -> Mapping[int, mx.array]:
        """The sum over the tokens that count of what is made small, by layer."""
        with layer_outputs(self.teacher) as states:
            self.teacher.hidden(tokens)
        states = [mx.stop_gradient(each) for each in states]
        needed = needed_layers(model, self.layers)
        places = {layer: origin for layer in needed if (origin := self.origins[layer]) is not None}
        outputs = run_alone(model, tokens, {layer: states[origin] for layer, origin in places.items()})
        counts = (targets != LEFT_OUT).astype(mx.float32)
        return {
            layer: _missed(states[places[layer]], states[places[layer] + 1], outputs[layer], counts)
            for layer in self.layers
        }


def _missed(x: mx.array, g: mx.array, h: mx.array, counts: mx.array) -> mx.array:
    """How far h is from g, as a part of what g adds to x; where that is next to nothing, of a thousandth of g."""
    x, g, h = (each.astype(mx.float32) for each in (x, g, h))
    added = mx.maximum((g - x).square().sum(-1), 1e-6 * g.square().sum(-1))
    return ((h - g).square().sum(-1) / mx.maximum(added, 1e-30) * counts).sum()
