"""Patterns of tensor names: what they match, what they capture, and the way back."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axon_compose.language.document import PatternError, parse_pattern, parse_target


@pytest.mark.parametrize(
    ("pattern", "name", "captures", "rest"),
    [
        ("model.norm", "model.norm", {}, ""),
        ("model.norm", "model.norm.weight", {}, ".weight"),
        ("model.<l>", "model.7.mlp.w.bias", {"l": "7"}, ".mlp.w.bias"),
        ("e.<e>.w<n>", "e.12.w3.weight", {"e": "12", "n": "3"}, ".weight"),
        ("(h|layers).<l>", "h.0.ln", {"l": "0"}, ".ln"),
        ("a(|_proj).b", "a.b", {}, ""),
        ("a(|_proj).b", "a_proj.b", {}, ""),
        ("<*>.inv_freq", "model.layers.0.rope.inv_freq", {}, ""),
        ("<a>.x.<a>", "3.x.3.w", {"a": "3"}, ".w"),
        ("x.weight", "x.weight", {}, ""),
        ("a+b[c]", "a+b[c].w", {}, ".w"),
    ],
)
def test_match(pattern: str, name: str, captures: dict[str, str], rest: str) -> None:
    assert parse_pattern(pattern).match(name) == (captures, rest)


def test_a_pattern_is_compiled_for_the_first_name() -> None:
    """Compiling those of a family took a thirtieth of `validate`, which has no names."""
    for pattern in (parse_pattern("first.<l:int>.name"), parse_target("first.<l>.name", frozenset({"l"}))):
        assert "_expression" not in vars(pattern)
        assert pattern.match("first.7.name.weight") == ({"l": "7"}, ".weight")
        assert "_expression" in vars(pattern)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("model.norm", "model.norm2"),
        ("model.norm", "model"),
        ("model.norm", "xmodel.norm"),
        ("model.<l>", "model."),
        ("model.<l>.a", "model.0.1.a"),
        ("<a>.x.<a>", "3.x.4"),
        ("m.x", "mxx"),
        ("<*>", "x" * 3000),
    ],
)
def test_no_match(pattern: str, name: str) -> None:
    assert parse_pattern(pattern).match(name) is None


@pytest.mark.parametrize(
    ("text", "start", "end", "message"),
    [
        ("", 0, 0, "empty"),
        ("a.", 1, 2, "a dot at the end"),
        ("a.<l.b", 2, 3, "unexpected `<`"),
        ("a.l>", 3, 4, "unexpected `>`"),
        ("a.(b", 2, 3, "unexpected `(`"),
        ("a|b", 1, 2, "unexpected `|`"),
        ("a?", 1, 2, "unexpected `?`"),
        ("a.<L>.b", 2, 5, "`L` cannot be the name"),
        ("a.<>.b", 2, 4, "cannot be the name"),
        ("a.(b).c", 2, 5, "two or more"),
        ("a.(b|b).c", 2, 7, "two or more different"),
        ("a.(b|<c>)", 2, 9, "two or more different texts"),
        ("a.<b><c>", 2, 8, "it is ambiguous where `<b>` ends"),
        ("a" * 501, 0, 501, "longer than"),
    ],
)
def test_faults_have_their_place(text: str, start: int, end: int, message: str) -> None:
    with pytest.raises(PatternError, match=re.escape(message)) as caught:
        parse_pattern(text)
    assert (caught.value.start, caught.value.end) == (start, end)


def test_targets() -> None:
    target = parse_target("layers.<l>.(attn|ssm).q?")
    assert target.optional
    assert list(target.spellings({"l": "3"})) == ["layers.3.attn.q", "layers.3.ssm.q"]
    assert target.match("layers.3.ssm.q.weight") == ({"l": "3"}, ".weight")
    with pytest.raises(PatternError, match="captures no text"):
        parse_target("layers.<*>.x")
    with pytest.raises(PatternError, match=r"unexpected `[?]`"):
        parse_target("layers?.x")


def test_literal_characters() -> None:
    assert [parse_pattern(text).literals for text in ("ab.<c>", "<*>", "(ab|cde).x")] == [3, 0, 4]


PARTS = st.lists(st.sampled_from(["a", ".", "b", "<x>", "_", "<y>.", "(p|q)", "7"]), min_size=1, max_size=8)


@given(PARTS, st.sampled_from(["", ".weight", ".a.bias"]))
def test_a_spelling_matches_its_pattern(parts: list[str], rest: str) -> None:
    try:
        pattern = parse_pattern("".join(parts))
    except PatternError:
        return
    for name in pattern.spellings({"x": "1", "y": "2"}):
        match = pattern.match(name + rest)
        assert match is not None
        assert next(iter(pattern.spellings(match.captures))).replace("q", "p") + match.rest == (name + rest).replace(
            "q", "p"
        )


@given(st.text(max_size=40))
def test_any_text_is_a_pattern_or_a_fault(text: str) -> None:
    for parse in (parse_pattern, parse_target):
        start = end = 0
        try:
            parse(text)
        except PatternError as error:
            start, end = error.start, error.end
        assert 0 <= start <= end <= len(text)
