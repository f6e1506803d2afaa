"""`edit`: an edit file to its plan, and to a folder with the new model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from axon_compose.checkpoints.files import read_build
from axon_compose.cli._terminal import Terminal
from axon_compose.diagnostics import CheckpointError
from axon_compose.language.source import MAX_BYTES
from axon_compose.machine.units import count, human
from axon_compose.plan import Text, total_parameters
from axon_compose.report import render
from axon_compose.report._receipt import receipt_text
from axon_compose.report._surgery import surgery_text
from axon_compose.surgery import SurgeryPlan, plan_edit
from axon_compose.surgery._plan import TEXTS

if TYPE_CHECKING:
    from axon_compose.surgery import Receipt

__all__ = ["edit"]


def edit(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Plan an edit, and do it where there is a folder to write."""
    if arguments.rank is not None:
        from axon_compose.cli._rank import rank

        return rank(arguments, terminal)
    source = arguments.edits
    if source == "-":
        source = Text(sys.stdin.buffer.read(MAX_BYTES + 1), "<stdin>", Path.cwd())
    plan = plan_edit(
        source,
        arguments.weights,
        dtype=arguments.dtype,
        seed=arguments.seed,
        texts=tuple(arguments.text or TEXTS),
        allow_large=arguments.allow_large,
    )
    for warning in plan.edited.warnings:
        terminal.note(render([warning], plan.edited.sources))
    if arguments.plan or arguments.out is None:
        return terminal.result(surgery_text(plan, terminal.style), plan.to_dict())
    return _written(plan, arguments, terminal)


def _receipt(plan: SurgeryPlan, folder: Path, arguments: argparse.Namespace, terminal: Terminal) -> Receipt | None:
    """What the edit has done to the model, where it can be said."""
    from axon_compose.surgery import receipt_of

    assert plan.weights is not None
    options: dict[str, Any] = {
        "description": plan.source,
        "allow_large": arguments.allow_large,
        "sequences": arguments.sequences,
        "length": arguments.length,
    }
    try:
        return receipt_of(plan.weights, folder, text=plan.texts, **options)
    except CheckpointError as error:
        terminal.note(f"no receipt: {error.message}")
        return None


def _written(plan: SurgeryPlan, arguments: argparse.Namespace, terminal: Terminal) -> int:
    from axon_compose.surgery import perform

    terminal.part(surgery_text(plan, terminal.style) + "\n")
    folder = perform(
        plan,
        arguments.out,
        tokenizer=arguments.tokenizer,
        force=arguments.force,
        allow_large=arguments.allow_large,
        progress=terminal.progress,
    )
    model = plan.edited.plan()
    size = human(sum(step.nbytes for step in plan.steps))
    parameters = count(total_parameters(model))
    text = f"wrote {folder}: {model.name}, {len(model.layers)} layers, {parameters} parameters, {size}\n"
    for note in read_build(folder)["notes"]:
        terminal.note(f"note: {note}")
    receipt = None if arguments.no_receipt else _receipt(plan, folder, arguments, terminal)
    said = "" if receipt is None else "\n" + receipt_text(receipt, terminal.style)
    data = {"out": str(folder), **plan.to_dict(), "receipt": None if receipt is None else receipt.to_dict()}
    code = terminal.result(text + said, data)
    teacher = quote(str(plan.weights))
    terminal.note(
        f"run it:\n  mlx_lm.generate --model {quote(str(folder))} --trust-remote-code --prompt 'Hello'\n"
        f"heal it:\n  axon-compose heal {quote(str(folder))} --teacher {teacher} --data TEXT --out DIR"
    )
    return code
