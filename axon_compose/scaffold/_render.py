"""Fill in the template: every file or none."""

from __future__ import annotations

import os
import re
from importlib.metadata import version
from pathlib import Path
from typing import Final

from axon_compose.checkpoints.files import CheckpointError, atomic_folder

__all__ = ["ScaffoldError", "new_plugin"]

_TEMPLATE: Final = Path(__file__).resolve().parent / "template"
_NAME: Final = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_FIELD: Final = re.compile(r"\{\{(\w+)\}\}")
#: Files of the template end in this, so that no tool takes them for what they will become.
_SUFFIX: Final = ".in"


class ScaffoldError(OSError):
    """A package that cannot be written; the text is one line."""


def new_plugin(name: str, directory: str | Path = ".") -> list[Path]:
    """Write a plugin package `axon-NAME` that installs, passes its tests, and is meant to be changed.

    Args:
        name: The namespace of its types in YAML, e.g. `acme` for `acme/gated_mean`; a leading `axon-` is dropped.
        directory: The folder in which the package's folder is made.

    Returns:
        The files that were written, in order.

    Raises:
        ScaffoldError: The name cannot be one, the package's folder is there already, or it cannot be written;
            then nothing is left behind.
    """
    values = _values(name)
    files = _rendered(values)
    target = Path(directory) / values["distribution"]
    if os.path.lexists(target):
        raise ScaffoldError(f"`{target}` is there already; nothing was written")
    try:
        with atomic_folder(target) as partial:
            for path, text in files.items():
                file = partial / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
    except CheckpointError as error:
        cause = error.__cause__
        reason = cause.strerror or cause if isinstance(cause, OSError) else error.message
        raise ScaffoldError(f"`{target}` cannot be written: {reason}") from error
    return [target / path for path in files]


def _values(name: str) -> dict[str, str]:
    """What the fields of the template stand for."""
    name = name.removeprefix("axon-").removeprefix("axon_")
    if not _NAME.fullmatch(name):
        raise ScaffoldError(f"`{name}` cannot be the name of a plugin: small letters, digits and single `-` or `_`")
    if name in ("core", "compose"):
        raise ScaffoldError(f"the name `{name}` belongs to axon-compose")
    distribution = f"axon-{name.replace('_', '-')}"
    package = distribution.replace("-", "_")
    return {"name": name, "distribution": distribution, "package": package, "version": version("axon-compose")}


def _rendered(values: dict[str, str]) -> dict[Path, str]:
    """Path inside the package's folder to text."""
    files = {}
    for source in sorted(_TEMPLATE.rglob(f"*{_SUFFIX}")):
        path = str(source.relative_to(_TEMPLATE)).removesuffix(_SUFFIX)
        path = path.replace("PACKAGE", values["package"]).replace("NAME", values["name"])
        text = source.read_text(encoding="utf-8")
        files[Path(path)] = _FIELD.sub(lambda match: values[match[1]], text)
    return files
