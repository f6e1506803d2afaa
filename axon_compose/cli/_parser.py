"""The parser: its commands in the order of the help, each with the flags of its module."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from axon_compose.cli._building_flags import add_building
from axon_compose.cli._commands import Run
from axon_compose.cli._counting_flags import add_counting, add_timing
from axon_compose.cli._describing_flags import add_catalogue, add_looking, add_reading
from axon_compose.cli._plugin_flags import add_plugins
from axon_compose.cli._proving_flags import add_proving
from axon_compose.cli._race_flags import add_race
from axon_compose.cli._streams import note, put
from axon_compose.cli._surgery_flags import add_edit, add_heal, add_receipt
from axon_compose.cli._terminal import OK, Terminal
from axon_compose.cli._training_flags import add_training
from axon_compose.diagnostics import nearest

__all__ = ["make_parser"]

_EPILOG = """\
FILE is a YAML file, the name of a shipped architecture such as `hybrid-demo`, a folder with a model, or `-` for
standard input.
A folder that has the name of a shipped architecture is written with its path: `./hybrid-demo`.
Exit codes: 0 ok, 1 the file has errors or a check failed, 2 wrong usage or a file that cannot be read or written.
"""


class _Parser(argparse.ArgumentParser):
    """Help and versions are results: that they cannot be written is not passed over."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is sys.stdout:
            put(message, now=True)
        else:
            note(message)


def make_parser() -> argparse.ArgumentParser:
    """The parser of `axon-compose`; each command leaves its function in `run`, and in `error` that of wrong usage."""
    from axon_compose import __version__

    formatter = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="axon-compose",
        description="Compile a YAML file to a working MLX language model.",
        epilog=_EPILOG,
        formatter_class=formatter,
        allow_abbrev=False,
    )
    parser.suggest_on_error = True  # type: ignore[attr-defined]  # older interpreters ignore it
    parser.add_argument("--version", action="version", version=f"axon-compose {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, run: Run, summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=summary, description=summary, formatter_class=formatter, allow_abbrev=False
        )
        added.set_defaults(run=run, error=added.error)
        return added

    for add in (
        add_reading, add_counting, add_timing, add_looking, add_catalogue, add_building, add_proving, add_race,
        add_training, add_edit, add_receipt, add_heal, add_plugins,
    ):  # fmt: skip
        add(command)
    command("help", _help(parser, commands.choices), "show this text, or that of a command").add_argument(
        "about", nargs="?", metavar="COMMAND"
    )
    return parser


def _help(parser: argparse.ArgumentParser, commands: Mapping[str, argparse.ArgumentParser]) -> Run:
    def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
        about = arguments.about
        if about is not None and about not in commands:
            near = nearest(about, commands)
            arguments.error(f"there is no command `{about}`" + (f"; did you mean `{near}`?" if near else ""))
        terminal.part((commands[about] if about else parser).format_help())
        return OK

    return run
