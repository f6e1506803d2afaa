"""From a tree and named values to a value."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from axon_compose.diagnostics import nearest
from axon_compose.language.document._text_error import quote
from axon_compose.language.document.formula import _operations as operations
from axon_compose.language.document.formula._functions import call
from axon_compose.language.document.formula._operations import OperationError
from axon_compose.language.document.formula._origin import Origin, origin
from axon_compose.language.document.formula._tree import (
    Arithmetic,
    Call,
    Choice,
    Comparison,
    Comprehension,
    Index,
    ListOf,
    Literal,
    Logic,
    MappingOf,
    Name,
    Node,
    Unary,
)
from axon_compose.language.document.formula._words import FormulaError, Meter

__all__ = ["MAX_STEPS", "evaluate", "origin_of"]

#: Most work that one evaluation may do: one step for every node, and one for every part of a list or mapping it makes.
MAX_STEPS: Final = 300_000
#: Parts of a list that the interpreter's own loops pass in the time of one step.
_PARTS_PER_STEP: Final = 16
#: Those that the loops of functions pass, such as that of `max`.
_ITEMS_PER_STEP: Final = 4
_SIZED: Final = (str, list, dict)
_NESTED: Final = (list, tuple, Mapping)


def evaluate(tree: Node, names: Mapping[str, Any], meter: Meter | None = None) -> Any:
    """Compute the value of a tree.

    Raises:
        FormulaError: It has no value; the offsets are those of the part to blame.
    """
    evaluator = _Evaluator(names)
    try:
        value = evaluator.value(tree)
        evaluator.weigh(tree, value)
    finally:
        if meter:
            meter.steps += evaluator.steps + evaluator.parts // _PARTS_PER_STEP
    return value


def origin_of(tree: Node, names: Mapping[str, Any]) -> Origin | None:
    """The part of a named value that a tree passes on as it is, see `Formula.origin`.

    Raises:
        FormulaError: It has no value.
    """
    return origin(tree, _Evaluator(names).value)


class _Evaluator:
    def __init__(self, names: Mapping[str, Any]) -> None:
        self.names = names
        self.steps = 0
        self.parts = 0

    def value(self, node: Node) -> Any:
        self.spend(node, 1)
        return _VISIT[type(node)](self, node)

    def spend(self, node: Node, steps: int) -> None:
        self.steps += steps
        if self.steps + self.parts // _PARTS_PER_STEP > MAX_STEPS:
            raise FormulaError("the formula takes too long to compute", node.start, node.end)

    def weigh(self, node: Node, value: Any) -> Any:
        """Bound the size of a value that was made, so that later steps with it are bounded too."""
        self.spend(node, self.counted(node, (), operations.weigh, value))
        return value

    def counted(self, whole: Node, operands: tuple[Node, ...], operation: Callable[..., Any], *values: Any) -> Any:
        """As `attempt`, for an operation that passes over what it is given and what it makes."""
        self.count(whole, values)
        result = self.attempt(whole, operands, operation, *values)
        self.count(whole, (result,))
        return result

    def attempt(self, whole: Node, operands: tuple[Node, ...], operation: Callable[..., Any], *values: Any) -> Any:
        """Apply an operation; its fault points at the operand to blame."""
        try:
            return operation(*values)
        except OperationError as fault:
            blamed = operands[fault.operand] if fault.operand is not None and operands else whole
            raise FormulaError(fault.message, blamed.start, blamed.end, fault.help) from None

    def count(self, node: Node, values: Iterable[Any]) -> None:
        """Add what values have of items and characters to the work."""
        for value in values:
            if type(value) in _SIZED:
                self.parts += len(value)
        self.spend(node, 0)

    def name(self, node: Name, hint: str | None = None) -> Any:
        if node.id in self.names:
            return self.names[node.id]
        near = nearest(node.id, self.names)
        hint = f"did you mean `{near}`?" if near else hint
        raise FormulaError(f"unknown name {quote(node.id)}", node.start, node.end, hint)

    def list(self, node: ListOf) -> Any:
        return self.weigh(node, [self.value(item) for item in node.items])

    def mapping(self, node: MappingOf) -> Any:
        result: dict[Any, Any] = {}
        for key_node, value_node in node.pairs:
            key = self.key(key_node)
            if key in result:
                raise FormulaError(f"the key {quote(str(key))} appears twice", key_node.start, key_node.end)
            result[key] = self.value(value_node)
        return self.weigh(node, result)

    def key(self, node: Node) -> Any:
        if isinstance(node, Name):
            key = self.name(node, f"a string key needs quotes: `'{node.id}'`")
        else:
            key = self.value(node)
        if key is None or isinstance(key, str | int | float):
            return key
        raise FormulaError(f"{operations.describe(key)} cannot be a key", node.start, node.end)

    def unary(self, node: Unary) -> Any:
        value = self.value(node.operand)
        return not value if node.operator == "not" else self.counted(node, (), operations.sign, node.operator, value)

    def arithmetic(self, node: Arithmetic) -> Any:
        first, *rest = node.operands
        result = self.value(first)
        for symbol, operand in zip(node.operators, rest, strict=True):
            value = self.value(operand)
            whole = Node(first.start, operand.end)
            result = self.counted(whole, (first, operand), operations.arithmetic, symbol, result, value)
            if isinstance(result, list | dict):
                self.weigh(whole, result)
        return result

    def comparison(self, node: Comparison) -> bool:
        left_node, *rest = node.operands
        left = self.value(left_node)
        for symbol, right_node in zip(node.operators, rest, strict=True):
            right = self.value(right_node)
            whole = Node(left_node.start, right_node.end)
            if isinstance(left, _NESTED) and isinstance(right, _NESTED):
                self.weigh(left_node, left)  # compared to any depth
            if not self.counted(whole, (left_node, right_node), operations.compare, symbol, left, right):
                return False
            left_node, left = right_node, right
        return True

    def logic(self, node: Logic) -> Any:
        decisive = node.operator == "or"
        value = None
        for operand in node.operands:
            value = self.value(operand)
            if bool(value) == decisive:
                break
        return value

    def choice(self, node: Choice) -> Any:
        return self.value(node.then if self.value(node.condition) else node.otherwise)

    def index(self, node: Index) -> Any:
        value, done = self.value(node.base), node.base
        for number, key_node in enumerate(node.keys):
            before = Index(node.start, done.end, node.base, node.keys[:number])
            value = self.part(node, value, key_node, done, before)
            done = Node(node.start, key_node.end + 1)
        return value

    def part(self, node: Node, value: Any, key_node: Node, done: Node, before: Node) -> Any:
        """The part of a value that a key names; `done` are the characters of the value, `before` computes it."""
        key = self.value(key_node)
        try:
            return self.attempt(node, (done, key_node), operations.index, value, key)
        except FormulaError as error:
            self.blame(error, value, key_node, before)
            raise

    def blame(self, error: FormulaError, searched: Any, key: Node, before: Node) -> None:
        """Note where the key comes from that a mapping lacks, or what is too short or has no items at all."""
        if isinstance(searched, Mapping):
            error.missing, error.origin = "key", origin(key, self.value)
        elif not isinstance(searched, _SIZED):
            error.missing, error.origin = "items", origin(before, self.value)
        elif type(self.value(key)) is int:
            error.missing, error.origin = "item", origin(before, self.value)

    def comprehension(self, node: Comprehension) -> Any:
        name = node.name.id
        if name in self.names:
            hint = f"choose another name for the items, such as `{'x' if name != 'x' else 'y'}`"
            raise FormulaError(f"{quote(name)} has a value already", node.name.start, node.name.end, hint)
        whole = self.value(node.items)
        items = self.counted(node, (node.items,), operations.items, whole)
        outer, result = self.names, []
        for number, item in enumerate(items):
            self.names = ChainMap({name: item}, outer)  # type: ignore[arg-type]  # never written to
            try:
                if node.condition is None or self.value(node.condition):
                    result.append(self.value(node.item))
            except FormulaError as error:
                self.names = outer
                if error.origin and error.origin[0] == name:
                    base = None if isinstance(whole, Mapping) else origin(node.items, self.value)
                    error.origin = (*base, number, *error.origin[1:]) if base else None
                raise
        self.names = outer
        return self.weigh(node, result)

    def call(self, node: Call) -> Any:
        if node.function == "at":
            base, key = node.arguments
            value = self.value(base)
            if isinstance(value, list | tuple):
                return self.part(node, value, key, base, base)
            self.value(key)  # a fault in it is one whatever the base is
            return value
        values = [self.value(argument) for argument in node.arguments]
        self.spend(node, sum(len(value) // _ITEMS_PER_STEP for value in values if type(value) in _SIZED))
        return self.counted(node, node.arguments, call, node.function, values)


_VISIT: Final[dict[type[Node], Callable[[_Evaluator, Any], Any]]] = {
    Literal: lambda _, node: node.value,
    Name: _Evaluator.name,
    ListOf: _Evaluator.list,
    Comprehension: _Evaluator.comprehension,
    MappingOf: _Evaluator.mapping,
    Unary: _Evaluator.unary,
    Arithmetic: _Evaluator.arithmetic,
    Comparison: _Evaluator.comparison,
    Logic: _Evaluator.logic,
    Choice: _Evaluator.choice,
    Index: _Evaluator.index,
    Call: _Evaluator.call,
}
