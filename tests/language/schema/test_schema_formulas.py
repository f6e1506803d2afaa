"""A formula may stand for every value of an option, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from axon_compose.language.schema import architecture_schema
from axon_compose.language.schema._formulas import or_formula, with_formulas
from axon_compose.language.schema._options import options
from axon_compose.registry import ComponentSpec, Options, Registry


@pytest.mark.parametrize(
    ("schema", "types"),
    [
        ({"type": "integer", "minimum": 1}, ["integer", "string"]),
        ({"anyOf": [{"type": "integer", "exclusiveMinimum": 0}, {"type": "null"}]}, ["integer", "null", "string"]),
        ({"type": ["boolean", "null"]}, ["boolean", "null", "string"]),
        ({"type": "array", "items": {"type": "string"}, "maxItems": 2}, ["array", "string"]),
    ],
)
def test_plain_types_become_one_list_of_types(schema: dict[str, Any], types: list[str]) -> None:
    found = or_formula({"description": "Text.", "default": None, **schema})
    assert found["type"] == types
    assert found["pattern"] == "^="
    assert found["description"] == "Text."
    assert "anyOf" not in found


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": ["a", "b"]},
        {"$ref": "#/$defs/x"},
        {"type": "string", "pattern": "^a"},
        {"anyOf": [{"type": "integer"}, {"const": "auto"}]},
        {"anyOf": [{"type": "integer", "minimum": 3}, {"type": "number", "maximum": 1}]},
    ],
)
def test_other_values_get_an_alternative_and_keep_their_words_outside(schema: dict[str, Any]) -> None:
    found = or_formula({"description": "Text.", "default": 1, **schema})
    assert found["anyOf"][-1] == {"type": "string", "pattern": "^="}
    assert set(found) == {"description", "default", "anyOf"}


@pytest.mark.parametrize(
    "schema", [True, {}, {"description": "Any."}, {"type": "string"}, {"type": ["string", "null"]}]
)
def test_what_takes_any_text_stays(schema: Any) -> None:
    assert or_formula(schema) == schema


def test_conditions_are_left_alone() -> None:
    schema = {"if": {"properties": {"a": {"type": "integer"}}}, "not": {"properties": {"a": {"const": 1}}}}
    assert with_formulas(schema) == schema


RAW = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "urn:acme",
    "type": "object",
    "required": ["width"],
    "properties": {
        "width": {"type": "integer"},
        "same": {"$ref": "#/properties/width"},
        "inner": {"$ref": "#/$defs/node"},
        "far": {"$ref": "#/properties/list/items"},
        "list": {"type": "array", "items": {"type": "number"}},
        "either": {"oneOf": [{"type": "object", "properties": {"a": {"type": "integer"}}}, {"type": "boolean"}]},
        "title": {"type": "boolean", "title": "A Title"},
    },
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"next": {"$ref": "#/$defs/node"}, "value": {"type": "number"}},
            "additionalProperties": False,
        }
    },
}
SPEC = ComponentSpec("raw", "layer", RAW, "acme:Raw", "Raw.")


def validator() -> Draft202012Validator:
    schema = {"$ref": "#/$defs/acme.raw", "$defs": {"acme.raw": options(SPEC, "acme.raw", {"type": True})}}
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize(
    ("value", "sound"),
    [
        ({"type": "acme/raw", "width": "=3"}, True),
        ({"width": 1, "same": "=3"}, True),
        ({"width": 1, "same": "three"}, False),
        ({"width": 1, "inner": "=x"}, True),
        ({"width": 1, "inner": {"next": {"next": {"value": "=x"}}}}, True),
        ({"width": 1, "inner": {"next": {"next": {"valu": 1}}}}, False),
        ({"width": 1, "list": "=x"}, True),
        ({"width": 1, "list": [1, "=x"]}, True),
        ({"width": 1, "list": [1, "x"]}, False),
        ({"width": 1, "either": {"a": "=x"}}, True),
        ({"width": 1, "either": {"a": "x"}}, False),
        ({"width": 1, "either": "=x"}, True),
        ({"width": 1, "title": True}, True),
        ({"width": 1, "title": 1}, False),
        ({"width": 1, "unknown": 1}, False),
        ({"same": 1}, False),
    ],
)
def test_a_raw_schema_of_a_plugin(value: dict[str, Any], sound: bool) -> None:
    assert validator().is_valid(value) is sound


def test_a_reference_whose_target_moves_leaves_its_place_open() -> None:
    assert validator().is_valid({"width": 1, "far": object})


class Odd(Options):
    """Options that no JSON Schema can describe."""

    call: Callable[[int], int] | None = None


def test_options_that_cannot_be_described_are_left_open() -> None:
    spec = ComponentSpec("odd", "layer", Odd, "acme:Odd", "Odd.")
    found = options(spec, "acme.odd", {"type": True})["properties"]
    assert found["type"] is True
    validator = Draft202012Validator(found["call"])
    assert all(validator.is_valid(value) for value in (None, 3, "text", [], {}))


class Broken(Options):
    """Options of which making the schema fails."""

    @classmethod
    def __get_pydantic_json_schema__(cls, *arguments: Any) -> Any:
        raise SystemExit(0)


def test_options_whose_schema_raises_are_left_open_as_a_whole() -> None:
    spec = ComponentSpec("broken", "layer", Broken, "acme:Broken", "Broken.")
    assert options(spec, "acme.broken", {"type": True})["properties"] == {"type": True}


def test_a_plugin_takes_part_with_its_full_name() -> None:
    schema = architecture_schema(Registry.with_plugins({"acme": [SPEC]}), published=False)
    document: dict[str, Any] = {"version": 1, "dims": {"hidden_size": 1, "vocab_size": 1}, "stack": "a"}
    found = Draft202012Validator(schema)
    assert found.is_valid({**document, "components": {"a": {"type": "acme/raw", "width": 1}}})
    assert not found.is_valid({**document, "components": {"a": {"type": "acme/raw", "width": "x"}}})
    assert not found.is_valid({**document, "components": {"a": {"type": "raw", "width": 1}}})
