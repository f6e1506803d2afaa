"""Processes of tests that run one model together, connected by MLX's ring over the loopback.

Their ports are held by a socket that does not listen: MLX may bind them too (it asks for SO_REUSEPORT), and nobody else
gets them from the system meanwhile.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from tests import forks, processors
from tests.children import PATIENCE, child

Process = subprocess.Popen[Any]


@contextmanager
def ports(count: int) -> Iterator[int]:
    """The first of as many free ports in a row."""
    with ExitStack() as held:
        while (first := _held(count, held)) is None:
            pass
        yield first


def _held(count: int, held: ExitStack) -> int | None:
    """Bind ports until the test ends; None if one of those after the first is not free."""
    with suppress(OSError, OverflowError), ExitStack() as tried:
        first: int = tried.enter_context(_bound(0)).getsockname()[1]
        for port in range(first + 1, first + count):
            tried.enter_context(_bound(port))
        held.enter_context(tried.pop_all())
        return first
    return None


def _bound(port: int) -> socket.socket:
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        found.bind(("127.0.0.1", port))
    except OSError:
        found.close()
        raise
    return found


@contextmanager
def launched(count: int, arguments: Sequence[str], **options: Any) -> Iterator[Process]:
    """`mlx.launch -n COUNT -- python ARGUMENT…`, which ends with the test and all that it started."""
    program = str(Path(sys.executable).with_name("mlx.launch"))
    with ports(count) as first:
        command = [program, "-n", str(count), "-p", str(first), "--", *forks.python(), *arguments]
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with ExitStack() as stack:
            with processors.shared():
                process = stack.enter_context(child(command, **{**streams, **options}))
            yield process


@contextmanager
def ring(folder: Path, commands: Sequence[Sequence[str]], **variables: str) -> Iterator[list[Process]]:
    """Run `python ARGUMENT…` for each rank, with nobody who would end the others when one has ended.

    `mlx.launch` waits for its processes in busy loops, which take most of a processor; here nobody does.

    Args:
        folder: Where the file with their addresses is written.
        commands: Arguments of each rank.
        variables: Of the environment, besides those of the test.
    """
    with ports(len(commands)) as first, ExitStack() as stack:
        hosts = folder / f"hosts-{first}.json"
        hosts.write_text(json.dumps([[f"127.0.0.1:{first + rank}"] for rank in range(len(commands))]))
        with processors.shared():
            processes = [stack.enter_context(one(hosts, rank, each, **variables)) for rank, each in enumerate(commands)]
        yield processes


def one(hosts: Path, rank: int, arguments: Sequence[str], **variables: str) -> AbstractContextManager[Process]:
    """Run `python ARGUMENT…` as one rank.

    Args:
        hosts: The file with the addresses of all ranks.
        rank: Its number.
        arguments: Those of Python.
        variables: Of the environment, besides those of the test.
    """
    environment = {**os.environ, **variables, "MLX_HOSTFILE": str(hosts), "MLX_RANK": str(rank)}
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return child([*forks.python(), *arguments], env=environment, **streams)


def ended(processes: Sequence[Process], patience: float = PATIENCE) -> list[tuple[int, str, str]]:
    """Exit code, standard output and standard error of each, once all have ended by themselves."""
    said = [process.communicate(timeout=patience) for process in processes]
    return [(process.returncode, *text) for process, text in zip(processes, said, strict=True)]
