"""The page or picture that commands write beside their text: refused before the work, drawn after it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from axon_compose.machine.files import check_output, write_output
from axon_compose.machine.units import human

__all__ = ["Page"]


class Page:
    """What `--output` names, if it was given.

    Args:
        arguments: Of the command; with `force` too.
        charts: Suffixes of what matplotlib draws.

    Raises:
        Refusal: AX506 matplotlib is missing; AX507 the file must not be replaced.
    """

    def __init__(self, arguments: argparse.Namespace, charts: Collection[str] = (".html", ".svg")) -> None:
        self.target, self.force = Path(arguments.output) if arguments.output else None, arguments.force
        if self.target is None:
            return
        if self.target.suffix in charts:
            from axon_compose.report.draw import require_charts

            require_charts()
        check_output(self.target, self.force)

    def write(self, holds: str, draw: Callable[[str], str]) -> tuple[str, dict[str, Any]]:
        """Write the file, if there is one to write.

        Args:
            holds: What it shows, such as `3 models`.
            draw: Given the suffix, what to write.

        Returns:
            What the text and the JSON of the result say of it.
        """
        if self.target is None:
            return "", {}
        from axon_compose.report.draw import apart

        with apart():
            data = draw(self.target.suffix).encode()
        write_output(self.target, data, self.force)
        said = f"\nwrote {self.target}: {holds}, {human(len(data))}\n"
        return said, {"file": str(self.target), "bytes": len(data)}
