"""What is read, where it stands, and what is said about every kind of fault."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from places import locate

from axon_compose.diagnostics import Problems
from axon_compose.language.source import Mapping, plain, read, read_file
from axon_compose.language.source import _reader as reader


@pytest.fixture(params=["C", "Python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both parsers: the one in C is not there on every machine."""
    loader = getattr(yaml, "CSafeLoader", None) if request.param == "C" else yaml.SafeLoader
    if loader is None:
        pytest.skip("PyYAML without libyaml")
    monkeypatch.setattr(reader, "_LOADER", loader)
    return request.param


def run(data: bytes | str) -> tuple[Any, list[str]]:
    """Plain data, and `line:column CODE` of every fault."""
    problems = Problems()
    node = read(data, "f", problems)
    found = [f"{d.span.start.line}:{d.span.start.column} {d.code}" if d.span else d.code for d in problems]
    return (None if node is None else plain(node)), found


TEXT = """\
# comment
name: bit-axon
dims: {hidden_size: 2560, 'vocab_size': 32_000}
components:
  ssm: {type: axon_ssm, eps: 1e-6}
blocks:
  - [ssm,
     moe]
  -
    text: |
      two
      lines

    end:
stack: absorb*8 reason*8
"""


@pytest.mark.usefixtures("parser")
def test_values_and_places() -> None:
    problems = Problems()
    node = read(TEXT, "f", problems)
    assert isinstance(node, Mapping)
    assert not list(problems)
    assert problems.sources == {"f": TEXT}
    assert plain(node) == {
        "name": "bit-axon",
        "dims": {"hidden_size": 2560, "vocab_size": "32_000"},
        "components": {"ssm": {"type": "axon_ssm", "eps": 1e-6}},
        "blocks": [["ssm", "moe"], {"text": "two\nlines\n", "end": None}],
        "stack": "absorb*8 reason*8",
    }
    lines = TEXT.splitlines()

    def cut(*path: str | int, key: bool = False) -> str:
        span = locate(node, path, key=key)
        first, last = span.start, span.end
        if first.line == last.line:
            return lines[first.line - 1][first.column - 1 : last.column - 1]
        middle = lines[first.line : last.line - 1]
        return "\n".join([lines[first.line - 1][first.column - 1 :], *middle, lines[last.line - 1][: last.column - 1]])

    assert cut("name") == "bit-axon"
    assert cut("name", key=True) == "name"
    assert cut("dims") == "{hidden_size: 2560, 'vocab_size': 32_000}"
    assert cut("dims", "vocab_size", key=True) == "'vocab_size'"
    assert cut("components", "ssm", "eps") == "1e-6"
    assert cut("blocks", 0) == "[ssm,\n     moe]"
    assert cut("blocks", 0, 1) == "moe"
    assert cut("blocks", 1, "text") == "|\n      two\n      lines"
    assert cut("components") == "ssm: {type: axon_ssm, eps: 1e-6}"
    assert cut("blocks", 1, "end") == ""
    assert locate(node, ("blocks", 1, "end")).start.column == 9
    assert cut("stack", "no", "such") == "absorb*8 reason*8"
    assert cut("blocks", 9) == cut("blocks")
    assert cut("dims", "none", key=True) == "dims"
    assert cut("blocks", 0, key=True) == "[ssm,\n     moe]"
    assert cut() == TEXT[len("# comment\n") :].rstrip()


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("rest", ["", "\n", "\n\n? b\n", "\n\nb: 1\n"])
def test_a_value_that_is_left_out_stands_after_its_key(rest: str) -> None:
    node = read("? key" + rest, "f", Problems())
    assert node is not None
    span = locate(node, ("key",))
    assert (span.start, span.end) == ((1, 6), (1, 6))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: &x {b: 1}\nc: *x", {"a": {"b": 1}, "c": {"b": 1}}),
        ("&k a: 1\nb: *k", {"a": 1, "b": "a"}),
        ("k: &k a\n*k : 1", {"k": "a", "a": 1}),
        ("- &x 1\n- &x 2\n- *x", [1, 2, 2]),
        ("&a [&a 1, *a]", [1, 1]),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}", {"a": {"b": 1, "c": 2}, "d": {"c": 3, "b": 1}}),
        ("<<: [{a: 1, b: 1}, {b: 2, c: 2}]\nc: 3", {"c": 3, "a": 1, "b": 1}),
        ('"<<": 1', {"<<": 1}),
        ("---\na: 1\n...\n", {"a": 1}),
        ("%YAML 1.2\n---\na: 1\n", {"a": 1}),
        ("\ufeffa: 1", {"a": 1}),
        (b"\xef\xbb\xbfa: 1", {"a": 1}),
        ("a: 1\r\nb: 2\rc: 3", {"a": 1, "b": 2, "c": 3}),
        ("on: {yes: no}", {"on": {"yes": "no"}}),
        ("n: =num_layers\nm: [=attn if (i + 1) % 4 == 0 else delta, moe]", None),
        ("{a: , b: 1}", {"a": None, "b": 1}),
        ("text", "text"),
        ("[]", []),
    ],
)
@pytest.mark.usefixtures("parser")
def test_valid(text: str | bytes, value: Any) -> None:
    if value is None:
        value = {"n": "=num_layers", "m": ["=attn if (i + 1) % 4 == 0 else delta", "moe"]}
    assert run(text) == (value, [])


