"""`race`: which of these learns it better, at what cost?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from axon_compose.cli._page import Page
from axon_compose.cli._terminal import Terminal
from axon_compose.machine.interrupts import INTERRUPTED
from axon_compose.machine.launched import launched_rank
from axon_compose.report._race import race_text

if TYPE_CHECKING:
    from axon_compose.learn.race import RaceResult

__all__ = ["race"]


def race(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Race the models, print what came out, and write the page."""
    arguments.output = None if launched_rank() else arguments.output  # the first process writes the page
    page = Page(arguments)
    from axon_compose.learn.race import Contender, Settings
    from axon_compose.learn.race import race as run

    if arguments.task is not None and arguments.data:
        arguments.error("argument --data: not allowed with argument --task")
    if not arguments.data and (arguments.tokenizer or arguments.length):
        arguments.error("arguments --tokenizer and --length are for --data: a task has its own")
    terms = _given(arguments, "seeds", "rates", "batch", "match", "scale")
    try:
        Settings(arguments.budget, **terms)
    except ValueError as error:
        arguments.error(str(error))
    found = run(
        [Contender(file, tuple(arguments.settings)) for file in arguments.files],
        budget=arguments.budget,
        folder=arguments.folder,
        progress=None if terminal.as_json else terminal.race,
        **_given(arguments, "task", "data", "tokenizer", "length"),
        **terms,
    )
    wrote, more = page.write(f"{len(found.entrants)} models", lambda suffix: _drawn(found, suffix))
    if not found.finished:
        again = "the same command goes on" if arguments.folder else "with `--folder DIR` it could go on"
        terminal.note(f"stopped: {again}")
    code = terminal.result(race_text(found, terminal.style) + wrote, found.to_dict() | more, ok=found.finished)
    return code if found.finished else INTERRUPTED


def _given(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The flags that were given, of some; what the others stand for is said where it is used."""
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}


def _drawn(found: RaceResult, suffix: str) -> str:
    from axon_compose.report.draw import race_page, race_picture

    return race_page(found) if suffix == ".html" else race_picture(found)
