"""The sections of a file, short forms included.

The models in `language.document` decide; their texts and defaults are taken over here. A short form is written as
one schema with several types (`string` and `object`, say) rather than a union, so that faults have a location.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

from axon_compose.language.document import Block, BranchItem, CheckpointEnvelope, Envelope, Item, Stack
from axon_compose.language.document._models import NAME
from axon_compose.language.document._sections import GeneratedStack, Override, StackItem
from axon_compose.language.schema._fields import Schema, from_field, model_text, ref
from axon_compose.language.schema._formulas import or_formula
from axon_compose.language.schema._huggingface import huggingface_definitions

__all__ = ["NAME", "definitions", "sections"]

_NAME_OR_FORMULA: Final = "^([a-z][a-z0-9_]{0,99}$|=)"
_LAYERS: Final = r"^\s*[0-9]{1,6}(\.\.[0-9]{1,6})?\s*(,\s*[0-9]{1,6}(\.\.[0-9]{1,6})?\s*)*$"


def sections() -> dict[str, Schema]:
    """Every section but `extends`, for a file without a base."""
    size = or_formula({"type": "integer", "minimum": 1})
    return {
        "version": from_field(Envelope, "version", const=1),
        "name": from_field(Envelope, "name", type="string", maxLength=100, pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$"),
        "description": from_field(Envelope, "description", type="string"),
        "dims": from_field(
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
        "components": _named("components", ref("component")),
        "blocks": _named("blocks", ref("block")),
        "stack": ref("stack"),
        "layers": from_field(Envelope, "layers", type=["integer", "null"], minimum=1),
        "overrides": from_field(Envelope, "overrides", type="array", items=ref("override")),
        "norm": ref("norm"),
        "embedding": ref("embedding"),
        "residual": ref("residual"),
        "final_norm": ref("final_norm"),
        "head": ref("head"),
        "huggingface": from_field(CheckpointEnvelope, "huggingface", **ref("huggingface")),
        "gguf": from_field(CheckpointEnvelope, "gguf", **ref("gguf")),
    }


def definitions() -> dict[str, Schema]:
    """The parts of sections that stand in several places."""
    keep = {"type": ["string", "null"], "pattern": NAME}
    number = or_formula({"type": "number"})
    count = or_formula({"type": "integer", "minimum": 1})
    use = {"type": "string", "pattern": _NAME_OR_FORMULA}
    branches = {"type": "array", "minItems": 1, "items": ref("branch")}
    return {
        **huggingface_definitions(),
        "branch": {
            **_short_form(BranchItem, "string", pattern=_NAME_OR_FORMULA),
            "properties": {
                "use": from_field(BranchItem, "use", **{**use, "type": ["string", "null"]}),
                "parallel": from_field(BranchItem, "parallel", type=["array", "null"], minItems=1, items=ref("member")),
                "add": from_field(BranchItem, "add", **keep),
                "norm": ref("branch_norm"),
                "scale": from_field(BranchItem, "scale", **number),
                "skip": from_field(BranchItem, "skip", **number),
                "residual": from_field(BranchItem, "residual", **{**use, "type": ["string", "null"]}),
                "as": from_field(BranchItem, "keep", **keep),
            },
            "if": {"type": "object"},
            "then": {"oneOf": [_given("use", "string"), _given("parallel", "array"), _given("add", "string")]},
        },
        "member": {
            **_short_form(Item, "string", pattern=_NAME_OR_FORMULA),
            "properties": {
                "use": from_field(Item, "use", **use),
                "norm": ref("branch_norm"),
                "scale": from_field(Item, "scale", **number),
                "as": from_field(Item, "keep", **keep),
            },
            "required": ["use"],
        },
        "block": {
            **_short_form(Block, "array", minItems=1, items=ref("branch")),
            "properties": {
                "branches": from_field(Block, "branches", **branches),
                "share": from_field(Block, "share", **or_formula(dict(keep))),
            },
            "required": ["branches"],
        },
        "inline_block": {"type": ["string", "array"], "minItems": 1, "items": ref("branch")},
        "stack_item": {
            **_short_form(StackItem, "string"),
            "properties": {
                "block": from_field(StackItem, "block", **ref("inline_block")),
                "repeat": from_field(StackItem, "repeat", **count),
            },
            "required": ["block"],
        },
        "stack": {
            **_short_form(Stack, "string", "array", minItems=1, items=ref("stack_item")),
            "properties": {
                "layers": from_field(GeneratedStack, "layers", **count),
                "block": from_field(GeneratedStack, "block", **ref("inline_block")),
            },
            "required": ["layers", "block"],
        },
        "override": {
            "description": model_text(Override),
            "type": "object",
            "properties": {
                "layers": from_field(
                    Override,
                    "layers",
                    type=["integer", "string", "array"],
                    minimum=0,
                    pattern=_LAYERS,
                    items={"type": ["integer", "string"], "minimum": 0, "pattern": _LAYERS},
                    minItems=1,
                ),
                "set": from_field(
                    Override, "set", type="object", minProperties=1, propertyNames={"pattern": r"^[^.]+(\.[^.]+)+$"}
                ),
            },
            "required": ["layers", "set"],
            "additionalProperties": False,
        },
    }


def _short_form(model: type[BaseModel], *types: str, **schema: Any) -> Schema:
    """A mapping without unknown keys, or one of the short forms."""
    title = {"BranchItem": "branch", "Item": "component of a branch", "StackItem": "layers"}.get(model.__name__)
    text = {"title": title or model.__name__.lower(), "description": model_text(model)}
    return {**text, "type": [*types, "object"], **schema, "additionalProperties": False}


def _named(section: str, item: Schema) -> Schema:
    """A mapping from names of one's own to `item`."""
    return from_field(Envelope, section, type="object", propertyNames={"pattern": NAME}, additionalProperties=item)


def _given(key: str, type_: str) -> Schema:
    return {"required": [key], "properties": {key: {"type": type_}}}
