"""What is installed, by the files that installers leave beside packages; no package is imported.

`importlib.metadata` tells the same, but imports the package `email`, a twentieth of all that `validate` does. It is
asked where the path has more than folders.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.machinery import PathFinder

__all__ = ["Distribution", "installed", "normalized"]


class Distribution:
    """One that is installed.

    Args:
        read: Gives the text of a file of its metadata, None if there is none.
    """

    def __init__(self, read: Callable[[str], str | None]) -> None:
        self._read = read

    def text(self, file: str) -> str:
        """A file of its metadata, such as `entry_points.txt`; empty if there is none.

        Raises:
            OSError: It cannot be read.
            UnicodeDecodeError: It is no text.
        """
        return self._read(file) or ""

    def fields(self, name: str) -> list[str]:
        """What its metadata say under a name, such as `Version` or `Requires-Dist`: once, several times or never.

        Raises:
            OSError: They cannot be read.
            UnicodeDecodeError: They are no text.
        """
        head = (self.text("METADATA") or self.text("PKG-INFO")).partition("\n\n")[0]
        lines = (line.partition(":") for line in head.splitlines())
        return [value.strip() for key, _, value in lines if key.lower() == name.lower()]

    def field(self, name: str) -> str:
        """The first of its `fields` of a name; empty if there is none."""
        return next(iter(self.fields(name)), "")


def installed(name: str | None = None) -> Iterator[Distribution]:
    """The distributions on the path, in its order; those of one name if it is given, of which the first counts."""
    if _is_plain():
        yield from (Distribution(partial(_read, folder)) for entry in sys.path for folder in _folders(entry, name))
        return
    from importlib.metadata import distributions

    found = distributions() if name is None else distributions(name=name)
    yield from (Distribution(each.read_text) for each in found)


def normalized(name: str) -> str:
    """A distribution name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_plain() -> bool:
    """Whether all distributions are in folders: there are no archives, and no other finder knows of any."""
    finders = [finder for finder in sys.meta_path if hasattr(finder, "find_distributions")]
    return finders == [PathFinder] and not any(map(os.path.isfile, sys.path))


def _folders(entry: str, name: str | None) -> Iterator[str]:
    """The folders of metadata in one of the path: `axon_compose-0.2.0.dist-info`, or the older `.egg-info`."""
    try:
        children = os.listdir(entry or ".")  # noqa: PTH208  # a path for each child takes as long as all else here
    except OSError:
        return
    for child in children:
        stem, _, kind = child.lower().rpartition(".")
        if child == "EGG-INFO" and entry.endswith(".egg"):
            stem = os.path.basename(entry)  # noqa: PTH119
        elif kind not in ("dist-info", "egg-info"):
            continue
        if name is None or normalized(stem.partition("-")[0]) == normalized(name):
            yield f"{entry or '.'}/{child}"


def _read(folder: str, file: str) -> str | None:
    try:
        with open(f"{folder}/{file}", encoding="utf-8") as stream:  # noqa: PTH123
            return stream.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
