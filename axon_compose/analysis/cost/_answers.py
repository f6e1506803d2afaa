"""What components declare of their work, checked: a plugin's own code may return anything, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

from axon_compose.plan import DTYPES, Use
from axon_compose.registry import Array, Guard, Raised

__all__ = ["Answers"]


class Answers:
    """Asks components for operations and for the rows that they read; every answer is kept, since layers are alike.

    Attributes:
        unknown: Type names of components whose work is not known, each with the reason.
        estimated: Type names of components that declare no `saved`, each with the reason.
        faulty: Type names of components whose `touched` or `recomputed` fails, each with how.
    """

    def __init__(self) -> None:
        self.unknown: dict[str, str] = {}
        self._flops: dict[tuple[Any, ...], int | None] = {}
        self.estimated: dict[str, str] = {}
        self.faulty: dict[str, str] = {}
        self._saved: dict[tuple[Any, ...], Sequence[Array] | None] = {}
        self._touched: dict[tuple[Any, ...], Mapping[str, int]] = {}

    def flops(self, use: Use, tokens: int, context: int) -> int | None:
        """Operations for `tokens` new tokens, the last of which is the `context`-th; None if unknown."""
        key = (use.type, use.spec.name, id(use.options), tokens, context)
        if key not in self._flops:
            self._flops[key] = self._ask_flops(use, tokens, context)
        return self._flops[key]

    def _ask_flops(self, use: Use, tokens: int, context: int) -> int | None:
        found = _flops(use, tokens, context)
        if isinstance(found, int):
            return found
        self.unknown.setdefault(use.type, found)
        return None

    def saved(self, use: Use, tokens: int, dtype: str) -> Sequence[Array] | None:
        """Arrays of one sequence that the backward pass needs; None if unknown."""
        key = (use.type, use.spec.name, id(use.options), tokens, dtype)
        if key not in self._saved:
            self._saved[key] = self._ask_saved(use, tokens, dtype)
        return self._saved[key]

    def _ask_saved(self, use: Use, tokens: int, dtype: str) -> Sequence[Array] | None:
        found = _saved(use, tokens, dtype)
        if not isinstance(found, str):
            return found
        self.estimated.setdefault(use.type, found)
        return None

    def recomputed(self, use: Use, batch: int, tokens: int) -> int:
        """Bytes that a component's backward pass recomputes and holds; 0 for an invalid answer."""
        if use.spec.recomputed is None:
            return 0
        answer, fault = _asked(use, "recomputed", batch, tokens)
        if fault is None and _is_count(answer):
            return answer
        self.faulty.setdefault(use.type, f"{fault or _nonsense('recomputed', answer)}; nothing is counted for it")
        return 0

    def touched(self, use: Use, tokens: int) -> Mapping[str, int]:
        """Parameters that `tokens` tokens read only in part: name to rows. An invalid answer counts as none."""
        key = (use.type, use.spec.name, id(use.options), tokens)
        if key not in self._touched:
            self._touched[key] = self._ask_touched(use, tokens)
        return self._touched[key]

    def _ask_touched(self, use: Use, tokens: int) -> Mapping[str, int]:
        """The rows; everything is read where they are not known, which is the most that it can be."""
        if use.spec.touched is None:
            return {}
        answer, fault = _asked(use, "touched", tokens, convert=_rows)
        if answer is None:
            self.faulty.setdefault(use.type, f"{fault or 'returns no names and rows from `touched`'}; all is read")
        return answer or {}


def _asked(use: Use, name: str, *arguments: Any, convert: Callable[[Any], Any] | None = None) -> tuple[Any, str | None]:
    """What a function of a record answers, or why it does not; `convert` looks at the answer, which may raise too."""
    try:
        with Guard():
            answer = getattr(use.spec, name)(use.options, use.dims, *arguments)
            return (convert(answer) if convert else answer), None
    except Raised as raised:
        where = ", ".join(filter(None, (use.owner, raised.place)))
        return None, f"raises {raised.cause} in `{name}` ({where})"


def _flops(use: Use, tokens: int, context: int) -> int | str:
    """The operations, or why they are not known."""
    if use.spec.flops is None:
        return "declares no `flops`"
    answer, fault = _asked(use, "flops", tokens, context)
    if fault is not None:
        return fault
    if answer is None:
        return "cannot compute `flops` for these options"
    return answer if _is_count(answer) else _nonsense("flops", answer)


def _saved(use: Use, tokens: int, dtype: str) -> Sequence[Array] | str:
    """The arrays, or why they are not known."""
    if use.spec.saved is None:
        return "declares no `saved`"
    arrays, fault = _asked(
        use, "saved", tokens, dtype, convert=lambda answer: answer if answer is None else tuple(answer)
    )
    if fault is not None:
        return fault
    if arrays is None:
        return "cannot compute `saved` for these options"
    return arrays if all(map(_is_array, arrays)) else "returns no arrays from `saved`"


def _rows(answer: Any) -> dict[str, int] | None:
    """Names and rows; None if that is not what it is."""
    if not isinstance(answer, Mapping):
        return None
    return {name: rows for name, rows in answer.items() if isinstance(name, str) and _is_count(rows)}


def _nonsense(name: str, answer: object) -> str:
    return f"returns a `{type(answer).__name__}` from `{name}`, not an integer of 0 or more"


def _is_array(value: object) -> bool:
    known = (None, "bool", *DTYPES)
    return isinstance(value, Array) and value.dtype in known and all(map(_is_count, value.shape))


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0 and value.bit_length() < 512
