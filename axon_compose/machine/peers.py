"""Connections between the processes of a run, beside MLX's own: each knows by them that its neighbours are alive."""

from __future__ import annotations

import hmac
import json
import os
import selectors
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

__all__ = ["close", "connect", "listen"]

#: Seconds within which a neighbour that listens has to be reached: it does before anybody knows its address.
_PATIENCE: Final = 15.0
#: Seconds for the answer of one that was reached: it comes, or the connection is closed.
_ANSWER: Final = 60.0
#: What a neighbour answers that has seen the token, so that a connection that it never took is not missed later.
_TAKEN: Final = b"+"
#: A machine without power or cable closes no connection. Its kernel is asked, so a process that is slow never counts:
#: after this many seconds of silence, then as often and as many times as follows.
_IDLE, _INTERVAL, _COUNT = 10, 3, 3


def own_address(rank: int, environment: Mapping[str, str] = os.environ) -> str | None:
    """An address by which the other processes reach this one, from what started it.

    Args:
        rank: Of this process.
        environment: Its variables: `MLX_HOSTFILE` of the ring; `MLX_JACCL_COORDINATOR`, `NCCL_HOST_IP` of the others.

    Returns:
        An IP address; None if nothing tells, as with MPI, which ends a run by itself.
    """
    if hosts := environment.get("MLX_HOSTFILE"):
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            return str(json.loads(Path(hosts).read_text())[rank][0]).rpartition(":")[0]
    first = environment.get("MLX_JACCL_COORDINATOR", "").rpartition(":")[0] or environment.get("NCCL_HOST_IP")
    if not first or rank == 0:
        return first or None
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((first, 9))  # nothing is sent: it only tells which of our addresses leads there
        return str(probe.getsockname()[0])
    return None


def listen(rank: int, environment: Mapping[str, str] = os.environ) -> tuple[socket.socket | None, str]:
    """Wait for the neighbour at `connect`, on a port that the system chooses.

    Returns:
        The listening socket, and its address as `host:port` for the others; None and an empty text where there is no
        address to listen on.
    """
    address = own_address(rank, environment)
    if address is None:
        return None, ""
    try:
        door = socket.create_server((address, 0), backlog=4)
    except OSError:
        return None, ""
    return door, f"{address}:{door.getsockname()[1]}"


def connect(rank: int, addresses: Sequence[str], door: socket.socket | None, token: bytes) -> dict[int, socket.socket]:
    """Put the processes in a line, each connected with the one before and the one after it.

    A line is enough: if one ends, both halves see it, and neighbours reach each other wherever MLX's ring does.

    Args:
        rank: Of this process.
        addresses: What `listen` gave on each rank.
        door: What it gave here; closed afterwards.
        token: Secret of this run, by which strangers who connect are told apart.

    Returns:
        Ranks to connections; a neighbour that cannot be reached is missing.
    """
    found = {}
    called = _call(addresses[rank + 1], token) if rank + 1 < len(addresses) else None
    if rank > 0 and door is not None and (link := _answer(door, token)):
        found[rank - 1] = link
    if door is not None:
        door.close()
    if called is not None and _is_taken(called):
        found[rank + 1] = called
    for link in found.values():
        _ask_the_kernel(link)
        link.setblocking(False)
    return found


def close(links: Mapping[int, socket.socket]) -> None:
    """End all connections."""
    for link in links.values():
        link.close()


def _call(address: str, token: bytes) -> socket.socket | None:
    host, _, port = address.rpartition(":")
    if not host:
        return None
    try:
        link = socket.create_connection((host, int(port)), timeout=_PATIENCE)
    except OSError:
        return None
    return link if _sent(link, token) else None


def _answer(door: socket.socket, token: bytes) -> socket.socket | None:
    """The first connection that begins with the token; no stranger is waited for, and all are closed."""
    end, begun = time.monotonic() + _PATIENCE, dict[Any, bytes]()
    found: socket.socket | None = None
    with selectors.DefaultSelector() as waiting, suppress(OSError):
        waiting.register(door, selectors.EVENT_READ)
        while found is None and (left := end - time.monotonic()) > 0:
            for key, _ in waiting.select(left):
                link: Any = key.fileobj
                if link is door:
                    new, _ = door.accept()
                    new.setblocking(False)
                    waiting.register(new, selectors.EVENT_READ)
                    begun[new] = b""
                elif not _goes_on(link, begun, token):
                    waiting.unregister(link)
                    if hmac.compare_digest(begun[link], token):
                        found = link
    for link in begun.keys() - {found}:
        link.close()
    return found if found is not None and _sent(found, _TAKEN) else None


def _goes_on(link: socket.socket, begun: dict[Any, bytes], token: bytes) -> bool:
    """Take what comes in; False at the end, or once it is as long as the token."""
    try:
        more = link.recv(len(token) - len(begun[link]))
    except OSError:
        return False
    begun[link] += more
    return bool(more) and len(begun[link]) < len(token)


def _is_taken(link: socket.socket) -> bool:
    """Whether the neighbour has seen the token; the connection is closed if not."""
    link.settimeout(_ANSWER)
    with suppress(OSError):
        if link.recv(len(_TAKEN)) == _TAKEN:
            return True
    link.close()
    return False


def _sent(link: socket.socket, data: bytes) -> bool:
    with suppress(OSError):
        link.sendall(data)
        return True
    link.close()
    return False


def _ask_the_kernel(link: socket.socket) -> None:
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    names = {"TCP_KEEPIDLE": _IDLE, "TCP_KEEPALIVE": _IDLE, "TCP_KEEPINTVL": _INTERVAL, "TCP_KEEPCNT": _COUNT}
    for name, value in names.items():  # the second name is that of macOS for the first
        if hasattr(socket, name):
            with suppress(OSError):
                link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
