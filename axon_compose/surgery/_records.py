"""What a receipt says, as plain data; imports no mlx."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, Final

from axon_compose.notebook import Printed

__all__ = ["LayerGap", "Receipt", "Stretch", "finite"]

#: Up to which relative difference hidden states are taken for equal, in float32 and in types of half the size.
_ROUNDING: Final = 1e-5
_ROUNDING_OF_HALVES: Final = 2e-2


@dataclass(frozen=True)
class LayerGap:
    """One layer of the edited model beside the one that it comes from.

    Attributes:
        index: Of the edited model's layer.
        origin: The source's layer; None for one that has been inserted, whose output is compared with what came before.
        components: Names and types of what it consists of.
        changed: Whether components or their options differ from the origin's.
        gap: The mean over tokens of :math:`|h - g| / |g|`, with h its output and g the source's; None where these
            cannot be compared.
    """

    index: int
    origin: int | None
    components: str
    changed: bool
    gap: float | None


@dataclass(frozen=True)
class Stretch:
    """Places in a sequence, both ends included and counted from 1, and the mean divergence there."""

    first: int
    last: int
    divergence: float


@dataclass(frozen=True)
class Receipt(Printed):
    """How an edited model differs from its source, on a text.

    Attributes:
        source: Name of the source.
        edited: Name of the edited model.
        text: What was read.
        sequences: How many.
        length: Tokens of each.
        dtype: In which the models ran.
        divergence: Mean over tokens of KL(source || edited), in nats.
        most: The largest of a token.
        most_at: Its sequence and its place there, from 1.
        agreement: Part of the tokens after which both find the same next one likeliest.
        perplexity: Of the edited model on the text.
        source_perplexity: Of the source.
        layers: Every layer of the edited model; empty where its layers cannot be set beside the source's.
        stretches: The mean divergence by place in the sequence: 1, 2, 3 to 4, 5 to 8 and so on.
    """

    source: str
    edited: str
    text: str
    sequences: int
    length: int
    dtype: str
    divergence: float
    most: float
    most_at: tuple[int, int]
    agreement: float
    perplexity: float
    source_perplexity: float
    layers: tuple[LayerGap, ...]
    stretches: tuple[Stretch, ...]

    @property
    def tokens(self) -> int:
        """That were read by both."""
        return self.sequences * self.length

    @property
    def rounding(self) -> float:
        """Up to which relative difference hidden states are taken for equal."""
        return _ROUNDING if self.dtype == "float32" else _ROUNDING_OF_HALVES

    @property
    def parted(self) -> int | None:
        """The first layer whose output differs by more than roundings; None if there is none."""
        return next(
            (each.index for each in self.layers if each.gap is not None and not each.gap <= self.rounding), None
        )

    @property
    def exact(self) -> bool:
        """Whether no bit of a prediction differs."""
        return self.most == 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; null for a figure that is not finite, as those of a broken model."""
        data: dict[str, Any] = finite(asdict(self))
        return data | {"tokens": self.tokens, "first_parted": self.parted, "exact": self.exact}


def finite(data: Any) -> Any:
    """Plain data with None in the place of every number that JSON does not know."""
    match data:
        case dict():
            return {key: finite(value) for key, value in data.items()}
        case list() | tuple():
            return [finite(value) for value in data]
        case float():
            return data if isfinite(data) else None
    return data
