"""What components declare of their work, checked: a plugin's own code may return anything, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from axon_compose.plan import DTYPES, Use
from axon_compose.registry import Array

__all__ = ["Answers"]


class Answers:
    """Asks components for operations and for the rows that they read; every answer is kept, since layers are alike.

    Attributes:
        unknown: Type names of components whose work is not known, each with the reason.
        estimated: Type names of components that declare no `saved`, each with the reason.
    """

    def __init__(self) -> None:
        self.unknown: dict[str, str] = {}
        self._flops: dict[tuple[Any, ...], int | None] = {}
        self.estimated: dict[str, str] = {}
        self._saved: dict[tuple[Any, ...], Sequence[Array] | None] = {}
        self._touched: dict[tuple[Any, ...], Mapping[str, int]] = {}

    def flops(self, use: Use, tokens: int, context: int) -> int | None:
        """Operations for `tokens` new tokens, the last of which is the `context`-th; None if unknown."""
        key = (use.type, id(use.options), tokens, context)
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
        key = (use.type, id(use.options), tokens, dtype)
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
        try:
            answer: object = use.spec.recomputed(use.options, use.dims, batch, tokens)
        except Exception:  # a plugin's own code
            return 0
        return answer if _is_count(answer) else 0

    def touched(self, use: Use, tokens: int) -> Mapping[str, int]:
        """Parameters that `tokens` tokens read only in part: name to rows. An invalid answer counts as none."""
        key = (use.type, id(use.options), tokens)
        if key not in self._touched:
            self._touched[key] = self._ask_touched(use, tokens)
        return self._touched[key]

    def _ask_touched(self, use: Use, tokens: int) -> Mapping[str, int]:
        if use.spec.touched is None:
            return {}
        try:
            answer = use.spec.touched(use.options, use.dims, tokens)
        except Exception:  # everything is read then, which is the most that it can be
            return {}
        if not isinstance(answer, Mapping):
            return {}
        return {name: rows for name, rows in answer.items() if isinstance(name, str) and _is_count(rows)}


def _flops(use: Use, tokens: int, context: int) -> int | str:
    """The operations, or why they are not known."""
    if use.spec.flops is None:
        return "declares no `flops`"
    try:
        answer: object = use.spec.flops(use.options, use.dims, tokens, context)
    except Exception as error:  # a plugin's own code: the sheet goes on without it
        return f"raises {type(error).__name__} in `flops`"
    if answer is None:
        return "cannot compute `flops` for these options"
    if not _is_count(answer):
        return f"returns a `{type(answer).__name__}` from `flops`, not an integer of 0 or more"
    return answer


def _saved(use: Use, tokens: int, dtype: str) -> Sequence[Array] | str:
    """The arrays, or why they are not known."""
    if use.spec.saved is None:
        return "declares no `saved`"
    try:
        answer: object = use.spec.saved(use.options, use.dims, tokens, dtype)
        arrays: tuple[Any, ...] | None = None if answer is None else tuple(answer)  # type: ignore[arg-type]
    except Exception as error:  # a plugin's own code: the sheet goes on without it
        return f"raises {type(error).__name__} in `saved`"
    if arrays is None:
        return "cannot compute `saved` for these options"
    return arrays if all(map(_is_array, arrays)) else "returns no arrays from `saved`"


def _is_array(value: object) -> bool:
    known = (None, "bool", *DTYPES)
    return isinstance(value, Array) and value.dtype in known and all(map(_is_count, value.shape))


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0 and value.bit_length() < 512
