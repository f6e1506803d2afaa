"""Faults of the wiring that only a component of a plugin can have."""

from __future__ import annotations

import pytest

from axon_compose import ArchitectureError, load
from axon_compose.registry import Array, ComponentSpec, Registry, State
from tests.helpers import described

CLOSED = {"type": "object", "additionalProperties": False}
CLOCK = ComponentSpec(
    name="clock",
    kind="layer",
    options=CLOSED,
    module="acme:Clock",
    summary="A recurrent layer that asks for the position of its tokens.",
    cache=lambda options, dims: State((Array("state", (4,)),)),
    reads={"offset": None},
)


PICKY = ComponentSpec(
    name="picky",
    kind="layer",
    options=CLOSED,
    module="acme:Picky",
    summary="A layer that reads what no embedding of the core publishes.",
    reads={"bigrams": None},
)


def codes(stack: str) -> list[str]:
    components = {"clock": {"type": "acme/clock"}, "attn": {"type": "attention", "num_heads": 2}}
    data = described(components=components, blocks={"c": ["clock"], "a": ["attn"]}, stack=stack)
    try:
        load(data, registry=Registry.with_plugins({"acme": [CLOCK]}))
    except ArchitectureError as error:
        return [fault.code for fault in error.diagnostics]
    return []


def test_a_value_of_the_embedding_that_it_does_not_publish() -> None:
    data = described(components={"picky": {"type": "acme/picky"}}, blocks={"p": ["picky"]}, stack="p")
    with pytest.raises(ArchitectureError) as raised:
        load(data, registry=Registry.with_plugins({"acme": [PICKY]}))
    (fault,) = raised.value.diagnostics
    assert fault.code == "AX141"
    assert fault.message == "`picky` reads `bigrams`, which the embedding `core/token_embedding` does not publish"


def test_a_position_needs_a_cache_that_counts_tokens() -> None:
    """mlx-lm's recurrent caches count none: the position would be 0 for every token that is decoded."""
    assert codes("c*2") == ["AX149"]
    assert codes("c a") == []
    assert codes("a c") == []