@pytest.mark.parametrize(
    ("text", "value", "faults"),
    [
        ("a: 1\nb: {a: 1, a: 2}\na: 3\n", {"a": 1, "b": {"a": 1}}, ["2:11 AX007", "3:1 AX007"]),
        ("a: {x: 1}\na: {x: 1, x: 2}", {"a": {"x": 1}}, ["2:1 AX007", "2:11 AX007"]),
        ("1: x\ntrue: y\n~: z\n1.5: w\n? \n: v", {"1": "x", "true": "y", "~": "z", "1.5": "w", "": "v"}, 5),
        ("[a]: 1\nb: 2", {"b": 2}, ["1:1 AX012"]),
        ("a: {{ x }}", {"a": {}}, ["1:5 AX012"]),
        ("a: !!str 1\nb: !x {c: !<y> [1]}", {"a": 1, "b": {"c": [1]}}, ["1:4 AX011", "2:4 AX011", "2:11 AX011"]),
        ("a: *x\nb: [1, *x, 2]\nc: {<<: *x, d: 1}", {"a": None, "b": [1, 2], "c": {"d": 1}}, 3),
        ("*x", None, ["1:1 AX014"]),
        ("&a [1, *a, {b: *a}]", [1, {"b": None}], ["1:8 AX015", "1:16 AX015"]),
        ("a: 1\n<<: 2\nb: {<<: [1]}", {"a": 1, "b": {}}, ["2:5 AX016", "3:9 AX016"]),
        ("<<: {a: 1}\n<<: {b: 1}", {"a": 1, "b": 1}, []),
        ("a: 1e999\nb: " + "1" * 41, {"a": 1, "b": 1}, ["1:4 AX010", "2:4 AX010"]),
        ("a: 1\n--- \nb: 1", {"a": 1}, ["2:1 AX013"]),
        ("", None, ["1:1 AX006"]),
        ("# nothing\n\n", None, ["1:1 AX006"]),
        ("---\n", None, ["1:1 AX006"]),
        ("null", None, ["1:1 AX006"]),
        (b"caf\xe9: 1\n1: 2", {"caf\ufffd": 1, "1": 2}, ["1:4 AX003", "2:1 AX012"]),
        (b"\xef\xbb\xbf\n\xff", "\ufffd", ["2:1 AX003"]),
        ("a: 1".encode("utf-16"), None, ["1:1 AX003"]),
        ("a: x\x00y\nb: \ud800\nc: \u2028", {"a": "x\ufffdy", "b": "\ufffd", "c": "\ufffd"}, 3),
        ("\x01" * 9, "\ufffd" * 9, 6),
        ("a:\n\tb: 1", None, ["2:1 AX002"]),
        ("a: b: c", None, ["1:5 AX001"]),
        ("a: [1, 2", None, ["1:4 AX001"]),
        ("a: {b: 1\nc: 2", None, 1),
        ("a: 'x", None, ["1:4 AX001"]),
        ("a: 1\nb\nc: 2", None, ["2:1 AX001"]),
        ("a: @x", None, ["1:4 AX001"]),
        ("a: }", None, ["1:4 AX001"]),
        ('a: "\\U99999999"', None, 1),
        ("%TAG ! x\n---\na: 1", {"a": 1}, ["1:1 AX011"]),
        ("%TAG ! x\n%TAG !a! x\n---\na: 1", None, ["1:1 AX011"]),
        ("x: 1\na: 2\nx: 3\nb: [", None, ["3:1 AX007", "4:4 AX001"]),
    ],
)
@pytest.mark.usefixtures("parser")
def test_faults(text: str | bytes, value: Any, faults: list[str] | int) -> None:
    found, codes = run(text)
    assert found == value
    assert (len(codes) if isinstance(faults, int) else codes) == faults


@pytest.mark.usefixtures("parser")
def test_a_duplicate_names_both_places() -> None:
    problems = Problems()
    read("a: 1\nb: 2\na: 3\n", "f", problems)
    (fault,) = problems
    assert str(fault.span) == "f:3:1"
    assert [str(label.span) for label in fault.labels] == ["f:1:1"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: {n: =heads[i], b: 1}", "in quotes"),
        ("a: [=min(i, 3), ={'a': b}]", "in quotes"),
        ("a: {n: ${heads}}", "=hidden_size"),
        ("a: &base 1\nb: *bose", "`*base`"),
        ("a:\n\tb: 1", "spaces"),
        ("a:\n  b: 1\n c: 2", "indentation"),
    ],
)
@pytest.mark.usefixtures("parser")
def test_help(text: str, words: str) -> None:
    problems = Problems()
    read(text, "f", problems)
    (fault,) = problems
    assert words in (fault.help or "")


def test_a_merged_key_keeps_its_place() -> None:
    problems = Problems()
    node = read("a: &x {b: 1}\nc: {<<: *x}", "f", problems)
    assert node is not None
    assert str(locate(node, ("c", "b"), key=True)) == "f:1:8"


def test_files(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Not a regular file: '/dev/zero'"):
        read_file(Path("/dev/zero"), Problems())
    file = tmp_path / "a.yaml"
    file.write_bytes(b"a: 1")
    again = Problems()
    node = read_file(file, again, "a.yaml")
    assert node is not None
    assert (plain(node), list(again), again.sources) == ({"a": 1}, [], {"a.yaml": "a: 1"})
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "none", again)


def test_files_that_are_read_again(tmp_path: Path) -> None:
    """Their nodes are kept: what is reported, and under which name the text is kept, must be what it was."""
    file = tmp_path / "a.yaml"
    for text, name, codes in (
        ("a: 1", "a", []),
        ("a: 1", "a", []),
        ("a: 1", "b", []),
        ("a: 2\na: 3", "a", ["AX007"]),
        ("a: 2\na: 3", "a", ["AX007"]),
        ("a: 2", "a", []),
    ):
        file.write_text(text)
        problems = Problems()
        node = read_file(file, problems, name)
        assert isinstance(node, Mapping)
        assert (plain(node), node.span.file) == ({"a": int(text[3])}, name)
        assert [d.code for d in problems] == codes
        assert problems.sources == {name: text}
