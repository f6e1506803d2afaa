"""Imports what commands import, then forks for each command: `python server.py SOCKET`, see `__init__`.

It ends when its standard input does, and what it forked with it. A command whose caller goes away is killed.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

#: They change the process for which they are imported, or have requirements of their own.
_LEFT_OUT: Final = (
    "axon_compose.checkpoints.model_file", "axon_compose.model.mlx_lm", "axon_compose.proof.bench",
    "axon_compose.testing",
)  # fmt: skip
_MLX_LM: Final = ("utils", "generate", "lora", "fuse", "convert", "chat", "perplexity", "cache_prompt")
#: Variables that an interpreter or a library reads once, at its beginning: with others, a command is a fresh process.
_READ_ONCE: Final = ("HF_", "HOME", "LANG", "LC_", "MLX", "OMP_", "OPENBLAS_", "PYTHON", "TOKENIZERS_", "XDG_")
#: Those of them that `become` heeds, or that say where libraries keep what they fetch, and nothing is fetched.
#: Those of MLX are read when processes are connected.
_HEEDED: Final = (
    "PYTHONIOENCODING",
    "PYTHONPATH",
    "PYTHONUNBUFFERED",
    "HF_DATASETS_OFFLINE",
    "XDG_CACHE_HOME",
    "MLX_HOSTFILE",
    "MLX_RANK",
)

Request = dict[str, Any]


def read_once(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in variables.items() if name.startswith(_READ_ONCE) and name not in _HEEDED}


def import_all() -> None:
    for name in _MLX_LM:  # first: mlx_lm sets variables that transformers reads
        importlib.import_module(f"mlx_lm.{name}")
    for package in map(importlib.import_module, ("axon_compose", "axon_core")):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.startswith(_LEFT_OUT) and not module.name.endswith("__main__"):
                importlib.import_module(module.name)


def receive(client: socket.socket) -> tuple[Request | None, list[int]]:
    """The request and the three streams; no request if the caller is killed before it has said all."""
    streams: list[int] = []
    with contextlib.suppress(ConnectionError):
        length, streams, _, _ = socket.recv_fds(client, 8, 3)
        size = int.from_bytes(length, "big")
        with client.makefile("rb") as file:
            text = file.read(size)
        if size and len(text) == size:
            return json.loads(text), streams
    return None, streams


def listening(address: str) -> socket.socket:
    """A socket at a path of any length, as the client finds it."""
    listener, place = socket.socket(socket.AF_UNIX), os.open(Path(address).parent, os.O_PATH)
    listener.bind(f"/proc/self/fd/{place}/{Path(address).name}")
    os.close(place)
    listener.listen()
    return listener


def serve(address: str, variables: dict[str, str]) -> tuple[Request, list[int]]:
    """Fork for every request, and return in the fork alone."""
    parent, selector, listener = os.getpid(), selectors.PollSelector(), listening(address)
    selector.register(0, selectors.EVENT_READ)
    selector.register(listener, selectors.EVENT_READ)
    os.write(1, b"ready\n")
    while True:
        (key, _), *_ = selector.select()  # one at a time, since what is done with it may end the others
        if key.fd == 0:
            os._exit(0)
        elif key.fileobj is listener:
            client, _ = listener.accept()
            request, streams = receive(client)
            if request is None or read_once(request["variables"]) != variables:
                answer(client, "fresh")
            elif pid := os.fork():
                process = os.pidfd_open(pid)
                selector.register(client, selectors.EVENT_READ, process)  # it says no more, but may go away
                selector.register(process, selectors.EVENT_READ, (pid, client))
            else:
                die_with(parent)
                forget([*selector.get_map().values()])
                client.close()
                listener.close()
                return request, streams
            for stream in streams:
                os.close(stream)
        elif isinstance(key.data, int):
            signal.pidfd_send_signal(key.data, signal.SIGKILL)
            selector.unregister(key.fileobj)
        else:
            pid, client = key.data
            _, status = os.waitpid(pid, 0)
            selector.unregister(key.fileobj)
            os.close(key.fd)
            if client in selector.get_map():
                selector.unregister(client)
            answer(client, str(status))


def forget(keys: list[selectors.SelectorKey]) -> None:
    """Close in a fork what the server has open for others; as objects, or these close the same numbers once more."""
    for key in keys:
        if isinstance(key.data, tuple):
            os.close(key.fd)
            key.data[1].close()


def answer(client: socket.socket, text: str) -> None:
    """The last that is said to a caller, who may be gone."""
    with client, contextlib.suppress(ConnectionError):
        client.sendall(f"{text}\n".encode())


def die_with(parent: int) -> None:
    """Be killed when the parent is gone (1 is PR_SET_PDEATHSIG), however it ended."""
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def become(request: Request, streams: list[int], set_by_imports: dict[str, str], path: list[str]) -> None:
    """Be the process that was asked for."""
    for stream, number in zip(streams, (0, 1, 2), strict=True):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    with contextlib.suppress(OSError):  # as where they cannot be given out
        os.sched_setaffinity(0, request["processors"])
        os.sched_setscheduler(0, request["policy"], os.sched_param(0))
    os.environ.clear()
    os.environ.update(set_by_imports | request["variables"])
    coding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    if coding:
        sys.stdin.reconfigure(encoding=coding, errors=errors or None)  # type: ignore[union-attr]
        sys.stdout.reconfigure(encoding=coding, errors=errors or None)  # type: ignore[union-attr]
        sys.stderr.reconfigure(encoding=coding, errors="backslashreplace")  # type: ignore[union-attr]
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    for file in (sys.stdout, sys.stderr):  # whatever the server was started with
        file.reconfigure(write_through=unbuffered)  # type: ignore[union-attr]
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())  # type: ignore[union-attr]
    sys.stderr.reconfigure(line_buffering=not unbuffered)  # type: ignore[union-attr]
    sys.path[:] = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *path]
    importlib.invalidate_caches()
    import mlx.core as mx

    mx.random.seed(int.from_bytes(os.urandom(4)))


def run(arguments: list[str]) -> None:
    """What `python ARGUMENT…` does."""
    kind, *rest = arguments
    sys.argv = [kind, *rest[1:]] if kind in ("-c", "-m") else arguments
    first = {"-c": "", "-m": str(Path.cwd())}
    sys.path.insert(0, first.get(kind, str(Path(kind).parent)))
    if kind == "-c":
        main = type(sys)("__main__")
        sys.modules["__main__"] = main
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    elif kind == "-m":
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(kind, run_name="__main__")


def ended(program: Callable[[], None]) -> int:
    """The exit code of a program; Ctrl-C and its like go on as they are."""
    try:
        program()
    except SystemExit as leaving:
        if leaving.code is None or isinstance(leaving.code, int):
            return leaving.code or 0
        sys.stderr.write(f"{leaving.code}\n")
        return 1
    except Exception:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        return 1
    return 0


def end(code: int) -> None:
    """Leave without taking down one by one what was imported: that would copy the memory shared with the server."""
    threading._shutdown()  # type: ignore[attr-defined]  # as `multiprocessing` does
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if sys.__stdout__ is not None and not sys.__stdout__.closed:  # where something else has taken its place
        sys.__stdout__.flush()
    os._exit(code)


def main(address: str) -> None:
    before, own = dict(os.environ), os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = [place for place in sys.path[1:] if place not in own]
    import_all()
    set_by_imports = {name: text for name, text in os.environ.items() if before.get(name) != text}
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "an import started a thread, and a fork would not have it"
    gc.collect()
    gc.freeze()
    request, streams = serve(address, read_once(before))
    become(request, streams, set_by_imports, path)
    end(ended(lambda: run(request["arguments"])))


if __name__ == "__main__":
    main(sys.argv[1])
