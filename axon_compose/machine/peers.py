"""Connections between the processes of a run, beside MLX's own: each knows by them that its neighbours are alive."""

from __future__ import annotations

import hmac
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["PATIENCE", "close", "connect", "listen"]

#: Seconds within which a neighbour that listens has to be reached: it does before anybody knows its address.
PATIENCE: Final = 5.0
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
    if rank + 1 < len(addresses) and (link := _call(addresses[rank + 1], token)):
        found[rank + 1] = link
    if rank > 0 and door is not None and (link := _answer(door, token)):
        found[rank - 1] = link
    if door is not None:
        door.close()
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
        link = socket.create_connection((host, int(port)), timeout=PATIENCE)
        link.sendall(token)
    except OSError:
        return None
    return link


def _answer(door: socket.socket, token: bytes) -> socket.socket | None:
    """The first connection that begins with the token."""
    end = time.monotonic() + PATIENCE
    while (left := end - time.monotonic()) > 0:
        door.settimeout(left)
        try:
            link, _ = door.accept()
        except OSError:
            return None
        if hmac.compare_digest(_begins_with(link, len(token), left), token):
            return link
        link.close()
    return None


def _begins_with(link: socket.socket, count: int, seconds: float) -> bytes:
    """The first bytes that come in, as many as are asked for, or fewer if they do not come."""
    found = b""
    link.settimeout(seconds)
    with suppress(OSError):
        while len(found) < count and (more := link.recv(count - len(found))):
            found += more
    return found


def _ask_the_kernel(link: socket.socket) -> None:
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    names = {"TCP_KEEPIDLE": _IDLE, "TCP_KEEPALIVE": _IDLE, "TCP_KEEPINTVL": _INTERVAL, "TCP_KEEPCNT": _COUNT}
    for name, value in names.items():  # the second name is that of macOS for the first
        if hasattr(socket, name):
            with suppress(OSError):
                link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
