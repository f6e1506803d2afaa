"""`check`: run the checks on a file, or on one component with generated options."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any, Final

from axon_compose.cli._source import load_file
from axon_compose.cli._terminal import Terminal
from axon_compose.diagnostics import Diagnostic, nearest

__all__ = ["check"]

_CASES: Final = 5


def check(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Check the wiring on a small copy."""
    _consistent(arguments)
    truths = _truths(arguments)
    return _file(arguments, truths, terminal) if arguments.layer is None else _layer(arguments, truths, terminal)


def _consistent(arguments: argparse.Namespace) -> None:
    """Refuse arguments that do not belong together, as argparse does."""
    if (arguments.file is None) == (arguments.layer is None):
        arguments.error("give either FILE or --layer TYPE")
    alone = {"--options": arguments.options, "--cases": arguments.cases}
    if arguments.file is not None and (given := [name for name, value in alone.items() if value is not None]):
        arguments.error(f"{given[0]} belongs to --layer TYPE")
    of_file = {"--set": arguments.settings, "--as-is": arguments.as_is, "--devices": arguments.devices}
    if arguments.layer is not None and (given := [name for name, value in of_file.items() if value]):
        arguments.error(f"{given[0]} belongs to FILE")


def _truths(arguments: argparse.Namespace) -> list[str] | None:
    from axon_compose.proof.check import TRUTHS

    names = arguments.truth
    for name in names or ():
        if name not in TRUTHS:
            match = nearest(name, TRUTHS)
            arguments.error(
                f"there is no check `{name}`; "
                + (f"did you mean `{match}`?" if match else f"one of {', '.join(TRUTHS)}")
            )
    return list(names) if names else None


def _file(arguments: argparse.Namespace, truths: list[str] | None, terminal: Terminal) -> int:
    from axon_compose.proof.check import check as run_checks
    from axon_compose.report._check import check_text

    architecture = load_file(arguments.file, arguments)
    report = run_checks(
        architecture, seed=arguments.seed, truths=truths, as_is=arguments.as_is, devices=arguments.devices
    )
    return terminal.result(check_text(report, terminal.style), report.to_dict(), ok=report.passed)


def _layer(arguments: argparse.Namespace, truths: list[str] | None, terminal: Terminal) -> int:
    from axon_compose.testing import Unmakeable, layer_cases
    from axon_compose.testing._report import case_text, cases_verdict

    options = None if arguments.options is None else _options(arguments)
    found = []
    try:
        number = arguments.cases or (_CASES if options is None else 1)
        for case in layer_cases(arguments.layer, options, cases=number, seed=arguments.seed, truths=truths):
            found.append(case)
            terminal.part(case_text(case, terminal.style))
    except Unmakeable as error:
        return terminal.fail(Diagnostic("AX500", str(error)))
    except ValueError as error:  # a kind that stands in no model
        return terminal.fail(Diagnostic("AX500", f"`{arguments.layer}`: {error}"))
    passed = all(case.report.passed for case in found)
    data = {"type": arguments.layer, "passed": passed, "cases": [case.to_dict() for case in found]}
    return terminal.result(cases_verdict(arguments.layer, found), data, ok=passed)


def _options(arguments: argparse.Namespace) -> Mapping[str, Any]:
    try:
        options = json.loads(arguments.options)
    except (ValueError, RecursionError) as error:
        arguments.error(f"--options is not JSON: {error}")
    if not isinstance(options, dict):
        arguments.error("--options is a JSON object such as '{\"num_heads\": 4}'")
    if "type" in options:
        arguments.error("--options takes the options of the type; the type itself is given by --layer")
    return {str(name): value for name, value in options.items()}
