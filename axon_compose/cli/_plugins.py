"""`schema`, `plugins` and `new-plugin`."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from axon_compose.cli._streams import put
from axon_compose.cli._terminal import FAULTY, OK, Terminal
from axon_compose.machine.files import check_output, read_regular, write_output
from axon_compose.registry import Registry
from axon_compose.report import table

__all__ = ["new_plugin", "plugins", "schema"]


def schema(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Print, write or compare the JSON Schema of the language with the components that are installed."""
    from axon_compose.language.schema import PUBLISHED_NAME, architecture_schema, dumps
    from axon_compose.registry._data_files import data_dir

    if arguments.output and not arguments.check:
        check_output(Path(arguments.output), arguments.force)
    name, make = PUBLISHED_NAME, architecture_schema
    if arguments.edits:
        from axon_compose.surgery.schema import EDIT_SCHEMA_NAME, edit_schema

        name, make = EDIT_SCHEMA_NAME, edit_schema
    text = dumps(make(Registry.installed(), published=arguments.published))
    if arguments.check:
        return _compare(text, Path(arguments.output) if arguments.output else data_dir("schemas") / name, terminal)
    if arguments.output:
        write_output(Path(arguments.output), text.encode(), arguments.force)
        terminal.note(f"wrote {arguments.output}")
        return OK
    put(text)
    return OK


def _compare(text: str, path: Path, terminal: Terminal) -> int:
    if read_regular(path) == text.encode():
        terminal.note(f"{path} is up to date")
        return OK
    terminal.note(f"{path} differs from what `axon-compose schema` makes; write it again with `-o` and `--force`")
    return FAULTY


def plugins(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """List every plugin, also those that cannot be used."""
    statuses = Registry.installed().statuses()
    rows = [["plugin", "distribution", "status", "components"]]
    for status in statuses:
        what = ", ".join(name.partition("/")[2] for name in status.components) or status.cause
        rows.append([status.namespace, f"{status.distribution} {status.version}", status.status, what])
    text = "\n".join(table(rows, "<<<<", indent=0, style=terminal.style)) + "\n"
    return terminal.result(text, [asdict(status) for status in statuses])


def new_plugin(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Write a package with a layer of one's own."""
    from axon_compose.scaffold import new_plugin as render

    files = render(arguments.name, Path(arguments.directory))
    text = "".join(f"{file}\n" for file in files)
    code = terminal.result(text, [str(file) for file in files])
    if not terminal.as_json:
        terminal.note("next: `pip install -e` that folder, then run its tests with pytest")
    return code
