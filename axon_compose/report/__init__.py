"""Everything that people and programs read: diagnostics, tables, JSON; imports no mlx."""

from axon_compose.report._cells import escape
from axon_compose.report._diagnostics import FORMS, Form, as_dicts, render
from axon_compose.report._envelope import ENVELOPE_VERSION, envelope
from axon_compose.report._show import describe_cache, show_data, show_text
from axon_compose.report._style import PLAIN, Style
from axon_compose.report._table import table

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
