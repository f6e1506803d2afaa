"""The text form of a stack: reading, counting, expanding, writing, and its error messages."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axon_compose.language.document._stack_text import Group, StackError, Term, compress, parse_stack

UNREADABLE = [
    ("", "", "the stack is empty", "name at least one block"),
    (" \n ", " \n ", "the stack is empty", "name at least one block"),
    ("3*lin", "3*lin", "the count comes after the name", "write `lin*3`"),
    ("a 3 * (b c)", "3 * (", "the count comes after the group", "write `(…)*3`"),
    ("a lin 3", "3", "expected a name, found `3`", "a count is written `lin*3`"),
    ("12", "12", "expected a name, found `12`", "a count is written `a*12`"),
    ("a 2nd", "2nd", "expected a name, found `2nd`",
     "a name has lower-case letters, digits and `_`, and begins with a letter"),
    ("a, b", ",", "the character `,` is not allowed in a stack", "separate layers by spaces"),
    ("[a b]*3", "[", "the character `[` is not allowed in a stack", "a group is written `(a b)*3`"),
    ("=a", "=", "the character `=` is not allowed in a stack",
     "a generated stack is written `{layers: =…, block: […]}`"),
    ("a\0", "\0", "the character U+0000 is not allowed in a stack", None),
    ("a\u00a0b", "\u00a0", "the character U+00A0 is not allowed in a stack", None),
    ("é", "é", "the character `é` is not allowed in a stack", None),
    ("Lin", "Lin", "`Lin` is not a name", "a name has lower-case letters, digits and `_`, and begins with a letter"),
    ("a my-block", "my-block", "`my-block` is not a name",
     "a name has lower-case letters, digits and `_`, and begins with a letter"),
    ("_a", "_a", "`_a` is not a name", "a name has lower-case letters, digits and `_`, and begins with a letter"),
    ("a" * 101, "a" * 101, "a name has at most 100 characters", None),
    ("(a b", "(", "`(` is never closed", "add a `)`"),
    ("a)", ")", "`)` closes nothing", None),
    ("a ()*2", "()", "the group is empty", None),
    ("a(b)", "(", "a space is missing before `(`", None),
    ("(a)(b)", "(", "a space is missing before `(`", None),
    ("(a)b", "b", "a space is missing before `b`", None),
    ("*3", "*", "`*` without a name before it", "a count stands after a name: `a*3`"),
    ("a*2*3", "*", "a second `*`", "write `(a*2)*3`, or the product"),
    ("a" * 2**18 + "a", "a" * (2**18 + 1), "the stack is longer than 262,144 characters", "write runs as `name*3`"),
]  # fmt: skip

COUNT = "a count is a positive integer; for a computed one write the list form `[{block: a, repeat: =…}]`"
BAD_COUNTS = [
    ("a*0", "0", "`0` is not a count"),
    ("a*00", "00", "`00` is not a count"),
    ("a*03", "03", "`03` is not a count"),
    ("a*-1", "-1", "`-1` is not a count"),
    ("a*2.5", "2.5", "`2.5` is not a count"),
    ("a*1e3", "1e3", "`1e3` is not a count"),
    ("a*n b", "n", "`n` is not a count"),
    ("(a b)*2x", "2x", "`2x` is not a count"),
    ("a*", "*", "a count is missing after `*`"),
    ("a**3", "*", "a count is missing after `*`"),
    ("a*(b)", "*", "a count is missing after `*`"),
]


@pytest.mark.parametrize(
    ("text", "blamed", "message", "hint"),
    [
        *UNREADABLE,
        *((*case, COUNT) for case in BAD_COUNTS),
        ("a*" + "9" * 19, "9" * 19, "a count has at most 18 digits", None),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_an_unreadable_stack_says_why(text: str, blamed: str, message: str, hint: str | None) -> None:
    with pytest.raises(StackError) as caught:
        parse_stack(text)
    error = caught.value
    assert (text[error.start : error.end], error.message, error.help) == (blamed, message, hint)


@pytest.mark.parametrize("text", ["a*2*3", "a**3", "(a)(b)"])
def test_the_place_is_the_second_of_two(text: str) -> None:
    with pytest.raises(StackError) as caught:
        parse_stack(text)
    assert caught.value.start == {"a*2*3": 3, "a**3": 1, "(a)(b)": 3}[text]


def test_a_stack_is_a_tree_with_places() -> None:
    stack = parse_stack("absorb*8 (lin*3 local)*5")
    lin, local = Term("lin", 3, 10, 15), Term("local", 1, 16, 21)
    assert stack.items == (Term("absorb", 8, 0, 8), Group((lin, local), 5, 9, 24))
    assert [term.name for term in stack.uses()] == ["absorb", "lin", "local"]
    assert stack.count() == 28
    assert stack.terms() == [("absorb*8", 8), ("(lin*3 local)*5", 20)]
    assert str(stack) == "absorb*8 (lin*3 local)*5"


def test_expanding_names_every_layer_and_its_term() -> None:
    text = "a*2 (b c*2)*2"
    layers = list(parse_stack(text).expand(limit=8))
    assert [name for name, _ in layers] == ["a", "a", "b", "c", "c", "b", "c", "c"]
    assert [text[start:end] for _, (start, end) in layers] == ["a*2", "a*2", "b", "c*2", "c*2", "b", "c*2", "c*2"]


def test_white_space_is_free() -> None:
    stack = parse_stack("\n a * 2\r\n\t( b\n )*3 ")
    assert stack.count() == 5
    assert stack.terms() == [("a * 2", 2), ("( b\n )*3", 3)]


def test_a_stack_too_long_to_expand_blames_its_largest_item_at_once() -> None:
    text = "a*5 (b*1000)*1000000000 c"
    stack = parse_stack(text)
    with pytest.raises(StackError, match="1,000,000,000,006 layers, more than 4,096") as caught:
        stack.expand(4096)
    assert text[caught.value.start : caught.value.end] == "(b*1000)*1000000000"
    assert len(list(parse_stack("a*4096").expand(4096))) == 4096
    with pytest.raises(StackError):
        parse_stack("a*4097").expand(4096)


def test_counting_is_exact_and_never_expands() -> None:
    text = "a"
    for _ in range(32):
        text = f"({text})*{'9' * 18}"
    began = time.process_time()
    stack = parse_stack(text + " b*1000000000000")
    assert stack.count() == (10**18 - 1) ** 32 + 10**12
    with pytest.raises(StackError):
        stack.expand(10**6)
    assert time.process_time() - began < 6  # well under a millisecond; expanding would not end


def test_groups_nest_to_a_limit() -> None:
    assert parse_stack("(" * 32 + "a" + ")" * 32).count() == 1
    with pytest.raises(StackError, match="deeper than 32 levels") as caught:
        parse_stack("(" * 33 + "a" + ")" * 33)
    assert (caught.value.start, caught.value.end) == (32, 33)


PIECES = ["a", "lin_2", "*", "3", "0", " ", "(", ")", "\n", ",", "-", ".", "é", "\0", "²", "a*2", "(b c)*2 ", "A"]


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(max_size=50), st.lists(st.sampled_from(PIECES), max_size=30).map("".join)))
def test_any_text_gives_a_stack_or_a_stack_error(text: str) -> None:
    try:
        stack = parse_stack(text)
    except StackError as error:
        assert 0 <= error.start < error.end <= len(text) or not text  # noqa: PT017
        assert error.message.isprintable()  # noqa: PT017
    else:
        assert stack.count() == sum(layers for _, layers in stack.terms()) >= 1


@pytest.mark.parametrize(
    "text",
    ["(" * 200_000, "(a " * 80_000, "a*9 " * 60_000, ")" * 200_000, "a" * 200_000, "*" * 200_000],
    ids=range(6),
)
def test_attacks_end_soon(text: str) -> None:
    began = time.process_time()
    try:
        parse_stack(text)
    except StackError as error:
        assert error.start < error.end  # noqa: PT017
    assert time.process_time() - began < 9  # a quarter of a second as a rule; quadratic time would be minutes


Tree = list[tuple["str | Tree", int]]


def _render(tree: Tree) -> str:
    parts = []
    for item, count in tree:
        text = item if isinstance(item, str) else f"({_render(item)})"
        parts.append(text if count == 1 else f"{text}*{count}")
    return " ".join(parts)


def _flatten(tree: Tree) -> list[str]:
    return [name for item, count in tree for name in ([item] if isinstance(item, str) else _flatten(item)) * count]


_TREES = st.recursive(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4)), min_size=1, max_size=3),
    lambda below: st.lists(st.tuples(below | st.sampled_from("ab"), st.integers(1, 3)), min_size=1, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(_TREES)
def test_a_text_expands_to_what_it_was_rendered_from(tree: Tree) -> None:
    stack = parse_stack(_render(tree))
    names = _flatten(tree)
    assert stack.count() == len(names)
    assert [name for name, _ in stack.expand(len(names))] == names


@settings(max_examples=400, deadline=None)
@given(st.one_of(_TREES.map(_flatten), st.lists(st.sampled_from(["a", "b", "long_name"]), min_size=1, max_size=60)))
def test_compressing_loses_nothing_and_never_lengthens(names: list[str]) -> None:
    text = compress(names)
    assert [name for name, _ in parse_stack(text).expand(len(names))] == names
    assert len(text) <= len(" ".join(names))
    assert compress(tuple(names)) == text


@pytest.mark.parametrize(
    "text",
    [
        "a", "a b c", "a*3", "a*3 (b c)*4", "(lin*3 local)*5", "lin (lin*3 local)*5", "(l*5 g)*10 l*2",
        "((m e)*2 a e m e)*4", "(a b a)*4", "absorb*8 reason*8 synthesize*8", "((a b)*2 c*3)*7 d", "(full local*3)*12",
    ],
)  # fmt: skip
def test_compressing_finds_the_text_that_a_person_would_write(text: str) -> None:
    stack = parse_stack(text)
    assert compress([name for name, _ in stack.expand(10_000)]) == text


def test_compressing_nothing_gives_nothing() -> None:
    assert compress([]) == ""


def _fibonacci(length: int) -> list[str]:
    a, b = "a", "ab"
    while len(b) < length:
        a, b = b, b + a
    return list(b[:length])


@pytest.mark.parametrize(
    "names",
    [["a"] * 4096, [f"x{i // 2}" for i in range(4096)], _fibonacci(4096), random.Random(0).choices("ab", k=4096)],
    ids=["equal", "pairs", "fibonacci", "random"],
)
def test_compressing_thousands_of_layers_takes_about_a_second(names: list[str]) -> None:
    began = time.process_time()
    text = compress(names)
    assert time.process_time() - began < 24  # 0.2 to 1 s on an idle core; cubic time would be minutes
    assert [name for name, _ in parse_stack(text).expand(4096)] == names
