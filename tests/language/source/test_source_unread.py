"""A place that could not be read is not judged again by later stages; other places are, other files too."""

from axon_compose.diagnostics import Position, Problems, Span
from axon_compose.language.source import read


def span(file: str, line: int = 4) -> Span:
    return Span(file, Position(line, 3), Position(line, 5))


def test_what_was_not_read_is_not_judged() -> None:
    problems = Problems()
    problems.error("AX010", "out of range", span("a"))
    problems.error("AX102", "too small", span("a"))
    problems.error("AX011", "a tag as well", span("a"))
    problems.error("AX102", "same line, other file", span("b"))
    problems.error("AX102", "same file, other line", span("a", 5))
    problems.error("AX300", "no place")
    assert [d.message for d in problems] == [
        "out of range",
        "a tag as well",
        "same file, other line",
        "same line, other file",
        "no place",
    ]


def test_two_judgements_of_one_place_are_both_told() -> None:
    problems = Problems()
    problems.error("AX102", "one", span("a"))
    problems.error("AX103", "two", span("a"))
    problems.error("AX103", "two", span("a"))
    assert [d.message for d in problems] == ["one", "two"]


def test_faults_without_end_are_counted() -> None:
    problems = Problems()
    for n in range(300):
        problems.error("AX102", str(n), span("a", n + 1))
    assert (len(problems), problems.dropped) == (200, 100)


def test_a_flood_of_faults_ends_the_reading() -> None:
    problems = Problems()
    assert read("- !x 1\n" * 5000, "f", problems) is None
    assert (len(problems), problems.dropped) == (200, 1001)
