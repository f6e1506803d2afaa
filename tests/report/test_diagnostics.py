"""What a person, a log, GitHub and a program see of the same faults."""

import io
import json
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axon_compose.diagnostics import Diagnostic, Label, Position, Problems, Span
from axon_compose.language.source import read
from axon_compose.report._cells import escape, width
from axon_compose.report._diagnostics import FORMS, MAX_SHOWN, as_dicts, render
from axon_compose.report._style import PLAIN, Style


def span(line: int, column: int, end_column: int, file: str = "arch.yaml", end_line: int | None = None) -> Span:
    return Span(file, Position(line, column), Position(end_line or line, end_column))


def golden(text: str) -> str:
    return dedent(text).strip("\n")


ARCH = "version: 1\nname: x\ncomponents:\n  heads: 1\n\n  ssm: {type: axon_ssm, d_stat: 16}\n"


def test_the_form_of_the_design() -> None:
    fault = Diagnostic(
        "AX101", "unknown option `d_stat`", span(6, 25, 31), "not an option of `axon_ssm`", "did you mean `d_state`?"
    )
    assert render([fault], {"arch.yaml": ARCH}) == golden("""
        error[AX101]: unknown option `d_stat`
         --> arch.yaml:6:25
          |
        6 |   ssm: {type: axon_ssm, d_stat: 16}
          |                         ^^^^^^ not an option of `axon_ssm`
          = help: did you mean `d_state`?
    """)


def test_two_places_in_one_file() -> None:
    problems = Problems()
    read("a:\n  heads: 1\n  b: 2\n  heads: 2\nc: {d: 1, d: 2}\n", "arch.yaml", problems)
    assert render(problems, problems.sources) == golden("""
        error[AX007]: duplicate key `heads`
         --> arch.yaml:4:3
          |
        2 |   heads: 1
          |   ----- first defined here
        ...
        4 |   heads: 2
          |   ^^^^^ second definition

        error[AX007]: duplicate key `d`
         --> arch.yaml:5:11
          |
        5 | c: {d: 1, d: 2}
          |           ^ second definition
          |     - first defined here
    """)


def test_two_files_with_line_numbers_of_different_width() -> None:
    sources = {"arch.yaml": "extends: base\n", "base.yaml": "x\n" * 11 + "heads: no\n"}
    label = Label(span(1, 1, 8), "extended here")
    fault = Diagnostic("AX102", "expected an integer", span(12, 8, 10, "base.yaml"), "this is text", labels=(label,))
    assert render([fault], sources) == golden("""
        error[AX102]: expected an integer
          --> base.yaml:12:8
           |
        12 | heads: no
           |        ^^ this is text
          ::: arch.yaml:1:1
           |
         1 | extends: base
           | ------- extended here
    """)


def test_spans_of_several_lines() -> None:
    text = "a:\n  b: {c: 1,\n      d: 2,\n\n      e: 3,\n      f: 4}\n"
    short = Diagnostic("AX100", "short", span(2, 6, 11, end_line=3), "two lines")
    long = Diagnostic("AX100", "long", span(2, 6, 12, end_line=6), "five lines")
    block = Diagnostic("AX100", "up to the line break", span(1, 1, 1, end_line=2), "one line")
    assert render([short, long, block], {"arch.yaml": text}) == golden("""
        error[AX100]: up to the line break
         --> arch.yaml:1:1
          |
        1 | a:
          | ^^ one line

        error[AX100]: short
         --> arch.yaml:2:6
          |
        2 |   b: {c: 1,
          |      ^^^^^^
        3 |       d: 2,
          |       ^^^^ two lines

        error[AX100]: long
         --> arch.yaml:2:6
          |
        2 |   b: {c: 1,
          |      ^^^^^^
        3 |       d: 2,
          |       ^^^^^
        ...
        6 |       f: 4}
          |       ^^^^^ five lines
    """)


def test_wide_characters_tabs_and_escapes() -> None:
    text = "名前:\te\u0301\x1b[31m x\u202e: y\n"
    problems = Problems(sources={"arch.yaml": text})
    problems.error(
        "AX001", "odd \x1b[2J\nname", span(1, text.index("x") + 1, text.index("x") + 3), label="\x07", help="a\tb"
    )
    assert render(problems, problems.sources) == golden(
        r"""
        error[AX001]: odd \x1b[2J\x0aname
         --> arch.yaml:1:13
          |
        1 | 名前:    e"""
        "\u0301"
        r"""\x1b[31m x\u202e: y
          |                    ^^^^^^^ \x07
          = help: a    b
    """
    )


