"""Formulas where they stand in a file: found, checked, and resolved inside lists and mappings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from axon_compose.diagnostics import Problems, Span
from axon_compose.language.document._document import Document, Path, within
from axon_compose.language.document._sections import Envelope
from axon_compose.language.document.formula import FormulaError, is_formula
from axon_compose.language.source import Mapping as MappingNode
from axon_compose.language.source import Node, Scalar, Sequence, plain

if TYPE_CHECKING:
    from axon_compose.language.document.formula import Formula

__all__ = [
    "MAX_WORK",
    "Unresolved",
    "allowed_values",
    "cached_parse",
    "check_formulas",
    "dim_values",
    "formulas_in",
    "names_in_formulas",
    "report",
    "resolve",
    "resolve_dims",
]

#: Limit on the work of all formulas of a file, in steps: about a second.
MAX_WORK: Final = 1_500_000


@lru_cache(maxsize=4096)
def cached_parse(text: str) -> Formula:
    """Read a formula, once.

    Raises:
        FormulaError: It is none.
    """
    from axon_compose.language.document.formula._formula import parse  # many files have none

    return parse(text)


class Unresolved(Exception):
    """A formula failed; the fault is already reported."""


def report(error: FormulaError, text: str, span: Span, problems: Problems) -> None:
    """Report a formula's fault at its own characters inside the value at `span`."""
    problems.error("AX120", error.message, _inside(error, text, span), help=error.help)


def _inside(error: FormulaError, text: str, span: Span) -> Span:
    """The characters to blame of a formula that stands at `span`."""
    return within(span, error.start, error.end, len(text))


def formulas_in(value: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Every formula inside plain data, with its path."""
    if is_formula(value):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from formulas_in(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from formulas_in(item, (*path, index))


def names_in_formulas(node: Node) -> set[str]:
    """Every name that a formula below `node` uses; all of them must parse."""
    return {name for _, text in formulas_in(plain(node)) for name in cached_parse(text).names}


def check_formulas(node: Node, problems: Problems) -> bool:
    """Report every formula below `node` that does not parse; true if all do."""
    match node:
        case Scalar(value=str(text)) if is_formula(text):
            try:
                cached_parse(text)
            except FormulaError as error:
                report(error, text, node.span, problems)
                return False
            return True
        case Sequence():
            sound = [check_formulas(item, problems) for item in node.items]
            return all(sound)
        case MappingNode():
            sound = [check_formulas(item, problems) for _, item in node.items()]
            return all(sound)
    return True


def resolve(value: Any, names: Mapping[str, Any], document: Document, path: Path, problems: Problems) -> Any:
    """Plain data with its formulas replaced by their values.

    Raises:
        Unresolved: If a formula fails; it is reported at its place.
    """
    if is_formula(value):
        if document.work.steps > MAX_WORK:
            raise Unresolved
        try:
            result = cached_parse(value).evaluate(names, document.work)
            if document.work.steps <= MAX_WORK:
                return result
            raise FormulaError("the formulas of this file take too long to compute", 0, len(value))
        except FormulaError as error:
            from axon_compose.language.document._lookups import report_lookup

            span = document.place(*path)
            if not report_lookup(error, _inside(error, value, span), names, document, problems):
                report(error, value, span, problems)
            raise Unresolved from None
    if isinstance(value, Mapping):
        return {key: resolve(item, names, document, (*path, key), problems) for key, item in value.items()}
    if isinstance(value, list):
        return [resolve(item, names, document, (*path, index), problems) for index, item in enumerate(value)]
    return value


def resolve_dims(document: Document, problems: Problems) -> tuple[dict[str, Any], set[str]]:
    """Values of `dims`, and the names of those that failed; a circle is reported with its names."""
    return _Dims(document, problems).all()


def dim_values(dims: MappingNode) -> dict[str, Any]:
    """Values of the section `dims` alone, as far as they can be computed; faults are reported elsewhere."""
    envelope = Envelope.model_construct(dims=plain(dims), components={}, blocks={})
    return resolve_dims(Document(envelope, {}, dims), Problems())[0]


def allowed_values(written: Any, dims: Callable[[], Mapping[str, Any]]) -> list[Any]:
    """What `only` allows: one value or several, formulas over dims computed.

    Args:
        written: As it stands in the file.
        dims: Gives the dims; asked only where there is a formula. One without a value stays its text.
    """
    values = written if isinstance(written, list) and written else [written]
    return [_computed(value, dims()) if is_formula(value) else value for value in values]


def _computed(formula: str, names: Mapping[str, Any]) -> Any:
    try:
        return cached_parse(formula).evaluate(names)
    except FormulaError:
        return formula


class _Dims:
    """Depth-first evaluation of dims that use one another."""

    def __init__(self, document: Document, problems: Problems) -> None:
        self.document, self.problems = document, problems
        self.written = dict(document.envelope.dims)
        self.values: dict[str, Any] = {}
        self.names: dict[str, Any] = dict(document.names())
        self.failed: set[str] = {str(path[1]) for path in document.broken if path[0] == "dims" and len(path) == 2}

    def all(self) -> tuple[dict[str, Any], set[str]]:
        for name in self.written:
            if name not in self.values and name not in self.failed:
                self.visit(name)
        return {name: self.values[name] for name in self.written if name in self.values}, self.failed

    def visit(self, name: str) -> None:
        """Compute a dim after those that it uses; a stack of its own, since a chain may be longer than Python's."""
        chain = {name: iter(self.needed(name))}
        while chain:
            current = next(reversed(chain))
            other = next(chain[current], None)
            if other is None:
                del chain[current]
                self.compute(current)
            elif other in self.values or other in self.failed:
                continue
            elif other in chain:
                names = list(chain)
                self.report_circle(names[names.index(other) :])
            else:
                chain[other] = iter(self.needed(other))

    def needed(self, name: str) -> list[str]:
        """The dims that a dim uses."""
        try:
            uses = [cached_parse(text).names for _, text in formulas_in(self.written[name])]
        except FormulaError:
            self.failed.add(name)
            return []
        return [n for names in uses for n in sorted(names) if n in self.written or n in self.failed]

    def report_circle(self, names: list[str]) -> None:
        circle = " → ".join([*names, names[0]])
        self.problems.error(
            "AX121", f"dims depend on each other in a circle: {circle}", self.document.place("dims", names[0])
        )
        self.failed.update(names)

    def compute(self, name: str) -> None:
        if name in self.failed or self.failed.intersection(self.needed(name)):
            self.failed.add(name)
            return
        try:
            value = resolve(self.written[name], self.names, self.document, ("dims", name), self.problems)
        except Unresolved:
            self.failed.add(name)
            return
        self.values[name] = self.names[name] = value
