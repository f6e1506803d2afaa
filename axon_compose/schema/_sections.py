"""The sections of a file, short forms included, as people write them.

The models in `axon_compose.document` decide; their texts and defaults are taken over here. A short form is written as
one schema with several types (`string` and `object`, say) rather than a union, for then a fault is told at its place.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

from axon_compose.document import Block, BranchItem, Envelope, Item, Stack
from axon_compose.document._sections import GeneratedStack, Override, StackItem
from axon_compose.schema._formulas import Schema, or_formula

__all__ = ["NAME", "definitions", "sections"]

NAME: Final = "^[a-z][a-z0-9_]{0,99}$"
_NAME_OR_FORMULA: Final = "^([a-z][a-z0-9_]{0,99}$|=)"
_LAYERS: Final = r"^\s*[0-9]{1,6}(\.\.[0-9]{1,6})?\s*(,\s*[0-9]{1,6}(\.\.[0-9]{1,6})?\s*)*$"


def sections() -> dict[str, Schema]:
    """Every section but `extends`, for a file without a base."""
    size = or_formula({"type": "integer", "minimum": 1})
    return {
        "version": _from(Envelope, "version", const=1),
        "name": _from(Envelope, "name", type="string", maxLength=100, pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$"),
        "description": _from(Envelope, "description", type="string"),
        "dims": _from(
            Envelope,
            "dims",
            type="object",
            required=["hidden_size", "vocab_size"],
            properties={
                "hidden_size": {"description": "Width of the vectors between layers.", **size},
                "vocab_size": {"description": "Number of tokens.", **size},
            },
            propertyNames={"pattern": NAME},
        ),
        "components": _named("components", _ref("component")),
        "blocks": _named("blocks", _ref("block")),
        "stack": _ref("stack"),
        "layers": _from(Envelope, "layers", type=["integer", "null"], minimum=1),
        "overrides": _from(Envelope, "overrides", type="array", items=_ref("override")),
        "norm": _ref("norm"),
        "embedding": _ref("embedding"),
        "final_norm": _ref("final_norm"),
        "head": _ref("head"),
        "huggingface": _from(Envelope, "huggingface", type="object"),
    }


def definitions() -> dict[str, Schema]:
    """The parts of sections that stand in several places."""
    keep = {"type": ["string", "null"], "pattern": NAME}
    number = or_formula({"type": "number"})
    count = or_formula({"type": "integer", "minimum": 1})
    use = {"type": "string", "pattern": _NAME_OR_FORMULA}
    branches = {"type": "array", "minItems": 1, "items": _ref("branch")}
    return {
        "branch": {
            **_short_form(BranchItem, "string", pattern=_NAME_OR_FORMULA),
            "properties": {
                "use": _from(BranchItem, "use", **{**use, "type": ["string", "null"]}),
                "parallel": _from(BranchItem, "parallel", type=["array", "null"], minItems=1, items=_ref("member")),
                "add": _from(BranchItem, "add", **keep),
                "norm": _ref("branch_norm"),
                "scale": _from(BranchItem, "scale", **number),
                "as": _from(BranchItem, "keep", **keep),
            },
            "if": {"type": "object"},
            "then": {"oneOf": [_given("use", "string"), _given("parallel", "array"), _given("add", "string")]},
        },
        "member": {
            **_short_form(Item, "string", pattern=_NAME_OR_FORMULA),
            "properties": {
                "use": _from(Item, "use", **use),
                "norm": _ref("branch_norm"),
                "scale": _from(Item, "scale", **number),
                "as": _from(Item, "keep", **keep),
            },
            "required": ["use"],
        },
        "block": {
            **_short_form(Block, "array", minItems=1, items=_ref("branch")),
            "properties": {
                "branches": _from(Block, "branches", **branches),
                "share": _from(Block, "share", **keep),
            },
            "required": ["branches"],
        },
        "inline_block": {"type": ["string", "array"], "minItems": 1, "items": _ref("branch")},
        "stack_item": {
            **_short_form(StackItem, "string"),
            "properties": {
                "block": _from(StackItem, "block", **_ref("inline_block")),
                "repeat": _from(StackItem, "repeat", **count),
            },
            "required": ["block"],
        },
        "stack": {
            **_short_form(Stack, "string", "array", minItems=1, items=_ref("stack_item")),
            "properties": {
                "layers": _from(GeneratedStack, "layers", **count),
                "block": _from(GeneratedStack, "block", **_ref("inline_block")),
            },
            "required": ["layers", "block"],
        },
        "override": {
            "description": _doc(Override),
            "type": "object",
            "properties": {
                "layers": _from(
                    Override,
                    "layers",
                    type=["integer", "string", "array"],
                    minimum=0,
                    pattern=_LAYERS,
                    items={"type": ["integer", "string"], "minimum": 0, "pattern": _LAYERS},
                    minItems=1,
                ),
                "set": _from(
                    Override, "set", type="object", minProperties=1, propertyNames={"pattern": r"^[^.]+(\.[^.]+)+$"}
                ),
            },
            "required": ["layers", "set"],
            "additionalProperties": False,
        },
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _doc(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _from(model: type[BaseModel], field: str, **schema: Any) -> Schema:
    """The schema of a field, with the text and the default that its model gives it."""
    info = model.model_fields[field]
    found: Schema = {"description": info.description}
    if isinstance(info.default, int | float | str) and info.default != "":
        found["default"] = info.default
    return found | schema


def _short_form(model: type[BaseModel], *types: str, **schema: Any) -> Schema:
    """A mapping without unknown keys, or one of the short forms."""
    title = {"BranchItem": "branch", "Item": "component of a branch", "StackItem": "layers"}.get(model.__name__)
    text = {"title": title or model.__name__.lower(), "description": _doc(model)}
    return {**text, "type": [*types, "object"], **schema, "additionalProperties": False}


def _named(section: str, item: Schema) -> Schema:
    """A mapping from names of one's own to `item`."""
    return _from(Envelope, section, type="object", propertyNames={"pattern": NAME}, additionalProperties=item)


def _given(key: str, type_: str) -> Schema:
    return {"required": [key], "properties": {key: {"type": type_}}}
