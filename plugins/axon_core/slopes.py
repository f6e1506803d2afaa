"""How fast each head of ALiBi, and of lightning attention, forgets."""

from __future__ import annotations

__all__ = ["slopes"]


def slopes(heads: int) -> list[float]:
    """ALiBi's slope of each head (Press et al. 2022): 2^(-8 (h + 1) / H).

    If the number of heads is no power of two, those of the next smaller one, and then every other one of twice as many.
    """
    whole = 1 << (heads.bit_length() - 1)
    fine = [2.0 ** (-4 * (head + 1) / whole) for head in range(2 * whole)]
    return fine[1::2] + fine[::2][: heads - whole]
