"""`train`: a description and texts, or a task, to a folder with a model that has learned."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from shlex import quote
from typing import Any

from axon_compose.checkpoints.places import is_model_folder
from axon_compose.cli._learning import drawn, run_options, stopped, texts_of
from axon_compose.cli._source import load_file
from axon_compose.cli._terminal import USAGE, Terminal
from axon_compose.cli._training_lines import Lines
from axon_compose.learn import Recipe
from axon_compose.machine.units import count, human, operations
from axon_compose.report import render

__all__ = ["train"]


def train(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Train a model."""
    from axon_compose.learn import train as run

    try:
        options = run_options(arguments, Recipe())
        teaching = _teaching(arguments)
    except ValueError as error:
        terminal.note(f"error: {error}")
        return USAGE
    if arguments.init is None and is_model_folder(arguments.file):
        arguments.init = arguments.file
    task = _task(arguments)
    architecture = load_file(arguments.file, arguments)
    for warning in architecture.warnings:
        terminal.note(render([warning]))
    lines = Lines(terminal)
    outcome = run(
        architecture,
        task or texts_of(arguments),
        arguments.out,
        init=arguments.init,
        freeze=arguments.freeze,
        teaching=teaching,
        fully_shard=arguments.fully_shard,
        report_to=arguments.report_to,
        project=arguments.project,
        listeners=[lines],
        pages=lambda history: _pages(architecture.name, history),
        progress=lines.preparing,
        **options,
    )
    lines.close()
    text = _text(architecture.name, outcome, task)
    code = terminal.result(text, outcome.to_dict())
    folder = quote(str(outcome.out))
    if not outcome.finished:
        return stopped(terminal)
    if task:
        terminal.note(f"go on:\n  axon-compose train {folder} --task {quote(str(task))} --out DIR")
    else:
        terminal.note(
            f"run it:\n  mlx_lm.generate --model {folder} --trust-remote-code --prompt 'The '\n"
            f"  axon-compose train {folder} --data TEXT --out DIR"
        )
    return code


def _task(arguments: argparse.Namespace) -> Any:
    """The task, if there is one; a model without weights gets as many tokens, unless `--set` says how many."""
    if arguments.task is None:
        return None
    from axon_compose.learn import read_task

    if arguments.tokenizer or arguments.length:
        arguments.error("arguments --tokenizer and --length are for --data: a task has its own")
    task = read_task(arguments.task)
    if arguments.init is None:
        arguments.settings = [f"dims.vocab_size={task.vocab_size}", *arguments.settings]
    return task


def _teaching(arguments: argparse.Namespace) -> Any:
    """The teacher, if there is one.

    Raises:
        ValueError: If what is said of it is out of range.
    """
    said = {"weight": arguments.teacher_weight, "temperature": arguments.temperature}
    given = {name: value for name, value in said.items() if value is not None}
    if arguments.teacher is None:
        if given or arguments.teacher_layers:
            raise ValueError("`--teacher-weight`, `--temperature` and `--teacher-layers` need a `--teacher`")
        return None
    from axon_compose.checkpoints.trained import load_model
    from axon_compose.learn import Teaching
    from axon_compose.learn.distilling import pairs_of

    pairs = pairs_of(arguments.teacher_layers)
    teacher = load_model(arguments.teacher)
    return Teaching(teacher, layers=pairs, **given)


def _pages(name: str, history: Any) -> Mapping[str, bytes]:
    """The curves of a run, where there is something to draw."""
    if sum(1 for _ in history.of("step")) < 2:
        return {}
    from axon_compose.report.draw import training_page, training_picture

    lines = history.lines
    return drawn(lambda: {"curves.html": training_page(name, lines), "loss.svg": training_picture(lines)})


def _text(name: str, outcome: Any, task: Any) -> str:
    minutes, seconds = divmod(round(outcome.seconds), 60)
    time = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    lines = [
        f"{name}: {outcome.steps:,} steps, {count(outcome.tokens)} tokens in {time}, "
        f"{operations(outcome.flops)}FLOPs, {human(outcome.peak_memory)} of memory"
    ]
    if outcome.held_out is not None:
        bits = "" if outcome.bits_per_byte is None else f", {outcome.bits_per_byte:.3f} bits per byte"
        lines.append(f"held-out loss {outcome.held_out:.3f}{bits}")
    if outcome.accuracy is not None:
        lines.append(f"{task}: {outcome.accuracy:.1%} of answers right; a blind answer gets {task.chance:.1%}")
    lines.append(f"wrote {outcome.out}")
    return "\n".join(lines) + "\n"
