"""Results that cannot be written are not passed over, and no stream leads to a traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from axon_compose import __version__
from tests.children import PATIENCE, child

AXON = [sys.executable, "-m", "axon_compose"]
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


def run(*command: str, shell: str = "") -> tuple[int, str, str]:
    """Exit code and what arrived at the streams; `shell` is a redirection."""
    begin = ["sh", "-c", f'exec "$@" {shell}', "sh", *AXON, *command]
    with child(begin, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


@needs_full
@pytest.mark.parametrize(
    "command",
    [
        ["validate", "hybrid-demo", "--json"],
        ["show", "hybrid-demo"],  # longer than a buffer
        ["schema"],
        ["plugins", "--json"],
        ["build", "nothing", "--json"],  # what is refused is a result, too
        ["--help"],
        ["--version"],
    ],
    ids=" ".join,
)
def test_a_full_device(command: list[str]) -> None:
    code, _, err = run(*command, shell=">/dev/full")
    assert (code, err) == (2, "error: cannot write to standard output: no space left on device\n")


@needs_full
def test_messages_that_cannot_be_written() -> None:
    """The exit code says what it would have said."""
    assert run("validate", "hybrid-demo", shell="2>/dev/full") == (0, "hybrid-demo: ok\n", "")
    assert run("show", "nothing", shell="2>/dev/full") == (2, "", "")
    assert run("no-command", shell="2>/dev/full") == (2, "", "")
    assert run("show", "nothing", shell=">/dev/full")[0] == 2


@pytest.mark.parametrize(
    ("redirection", "expected"), [("</dev/null >&0", 2), ("<&-", 1), (">&-", 0), ("<&- >&- 2>&-", 1)]
)
def test_closed_and_wrong_streams(redirection: str, expected: int) -> None:
    """Nothing to read is an empty file; a standard output that is open for reading only is a fault."""
    command = ["validate", "-" if "<&-" in redirection else "hybrid-demo", "--json"]
    code, _, err = run(*command, shell=redirection)
    assert code == expected
    assert "Traceback" not in err
    assert ("cannot write to standard output: bad file descriptor" in err) == (expected == 2)


#: Sends SIGINT to itself when a module is about to be imported, as the user does who thinks better of it.
INTERRUPTED = """
import os, signal, sys
name = sys.argv.pop(1)
class Finder:
    @staticmethod
    def find_spec(module, path=None, target=None):
        if module == name:
            sys.meta_path.remove(Finder)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
from axon_compose.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    "module",
    [
        "axon_compose.cli",
        "argparse",
        "yaml",
        "pydantic",
        "pydantic_core",
        "axon_core",
        "mlx.core",
        "axon_compose.model",
    ],
)
def test_ctrl_c_among_the_imports(module: str) -> None:
    begin = [sys.executable, "-c", INTERRUPTED, module, "build", "hybrid-demo"]
    with child(begin, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (130, "", "")


def test_ctrl_c_is_ignored_where_the_program_was_started_so() -> None:
    begin = [sys.executable, "-c", INTERRUPTED, "yaml", "validate", "hybrid-demo"]
    with child(begin, ignored=[signal.SIGINT], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (0, "hybrid-demo: ok\n", "")


def test_the_module_is_the_command() -> None:
    assert run("--version") == (0, f"axon-compose {__version__}\n", "")
