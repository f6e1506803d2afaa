"""Random formulas, each with a Python expression that means the same, rendered independently."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import ceil, floor, isfinite, log, sqrt
from typing import Any

from hypothesis import strategies as st

NAMES: dict[str, Any] = {"i": 5, "hidden_size": 4096, "heads": 32, "ratio": 0.5, "sizes": [3, 0, 7], "pattern": "MEM*"}


class TooLargeError(Exception):
    """A number that formulas refuse: more than 256 bits, infinite, or not real."""


@dataclass(frozen=True)
class Pair:
    """A formula without its `=`, the same in Python fully parenthesised, and how tightly its operator binds."""

    formula: str
    python: str
    level: int = 99

    def at(self, level: int) -> str:
        """The formula where only operators that bind at least as tightly as `level` may stand bare."""
        return self.formula if self.level >= level else f"({self.formula})"


def truth(pair: Pair) -> Any:
    """What Python makes of it."""
    return eval(pair.python, {"__builtins__": {}, **NAMES, **_HELPERS})


def _number(value: Any) -> Any:
    if isinstance(value, complex) or (isinstance(value, float) and not isfinite(value)):
        raise TooLargeError
    if isinstance(value, int) and abs(value) >= 2**256:
        raise TooLargeError
    return value


def _divide(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int) and Fraction(a, b).denominator == 1:
        return Fraction(a, b).numerator
    return a / b


_HELPERS = {
    "_number": _number, "_divide": _divide, "min": min, "max": max, "ceil": ceil, "floor": floor, "round": round,
    "sqrt": sqrt, "log": log, "text": str, "len": len, "sum": sum, "range": lambda *ends: list(range(*ends)),
    "is_list": lambda value: isinstance(value, list),
    "at": lambda value, at: value[at] if type(value) is list else value,
    "ints": lambda text: [int(part) for part in text.split(",") if part.strip()],
}  # fmt: skip
_GAPS = st.sampled_from(["", " ", "  "])
_LEVELS = {"+": 7, "-": 7, "*": 8, "/": 8, "//": 8, "%": 8}


def _leaf(text: str) -> Pair:
    return Pair(text, text)


def _binary(symbol: str, left: Pair, right: Pair, gap: str) -> Pair:
    level = _LEVELS[symbol]
    python = f"_divide({left.python}, {right.python})" if symbol == "/" else f"({left.python} {symbol} {right.python})"
    return Pair(f"{left.at(level)}{gap}{symbol}{gap}{right.at(level + 1)}", f"_number({python})", level)


def _power(base: Pair, exponent: Pair, gap: str) -> Pair:
    formula = f"{base.at(11)}{gap}**{gap}{exponent.at(9)}"
    return Pair(formula, f"_number({base.python} ** {exponent.python})", 10)


def _negative(operand: Pair, symbol: str) -> Pair:
    return Pair(f"{symbol}{operand.at(9)}", f"({symbol}{operand.python})", 9)


def _choice(then: Pair, condition: Pair, otherwise: Pair) -> Pair:
    formula = f"{then.at(2)} if {condition.at(2)} else {otherwise.at(1)}"
    return Pair(formula, f"({then.python} if {condition.python} else {otherwise.python})", 1)


def _logic(word: str, parts: list[Pair]) -> Pair:
    level = {"or": 2, "and": 3}[word]
    return Pair(
        f" {word} ".join(p.at(level + 1) for p in parts), "(" + f" {word} ".join(p.python for p in parts) + ")", level
    )


def _chain(first: Pair, rest: list[tuple[str, Pair]]) -> Pair:
    formula = first.at(6) + "".join(f" {symbol} {p.at(6)}" for symbol, p in rest)
    return Pair(formula, "(" + first.python + "".join(f" {symbol} {p.python}" for symbol, p in rest) + ")", 5)


def _call(function: str, *arguments: Pair) -> Pair:
    python = f"{function}({', '.join(a.python for a in arguments)})"
    return Pair(f"{function}({', '.join(a.formula for a in arguments)})", f"_number({python})")


def _list(items: list[Pair], tail: str) -> Pair:
    shown = ",".join(item.formula for item in items) + (tail if items else "")
    return Pair(f"[{shown}]", f"[{', '.join(item.python for item in items)}]")


def _mapping(values: list[Pair], key: Pair) -> Pair:
    pairs = [(repr(k), v) for k, v in zip("ME*", values, strict=True)]
    formula = "{" + ", ".join(f"{k}: {v.formula}" for k, v in pairs) + "}" + f"[{key.formula}]"
    return Pair(formula, "{" + ", ".join(f"{k}: {v.python}" for k, v in pairs) + "}" + f"[{key.python}]", 11)


def _merged(first: list[Pair], second: list[Pair], key: Pair) -> Pair:
    """A key of two mappings that are put together."""
    parts = [
        [(repr(k), v) for k, v in zip(keys, values, strict=True)] for keys, values in (("M*", first), ("E*", second))
    ]
    formula = " | ".join("{" + ", ".join(f"{k}: {v.formula}" for k, v in part) + "}" for part in parts)
    python = ", ".join(f"{k}: {v.python}" for part in parts for k, v in part)
    return Pair(f"({formula})[{key.formula}]", "{" + python + "}" + f"[{key.python}]", 11)


def _each(item: Pair, items: Pair, condition: Pair | None) -> Pair:
    """A list made of another one; `x` may stand for its items in `item`."""
    parts = (item, items, condition) if condition else (item, items)
    name = f"x{sum(part.formula.count(' for ') for part in parts)}"
    formula, python = (text.replace("ratio", name) for text in (item.formula, item.python))
    tail = f" if {condition.at(2)}" if condition else ""
    tests = f" if {condition.python}" if condition else ""
    return Pair(f"[{formula} for {name} in {items.at(2)}{tail}]", f"[{python} for {name} in {items.python}{tests}]")


def _item(base: Pair, key: Pair) -> Pair:
    return Pair(f"{base.at(11)}[{key.formula}]", f"{base.python}[{key.python}]", 11)


def _bare(pair: Pair) -> Pair:
    """A list that a function gives, which is no number to be checked."""
    return Pair(pair.formula, pair.python.removeprefix("_number"), pair.level)


@cache
def numbers(depth: int) -> st.SearchStrategy[Pair]:
    """Formulas whose value is a number."""
    leaf = st.one_of(
        st.integers(0, 20).map(lambda n: _leaf(str(n))),
        st.sampled_from(["i", "hidden_size", "heads", "ratio", "0.5", "1e-6", "2.", ".25", "10_000"]).map(_leaf),
        st.integers(0, 2**256 - 1).map(lambda n: _leaf(str(n))),
    )
    if not depth:
        return leaf
    below, tests = numbers(depth - 1), booleans(depth - 1)
    return st.one_of(
        leaf,
        st.builds(_binary, st.sampled_from(sorted(_LEVELS)), below, below, _GAPS),
        st.builds(_power, below, st.sampled_from(["0", "1", "2", "4", "0.5"]).map(_leaf), _GAPS),
        st.builds(_power, below, st.just(Pair("-1", "(-1)", 9)), _GAPS),
        st.builds(_negative, below, st.sampled_from("+-")),
        st.builds(_choice, below, tests, below),
        st.builds(_logic, st.sampled_from(["and", "or"]), st.lists(below, min_size=2, max_size=3)),
        st.builds(_call, st.sampled_from(["ceil", "floor", "round", "sqrt", "log"]), below),
        st.builds(_call, st.sampled_from(["min", "max"]), below, below),
        st.builds(_call, st.sampled_from(["min", "max", "len", "sum"]), lists(depth - 1)),
        st.builds(_call, st.just("at"), st.one_of(below, lists(depth - 1)), _positions(depth)),
        st.builds(_merged, st.lists(below, min_size=2, max_size=2), st.lists(below, min_size=2, max_size=2), texts(0)),
        st.builds(_call, st.just("round"), below, st.sampled_from(["0", "2", "-1"]).map(_leaf)),
        st.builds(_item, lists(depth - 1), _positions(depth)),
        st.builds(_mapping, st.lists(below, min_size=3, max_size=3), texts(depth - 1)),
    )


@cache
def _positions(depth: int) -> st.SearchStrategy[Pair]:
    near = st.integers(-4, 3).map(lambda n: _leaf(str(n)) if n >= 0 else Pair(str(n), f"({n})", 9))
    return st.one_of(near, st.builds(_call, st.just("len"), lists(depth - 1)))


@cache
def booleans(depth: int) -> st.SearchStrategy[Pair]:
    """Formulas whose value is a truth value."""
    leaf = st.sampled_from([("true", "True"), ("false", "False"), ("True", "True")]).map(lambda pair: Pair(*pair))
    if not depth:
        return leaf
    order = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
    below = numbers(depth - 1)
    return st.one_of(
        leaf,
        st.builds(_chain, below, st.lists(st.tuples(order, below), min_size=1, max_size=3)),
        st.builds(_chain, texts(depth - 1), st.lists(st.tuples(order, texts(depth - 1)), min_size=1, max_size=2)),
        st.builds(_chain, below, st.tuples(st.sampled_from(["in", "not in"]), lists(depth - 1)).map(lambda p: [p])),
        st.builds(_chain, texts(0), st.tuples(st.sampled_from(["in", "not in"]), texts(depth - 1)).map(lambda p: [p])),
        booleans(depth - 1).map(lambda p: Pair(f"not {p.at(4)}", f"(not {p.python})", 4)),
        st.builds(_logic, st.sampled_from(["and", "or"]), st.lists(booleans(depth - 1), min_size=2, max_size=3)),
    )


@cache
def texts(depth: int) -> st.SearchStrategy[Pair]:
    """Formulas whose value is a text."""
    leaf = st.sampled_from(["'M'", '"E"', "'*'", "''", "'it\\'s'", '"\\\\n"', "pattern"]).map(_leaf)
    if not depth:
        return leaf
    below = texts(depth - 1)
    return st.one_of(
        leaf,
        st.builds(lambda a, b: Pair(f"{a.at(7)} + {b.at(8)}", f"({a.python} + {b.python})", 7), below, below),
        st.builds(_item, below, _positions(depth)),
        st.builds(_choice, below, booleans(depth - 1), below),
    )


@cache
def lists(depth: int) -> st.SearchStrategy[Pair]:
    """Formulas whose value is a list of numbers."""
    if not depth:
        return st.just(_leaf("sizes"))
    items = st.lists(numbers(depth - 1), max_size=3)
    repeat: Callable[[Pair, int], Pair] = lambda a, n: Pair(f"{a.at(8)}*{n}", f"({a.python} * {n})", 8)  # noqa: E731
    return st.one_of(
        st.just(_leaf("sizes")),
        st.builds(_list, items, st.sampled_from(["", ",", " , "])),
        st.builds(_each, numbers(depth - 1), lists(depth - 1), st.none() | booleans(depth - 1)),
        st.builds(_call, st.just("range"), st.sampled_from(["i", "0", "len(sizes)"]).map(_leaf)).map(_bare),
        st.builds(repeat, lists(depth - 1), st.integers(0, 3)),
        st.builds(
            lambda a, b: Pair(f"{a.at(7)}+{b.at(8)}", f"({a.python} + {b.python})", 7),
            lists(depth - 1),
            items.map(lambda x: _list(x, "")),
        ),
    )


def pairs() -> st.SearchStrategy[Pair]:
    """Formulas of any kind of value."""
    return st.one_of(numbers(3), booleans(3), texts(3), lists(3))


WORDS = [
    "+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "and", "or", "not", "in", "if",
    "else", "for", "x", "|", "(", ")", "[", "]", "{", "}", ",", ":", "0", "1", "2.5", "'a'", "i", "pattern", "sizes",
    "true", "None", "min(", "len(", "round(",
]  # fmt: skip


def soup() -> st.SearchStrategy[str]:
    """Words of the language in any order, set apart by spaces."""
    return st.lists(st.sampled_from(WORDS), min_size=1, max_size=14).map(" ".join)
