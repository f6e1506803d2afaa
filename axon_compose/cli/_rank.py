"""`edit --rank`: which layers can be changed at the least harm?"""

from __future__ import annotations

import argparse
from pathlib import Path
from shlex import quote

from axon_compose.cli._terminal import Terminal
from axon_compose.language.source import to_yaml
from axon_compose.machine.files import check_output, write_output
from axon_compose.surgery import rank as run
from axon_compose.surgery.texts import PYTHON_DOCS

__all__ = ["rank"]


def rank(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Try a change in each layer alone, and write the edit that is proposed."""
    from axon_compose.report._ranking import ranking_text

    target = Path(arguments.out) if arguments.out else None
    if target:
        if target.suffix not in (".yaml", ".yml"):
            arguments.error("argument -o/--out: with --rank it is the edit file to write, a .yaml")
        check_output(target, arguments.force)
    found = run(
        arguments.edits,
        arguments.rank,
        weights=arguments.weights,
        text=arguments.text or PYTHON_DOCS,
        sequences=arguments.sequences,
        length=arguments.length,
        context=arguments.context,
        budget=arguments.cache,
        progress=None if terminal.as_json else terminal.layers,
    )
    text = ranking_text(found, terminal.style)
    if target:
        write_output(target, to_yaml(found.edit).encode(), arguments.force)
        text += f"\nwrote {target}\n"
        terminal.note(f"go on:\n  axon-compose edit {quote(str(target))} --out DIR")
    return terminal.result(text, found.to_dict())
