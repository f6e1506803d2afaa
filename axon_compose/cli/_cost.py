"""`cost`: what a model needs, before there is one; on one device or on several."""

from __future__ import annotations

import argparse

from axon_compose.analysis.cost import CostSheet
from axon_compose.architecture import Architecture
from axon_compose.cli._arguments import sizes
from axon_compose.cli._source import load_file
from axon_compose.cli._spread import hardware, simulated, spread_options
from axon_compose.cli._terminal import Terminal
from axon_compose.report import render
from axon_compose.report._cost import cost_text
from axon_compose.report._devices import devices_text
from axon_compose.report._simulation import simulation_text

__all__ = ["cost"]


def cost(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Print the cost sheet. Whether it fits is an answer, not a failure."""
    hardware(arguments)  # a wrong flag is reported before anything is counted
    architecture = load_file(arguments.file, arguments)
    sheet = architecture.cost(**sizes(arguments), training=arguments.training, segment=arguments.segment)
    if not terminal.as_json:
        for warning in architecture.warnings:
            terminal.note(render([warning]))
    if arguments.devices is not None:
        return _spread(architecture, sheet, arguments, terminal)
    text = cost_text(sheet, terminal.style, layers=arguments.layers)
    return terminal.result(text, sheet.to_dict(), architecture.warnings)


def _spread(architecture: Architecture, sheet: CostSheet, arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Print what several devices need, or how a schedule runs; as JSON, beside what one device needs."""
    if arguments.simulate:
        simulation = simulated(architecture, arguments)
        text, faults = simulation_text(simulation, terminal.style), simulation.faults
        data = {"simulation": simulation.to_dict()}
    else:
        found = architecture.spread(arguments.devices, **spread_options(arguments))
        text, faults = devices_text(found, terminal.style), found.faults
        data = {"devices": found.to_dict()}
    if not terminal.as_json:
        for fault in faults:
            terminal.note(render([fault]))
    return terminal.result(text, sheet.to_dict() | data, [*architecture.warnings, *faults])
