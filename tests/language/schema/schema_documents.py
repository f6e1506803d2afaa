"""Random architecture files, small damages to them, and what the models themselves say about their shape."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from hypothesis import strategies as st
from pydantic import Field, ValidationError

from axon_compose.language.document import CheckpointEnvelope, Component, Envelope, is_formula
from axon_compose.registry import ComponentSpec, Kind, LookupFailure, Options, Registry, check_options


class HyenaOptions(Options):
    """Options of a plugin, as a model."""

    order: int = Field(gt=0, description="Order.")
    label: str = ""


#: Options of a plugin as a raw JSON Schema, with most of what one may use.
RAW = {
    "type": "object",
    "required": ["width"],
    "properties": {
        "width": {"type": "integer", "minimum": 1, "description": "Width."},
        "shape": {"oneOf": [{"enum": ["round", "square"]}, {"$ref": "#/$defs/box"}]},
        "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]+$"}, "maxItems": 2},
        "mode": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
    },
    "$defs": {"box": {"type": "object", "required": ["side"], "properties": {"side": {"type": "number"}}}},
}

REGISTRY = Registry.with_plugins(
    {
        "acme": [
            ComponentSpec(
                "hyena",
                "layer",
                HyenaOptions,
                "acme:Hyena",
                "A long convolution.",
                examples=({"order": 2}, {"order": 3, "label": "a"}),
            ),
            ComponentSpec(
                "raw",
                "layer",
                RAW,
                "acme:Raw",
                "Options without a model.",
                examples=(
                    {"width": 3},
                    {"width": 3, "shape": "round", "tags": ["a"]},
                    {"width": 3, "shape": {"side": 2}, "mode": 4},
                ),
            ),
        ]
    }
)

PARTS = ("ssm", "swa", "mlp1", "far")
BLOCKS = ("absorb", "reason", "end")


# Documents that the language accepts.


def as_formula(value: Any) -> Any:
    """The same number or truth value as a formula."""
    return f"={json.dumps(value)}".replace("true", "True").replace("false", "False")


def with_formulas(draw: st.DrawFn, value: Any) -> Any:
    """A copy in which some numbers and truth values are formulas."""
    if isinstance(value, dict):
        return {key: with_formulas(draw, item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_formulas(draw, item) for item in value]
    if isinstance(value, int | float) and draw(st.integers(0, 4)) == 0:
        return as_formula(value)
    return copy.copy(value)


# Strategies are made once: Hypothesis looks through each new one before it draws, which takes longer than drawing.


@cache
@st.composite
def typed(draw: st.DrawFn, *kinds: Kind, alone: bool = True) -> Any:
    """A component of one of these kinds with the options of one of its examples."""
    full = draw(of_kinds(*kinds))
    example = dict(draw(st.sampled_from(REGISTRY.component(full).examples)))
    name = draw(st.sampled_from([full, full.removeprefix("core/")]))
    if not example and alone and draw(st.booleans()):
        return name
    return {"type": name, **with_formulas(draw, json.loads(json.dumps(example)))}


@cache
def of_kinds(*kinds: Kind) -> st.SearchStrategy[str]:
    """The name of a component."""
    return st.sampled_from([name for name, spec in REGISTRY.components().items() if spec.kind in kinds])


@cache
def norms() -> st.SearchStrategy[Any]:
    """The norm of a branch."""
    place = st.sampled_from(["pre", "post", "sandwich", "none"])
    own = st.builds(lambda norm, where: {**norm, "place": where}, typed("norm", alone=False), place)
    return st.one_of(place, typed("norm", alone=False), own, st.builds(lambda p: {"place": p}, place))


@cache
@st.composite
def branch(draw: st.DrawFn, parts: tuple[str, ...]) -> Any:
    """One branch, short or long."""
    part = st.sampled_from(parts)
    use = draw(st.one_of(part, part.map(lambda name: f"={name}")))
    match draw(st.integers(0, 4)):
        case 0 | 1:
            return use
        case 2:
            return {"use": use, "norm": draw(norms())}
        case 3:
            return {"use": use, "scale": draw(st.sampled_from([1, 0.5, "=0.25"]))}
    member = {"use": draw(part), "scale": 0.5, "norm": draw(norms())}
    return {"parallel": [draw(part), member], "norm": draw(st.sampled_from(["pre", "post"]))}


@cache
def sections() -> dict[str, st.SearchStrategy[Any]]:
    """What a file may have besides."""
    return {
        "name": st.sampled_from(["model", "bit-axon.2"]),
        "description": st.sampled_from(["", "= no formula"]),
        "layers": st.none(),
        "norm": typed("norm"),
        "embedding": st.one_of(typed("embedding"), st.just({"scale": 2.5})),
        "final_norm": st.one_of(typed("norm"), st.just("none"), st.just({"type": "none"})),
        "head": st.one_of(typed("head"), st.just({"tied": False})),
        "huggingface": st.sampled_from([None, {}, HUGGINGFACE]),
        "x-mine": st.just([1, {"any": "thing"}]),
    }


@cache
@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A whole file."""
    parts = draw(st.lists(st.sampled_from(PARTS), min_size=1, max_size=3, unique=True))
    blocks = draw(st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=2, unique=True))
    made: dict[str, Any] = {}
    for name in blocks:
        branches = draw(st.lists(branch(tuple(parts)), min_size=1, max_size=3))
        if draw(st.booleans()):
            branches += [{"use": parts[0], "as": "kept"}, {"add": "kept", "scale": 2}]
        made[name] = draw(st.sampled_from([branches, {"branches": branches}, {"branches": branches, "share": name}]))
    some = st.sampled_from(blocks)
    forms = [
        " ".join(f"{name}*2" for name in blocks),
        [*blocks, {"block": draw(some), "repeat": draw(st.sampled_from([1, 2, "=1 + 1"]))}, f"({blocks[0]})*2"],
        {"layers": draw(st.sampled_from([2, "=2"])), "block": draw(some)},
        {"layers": 2, "block": [draw(branch(tuple(parts)))]},
        [{"block": [draw(branch(tuple(parts)))]}, *blocks],
    ]
    document: dict[str, Any] = {
        "version": 1,
        "dims": {"hidden_size": 64, "vocab_size": draw(st.sampled_from([100, "=50 * 2"])), "widths": [1, {"a": None}]},
        "components": {name: draw(typed("layer", "block")) for name in parts},
        "blocks": made,
        "stack": draw(st.sampled_from(forms)),
    }
    first = document["components"][parts[0]]
    if options := [key for key in first if key != "type"] if isinstance(first, dict) else []:
        key = draw(st.sampled_from(options))
        layers = draw(st.sampled_from([0, "0..1", [0, "1"], "0, 1"]))
        document["overrides"] = [{"layers": layers, "set": {f"{parts[0]}.{key}": first[key]}}]
    for name in draw(st.lists(st.sampled_from(list(sections())), unique=True, max_size=5)):
        document[name] = draw(sections()[name])
    return document


