"""Processes that look after each other end together, and only then: a slow one is waited for."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from axon_compose.machine import peers
from tests.children import PATIENCE, child
from tests.ranks import Process, ended, ring

#: A rank tells its address, hears all, and then does what it is told, line by line.
RANK = """
import os, signal, sys, threading
from axon_compose.machine import peers, watch
rank = int(os.environ["MLX_RANK"])
door, address = peers.listen(rank)
print(address, flush=True)
links = peers.connect(rank, sys.stdin.readline().split(), door, b"secret")
watch.Watch(rank, links, lambda rank, reason: f"rank {rank} has ended, {reason or 'no reason'}").start()
print("watching", flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""
WAIT = "signal.pause()"


@contextmanager
def watching(folder: Path, count: int) -> Iterator[list[Process]]:
    with ring(folder, [["-c", RANK]] * count) as processes:
        addresses = [process.stdout.readline().strip() for process in processes]
        for process in processes:
            process.stdin.write(" ".join(addresses) + "\n")
            process.stdin.flush()
        assert [process.stdout.readline() for process in processes] == ["watching\n"] * count
        yield processes


def do(process: Process, line: str) -> None:
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


@pytest.mark.parametrize(("dead", "teller"), [(0, 1), (1, 0), (3, 0)])
def test_all_end_with_one_that_is_killed_and_the_lowest_tells(tmp_path: Path, dead: int, teller: int) -> None:
    with watching(tmp_path, 4) as processes:
        for rank, process in enumerate(processes):
            do(process, "os.kill(os.getpid(), signal.SIGKILL)" if rank == dead else WAIT)
        said = ended(processes)
    assert [code for code, _, _ in said] == [-signal.SIGKILL if rank == dead else 1 for rank in range(4)]
    assert [err for _, _, err in said] == [
        f"rank {dead} has ended, no reason\n" if r == teller else "" for r in range(4)
    ]


def test_the_reason_is_told(tmp_path: Path) -> None:
    with watching(tmp_path, 3) as processes:
        do(processes[2], "raise ValueError('boom')")
        for process in processes[:2]:
            do(process, WAIT)
        (_, _, first), (_, _, second), (code, _, third) = ended(processes)
    assert first == "rank 2 has ended, ValueError: boom\n"
    assert second == ""
    assert code == 1
    assert third.endswith("ValueError: boom\n")


def test_one_that_ends_as_it_should_is_not_missed(tmp_path: Path) -> None:
    with watching(tmp_path, 3) as processes:
        processes[1].stdin.close()
        assert processes[1].wait(PATIENCE) == 0
        for process in (processes[0], processes[2]):
            do(process, "pass")
            assert process.stdout.readline() == "done\n"
            process.stdin.close()
        assert [process.wait(PATIENCE) for process in processes] == [0, 0, 0]
        assert [process.stderr.read() for process in processes] == ["", "", ""]


def test_one_that_leaves_stays_until_the_others_leave(tmp_path: Path) -> None:
    """What it has computed ahead may come after what they still wait for."""
    notes = "send = watch.Watch._send; watch.Watch._send = lambda *said: (send(*said), print('leaves', flush=True))"
    with watching(tmp_path, 2) as processes:
        do(processes[0], f"watch._TELLING = {PATIENCE}; {notes}")
        assert processes[0].stdout.readline() == "done\n"
        processes[0].stdin.close()
        assert processes[0].stdout.readline() == "leaves\n"
        with pytest.raises(subprocess.TimeoutExpired):
            processes[0].wait(0.5)
        processes[1].stdin.close()
        assert [process.wait(PATIENCE / 2) for process in processes] == [0, 0]


def test_a_process_that_is_stopped_is_waited_for(tmp_path: Path) -> None:
    with watching(tmp_path, 2) as processes:
        do(processes[1], "print(os.getpid(), flush=True)")
        pid, done = int(processes[1].stdout.readline()), processes[1].stdout.readline()
        os.kill(pid, signal.SIGSTOP)
        do(processes[0], "import time; time.sleep(1)")
        assert [done, processes[0].stdout.readline()] == ["done\n", "done\n"]
        os.kill(pid, signal.SIGCONT)
        do(processes[1], "pass")
        assert processes[1].stdout.readline() == "done\n"


def test_a_thread_that_has_the_model_is_missed(tmp_path: Path) -> None:
    gone = "t = threading.Thread(target=print); t.start(); t.join(); watch.Watch(rank, links, str, t).start()"
    with watching(tmp_path, 2) as processes:
        do(processes[1], f"{gone}; {WAIT}")
        do(processes[0], WAIT)
        (code, _, told), (other, _, _) = ended(processes)
    assert (code, other) == (1, 1)
    assert told == "rank 1 has ended, the thread that ran the model has ended\n"


@pytest.mark.skipif(sys.platform != "linux", reason="the process is found by its parent")
def test_a_process_ends_with_what_started_it() -> None:
    """As `mlx.launch` does: it holds the other end of standard input, and a SIGTERM leaves its processes alone."""
    started = (
        f"from axon_compose.machine.watch import Watch; import signal; Watch(0, {{}}, str).start(); print(1); {WAIT}"
    )
    starter = f"""
import subprocess, sys
process = subprocess.Popen([sys.executable, "-uc", {started!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
process.stdout.readline()
print(process.pid, flush=True)
process.wait()
"""
    with child([sys.executable, "-c", starter], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        pidfd = os.pidfd_open(int(process.stdout.readline()))
        process.terminate()
        assert select.select([pidfd], [], [], PATIENCE)[0]  # readable once it has ended
        os.close(pidfd)


def test_strangers_are_not_taken_for_a_neighbour(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts.json"
    hosts.write_text('[["127.0.0.1:1"], ["127.0.0.1:2"]]')
    door, address = peers.listen(1, {"MLX_HOSTFILE": str(hosts)})
    host, _, port = address.rpartition(":")
    with ExitStack() as strangers:
        for said in (b"", b"other", b"rig"):  # two of them wait, and are not waited for
            strangers.enter_context(socket.create_connection((host, int(port)))).sendall(said)
        with socket.create_connection((host, int(port))) as neighbour:
            neighbour.sendall(b"right")
            links = peers.connect(1, ["", address], door, b"right")
            assert links[0].getpeername() == neighbour.getsockname()
            assert neighbour.recv(2) == b"+"
    peers.close(links)


def test_a_neighbour_that_was_never_taken_is_not_missed_later() -> None:
    """Its connection would be closed at once, which would look as if it had ended."""
    with socket.create_server(("127.0.0.1", 0)) as door:

        def turn_away() -> None:
            link, _ = door.accept()
            link.close()

        thread = threading.Thread(target=turn_away)
        thread.start()
        address = f"127.0.0.1:{door.getsockname()[1]}"
        assert peers.connect(0, ["", address], None, b"right") == {}
        thread.join()


@pytest.mark.parametrize(
    ("variables", "address"),
    [({}, None), ({"MLX_JACCL_COORDINATOR": "127.0.0.1:9"}, "127.0.0.1"), ({"NCCL_HOST_IP": "127.0.0.1"}, "127.0.0.1")],
)
@pytest.mark.parametrize("rank", [0, 1])
def test_addresses_of_other_backends(rank: int, variables: dict[str, str], address: str | None) -> None:
    assert peers.own_address(rank, variables) == address
