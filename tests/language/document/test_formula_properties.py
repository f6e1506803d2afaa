"""Formulas at random, against Python's own grammar and arithmetic."""

from __future__ import annotations

import ast
import re
import warnings

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from axon_compose.language.document.formula import FUNCTIONS, RESERVED, FormulaError, parse
from tests.strategies.formulas import NAMES, Pair, TooLargeError, pairs, soup, truth

FAILURES = (ZeroDivisionError, OverflowError, TooLargeError, IndexError, KeyError, ValueError)


@settings(max_examples=600, deadline=None)
@given(pairs())
@example(Pair("at(0, 1 // 0)", "at(0, 1 // 0)", 99))
def test_a_formula_means_what_python_means(pair: Pair) -> None:
    assume(len(pair.formula) < 2000)
    try:
        expected = repr(truth(pair))
    except FAILURES:
        expected = "error"
    try:
        got = repr(parse("=" + pair.formula).evaluate(NAMES))
    except FormulaError as error:
        assert pair.formula[error.start - 1 : error.end - 1].strip()  # noqa: PT017
        got = "error"
    assert got == expected


def _is_ours(tree: ast.expr) -> bool:
    """Whether a Python expression uses nothing that formulas leave out."""
    return all(_node_is_ours(node) for node in ast.walk(tree))


def _node_is_ours(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            least, most = FUNCTIONS[name]
            return least <= len(args) <= (most or len(args))
        case ast.ListComp(generators=[ast.comprehension(target=ast.Name(id=name), ifs=ifs, is_async=0)]):
            return name not in RESERVED and len(ifs) <= 1
        case ast.comprehension():
            return True
        case ast.Dict(keys=keys):
            return None not in keys
        case ast.Subscript(slice=key):
            return not isinstance(key, ast.Slice | ast.Tuple)
        case ast.Compare(ops=ops):
            return not any(isinstance(op, ast.Is | ast.IsNot) for op in ops)
    allowed = (
        ast.BinOp | ast.UnaryOp | ast.BoolOp | ast.IfExp | ast.List | ast.Constant | ast.Name | ast.operator
        | ast.unaryop | ast.boolop | ast.cmpop | ast.expr_context
    )  # fmt: skip
    return isinstance(node, allowed)


@settings(max_examples=1500, deadline=None)
@given(soup())
@example("1 if 2 else 3 if 4 else 5")
@example("not i in sizes")
@example("2 ** - 1 ** 2")
@example("- i ** 2")
@example("1 < 2 not in sizes == true")
@example("{ 'a' : 1 , } [ 'a' ]")
@example("min( 1 , 2 , )")
@example("[ x for x in sizes if i if i ]")
@example("[ x for x in sizes if i if i else 1 ]")
@example("[ x for x in i if i else sizes ]")
@example("[ 1 , x for x in sizes ]")
@example("[ x for x in sizes , ]")
@example("[ x if x else i for x in sizes if not x ]")
@example("[ [ i for x in sizes ] for x in sizes ] | sizes == true")
def test_formulas_and_python_agree_on_what_is_well_formed(text: str) -> None:
    assume(not re.search(r"'a' 'a'", text))  # Python joins neighbouring texts, formulas do not
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(text, mode="eval").body
    except SyntaxError:
        python = False
    else:
        python = _is_ours(tree)
    try:
        parse("=" + text)
        ours = True
    except FormulaError:
        ours = False
    assert ours == python


PIECES = [
    *"+-*/%<>=!&|^~.,:;?$@#()[]{}'\"\\`_ \t\n\r\0é٣²\ud800\U0001f600",
    "if",
    "else",
    "not",
    "in",
    "1e",
    "0x",
    "min(",
    "x",
]


@settings(max_examples=600, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=40).map("".join), soup()))
def test_any_text_gives_a_value_or_a_formula_error(text: str) -> None:
    text = "=" + text
    try:
        parse(text).evaluate({**NAMES, "x": 3})
    except FormulaError as error:
        assert 0 <= error.start < error.end <= len(text)  # noqa: PT017
        assert "\n" not in error.message + (error.help or "")  # noqa: PT017
        assert error.message.isprintable()  # noqa: PT017


@settings(max_examples=200, deadline=None)
@given(pairs())
def test_evaluation_needs_no_more_than_the_names_it_tells(pair: Pair) -> None:
    assume(len(pair.formula) < 2000)
    formula = parse("=" + pair.formula)
    few = {name: NAMES[name] for name in formula.names}
    results = []
    for names in (NAMES, few):
        try:
            results.append(repr(formula.evaluate(names)))
        except FormulaError as error:
            results.append(error.message)
    assert results[0] == results[1]
