"""The error of everything that has to do with folders, weights and room for them."""

from __future__ import annotations

from axon_compose.diagnostics import Refusal

__all__ = ["CheckpointError"]


class CheckpointError(Refusal):
    """A folder that cannot be written or read, or a model that does not fit."""
