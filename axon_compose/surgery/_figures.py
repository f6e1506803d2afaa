"""What an edit needs to know of its source from a text: measured when it is asked for, the model loaded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from axon_compose.checkpoints.trained import build_trained
from axon_compose.learn.data import Sources
from axon_compose.model import LanguageModel
from axon_compose.plan import Compiled
from axon_compose.surgery._measure import block_influence, measured
from axon_compose.surgery.texts import sample_text

__all__ = ["Figures"]


class Figures:
    """Figures of a model on a text.

    Args:
        source: The model.
        weights: Folder or GGUF file of its weights.
        texts: Files, folders or `python-docs`.
        allow_large: Do not compare the size with the memory that is free.
    """

    def __init__(self, source: Compiled, weights: Path, texts: Sequence[str], *, allow_large: bool = False) -> None:
        self.source, self.weights, self.texts, self.allow_large = source, weights, tuple(texts), allow_large

    @cached_property
    def _tokens(self) -> Any:
        return sample_text(Sources(self.texts), self.weights, int(self.source.plan().dims.vocab_size)).tokens

    @cached_property
    def _model(self) -> LanguageModel:
        options: dict[str, Any] = {"dtype": "float32", "unpack": True, "allow_large": self.allow_large}
        return build_trained(self.source, self.weights, **options)

    def influence(self) -> list[float]:
        """How much each layer turns the hidden state; see `block_influence`."""
        return [float(value) for value in block_influence(self._model, self._tokens)]

    def of(self, wanted: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """What transfers need, by the paths of the source's components; see `measured`."""
        return measured(self._model, self._tokens, wanted)
