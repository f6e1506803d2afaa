"""In place of a Python interpreter: `python -I -S client.py SOCKET ARGUMENT…` is `python ARGUMENT…`, see `__init__`."""

import json
import os
import signal
import socket
import sys


def main(address: str, *arguments: str) -> None:
    request = json.dumps({"arguments": arguments, "folder": os.getcwd(), "variables": dict(os.environ)}).encode()  # noqa: PTH109
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        socket.send_fds(server, [len(request).to_bytes(8, "big")], [0, 1, 2])
        server.sendall(request)
        answer = server.makefile().readline()
    if answer == "fresh\n":
        os.execv(sys.executable, [sys.executable, *arguments])
    status = int(answer)
    if os.WIFSIGNALED(status):
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))


main(*sys.argv[1:])
