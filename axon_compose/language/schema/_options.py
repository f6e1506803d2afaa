"""The options of one component as a definition of the whole schema: formulas allowed, references kept inside."""

from __future__ import annotations

import re
from typing import Any, Final

from axon_compose.language.schema._formulas import Schema, rebuild, with_formulas
from axon_compose.registry import ComponentSpec, Raised, options_schema

__all__ = ["has_required", "nullable", "options", "over_base"]

#: Keywords that may refuse null.
_LIMITING: Final = frozenset({"type", "enum", "const", "$ref", "anyOf", "oneOf", "allOf"})
_DROPPED: Final = ("$schema", "$id")


def options(spec: ComponentSpec, key: str, extra: dict[str, Any] | None = None) -> Schema:
    """The options of a component, to stand in `$defs` under `key`.

    Args:
        spec: The component.
        key: Name of the definition; references inside are rewritten to begin there.
        extra: Properties besides the options, such as `type`.
    """
    try:
        written: Schema = {k: v for k, v in options_schema(spec).items() if k not in _DROPPED}
    except Raised:  # a plugin's own types, of which pydantic knows no JSON Schema: leave its options open
        written = {"type": "object"}
    found: Schema = _redirected(with_formulas(_tidy(written)), f"#/$defs/{key}")
    found["title"] = spec.name
    found["description"] = spec.summary
    found["properties"] = {**(extra or {}), **found.get("properties", {})}
    return found


def has_required(schema: Schema) -> bool:
    """Whether a mapping with nothing in it is refused."""
    return bool(schema.get("required"))


def over_base(schema: Any, source: str, target: str) -> Any:
    """The schema of a mapping that is laid over one of a base: nothing is required, null removes.

    Args:
        schema: A definition.
        source: Its place, such as `#/$defs/core.attention`; references into it are rewritten.
        target: The place of the result.
    """

    def convert(sub: Any) -> Any:
        if not isinstance(sub, dict):
            return sub
        # Lists replace those of the base, so what is inside them stays as it is.
        found = rebuild(sub, lambda part: part, convert)
        for keyword in ("properties", "patternProperties"):
            if keyword in found:
                found[keyword] = {name: nullable(convert(part)) for name, part in found[keyword].items()}
        if isinstance(found.get("additionalProperties"), dict):
            found["additionalProperties"] = nullable(convert(found["additionalProperties"]))
        if str(found.get("$ref", "")).startswith(source):
            found["$ref"] = target + found["$ref"].removeprefix(source)
        return {key: value for key, value in found.items() if key not in ("required", "minProperties")}

    return convert(schema)


def nullable(schema: Any) -> Any:
    """The schema of a value, or null."""
    if not isinstance(schema, dict) or not schema.keys() & _LIMITING:
        return schema
    if "type" in schema and not schema.keys() & (_LIMITING - {"type"}):
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        return schema if "null" in types else {**schema, "type": [*types, "null"]}
    outer = {key: schema[key] for key in ("title", "description", "default") if key in schema}
    inner = {key: value for key, value in schema.items() if key not in outer}
    parts = inner["anyOf"] if inner.keys() == {"anyOf"} else [inner]
    return schema if {"type": "null"} in parts else {**outer, "anyOf": [*parts, {"type": "null"}]}


def _tidy(schema: Any) -> Any:
    """Without uninformative entries: titles made from names, and null for "not given"."""
    found = rebuild(schema, _tidy, _tidy)
    if isinstance(found, dict):
        found.pop("title", None)
        if found.get("default", "") is None:
            del found["default"]
    return found


#: References whose target stays where it is while formulas are let in. Others are rare; what they ask for is left open.
_STEADY: Final = re.compile(r"#(/(\$defs|definitions|properties)/[^/]+)?")


def _redirected(node: Any, place: str) -> Any:
    """The schema with its references to itself beginning at `place`."""
    match node:
        case {"$ref": str(reference)} if not _STEADY.fullmatch(reference):
            return {}
        case {"$ref": str(reference)}:
            moved = {key: _redirected(value, place) for key, value in node.items() if key != "$ref"}
            return {"$ref": place + reference.removeprefix("#"), **moved}
        case dict():
            return {key: _redirected(value, place) for key, value in node.items()}
        case list():
            return [_redirected(value, place) for value in node]
    return node
