"""The rules of a file, compiled: which one a tensor meets, what its formulas give, and where a parameter comes from."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from axon_compose.checkpoints.files import CheckpointError
from axon_compose.checkpoints.files._safetensors import shown
from axon_compose.language.document import (
    MAX_WORK,
    FormulaError,
    HuggingFace,
    Layout,
    Meter,
    Pattern,
    Target,
    WeightRule,
    cached_parse,
    is_formula,
    parse_pattern,
    parse_target,
)

__all__ = ["Found", "Origin", "Rule", "RuleBook"]

_MAX_DIGITS: Final = 18


@dataclass(frozen=True, eq=False)
class Rule:
    """One rule.

    Attributes:
        pattern: What it matches.
        written: The rule as the file has it.
        targets: One, or those of a split in order; the buffer that it is compared with; none if it is dropped.
    """

    pattern: Pattern
    written: WeightRule
    targets: tuple[Target, ...]

    def __str__(self) -> str:
        return self.pattern.text


class Found(NamedTuple):
    """The rule that a tensor meets, the text of its captures, and the rest of the name."""

    rule: Rule
    captures: Mapping[str, str]
    rest: str

    def target(self, index: int, parameters: Mapping[str, Any]) -> str | None:
        """The parameter that a target names: of alternatives the one that the model has, or None."""
        spellings = self.rule.targets[index].spellings(self.captures)
        return next((text + self.rest for text in spellings if text + self.rest in parameters), None)

    def first_target(self, index: int) -> str:
        """The first spelling of a target, whether the model has it or not."""
        return next(self.rule.targets[index].spellings(self.captures)) + self.rest

    def likeliest_target(self, index: int, modules: Collection[str]) -> str:
        """The spelling of a target of which the model has most, such as the component that the layer has.

        Args:
            index: Which target.
            modules: Every path in the model that has parameters below it.
        """

        def known(name: str) -> int:
            parts = name.split(".")
            return sum(".".join(parts[:count]) in modules for count in range(1, len(parts)))

        return max((text + self.rest for text in self.rule.targets[index].spellings(self.captures)), key=known)


class Origin(NamedTuple):
    """A rule that makes a parameter: the number of its target, what that captures, the rest of the name."""

    rule: Rule
    part: int
    captures: Mapping[str, str]
    rest: str

    def source(self, **more: str) -> str:
        """The name of the tensor; captures that the target does not determine are `more`, or stand as written."""
        unknown = {name: f"<{name}>" for name in self.rule.pattern.names}
        return next(self.rule.pattern.spellings({**unknown, "*": "<*>", **self.captures, **more})) + self.rest


class RuleBook:
    """The rules in the order in which they hold.

    Args:
        section: The section of the file.
        dims: What formulas know besides captures.
        layout: Rules for the other layout do not exist; None keeps all.
    """

    def __init__(self, section: HuggingFace, dims: Mapping[str, Any], layout: Layout | None) -> None:
        self.dims = dims
        self.layout = layout
        self._values: dict[tuple[str, tuple[Any, ...]], Any] = {}
        self._factors: dict[int, tuple[float, ...]] = {}
        self._work = Meter()
        rules = [_compile(text, written) for text, written in section.weights.items()]
        rules = [rule for rule in rules if None in (layout, rule.written.layout) or rule.written.layout == layout]
        rules.reverse()  # among equals the later one, since sorting keeps their order
        rules.sort(key=lambda rule: -rule.pattern.literals)
        conditional = [rule for rule in rules if rule.written.when is not True]
        self.groups = (conditional, [rule for rule in rules if rule.written.when is True])

    def find(self, name: str) -> Found | None:
        """The rule that a tensor meets."""
        for rules in self.groups:
            partial: Found | None = None
            for rule in rules:
                match = rule.pattern.match(name)
                if match is None or (match.rest and partial) or not self.holds(rule, match.captures):
                    continue
                partial = Found(rule, *match)
                if not match.rest:
                    return partial
            if partial:
                return partial
        return None

    def holds(self, rule: Rule, captures: Mapping[str, str]) -> bool:
        """Whether the rule exists for these captures; one that joins tensors is for those that it names."""
        if rule.written.join and captures.get(str(rule.written.gathers)) not in rule.written.members:
            return False
        return rule.written.when is True or bool(self.value(rule, rule.written.when, captures))

    def origins(self, parameter: str) -> Iterator[Origin]:
        """Every rule with a target that can be this parameter: whole names first, then those with more literal text.

        Alternative forms come last. Among equals they come in the order in which rules hold. Whether `when` holds is
        not asked: it may need captures that the target does not determine.
        """
        found: list[tuple[bool, Origin]] = []
        last: list[Origin] = []
        for rules in self.groups:
            for rule in (rule for rule in rules if rule.written.buffer is None):
                for index, target in enumerate(rule.targets):
                    match = target.match(parameter)
                    if match is not None:
                        found.append((bool(match.rest), Origin(rule, index, *match)))
            found.sort(key=lambda item: (item[0], -item[1].rule.targets[item[1].part].literals))
            last += [origin for _, origin in found if origin.rule.written.alternative]
            yield from (origin for _, origin in found if not origin.rule.written.alternative)
            found.clear()
        yield from last

    def extent(self, rule: Rule, written: Any, captures: Mapping[str, str], rest: bool = False) -> int:
        """A whole number from 1; also -1 where that stands for the rest.

        Raises:
            CheckpointError: AX556.
        """
        value = self.value(rule, written, captures)
        if not isinstance(value, int) or isinstance(value, bool) or (value < 1 and not (rest and value == -1)):
            raise _no_value(rule, written, f"is {shown(str(value))}, not a positive integer")
        return value

    def extents(self, rule: Rule, written: Any, captures: Mapping[str, str]) -> list[int]:
        """A whole number from 1, or the several that a formula gives.

        Raises:
            CheckpointError: AX556.
        """
        value = self.value(rule, written, captures)
        return [self.extent(rule, item, captures) for item in (value if isinstance(value, list) and value else [value])]

    def number(self, rule: Rule, written: Any, captures: Mapping[str, str]) -> float:
        """A number.

        Raises:
            CheckpointError: AX556.
        """
        value = self.value(rule, written, captures)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise _no_value(rule, written, f"is {shown(str(value))}, not a number")
        return value

    def factor(self, rule: Rule, written: Any, captures: Mapping[str, str]) -> float | tuple[float, ...]:
        """A number other than 0, or one for each row.

        Raises:
            CheckpointError: AX556.
        """
        value = self.value(rule, written, captures)
        key = id(value)  # of a list that `_values` keeps
        if key in self._factors:
            return self._factors[key]
        numbers = tuple(self.number(rule, item, captures) for item in (value if isinstance(value, list) else [value]))
        if not all(numbers):
            raise _no_value(rule, written, "is 0, which cannot be inverted")
        if not isinstance(value, list):
            return numbers[0]
        self._factors[key] = numbers
        return numbers

    def value(self, rule: Rule, written: Any, captures: Mapping[str, str]) -> Any:
        """What a value of a rule is, once its formula knows dims and captures."""
        if not is_formula(written):
            return written
        formula = cached_parse(written)
        used = {name: _number(text) for name, text in captures.items() if name in formula.names}
        key = written, tuple(used.items())
        if key not in self._values:
            dims = {name: self.dims[name] for name in formula.names if name in self.dims}
            try:
                self._values[key] = formula.evaluate({**dims, **used}, self._work)
                if self._work.steps > MAX_WORK:
                    raise FormulaError("the formulas of the rules take too long to compute", 0, len(written))
            except FormulaError as error:
                raise _no_value(rule, written, f"has no value: {error.message}") from error
        return self._values[key]


def _compile(text: str, written: WeightRule) -> Rule:
    one = written.to or written.buffer
    targets = list(written.split or ()) if one is None else [one]
    pattern = parse_pattern(text)
    return Rule(pattern, written, tuple(parse_target(target, pattern.numbers) for target in targets))


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS else text


def _no_value(rule: Rule, written: Any, what: str) -> CheckpointError:
    return CheckpointError(
        "AX556", f"the rule `{rule}`: `{written}` {what}", "it depends on the dims of this checkpoint"
    )
