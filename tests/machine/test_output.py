"""Standard output for results alone, in processes whose streams are files, pipes, unbuffered or closed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from axon_compose.machine.output import results_alone
from tests.children import PATIENCE, child

#: Prints a result, and in between whatever else may be printed; the last text is still in a buffer at the end.
CODE = """
import os, sys
from axon_compose.machine.output import results_alone
with results_alone(to_the_end={to_the_end}):
    print("result 1")
    os.write(1, b"noise 1\\n")
    sys.stdout.flush()
    sys.__stdout__.write("noise 2\\n")
    print("result 2")
print("result 3")
"""


def run(code: str, *flags: str, **pipes: Any) -> tuple[int, str | None, str | None]:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | pipes
    with child([sys.executable, *flags, "-c", code], env=env, **streams) as process:
        out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


@pytest.mark.parametrize("flags", [(), ("-u",)], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("to_the_end", [True, False])
def test_a_pipe(to_the_end: bool, flags: tuple[str, ...]) -> None:
    code, out, err = run(CODE.format(to_the_end=to_the_end), *flags)
    assert (code, out) == (0, "result 1\nresult 2\nresult 3\n")
    assert sorted(str(err).splitlines()) == ["noise 1", "noise 2"]


def test_the_order_of_an_unbuffered_stream() -> None:
    """Both streams in one file: what is written first comes first, as without us."""
    code = CODE.format(to_the_end=True).replace('print("result 2")', 'sys.stderr.write("note\\n"); print("result 2")')
    assert run(code, "-u", stderr=subprocess.STDOUT)[1] == "result 1\nnoise 1\nnoise 2\nnote\nresult 2\nresult 3\n"


def test_a_file(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as out:
        assert run(CODE.format(to_the_end=True), stdout=out)[0] == 0
    assert (tmp_path / "out").read_text() == "result 1\nresult 2\nresult 3\n"


@pytest.mark.parametrize("closed", [1, 2])
def test_a_closed_stream(closed: int) -> None:
    """Where there is no standard error, noise goes nowhere; without standard output there is nothing to keep apart."""
    code = f"import os; os.close({closed})\n" + CODE.format(to_the_end=True)
    _, out, _ = run(code)
    assert out == ("result 1\nresult 2\nresult 3\n" if closed == 2 else "")


ASKED = """
import os
from axon_compose.machine.output import results_alone
with results_alone():
    os.write(2, str(os.get_terminal_size(1).columns).encode())
"""


def test_a_terminal_is_left_alone() -> None:
    """It shows both, and its width is found through descriptor 1."""
    main, other = os.openpty()
    try:
        code, _, err = run(ASKED, stdout=other)
        assert (code, str(err).isdigit()) == (0, True)
    finally:
        os.close(main)
        os.close(other)


def test_what_is_no_descriptor_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with results_alone():
        assert sys.stdout is stream


def test_it_ends_with_its_block() -> None:
    code, out, _ = run(CODE.format(to_the_end=False) + "os.write(1, b'after\\n')", "-u")
    assert (code, out) == (0, "result 1\nresult 2\nresult 3\nafter\n")
