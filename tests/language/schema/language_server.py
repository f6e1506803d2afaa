"""A small client of the YAML language server: the editor's side of LSP over stdin and stdout."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.children import PATIENCE, child

SERVER = (
    Path(__file__).parent
    / ".language-server"
    / "node_modules"
    / "yaml-language-server"
    / "bin"
    / "yaml-language-server"
)


def missing() -> str | None:
    """Why the server cannot be run, or None."""
    if shutil.which("node") is None:
        return "needs node (install_language_server.sh)"
    if not SERVER.is_file():
        return "needs yaml-language-server (install_language_server.sh)"
    return None


class LanguageServer:
    """A running server, with one folder open; use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = 0
        self.found: dict[str, list[dict[str, Any]]] = {}
        self.stack = ExitStack()

    def __enter__(self) -> LanguageServer:
        with ExitStack() as stack:
            command = ["node", str(SERVER), "--stdio"]
            running = child(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=False)
            self.process = stack.enter_context(running)
            patience = threading.Timer(PATIENCE, self.process.kill)  # reading has no time limit of its own
            patience.start()
            stack.callback(patience.cancel)
            self.initialize()
            self.stack = stack.pop_all()
        return self

    def initialize(self) -> None:
        capabilities = {"textDocument": {"completion": {"completionItem": {"snippetSupport": True}}, "hover": {}}}
        uri = self.folder.as_uri()
        folders = [{"uri": uri, "name": "files"}]
        self.request(
            "initialize", {"processId": None, "rootUri": uri, "capabilities": capabilities, "workspaceFolders": folders}
        )
        self.notify("initialized", {})
        settings = {"validate": True, "hover": True, "completion": True, "schemaStore": {"enable": False}}
        self.notify("workspace/didChangeConfiguration", {"settings": {"yaml": settings}})

    def __exit__(self, *_: object) -> None:
        with self.stack:
            self.request("shutdown", None)
            self.notify("exit", None)
            self.process.wait(PATIENCE)

    def open(self, name: str, text: str) -> str:
        """Show a text in the editor; gives its URI."""
        uri = (self.folder / name).as_uri()
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self.notify("textDocument/didOpen", {"textDocument": document})
        return uri

    def diagnostics(self, uri: str) -> list[dict[str, Any]]:
        """The squiggles of a text."""
        while uri not in self.found:
            self.receive()
        return self.found[uri]

    def complete(self, uri: str, line: int, character: int) -> list[dict[str, Any]]:
        """The proposals at a place (from 0)."""
        answer = self.request("textDocument/completion", _place(uri, line, character))
        return answer if isinstance(answer, list) else answer["items"]

    def hover(self, uri: str, line: int, character: int) -> str:
        """The text that the pointer brings up at a place (from 0)."""
        answer = self.request("textDocument/hover", _place(uri, line, character))
        return answer["contents"]["value"] if answer else ""

    def request(self, method: str, params: Any) -> Any:
        self.number += 1
        number = self.number
        self.send({"id": number, "method": method, "params": params})
        while True:
            message = self.receive()
            if message.get("id") == number and "method" not in message:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]

    def notify(self, method: str, params: Any) -> None:
        self.send({"method": method, "params": params})

    def send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self.process.stdin
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout
        length = 0
        while line := self.process.stdout.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if not length:
            raise EOFError("the language server ended")
        message: dict[str, Any] = json.loads(self.process.stdout.read(length))
        if message.get("method") == "textDocument/publishDiagnostics":
            self.found[message["params"]["uri"]] = message["params"]["diagnostics"]
        elif "method" in message and "id" in message:  # the server asks for settings, or registers something
            asked = message["params"].get("items", []) if message["method"] == "workspace/configuration" else None
            self.send({"id": message["id"], "result": None if asked is None else [{} for _ in asked]})
        return message


def _place(uri: str, line: int, character: int) -> dict[str, Any]:
    return {"textDocument": {"uri": uri}, "position": {"line": line, "character": character}}
