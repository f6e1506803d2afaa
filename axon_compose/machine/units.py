"""Human-readable sizes: bytes, counts, floating-point operations and rates."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["count", "human", "operations", "rate"]

_BYTE_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_COUNT_UNITS: Final = ("", "K", "M", "B", "T")
_FLOP_UNITS: Final = ("", "k", "M", "G", "T", "P", "E", "Z")


def human(nbytes: int) -> str:
    """Bytes to three digits, powers of 1000: `11.5 GB`, `512 B`."""
    return _scaled(nbytes, _BYTE_UNITS, " ")


def count(number: int) -> str:
    """A count to three digits, as in papers: `5.77B`, `200K`, `17`."""
    return _scaled(number, _COUNT_UNITS, "")


def operations(number: int) -> str:
    """Floating-point operations with the prefixes of units, three digits: `2.31 G`, `512`."""
    return _scaled(number, _FLOP_UNITS, " ").rstrip()


def rate(number: float) -> str:
    """A rate to three digits, such as tokens per second, never with an exponent: `11,900`, `45.6`, `0.00123`."""
    if number >= 100:
        return f"{float(f'{number:.3g}'):,.0f}"
    return f"{number:.3g}" if number >= 1e-4 or not number else "< 0.0001"


def _scaled(number: int, units: tuple[str, ...], gap: str) -> str:
    if number < 1000:
        return f"{number}{gap}{units[0]}"
    if number >= 1000 ** len(units):
        return f"10^{int(math.log10(number))}{gap}{units[0]}"
    step = int(math.log10(number)) // 3
    text = f"{number / 1000**step:#.3g}"
    if "e" in text:  # 999.9 rounds up to the next unit
        step, text = step + 1, "1.00"
    if step == len(units):
        return f"10^{3 * step}{gap}{units[0]}"
    return f"{text.rstrip('.')}{gap}{units[step]}"
