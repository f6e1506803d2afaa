"""The part of the shipped architectures that tests of components run on has everything that the whole has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.shipped import ALL, VARIED, shipped


def used(name: str) -> set[tuple[str, ...]]:
    """Components with each option that an architecture gives them, and each choice among words."""
    plan = shipped(name).plan()
    ends = [use for use in (plan.embedding, plan.residual, plan.final_norm, plan.head) if use]
    uses = [*ends, *(use for layer in plan.layers for use in layer.uses())]
    return {(use.type, *option) for use in uses for option in [(), *options_of(use.written)]}


def options_of(written: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Options and those inside of them, by the names that lead there."""
    for name, value in written.items():
        yield (name,)
        if isinstance(value, Mapping):
            yield from ((name, *inner) for inner in options_of(value))
        elif isinstance(value, str):
            yield name, value


def test_the_varied_ones_use_whatever_any_uses() -> None:
    assert set(VARIED) <= set(ALL)
    everything = set[tuple[str, ...]]().union(*map(used, ALL))
    assert everything - set[tuple[str, ...]]().union(*map(used, VARIED)) == set()
