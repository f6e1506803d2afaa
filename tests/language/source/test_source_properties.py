"""Any bytes give nodes or faults; JSON, which is YAML 1.2, gives what `json` says."""

import json
import time
from collections.abc import Iterator
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from axon_compose.diagnostics import Position, Problems, Span
from axon_compose.language.source import Mapping, Node, Sequence, plain, read

PUNCTUATION = ["b: ", "- ", "? ", ": ", "[", "]", "{", "}", ", ", "\n", "\n  ", "\n    ", "\t", "'", '"', "|\n", ">-\n"]
MARKS = ["&x ", "*x", "*y", "<<: ", "!t ", "!!str ", "%TAG ", "%YAML 1.2\n", "---\n", "...\n", "# c\n", "@"]
VALUES = ["a", "=", "~", "on", "1e-6", "9" * 50, "0o17", ".inf", "\\U99999999", "\\ud800", "\\x"]
BROKEN = ["\x00", "\ud800", "\u2028", "\ufeff", "\r"]
TOKENS = st.sampled_from(PUNCTUATION + MARKS + VALUES + BROKEN)
#: A text of this size parses in a millisecond or two; the rest is for a busy machine.
SECONDS = 4.0


def check(data: bytes | str) -> None:
    problems = Problems()
    begin = time.process_time()
    node = read(data, "f", problems)
    assert time.process_time() - begin < SECONDS
    assert node is not None or problems.failed
    lines = problems.sources.get("f", "").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for fault in problems:
        assert fault.span is not None
        assert Position(1, 1) <= fault.span.start <= fault.span.end
        assert fault.span.end.line <= len(lines)
    if node is not None:
        plain(node)
        for span in spans(node):
            assert Position(1, 1) <= span.start <= span.end <= Position(len(lines), len(lines[-1]) + 1)


def spans(node: Node) -> Iterator[Span]:
    """The places of nodes and keys."""
    yield node.span
    if isinstance(node, Sequence):
        for item in node.items:
            yield from spans(item)
    elif isinstance(node, Mapping):
        for entry in node.entries.values():
            yield entry.key_span
            yield from spans(entry.node)


@given(st.binary(max_size=200))
@example(b"\xff\xfe")
@example(b"\xef\xbb\xbf")
@settings(max_examples=300)
def test_any_bytes(data: bytes) -> None:
    check(data)


@given(st.lists(TOKENS, max_size=30).map("".join))
@example("&a [*a]")
@example("[a]: {? [b] : c}")
@example("a:\n- ?")
@example("- *y")
@example("%YAML 1.2\n\t")
@settings(max_examples=600)
def test_token_soup(text: str) -> None:
    check(text)


# YAML has no surrogate pairs among its escapes, hence ensure_ascii=False, and forbids raw C1 controls, hence no Cc.
STRINGS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp", "Cn"], exclude_characters="\ufeff"))
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | STRINGS,
    lambda d: st.lists(d, max_size=4) | st.dictionaries(STRINGS, d, max_size=4),
    max_leaves=20,
)


@given(JSON.filter(lambda data: data is not None), st.sampled_from([None, 2]))
@settings(max_examples=200)
def test_json_is_yaml(data: Any, indent: int | None) -> None:
    problems = Problems()
    text = json.dumps(data, ensure_ascii=False, indent=indent)
    node = read(text.encode(), "f", problems)
    assert not list(problems)
    assert node is not None
    assert repr(plain(node)) == repr(data)
