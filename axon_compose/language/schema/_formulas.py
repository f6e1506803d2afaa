"""A schema of plain values to one where a formula may stand in the place of every value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

__all__ = ["FORMULA", "Schema", "or_formula", "rebuild", "with_formulas"]

Schema = dict[str, Any]

FORMULA: Final = {"type": "string", "pattern": "^="}

#: Keywords whose schemas hold for parts of the value.
_NAMED_PARTS: Final = ("properties", "patternProperties")
_PARTS: Final = ("items", "prefixItems", "additionalItems", "additionalProperties", "unevaluatedProperties", "contains")
#: Keywords whose schemas hold for the value itself. `if` and `not` are left alone: a wider condition would turn around.
_NAMED_SAME: Final = ("$defs", "definitions", "dependentSchemas")
_SAME: Final = ("allOf", "anyOf", "oneOf", "then", "else")
#: Keywords that a list of types may share, since each speaks of one type only.
_OF_ONE_TYPE: Final = {
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "boolean": (),
    "null": (),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems"),
    "object": ("properties", "patternProperties", "additionalProperties", "required", "minProperties", "maxProperties"),
}
_WORDS: Final = {
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
    "array": "a list",
    "object": "a mapping",
}
_ANNOTATIONS: Final = ("title", "description", "default", "examples", "deprecated")


def rebuild(schema: Any, part: Callable[[Any], Any], same: Callable[[Any], Any]) -> Any:
    """A copy of a schema with its subschemas replaced: `part` for those of parts, `same` for those of the value."""
    if not isinstance(schema, dict):
        return schema
    found: Schema = {}
    for keyword, value in schema.items():
        apply = part if keyword in _NAMED_PARTS + _PARTS else same
        if keyword in _NAMED_PARTS + _NAMED_SAME and isinstance(value, dict):
            found[keyword] = {name: apply(sub) for name, sub in value.items()}
        elif keyword in _PARTS + _SAME:
            found[keyword] = [apply(sub) for sub in value] if isinstance(value, list) else apply(value)
        else:
            found[keyword] = value
    return found


def with_formulas(schema: Any) -> Any:
    """The schema of a mapping or list, with a formula allowed for everything inside, at any depth."""
    found = rebuild(schema, lambda part: or_formula(with_formulas(part)), with_formulas)
    if isinstance(found, dict) and "oneOf" in found:
        # A formula fits every alternative, so "exactly one" cannot be asked for any more.
        alternatives = {"anyOf": found.pop("oneOf")}
        if "anyOf" in found:
            found["allOf"] = [*found.get("allOf", ()), alternatives]
        else:
            found |= alternatives
        found.pop("discriminator", None)
    return found


def or_formula(schema: Any) -> Any:
    """The schema of a value, or a formula; text, description and default stay outside, where editors look."""
    if not isinstance(schema, dict):
        return schema
    schema = _flat(schema)
    if _takes_any_text(schema):
        return schema
    outer = {key: schema[key] for key in _ANNOTATIONS if key in schema}
    inner = {key: value for key, value in schema.items() if key not in outer}
    types = _types(inner)
    if types:
        expected = " or ".join(_WORDS[name] for name in types)
        message = f"Expected {expected}, or a formula that begins with `=`."
        return {**outer, **inner, "type": [*types, "string"], "pattern": "^=", "patternErrorMessage": message}
    if inner.keys() == {"anyOf"}:
        return {**outer, "anyOf": [*inner["anyOf"], dict(FORMULA)]}
    return {**outer, "anyOf": [inner, dict(FORMULA)]}


def _takes_any_text(schema: Schema) -> bool:
    constraints = schema.keys() - {*_ANNOTATIONS}
    return not constraints or (constraints == {"type"} and "string" in _as_list(schema["type"]))


def _flat(schema: Schema) -> Schema:
    """`anyOf` of different plain types as one list of types: faults then say which entry is wrong, not "none fits"."""
    parts = schema.get("anyOf", ())
    found = {key: value for key, value in schema.items() if key != "anyOf"}
    if not parts or found.keys() - {*_ANNOTATIONS} or not all(isinstance(part, dict) for part in parts):
        return schema
    types = [_types(part) for part in parts]
    flat = [name for group in types for name in group]
    numbers = {"integer", "number"}
    if not all(types) or len({"number" if t in numbers else t for t in flat}) < len(flat):
        return schema
    for part in parts:
        found |= {key: value for key, value in part.items() if key not in ("title", "description")}
    return {**found, "type": flat if len(flat) > 1 else flat[0]}


def _types(schema: Schema) -> list[str]:
    """The types of a schema that says no more than what one of its types may know; empty for any other schema."""
    types = _as_list(schema.get("type", []))
    if not all(name in _OF_ONE_TYPE for name in types):
        return []
    known = {"type", *_ANNOTATIONS, *(keyword for name in types for keyword in _OF_ONE_TYPE[name])}
    return types if schema.keys() <= known else []


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]
