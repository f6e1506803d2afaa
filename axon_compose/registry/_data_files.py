"""Where the shipped architectures and schemas are: package data in a wheel, the checkout otherwise."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

__all__ = ["data_dir"]


def data_dir(kind: Literal["architectures", "schemas"]) -> Path:
    """The folder with the shipped files of a kind; in a checkout edits are live."""
    package = _package(__file__)
    shipped = package / "_data" / kind
    return shipped if shipped.is_dir() else package.parent / kind


@lru_cache
def _package(file: str) -> Path:
    """Found once: every look-up of a name asks."""
    return Path(file).resolve().parents[1]
