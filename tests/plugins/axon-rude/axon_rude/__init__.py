"""A plugin that behaves badly wherever it is told to."""

from pydantic import field_serializer, field_validator

from axon_compose.registry import Array, ComponentSpec, Options, State, hookimpl
from axon_rude.acts import act

act("import")


class RudeOptions(Options):
    width: int = 4

    @field_validator("width")
    def check(cls, value):
        return act("validator", value)

    @field_serializer("width")
    def write(self, value):
        return act("serializer", value)


class Pattern(dict):
    """A part of a schema that takes its time when it is looked at."""

    def get(self, *arguments):
        act("schema")
        return super().get(*arguments)

    def items(self):
        act("schema")
        return super().items()


SCHEMA = {"type": "object", "properties": {"name": Pattern(type="string", pattern="^a+$")}}


def params(options, dims):
    return act("params", {"weight": (4, dims.hidden_size)})


@hookimpl
def axon_components():
    act("hook")
    yield ComponentSpec(
        name="layer",
        kind="layer",
        options=RudeOptions,
        module="axon_rude.layers:Rude",
        summary="A matrix, there and back.",
        params=params,
        cache=lambda options, dims: act("cache"),
        active=lambda options, dims: act("active", 4),
        flops=lambda options, dims, tokens, context: act("flops", tokens),
        touched=lambda options, dims, tokens: act("touched", {}),
        saved=lambda options, dims, tokens, dtype: act("saved", [Array("x", (tokens, dims.hidden_size))]),
        recomputed=lambda options, dims, batch, tokens: act("recomputed", 0),
        window=lambda options, dims: act("window"),
        shrink=lambda options, dims: act("shrink", options),
        examples=({"width": 4},),
    )
    yield ComponentSpec(
        name="state",
        kind="layer",
        options={"type": "object"},
        module="axon_rude.layers:Stateful",
        summary="Keeps the last token.",
        params=params,
        cache=lambda options, dims: State((Array("last", (dims.hidden_size,)),)),
    )
    yield ComponentSpec("named", "layer", SCHEMA, "axon_rude.layers:Rude", "Options by a schema.", params=params)
