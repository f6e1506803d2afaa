"""The sections `huggingface` and `gguf` in the JSON Schema."""

from __future__ import annotations

from typing import Final

from axon_compose.language.document import Gguf, HuggingFace, KnownFault, ModelType, SplitPart, WeightRule
from axon_compose.language.document._huggingface import FAULT_NAME, MAX_AXES, MAX_PARTS, MAX_RULES
from axon_compose.language.document._models import NAME
from axon_compose.language.schema._fields import Schema, from_field, model_text, ref
from axon_compose.language.schema._formulas import or_formula

__all__ = ["HUGGINGFACE", "huggingface_definitions"]

#: The definitions, each before those that it refers to.
HUGGINGFACE: Final = ("huggingface", "gguf", "model_type", "weight_rule", "split_part", "known_fault")


def huggingface_definitions() -> dict[str, Schema]:
    """The section itself, what is particular to a model type, its rules, and the parts of a split."""
    texts: Schema = {"type": "array", "items": {"type": "string"}}
    extent = or_formula({"type": "integer"})
    shape: Schema = {"type": ["array", "null"], "minItems": 1, "maxItems": MAX_AXES, "items": extent}
    nullable = or_formula({"type": ["number", "null"]})
    axes = {"type": ["boolean", "array"], "items": {"type": "integer"}}
    return {
        "huggingface": {
            "description": model_text(HuggingFace),
            "type": ["object", "null"],
            "properties": {
                "model_types": from_field(HuggingFace, "model_types", **texts),
                "architectures": from_field(HuggingFace, "architectures", **texts),
                "per_type": from_field(HuggingFace, "per_type", type="object", additionalProperties=ref("model_type")),
                "fields": from_field(
                    HuggingFace,
                    "fields",
                    type="object",
                    propertyNames={"pattern": NAME},
                    additionalProperties={"type": ["string", "array"], "items": {"type": "string"}},
                ),
                "tensors": from_field(
                    HuggingFace,
                    "tensors",
                    type="object",
                    propertyNames={"pattern": NAME},
                    additionalProperties={"type": "string"},
                ),
                "only": from_field(HuggingFace, "only", type="object"),
                "ignore": from_field(HuggingFace, "ignore", **texts),
                "write": from_field(HuggingFace, "write", type="object"),
                "prefixes": from_field(
                    HuggingFace,
                    "prefixes",
                    type="object",
                    maxProperties=MAX_PARTS,
                    additionalProperties={"type": "string"},
                ),
                "weights": from_field(
                    HuggingFace,
                    "weights",
                    type="object",
                    maxProperties=MAX_RULES,
                    additionalProperties=ref("weight_rule"),
                ),
                "faults": from_field(HuggingFace, "faults", type="array", maxItems=MAX_PARTS, items=ref("known_fault")),
            },
            "additionalProperties": False,
        },
        "gguf": _gguf(texts),
        "model_type": {
            "description": model_text(ModelType),
            "type": ["object", "null"],
            "properties": {
                "defaults": from_field(ModelType, "defaults", type="object", propertyNames={"pattern": NAME}),
                "ignore": from_field(ModelType, "ignore", **texts),
                "export_as": from_field(ModelType, "export_as", type=["string", "null"], minLength=1),
            },
            "additionalProperties": False,
        },
        "known_fault": _known_fault(),
        "weight_rule": {
            "title": "rule",
            "description": model_text(WeightRule),
            "type": ["string", "object", "null"],
            "minLength": 1,
            "properties": {
                "to": from_field(WeightRule, "to", type=["string", "null"]),
                "drop": from_field(WeightRule, "drop", type="boolean"),
                "buffer": from_field(WeightRule, "buffer", type=["string", "null"], minLength=1),
                "stack": from_field(WeightRule, "stack", type=["string", "null"], pattern=NAME),
                "parts": from_field(WeightRule, "parts", **or_formula({"type": ["integer", "null"]})),
                "join": from_field(
                    WeightRule,
                    "join",
                    type=["object", "null"],
                    minProperties=1,
                    maxProperties=1,
                    propertyNames={"pattern": NAME},
                    additionalProperties={
                        "type": ["object", "array"],
                        "items": {"type": "string"},
                        "additionalProperties": or_formula({"type": ["integer", "null"]}),
                    },
                ),
                "reshape": from_field(WeightRule, "reshape", **shape),
                "reshape_from": from_field(WeightRule, "reshape_from", **shape),
                "transpose": from_field(WeightRule, "transpose", **axes),
                "if_needed": from_field(WeightRule, "if_needed", type="boolean"),
                "add": from_field(WeightRule, "add", **nullable),
                "scale": from_field(WeightRule, "scale", **nullable),
                "pairs_to_halves": from_field(
                    WeightRule, "pairs_to_halves", **or_formula({"type": ["integer", "null"]})
                ),
                "tiles_to_groups": from_field(
                    WeightRule, "tiles_to_groups", **(shape | {"minItems": 3, "maxItems": 3})
                ),
                "negative_exp": from_field(WeightRule, "negative_exp", type="boolean"),
                "unit_rows": from_field(WeightRule, "unit_rows", type="boolean"),
                "integers": from_field(WeightRule, "integers", type="boolean"),
                "split": from_field(
                    WeightRule,
                    "split",
                    type=["object", "array", "null"],
                    minProperties=1,
                    maxProperties=MAX_PARTS,
                    additionalProperties=ref("split_part"),
                    minItems=1,
                    maxItems=MAX_PARTS,
                    items={"type": "string"},
                ),
                "axis": from_field(WeightRule, "axis", type="integer", minimum=0),
                "groups": from_field(WeightRule, "groups", **extent),
                "when": from_field(WeightRule, "when", type=["boolean", "string"], pattern="^="),
                "layout": from_field(WeightRule, "layout", enum=["huggingface", "mlx", None]),
                "alternative": from_field(WeightRule, "alternative", type="boolean"),
            },
            "additionalProperties": False,
            "if": {"type": "object"},
            "then": {
                "oneOf": [
                    {"required": ["to"], "properties": {"to": {"type": "string", "minLength": 1}}},
                    {"required": ["split"], "properties": {"split": {"type": ["object", "array"]}}},
                    {"required": ["drop"], "properties": {"drop": {"const": True}}},
                    {"required": ["buffer"], "properties": {"buffer": {"type": "string", "minLength": 1}}},
                ]
            },
        },
        "split_part": {
            "title": "part",
            "description": model_text(SplitPart),
            "type": ["integer", "string", "object", "null"],
            "pattern": "^=",
            "properties": {
                "size": from_field(SplitPart, "size", **or_formula({"type": ["integer", "null"]})),
                "sizes": from_field(
                    SplitPart, "sizes", type=["array", "null"], minItems=1, maxItems=MAX_PARTS, items=extent
                ),
                "transpose": from_field(SplitPart, "transpose", **axes),
            },
            "additionalProperties": False,
            "if": {
                "type": "object",
                "required": ["size", "sizes"],
                "properties": {"size": {"type": ["integer", "string"]}, "sizes": {"type": "array"}},
            },
            "then": False,
        },
    }


