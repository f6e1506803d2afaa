"""`bench` and `doctor`: how fast a model is here, and what the machine lacks."""

from __future__ import annotations

import argparse

from axon_compose.cli._source import load_file
from axon_compose.cli._terminal import FAULTY, OK, Terminal
from axon_compose.proof.bench import Contest, Failed, contest, same_weights, workloads
from axon_compose.report import render
from axon_compose.report._contest import contest_text

__all__ = ["bench", "doctor"]


def bench(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Time a model, alone or in turns with other implementations of it."""
    if arguments.quantize and "transformers" in arguments.against:
        arguments.error("argument --quantize: transformers reads no such weights")
    architecture = load_file(arguments.file, arguments)
    if not terminal.as_json:
        for warning in architecture.warnings:
            terminal.note(render([warning]))
    work = workloads(arguments.prompt, arguments.batch, arguments.steps, arguments.rounds, training=arguments.training)
    largest = max(work, key=lambda one: one.batch * (one.prompt + one.steps))
    stored = {"dtype": arguments.dtype, "quantize": arguments.quantize}
    try:
        with same_weights(architecture, arguments.against, largest, **stored) as subjects:
            found = contest(subjects, work, progress=terminal.rounds)
    except Failed as error:
        return terminal.fail_with(str(error))
    from axon_compose.machine.blas import is_reference_blas

    device = next((one.device for one, *_ in found if one.device), "cpu")
    slow = device == "cpu" and is_reference_blas()
    settings = {**stored, "device": device, "blas": "reference" if slow else None}
    result = Contest.of(architecture.name, settings, work, found)
    ok = not any(measurements[0].fault for measurements in found)
    code = terminal.result(contest_text(result, terminal.style), result.to_dict(), architecture.warnings, ok=ok)
    return OK if ok else code


def doctor(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Print what was found, each line as soon as it is known, and what to do."""
    from axon_compose.proof.doctor import examine

    findings = []
    for finding in examine():
        findings.append(finding)
        terminal.part(f"{terminal.style.bold(f'{finding.name:<11}')} {finding.value}\n")
        for line in finding.advice.splitlines():
            terminal.part(f"{'':<11} → {line}\n")
    broken = any(finding.broken for finding in findings)
    if terminal.as_json:
        terminal.result("", {"findings": [finding.to_dict() for finding in findings]}, ok=not broken)
    return FAULTY if broken else OK
