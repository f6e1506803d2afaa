"""A change of one component as it is written in a line, `attn -> window:512`, as an edit."""

from __future__ import annotations

import re
from typing import Any, Final

from axon_compose.diagnostics import CheckpointError, Problems
from axon_compose.language.source import plain, read
from axon_compose.plan import Plan

__all__ = ["read_change"]

_OPTION: Final = re.compile(r"([a-z][a-z0-9_]*)\s*[:=]\s*(.+)", re.DOTALL)
_TYPE: Final = re.compile(r"[a-z][a-z0-9_/-]*")
_HINT: Final = "write `attn -> window_size: 512`, `attn -> mamba2` or `attn -> {type: mamba2, d_state: 64}`"


def read_change(text: str, plan: Plan) -> dict[str, Any]:
    """The edit, without layers.

    Args:
        text: A component, an arrow, and an option with its value, a type, or a mapping of options; with a `type` in it
            the component is replaced. An option may be written by the beginning of its name, where one alone has it.
        plan: The model that has the component.

    Raises:
        CheckpointError: AX955 it is no change, or the model has no such component.
    """
    name, arrow, written = (part.strip() for part in text.partition("->"))
    if not arrow or not name or not written:
        raise CheckpointError("AX955", f"`{text}` is no change of a component", _HINT)
    known: dict[str, Any] = {member.use.name: member.use.options for layer in plan.layers for branch in layer.branches
                             for member in branch.members}  # fmt: skip
    if name not in known:
        raise CheckpointError("AX955", f"no layer has a component `{name}`", f"there are {', '.join(known)}")
    match = _OPTION.fullmatch(written)
    if written.startswith("{"):
        options = _parsed(written, text)
        if not isinstance(options, dict) or not options:
            raise CheckpointError("AX955", f"`{written}` is no mapping of options", _HINT)
        if "type" in options:
            return {"replace": {name: options}}
    elif match:
        options = {match[1]: _parsed(match[2], text)}
    elif _TYPE.fullmatch(written):
        return {"replace": {name: {"type": written}}}
    else:
        raise CheckpointError("AX955", f"`{text}` is no change of a component", _HINT)
    return {"set": {f"{name}.{_whole(option, known[name])}": value for option, value in options.items()}}


def _parsed(text: str, whole: str) -> Any:
    """A value of YAML."""
    problems = Problems()
    node = read(text.encode(), "<change>", problems)
    if node is None or problems.failed:
        raise CheckpointError("AX955", f"`{whole}` cannot be read: `{text}` is no value", _HINT)
    return plain(node)


def _whole(option: str, options: Any) -> str:
    """The option that a word is, or is the beginning of."""
    names = list(dict(options))
    longer = [name for name in names if name.startswith(f"{option}_")]
    return longer[0] if option not in names and len(longer) == 1 else option
