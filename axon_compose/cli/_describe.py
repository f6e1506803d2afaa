"""`validate`, `show` and `explain`: they write nothing and run no code that a file names."""

from __future__ import annotations

import argparse
import json

from axon_compose.cli._source import load_file
from axon_compose.cli._terminal import USAGE, Terminal
from axon_compose.diagnostics import ArchitectureError, Diagnostic
from axon_compose.plan import plan_to_dict
from axon_compose.report import render

__all__ = ["explain_code", "show", "validate"]


def validate(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Report the faults of every file; all of them go to stdout, since they are the result."""
    found: list[Diagnostic] = []
    sources: dict[str, str] = {}
    dropped = 0
    for file in arguments.files:
        try:
            found += load_file(file, arguments).warnings
        except ArchitectureError as error:
            found += error.diagnostics
            sources |= error.sources
            dropped += error.dropped
    ok = not any(d.severity == "error" for d in found)
    text = render(found, sources, arguments.format, terminal.style, dropped=dropped)
    if found or arguments.format == "json":
        text += "\n"
    elif arguments.format == "text":
        text = "".join(f"{file}: ok\n" for file in arguments.files)
    return terminal.result(text, {"files": arguments.files}, found, ok=ok)


def show(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Print the stack, or what a stage made of the file."""
    if arguments.devices is not None and (arguments.stage or arguments.table):
        arguments.error("argument --devices: not with --stage or --table")
    if arguments.devices is not None and arguments.devices < 2:
        arguments.error("argument --devices: 2 at least")
    if arguments.quantize is not None and arguments.devices is None:
        arguments.error("argument --quantize: only with --devices")
    architecture = load_file(arguments.file, arguments)
    plan = architecture.plan()
    if arguments.stage:
        data = architecture.data if arguments.stage == "document" else plan_to_dict(plan)
        text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
        return terminal.result(text, data, architecture.warnings)
    from axon_compose.machine.native import native
    from axon_compose.report import show_data, show_text

    for warning in architecture.warnings:
        terminal.note(render([warning]))
    if arguments.devices is not None:
        from axon_compose.report._shares import shares_data, shares_text  # it counts, which `validate` does without

        tensor = architecture.split(arguments.devices, quantize=arguments.quantize)
        data = {**show_data(plan), "devices": shares_data(plan, tensor, arguments.quantize)}
        text = shares_text(plan, tensor, terminal.style, arguments.quantize)
        return terminal.result(text, data, architecture.warnings)
    stack = None
    if not arguments.table:
        from axon_compose.report.draw import characters  # a later stage than all that other commands need

        stack = characters(plan, terminal.style, terminal.width)
    from axon_compose.checkpoints.tools import tools  # it looks for mlx_lm

    runs, kernels = tools(architecture), native()
    rows, used = [["runs with", runs]], kernels.version if kernels and kernels.fits else None
    if used:
        rows.append(["on the CPU", f"recurrences and products in C++ (axon-native {used})"])
    text = show_text(plan, terminal.style, stack, rows)
    data = {**show_data(plan), "runs_with": runs, "axon_native": used}
    return terminal.result(text, data, architecture.warnings)


def explain_code(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Print what a code means and how to put the fault right."""
    from axon_compose.diagnostics.codes import CODES, explain  # reads every explanation: other commands need none

    try:
        text = explain(arguments.code)
    except LookupError as error:
        terminal.note(f"error: {error.args[0]}")
        return USAGE
    entry = CODES[arguments.code.upper()]
    return terminal.result(text.rstrip() + "\n", {"code": entry.code, "title": entry.title, "text": entry.explanation})
