"""What is said of a field of config.json that nothing reads."""

from __future__ import annotations

import json
import re
import shlex
from typing import Final

from axon_compose.diagnostics import Problems, Span

__all__ = ["report_unhandled"]

_PLAIN: Final = re.compile(r"[A-Za-z_][\w.]*", re.ASCII)


def report_unhandled(name: str, span: Span | None, problems: Problems, message: str) -> None:
    """Report a field that may change the model, with the setting that lets it pass.

    Args:
        name: The field, `a.b` inside a mapping.
        span: Where it is.
        problems: Collects the fault.
        message: What is wrong.
    """
    text = name if _PLAIN.fullmatch(name) else json.dumps(name, ensure_ascii=False)
    setting = shlex.quote(f"huggingface.ignore=[{text}]")
    problems.error(
        "AX602",
        message,
        span,
        label="it may change the model",
        help=f"if it changes nothing, add `--set {setting}`; otherwise the family file needs a dim for it",
    )
