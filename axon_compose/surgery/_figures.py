"""What an edit needs to know of its source from a text: measured when it is asked for, the model loaded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from axon_compose.checkpoints.trained import build_trained
from axon_compose.checkpoints.weights import LoadPlan, Parameters
from axon_compose.learn.data import Sources
from axon_compose.machine.memory import require
from axon_compose.model import LanguageModel
from axon_compose.plan import Compiled, Use
from axon_compose.surgery._measure import measured, streamed_influence
from axon_compose.surgery._streamed import Streamed
from axon_compose.surgery.texts import sample_text

__all__ = ["Figures"]


class Figures:
    """Figures of a model on a text.

    Args:
        source: The model.
        weights: Folder or GGUF file of its weights.
        load_plan: Where its parameters are in there.
        texts: Files, folders or `python-docs`.
        allow_large: Do not compare the size with the memory that is free.
    """

    def __init__(
        self,
        source: Compiled,
        weights: Path,
        load_plan: LoadPlan,
        texts: Sequence[str],
        *,
        allow_large: bool = False,
    ) -> None:
        self.source, self.weights, self.load_plan = source, weights, load_plan
        self.texts, self.allow_large = tuple(texts), allow_large

    @cached_property
    def _tokens(self) -> Any:
        return sample_text(Sources(self.texts), self.weights, int(self.source.plan().dims.vocab_size)).tokens

    @cached_property
    def _model(self) -> LanguageModel:
        options: dict[str, Any] = {"dtype": "float32", "unpack": True, "allow_large": self.allow_large}
        return build_trained(self.source, self.weights, **options)

    def influence(self) -> list[float]:
        """How much each layer turns the hidden state, with the weights of one in memory; see `block_influence`."""
        plan, parameters = self.source.plan(), Parameters(self.load_plan)
        if not self.allow_large:
            at_once = max(sum(use.size for use in uses) for uses in (layer.uses() for layer in plan.layers))
            require(4 * max(at_once, plan.embedding.size), f"the largest layer of `{plan.name}` in float32")

        def weights(use: Use) -> dict[str, Any]:
            found = parameters.read({f"{use.path}.{name}": "float32" for name in use.params})
            return {name: found[f"{use.path}.{name}"] for name in use.params}

        source = Streamed(plan, weights)
        return [float(value) for value in streamed_influence(source, self._tokens)]

    def of(self, wanted: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """What transfers need, by the paths of the source's components; see `measured`."""
        return measured(self._model, self._tokens, wanted)
