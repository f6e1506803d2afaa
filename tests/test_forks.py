"""A fork is what a fresh interpreter would be, and ends with its caller."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import forks
from tests.children import PATIENCE, child

pytestmark = [
    pytest.mark.skipif(not forks.POSSIBLE, reason="here a command is a fresh interpreter"),
    pytest.mark.xdist_group("forks"),
]
#: All that a program can see of how it was started.
SEEN = """
import json, os, sys
streams = [(s.encoding, s.errors, s.line_buffering, s.write_through, s.fileno()) for s in (sys.stdout, sys.stderr)]
print(json.dumps([sys.argv, os.getcwd(), sys.path, streams, sorted(os.environ.items()), sys.stdin.read(), __name__]))
"""
ENDS = {
    "nothing": "",
    "0": "import sys; sys.exit()",
    "3": "import sys; sys.exit(3)",
    "text": "import sys; sys.exit('gone')",
    "at exit": "import atexit; atexit.register(print, 'last'); print('first')",
    "a signal": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
}


def run(begin: list[str], *arguments: str, **how: object) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, **forks.OFFLINE, **how.pop("variables", {})}  # type: ignore[dict-item]
    return subprocess.run([*begin, *arguments], env=variables, capture_output=True, text=True, timeout=PATIENCE, **how)  # type: ignore[call-overload, no-any-return]


def both(*arguments: str, **how: object) -> list[subprocess.CompletedProcess[str]]:
    return [run(begin, *arguments, **how) for begin in (forks.python(), [sys.executable])]


@pytest.mark.parametrize("kind", ["text", "module", "file"])
@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"PYTHONUNBUFFERED": "1"},
        {"PYTHONIOENCODING": "iso8859-1:replace"},
        {"PYTHONPATH": "/a:/b", "NEW": "ä\udcff"},
    ],
    ids=lambda variables: next(iter(variables), "as here"),
)
def test_it_sees_what_a_fresh_interpreter_sees(tmp_path: Path, kind: str, variables: dict[str, str]) -> None:
    (tmp_path / "seen.py").write_text(SEEN)
    arguments = {"text": ["-c", SEEN], "module": ["-m", "seen"], "file": [str(tmp_path / "seen.py")]}[kind]
    fork, fresh = both(*arguments, "one", "--two", cwd=tmp_path, input="typed", variables=variables)
    assert fork.stderr == fresh.stderr == ""
    found, expected = json.loads(fork.stdout), json.loads(fresh.stdout)
    set_by_imports = [pair for pair in found[4] if pair not in expected[4]]
    assert {name for name, _ in set_by_imports} <= {"TRANSFORMERS_NO_ADVISORY_WARNINGS"}
    found[4] = [pair for pair in found[4] if pair not in set_by_imports]
    assert found == expected


@pytest.mark.parametrize("code", ENDS.values(), ids=ENDS)
def test_it_ends_as_a_fresh_interpreter_does(code: str) -> None:
    fork, fresh = both("-c", code)
    assert (fork.returncode, fork.stdout, fork.stderr) == (fresh.returncode, fresh.stdout, fresh.stderr)


def test_it_has_imported_and_draws_other_numbers() -> None:
    code = "import random, sys; assert 'mlx_lm.generate' in sys.modules; import mlx.core as mx"
    code += "; print(mx.random.uniform().item(), random.random())"
    drawn = [run(forks.python(), "-c", code).stdout.split() for _ in range(2)]
    assert len({*drawn[0], *drawn[1]}) == 4


def test_an_exception_is_reported() -> None:
    done = run(forks.python(), "-c", "1 / 0")
    assert done.returncode == 1
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_with_other_variables_for_libraries_it_is_fresh() -> None:
    code = "import sys; print('mlx_lm' in sys.modules, sys.argv)"
    assert run(forks.python(), "-c", code, "a").stdout == "True ['-c', 'a']\n"
    assert run(forks.python(), "-c", code, "a", variables={"HF_HUB_OFFLINE": "0"}).stdout == "False ['-c', 'a']\n"


def test_a_shell_finds_the_programs() -> None:
    path = os.pathsep.join([str(forks.programs()), os.environ["PATH"]])
    done = run(["sh", "-c"], "axon-compose --help | head -1; axon-compose nonsense", variables={"PATH": path})
    assert done.stdout.startswith("usage: axon-compose")
    assert done.returncode == 2
    done = run(["sh", "-c"], """python -c "import sys; print('mlx_lm' in sys.modules)" """, variables={"PATH": path})
    assert done.stdout == "True\n"


#: Says who forked it, and waits.
WAITS = "import os, time; print(os.getppid(), flush=True); time.sleep(600)"
#: A process of tests, with a server of its own, in the middle of a command.
TESTS = f"""
import subprocess
from tests import forks
print(subprocess.run([*forks.python(), "-c", {WAITS!r}]).returncode, flush=True)
subprocess.run([*forks.python(), "-c", "import sys; print('mlx_lm' in sys.modules)"])
"""


@contextmanager
def waiting(*command: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Something that starts `WAITS`, and who forked that."""
    variables = {**os.environ, **forks.OFFLINE}
    with child(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=variables) as process:
        yield process, int(process.stdout.readline())


def test_what_it_opens_stays_open_while_another_runs() -> None:
    """Nothing that the server had open for the other is closed in its place."""
    code = "import gc, os; opened = [os.dup(1) for _ in range(20)]; gc.collect(); print(len([*map(os.fstat, opened)]))"
    with waiting(*forks.python(), "-c", WAITS):
        assert run(forks.python(), "-c", code).stdout == "20\n"


@pytest.mark.parametrize("begin", ["a command", "tests"])
def test_it_ends_with_what_started_it_however_that_ends(begin: str) -> None:
    command = [*forks.python(), "-c", WAITS] if begin == "a command" else [sys.executable, "-c", TESTS]
    with waiting(*command) as (process, _):
        process.kill()
        process.communicate(timeout=PATIENCE)  # to the end of pipes that the fork holds, too


def test_when_its_server_is_killed_a_command_fails_and_the_next_is_fresh() -> None:
    with waiting(sys.executable, "-c", TESTS) as (process, server):
        os.kill(server, signal.SIGKILL)
        out, err = process.communicate(timeout=PATIENCE)
    assert out.split() == ["1", "False"]
    assert err == "the server of forks is gone, and the command with it\n"


def test_in_a_folder_for_temporary_files_of_any_name(tmp_path: Path) -> None:
    """Sockets have short addresses, and shells split at spaces."""
    place = tmp_path / ("it's a long name" * 8)
    place.mkdir()
    code = "import subprocess; from tests import forks; subprocess.run([forks.programs() / 'axon-compose', 'help'])"
    done = run([sys.executable], "-c", code, variables={"TMPDIR": str(place)})
    assert done.stdout.startswith("usage: axon-compose"), done.stderr
    assert list(place.iterdir()) == []


def test_a_caller_that_says_nothing_or_half_costs_nobody_else_anything() -> None:
    address = forks.python()[-1]
    for half in (b"", b"1234", (1 << 20).to_bytes(8, "big") + b"{"):
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(address)
            caller.sendall(half)
    assert run(forks.python(), "-c", "import sys; print('mlx_lm' in sys.modules)").stdout == "True\n"
