"""Python data to nodes: what is written reads back the same, here and by a reader that is not ours."""

import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from places import locate

from axon_compose.diagnostics import Problems
from axon_compose.language.source import Unwritable, plain, read, to_source, to_yaml
from axon_compose.language.source._text import MAX_BYTES

CHARACTERS = st.characters(exclude_categories=["Cs"])
ODD_TEXTS = ["on", "12:30", "1e-6", "=", "=a[i]", "- x", "a: b", "#", "<<", "null", " x", "x ", "*a", "x\n", "y", "1_0"]
TEXTS = st.text(CHARACTERS) | st.sampled_from(ODD_TEXTS)
EXACT = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | TEXTS
KEYS = TEXTS | st.just("k" * 2000)


def nested(scalars: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        scalars, lambda d: st.lists(d, max_size=4) | st.dictionaries(KEYS, d, max_size=4), max_leaves=12
    )


DATA = nested(EXACT | st.floats(allow_nan=False))


@given(DATA.filter(lambda data: data is not None))
def test_what_is_written_reads_back(data: Any) -> None:
    problems = Problems()
    node = to_source(data, "<dict>", problems)
    assert not list(problems)
    assert node is not None
    assert plain(node) == data
    assert repr(plain(node)) == repr(data)  # 1, 1.0 and True apart


@given(nested(EXACT))
def test_a_reader_of_yaml_1_1_agrees(data: Any) -> None:
    """PyYAML's own loader takes no text for anything else (floats apart: `1e-06` is a text there)."""
    assert yaml.safe_load(to_yaml(data)) == data


def test_not_a_number_and_tuples() -> None:
    problems = Problems()
    node = to_source({"a": (1, math.nan), "b": (), "c": {}}, "<dict>", problems)
    assert node is not None
    found = plain(node)
    assert math.isnan(found["a"].pop())
    assert found == {"a": [1], "b": [], "c": {}}


def test_faults_have_an_excerpt() -> None:
    problems = Problems()
    node = to_source({"dims": {"hidden_size": 64}, "stack": ["a", {"b": 1}]}, "<dict>", problems)
    assert problems.sources["<dict>"] == "dims:\n  hidden_size: 64\nstack:\n  - a\n  - b: 1\n"
    assert node is not None
    assert str(locate(node, ("stack", 1, "b"))) == "<dict>:5:8"


class Odd:
    pass


def cycle() -> list[Any]:
    data: list[Any] = []
    data.append(data)
    return data


def laughs() -> list[Any]:
    data: list[Any] = ["lol"]
    for _ in range(40):
        data = [data, data]
    return data


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        ({"a": [0, {"b": Odd()}]}, "AX017", "`Odd` at `a[1].b`"),
        ({"a": b"x"}, "AX017", "`bytes`"),
        ({"a": {1, 2}}, "AX017", "`set`"),
        ({"a": {1: 2}}, "AX012", "`1` at `a`"),
        ({None: 2}, "AX012", "`None`"),
        ({"a": 10**5000}, "AX010", "at `a`"),
        ({"a": 10**40}, "AX010", "41 digits"),
        ({"a": "\ud800"}, "AX004", "at `a`"),
        (cycle(), "AX008", "64"),
        (laughs(), "AX005", "1 MiB"),
        ([[1] * 400] * 400, "AX009", "100,000"),
        (["x" * MAX_BYTES], "AX005", "1 MiB"),
        (None, "AX006", "empty"),
    ],
)
def test_data_that_cannot_be_source(data: Any, code: str, words: str) -> None:
    problems = Problems()
    node = to_source(data, "<dict>", problems)
    (fault,) = problems
    assert fault.code == code
    assert words in fault.message
    assert node is None or code == "AX010"


def test_to_yaml_raises() -> None:
    with pytest.raises(Unwritable, match="Odd"):
        to_yaml([Odd()])


def test_numpy_numbers_are_told_from_plain_ones() -> None:
    np = pytest.importorskip("numpy")
    problems = Problems()
    assert to_source({"a": np.int64(3)}, "<dict>", problems) is None
    assert "int64" in next(iter(problems)).message
    node = to_source({"a": np.float64(0.5)}, "<dict>", Problems())  # a float by class
    assert node is not None
    assert plain(node) == {"a": 0.5}


def test_a_formula_is_written_bare() -> None:
    assert to_yaml({"heads": "=hidden_size // 64"}) == "heads: =hidden_size // 64\n"
    assert to_yaml({"heads": "=min(i, 3)"}) == 'heads: "=min(i, 3)"\n'
    node = read("heads: =min(i, 3)", "f", Problems())
    assert node is not None
    assert plain(node) == {"heads": "=min(i, 3)"}
