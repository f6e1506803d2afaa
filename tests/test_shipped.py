"""The part of the shipped architectures that tests of components run on has everything that the whole has."""

from __future__ import annotations

from axon_compose import load
from tests.shipped import ALL, VARIED


def used(name: str) -> set[tuple[str, ...]]:
    """Components with each option that an architecture gives them."""
    plan = load(name).plan()
    ends = [use for use in (plan.embedding, plan.final_norm, plan.head) if use]
    uses = [*ends, *(use for layer in plan.layers for use in layer.uses())]
    return {(use.type, option) for use in uses for option in ("", *use.written)}


def test_the_varied_ones_use_whatever_any_uses() -> None:
    assert set(VARIED) <= set(ALL)
    everything = set[tuple[str, ...]]().union(*map(used, ALL))
    assert everything - set[tuple[str, ...]]().union(*map(used, VARIED)) == set()
