"""`receipt`: what an edit has done to a model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from axon_compose.cli._terminal import Terminal
from axon_compose.machine.files import check_output, write_output
from axon_compose.machine.units import human

__all__ = ["receipt"]


def receipt(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Compare an edited model with its source on a text, and write the page."""
    target = Path(arguments.output) if arguments.output else None
    if target:
        if target.suffix == ".html":
            from axon_compose.report.draw import require_charts

            require_charts()
        check_output(target, arguments.force)
    from axon_compose.report._receipt import receipt_text
    from axon_compose.surgery import receipt_of
    from axon_compose.surgery.texts import PYTHON_DOCS

    found = receipt_of(
        arguments.source,
        arguments.edited,
        text=arguments.text or PYTHON_DOCS,
        tokenizer=arguments.tokenizer,
        sequences=arguments.sequences,
        length=arguments.length,
        dtype=arguments.dtype,
        allow_large=arguments.allow_large,
    )
    said, data = receipt_text(found, terminal.style), found.to_dict()
    if target:
        size = _write(found, target, arguments.force)
        said += f"\nwrote {target}: {len(found.layers)} layers, {human(size)}\n"
        data |= {"file": str(target), "bytes": size}
    return terminal.result(said, data)


def _write(found: Any, target: Path, force: bool) -> int:
    from axon_compose.report.draw import apart, receipt_page, receipt_picture

    with apart():
        data = (receipt_page if target.suffix == ".html" else receipt_picture)(found).encode()
    write_output(target, data, force)
    return len(data)
