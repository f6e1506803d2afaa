"""The error of everything that has to do with folders, weights and room for them."""

from __future__ import annotations

from axon_compose.diagnostics import Diagnostic

__all__ = ["CheckpointError"]


class CheckpointError(Exception):
    """A folder that cannot be written or read, or a model that does not fit.

    Attributes:
        code: Stable identifier, e.g. `AX501`.
        message: What is wrong: lower case, no full stop, names in backticks.
        help: What to do, or None.
    """

    def __init__(self, code: str, message: str, help: str | None = None) -> None:  # noqa: A002 (as in `Diagnostic`)
        super().__init__(code, message, help)
        self.code = code
        self.message = message
        self.help = help

    def __str__(self) -> str:
        text = f"error[{self.code}]: {self.message}"
        return f"{text}\n  = help: {self.help}" if self.help else text

    @property
    def diagnostic(self) -> Diagnostic:
        """The same fault as a record, for the renderer."""
        return Diagnostic(self.code, self.message, help=self.help)
