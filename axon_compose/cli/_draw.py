"""`draw`: the stack as a picture, or a page around it."""

from __future__ import annotations

import argparse
import os
import secrets
from pathlib import Path
from typing import Any, Final

from axon_compose.cli._source import load_file
from axon_compose.cli._terminal import USAGE, Terminal
from axon_compose.diagnostics import Refusal
from axon_compose.memory import human
from axon_compose.plan import Plan
from axon_compose.report import render

__all__ = ["draw"]

#: Arguments of `page`, by their names on the command line.
_SIZES: Final = ("context", "batch", "dtype", "quantize", "memory", "bandwidth")


def draw(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Draw a model into a file, whose name says in which form."""
    target = Path(arguments.output)
    sizes = {name: value for name in _SIZES if (value := getattr(arguments, name)) is not None}
    if sizes and target.suffix != ".html":
        terminal.note(f"error: a picture shows nothing of --{next(iter(sizes))}; a page (.html) does")
        return USAGE
    if target.suffix == ".png":
        from axon_compose.draw import require_renderer

        require_renderer()
    _refuse_existing(target, arguments.force)
    architecture = load_file(arguments.file, arguments)
    for warning in architecture.warnings:
        terminal.note(render([warning]))
    data = _drawn(architecture.plan(), target.suffix, sizes)
    _write(target, data, arguments.force)
    text = f"wrote {target}: {architecture.name}, {human(len(data))}\n"
    return terminal.result(text, {"file": str(target), "bytes": len(data)}, architecture.warnings)


def _drawn(plan: Plan, suffix: str, sizes: dict[str, Any]) -> bytes:
    from axon_compose.draw import apart, bitmap, page, picture

    if suffix == ".png":
        return bitmap(plan)
    if suffix == ".svg":
        return picture(plan).encode()
    if "bandwidth" in sizes:
        sizes["bandwidth"] *= 1e9
    with apart():
        return page(plan, **sizes).encode()


def _refuse_existing(target: Path, force: bool) -> None:
    if target.is_dir() or (os.path.lexists(target) and not force):
        help_ = "name a file" if target.is_dir() else "replace it with `--force`"
        raise Refusal("AX507", f"`{target}` exists", help_)


def _write(target: Path, data: bytes, force: bool) -> None:
    """Write a file that is there whole or not at all; without `force` it never replaces another, however new."""
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.write_bytes(data)
        if force:
            partial.replace(target)
        else:
            os.link(partial, target)
    except FileExistsError:
        raise Refusal("AX507", f"`{target}` exists", "replace it with `--force`") from None
    finally:
        partial.unlink(missing_ok=True)
