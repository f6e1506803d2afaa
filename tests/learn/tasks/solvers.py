"""Hand-made solvers: what each task asks, written as a loop over one sequence that never looks ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any, Final

import numpy as np

#: Gets the options, and the tokens one by one; answers after each, or with None where nothing can be known.
Solver = Callable[[Any, list[int]], Iterator[int | None]]


def after_last(options: Any, tokens: list[int]) -> Iterator[int | None]:
    """What came after this token when it was there before."""
    following: dict[int, int] = {}
    before = None
    for token in tokens:
        if before is not None:
            following[before] = token
        before = token
        yield following.get(token)


def motif_after_key(options: Any, tokens: list[int]) -> Iterator[int | None]:
    """The value of several tokens, by the key of several tokens before it."""
    keys = options.vocab // 2
    known: dict[tuple[int, ...], tuple[int, ...]] = {}
    key: tuple[int, ...] = ()
    value: tuple[int, ...] = ()
    for token in tokens:
        if token < keys:
            if value:
                known[key] = value
                key, value = (), ()
            key += (token,)
        else:
            value += (token,)
        rest = known.get(key, ())[len(value) :]
        yield rest[0] if rest else None


def copied(options: Any, tokens: list[int]) -> Iterator[int | None]:
    """What was no blank, in order."""
    held: list[int] = []
    for token in tokens:
        if token < options.vocab:
            held.append(token)
        yield held.pop(0) if token == options.vocab + 1 else None


def itself(options: Any, tokens: list[int]) -> Iterator[int | None]:
    """What a network that reads the last vector has to say."""
    yield from tokens


def by_heart(options: Any, tokens: list[int]) -> Iterator[int | None]:
    """The value of the key before, out of the table that the options name."""
    keys = options.vocab // 2
    table = keys + np.random.default_rng(options.table).integers(options.vocab - keys, size=keys)
    before = 0
    for token in tokens:
        yield int(table[before]) if token == options.vocab else None
        before = token


def product(things: int) -> Solver:
    """Permutations carried out on things that lie in a row."""
    elements = list(permutations(range(things)))

    def solve(options: Any, tokens: list[int]) -> Iterator[int | None]:
        row = tuple(range(things))
        for token in tokens:
            row = tuple(elements[token][at] for at in row)
            yield elements.index(row)

    return solve


def odd(options: Any, tokens: list[int]) -> Iterator[int | None]:
    """Whether the ones so far are odd."""
    for at in range(len(tokens)):
        yield tokens[: at + 1].count(1) % 2


def of_skill(options: Any, tokens: list[int]) -> Iterator[int | None]:
    """Whatever the skill is."""
    yield from SOLVERS[options.skill](options, tokens)


SOLVERS: Final[dict[str, Solver]] = {
    "mqar": after_last,
    "induction": after_last,
    "in-context-recall": after_last,
    "noisy-recall": after_last,
    "fuzzy-recall": motif_after_key,
    "selective-copying": copied,
    "compression": itself,
    "memorisation": by_heart,
    "parity": odd,
    "s3": product(3),
    "s5": product(5),
    "needle": after_last,
    "extrapolation": of_skill,
}
