"""Advice as a value: the warnings in order, and the texts that they point into."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from axon_compose.diagnostics import Diagnostic
from axon_compose.notebook import Printed

__all__ = ["Advice"]


class Advice(Printed, tuple[Diagnostic, ...]):
    """Warnings in the order of the file; a tuple that prints as the command `lint` does.

    Args:
        found: The warnings.
        sources: Name to text of the files that they point into.
    """

    sources: Mapping[str, str]

    def __new__(cls, found: Iterable[Diagnostic] = (), *, sources: Mapping[str, str] | None = None) -> Advice:
        advice = super().__new__(cls, tuple(found))
        advice.sources = dict(sources or {})
        return advice

    def __repr__(self) -> str:
        return f"<Advice: {', '.join(one.code for one in self) or 'none'}>"
