"""Where the shipped architectures and schemas are: package data in a wheel, the checkout otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

__all__ = ["data_dir"]


def data_dir(kind: Literal["architectures", "schemas"]) -> Path:
    """The folder with the shipped files of a kind; in a checkout edits are live."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "_data" / kind
    return shipped if shipped.is_dir() else package.parent / kind
