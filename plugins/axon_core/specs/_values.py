"""Names of values that the token embedding publishes besides per-layer inputs."""

from __future__ import annotations

from typing import Final

__all__ = ["TOKENS"]

#: The tokens themselves, (B, L) integers.
TOKENS: Final = "tokens"
