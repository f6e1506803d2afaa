"""What an edit has done to a model, measured on a text: predictions, and the hidden states layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp
from typing import Any, Final

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx.utils import tree_flatten

from axon_compose.learn.divergence import compared, divergence
from axon_compose.learn.partition import log_partition
from axon_compose.model import LanguageModel
from axon_compose.plan import Layer
from axon_compose.proof.verify import layer_outputs
from axon_compose.surgery._logits import logits_of, pieces
from axon_compose.surgery._records import LayerGap, Receipt, Stretch
from axon_compose.surgery.texts import few_at_once

__all__ = ["receipt"]

Tokens = npt.NDArray[np.integer[Any]]
#: In place of a difference of hidden states that cannot be compared.
_UNKNOWN: Final = -1.0


def receipt(
    source: LanguageModel,
    edited: LanguageModel,
    tokens: Tokens,
    *,
    origins: Sequence[int | None] | None = None,
    vocabulary: Sequence[int] | None = None,
    text: str = "tokens",
    names: tuple[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Receipt:
    r"""Compare an edited model with its source; both only read.

    Args:
        source: The model as it was.
        edited: The model as it is now.
        tokens: (B, L), of the source, L at least 2.
        origins: For each layer of the edited model the source's; one by one unless given, if both have as many.
        vocabulary: For each token of the edited model that of the source, where that has others. Both then read the
            tokens of the text under their own numbers, and predictions are compared over the tokens that both have.
        text: What the tokens are, for people.
        names: What the source and the edited model are called; as their descriptions do unless given.
        progress: Called with tokens done and in all.

    Raises:
        ValueError: The shape of `tokens`, the number of `origins` or the vocabularies do not fit.
    """
    tokens = np.asarray(tokens)
    _require(source, edited, tokens, origins, vocabulary)
    for model in (source, edited):
        model.eval()
    origins = _origins(source, edited, origins)
    number, length = tokens.shape
    sums = _Sums(source, edited, origins, vocabulary)
    found = []
    done = 0
    for rows in few_at_once(tokens):
        found.append(sums.of(rows))
        done += rows.size
        if progress:
            progress(done, tokens.size)
    each = _Found(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
    most = np.unravel_index(int(np.argmax(each.divergence)), each.divergence.shape)
    return Receipt(
        source=(names or (source.plan.name,))[0],
        edited=(names or (edited.plan.name,))[-1],
        text=text,
        sequences=number,
        length=length,
        dtype=sums.dtype,
        divergence=float(each.divergence.mean()),
        most=float(each.divergence.max()),
        most_at=(int(most[0]) + 1, int(most[1]) + 1),
        agreement=float(each.same.mean()),
        perplexity=_perplexity(each.ours),
        source_perplexity=_perplexity(each.theirs),
        layers=tuple(_layers(source, edited, origins, each.gaps.mean(0))),
        stretches=tuple(_stretches(each.divergence.mean(0))),
    )


def _require(
    source: LanguageModel,
    edited: LanguageModel,
    tokens: Tokens,
    origins: Sequence[int | None] | None,
    vocabulary: Sequence[int] | None,
) -> None:
    if tokens.ndim != 2 or not len(tokens) or tokens.shape[1] < 2:
        raise ValueError(f"tokens are (B, L) with an L of at least 2, not {tokens.shape}")
    if origins is not None and len(origins) != len(edited.plan.layers):
        raise ValueError(f"there are {len(origins)} origins for {len(edited.plan.layers)} layers")
    sizes = int(source.plan.dims.vocab_size), int(edited.plan.dims.vocab_size)
    if vocabulary is None and sizes[0] != sizes[1]:
        raise ValueError(f"the vocabularies have {sizes[0]} and {sizes[1]} tokens: say which of them are the same")
    if vocabulary is not None and len(vocabulary) != sizes[1]:
        raise ValueError(f"the vocabulary names {len(vocabulary)} tokens, the edited model has {sizes[1]}")


def _origins(
    source: LanguageModel, edited: LanguageModel, origins: Sequence[int | None] | None
) -> Sequence[int | None] | None:
    same = len(source.plan.layers) == len(edited.plan.layers)
    return range(len(edited.plan.layers)) if origins is None and same else origins


@dataclass(frozen=True)
class _Found:
    """Of some sequences: figures of every token (B, L), of every target (B, L - 1), of every layer (B, layers)."""

    divergence: npt.NDArray[np.float64]
    same: npt.NDArray[np.float64]
    theirs: npt.NDArray[np.float64]
    ours: npt.NDArray[np.float64]
    gaps: npt.NDArray[np.float64]


class _Sums:
    """Two models side by side."""

    def __init__(
        self,
        source: LanguageModel,
        edited: LanguageModel,
        origins: Sequence[int | None] | None,
        vocabulary: Sequence[int] | None,
    ) -> None:
        self.source, self.edited, self.origins = source, edited, origins
        self.common = None if vocabulary is None else np.asarray(vocabulary)
        self.dtype = "float32"

    def of(self, tokens: Tokens) -> tuple[npt.NDArray[np.float64], ...]:
        """The figures of `_Found`."""
        own = self._own(tokens)
        with layer_outputs(self.source) as theirs:
            g = self.source.hidden(mx.array(tokens.astype(np.int32)))
        mx.eval(g, theirs)
        with layer_outputs(self.edited) as ours:
            h = self.edited.hidden(mx.array(own.astype(np.int32)))
        gaps = self._gaps(theirs, ours, tokens.shape)
        mx.eval(h, gaps)
        self.dtype = str(h.dtype).removeprefix("mlx.core.")
        rows = [array.reshape(-1, array.shape[-1]) for array in (g, h)]
        targets = [np.roll(each, -1, axis=1).reshape(-1) for each in (tokens, own)]
        parts = [
            self._piece(rows[0][piece], rows[1][piece], targets[0][piece], targets[1][piece])
            for piece in pieces(len(targets[0]), int(self.source.plan.dims.vocab_size))
        ]
        apart, same, theirs_nll, ours_nll = (
            np.concatenate(each).reshape(tokens.shape) for each in zip(*parts, strict=True)
        )
        return apart, same, theirs_nll[:, :-1], ours_nll[:, :-1], np.array(gaps, np.float64)

    def _own(self, tokens: Tokens) -> Tokens:
        """The tokens as the edited model numbers them."""
        if self.common is None:
            return tokens
        own = np.full(int(self.source.plan.dims.vocab_size), -1)
        own[self.common[self.common >= 0]] = np.flatnonzero(self.common >= 0)
        found: Tokens = own[tokens]
        if (found < 0).any():
            raise ValueError("the text has tokens that the edited model has not: leave them out")
        return found

    def _piece(self, g: mx.array, h: mx.array, wanted: Tokens, own: Tokens) -> list[npt.NDArray[np.float64]]:
        """Divergence, whether the likeliest is the same, and the loss of both, of each row."""
        theirs, ours = logits_of(self.source, g), logits_of(self.edited, h)
        scores = [_taken(theirs, wanted), _taken(ours, own)]
        if self.common is None:
            apart, *partitions = compared(theirs, ours)
        else:
            partitions = [log_partition(theirs), log_partition(ours)]
            kept = np.flatnonzero(self.common >= 0)
            theirs, ours = theirs[:, mx.array(self.common[kept])], ours[:, mx.array(kept)]
            apart = divergence(theirs, ours)
        losses = [partition - score for partition, score in zip(partitions, scores, strict=True)]
        figures = [apart, mx.argmax(theirs, -1) == mx.argmax(ours, -1), *losses]
        mx.eval(figures)
        return [np.array(each.astype(mx.float32), np.float64) for each in figures]

    def _gaps(self, theirs: list[Any], ours: list[Any], shape: tuple[int, ...]) -> mx.array:
        """(B, layers), the mean relative difference of what layers give."""
        if self.origins is None:
            return mx.zeros((shape[0], 0))
        found, last = [], -1
        for layer, origin in enumerate(self.origins):
            last = last if origin is None else origin
            found.append(_gap(theirs[last + 1], ours[layer + 1], shape))
        return mx.stack(found, axis=1)


def _taken(logits: mx.array, wanted: Tokens) -> mx.array:
    return mx.take_along_axis(logits, mx.array(wanted.astype(np.int32))[:, None], axis=-1)[:, 0]


def _gap(theirs: Any, ours: Any, shape: tuple[int, ...]) -> mx.array:
    """(B,), the mean over the tokens of a sequence; `shape` is (B, L)."""
    g, h = (_state(each, shape) for each in (theirs, ours))
    if g is None or h is None or g.shape != h.shape:
        return mx.full(shape[:1], _UNKNOWN)
    apart, size = (mx.linalg.norm(each, axis=-1) for each in (h - g, g))
    return (apart / mx.maximum(size, 1e-30)).mean(axis=-1)


def _state(value: Any, shape: tuple[int, ...]) -> mx.array | None:
    """(B, L, width) of a hidden state, or of all arrays that a residual scheme has for each token."""
    arrays = [each for _, each in tree_flatten(value) if isinstance(each, mx.array) and each.shape[:2] == shape]
    if not arrays:
        return None
    return mx.concatenate([each.astype(mx.float32).reshape(*shape, -1) for each in arrays], axis=-1)


def _perplexity(losses: npt.NDArray[np.float64]) -> float:
    mean = float(losses.mean())
    return exp(mean) if mean < 700 else float("inf")


def _layers(
    source: LanguageModel, edited: LanguageModel, origins: Sequence[int | None] | None, gaps: npt.NDArray[np.float64]
) -> list[LayerGap]:
    if origins is None:
        return []
    before, after = source.plan.layers, edited.plan.layers
    return [
        LayerGap(
            layer.index,
            origin,
            _components(layer),
            origin is None or _parts(layer) != _parts(before[origin]),
            None if gap == _UNKNOWN else gap,
        )
        for layer, origin, gap in zip(after, origins, gaps.tolist(), strict=True)
    ]


def _components(layer: Layer) -> str:
    return ", ".join(member.use.name for branch in layer.branches for member in branch.members)


def _parts(layer: Layer) -> list[Any]:
    return [(use.type, use.options) for use in layer.uses()]


def _stretches(divergences: npt.NDArray[np.float64]) -> list[Stretch]:
    found, first = [], 1
    while first <= len(divergences):
        last = min(1 if first == 1 else 2 * (first - 1), len(divergences))
        found.append(Stretch(first, last, float(divergences[first - 1 : last].mean())))
        first = last + 1
    return found