#: Every key of the section, each rule in one of its forms.
HUGGINGFACE: dict[str, Any] = {
    "model_types": ["llama"],
    "per_type": {"llama": {"defaults": {"widths": [4, None]}, "ignore": ["act"]}, "mistral": None},
    "fields": {"widths": ["width_list", "widths"], "hidden_size": "d_model"},
    "tensors": {"vocab_size": "lm_head.weight"},
    "only": {"act": ["silu", None], "scale": 1},
    "ignore": ["attention_dropout"],
    "prefixes": {"model.": "", "language_model.": "model."},
    "weights": {
        "embed": "embedding.embed_tokens?",
        "<*>.inv_freq": None,
        "x.<l>.mtp": {"drop": True, "when": "=l >= 2", "layout": "mlx"},
        "x.<l>.e.<e>": {"to": "layers.<l>.<e>", "stack": "e", "transpose": [0, 2, 1], "add": 1, "scale": "=1 / 2"},
        "x.<l>.qkv": {
            "split": {
                "layers.<l>.q": 4,
                "layers.<l>.k": "=hidden_size",
                "layers.<l>.v": {"size": 2, "transpose": True},
            },
            "axis": 1,
            "groups": "=hidden_size",
            "reshape": [-1, "=hidden_size"],
        },
    },
}

# Small damages.

#: No text that begins with `=`, since the value of a formula is not for a schema to know; no `4.0`, which is an
#: integer to JSON Schema and a float to the models.
JUNK = (None, True, False, 0, -1, 3, 2.5, "text", "none", "UPPER", "", "ssm", [], [1], ["ssm"], {}, {"a": 1})


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every value inside."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


