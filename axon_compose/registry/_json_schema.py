"""Validation by a raw JSON Schema, with the same words as for a pydantic model. Imports jsonschema when first used."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, cast

from axon_compose.registry._failure import one_line
from axon_compose.registry._faults import Fault, FaultKind, Findings, bound

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError

__all__ = ["check_data", "closed", "defaults", "property_names", "references", "schema_fault"]

_TYPES: Final = {
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}
_RANGES: Final = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
    "minLength": "text of at least {} characters",
    "maxLength": "text of at most {} characters",
    "pattern": "text that matches `{}`",
    "minItems": "a list of at least {} entries",
    "maxItems": "a list of at most {} entries",
}
#: Keywords that may add properties from elsewhere, so that `additionalProperties` would see too few.
_COMBINE: Final = ("$ref", "allOf", "anyOf", "oneOf", "if", "dependentSchemas", "patternProperties")
_DEEPEST: Final = 64
_CLOSED: Final = ("additionalProperties", "unevaluatedProperties")


def closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with unknown names refused, unless its author decided otherwise."""
    if any(keyword in schema for keyword in _CLOSED):
        return {"type": "object", **schema}
    keyword = "unevaluatedProperties" if any(k in schema for k in _COMBINE) else "additionalProperties"
    return {"type": "object", **schema, keyword: False}


def schema_fault(schema: Mapping[str, Any]) -> str | None:
    """What is wrong with a plugin's schema, one line, or None."""
    from jsonschema.exceptions import SchemaError

    if schema.get("type", "object") != "object":
        return "the schema of options must be one of an object"
    if remote := next((r for r in references(schema) if not r.startswith("#")), None):
        return f"the schema refers to `{remote}`: only references inside the schema are followed"
    try:
        _validator_class().check_schema(schema)
        wrong = [e for e in _validator(schema).iter_errors(_filled({}, schema, schema)) if e.absolute_path]
    except SchemaError as error:
        return f"not a JSON Schema: {error.message} at `{error.json_path}`"
    except Exception as error:
        return f"the schema cannot be applied: {one_line(error)}"
    return f"the default of `{wrong[0].absolute_path[0]}` does not fit: {wrong[0].message}" if wrong else None


def check_data(
    schema: Mapping[str, Any], data: Mapping[str, Any], owner: str, noun: str = "option"
) -> tuple[dict[str, Any] | None, list[Fault]]:
    """Validate a mapping against a schema.

    Returns:
        A new dict with the defaults filled in and no faults, or None and every fault.

    Raises:
        Exception: If the schema cannot be applied, as with a dangling or endless reference.
    """
    filled: dict[str, Any] = _filled(data, schema, schema)
    findings = Findings(owner, noun)
    errors = sorted(_validator(schema).iter_errors(filled), key=lambda error: error.validator in _CLOSED)
    for error in errors:
        _translate(error, findings, schema)
    faults = findings.faults()
    if errors and not faults:  # whatever it was that seemed to follow from something else
        faults = [Fault((), "value", errors[0].message)]
    return (None, faults) if faults else (filled, [])


def property_names(schema: Mapping[str, Any]) -> list[str]:
    """The names that a file may use, in the order of definition."""
    return list(_properties(schema, schema, alternatives=True))


