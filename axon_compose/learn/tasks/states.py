"""State tracking: words over a group, and the product of every prefix."""

from __future__ import annotations

from functools import cache
from itertools import permutations

import numpy as np

from axon_compose.learn.tasks._draw import Draw, Drawn, Integers
from axon_compose.learn.tasks.specs.states import StateOptions

__all__ = ["composition", "parity", "s3", "s5"]


def parity(options: StateOptions, draw: Draw) -> Drawn:
    """Parity of the bits so far (Grazzi et al. 2024, arXiv:2411.12537).

    The smallest group word problem. A linear recurrence whose transition has no negative eigenvalue cannot solve it at
    all lengths; attention of one layer counts with growing error.
    """
    tokens = draw.rng.integers(2, size=(draw.batch, options.length))
    return tokens, np.cumsum(tokens, axis=1) % 2


def s3(options: StateOptions, draw: Draw) -> Drawn:
    """Products of permutations of three things: a solvable group (Merrill et al. 2024, arXiv:2404.08819)."""
    return _products(3, options, draw)


def s5(options: StateOptions, draw: Draw) -> Drawn:
    """Products of permutations of five things, complete for NC1 (Merrill et al. 2024, arXiv:2404.08819)."""
    return _products(5, options, draw)


@cache
def composition(things: int) -> Integers:
    """(n!, n!) table: the number of the permutation that is a, then b; numbers are those of lexical order."""
    elements = np.array(list(permutations(range(things))))
    products = elements[None, :, :].repeat(len(elements), 0)
    products = np.take_along_axis(products, elements[:, None, :].repeat(len(elements), 1), axis=2)
    power = things ** np.arange(things)
    code = elements @ power
    order = np.argsort(code)
    return order[np.searchsorted(code[order], products @ power)]


def _products(things: int, options: StateOptions, draw: Draw) -> Drawn:
    table = composition(things)
    tokens = draw.rng.integers(len(table), size=(draw.batch, options.length))
    targets = np.empty_like(tokens)
    state: Integers = np.zeros(draw.batch, dtype=tokens.dtype)  # the identity is first in lexical order
    for at in range(options.length):
        state = targets[:, at] = table[state, tokens[:, at]]
    return tokens, targets
