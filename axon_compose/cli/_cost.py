"""`cost`: what a model needs, before there is one."""

from __future__ import annotations

import argparse
from typing import Any

from axon_compose.analysis.cost import CostSheet
from axon_compose.analysis.devices import CONTEXT, Hardware
from axon_compose.architecture import Architecture
from axon_compose.cli._arguments import sizes, spread
from axon_compose.cli._source import load_file
from axon_compose.cli._terminal import Terminal
from axon_compose.report import render
from axon_compose.report._cost import cost_text
from axon_compose.report._devices import devices_text

__all__ = ["cost"]


def cost(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Print the cost sheet. Whether it fits is an answer, not a failure."""
    if arguments.segment is not None and not arguments.training:
        arguments.error("argument --segment: only with --training")
    hardware = spread(arguments)
    architecture = load_file(arguments.file, arguments)
    sheet = architecture.cost(**sizes(arguments), training=arguments.training, segment=arguments.segment)
    if not terminal.as_json:
        for warning in architecture.warnings:
            terminal.note(render([warning]))
    if arguments.devices is not None:
        return _spread(architecture, sheet, arguments, terminal, hardware)
    text = cost_text(sheet, terminal.style, layers=arguments.layers)
    return terminal.result(text, sheet.to_dict(), architecture.warnings)


def _spread(
    architecture: Architecture,
    sheet: CostSheet,
    arguments: argparse.Namespace,
    terminal: Terminal,
    hardware: dict[str, Any],
) -> int:
    """Print what several devices need; as JSON, beside what one needs."""
    context = max(arguments.context) if arguments.context else CONTEXT
    given = {name: value for name, value in sizes(arguments).items() if name in ("dtype", "batch", "quantize")}
    found = architecture.spread(
        arguments.devices,
        hardware=Hardware(**hardware),
        context=context,
        training=arguments.training,
        segment=arguments.segment,
        **given,
    )
    if not terminal.as_json:
        for fault in found.faults:
            terminal.note(render([fault]))
    data = sheet.to_dict() | {"devices": found.to_dict()}
    return terminal.result(devices_text(found, terminal.style), data, [*architecture.warnings, *found.faults])
