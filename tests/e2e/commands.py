"""Running commands as a user does: in processes of their own, without network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests import forks

#: A proxy that nobody runs: whoever looks for the network fails at once.
NOWHERE = "http://127.0.0.1:9"
#: `hybrid-demo` with every width that a quantisation group divides, a window that short texts leave behind, and a head
#: of its own: a tied head on random weights repeats the last token, and any two wrong answers would be equal.
SMALL = (
    "dims.hidden_size=64",
    "dims.vocab_size=259",
    "components.ssm.expand=1",
    "components.swa.window_size=16",
    "components.moe.intermediate_size=64",
    "head.tied=false",
)
_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x01\x02]")

Done = subprocess.CompletedProcess[str]


def environment(**more: str) -> dict[str, str]:
    """The variables of this process, with the hub switched off and no colour asked for."""
    clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "TERM")}
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), NOWHERE)
    return {**clean, **forks.OFFLINE, **proxies, "no_proxy": "127.0.0.1", "PYTHONIOENCODING": "utf-8", **more}


def python(*arguments: object, stdin: str = "", cwd: Path | None = None, **variables: str) -> Done:
    """Run Python with these arguments; what costs much to import is there already."""
    return _run(forks.python(), arguments, stdin, cwd, variables)


def fresh(*arguments: object, cwd: Path | None = None, **variables: str) -> Done:
    """Run a Python that has imported nothing yet."""
    return _run([sys.executable], arguments, "", cwd, variables)


def _run(
    begin: Sequence[str], arguments: tuple[object, ...], stdin: str, cwd: Path | None, variables: dict[str, str]
) -> Done:
    return subprocess.run(
        [*begin, *map(str, arguments)],
        input=stdin,
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=240,
    )


def axon(*arguments: object, stdin: str = "", cwd: Path | None = None, **variables: str) -> Done:
    """Run `axon-compose`."""
    code = "import sys; from axon_compose.cli import main; sys.exit(main())"
    return python("-c", code, *arguments, stdin=stdin, cwd=cwd, **variables)


def settings(*texts: str) -> list[str]:
    """`--set` options."""
    return [part for text in texts for part in ("--set", text)]


def mlx_lm(command: str, *arguments: object, stdin: str = "", **variables: str) -> str:
    """Run an `mlx_lm` command that must succeed without a word of complaint; its output without colours."""
    done = python("-m", "mlx_lm", command, "--trust-remote-code", *arguments, stdin=stdin, **variables)
    said = plain(done.stdout + done.stderr)
    assert done.returncode == 0, said
    assert not complaints(said), said
    return plain(done.stdout)


def complaints(text: str) -> list[str]:
    """Lines that a user should not see."""
    return re.findall(r"(?im)^.*(?:traceback|warning|error|deprecated|instantiate a model of type).*$", text)


def plain(text: str) -> str:
    """Without terminal sequences."""
    return _ESCAPE.sub("", text)


def generated(folder: Path, prompt: str, *arguments: object, tokens: int = 24) -> str:
    """The text that `mlx_lm generate` answers with, greedy unless told otherwise."""
    common = ("--model", folder, "--prompt", prompt, "--max-tokens", tokens, "--verbose", "False")
    return mlx_lm("generate", *common, *arguments)
