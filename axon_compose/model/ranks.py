"""Processes that run one model together agree on what they run before they begin, and end together if one cannot.

Arrays of other shapes or types would not be refused: MLX's ring sums whatever bytes come in. So every process tells the
others what it has (`facts`), all compare the same list, and if an entry differs all of them end with one message, from
the lowest rank. The same happens to a fault that only some of them meet. From then on each has a watch on the others
(`axon_compose.machine.watch`).
"""

from __future__ import annotations

import atexit
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from secrets import token_hex
from types import FrameType
from typing import Any, Final

import mlx.core as mx

from axon_compose.diagnostics import ArchitectureError, CheckpointError, Refusal
from axon_compose.machine import peers
from axon_compose.machine.watch import Watch, end
from axon_compose.model._facts import facts, loading_from
from axon_compose.model._turns import others_done

__all__ = ["connected", "differing", "ending_a_server", "facts", "joined", "loading_from", "messages"]

#: What holds the model in one thread for as long as it lives, and goes on without it.
_SERVER: Final = "mlx_lm.server"
#: Messages are padded to a multiple of this size, so that processes of two runs mostly wait for equally many bytes.
_BLOCK: Final = 4096
#: What goes ahead of each message, with its length: other bytes are no message.
_MARK: Final = b"axoncomp"
_watch: Watch | None = None


def connected() -> mx.distributed.Group:
    """The processes that were launched together, which are connected at the first call.

    Raises:
        CheckpointError: AX973, MLX cannot connect them.
    """
    try:
        return mx.distributed.init()
    except RuntimeError as error:
        number = re.search(r"\(error: (\d+)\)", str(error))
        reason = f"{str(error)[: number.start()].strip()}: {os.strerror(int(number[1]))}" if number else str(error)
        raise CheckpointError(
            "AX973",
            f"the processes of the run cannot be connected: {reason}",
            "another program may have the port: `mlx.launch --starting-port 33000` takes others; "
            "addresses are those of the hostfile",
        ) from error


