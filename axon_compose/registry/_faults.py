"""Faults of a mapping against its model, in plain words, whichever validator found them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from axon_compose.diagnostics import nearest
from axon_compose.record import record
from axon_compose.registry._failure import suggestion

__all__ = ["Fault", "Findings", "Path", "bound"]

Path = tuple[str | int, ...]
FaultKind = Literal["unknown", "missing", "type", "range", "choice", "value", "plugin"]

_NUMBER: Final = r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?"
_TRUTH: Final = dict.fromkeys(("yes", "on", "true"), "true") | dict.fromkeys(("no", "off", "false"), "false")
_LONGEST_VALUE: Final = 40


@record
class Fault:
    """One fault of a mapping.

    Attributes:
        path: Keys and indices from the mapping to the place; for a missing entry the last one is not there.
        kind: `unknown` key, `missing` key, wrong `type`, out of `range`, not a `choice`, refused `value`, or a
            fault of the `plugin` itself.
        message: What is wrong, one line.
        label: What to say beside the place.
        help: What to do, or None.
        at_key: Whether the key of the entry at `path` is to blame rather than its value.
    """

    path: Path
    kind: FaultKind
    message: str
    label: str = ""
    help: str | None = None
    at_key: bool = False


class _Mismatch:
    """Everything that was expected of one value; several for a union."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.kinds: list[FaultKind] = []
        self.expected: list[str] = []
        self.choices: list[str] = []


class Findings:
    """Collects what a validator finds and words it; the same words for every validator.

    Attributes:
        owner: Whose options these are, e.g. `attention`.
        noun: What an entry is called, e.g. `option`.
    """

    def __init__(self, owner: str, noun: str) -> None:
        self.owner = owner
        self.noun = noun
        self._faults: dict[Fault, None] = {}  # in their order, each once
        self._mismatches: dict[Path, _Mismatch] = {}
        self._missing: dict[tuple[Path, str], str] = {}
        self._suggested: set[tuple[Path, str]] = set()

    def unknown(self, parent: Path, name: str, candidates: Iterable[str] | None) -> None:
        """The mapping at `parent` has a key that it may not have; `candidates` are the right ones, if known."""
        owner, help_ = self._owner(parent), None
        if candidates is not None:
            names = list(candidates)
            if match := nearest(name, names):
                self._suggested.add((parent, match))
            help_ = suggestion(name, names, f"{self.noun}s of `{owner}`") or f"`{owner}` has no {self.noun}s"
        message = f"unknown {self.noun} `{_short(name)}`"
        self._add(Fault((*parent, name), "unknown", message, f"not {_a(self.noun)} of `{owner}`", help_, at_key=True))

    def missing(self, parent: Path, name: str, description: str = "") -> None:
        """The mapping at `parent` lacks a key."""
        self._missing.setdefault((parent, name), description)

    def mismatch(self, path: Path, value: Any, kind: FaultKind, expected: str, choices: Iterable[str] = ()) -> None:
        """The value at `path` is not what is `expected`; several of these for one place are alternatives."""
        entry = self._mismatches.setdefault(path, _Mismatch(value))
        if expected not in entry.expected:
            entry.kinds.append(kind)
            entry.expected.append(expected)
            entry.choices.extend(choices)

    def value(self, path: Path, text: str) -> None:
        """A validator refused the value at `path` and says why."""
        text = " ".join(text.split()) or "refused without a reason"
        subject = "" if not path or "`" in text else f"{self._name(path)}: "
        self._add(Fault(path, "value", f"{subject}{text}"))

    def about(self, path: Path) -> bool:
        """Whether anything has been found at a place or inside of it."""
        found = (*(fault.path for fault in self._faults), *self._mismatches)
        return any(place[: len(path)] == path for place in found)

    def faults(self) -> list[Fault]:
        """Everything found, without what only follows from something else."""
        for (parent, name), description in self._missing.items():
            if (parent, name) not in self._suggested:
                self._add(self._missing_fault(parent, name, description))
        paths = {fault.path for fault in self._faults} | set(self._mismatches)
        outer = {path[:length] for path in paths for length in range(len(path))}
        for path, mismatch in self._mismatches.items():
            # A union complains once for each member; the member that fits in shape has the better complaint.
            if path not in outer:
                self._add(self._mismatch_fault(path, mismatch))
        return list(self._faults)

    def _missing_fault(self, parent: Path, name: str, description: str) -> Fault:
        help_ = f"`{name}`: {description}" if description else None
        label = f"`{self._owner(parent)}` needs `{name}`"
        return Fault((*parent, name), "missing", f"missing {self.noun} `{name}`", label, help_, at_key=True)

    def _mismatch_fault(self, path: Path, mismatch: _Mismatch) -> Fault:
        expected = _singular(_either(mismatch.expected))
        kind = mismatch.kinds[0] if len(set(mismatch.kinds)) == 1 else "type"
        found = _shape(mismatch.value) if kind == "type" else _written(mismatch.value)
        if kind == "range" and isinstance(mismatch.value, list | tuple):
            found = _singular(f"{len(mismatch.value)} entries")
        return Fault(
            path,
            kind,
            f"{self.noun} {self._name(path)} must be {expected}" if path else f"expected {expected}",
            f"expected {expected}, found {found}",
            _remedy(mismatch.value, mismatch.expected, mismatch.choices),
        )

    def _add(self, fault: Fault) -> None:
        self._faults.setdefault(fault)

    def _owner(self, parent: Path) -> str:
        return next((step for step in reversed(parent) if isinstance(step, str)), self.owner)

    def _name(self, path: Path) -> str:
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
        return f"`{''.join(steps).removeprefix('.')}`"


def bound(limit: Any) -> str:
    """A limit without a trailing `.0`: 1 for 1.0."""
    return f"{limit:.15g}" if isinstance(limit, float) else str(limit)


def _remedy(value: Any, expected: list[str], choices: list[str]) -> str | None:
    if not isinstance(value, str):
        return None
    if match := nearest(value, choices):
        return f"did you mean `{match}`?"
    if "true or false" in expected and value.lower() in _TRUTH:
        return f"write `{_TRUTH[value.lower()]}`"
    if any("number" in e or "integer" in e for e in expected):
        if re.fullmatch(_NUMBER, value):
            return f"write {value} without quotes"
        bare = value.replace("_", "").replace(",", "")
        if re.fullmatch(_NUMBER, bare):
            return f"write {bare}"
    return None


def _shape(value: Any) -> str:
    match value:
        case str():
            return "text"
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case bool() | None:
            return _written(value)
        case int() | float():
            return f"the number {_written(value)}"
        case _:
            return type(value).__name__


def _written(value: Any) -> str:
    """A value as the file has it, cut to a length that fits beside an excerpt."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() if value.bit_length() > 128:
            return "a huge number"
        case int() | float():
            return str(value)
        case str():
            return f"`{_short(value)}`"
        case _:
            return _shape(value)


def _short(text: str) -> str:
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def _either(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} or {parts[-1]}"


def _singular(text: str) -> str:
    return re.sub(r"\b1 entries\b", "1 entry", re.sub(r"\b1 characters\b", "1 character", text))


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
