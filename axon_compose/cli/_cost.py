"""`cost`: what a model needs, before there is one."""

from __future__ import annotations

import argparse

from axon_compose.cli._arguments import sizes
from axon_compose.cli._source import load_file
from axon_compose.cli._terminal import Terminal
from axon_compose.report import render
from axon_compose.report._cost import cost_text

__all__ = ["cost"]


def cost(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Print the cost sheet. Whether it fits is an answer, not a failure."""
    if arguments.segment is not None and not arguments.training:
        arguments.error("argument --segment: only with --training")
    architecture = load_file(arguments.file, arguments)
    sheet = architecture.cost(**sizes(arguments), training=arguments.training, segment=arguments.segment)
    if not terminal.as_json:
        for warning in architecture.warnings:
            terminal.note(render([warning]))
    text = cost_text(sheet, terminal.style, layers=arguments.layers)
    return terminal.result(text, sheet.to_dict(), architecture.warnings)
