"""Tables: as wide as their cells, or as the terminal."""

from __future__ import annotations

import os
import pty
import re
import struct
import sys
import termios
from fcntl import ioctl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axon_compose.report import Style, table
from tests.children import PATIENCE, child

ROWS = [["name", "size", "weights", "what"], ["a", "1", "10 B", "a text of several words"], ["long", "22", "3 B", "-"]]


def test_a_table_is_as_wide_as_its_cells() -> None:
    expected = [
        "  name  size  weights  what",
        "  a        1     10 B  a text of several words",
        "  long    22      3 B  -",
    ]
    assert table(ROWS, "<>><") == table(ROWS, "<>><", style=Style(columns=46)) == expected


def test_a_last_text_is_broken_into_lines() -> None:
    found = table([["a", "b"], ["x", "one two three four five six seven eight nine"]], "<<", style=Style(columns=32))
    assert found == ["  a  b", "  x  one two three four five six\n     seven eight nine"]


def test_figures_are_divided_into_tables_below_each_other() -> None:
    rows = [["name", *(f"c{n}" for n in range(6))], ["first", *"123456"], ["second", *"654321"]]
    assert table(rows, "<>>>>>>", style=Style(columns=22)) == [
        "  name    c0  c1  c2",
        "  first    1   2   3",
        "  second   6   5   4",
        "",
        "  name    c3  c4  c5",
        "  first    4   5   6",
        "  second   3   2   1",
    ]
    divided = table(rows, "<<>>>>>", style=Style(columns=22), keys=2)
    assert [line.split()[:2] for line in divided if line] == [["name", "c0"], ["first", "1"], ["second", "6"]] * 3


@given(
    st.lists(st.lists(st.text("abc ", min_size=1, max_size=9).map(str.strip), min_size=5, max_size=5), min_size=1),
    st.integers(10, 80),
    st.integers(1, 3),
)
def test_nothing_is_lost_and_nothing_is_too_wide(rows: list[list[str]], columns: int, keys: int) -> None:
    found = table(rows, "<>>>>", style=Style(columns=columns), keys=keys)
    widths = [max(len(row[at]) for row in rows) for at in range(5)]
    least = 2 + sum(widths[:keys]) + 2 * keys + max(widths[keys:])
    assert max(map(len, found)) <= max(columns, least)
    words = sorted(re.findall("[abc]+", " ".join(found)))
    wanted = sorted(word for row in rows for cell in row for word in re.findall("[abc]+", cell))
    assert set(words) == set(wanted)
    assert len(words) >= len(wanted)


def in_a_terminal(columns: int, *arguments: str) -> list[str]:
    """What a command prints in a terminal of so many columns."""
    master, slave = pty.openpty()
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    code = "import sys; from axon_compose.cli import main; sys.exit(main())"
    clean = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "FORCE_COLOR")}
    environment = {**clean, "NO_COLOR": "1"}
    with child([sys.executable, "-c", code, *arguments], stdout=slave, stderr=slave, env=environment) as process:
        os.close(slave)
        text = b""
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:  # Linux says so that nobody has the other end
                break
            if not piece:
                break
            text += piece
        assert process.wait(timeout=PATIENCE) in (0, 1), text.decode()  # 1: `diff` found a difference
    os.close(master)
    return text.decode().replace("\r\n", "\n").splitlines()


@pytest.mark.parametrize(
    "command",
    [
        ["cost", "bit-axon", "--layers", "--memory", "16GB", "--bandwidth", "100"],
        ["compare", "bit-axon", "llama", "--memory", "16GB", "--bandwidth", "100"],
        ["show", "nemotron_h", "--table"],
        ["show", "bit-axon"],
        ["diff", "llama", "gemma2"],
        ["plugins"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_commands_fit_the_terminal(command: list[str]) -> None:
    lines = in_a_terminal(80, *command)
    tables = [line for line in lines if re.search(r"\S   ?\S", line)]
    assert tables
    assert max(map(len, tables)) <= 80


def test_a_file_gets_whole_rows(tmp_path: Path) -> None:
    """Where standard output is no terminal, a row is a line, whatever its length."""
    code = "import sys; from axon_compose.cli import main; sys.exit(main())"
    with (
        (tmp_path / "out").open("w") as stream,
        child([sys.executable, "-c", code, "plugins"], stdout=stream) as process,
    ):
        assert process.wait(timeout=PATIENCE) == 0
    rows = [line for line in (tmp_path / "out").read_text().splitlines() if line.startswith("core ")]
    assert len(rows) == 1
    assert "axon_ssm_moe_block" in rows[0]
