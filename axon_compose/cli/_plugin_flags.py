"""The flags of the commands for authors of plugins, and of the completion of a shell."""

from __future__ import annotations

from axon_compose.cli._arguments import as_json, output
from axon_compose.cli._commands import Command, lazily

__all__ = ["add_plugins"]


def add_plugins(command: Command) -> None:
    """Add `schema`, `plugins`, `completion` and `new-plugin`."""
    schema = command("schema", lazily("_plugins", "schema"), "print the JSON Schema of everything installed")
    output(schema, "FILE", "write it to a file")
    schema.add_argument("--force", action="store_true", help="replace the file")
    schema.add_argument("--check", action="store_true", help="compare the file with what would be written")
    schema.add_argument("--published", action="store_true", help="only the built-in components, as shipped")
    schema.add_argument("--edits", action="store_true", help="that of edit files, instead of architectures")
    plugins = command("plugins", lazily("_plugins", "plugins"), "list the installed plugins and what became of them")
    as_json(plugins)
    shell = command("completion", lazily("_completion", "completion"), "print a script that completes commands")
    shell.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="the shell that reads it")
    new = command("new-plugin", lazily("_plugins", "new_plugin"), "write a package with a layer of your own")
    new.add_argument("name", metavar="NAME", help="its namespace, such as `acme`")
    new.add_argument("--directory", default=".", metavar="DIR", help="where its folder is made (default: here)")
    as_json(new)
