"""`completion`: what a shell completes after `axon-compose`, as a script that shtab writes."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, Final

from axon_compose.cli._terminal import Terminal
from axon_compose.diagnostics.codes import CODES
from axon_compose.machine.libraries import require_library
from axon_compose.registry import Registry

__all__ = ["completion"]

#: Functions of a shell that complete words and files: for the FILE of a command, which may be a name.
_BASH: Final = """
_axon_compose_model() {{
  compgen -W "{names}" -- "$1"
  _shtab_compgen_files "$1"
}}
_axon_compose_type() {{ compgen -W "{types}" -- "$1"; }}
_axon_compose_code() {{ compgen -W "{codes}" -- "$1"; }}
"""
_ZSH: Final = """
_axon_compose_model() {{ _alternative 'architectures:architecture:({names})' 'files:file:_files' }}
_axon_compose_type() {{ _values 'type' {types} }}
_axon_compose_code() {{ _values 'code' {codes} }}
"""
_MODEL: Final = {"bash": "_axon_compose_model", "zsh": "_axon_compose_model", "tcsh": "f"}
_TYPE: Final = {"bash": "_axon_compose_type", "zsh": "_axon_compose_type"}
_CODE: Final = {"bash": "_axon_compose_code", "zsh": "_axon_compose_code"}


def completion(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Print the script for a shell; names are those that are installed now."""
    require_library("shtab", "shtab", "completion")
    import shtab

    from axon_compose.cli._parser import make_parser

    parser = make_parser()
    files = {"DIR": shtab.DIRECTORY, "PICTURE": shtab.FILE, "PAGE.html": shtab.FILE}
    _mark(parser, {"FILE": _MODEL, "A": _MODEL, "B": _MODEL, "TYPE": _TYPE, "CODE": _CODE, **files})
    registry = Registry.installed()
    words = {
        "names": " ".join(name.removeprefix("core/") for name in sorted(registry.architectures())),
        "types": " ".join(name.removeprefix("core/") for name in registry.components()),
        "codes": " ".join(CODES),
    }
    preamble = {"bash": _BASH.format(**words), "zsh": _ZSH.format(**words)}
    script = shtab.complete(parser, arguments.shell, preamble=preamble)
    return terminal.result(script + "\n", None)


def _mark(parser: argparse.ArgumentParser, completers: Mapping[str, Mapping[str, Any]]) -> None:
    """Say of every argument with what it is completed, by what its value is called."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _mark(command, completers)
        elif isinstance(action.metavar, str) and action.metavar in completers:
            action.complete = completers[action.metavar]  # type: ignore[attr-defined]  # shtab looks for it