def _gguf(texts: Schema) -> Schema:
    keys: Schema = {"type": ["string", "array"], "items": {"type": "string"}}
    rules: Schema = {"type": "object", "maxProperties": MAX_RULES, "additionalProperties": ref("weight_rule")}
    fields: Schema = {"type": "object", "propertyNames": {"pattern": NAME}, "additionalProperties": keys}
    return {
        "description": model_text(Gguf),
        "type": ["object", "null"],
        "properties": {
            "architectures": from_field(Gguf, "architectures", **texts),
            "when": from_field(Gguf, "when", type=["string", "null"], pattern="^="),
            "fields": from_field(Gguf, "fields", **fields),
            "only": from_field(Gguf, "only", type="object"),
            "ignore": from_field(Gguf, "ignore", **texts),
            "weights": from_field(Gguf, "weights", **rules),
        },
        "additionalProperties": False,
    }


def _known_fault() -> Schema:
    text: Schema = {"type": "string", "minLength": 1}
    values: Schema = {"type": "object", "maxProperties": MAX_PARTS}
    return {
        "title": "fault",
        "description": model_text(KnownFault),
        "type": "object",
        "properties": {
            "name": from_field(KnownFault, "name", type="string", pattern=FAULT_NAME),
            "peer": from_field(KnownFault, "peer", enum=["mlx-lm", "transformers"]),
            "owner": from_field(KnownFault, "owner", type=["string", "null"]),
            "what": from_field(KnownFault, "what", **text),
            "right": from_field(KnownFault, "right", **text),
            "when": from_field(KnownFault, "when", type=["boolean", "string"], pattern="^="),
            "settings": from_field(KnownFault, "settings", **values),
            "fields": from_field(KnownFault, "fields", **values),
            "error": from_field(KnownFault, "error", type=["string", "null"], minLength=1),
        },
        "required": ["name", "what", "right"],
        "additionalProperties": False,
        # One of these has to be there: without, a fault explains nothing.
        "if": {
            "type": "object",
            "properties": {
                "settings": {"maxProperties": 0},
                "fields": {"maxProperties": 0},
                "error": {"type": "null"},
            },
        },
        "then": False,
    }