@pytest.mark.parametrize("column", [1, 40, 60, 500, 960, 1000])
def test_long_lines_are_cut_around_the_caret(column: int) -> None:
    text = "".join(chr(ord("a") + i % 26) for i in range(1000))
    fault = Diagnostic("AX001", "here", span(1, column, column + 1), "x")
    excerpt, caret = render([fault], {"arch.yaml": text}).splitlines()[3:]
    assert len(excerpt) <= 120
    assert excerpt[caret.index("^")] == text[column - 1]
    assert ("…" in excerpt[:6]) == (column > 51)
    assert excerpt.endswith("…") == (column < 900)


def test_a_label_far_away_on_a_long_line() -> None:
    text = "a: 1, " + "b" * 500 + ", a: 2"
    fault = Diagnostic("AX007", "twice", span(1, 509, 510), "again", labels=(Label(span(1, 1, 2), "first"),))
    lines = render([fault], {"arch.yaml": text}).splitlines()
    assert lines[-2].endswith("^ again")
    assert lines[-1] == "  | column 1: first"


def test_places_outside_of_the_text() -> None:
    fault = Diagnostic("AX001", "at the end", span(9, 7, 9), "here")
    assert render([fault], {"arch.yaml": "a: [\n"}) == golden("""
        error[AX001]: at the end
         --> arch.yaml:9:7
          |
        2 |
          | ^ here
    """)


def test_without_place_or_text() -> None:
    lost = Diagnostic("AX300", "no place", help="look elsewhere")
    gone = Diagnostic("AX005", "too large", span(1, 1, 1), "not read")
    assert render([lost, gone]) == golden("""
        error[AX005]: too large
         --> arch.yaml:1:1
          = not read

        error[AX300]: no place
          = help: look elsewhere
    """)


def test_sorted_and_capped() -> None:
    faults = [Diagnostic("AX100", f"fault {n}", span(n, 1, 2), severity="warning") for n in range(30, 0, -1)]
    lines = render(faults, form="concise", dropped=5).splitlines()
    assert lines[0] == "arch.yaml:1:1: warning[AX100]: fault 1"
    assert lines[MAX_SHOWN - 1].startswith("arch.yaml:20:1:")
    assert lines[MAX_SHOWN:] == ["and 15 more"]
    assert render(faults).count("-->") == MAX_SHOWN
    assert render(faults).endswith("\n\nand 10 more")
    assert len(json.loads(render(faults, form="json"))) == 30
    assert len(render(faults, form="github").splitlines()) == 30
    assert [render([], form=form) for form in FORMS] == ["", "", "", "[]"]


def test_concise() -> None:
    fault = Diagnostic("AX101", "unknown", span(6, 25, 31), "label", "did you mean `d_state`?")
    assert render([fault], form="concise") == "arch.yaml:6:25: error[AX101]: unknown (did you mean `d_state`?)"


def test_github() -> None:
    label = Label(span(1, 2, 3, "b.yaml"), "first")
    fault = Diagnostic("AX007", "100% `a::b`\nx", span(6, 25, 31, "a,b:c%.yaml"), "again", "drop one", (label,))
    assert render([fault], form="github") == (
        "::error file=a%2Cb%3Ac%25.yaml,line=6,col=25,endColumn=30,title=AX007::"
        "100%25 `a::b`\\x0ax%0Aagain%0Ahelp: drop one%0Ab.yaml:1:2: first"
    )
    several = Diagnostic("AX001", "m", span(1, 2, 5, end_line=4), severity="warning")
    assert render([several], form="github") == "::warning file=arch.yaml,line=1,col=2,endLine=4,title=AX001::m"
    assert render([Diagnostic("AX300", "m")], form="github") == "::error title=AX300::m"


