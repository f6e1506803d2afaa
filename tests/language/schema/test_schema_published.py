"""The schema that is published: up to date, valid, and helpful about types."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from schema_documents import REGISTRY

from axon_compose.diagnostics import Problems
from axon_compose.language.document import BranchItem, CheckpointEnvelope, Item
from axon_compose.language.document._sections import Block, GeneratedStack, Override, StackItem
from axon_compose.language.schema import architecture_schema, dumps
from axon_compose.language.source import plain, read
from axon_compose.registry import Registry, option_names
from axon_compose.registry._data_files import data_dir

PATH = data_dir("schemas") / "architecture-1.schema.json"
ARCHITECTURES = sorted(data_dir("architectures").glob("*.yaml"))
SCHEMA: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
PUBLISHED = Draft202012Validator(SCHEMA)
INSTALLED = Draft202012Validator(architecture_schema(REGISTRY, published=False))


def with_component(component: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "dims": {"hidden_size": 64, "vocab_size": 100},
        "components": {"a": component},
        "stack": "a",
    }


def test_the_published_file_is_what_the_code_generates() -> None:
    generated = dumps(architecture_schema(Registry.installed(), published=True))
    assert PATH.read_text(encoding="utf-8") == generated, (
        "run: axon-compose schema -o schemas/architecture-1.schema.json"
    )


def test_other_plugins_do_not_change_it() -> None:
    assert dumps(architecture_schema(REGISTRY, published=True)) == PATH.read_text(encoding="utf-8")


@pytest.mark.parametrize("published", [True, False])
def test_it_is_a_schema(published: bool) -> None:
    schema = architecture_schema(REGISTRY, published=published)
    Draft202012Validator.check_schema(schema)
    assert list(dangling(schema, schema)) == []


def dangling(node: Any, root: Any) -> Iterator[str]:
    """References that lead nowhere."""
    if isinstance(node, dict):
        if isinstance(reference := node.get("$ref"), str):
            target = root
            for step in reference.removeprefix("#/").split("/"):
                target = target.get(step) if isinstance(target, dict) else None
            if target is None:
                yield reference
        for value in node.values():
            yield from dangling(value, root)
    elif isinstance(node, list):
        for value in node:
            yield from dangling(value, root)


def test_every_keyword_has_a_twin_in_draft_7() -> None:
    newer = {"unevaluatedProperties", "unevaluatedItems", "prefixItems", "dependentSchemas", "dependentRequired"}
    newer |= {"minContains", "maxContains", "$anchor", "$dynamicRef", "$dynamicAnchor", "$vocabulary"}
    assert not newer & set(re.findall(r'"([$\w]+)":', PATH.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", ARCHITECTURES, ids=lambda path: path.stem)
@pytest.mark.parametrize("validator", [PUBLISHED, INSTALLED], ids=["published", "installed"])
def test_the_shipped_architectures_fit(path: Any, validator: Draft202012Validator) -> None:
    node = read(path.read_bytes(), path.name, Problems())
    assert node is not None
    assert [error.message for error in validator.iter_errors(plain(node))] == []


def test_sections_have_the_keys_of_the_models() -> None:
    models = {"branch": BranchItem, "member": Item, "block": Block, "stack": GeneratedStack, "override": Override}
    for name, model in models.items():
        keys = [field.alias or key for key, field in model.model_fields.items()]
        assert list(SCHEMA["$defs"][name]["properties"]) == keys, name
    assert {"text", *SCHEMA["$defs"]["stack_item"]["properties"]} == set(StackItem.model_fields)
    for branch in ("then", "else"):
        assert set(SCHEMA[branch]["properties"]) == set(CheckpointEnvelope.model_fields)


@pytest.mark.parametrize("ending", ["", "_over_base"])
def test_options_have_the_names_of_the_specs(ending: str) -> None:
    for full, spec in Registry.installed().components().items():
        if full.startswith("core/"):
            found = SCHEMA["$defs"][full.replace("/", ".") + ending]["properties"]
            assert list(found) == ["type", *option_names(spec)], full


def test_everything_that_can_be_written_is_described() -> None:
    bare = [path for path, schema in properties(SCHEMA) if not {"description", "$ref"} & set(schema)]
    assert bare == []


def properties(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every property of every mapping, except in conditions."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if key == "properties":
            yield from ((f"{path}/{name}", schema) for name, schema in value.items() if isinstance(schema, dict))
        if key not in ("if", "oneOf"):
            yield from properties(value, f"{path}/{key}")


# Types.


@pytest.mark.parametrize("type_", ["zeta/thing", "zeta/attention", "acme/hyena2"])
def test_the_published_schema_tolerates_other_plugins(type_: str) -> None:
    assert PUBLISHED.is_valid(with_component({"type": type_, "anything": [1]}))
    assert PUBLISHED.is_valid(with_component(type_))
    assert not INSTALLED.is_valid(with_component({"type": type_}))


@pytest.mark.parametrize("type_", ["attenton", "core/attenton", "lm_head", "core/lm_head", "zeta/", "Zeta/x", "", "=a"])
@pytest.mark.parametrize("validator", [PUBLISHED, INSTALLED], ids=["published", "installed"])
def test_a_wrong_type_gets_the_list_of_types(type_: str, validator: Draft202012Validator) -> None:
    (error,) = validator.iter_errors(with_component({"type": type_}))
    assert list(error.absolute_path) == ["components", "a", "type"]
    (choices,) = [inner.validator_value for inner in error.context or () if inner.validator == "enum"]
    layers = [name for name, spec in REGISTRY.components().items() if spec.kind in ("layer", "block", "norm")]
    known = [name.removeprefix("core/") for name in layers if validator is INSTALLED or name.startswith("core/")]
    assert choices == known


@pytest.mark.parametrize("type_", ["attention", "core/attention"])
def test_a_wrong_option_is_named_at_its_place(type_: str) -> None:
    (error,) = PUBLISHED.iter_errors(with_component({"type": type_, "num_heads": 4, "d_stat": 1}))
    assert list(error.absolute_path) == ["components", "a"]
    assert "('d_stat' was unexpected)" in error.message
    (error,) = PUBLISHED.iter_errors(with_component({"type": type_, "num_heads": 4, "rope": {"theta": "big"}}))
    assert "rope" in error.absolute_path


@pytest.mark.parametrize(
    ("section", "value", "sound"),
    [
        ("norm", "layer_norm", True),
        ("norm", {"eps": "=1e-5"}, True),
        ("norm", {"bias": False}, False),
        ("norm", {"type": "layer_norm", "bias": False}, True),
        ("norm", "attention", False),
        ("norm", "none", False),
        ("final_norm", "none", True),
        ("final_norm", {"bias": False}, True),
        ("final_norm", {"type": "rms_norm", "bias": False}, False),
        ("embedding", {"size": 8}, True),
        ("embedding", {"tied": True}, False),
        ("head", {"tied": "=True"}, True),
        ("head", "token_embedding", False),
        ("head", None, False),
    ],
)
def test_every_section_takes_its_kind(section: str, value: Any, sound: bool) -> None:
    assert PUBLISHED.is_valid({**with_component("axon_ssm"), section: value}) is sound


def test_a_type_alone_must_need_no_options() -> None:
    assert PUBLISHED.is_valid(with_component("axon_ssm"))
    assert not PUBLISHED.is_valid(with_component("attention"))
    assert not PUBLISHED.is_valid(with_component({"num_heads": 4}))


def test_the_text_is_deterministic_and_plain() -> None:
    text = dumps(SCHEMA)
    assert text == dumps(json.loads(text))
    assert text.endswith("}\n")
    assert "\\u" not in text


def test_it_is_made_without_mlx() -> None:
    code = (
        "import sys; from axon_compose.language.schema import *; from axon_compose.registry import Registry\n"
        "dumps(architecture_schema(Registry.installed(), published=False))\n"
        "assert not {'mlx', 'mlx_lm', 'numpy', 'jsonschema'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
