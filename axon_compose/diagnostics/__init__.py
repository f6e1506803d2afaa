"""Faults as data: a span, a code, a message, notes and help; what each code means is in `diagnostics.codes`.

What comes in: nothing. What goes out: `Diagnostic`, the collector `Problems`, and the exceptions that carry them. It
never prints: rendering is the business of `axon_compose.report`.
"""

from axon_compose.diagnostics._faults import (
    ArchitectureError,
    CheckpointError,
    Diagnostic,
    Flood,
    Label,
    Position,
    Problems,
    Refusal,
    Span,
    nearest,
)

__all__ = [
    "ArchitectureError",
    "CheckpointError",
    "Diagnostic",
    "Flood",
    "Label",
    "Position",
    "Problems",
    "Refusal",
    "Span",
    "nearest",
]
