"""`compare`: several models in one table, and on a page."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from axon_compose.analysis.comparison import Comparison, UnknownColumn
from axon_compose.architecture import Architecture, gather
from axon_compose.architecture import compare as compared
from axon_compose.cli._arguments import sizes
from axon_compose.cli._page import Page
from axon_compose.cli._source import load_file
from axon_compose.cli._spread import hardware
from axon_compose.cli._terminal import Terminal
from axon_compose.proof.bench import Workload
from axon_compose.report import render
from axon_compose.report._comparison import comparison_text

__all__ = ["compare"]


def compare(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Print the table, and write the page. What does not fit, or cannot be measured, is an answer, not a failure."""
    page = Page(arguments)
    workload = _workload(arguments)
    models = gather(partial(load_file, file, arguments) for file in arguments.files)
    warnings = [warning for model in models for warning in model.warnings]
    if not terminal.as_json:
        for warning in warnings:
            terminal.note(render([warning]))
    try:
        found = compared(
            models,
            names=_names(arguments.files, models),
            **sizes(arguments),
            devices=arguments.devices,
            hardware=hardware(arguments),
            sort=arguments.sort,
            reverse=arguments.reverse,
            measure=workload or False,
            progress=terminal.rounds if workload else None,
        )
    except UnknownColumn as error:
        arguments.error(f"argument --sort: {error}")
    wrote, more = page.write(f"{len(models)} models", lambda suffix: _drawn(found))
    return terminal.result(comparison_text(found, terminal.style) + wrote, found.to_dict() | more, warnings)


def _names(files: list[str], models: list[Architecture]) -> list[str]:
    """Names of the models; where several have the same, the files they come from."""
    names = [model.name for model in models]
    return [
        name if names.count(name) == 1 or file == name else f"{name} ({file})"
        for name, file in zip(names, files, strict=True)
    ]


def _workload(arguments: argparse.Namespace) -> Workload | None:
    given = {name: getattr(arguments, name) for name in ("prompt", "steps", "rounds")}
    wanted: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if arguments.measure:
        return Workload(batch=arguments.batch or 1, **wanted)
    if wanted:
        arguments.error(f"argument --{next(iter(wanted))}: it says how to measure, and needs --measure")
    return None


def _drawn(found: Comparison) -> str:
    from axon_compose.report.draw import comparison_page  # only a page needs it

    return comparison_page(found)
