"""`draw`: the stack as a picture, or a page around it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from axon_compose.cli._arguments import sizes
from axon_compose.cli._source import load_file
from axon_compose.cli._spread import hardware, simulated
from axon_compose.cli._terminal import USAGE, Terminal
from axon_compose.machine.files import check_output, write_output
from axon_compose.machine.units import human
from axon_compose.plan import Plan
from axon_compose.report import render

__all__ = ["draw"]


def draw(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Draw a model into a file, whose name says in which form."""
    target = Path(arguments.output)
    assumed = hardware(arguments)
    given = sizes(arguments) | ({} if arguments.devices is None else {"devices": arguments.devices})
    if arguments.training and not arguments.simulate:
        arguments.error("argument --training: only with --simulate")
    if given and target.suffix != ".html":
        terminal.note(f"error: a picture shows nothing of --{next(iter(given))}; a page (.html) does")
        return USAGE
    if target.suffix == ".png":
        from axon_compose.report.draw import require_renderer

        require_renderer()
    if target.suffix == ".html":
        from axon_compose.report.draw import require_charts

        require_charts()
    check_output(target, arguments.force)
    architecture = load_file(arguments.file, arguments)
    for warning in architecture.warnings:
        terminal.note(render([warning]))
    if arguments.devices is not None:
        given["hardware"] = assumed
    if arguments.simulate:
        given["simulation"] = simulated(architecture, arguments)
    data = _drawn(architecture.plan(), target.suffix, given)
    write_output(target, data, arguments.force)
    text = f"wrote {target}: {architecture.name}, {human(len(data))}\n"
    return terminal.result(text, {"file": str(target), "bytes": len(data)}, architecture.warnings)


def _drawn(plan: Plan, suffix: str, given: dict[str, Any]) -> bytes:
    from axon_compose.report.draw import apart, bitmap, page, picture

    if suffix == ".png":
        return bitmap(plan)
    if suffix == ".svg":
        return picture(plan).encode()
    with apart():
        return page(plan, **given).encode()
