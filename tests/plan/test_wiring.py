"""Faults of the wiring that only a component of a plugin can have."""

from __future__ import annotations

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


def codes(stack: str) -> list[str]:
    components = {"clock": {"type": "acme/clock"}, "attn": {"type": "attention", "num_heads": 2}}
    data = described(components=components, blocks={"c": ["clock"], "a": ["attn"]}, stack=stack)
    try:
        load(data, registry=Registry.with_plugins({"acme": [CLOCK]}))
    except ArchitectureError as error:
        return [fault.code for fault in error.diagnostics]
    return []


def test_a_position_needs_a_cache_that_counts_tokens() -> None:
    """mlx-lm's recurrent caches count none: the position would be 0 for every token that is decoded."""
    assert codes("c*2") == ["AX149"]
    assert codes("c a") == []
    assert codes("a c") == []
