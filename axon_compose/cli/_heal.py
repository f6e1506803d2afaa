"""`heal`: an edited model learns to be the one that it was made of."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from math import inf
from shlex import quote
from typing import Any

from axon_compose.cli._learning import drawn, run_options, stopped, texts_of
from axon_compose.cli._terminal import USAGE, Terminal
from axon_compose.cli._training_lines import Lines
from axon_compose.surgery.recipe import RECIPE

__all__ = ["heal"]


def heal(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Heal a model."""
    try:
        options = run_options(arguments, RECIPE)
    except ValueError as error:
        terminal.note(f"error: {error}")
        return USAGE
    if not 0 < arguments.temperature < inf:
        arguments.error("argument --temperature: it is above 0")
    from axon_compose.report import render
    from axon_compose.report._healed import healed_text
    from axon_compose.surgery import heal as run

    lines = Lines(terminal)
    found = run(
        arguments.edited,
        arguments.teacher,
        texts_of(arguments),
        arguments.out,
        first=arguments.first,
        measured=arguments.measured,
        learn=arguments.learn,
        weight=arguments.teacher_weight,
        temperature=arguments.temperature,
        by_divergence=arguments.learning_rate is None,
        listeners=[lines],
        pages=_pages,
        progress=lines.preparing,
        warn=lambda warning: terminal.note(render([warning])),
        **options,
    )
    lines.close()
    code = terminal.result(healed_text(found, terminal.style), found.to_dict(), found.warnings)
    assert found.outcome is not None  # it has ended
    if not found.outcome.finished:
        return stopped(terminal)
    terminal.note(
        f"run it:\n  mlx_lm.generate --model {quote(str(arguments.out))} --trust-remote-code --prompt 'The '\n"
        f"  axon-compose receipt {quote(arguments.teacher)} {quote(str(arguments.out))}"
    )
    return code


def _pages(healed: Any) -> Mapping[str, bytes]:
    from axon_compose.report.draw import healed_page

    return drawn(lambda: {"healing.html": healed_page(healed)})
