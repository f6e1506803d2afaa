"""`mlx_lm server` as tests ask it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from commands import environment

from tests.children import PATIENCE, child

TOKENS = 24


class Server:
    """A running server; what it prints goes to a file."""

    def __init__(self, process: subprocess.Popen[str], port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def answers(self) -> bool:
        try:
            return self.get("/health") == {"status": "ok"}
        except (urllib.error.URLError, ConnectionError):
            return False

    def get(self, path: str) -> Any:
        return json.loads(self.open(path))

    def post(self, path: str, **body: Any) -> bytes:
        return self.open(path, json.dumps({"max_tokens": TOKENS, "temperature": 0.0, **body}).encode())

    def open(self, path: str, body: bytes | None = None) -> bytes:
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=PATIENCE) as response:
            content: bytes = response.read()
        return content

    def chat(self, prompt: str) -> str:
        answer = json.loads(self.post("/v1/chat/completions", messages=[{"role": "user", "content": prompt}]))
        return str(answer["choices"][0]["message"]["content"])

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=PATIENCE)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def served(folder: Path, log: Path, **variables: str) -> Iterator[Server]:
    """`mlx_lm server` over a folder."""
    port = free_port()
    command = [sys.executable, "-m", "mlx_lm", "server", "--trust-remote-code", "--model", str(folder)]
    with (
        log.open("w") as stream,
        child(
            [*command, "--port", str(port)], stdout=stream, stderr=subprocess.STDOUT, env=environment(**variables)
        ) as process,
    ):
        yield Server(process, port, log)