def messages(group: mx.distributed.Group, data: bytes) -> list[bytes]:
    """What every process sends, in the order of their ranks; each may send another number of bytes.

    The process ends if what comes is no message: then nothing more can be exchanged.

    Args:
        group: The processes, all of which call this.
        data: What this one sends.

    Raises:
        RuntimeError: A connection is lost.
    """
    others_done()
    heads = _gathered(group, _MARK + len(data).to_bytes(8, "little"))
    if strange := [rank for rank, head in enumerate(heads) if not head.startswith(_MARK)]:
        end(str(_no_message(strange[0])))
    lengths = [int.from_bytes(head.removeprefix(_MARK), "little") for head in heads]
    padded = data.ljust(-(-max(lengths) // _BLOCK) * _BLOCK)
    return [row[:length] for row, length in zip(_gathered(group, padded), lengths, strict=True)]


def _gathered(group: mx.distributed.Group, data: bytes) -> list[bytes]:
    """What every process sends, of the same number of bytes each."""
    if not data:
        return [b""] * group.size()
    content: Any = memoryview(data)
    rows: Any = mx.distributed.all_gather(mx.array(content)[None], group=group)
    mx.eval(rows)  # here, since a view of its bytes would make another error of what MLX raises
    return [bytes(memoryview(row)) for row in rows]


@contextmanager
def joined(group: Any, facts: Callable[[], Mapping[str, str]]) -> Iterator[None]:
    """Agree with the other processes, then prepare alone, without waiting for them.

    What is raised inside ends all processes, and so does what differs: nothing is raised where there are several.

    Args:
        group: The processes; nothing is done for a group of one, or a stand-in for one in this process.
        facts: Gives what has to be equal on all ranks, by what people call it, such as `mlx` to its version. An entry
            that another rank does not have is not compared.

    Raises:
        ArchitectureError: With one process, as it came.
        Refusal: See above.
    """
    if group.size() == 1 or not isinstance(group, mx.distributed.Group):
        yield
        return
    _agree(group, facts())
    fault = ""
    try:
        yield
    except (ArchitectureError, Refusal) as error:
        fault = str(error)
    faults = [said.decode() for said in _told(group, fault.encode())]
    if any(faults):
        _end_all(group, *next((rank, text) for rank, text in enumerate(faults) if text))


@contextmanager
def ending_a_server() -> Iterator[None]:
    """End `mlx_lm.server` with the message of a fault that a model meets before it is shared, if others wait for it.

    The server would go on without a model, and the other ranks would wait for this one.

    Raises:
        ArchitectureError: Everywhere else, as it came.
        Refusal: See above.
    """
    try:
        yield
    except (ArchitectureError, Refusal) as error:
        if _owner() and mx.distributed.init().size() > 1:  # which the server has called
            end(str(error))
        raise


def _agree(group: mx.distributed.Group, facts: Mapping[str, str]) -> None:
    global _watch
    door, address = peers.listen(group.rank()) if _watch is None else (None, "")
    mine = {"facts": dict(facts), "address": address, "rank": group.rank(), "once": token_hex(16)}
    said = _told(group, json.dumps(mine).encode())
    token = sha256(b"\n".join(said)).digest()
    all_ = [json.loads(text) for text in said]
    if any(other != token for other in _told(group, token)):
        _end_all(group, 0, str(_two_runs()))
    if fault := differing([one["facts"] for one in all_]):
        _end_all(group, 0, str(fault))
    if _watch is None:
        links = peers.connect(group.rank(), [one["address"] for one in all_], door, token)
        _watch = Watch(group.rank(), links, _ended, _owner())
        _watch.start()
        atexit.register(_finish)  # comes before the watch takes leave


def _finish() -> None:
    """At the end of this process let what it has computed ahead arrive, as its sums end with errors otherwise."""
    with suppress(RuntimeError):  # who is gone is told by the watch
        others_done()


def differing(facts: Sequence[Mapping[str, str]]) -> CheckpointError | None:
    """The first entry that is not the same on all ranks, as a fault; None if all agree.

    Args:
        facts: Of each rank, what is to be equal; the order of the first rank's entries is that of their importance.
    """
    names = dict.fromkeys(name for one in facts for name in one)
    for name in names:
        first, *others = [(rank, one[name]) for rank, one in enumerate(facts) if name in one]
        for rank, value in others:
            if value != first[1]:
                return CheckpointError(
                    "AX971",
                    f"rank {rank} has another {name} than rank {first[0]}: {value}, not {first[1]}",
                    "all ranks need the same packages and folder: install the same version, or copy the folder again",
                )
    return None


def _two_runs() -> CheckpointError:
    return CheckpointError(
        "AX972",
        "processes of two runs are connected with each other",
        "two were started at once with the same ports: give one of them others, `mlx.launch --starting-port 33000`",
    )


def _no_message(rank: int) -> CheckpointError:
    return CheckpointError(
        "AX974",
        f"rank {rank} sends something else than this process waits for",
        "all ranks have to exchange the same in the same order; a program that does so itself after generating waits "
        "for what was computed ahead: `mx.synchronize(mlx_lm.generate.generation_stream)`",
    )


def _ended(rank: int, reason: str) -> str:
    why = f": {reason}" if reason else ", its connection was closed"
    help_ = "all ranks have ended; what rank {} printed before may say more"
    return str(CheckpointError("AX970", f"rank {rank} has ended{why}", help_.format(rank)))


def _told(group: mx.distributed.Group, text: bytes) -> list[bytes]:
    """As `messages`; if another rank is gone, this process ends too."""
    try:
        return messages(group, text)
    except RuntimeError:
        if _watch is not None:
            _watch.wait()
        end(str(CheckpointError("AX970", "another rank has ended before all had agreed", "its own message says why")))
        raise


def _end_all(group: mx.distributed.Group, rank: int, text: str) -> None:
    """End all processes after one of them has written a message: each of them is here, so they can wait for it."""
    if _watch is not None:
        _watch.rest()
    if group.rank() == rank:
        sys.stdout.flush()
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    _told(group, b"written")
    end()


def _owner() -> threading.Thread | None:
    """This thread, if `mlx_lm.server` called us from it: it keeps the model there, and outlives it."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if getattr(frame.f_globals.get("__spec__"), "name", "") == _SERVER:
            thread = threading.current_thread()
            return None if thread is threading.main_thread() else thread
        frame = frame.f_back
    return None
