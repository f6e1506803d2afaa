"""What can be checked of the tensor rules from the file alone: patterns, captures, and names in formulas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from axon_compose.diagnostics import Problems, Span
from axon_compose.language.document._document import Document, Path, within
from axon_compose.language.document._formulas import cached_parse
from axon_compose.language.document._huggingface import SplitPart, WeightRule
from axon_compose.language.document._patterns import Pattern, PatternError, Target, parse_pattern, parse_target
from axon_compose.language.document.formula import RESERVED, FormulaError, is_formula

__all__ = ["check_faults", "check_weights"]

#: Keys that work on a tensor, and so say nothing where it is dropped, or compared with a buffer.
_STEPS: Final = (
    "stack", "parts", "join", "reshape", "reshape_from", "transpose", "if_needed", "add", "scale", "pairs_to_halves",
    "tiles_to_groups", "negative_exp", "unit_rows", "integers", "axis", "groups",
)  # fmt: skip
_SHAPES: Final = ("reshape", "reshape_from")
_Read = TypeVar("_Read", bound=Pattern)


def check_weights(document: Document, problems: Problems) -> None:
    """Report the faults of every rule of the sections `huggingface` and `gguf`."""
    section = document.huggingface
    for prefix, text in section.prefixes.items() if section else ():
        if is_formula(text):
            span = document.place("huggingface", "prefixes", prefix)
            problems.error("AX160", "the beginning of a tensor's name is not a formula", span)
    for name, of in (("huggingface", section), ("gguf", document.gguf)):
        for text, rule in of.weights.items() if of else ():
            _Check(document, (name, "weights", text), rule, problems).all()


def check_faults(document: Document, problems: Problems) -> None:
    """Report unknown names in the formulas of known faults."""
    section = document.huggingface
    if section is None or ("dims",) in document.broken:
        return
    broken = {str(path[1]) for path in document.broken if path[0] == "dims" and len(path) == 2}
    known = document.envelope.dims.keys() | broken | {"tokens"}
    for index, fault in enumerate(section.faults):
        values: list[tuple[Path, Any]] = [(("when",), fault.when)]
        values += [
            ((key, name), value) for key in ("settings", "fields") for name, value in getattr(fault, key).items()
        ]
        for path, value in values:
            if not is_formula(value):
                continue
            span = document.place("huggingface", "faults", index, *path)
            for name, (start, end) in _places(value):
                if name not in known:
                    near = problems.nearest(name, known)
                    hint = f"did you mean `{near}`?" if near else "formulas of a fault can use dims and `tokens`"
                    problems.error("AX162", f"unknown name `{name}`", within(span, start, end, len(value)), help=hint)


class _Check:
    """The checks of one rule."""

    def __init__(self, document: Document, path: Path, rule: WeightRule, problems: Problems) -> None:
        self.document, self.path, self.rule, self.problems = document, path, rule, problems
        self.text = str(path[-1])

    def all(self) -> None:
        pattern = self.read(parse_pattern, self.text, self.document.place(*self.path, key=True))
        targets = [(read, span) for text, span in self.targets() if (read := self.read(parse_target, text, span))]
        self.check_keys()
        self.check_numbers()
        if pattern is None:
            return
        self.check_pattern(pattern)
        for target, span in targets:
            self.check_target(pattern, target, span)
        self.check_formulas(pattern)

    def read(self, parse: Callable[[str], _Read], text: str, span: Span) -> _Read | None:
        try:
            return parse(text)
        except PatternError as error:
            place = within(span, error.start, error.end, len(text))
            self.problems.error("AX160", error.message, place, help=error.help)
            return None

    def targets(self) -> Iterator[tuple[str, Span]]:
        for key, text in (("to", self.rule.to), ("buffer", self.rule.buffer)):
            if text is not None:
                yield text, self.document.place(*self.path, key)
        for text in self.rule.split or ():
            yield text, self.document.place(*self.path, "split", text, key=True)

    def check_pattern(self, pattern: Pattern) -> None:
        span = self.document.place(*self.path, key=True)
        dims = self.document.envelope.dims
        for capture in pattern.captures:
            place = within(span, capture.start, capture.end, len(self.text))
            if capture.wild and not self.rule.drop:
                message = "`<*>` discards text, so the tensor's name cannot be reconstructed"
                self.problems.error("AX161", message, place, help="capture it by a name, and use it in the target")
            elif capture.name in RESERVED or capture.name in dims:
                what = "a dim" if capture.name in dims else "reserved in formulas"
                message = f"`{capture.name}` is a capture and {what}"
                self.problems.error(
                    "AX122", message, place, help="rename the capture: formulas could not tell them apart"
                )
        stack = self.rule.gathers
        if stack is not None and stack not in pattern.names:
            place = self.document.place(*self.path, "join" if self.rule.join else "stack")
            self.problems.error("AX161", f"the pattern captures no `<{stack}>`", place, help=self.known(pattern, stack))

    def check_target(self, pattern: Pattern, target: Target, span: Span) -> None:
        for capture in target.captures:
            place = within(span, capture.start, capture.end, len(target.text))
            if capture.name not in pattern.names:
                message = f"the pattern captures no `<{capture.name}>`"
                self.problems.error("AX161", message, place, help=self.known(pattern, capture.name))
            elif capture.name == self.rule.gathers:
                how = "joined" if self.rule.join else "stacked"
                message = f"`<{capture.name}>` is {how}, so the target cannot use it"
                self.problems.error("AX161", message, place, help=f"leave it out: the tensors are {how} into one")
        if not target.names <= pattern.names or not {self.rule.gathers} <= pattern.names | {None}:
            return  # a capture that is misspelt there is not reported again as missing here
        condition = self.rule.when
        used = _names(condition) if isinstance(condition, str) else frozenset[str]()
        for name in sorted(pattern.names - target.names - used - {self.rule.gathers}):
            message = f"tensors that differ in `<{name}>` would all go to this target"
            self.problems.error("AX161", message, span, help=f"use `<{name}>` in the target, or `stack: {name}`")

    def known(self, pattern: Pattern, name: str) -> str:
        near = self.problems.nearest(name, pattern.names)
        names = ", ".join(f"`<{known}>`" for known in sorted(pattern.names))
        return f"did you mean `<{near}>`?" if near else f"it captures {names or 'nothing'}"

    def check_formulas(self, pattern: Pattern) -> None:
        if ("dims",) in self.document.broken:
            return
        broken = {str(path[1]) for path in self.document.broken if path[0] == "dims" and len(path) == 2}
        known = pattern.names | self.document.envelope.dims.keys() | broken
        for path, value in _values(self.rule):
            if not is_formula(value):
                continue
            span = self.document.place(*self.path, *path)
            for name, (start, end) in _places(value):
                place = within(span, start, end, len(value))
                if name not in known:
                    near = self.problems.nearest(name, known)
                    hint = f"did you mean `{near}`?" if near else "formulas in rules can use dims and captures"
                    self.problems.error("AX162", f"unknown name `{name}`", place, help=hint)
                elif name == self.rule.gathers and (path != ("when",) or self.rule.join):
                    how = "joined" if self.rule.join else "stacked"
                    self.problems.error("AX162", f"`{name}` differs among the {how} tensors", place)

    def check_keys(self) -> None:
        given = self.rule.model_fields_set
        unread = self.rule.drop or self.rule.buffer is not None
        idle = [key for key in _STEPS if key in given and unread]
        parted = self.rule.split or self.rule.join
        idle += ["groups"] if "groups" in given and not parted and self.rule.to is not None else []
        along = parted or self.rule.tiles_to_groups
        idle += ["axis"] if "axis" in given and not along and self.rule.to is not None else []
        idle += ["reshape_from"] if "reshape_from" in given and not (self.rule.reshape or unread) else []
        moves = self.rule.reshape or self.rule.transpose or any(part.transpose for part in self.parts())
        idle += ["if_needed"] if "if_needed" in given and not (moves or unread) else []
        idle += ["parts"] if "parts" in given and not (self.rule.stack or unread) else []
        for key in idle:
            owners = {"reshape_from": "reshape", "if_needed": "reshape` or `transpose", "parts": "stack"}
            owner = owners.get(key, "split` or `join" if key == "groups" else "split`, `join` or `tiles_to_groups")
            fate = "dropped" if self.rule.drop else "only compared"
            why = f"the tensor is {fate}" if unread else f"it belongs to `{owner}`"
            self.problems.error(
                "AX163", f"`{key}` has no effect: {why}", self.document.place(*self.path, key, key=True)
            )

    def check_numbers(self) -> None:
        for path, value in _values(self.rule):
            if (
                isinstance(value, int)
                and not isinstance(value, bool)
                and path[0] in ("split", "join", "parts", "groups", "pairs_to_halves", "tiles_to_groups", *_SHAPES)
            ):
                allowed = value >= 1 or (value == -1 and path[0] in _SHAPES)
                if not allowed:
                    self.bad_number(path, "an extent must be a positive integer")
        for key, extents in zip(_SHAPES, (self.rule.reshape, self.rule.reshape_from), strict=True):
            if extents and extents.count(-1) > 1:
                self.bad_number((key,), "only one extent can be -1")
        for path, axes in self.transposes():
            if isinstance(axes, list) and sorted(axes) != list(range(len(axes))):
                self.bad_number(path, f"a permutation names every axis from 0 to {len(axes) - 1} once")

    def transposes(self) -> Iterator[tuple[Path, bool | list[int]]]:
        yield ("transpose",), self.rule.transpose
        for text, part in (self.rule.split or {}).items():
            yield ("split", text, "transpose"), part.transpose

    def parts(self) -> list[SplitPart]:
        return list((self.rule.split or {}).values())

    def bad_number(self, path: Path, message: str) -> None:
        self.problems.error("AX164", message, self.document.place(*self.path, *path))


def _values(rule: WeightRule) -> Iterator[tuple[Path, Any]]:
    """Every value of a rule that may be a formula, with its path."""
    for key, extents in (("reshape", rule.reshape), ("reshape_from", rule.reshape_from)):
        for index, extent in enumerate(extents or ()):
            yield (key, index), extent
    for text, part in (rule.split or {}).items():
        for index, extent in enumerate(part.extents):
            yield ("split", text, "sizes", index) if part.sizes else ("split", text, "size"), extent
    for text, extent in rule.members.items():
        yield ("join", str(rule.gathers), text), extent
    yield ("parts",), rule.parts
    yield ("add",), rule.add
    yield ("scale",), rule.scale
    yield ("pairs_to_halves",), rule.pairs_to_halves
    for index, extent in enumerate(rule.tiles_to_groups or ()):
        yield ("tiles_to_groups", index), extent
    yield ("groups",), rule.groups
    yield ("when",), rule.when


def _names(text: str) -> frozenset[str]:
    return frozenset(name for name, _ in _places(text))


def _places(text: str) -> list[tuple[str, tuple[int, int]]]:
    """The names of a formula and where they stand; none of one that was reported already."""
    try:
        return [(name, place) for name, places in cached_parse(text).places.items() for place in places]
    except FormulaError:
        return []
