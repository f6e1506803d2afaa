"""How fast each head of ALiBi, and of lightning attention, forgets."""

from __future__ import annotations

from axon_compose.registry import Shard

__all__ = ["slopes"]


def slopes(heads: int, shard: Shard = Shard()) -> list[float]:
    """ALiBi's slope of each head (Press et al. 2022): 2^(-8 (h + 1) / H).

    If the number of heads is no power of two, those of the next smaller one, and then every other one of twice as many.

    Args:
        heads: H, or a device's part of them.
        shard: Which part; the slopes are those that its heads have among all.
    """
    total = heads * shard.size
    whole = 1 << (total.bit_length() - 1)
    fine = [2.0 ** (-4 * (head + 1) / whole) for head in range(2 * whole)]
    return (fine[1::2] + fine[::2][: total - whole])[heads * shard.rank :][:heads]
