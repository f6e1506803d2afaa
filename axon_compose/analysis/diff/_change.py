"""What a comparison of two models found, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from axon_compose.notebook import Printed
from axon_compose.plan import layer_ranges

__all__ = ["Change", "Difference", "Total"]

#: Ranges of layers listed one by one.
_RUNS: Final = 6


@dataclass(frozen=True)
class Change:
    """One thing in which two models differ.

    Attributes:
        kind: `added`, `removed`, `moved`, `replaced`, `option`, `norm`, `scale`, `wiring` or `size`.
        place: `layers`, or a part outside of the stack: `dims`, `embedding`, `final norm`, `head`.
        layers: Layers of the first model that it concerns, rising; empty outside of the stack and for added layers.
        now: Those of the second model.
        text: What differs, in words, without the place.
        subjects: Names of the components that it is about, as the files call them.
        option: The option, dotted, or None.
        before: Its value in the first model, plain data.
        after: Its value in the second one.
    """

    kind: str
    place: str
    text: str
    layers: tuple[int, ...] = ()
    now: tuple[int, ...] = ()
    subjects: tuple[str, ...] = ()
    option: str | None = None
    before: Any = None
    after: Any = None

    @property
    def where(self) -> str:
        """The place in words: `layers 8..15`, with the numbers of the second model where they are others."""
        if self.place != "layers":
            return self.place
        old, new = _counted(self.layers), _counted(self.now)
        word = "layer" if len(self.layers or self.now) == 1 else "layers"
        return f"{word} {old} → {new}" if old and new and old != new else f"{word} {old or new}"

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "kind": self.kind,
            "place": self.place,
            "layers_a": list(self.layers),
            "layers_b": list(self.now),
            "components": list(self.subjects),
            "option": self.option,
            "before": self.before,
            "after": self.after,
            "text": str(self),
        }


@dataclass(frozen=True)
class Total:
    """One figure of both models.

    Attributes:
        name: What is counted, e.g. `parameters`.
        unit: Empty, or `bytes`.
        before: Of the first model.
        after: Of the second one.
    """

    name: str
    unit: str
    before: int
    after: int

    @property
    def change(self) -> int:
        """How much more the second model has."""
        return self.after - self.before


@dataclass(frozen=True)
class Difference(Printed):
    """How a second model differs from a first one in what it computes.

    Attributes:
        a: Name of the first model.
        b: Name of the second one.
        layers: Number of layers of both.
        changes: What differs, from the sizes through the stack to the head; empty if they are equal.
        totals: Parameters and bytes of caches.
    """

    a: str
    b: str
    layers: tuple[int, int]
    changes: tuple[Change, ...]
    totals: tuple[Total, ...]

    def __repr__(self) -> str:
        return f"<Difference {self.a} → {self.b}: {len(self.changes)} changes>"

    @property
    def equal(self) -> bool:
        """Whether both compute the same, given the same weights."""
        return not self.changes

    def __bool__(self) -> bool:
        return not self.equal

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "a": self.a,
            "b": self.b,
            "equal": self.equal,
            "layers": {"before": self.layers[0], "after": self.layers[1]},
            "changes": [change.to_dict() for change in self.changes],
            "totals": {
                total.name: {
                    "unit": total.unit or None,
                    "before": total.before,
                    "after": total.after,
                    "change": total.change,
                }
                for total in self.totals
            },
        }


def _counted(layers: tuple[int, ...]) -> str:
    """Layers in a few words: `0..3, 8`; where not all are named, also how many they are: `0, 2, … 48 (25 in all)`."""
    text = layer_ranges(layers, _RUNS)
    return f"{text} ({len(layers)} in all)" if "…" in text else text
