"""`race`: which of these learns it better, at what cost?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from axon_compose.cli._terminal import Terminal
from axon_compose.machine.files import check_output, write_output
from axon_compose.machine.interrupts import INTERRUPTED
from axon_compose.machine.units import human
from axon_compose.report._race import race_text

__all__ = ["race"]


def race(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Race the models, print what came out, and write the page."""
    target = Path(arguments.output) if arguments.output else None
    if target:
        from axon_compose.report.draw import require_charts

        require_charts()
        check_output(target, arguments.force)
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
    text, data = race_text(found, terminal.style), found.to_dict()
    if target:
        size = _write(found, target, arguments.force)
        text += f"\nwrote {target}: {len(found.entrants)} models, {human(size)}\n"
        data |= {"file": str(target), "bytes": size}
    if not found.finished:
        again = "the same command goes on" if arguments.folder else "with `--folder DIR` it could go on"
        terminal.note(f"stopped: {again}")
    code = terminal.result(text, data, ok=found.finished)
    return code if found.finished else INTERRUPTED


def _given(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The flags that were given, of some; what the others stand for is said where it is used."""
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}


def _write(found: Any, target: Path, force: bool) -> int:
    from axon_compose.report.draw import apart, race_page, race_picture

    with apart():
        data = (race_page if target.suffix == ".html" else race_picture)(found).encode()
    write_output(target, data, force)
    return len(data)
