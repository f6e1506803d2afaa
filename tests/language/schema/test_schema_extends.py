"""Files with `extends`: what is laid over a base need not be whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schema_documents import REGISTRY, documents, parts_of

import axon_compose
from axon_compose.language.schema import architecture_schema
from axon_compose.language.source import to_yaml

INSTALLED = Draft202012Validator(architecture_schema(REGISTRY, published=False))


def errors(document: dict[str, Any]) -> list[str]:
    return [error.message for error in INSTALLED.iter_errors({"extends": "llama-small", **document})]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_loads_over_a_base_is_accepted(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    base = data.draw(documents())
    top = {**data.draw(parts_of(base)), "extends": "base.yaml"}
    folder: Path = tmp_path_factory.getbasetemp()
    (folder / "base.yaml").write_text(to_yaml(base))
    (folder / "top.yaml").write_text(to_yaml(top))
    try:
        axon_compose.load(folder / "top.yaml", registry=REGISTRY)
    except axon_compose.ArchitectureError:
        return
    event("loads")
    assert [error.message for error in INSTALLED.iter_errors(top)] == []


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"name": None, "layers": None, "x-mine": 1},
        {"dims": {"hidden_size": 512, "old": None}},
        {"components": {"attention": {"window_size": 8}, "mlp": None}},
        {"components": {"attention": {"type": "attention", "rope": {"scaling": {"factor": 2.0}}, "bias": None}}},
        {"blocks": {"layer": {"share": "all"}, "other": None, "third": ["mlp"]}},
        {"stack": {"layers": 3}},
        {"norm": {"eps": 1e-5}, "final_norm": None, "head": {"softcap": None}},
    ],
)
def test_a_part_is_enough(document: dict[str, Any]) -> None:
    assert errors(document) == []


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"extends": 3}, "3 is not of type 'string'"),
        ({"stak": "a"}, "'stak' does not match any of the regexes: '^x-'"),
        ({"components": {"a": {"type": "attention", "num_head": 8}}}, "('num_head' was unexpected)"),
        ({"components": {"a": {"type": "attention", "num_heads": 0}}}, "0 is less than or equal to the minimum of 0"),
        ({"components": {"a": {"type": "attenton"}}}, "'attenton'"),
        ({"blocks": {"a": {"branches": []}}}, "[] should be non-empty"),
        ({"blocks": {"a": [{"norm": "pre"}]}}, "is not valid under any"),
        ({"overrides": [{"layers": 3}]}, "'set' is a required property"),
        ({"stack": {"layer": 3}}, "('layer' was unexpected)"),
    ],
)
def test_what_is_there_is_still_checked(document: dict[str, Any], message: str) -> None:
    found = errors(document)
    assert len(found) == 1
    assert message in found[0]


def test_without_a_base_the_same_part_is_not_enough() -> None:
    assert errors({"stack": {"layers": 3}}) == []
    missing = [error.message for error in INSTALLED.iter_errors({"stack": {"layers": 3}})]
    assert missing == [
        "'version' is a required property",
        "'dims' is a required property",
        "'block' is a required property",
    ]
