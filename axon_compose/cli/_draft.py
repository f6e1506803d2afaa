"""A checkpoint that no family reads: the nearest ones, and a family file to start from."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from axon_compose.checkpoints.draft import draft_text
from axon_compose.checkpoints.huggingface import read_config
from axon_compose.checkpoints.likeness import Likeness, likenesses
from axon_compose.cli._terminal import Terminal
from axon_compose.diagnostics import Problems, Refusal
from axon_compose.machine.files import check_output, write_output
from axon_compose.registry import Registry

__all__ = ["draft", "nearest_text"]

#: Families and names that are listed.
_FAMILIES: Final = 3
_NAMES: Final = 3


def draft(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Write a family file over the nearest family, or over the one that is asked for."""
    target, folder = Path(arguments.draft), Path(arguments.checkpoint)
    check_output(target, arguments.force)
    found = likenesses(folder, Registry.installed(), arguments.file)
    if not found or found[0].compiled is None:
        name = arguments.file or "any family"
        raise Refusal("AX606", f"`{folder}` cannot be read as {name}", "name a base with `--family`")
    text = draft_text(folder, found[0])
    write_output(target, text.encode(), arguments.force)
    terminal.note(f"{_nearest(found[:1])}\nwrote {target}: edit it, then\n{_next(folder, target)}")
    return terminal.result("", {"family": found[0].family.name, "draft": text, **_data(found[0])})


def nearest_text(folder: Path) -> str:
    """The families that are most like a checkpoint, with what each lacks; empty if it has no model type."""
    config = read_config(folder, Problems())
    if config is None or not config.model_types:
        return ""
    found = [one for one in likenesses(folder, Registry.installed()) if one.compiled][:_FAMILIES]
    if not found:
        return ""
    target = f"{folder.resolve().name}.yaml"
    start = f"a family file to start from: axon-compose import {folder} --draft {target}"
    return f"nearest families\n{_nearest(found)}\n{start}"


def _nearest(found: list[Likeness]) -> str:
    width = max(len(one.family.name) for one in found)
    return "\n".join(f"  {one.family.name:{width}}  {'; '.join(_lacks(one)) or 'reads it as it is'}" for one in found)


def _lacks(one: Likeness) -> Iterator[str]:
    parts = {
        "does not know": one.unknown,
        "supports other values of": one.unsupported,
        "has no place for": one.unexpected,
        "finds nothing for": one.missing,
        "has another shape for": one.misshaped,
    }
    for what, names in parts.items():
        if names:
            more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
            yield f"{what} {', '.join(names[:_NAMES])}{more}"


def _next(folder: Path, target: Path) -> str:
    return "\n".join(f"  axon-compose {command} {folder} --family {target}" for command in ("import", "verify"))


def _data(one: Likeness) -> dict[str, Any]:
    names = ("unknown", "unsupported", "unexpected", "missing", "misshaped")
    return {name: list(getattr(one, name)) for name in names}
