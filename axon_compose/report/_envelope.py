"""The JSON that every command prints with `--json`: one object of a known version."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from axon_compose.diagnostics import Diagnostic
from axon_compose.report._diagnostics import as_dicts

__all__ = ["ENVELOPE_VERSION", "envelope"]

#: Raised when a key changes its meaning or goes away; new keys leave it as it is.
ENVELOPE_VERSION: Final = 1


def envelope(command: str, *, ok: bool, result: Any = None, diagnostics: Iterable[Diagnostic] = ()) -> str:
    """The answer of a command as JSON text.

    Args:
        command: Its name.
        ok: Whether it did what it was asked.
        result: What it found, JSON-ready.
        diagnostics: Faults and warnings.
    """
    answer = {
        "schema": ENVELOPE_VERSION,
        "command": command,
        "ok": ok,
        "diagnostics": as_dicts(diagnostics),
        "result": result,
    }
    return json.dumps(answer, indent=2, ensure_ascii=False) + "\n"