def defaults(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The values that options have when nothing is written."""
    return {name: deepcopy(p["default"]) for name, p in _properties(schema, schema).items() if "default" in p}


@cache
def _validator_class() -> type[Draft202012Validator]:
    """Draft 2020-12 with the strictness of the pydantic side: 3.0 is no integer, and numbers are finite."""
    from jsonschema import Draft202012Validator, validators

    def integer(checker: object, value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool)

    def number(checker: object, value: object) -> bool:
        return integer(checker, value) or (isinstance(value, float) and isfinite(value))

    types = Draft202012Validator.TYPE_CHECKER.redefine_many({"integer": integer, "number": number})
    return cast("type[Draft202012Validator]", validators.extend(Draft202012Validator, type_checker=types))  # type: ignore[no-untyped-call]


def _validator(schema: Mapping[str, Any]) -> Draft202012Validator:
    from referencing.jsonschema import EMPTY_REGISTRY

    # The registry is given because the default one fetches remote references.
    return _validator_class()(closed(schema), registry=EMPTY_REGISTRY)


def _translate(error: ValidationError, findings: Findings, schema: Mapping[str, Any]) -> None:
    path, keyword = tuple(error.absolute_path), str(error.validator)
    wanted: Any = error.validator_value
    part: Any = error.schema
    instance: Any = error.instance
    if keyword in _CLOSED:
        # What stands beside a mistyped option in an alternative is no option to a validator; it is reported once.
        parts = [part] if keyword == "additionalProperties" else list(_applying(part, instance, schema))
        known = _properties(part, schema, alternatives=True)
        for name in (name for name in instance if not any(_names(each, name) for each in parts)):
            if name not in known:
                findings.unknown(path, name, known)
            elif not findings.about((*path, name)):
                why = "the schema refuses it" if keyword == "additionalProperties" else "another one is chosen"
                findings.value((*path, name), f"`{name}` belongs to an alternative of the options, and {why}")
    elif keyword == "required":
        for name in (n for n in wanted if n not in instance):
            described = _properties(part, schema).get(name, {})
            findings.missing(path, name, str(described.get("description", "")))
    elif expectation := _expectation(keyword, wanted):
        findings.mismatch(path, instance, *expectation)
    elif error.context:
        for branch in _best_branches(error):
            _translate(branch, findings, schema)
    else:
        findings.value(path, error.message)


def _expectation(keyword: str, wanted: Any) -> tuple[FaultKind, str, list[str]] | None:
    if keyword == "type":
        types = [wanted] if isinstance(wanted, str) else list(wanted)
        return "type", " or ".join(_TYPES[t] for t in types), []
    if keyword in _RANGES:
        return "range", _RANGES[keyword].format(bound(wanted)), []
    if keyword in ("enum", "const"):
        choices = [str(c) for c in (wanted if keyword == "enum" else [wanted])]
        listed = ", ".join(f"`{c}`" for c in choices)
        return "choice", listed if len(choices) == 1 else f"one of {listed}", choices
    return None


def _best_branches(error: ValidationError) -> list[ValidationError]:
    """The errors of the alternatives worth reporting.

    Those are not meant whose constant says so, such as another `kind`; of the rest, those that got deepest, or all at
    the top.
    """
    context = list(error.context or ())
    others = {e.relative_schema_path[0] for e in context if e.validator == "const" and e.relative_path}
    context = [e for e in context if e.relative_schema_path[0] not in others] or context
    deepest = max(len(e.absolute_path) + (e.validator in (*_CLOSED, "required")) for e in context)
    branch = {
        e.relative_schema_path[0]
        for e in context
        if len(e.absolute_path) + (e.validator in (*_CLOSED, "required")) == deepest
    }
    return [e for e in context if e.relative_schema_path[0] in branch]


def _properties(schema: Any, root: Mapping[str, Any], *, alternatives: bool = False, depth: int = 0) -> dict[str, Any]:
    """The properties that a schema names, through its local references, and in its alternatives if asked for."""
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return {}
    parts = [_resolve(schema["$ref"], root)] if isinstance(schema.get("$ref"), str) else []
    parts += schema.get("allOf", ())
    if alternatives:
        parts += [*schema.get("anyOf", ()), *schema.get("oneOf", ()), schema.get("then"), schema.get("else")]
    found: dict[str, Any] = {}
    for part in parts:
        found |= _properties(part, root, alternatives=alternatives, depth=depth + 1)
    own = schema.get("properties", {})
    return found | {name: p if isinstance(p, Mapping) else {} for name, p in own.items()}


def _filled(value: Any, schema: Any, root: Mapping[str, Any], depth: int = 0) -> Any:
    """A copy of the value with the schema's defaults where nothing is written."""
    if isinstance(value, Mapping) and depth <= _DEEPEST:
        filled = dict(value)
        for name, part in _properties(schema, root).items():
            if name in filled:
                filled[name] = _filled(filled[name], part, root, depth + 1)
            elif "default" in part:
                filled[name] = deepcopy(part["default"])
        return filled
    return deepcopy(value)


def _applying(schema: Any, instance: Mapping[str, Any], root: Mapping[str, Any], depth: int = 0) -> Iterator[Any]:
    """The parts of a schema that speak about an object: of alternatives those that fit, or all if none does."""
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return
    yield schema
    parts = [_resolve(schema["$ref"], root)] if isinstance(schema.get("$ref"), str) else []
    parts += schema.get("allOf", ())
    parts += [part for name, part in schema.get("dependentSchemas", {}).items() if name in instance]
    if "if" in schema:
        fits = _fits(schema["if"], instance, root)
        parts += [schema["if"], schema.get("then")] if fits else [schema.get("else")]
    for keyword in ("anyOf", "oneOf"):
        alternatives = schema.get(keyword, ())
        parts += [part for part in alternatives if _fits(part, instance, root)] or alternatives
    for part in parts:
        yield from _applying(part, instance, root, depth + 1)


def _fits(part: Any, instance: Mapping[str, Any], root: Mapping[str, Any]) -> bool:
    return _validator(root).evolve(schema=part).is_valid(instance)


def _names(schema: Mapping[str, Any], name: str) -> bool:
    """Whether a schema itself says what an option of this name is."""
    return (
        name in schema.get("properties", ())
        or any(re.search(pattern, name) for pattern in schema.get("patternProperties", ()))
        or any(schema.get(keyword, False) is not False for keyword in _CLOSED)
    )


def _resolve(reference: str, root: Mapping[str, Any]) -> Any:
    node: Any = root
    for step in filter(None, reference.removeprefix("#").split("/")):
        step = step.replace("~1", "/").replace("~0", "~")
        node = node.get(step) if isinstance(node, Mapping) else None
    return node


def references(schema: Any) -> Iterator[str]:
    """What the references in a schema refer to, as they are written."""
    match schema:
        case Mapping():
            for keyword in ("$ref", "$dynamicRef"):
                if isinstance(reference := schema.get(keyword), str):
                    yield reference
            for part in schema.values():
                yield from references(part)
        case list() | tuple():
            for part in schema:
                yield from references(part)
