"""What is said of a field of config.json, or a key of a GGUF file, that a family file does not handle."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from typing import Any, Final

from axon_compose.diagnostics import Problems, Span

__all__ = ["report_unhandled", "report_unsupported"]

_PLAIN: Final = re.compile(r"[A-Za-z_][\w.]*", re.ASCII)


def report_unhandled(
    name: str, span: Span | None, problems: Problems, message: str, section: str = "huggingface"
) -> None:
    """Report a field that may change the model, with the setting that lets it pass.

    Args:
        name: The field, `a.b` inside a mapping.
        span: Where it is.
        problems: Collects the fault.
        message: What is wrong.
        section: The section of the family file that lists what changes nothing.
    """
    text = name if _PLAIN.fullmatch(name) else json.dumps(name, ensure_ascii=False)
    setting = shlex.quote(f"{section}.ignore=[{text}]")
    problems.error(
        "AX602",
        message,
        span,
        label="it may change the model",
        help=f"if it changes nothing, add `--set {setting}`; otherwise the family file needs a dim for it",
    )


def report_unsupported(name: str, value: Any, allowed: Iterable[Any], span: Span, problems: Problems) -> None:
    """Report a field with a value that is none of those that the family file allows."""
    supported = " or ".join(f"`{_shown(each)}`" for each in allowed)
    message = f"`{name}` is `{_shown(value)}`; this family file supports only {supported}"
    problems.error("AX603", message, span)


def _shown(value: Any) -> str:
    """A value for a message, as config.json writes it, texts without quotes."""
    return json.dumps(value, ensure_ascii=False).strip('"')[:40]
