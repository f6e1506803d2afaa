"""From tokens to the tree: operator precedence as in Python, nesting limited."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeVar

from axon_compose.language.document._text_error import quote
from axon_compose.language.document.formula._tokens import Token, tokenize
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
from axon_compose.language.document.formula._words import FUNCTIONS, KEYWORDS, FormulaError

__all__ = ["MAX_DEPTH", "parse_tree"]

#: How deep a formula may nest.
MAX_DEPTH: Final = 64

_T = TypeVar("_T")

_COMPARISONS: Final = ("==", "!=", "<", "<=", ">", ">=", "in", "not")
# How tightly an operator binds; the prefixes `not` and `-` have the levels 4 and 9.
_LEVELS: Final[dict[str, int]] = {
    "if": 1, "or": 2, "and": 3, **dict.fromkeys(_COMPARISONS, 5), "|": 6, "+": 7, "-": 7,
    "*": 8, "/": 8, "//": 8, "%": 8, "**": 10, "[": 11,
}  # fmt: skip
_IF, _NOT, _COMPARISON, _SIGN, _POWER, _INDEX = 1, 4, 5, 9, 10, 11
_CLOSING: Final = {"(": ")", "[": "]", "{": "}"}
_FUNCTIONS: Final = "the functions are " + ", ".join(f"`{name}`" for name in FUNCTIONS)
_HINTS: Final = {
    "is": "`==` compares two values",
    "for": "a list is made of another one by `[item for name in list]`",
    ",": "a list is written `[a, b]`",
    ":": "there are no slices",
    "(": _FUNCTIONS,
}


def parse_tree(text: str) -> Node:
    """Read the text of a formula, the leading `=` included.

    Raises:
        FormulaError: It is not a formula; says where, and what was expected.
    """
    parser = _Parser(text)
    if len(parser.tokens) == 1:
        raise FormulaError("the formula is empty", 0, 1, "write a value after the `=`")
    tree = parser.expression()
    if parser.token.kind != "end":
        raise parser.unexpected("an operator")
    return tree


class _Parser:
    """Precedence climbing: `expression(above)` reads a value and the operators that bind tighter than `above`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = tokenize(text)
        self.at = 0
        self.depth = 0
        self.open: list[Token] = []

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    @property
    def before(self) -> Token:
        """The token before the current one, or the `=`."""
        return self.tokens[self.at - 1] if self.at else Token("operator", "=", 0, 1)

    def take(self) -> Token:
        token = self.token
        self.at += 1
        return token

    def expect(self, operator: str) -> Token:
        if not self.token.is_operator(operator):
            raise self.unexpected(f"`{operator}`")
        return self.take()

    def level(self) -> int:
        return _LEVELS.get(self.token.value, 0) if self.token.kind == "operator" else 0

    def expression(self, above: int = 0) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            token = self.before
            message = f"the formula nests deeper than {MAX_DEPTH} levels"
            raise FormulaError(message, token.start, token.end, "split it: `dims` may be formulas too")
        node = self.prefix(above)
        while (level := self.level()) > above:
            node = self.infix(node, level)
        self.depth -= 1
        return node

    # Values

    def prefix(self, above: int) -> Node:
        token = self.token
        if token.kind == "value":
            self.take()
            return Literal(token.start, token.end, token.value)
        if token.kind == "name":
            return self.name()
        if token.is_operator("+", "-"):
            return self.unary(_SIGN)
        if token.is_operator("not"):
            if above > _NOT:
                raise FormulaError("`not` needs parentheses here", token.start, token.end, "write `(not …)`")
            return self.unary(_NOT)
        if token.is_operator(*_CLOSING):
            return {"(": self.parenthesised, "[": self.list_literal, "{": self.mapping_literal}[token.value]()
        raise self.unexpected("a value")

    def unary(self, level: int) -> Node:
        operator = self.take()
        operand = self.expression(level)
        return Unary(operator.start, operand.end, operator.value, operand)

    def name(self) -> Node:
        name = self.take()
        if self.token.is_operator("("):
            return self.call(name)
        if name.value in FUNCTIONS:
            raise FormulaError(f"`{name.value}` is a function", name.start, name.end, f"write `{name.value}(…)`")
        return Name(name.start, name.end, name.value)

    def call(self, name: Token) -> Node:
        if name.value not in FUNCTIONS:
            raise FormulaError(f"{quote(name.value)} is not a function", name.start, name.end, _FUNCTIONS)
        arguments, _, end = self.bracketed(self.expression)
        least, most = FUNCTIONS[name.value]
        if len(arguments) < least or (most is not None and len(arguments) > most):
            counts = {(1, None): "at least one value", (1, 1): "one value", (1, 2): "one or two values"}
            wanted = counts.get((least, most), "two values")
            raise FormulaError(f"`{name.value}` takes {wanted}, not {len(arguments)}", name.start, end)
        return Call(name.start, end, name.value, tuple(arguments))

    def parenthesised(self) -> Node:
        self.open.append(self.token)
        start = self.take().start
        node = self.expression()
        end = self.expect(")").end
        self.open.pop()
        return replace(node, start=start, end=end)

    def list_literal(self) -> Node:
        loops: list[Comprehension] = []
        items, start, end = self.bracketed(lambda: self.item(loops))
        return replace(loops[0], start=start, end=end) if loops else ListOf(start, end, tuple(items))

    def item(self, loops: list[Comprehension]) -> Node:
        """An item of a list; if the whole list is made of another one, that is added to `loops`."""
        first = self.before.is_operator("[")
        node = self.expression()
        if first and self.token.is_operator("for"):
            loops.append(self.comprehension(node))
        return node

    def comprehension(self, item: Node) -> Comprehension:
        self.take()
        name = self.token
        if name.kind != "name" or name.value in FUNCTIONS:
            raise self.unexpected("a name for the items")
        self.take()
        self.expect("in")
        items = self.expression(_IF)
        condition = None
        if self.token.is_operator("if"):
            self.take()
            condition = self.expression(_IF)
        if not self.token.is_operator("]"):
            raise self.unexpected("`]`")
        return Comprehension(
            item.start, self.before.end, item, Name(name.start, name.end, name.value), items, condition
        )

    def mapping_literal(self) -> Node:
        pairs, start, end = self.bracketed(self.pair)
        return MappingOf(start, end, tuple(pairs))

    def pair(self) -> tuple[Node, Node]:
        key = self.expression()
        if not self.token.is_operator(":"):
            raise self.unexpected("`:`", "a mapping is written `{'a': 1}`, a list `[a, b]`")
        self.take()
        return key, self.expression()

    def bracketed(self, item: Callable[[], _T]) -> tuple[list[_T], int, int]:
        """Items between brackets, separated by commas; one may follow the last."""
        self.open.append(self.token)
        opening = self.take()
        closing = _CLOSING[opening.value]
        items: list[_T] = []
        while not self.token.is_operator(closing):
            items.append(item())
            if not self.token.is_operator(","):
                break
            self.take()
        if not self.token.is_operator(closing):
            raise self.unexpected(f"`,` or `{closing}`")
        self.open.pop()
        return items, opening.start, self.take().end

    # Operators

    def infix(self, left: Node, level: int) -> Node:
        if level == _INDEX:
            return self.index(left)
        if level == _POWER:
            self.take()
            right = self.expression(_SIGN)
            return Arithmetic(left.start, right.end, (left, right), ("**",))
        if level == _COMPARISON:
            return self.comparison(left)
        if level == _IF:
            return self.choice(left)
        operands, operators = [left], []
        while self.level() == level:
            operators.append(self.take().value)
            operands.append(self.expression(level))
        if operators[0] in ("and", "or"):
            return Logic(left.start, operands[-1].end, operators[0], tuple(operands))
        return Arithmetic(left.start, operands[-1].end, tuple(operands), tuple(operators))

    def comparison(self, left: Node) -> Node:
        operands, operators = [left], []
        while self.level() == _COMPARISON:
            operator = self.take().value
            if operator == "not":
                self.expect("in")
                operator = "not in"
            operators.append(operator)
            operands.append(self.expression(_COMPARISON))
        return Comparison(left.start, operands[-1].end, tuple(operands), tuple(operators))

    def choice(self, then: Node) -> Node:
        self.take()
        condition = self.expression(_IF)
        if not self.token.is_operator("else"):
            raise self.unexpected("`else`", "write `a if condition else b`")
        self.take()
        otherwise = self.expression()
        return Choice(then.start, otherwise.end, condition, then, otherwise)

    def index(self, base: Node) -> Node:
        keys, end = [], base.end
        while self.token.is_operator("["):
            self.open.append(self.take())
            keys.append(self.expression())
            end = self.expect("]").end
            self.open.pop()
        return Index(base.start, end, base, tuple(keys))

    # Faults

    def unexpected(self, wanted: str, hint: str | None = None) -> FormulaError:
        token = self.token
        if token.kind == "end":
            if self.open:
                bracket = self.open[-1]
                return FormulaError(
                    f"`{bracket.value}` is never closed",
                    bracket.start,
                    bracket.end,
                    f"add a `{_CLOSING[bracket.value]}`",
                )
            return FormulaError(
                f"the formula ends where {wanted} was expected", self.before.start, self.before.end, hint
            )
        found = quote(self.text[token.start : token.end])
        return FormulaError(f"expected {wanted}, found {found}", token.start, token.end, hint or self.hint(token))

    def hint(self, token: Token) -> str | None:
        if token.kind == "name" and token.value.lower() in KEYWORDS:
            return f"write `{token.value.lower()}`"
        if token.kind == "value" and isinstance(token.value, str):
            return "strings have no prefix" if self.before.end == token.start else "join strings with `+`"
        return _HINTS.get(token.value) if token.kind in ("name", "operator") else None
