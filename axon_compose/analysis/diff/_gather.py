"""Differences of single layers, folded into changes of ranges of layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from axon_compose.analysis.diff._change import Change
from axon_compose.analysis.diff._form import frozen
from axon_compose.analysis.diff._words import ready

__all__ = ["Atom", "Gathered"]

#: The order in which kinds of changes of one range of layers are listed.
_ORDER: Final = ("removed", "added", "moved", "replaced", "option", "norm", "scale", "wiring", "size")


@dataclass(frozen=True)
class Atom:
    """One difference at one place.

    Attributes:
        kind: As in `Change`.
        subject: The component that it is about, or empty.
        text: What differs, to be said of the subject.
        role: What stands before the subject, such as `norm before`.
        option: The option, or None.
        before: Its value.
        after: Its value in the second model.
    """

    kind: str
    subject: str
    text: str
    role: str = ""
    option: str | None = None
    before: Any = None
    after: Any = None

    @property
    def rest(self) -> tuple[Any, ...]:
        """All but the subject."""
        return (self.kind, self.text, self.role, self.option, frozen(self.before), frozen(self.after))


class Gathered:
    """Collects the differences of a stack and folds those that are alike."""

    def __init__(self) -> None:
        self._found: dict[tuple[Any, ...], tuple[Atom, list[int], list[int]]] = {}

    def add(self, atom: Atom, layer: int | None, now: int | None) -> None:
        """Note a difference of one layer; None for a layer that only one model has."""
        _, old, new = self._found.setdefault((atom.subject, *atom.rest), (atom, [], []))
        if layer is not None and layer not in old[-1:]:
            old.append(layer)
        if now is not None and now not in new[-1:]:
            new.append(now)

    def changes(self) -> list[Change]:
        """One change for all layers and all components of which the same can be said."""
        merged: dict[tuple[Any, ...], tuple[Atom, list[int], list[int], list[str]]] = {}
        for atom, old, new in self._found.values():
            key = (*atom.rest, tuple(old), tuple(new))
            entry = merged.setdefault(key, (atom, old, new, []))
            if atom.subject:
                entry[3].append(atom.subject)
        changes = [
            Change(
                atom.kind,
                "layers",
                said(atom, subjects),
                tuple(old),
                tuple(new),
                tuple(subjects),
                atom.option,
                ready(atom.before),
                ready(atom.after),
            )
            for atom, old, new, subjects in merged.values()
        ]
        return sorted(changes, key=lambda change: ((change.layers or change.now)[0], _ORDER.index(change.kind)))


def said(atom: Atom, subjects: list[str]) -> str:
    """The words of a change of one or several components."""
    names = ", ".join(subjects)
    if atom.role:
        roles = atom.role.replace("norm", "norms", 1) if len(subjects) > 1 else atom.role
        return f"{roles} {names}: {atom.text}" if names else f"{roles}: {atom.text}"
    if not names:
        return atom.text
    if atom.kind == "option":
        return f"{names}.{atom.text}" if len(subjects) == 1 else f"{names}: {atom.text}"
    return f"{names} {atom.text}"
