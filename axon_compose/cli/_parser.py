"""The parser: its commands in the order of the help, each with the flags of its module.

All flags together take a tenth of `validate`, so a command that is named gets only those of its module.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from axon_compose.cli._commands import Command, Run
from axon_compose.cli._imports import kept
from axon_compose.cli._streams import note, put
from axon_compose.cli._terminal import OK, Terminal
from axon_compose.diagnostics import nearest
from axon_compose.machine.terminal import columns

__all__ = ["FLAGS", "make_parser"]

#: What adds commands with their flags, in the order of the help: the function, and the names of the commands.
FLAGS: Final = {
    "_describing_flags:add_reading": "validate show",
    "_counting_flags:add_counting": "cost compare",
    "_counting_flags:add_timing": "bench doctor",
    "_describing_flags:add_looking": "diff draw lint",
    "_describing_flags:add_catalogue": "list describe explain",
    "_building_flags:add_building": "build import export",
    "_proving_flags:add_proving": "check verify",
    "_race_flags:add_race": "race",
    "_training_flags:add_training": "train",
    "_surgery_flags:add_edit": "edit",
    "_surgery_flags:add_receipt": "receipt",
    "_surgery_flags:add_heal": "heal",
    "_plugin_flags:add_plugins": "schema plugins completion new-plugin",
}

_EPILOG = """\
FILE is a YAML file, the name of a shipped architecture such as `hybrid-demo`, a folder with a model, or `-` for
standard input.
A folder that has the name of a shipped architecture is written with its path: `./hybrid-demo`.
Exit codes: 0 ok, 1 the file has errors or a check failed, 2 wrong usage or a file that cannot be read or written.
"""


class _Parser(argparse.ArgumentParser):
    """Help and versions are results: that they cannot be written is not passed over."""

    def _get_formatter(self) -> argparse.HelpFormatter:
        """Made with every flag that is added."""
        return self.formatter_class(prog=self.prog, width=columns(80) - 2)  # type: ignore[call-arg]

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is sys.stdout:
            put(message, now=True)
        else:
            note(message)


def make_parser(argv: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser of `axon-compose`; each command leaves its function in `run`, and in `error` that of wrong usage.

    Args:
        argv: What will be parsed. If it begins with a command, the parser knows those that are added with it alone.
    """
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

    named = [place for place, names in FLAGS.items() if argv and argv[0] in names.split()]
    for place in named or FLAGS:
        _adding(place)(command)
    command("help", _help(parser, commands.choices), "show this text, or that of a command").add_argument(
        "about", nargs="?", metavar="COMMAND"
    )
    return parser


def _adding(place: str) -> Callable[[Command], None]:
    module, _, name = place.partition(":")
    with kept():
        add: Callable[[Command], None] = getattr(import_module(f"axon_compose.cli.{module}"), name)
    return add


def _help(parser: argparse.ArgumentParser, commands: Mapping[str, argparse.ArgumentParser]) -> Run:
    def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
        about = arguments.about
        if about is not None and about not in commands:
            near = nearest(about, commands)
            arguments.error(f"there is no command `{about}`" + (f"; did you mean `{near}`?" if near else ""))
        terminal.part((commands[about] if about else parser).format_help())
        return OK

    return run
