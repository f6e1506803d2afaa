"""A process of a run of several sees that another has ended, says which, and ends: at once, whatever it waits for.

MLX raises an error in the process that next needs the one that is gone, if it needs one. `mlx.launch` ends the others
if one has failed, but not if it ended with code 0, and not if it is ended itself; a server goes on without its model.
So each process has a thread that sleeps until a connection to a neighbour is closed (`machine.peers`). Nothing is
timed: a process that is slow, or was stopped, keeps its connections.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import socket
import stat
import sys
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final

from axon_compose.machine import peers

__all__ = ["Watch", "end"]

#: The exit code of a process that ends because of another.
_FAILED: Final = 1
#: Milliseconds after which the thread looks whether its owner is alive.
_LOOK: Final = 500
#: Seconds for the one that tells to do so, before the others end, and for the others to be ready to leave too.
_TELLING: Final = 2.0
_LENGTH: Final = 2000


def end(text: str = "") -> None:
    """End this process now, from any thread and whatever else it does, after a message to standard error.

    An exception would not do: it ends a thread, and `mlx_lm.server` goes on without the one that has the model.
    """

    def write() -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"{text}\n" if text else "")
            sys.stderr.flush()

    writer = threading.Thread(target=write, daemon=True)  # who reads the other end may be gone without closing it
    writer.start()
    writer.join(_TELLING)
    os._exit(_FAILED)


class Watch:
    """Looks after the connections of one process until it ends.

    Args:
        rank: Of this process.
        links: Connections to its neighbours, by rank.
        explain: The message for people, made of the rank that ended and the reason, if that is known.
        owner: The thread without which this process is of no use, if it is not the main one.
    """

    def __init__(
        self,
        rank: int,
        links: Mapping[int, socket.socket],
        explain: Callable[[int, str], str],
        owner: threading.Thread | None = None,
    ) -> None:
        self.rank, self.owner = rank, owner
        self._links, self._explain = dict(links), explain
        self._received = dict.fromkeys(links, b"")
        self._left: set[int] = set()
        self._all_left = threading.Event()
        self._lock = threading.Lock()
        self._starter, self._parent = _standard_input(), os.getppid()
        self._thread = threading.Thread(target=self._look, name="axon-compose watch", daemon=True)

    def start(self) -> None:
        """Begin; at its end the process takes leave of the others."""
        atexit.register(self._leave)
        os.register_at_fork(after_in_child=lambda: peers.close(self._links))
        self._before, sys.excepthook = sys.excepthook, self._of_process
        self._thread.start()

    def rest(self) -> None:
        """Say nothing any more: all processes end, and know why."""
        self._lock.acquire()

    def wait(self) -> None:
        """Give it time to learn who is gone, after an error that comes from that; it tells, and ends this process."""
        self._thread.join(_TELLING)

    def failed(self, reason: str) -> None:
        """Let the others end: this process does, for a reason that it tells by itself."""
        self._send({"rank": self.rank, "reason": reason[:_LENGTH]})

    def _leave(self) -> None:
        if self.owner is not None:
            return  # it should not have ended, and the others see that it has
        self._send({"leaves": True})
        if self._links:  # a token that was computed ahead is read by nobody, but others may wait for what precedes it
            self._all_left.wait(_TELLING)

    def _of_process(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """What an exception that nobody catches means for the others."""
        if issubclass(kind, RuntimeError) and "[ring]" in str(error):
            if not self._left:
                self.wait()
            if self._left:
                self._ends(min(self._left), "it had nothing more to do, but others needed it", None)
        if issubclass(kind, Exception):
            self.failed(f"{kind.__name__}: {error}")
        self._before(kind, error, trace)

    def _look(self) -> None:
        poll, ranks = select.poll(), {link.fileno(): rank for rank, link in self._links.items()}
        for descriptor in ranks:
            poll.register(descriptor, select.POLLIN)
        if self._starter is not None:
            poll.register(self._starter, 0)  # tells of its end alone
        alone, released = 0, False
        while True:
            for descriptor, _ in poll.poll(_LOOK if self.owner or released else None):
                if descriptor == self._starter:
                    poll.unregister(descriptor)
                    released = True
                elif not self._read(ranks[descriptor]):
                    poll.unregister(descriptor)
            if released and os.getppid() != self._parent:
                end()
            alone = alone + 1 if self.owner and not self.owner.is_alive() else 0
            if alone > 1:  # a process that ends regularly is gone by now
                self._ends(self.rank, "the thread that ran the model has ended", None)

    def _read(self, rank: int) -> bool:
        """Take what a neighbour says; False if nothing more will come."""
        try:
            data = self._links[rank].recv(4096)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        self._received[rank] += data
        *lines, self._received[rank] = self._received[rank].split(b"\n")
        for line in lines:
            said = _parsed(line)
            if said.get("leaves"):
                self._left.add(rank)
                if self._left == self._links.keys():
                    self._all_left.set()
            elif isinstance(said.get("rank"), int):
                self._ends(said["rank"], str(said.get("reason", "")), rank)
        if not data and rank not in self._left:
            self._ends(rank, "", rank)
        return bool(data)

    def _ends(self, rank: int, reason: str, by: int | None) -> None:
        """One process has ended: tell the neighbours but the one from whom we know it, and end."""
        self._lock.acquire()  # for good: once is enough
        if not threading.main_thread().is_alive():
            end()  # this one was about to, as after a Ctrl-C
        self._send({"rank": rank, "reason": reason[:_LENGTH]}, but=by)
        if self.rank == (1 if rank == 0 else 0):
            end(self._explain(rank, reason))
        before = self._links.get(self.rank - 1)
        if before is not None and self.rank - 1 != rank:
            _wait_for_its_end(before)
        end()

    def _send(self, message: Mapping[str, Any], but: int | None = None) -> None:
        line = json.dumps(message).encode() + b"\n"
        for rank, link in self._links.items():
            if rank != but:
                with contextlib.suppress(OSError):
                    link.send(line)


def _wait_for_its_end(link: socket.socket) -> None:
    """Let the ranks before this one speak first: whoever started the run ends all at the first that ends."""
    link.settimeout(_TELLING)
    with contextlib.suppress(OSError):
        while link.recv(4096):
            pass


def _parsed(line: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(line)
        if isinstance(found, dict):
            return found
    return {}


def _standard_input() -> int | None:
    """The descriptor of standard input if it is a pipe that somebody holds, as `mlx.launch` does while it lives."""
    with contextlib.suppress(OSError):
        poll = select.poll()
        poll.register(0, 0)
        if stat.S_ISFIFO(os.fstat(0).st_mode) and not poll.poll(0):
            return 0
    return None
