"""The schema says of random files what the models say of them.

Left out, for no schema can know it: rules that tie several places together (`CrossField`), names that are used and
not defined, what formulas result in, and `4.0`, which is an integer to JSON Schema but not to the models.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schema_documents import REGISTRY, CrossField, damaged, documents, is_sound

import axon_compose
from axon_compose.language.schema import architecture_schema

INSTALLED = Draft202012Validator(architecture_schema(REGISTRY, published=False))
PUBLISHED = Draft202012Validator(architecture_schema(REGISTRY, published=True))
QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
#: Codes for the shape of a file: keys, values, versions and types.
SHAPE = ("AX100", "AX101", "AX102", "AX103", "AX105", "AX201", "AX202", "AX206", "AX210")


def codes(document: dict[str, Any]) -> set[str]:
    try:
        axon_compose.load(document, registry=REGISTRY)
    except axon_compose.ArchitectureError as error:
        return {diagnostic.code for diagnostic in error.diagnostics}
    return set()


def complaint(validator: Draft202012Validator, document: dict[str, Any]) -> str:
    return "; ".join(f"{list(e.absolute_path)}: {e.message}" for e in validator.iter_errors(document))


@settings(QUIET, max_examples=100)
@given(documents())
def test_a_sound_file_has_no_fault_anywhere(document: dict[str, Any]) -> None:
    assert is_sound(document)
    assert complaint(INSTALLED, document) == ""
    assert complaint(PUBLISHED, document) == ""
    assert not codes(document) & set(SHAPE)


@settings(QUIET, max_examples=400)
@given(st.data())
def test_a_damaged_file_is_refused_by_both_or_by_none(data: st.DataObject) -> None:
    document = data.draw(damaged(data.draw(documents())))
    try:
        sound = is_sound(document)
    except CrossField:
        assume(False)
    found, told = complaint(INSTALLED, document), codes(document)
    # The words of an override (`0..3`, `ssm.d_state`) are read by the plan, not by a model.
    assert (found == "") == (sound and "AX136" not in told), found or "accepted by the schema alone"
    if found:
        assert told, found
    elif "overrides" not in document:  # whose values no schema knows: they belong to components named in keys
        assert not told & set(SHAPE)


@settings(QUIET, max_examples=150)
@given(st.data())
def test_the_published_schema_accepts_what_the_installed_one_does(data: st.DataObject) -> None:
    document = data.draw(damaged(data.draw(documents())))
    if INSTALLED.is_valid(document):
        assert complaint(PUBLISHED, document) == ""


@pytest.mark.parametrize("validator", [INSTALLED, PUBLISHED], ids=["installed", "published"])
def test_the_known_difference_is_a_float_for_an_integer(validator: Draft202012Validator) -> None:
    document = {
        "version": 1,
        "dims": {"hidden_size": 64, "vocab_size": 9},
        "components": {"mlp": {"type": "mlp", "intermediate_size": 4.0}},
        "blocks": {"a": ["mlp"]},
        "stack": "a",
    }
    assert validator.is_valid(document)
    assert codes(document) == {"AX102"}


@pytest.mark.parametrize("rule", ["", {"to": ""}], ids=str)
def test_a_rule_without_a_name_is_refused_by_both(rule: str | dict[str, str]) -> None:
    document = {
        "version": 1,
        "dims": {"hidden_size": 64, "vocab_size": 9},
        "components": {"mlp": {"type": "mlp", "intermediate_size": 4}},
        "blocks": {"a": ["mlp"]},
        "stack": "a",
        "huggingface": {"model_types": ["a"], "weights": {"x.<l>.up": rule}},
    }
    assert "x.<l>.up" in complaint(INSTALLED, document)
    assert codes(document) == {"AX102"}
