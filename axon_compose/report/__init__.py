"""Everything that people and programs read: diagnostics, tables, JSON; imports no mlx."""

from typing import TYPE_CHECKING

from axon_compose.machine.lazy import importing
from axon_compose.report._cells import escape
from axon_compose.report._diagnostics import FORMS, Form, as_dicts, render
from axon_compose.report._envelope import ENVELOPE_VERSION, envelope
from axon_compose.report._style import PLAIN, Style
from axon_compose.report._table import table

if TYPE_CHECKING:
    from axon_compose.report._show import describe_cache, show_data, show_text

__all__ = [
    "ENVELOPE_VERSION",
    "FORMS",
    "PLAIN",
    "Form",
    "Style",
    "as_dicts",
    "describe_cache",
    "envelope",
    "escape",
    "render",
    "show_data",
    "show_text",
    "table",
]

# What shows plans is imported when it is asked for: `--help` and a usage error need no plan.
__getattr__ = importing(__name__, dict.fromkeys(("describe_cache", "show_data", "show_text"), "_show"))
