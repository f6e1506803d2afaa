"""Groups of the last few tokens: what each of them begins with, and how they are hashed."""

from __future__ import annotations

from typing import Final

import mlx.core as mx

__all__ = ["last_tokens", "multipliers"]

_BITS: Final = (1 << 64) - 1
_STEP: Final = 0x9E3779B97F4A7C15
#: Between the seeds of neighbouring layers.
_APART: Final = 10007


def last_tokens(ids: mx.array, length: int, longest: int, eos: int | None, missing: int) -> list[mx.array]:
    """Each token, that before it, and so on, (B, length) each.

    Args:
        ids: The tokens and `longest - 1` before them, (B, longest - 1 + length).
        length: How many of them are asked for, the last ones.
        longest: How many arrays.
        eos: Token that ends a text; None if there is none.
        missing: What stands for tokens that are not in the text of the first one.
    """
    before = longest - 1
    found, inside = [ids[:, before:]], mx.array(True)
    for back in range(1, longest):
        token = ids[:, before - back : before - back + length]
        if eos is not None:
            inside = inside & (token != eos)
            token = mx.where(inside, token, missing)
        found.append(token)
    return found


def multipliers(count: int, vocab_size: int, seed: int, index: int) -> list[int]:
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
    return [2 * (_mixed(start + _STEP * (number + 2)) % bound) + 1 for number in range(count)]


def _mixed(state: int) -> int:
    state &= _BITS
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _BITS
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _BITS
    return state ^ (state >> 31)