def test_details_stand_on_lines_of_their_own() -> None:
    fault = Diagnostic("AX553", "they differ", help="look", details=("2 missing:", "  a", "  b\x1b[31m"))
    assert render([fault]) == ("error[AX553]: they differ\n    2 missing:\n      a\n      b\\x1b[31m\n  = help: look")
    assert render([fault], form="concise") == "error[AX553]: they differ 2 missing: a b\\x1b[31m (look)"
    assert render([fault], form="github").endswith("::they differ%0A2 missing:%0A  a%0A  b\\x1b[31m%0Ahelp: look")


def test_json() -> None:
    fault = Diagnostic("AX007", "twice", span(6, 25, 31), "again", None, (Label(span(1, 2, 3), "first"),))
    lost = Diagnostic("AX300", "é\x00", help="h", details=("a", "  b"), severity="warning")
    place = {"file": "arch.yaml", "line": 1, "column": 2, "end_line": 1, "end_column": 3}
    nowhere = dict.fromkeys(place)
    assert json.loads(render([lost, fault], form="json")) == as_dicts([fault, lost])
    assert as_dicts([lost, fault]) == [
        {"code": "AX007", "severity": "error", "message": "twice", "label": "again", "help": None}
        | {"file": "arch.yaml", "line": 6, "column": 25, "end_line": 6, "end_column": 31}
        | {"details": [], "labels": [{"message": "first", **place}]},
        {"code": "AX300", "severity": "warning", "message": "é\x00", "label": None, "help": "h", "labels": []}
        | {"details": ["a", "  b"], **nowhere},
    ]


def test_colour_adds_nothing_but_colour() -> None:
    problems = Problems()
    read("a: 1\na: 2\n1: *b\n", "arch.yaml", problems)
    coloured = render(problems, problems.sources, style=Style(True))
    assert "\x1b[1;31merror[AX007]\x1b[0m" in coloured
    bare = coloured
    for code in ("0", "1", "1;31", "1;33", "1;34", "1;36", "32", "2"):
        bare = bare.replace(f"\x1b[{code}m", "")
    assert bare == render(problems, problems.sources)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("terminal", "environ", "colour"),
    [
        (True, {"TERM": "xterm"}, True),
        (True, {}, True),
        (True, {"TERM": "dumb"}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        (False, {"TERM": "xterm"}, False),
        (False, {"FORCE_COLOR": "1"}, True),
        (False, {"FORCE_COLOR": "0"}, False),
        (True, {"FORCE_COLOR": "3", "TERM": "dumb"}, True),
    ],
)
def test_when_there_is_colour(terminal: bool, environ: dict[str, str], colour: bool) -> None:
    assert Style.of(Terminal() if terminal else io.StringIO(), environ).colour is colour


def test_a_closed_stream_has_no_colour() -> None:
    stream = io.StringIO()
    stream.close()
    assert Style.of(stream, {}) == PLAIN


POSITIONS = st.builds(Position, st.integers(1, 12), st.integers(1, 300))
SPANS = st.builds(Span, st.sampled_from(["a", "b\x1b", "none"]), POSITIONS, POSITIONS)
FAULTS = st.builds(
    Diagnostic,
    st.just("AX001"),
    st.text(max_size=30),
    st.none() | SPANS,
    st.text(max_size=30),
    st.none() | st.text(max_size=30),
    st.lists(st.builds(Label, SPANS, st.text(max_size=9)), max_size=3).map(tuple),
)


@given(st.lists(FAULTS, max_size=4), st.text(max_size=500), st.sampled_from(FORMS))
def test_whatever_is_rendered_is_harmless(faults: list[Diagnostic], text: str, form: str) -> None:
    """No control character reaches a terminal, whatever stands in the file, its name or a message."""
    out = render(faults, {"a": text, "b\x1b": text * 3}, form)  # type: ignore[arg-type]
    if form == "json":
        assert json.loads(out) == as_dicts(faults)
    else:
        assert all(c.isprintable() or c == "\n" or c.isspace() for c in out)
        assert not set(out) & set("\x1b\r\x0b\x0c\x85\u2028\u2029\u202e\x07\t")


@given(st.text())
def test_escaped_text_is_one_printable_line(text: str) -> None:
    shown = escape(text)
    assert len(shown.splitlines()) <= 1
    assert width(shown) <= 2 * len(shown)
    assert not text.isascii() or not text.isprintable() or shown == text
