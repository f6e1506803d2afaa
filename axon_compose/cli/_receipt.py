"""`receipt`: what an edit has done to a model."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from axon_compose.cli._page import Page
from axon_compose.cli._terminal import Terminal

if TYPE_CHECKING:
    from axon_compose.surgery import Receipt

__all__ = ["receipt"]


def receipt(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Compare an edited model with its source on a text, and write the page."""
    page = Page(arguments, charts=(".html",))
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
    wrote, more = page.write(f"{len(found.layers)} layers", lambda suffix: _drawn(found, suffix))
    return terminal.result(receipt_text(found, terminal.style) + wrote, found.to_dict() | more)


def _drawn(found: Receipt, suffix: str) -> str:
    from axon_compose.report.draw import receipt_page, receipt_picture

    return receipt_page(found) if suffix == ".html" else receipt_picture(found)
