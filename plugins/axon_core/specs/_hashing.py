"""What hashes of n-grams are made of: tokens, odd multipliers, and prime numbers of rows."""

from __future__ import annotations

from functools import lru_cache
from math import isqrt
from typing import Final

__all__ = ["check_token", "multipliers", "primes"]

_BITS: Final = (1 << 64) - 1
_STEP: Final = 0x9E3779B97F4A7C15
#: Between the seeds of neighbouring layers.
_APART: Final = 10007


def check_token(eos: int | None, vocab_size: int) -> None:
    """Whether the end of a text is a token: products of others with the multipliers may overflow.

    Raises:
        ValueError: It is none.
    """
    if eos is not None and eos >= vocab_size:
        raise ValueError(f"`eos` ({eos}) is not a token: `vocab_size` is {vocab_size}")


@lru_cache(maxsize=64)
def primes(start: int, count: int) -> tuple[int, ...]:
    """The first primes from `start` on."""
    found: list[int] = []
    number = max(start, 2)
    while len(found) < count:
        if number == 2 or (number % 2 and all(number % odd for odd in range(3, isqrt(number) + 1, 2))):
            found.append(number)
        number += 1
    return tuple(found)


def multipliers(count: int, vocab_size: int, seed: int, index: int) -> tuple[int, ...]:
    """Odd numbers whose products with a token stay within 63 bits, from the generator SplitMix64 (Steele et al. 2014).

    Args:
        count: How many.
        vocab_size: Tokens.
        seed: What the generator begins with.
        index: Which layer of a model; each has numbers of its own.
    """
    bound = max(1, ((1 << 63) - 1) // max(vocab_size, 1) // 2)
    start = seed + _APART * index
    # The generator takes a step of its own before each number.
    return tuple(2 * (_mixed(start + _STEP * (number + 2)) % bound) + 1 for number in range(count))


def _mixed(state: int) -> int:
    state &= _BITS
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _BITS
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _BITS
    return state ^ (state >> 31)
