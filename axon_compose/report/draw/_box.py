"""The box of one component: its name and type, what it keeps, and its share of the parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from axon_compose.plan import Use
from axon_compose.registry import KV, cache_leaves
from axon_compose.report.draw._canvas import Canvas
from axon_compose.report.draw._family import family
from axon_compose.report.draw._words import fitted, share, width

__all__ = ["GLYPH", "Box", "glyph", "kind_of_cache", "type_name"]

LINE: Final = 17.0
PAD: Final = 10.0
GLYPH: Final = 11.0
#: From this width on, numbers stand beside the words instead of below.
WIDE: Final = 250.0


@dataclass(frozen=True)
class Box:
    """A component as it is drawn.

    Attributes:
        use: The component.
        times: How many layers its card stands for.
        total: Parameters of the whole model.
        kept: Its cache and how it knows positions, as far as there is either; in one line where there is room.
        notes: Further lines, such as where it reads from.
        borrowed: Its weights belong to another layer.
    """

    use: Use
    times: int
    total: int
    kept: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    borrowed: bool = False

    def height(self, room: float) -> float:
        """How tall it is in a box of that width."""
        return len(self._lines(room)) * LINE + 16

    def draw(self, canvas: Canvas, x: float, y: float, room: float, height: float) -> None:
        """Draw it at a place."""
        use, kind = self.use, family(self.use)
        canvas.rect(x, y, room, height, kind, round_=5, tip=self._tip())
        for row, (left, right) in enumerate(self._lines(room)):
            base = y + 18 + row * LINE
            free = room - 2 * PAD - (width(right, 11) + 12 if right else 0)
            canvas.words(x + room - PAD, base, right, "small end")
            start = x + PAD
            if row == 0:
                self._name(canvas, start, base, free)
                continue
            if row == 1 and use.cache is not None:
                glyph(canvas, start, base - 9, kind_of_cache(use))
                start, free = start + GLYPH + 6, free - GLYPH - 6
            canvas.words(start, base, fitted(left, free, 11), "small quiet")
        self._bar(canvas, x + PAD, y + height - 8, room - 2 * PAD)

    def _name(self, canvas: Canvas, x: float, y: float, free: float) -> None:
        name, kind = self.use.name, type_name(self.use)
        shown = fitted(name, free, 13, strong=True)
        rest = free - width(shown, 13, strong=True) - 6
        canvas.pair(x, y, shown, fitted(kind, rest, 11) if kind != name and shown == name and rest > 34 else "")

    def _bar(self, canvas: Canvas, x: float, y: float, room: float) -> None:
        """The share of the parameters; the whole width is the whole model."""
        part = 0 if self.borrowed else self.use.size * self.times
        canvas.rect(x, y, room, 3, "track", round_=1.5)
        if part:
            canvas.rect(x, y, max(room * part / self.total, 1), 3, f"{family(self.use)}-bar", round_=1.5)

    def _lines(self, room: float) -> list[tuple[str, str]]:
        """Words at the left and numbers at the right, the name in the first line."""
        use = self.use
        active = () if use.active == use.size or self.borrowed else (f"{use.active:,} active per token",)
        numbers = self._numbers()
        words = [*self._kept(room, numbers), *active, *self.notes]
        if room < WIDE:
            together = " · ".join(numbers)
            below = [together] if numbers and width(together, 11) <= room - 2 * PAD else numbers
            return [("", ""), *((word, "") for word in (*words, *below))]
        rows = max(len(words) + 1, len(numbers))
        left, right = ["", *words], list(numbers)
        left += [""] * (rows - len(left))
        right += [""] * (rows - len(right))
        return list(zip(left, right, strict=True))

    def _kept(self, room: float, numbers: list[str]) -> tuple[str, ...]:
        beside = max((width(number, 11) + 12 for number in numbers), default=0) if room >= WIDE else 0
        together = ", ".join(self.kept)
        fits = width(together, 11) <= room - 2 * PAD - GLYPH - 6 - beside
        return (together,) if self.kept and fits else self.kept

    def _numbers(self) -> list[str]:
        use = self.use
        if self.borrowed or not use.size:
            return []
        each = f"{self.times} × {use.size:,}" if self.times > 1 else f"{use.size:,}"
        return [each, share(use.size * self.times, self.total)]

    def _tip(self) -> str:
        owned = "" if self.borrowed else f", {self.use.size:,} parameters"
        return f"{self.use.name}: {type_name(self.use)}{owned}" + (f", {', '.join(self.kept)}" if self.kept else "")


def type_name(use: Use) -> str:
    """The type of a component as a file names it."""
    return use.type.removeprefix("core/")


def kind_of_cache(use: Use) -> str:
    """`grows`, `window`, `state`, or `both` for keys and values beside a state."""
    leaves = list(cache_leaves(use.cache))
    kv = [leaf for leaf in leaves if isinstance(leaf, KV)]
    if kv and len(kv) < len(leaves):
        return "both"
    if not kv:
        return "state"
    return "grows" if any(leaf.window is None for leaf in kv) else "window"


def glyph(canvas: Canvas, x: float, y: float, kind: str) -> None:
    """The sign of a cache: a wedge that grows, a window on a strip, a filled square."""
    if kind == "grows":
        canvas.path(f"M{x} {y + GLYPH:g}L{x + GLYPH:g} {y + GLYPH:g}L{x + GLYPH:g} {y:g}Z", "glyph-full")
    elif kind == "window":
        canvas.rect(x, y + 2, GLYPH, GLYPH - 4, "glyph", round_=1)
        canvas.rect(x + 5, y + 2, GLYPH - 5, GLYPH - 4, "glyph-full", round_=1)
    else:
        canvas.rect(x + 1, y + 1, GLYPH - 2, GLYPH - 2, "glyph-full", round_=2)
        if kind == "both":
            canvas.rect(x + 3, y + 3, GLYPH - 6, GLYPH - 6, "paper", round_=1)
