"""The JSON Schema of edit files, for editors."""

from __future__ import annotations

from typing import Any, Final

from axon_compose.language.document._models import MODEL_NAME, NAME
from axon_compose.language.schema import architecture_schema
from axon_compose.language.schema._fields import Schema, from_field, model_text, ref
from axon_compose.language.schema._formulas import or_formula
from axon_compose.registry import Registry
from axon_compose.registry._json_schema import references
from axon_compose.surgery.document import ACTIONS, Drop, Edit, EditFile, Insert, Repeat, Vocabulary

__all__ = ["EDIT_SCHEMA_NAME", "edit_schema"]

#: The file in `schemas/` that edit files of version 1 name in their first line.
EDIT_SCHEMA_NAME: Final = "edit-1.schema.json"
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_SELECTION: Final = (
    r"^\s*(=.*|all|-?[0-9]{1,6}(\s*\.\.\s*-?[0-9]{1,6}(\s+step\s+[0-9]{1,6})?)?"
    r"(\s*,\s*-?[0-9]{1,6}(\s*\.\.\s*-?[0-9]{1,6}(\s+step\s+[0-9]{1,6})?)?)*)\s*$"
)
_SELECTED: Final[Schema] = {"type": ["integer", "string"], "pattern": _SELECTION}


def edit_schema(registry: Registry, *, published: bool) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of an edit file, version 1.

    It accepts what `plan_edit` accepts, but for what the source decides: its layers, its components, their options.

    Args:
        registry: The plugins; all of them are imported (not their layers).
        published: Describe the built-in components alone and accept types of plugins that are not known.
    """
    parts = architecture_schema(registry, published=published)["$defs"]
    definitions: dict[str, Any] = {"selection": _selection(), "edit": _edit()}
    wanted = list(references(definitions))
    while wanted:
        name = wanted.pop().removeprefix("#/$defs/").partition("/")[0]
        if name not in definitions:
            definitions[name] = parts[name]
            wanted += references(parts[name])
    return {
        "$schema": _DIALECT,
        "$id": "urn:axon-compose:edit:1",
        "title": "axon-compose edit",
        "description": "Changes of the architecture of a trained model, and what its new parts begin with.",
        "type": "object",
        "properties": {
            "version": from_field(EditFile, "version", const=1),
            "source": from_field(EditFile, "source", type="string", minLength=1),
            "name": from_field(EditFile, "name", type=["string", "null"], maxLength=100, pattern=MODEL_NAME),
            "description": from_field(EditFile, "description", type="string"),
            "edits": from_field(EditFile, "edits", type="array", minItems=1, items=ref("edit")),
        },
        "required": ["version", "source", "edits"],
        "additionalProperties": False,
        "$defs": dict(sorted(definitions.items())),
    }


def _selection() -> Schema:
    description = Edit.model_fields["layers"].description
    return {
        "description": description,
        "type": ["integer", "string", "array"],
        "pattern": _SELECTION,
        "items": _SELECTED,
        "minItems": 1,
    }


def _edit() -> Schema:
    count = or_formula({"type": "integer", "minimum": 1})
    layer = {"type": ["integer", "string"]}
    text = {"type": ["string", "null"]}
    return {
        "title": "edit",
        "description": model_text(Edit),
        "type": "object",
        "properties": {
            "layers": ref("selection"),
            "replace": from_field(
                Edit, "replace", type="object", minProperties=1, additionalProperties=ref("component"),
                propertyNames={"pattern": NAME},
            ),
            "set": from_field(
                Edit, "set", type="object", minProperties=1, propertyNames={"pattern": r"^[a-z][a-z0-9_]{0,99}\..+$"}
            ),
            "insert": _mapping(
                Insert,
                after=from_field(Insert, "after", **layer),
                block=from_field(Insert, "block", **text, pattern=NAME),
                count=from_field(Insert, "count", **count),
            ),
            "drop": {
                "anyOf": [
                    ref("selection"),
                    _mapping(Drop, least=from_field(Drop, "least", **count),
                             by=from_field(Drop, "by", const="influence"), among=ref("selection")),
                ]
            },
            "repeat": _mapping(
                Repeat,
                layers=ref("selection"),
                after=from_field(Repeat, "after", type=["integer", "string", "null"]),
                times=from_field(Repeat, "times", **count),
            ),
            "vocabulary": _mapping(
                Vocabulary,
                corpus=from_field(Vocabulary, "corpus", type=["string", "array"], items={"type": "string"}),
                tokenizer=from_field(Vocabulary, "tokenizer", type="string"),
            ) | {"minProperties": 1, "maxProperties": 1},
            "init": from_field(Edit, "init", type=["string", "object"], minProperties=1),
        },
        "oneOf": [{"required": [action]} for action in ACTIONS],
        "additionalProperties": False,
    }  # fmt: skip


def _mapping(model: Any, **properties: Schema) -> Schema:
    """The schema of a model of the edit file."""
    required = [name for name, info in model.model_fields.items() if info.is_required()]
    return {
        "description": model_text(model),
        "type": "object",
        "properties": properties,
        **({"required": required} if required else {}),
        "additionalProperties": False,
    }
