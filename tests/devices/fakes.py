"""Components of a plugin that say how they are split, without code."""

from __future__ import annotations

from typing import Any

from axon_compose import load
from axon_compose.plan import Plan
from axon_compose.registry import KV, ComponentSpec, Dims, Registry, Split, columns, rows
from tests.helpers import described

_HEADS = {
    "type": "object",
    "properties": {
        "heads": {"type": "integer"},
        "kv_from": {"type": ["string", "null"], "default": None},
        "alone": {"type": "boolean", "default": False},
    },
    "required": ["heads"],
    "additionalProperties": False,
}
_WIDTH = {
    "type": "object",
    "properties": {"width": {"type": "integer"}},
    "required": ["width"],
    "additionalProperties": False,
}
#: Width of a head.
WIDE = 8


def _attention_params(options: Any, dims: Dims) -> dict[str, tuple[int, ...]]:
    width = options["heads"] * WIDE
    found = {"q.weight": (width, dims.hidden_size), "o.weight": (dims.hidden_size, width)}
    return found if options["kv_from"] else {**found, "kv.weight": (2 * width, dims.hidden_size)}


def _attention_split(options: Any, dims: Dims, devices: int) -> Split | str:
    heads = options["heads"]
    if options["alone"]:
        return "`alone` is true"
    if heads % devices:
        return f"`heads` ({heads}) is not a multiple of {devices} devices"
    roles = {"q.weight": rows(heads * WIDE, heads), "o.weight": columns(heads * WIDE, heads)}
    if not options["kv_from"]:
        roles["kv.weight"] = rows(2 * heads * WIDE, 2 * heads)
    return Split({**options, "heads": heads // devices}, roles, published=("kv",))


def _accepts(options: Any, source: Any, dims: Dims) -> str | None:
    return None if options["heads"] == source["heads"] else "it has other heads"


ATTENTION = ComponentSpec(
    name="attention",
    kind="layer",
    options=_HEADS,
    module="acme:Attention",
    summary="Heads that are split.",
    params=_attention_params,
    cache=lambda options, dims: None if options["kv_from"] else KV(options["heads"], WIDE),
    reads={"kv": "kv_from"},
    writes=("kv",),
    accepts=_accepts,
    split=_attention_split,
)


def _mlp_split(options: Any, dims: Dims, devices: int) -> list[Split] | str:
    """By its width, and if groups do not allow that, by its outputs."""
    width = options["width"]
    if width % devices:
        return f"`width` ({width}) is not a multiple of {devices} devices"
    part = {"width": width // devices}
    first = Split(part, {"up.weight": rows(width), "down.weight": columns(width)})
    return [first, Split(part, {"up.weight": rows(width), "down.weight": columns(width, 2)})]


MLP = ComponentSpec(
    name="mlp",
    kind="layer",
    options=_WIDTH,
    module="acme:MLP",
    summary="A width that is split.",
    params=lambda options, dims: {
        "up.weight": (options["width"], dims.hidden_size),
        "down.weight": (dims.hidden_size, options["width"]),
    },
    split=_mlp_split,
)


def planned(components: dict[str, Any], blocks: dict[str, Any], stack: str, *more: ComponentSpec) -> Plan:
    """The plan of a stack of these components; others of the same names take their places."""
    specs = {spec.name: spec for spec in (ATTENTION, MLP, *more)}
    data = described(components=components, blocks=blocks, stack=stack)
    return load(data, registry=Registry.with_plugins({"acme": list(specs.values())})).plan()
