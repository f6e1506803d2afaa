"""What the arguments of commands may be."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Final

__all__ = [
    "PEERS",
    "bandwidth",
    "cases",
    "contexts",
    "length",
    "memory",
    "names",
    "peers",
    "picture",
    "seed",
    "sequences",
    "tolerance",
]

#: What `verify` can compare with; `axon_compose.analysis.PEERS`, which imports mlx.
PEERS: Final = ("mlx-lm", "transformers")


def picture(text: str) -> str:
    """The file of a picture."""
    if Path(text).suffix not in (".svg", ".html", ".png"):
        raise argparse.ArgumentTypeError(f"{text!r} ends in none of .svg, .html, .png")
    return text


def seed(text: str) -> int:
    """A seed."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number < 2**64:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 2^64 - 1")
    return number


def cases(text: str) -> int:
    """A number of cases."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 10000")
    return int(text)


def names(text: str) -> tuple[str, ...]:
    """Names between commas."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",")))


def length(text: str) -> int:
    """A number of tokens."""
    if not text.isascii() or not text.isdigit() or not 2 <= int(text) <= 2**20:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 2 to 2^20")
    return int(text)


def tolerance(text: str) -> float:
    """A difference."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0")
    return number


def peers(text: str) -> tuple[str, ...]:
    """Other implementations."""
    names = tuple(dict.fromkeys(text.split(",")))
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(PEERS)}")
    return names


#: Tokens and sequences at most.
_MANY: Final = 2**40
_UNITS: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}


def contexts(text: str) -> tuple[int, ...]:
    """Numbers of tokens between commas."""
    return tuple(sequences(part) for part in text.split(","))


def sequences(text: str) -> int:
    """A number of sequences, or of tokens."""
    if not re.fullmatch("[0-9]{1,13}", text) or not 1 <= int(text) <= _MANY:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 2^40")
    return int(text)


def memory(text: str) -> int:
    """Bytes, written with a unit."""
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([KMGTP]?)(i?)B?", text, re.IGNORECASE)
    if not match or (match[3] and not match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount of memory such as 16GB or 24GiB")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** _UNITS[match[2].upper()])


def bandwidth(text: str) -> float:
    """Gigabytes a second."""
    number = float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) else 0.0
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of GB/s such as 400")
    return number
