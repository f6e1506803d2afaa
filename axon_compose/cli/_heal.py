"""`heal`: an edited model learns to be the one that it was made of."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from importlib.util import find_spec
from shlex import quote
from typing import Any

from axon_compose.cli._terminal import USAGE, Terminal
from axon_compose.cli._training_flags import options_of
from axon_compose.cli._training_lines import Lines
from axon_compose.learn import Cadence
from axon_compose.machine.interrupts import INTERRUPTED
from axon_compose.surgery.recipe import RECIPE

__all__ = ["heal"]


def heal(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Heal a model."""
    try:
        recipe, cadence = options_of(arguments, RECIPE), options_of(arguments, Cadence())
    except ValueError as error:
        terminal.note(f"error: {error}")
        return USAGE
    from axon_compose.learn import Sources
    from axon_compose.report._healed import healed_text
    from axon_compose.surgery import heal as run

    if not arguments.temperature > 0:
        arguments.error("argument --temperature: it is above 0")
    lines = Lines(terminal)
    found = run(
        arguments.edited,
        arguments.teacher,
        Sources(tuple(arguments.data), arguments.field),
        arguments.out,
        recipe=recipe,
        budget=arguments.budget,
        first=arguments.first,
        learn=arguments.learn,
        weight=arguments.teacher_weight,
        temperature=arguments.temperature,
        cadence=cadence,
        tokenizer=arguments.tokenizer,
        resume=arguments.resume,
        force=arguments.force,
        allow_large=arguments.allow_large,
        listeners=[lines],
        pages=_pages,
        progress=lines.preparing,
    )
    lines.close()
    code = terminal.result(healed_text(found, terminal.style), found.to_dict())
    assert found.outcome is not None  # it has ended
    if not found.outcome.finished:
        terminal.note("stopped; the same command with `--resume` continues where it was")
        return INTERRUPTED
    terminal.note(
        f"run it:\n  mlx_lm.generate --model {quote(str(arguments.out))} --trust-remote-code --prompt 'The '\n"
        f"  axon-compose receipt {quote(arguments.teacher)} {quote(str(arguments.out))}"
    )
    return code


def _pages(healed: Any) -> Mapping[str, bytes]:
    """The page, where there is something to draw it with."""
    if find_spec("matplotlib") is None:
        return {}
    from axon_compose.report.draw import apart, healed_page

    with apart():
        return {"healing.html": healed_page(healed).encode()}
