"""The core schema of YAML 1.2, against the tables of its specification and against Python's own number syntax."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axon_compose.diagnostics import Problems
from axon_compose.language.source import Scalar, read
from axon_compose.language.source._scalars import MAX_DIGITS, NumberFault, is_text, resolve

TEXTS = [
    *(
        "on",
        "off",
        "yes",
        "no",
        "y",
        "N",
        "12:30",
        "1_000",
        "2024-01-01",
        "0x",
        "0o8",
        "0b11",
        "+0x1",
        "-0o7",
        "1e",
        "e1",
    ),
    *(
        "=",
        "=num_layers",
        "=a if i % 4 == 0 else b",
        "<<",
        ".",
        "+",
        "-",
        "..",
        ".e1",
        "1.2.3",
        "nan",
        "inf",
        "Infinity",
    ),
    *("NuLL", "tRUE", "none", "½", "١٢", "1\u00a0", "absorb*8 reason*8"),
]
VALUES = {
    "1e-6": 1e-6,
    "1e6": 1e6,
    "1E+3": 1000.0,
    ".5": 0.5,
    "1.": 1.0,
    "-2.5e1": -25.0,
    "+.5": 0.5,
    "0.0": 0.0,
    "0o17": 15,
    "010": 10,
    "0xFf": 255,
    "+7": 7,
    "-0": 0,
    "0": 0,
    "9" * MAX_DIGITS: int("9" * MAX_DIGITS),
    ".inf": math.inf,
    "+.INF": math.inf,
    "-.Inf": -math.inf,
    "null": None,
    "Null": None,
    "NULL": None,
    "~": None,
    "": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}


@pytest.mark.parametrize("text", TEXTS)
def test_text_stays_text(text: str) -> None:
    assert resolve(text) == text
    assert is_text(text)


@pytest.mark.parametrize(("text", "value"), VALUES.items())
def test_values(text: str, value: object) -> None:
    found = resolve(text)
    assert (type(found), found) == (type(value), value)
    assert not is_text(text)


def test_not_a_number() -> None:
    assert all(math.isnan(resolve(text)) for text in (".nan", ".NaN", ".NAN"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["9" * (MAX_DIGITS + 1), "-" + "9" * 5000, "0x" + "f" * 41, "0o" + "7" * 9999, "1e999", "-1e999"]
)
def test_numbers_beyond_any_machine(text: str) -> None:
    with pytest.raises(NumberFault):
        resolve(text)


@given(st.integers(-(10**MAX_DIGITS) + 1, 10**MAX_DIGITS - 1))
def test_integers_as_python_writes_them(value: int) -> None:
    assert resolve(str(value)) == value
    if value >= 0:
        assert resolve(f"0o{value:o}"[: MAX_DIGITS + 2]) == int(f"{value:o}"[:MAX_DIGITS], 8)
        assert resolve(hex(value)) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_as_python_writes_them(value: float) -> None:
    assert resolve(repr(value)) == value


@given(st.text("0123456789+-.eExXoO_:~abfnulTRy", max_size=8))
def test_numbers_are_what_python_reads_too(text: str) -> None:
    value = resolve(text)
    if type(value) is int:
        assert value == int(text, 0 if text[:2] in ("0x", "0o") else 10)
    elif type(value) is float and "." + text.lstrip("+-.").lower() not in (".inf", ".nan"):
        assert value == float(text)


def test_quotes_make_text() -> None:
    problems = Problems()
    node = read("['1', \"true\", '', \"~\", 1]", "f", problems)
    assert [(item.value, item.quoted) for item in node.items] == [  # type: ignore[union-attr]
        ("1", True),
        ("true", True),
        ("", True),
        ("~", True),
        (1, False),
    ]
    assert isinstance(node.items[0], Scalar)  # type: ignore[union-attr]
    assert not problems.failed
