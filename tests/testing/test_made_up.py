"""Options and stacks that are made up: valid, various, and small when they fail."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import Field

import axon_compose
from axon_compose.proof.check import CheckReport, Truth
from axon_compose.registry import ComponentSpec, Options, Registry, options_schema
from axon_compose.testing import DIMS, Unmakeable, component_model, layer_cases
from axon_compose.testing import _minimal as minimal_module
from axon_compose.testing._cases import drawn_model
from axon_compose.testing._choices import Seeded
from axon_compose.testing._minimal import minimal
from axon_compose.testing._options import draw_options
from axon_compose.testing._parts import drawn_part
from axon_compose.testing._stacks import drawn_stack
from axon_compose.testing.strategies import options, stacks

REGISTRY = Registry.installed()
ALONE = [name for name in REGISTRY.components() if name != "core/per_layer_input"]
T = TypeVar("T")


@pytest.mark.parametrize("name", ALONE)
def test_options_are_valid_and_various(name: str) -> None:
    spec = REGISTRY.component(name)
    validator = Draft202012Validator(options_schema(spec))
    found = [drawn_part(name, Seeded(seed), DIMS, REGISTRY) for seed in range(12)]
    for drawn in found:
        assert drawn is not None
        assert not list(validator.iter_errors(drawn))
        axon_compose.load(component_model(name, spec.kind, drawn))
    assert len({repr(drawn) for drawn in found}) >= min(4, variety(options_schema(spec)))


def variety(schema: Mapping[str, Any]) -> int:
    """How many different options a record can be given at least: each is one of its values, or is left out."""
    required = schema.get("required", ())
    values = {
        name: 2 if part.get("type") == "boolean" else len(part.get("enum", range(4)))
        for name, part in schema.get("properties", {}).items()
    }
    return prod(count + (name not in required) for name, count in values.items())


class Last:
    """Always the last of the values: most of the options, as far from the simple as can be."""

    def choose(self, values: Sequence[T]) -> T:
        return values[-1]


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "order": {"type": "integer", "minimum": 5, "maximum": 7},
        "even": {"type": "integer", "exclusiveMinimum": 40, "multipleOf": 10},
        "rate": {"type": "number", "exclusiveMinimum": 0.1, "maximum": 0.2},
        "share": {"type": "number", "maximum": 0.5},
        "kind": {"enum": ["a", "b"]},
        "always": {"const": 3},
        "either": {"oneOf": [{"type": "boolean"}, {"$ref": "#/$defs/pair"}]},
        "several": {"type": ["integer", "null"]},
        "both": {"allOf": [{"type": "integer"}, {"minimum": 100}]},
        "list": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 3},
        "label": {"type": "string", "default": "one"},
    },
    "$defs": {
        "pair": {
            "type": "object",
            "properties": {"left": {"type": "integer"}, "right": {"type": "boolean"}},
            "required": ["left"],
            "additionalProperties": False,
        }
    },
    "additionalProperties": False,
}


def spec_of(schema: Any, **more: Any) -> ComponentSpec:
    return ComponentSpec("made", "layer", schema, "nowhere:Made", "For its options alone.", **more)


@given(st.integers(0, 10_000), st.booleans())
def test_every_keyword_of_a_schema(seed: int, required: bool) -> None:
    schema = SCHEMA | ({"required": list(SCHEMA["properties"])} if required else {})
    drawn = draw_options(spec_of(schema), Seeded(seed))
    assert not list(Draft202012Validator(schema).iter_errors(drawn))
    assert not required or drawn.keys() == SCHEMA["properties"].keys()


SPEC = spec_of({"type": "object", "properties": {"rate": {"type": "number", "default": 0.5}}})


def test_what_a_record_shows_is_kept_to() -> None:
    """Numbers stay near those of the examples, and options that name other components are left out."""
    schema = {
        "type": "object",
        "properties": {"gain": {"type": "number"}, "source": {"type": "string"}, "name": {"type": "string"}},
        "required": ["gain", "name"],
    }
    spec = spec_of(schema, examples=({"gain": 8.0, "name": "x", "source": "y"},), reads={"kv": "source"})
    drawn = [draw_options(spec, Seeded(seed)) for seed in range(40)]
    assert {each["gain"] for each in drawn} == {8.0, 4.0, 16.0}
    assert all(each.keys() == {"gain", "name"} and each["name"] == "x" for each in drawn)


def test_what_cannot_be_made_up() -> None:
    schema = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
    with pytest.raises(Unmakeable, match="`path` of `made` may be anything: give the record an example"):
        draw_options(spec_of(schema), Seeded(0))
    endless = {"$ref": "#/properties/x"}
    with pytest.raises(Unmakeable, match="refers to itself"):
        draw_options(spec_of({"properties": {"x": endless}, "required": ["x"]}), Seeded(0))
    deep = {"type": "object", "properties": {"x": {"$ref": "#/properties/x"}}, "required": ["x"]}
    with pytest.raises(Unmakeable, match="never ends"):
        draw_options(spec_of({"properties": {"x": deep}, "required": ["x"]}), Seeded(0))


class Functional(Options):
    """An option that no file can give."""

    activation: Callable[[float], float] = abs
    width: int = Field(8, gt=0)


class Undescribed(Options):
    @classmethod
    def __get_pydantic_json_schema__(cls, *arguments: Any) -> Any:
        raise SystemExit(0)


def test_options_without_a_schema() -> None:
    """What has no schema is left out; where nothing has one, that is said, and given options are still checked."""
    drawn = [draw_options(spec_of(Functional), Seeded(seed)) for seed in range(20)]
    assert any("width" in each for each in drawn)
    assert not any("activation" in each for each in drawn)
    with pytest.raises(
        Unmakeable, match="the options of `made` have no JSON Schema, so none can be made up: SystemExit: 0"
    ):
        draw_options(spec_of(Undescribed), Seeded(0))


@pytest.mark.parametrize("name", ["attention", "rwkv7_time_mix"])
def test_some_cases_read_from_another_layer(name: str) -> None:
    models = [drawn_model(name, Seeded(seed), DIMS, REGISTRY) for seed in range(12)]
    readers = [model for model in models if "source" in model["components"]]
    assert 0 < len(readers) < len(models)
    for model in readers:
        assert axon_compose.load(model).plan().layers[-1].branches[0].members[0].use.source_layers == (0,)


def test_a_record_that_takes_nothing() -> None:
    def params(chosen: Any, dims: Any) -> Any:
        raise ValueError("never")

    spec = spec_of({"type": "object"}, params=params)
    registry = Registry.with_plugins({"acme": [spec]})
    assert drawn_part("acme/made", Last(), DIMS, registry) is None
    with pytest.raises(Unmakeable, match="no options of `acme/made` were found"):
        next(layer_cases("acme/made", registry=registry))
    position = ComponentSpec("turn", "position", {"type": "object"}, "nowhere:Turn", "A position.")
    cases = layer_cases("acme/turn", registry=Registry.with_plugins({"acme": [position]}))
    with pytest.raises(ValueError, match="kind position stands in no model by itself"):
        next(cases)


def test_stacks_are_of_every_kind() -> None:
    found = [stack for stack in (drawn_stack(Seeded(seed), REGISTRY) for seed in range(120)) if stack]
    assert len(found) > 90
    seen: Counter[str] = Counter()
    for stack in found:
        seen.update({section["type"] for section in stack["components"].values()})
        text = repr(stack)
        words = (
            "parallel", "share", "'as'", "'add'", "sandwich", "'post'", "'none'", "scale", "kv_from",
            "'tied': False", "per_layer", "layer_norm", "window_size", "'size'",
        )  # fmt: skip
        seen.update(word for word in words if word in text)
        layers = axon_compose.load(stack).plan().layers
        seen["layers"] = max(seen["layers"], len(layers))
        seen["reused"] += any(layer.owner is not None for layer in layers)
        seen["readers"] += any(use.source_layers for layer in layers for use in layer.uses())
    kinds = {name for name, spec in REGISTRY.components().items() if spec.kind in ("layer", "block")}
    assert not kinds - seen.keys()
    assert all(seen[word] for word in words), [word for word in words if not seen[word]]
    assert seen["layers"] == 3
    assert seen["reused"] > 0
    assert seen["readers"] > 0


@settings(max_examples=10, suppress_health_check=list(HealthCheck))
@given(stacks(), options("moe"))
def test_strategies(stack: dict[str, Any], moe: dict[str, Any]) -> None:
    axon_compose.load(stack)
    axon_compose.load(component_model("moe", "layer", moe))


def test_strategy_of_a_record() -> None:
    found = find(options(SPEC), lambda chosen: "rate" in chosen)
    assert found.keys() == {"rate"}
    assert found["rate"] in (0.5, 0.25, 1.0)


def test_the_least_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that fails if a reader has a softcap loses all that is not around it."""

    def check(plan: Any, *, seed: int, truths: Any) -> CheckReport:
        uses = [use for layer in plan.layers for use in layer.uses()]
        wrong = any(use.source_layers and use.options.softcap for use in uses)
        return CheckReport("m", seed, 1, 1, tuple(Truth(name, "", not wrong) for name in truths))

    monkeypatch.setattr(minimal_module, "check_plan", check)
    description: dict[str, Any] = {
        "version": 1,
        "name": "random",
        "dims": {"hidden_size": 32, "vocab_size": 7},
        "components": {
            "attn": {"type": "attention", "num_heads": 4, "num_kv_heads": 2},
            "reader": {"type": "attention", "num_heads": 4, "kv_from": "attn", "softcap": 3.0, "qk_norm": {"eps": 0.1}},
            "mlp": {"type": "mlp", "intermediate_size": 8},
        },
        "blocks": {
            "a": ["attn", "mlp"],
            "b": {"branches": [{"parallel": ["mlp", "reader"], "scale": 0.5}, "mlp"], "share": "one"},
        },
        "stack": ["a", "a", "b"],
        "head": {"softcap": 30.0},
    }
    report = CheckReport("m", 3, 1, 1, (Truth("steps", "", False), Truth("causal", "", True)))
    assert minimal(description, report, REGISTRY) == {
        "version": 1,
        "name": "random",
        "dims": {"hidden_size": 32, "vocab_size": 7},
        "components": {
            "attn": {"type": "attention", "num_heads": 4},
            "reader": {"type": "attention", "num_heads": 4, "kv_from": "attn", "softcap": 3.0},
        },
        "blocks": {"a": ["attn"], "b": {"branches": [{"parallel": ["reader"]}]}},
        "stack": ["a", "b"],
    }


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_hypothesis_and_pytest_are_not_needed() -> None:
    done = python("import sys, axon_compose.testing; print([m for m in ('hypothesis', 'pytest') if m in sys.modules])")
    assert done.stdout == "[]\n", done.stderr
    done = python("import sys; sys.modules['hypothesis'] = None; import axon_compose.testing.strategies")
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: axon_compose.testing.strategies needs hypothesis: pip install hypothesis"
    )


def test_fixtures(tmp_path: Path) -> None:
    """In a run of pytest of their own, with another seed, and with plugins that are not installed."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["axon_compose.testing.fixtures"]\n')
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "from dataclasses import replace\n"
        "from axon_compose.registry import Registry\n"
        "@pytest.fixture(scope='session')\n"
        "def axon_registry():\n"
        "    spec = Registry.installed().component('mlp')\n"
        "    return Registry.with_plugins({'acme': [replace(spec, examples=spec.examples[:1])]})\n"
        "def test_layer(check_layer):\n"
        "    assert check_layer.keywords['seed'] == 5\n"
        "    check_layer('acme/mlp', {'intermediate_size': 8}, truths=['steps'])\n"
        "def test_plugin(check_plugin):\n"
        "    check_plugin('acme')\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error", "--axon-seed", "5"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert f"axon-compose: {axon_compose.__version__}, --axon-seed 5" in done.stdout