@st.composite
def damaged(draw: st.DrawFn, document: dict[str, Any]) -> dict[str, Any]:
    """A copy with one thing changed: a value or a key replaced, removed or added."""
    document = copy.deepcopy(document)
    path = draw(st.sampled_from(list(places(document))))
    parent: Any = document
    for step in path[:-1]:
        parent = parent[step]
    last: Any = path[-1]
    what = draw(st.sampled_from(["replace", "replace", "remove", "rename", "add"]))
    if what == "remove":
        del parent[last]
    elif what == "rename" and isinstance(parent, dict):
        parent[draw(st.sampled_from([f"{last}s", "Name", "type", "use", "x.y"]))] = parent.pop(last)
    elif what == "add" and isinstance(parent[last], dict):
        parent[last][draw(st.sampled_from(["eps", "unknown", "type", "as", "place", "share"]))] = draw(
            st.sampled_from(JUNK)
        )
    else:
        parent[last] = copy.deepcopy(draw(st.sampled_from(JUNK)))
    return document


# What the models say.


#: Errors of rules that tie several places together: how branches fit, that all parts of a tensor have sizes or none.
TIED: Final = ("branch", "sizes", "join")


class CrossField(Exception):
    """Only a rule that ties several places together is broken; no schema can hold it."""


def is_sound(document: dict[str, Any]) -> bool:
    """Whether the models accept the shape of every section and the options of every component.

    Raises:
        CrossField: They accept the shape, but not how its parts fit together: a rule in a validator of a model, or a
            norm without a type, whose options belong to the type that the section `norm` names.
    """
    crossed = False
    if any(key not in CheckpointEnvelope.model_fields and not key.startswith("x-") for key in document):
        return False
    known = {key: value for key, value in document.items() if not key.startswith("x-")}
    try:
        envelope = CheckpointEnvelope.model_validate(known)
    except ValidationError as error:
        if any(detail["type"] not in TIED or "has one of" in detail["msg"] for detail in error.errors()):
            return False
        raise CrossField from None
    for size in ("hidden_size", "vocab_size"):
        value = envelope.dims.get(size)
        if not is_formula(value) and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            return False
    for component, kinds in components(envelope):
        verdict = options_are_sound(component, kinds)
        if verdict is False:
            return False
        crossed |= verdict is None
    if crossed:
        raise CrossField
    return True


def components(envelope: Envelope) -> Iterator[tuple[Component, tuple[Kind, ...]]]:
    """Every place where a type may stand, with the kinds that fit."""
    yield from ((component, ("layer", "block")) for component in envelope.components.values())
    yield envelope.norm, ("norm",)
    yield envelope.embedding, ("embedding",)
    yield envelope.head, ("head",)
    if envelope.final_norm.type != "none":
        yield envelope.final_norm, ("norm",)
    lists = [block.branches for block in envelope.blocks.values()]
    lists += [item.block.branches for item in envelope.stack.items or () if item.block and item.block.branches]
    if envelope.stack.generated and envelope.stack.generated.block.branches:
        lists.append(envelope.stack.generated.block.branches)
    items = [item for branches in lists for item in branches]
    yield from ((item.norm, ("norm",)) for item in [*items, *(each for item in items for each in item.parallel or ())])


def options_are_sound(component: Component, kinds: tuple[Kind, ...]) -> bool | None:
    """Whether type and options fit; None if only a rule across options, or an unknown type of norm, is in the way."""
    try:
        spec = REGISTRY.component(component.type) if component.type is not None else REGISTRY.default(kinds[0])
    except LookupFailure:
        return False
    if spec.kind not in kinds:
        return False
    _, faults = check_options(spec, evaluated(component.options))
    if not faults:
        return True
    if component.type is None and kinds == ("norm",):
        return None
    return None if {fault.kind for fault in faults} == {"value"} else False


def evaluated(value: Any) -> Any:
    """The data with its formulas, all of them plain values, resolved."""
    if is_formula(value):
        return json.loads(value[1:].replace("True", "true").replace("False", "false"))
    if isinstance(value, dict):
        return {key: evaluated(item) for key, item in value.items()}
    if isinstance(value, list):
        return [evaluated(item) for item in value]
    return value


# Files over a base.


@st.composite
def parts_of(draw: st.DrawFn, mapping: dict[str, Any]) -> dict[str, Any]:
    """Some of the entries of a mapping, at any depth; now and then null for one."""
    found: dict[str, Any] = {}
    for key, value in mapping.items():
        match draw(st.integers(0, 3)):
            case 0:
                found[key] = draw(parts_of(value)) if isinstance(value, dict) else copy.deepcopy(value)
            case 1:
                found[key] = draw(st.sampled_from([None, value, value]))
    return found
