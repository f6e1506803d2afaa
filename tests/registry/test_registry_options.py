"""Options: one set of words, whether a pydantic model or a JSON Schema says what is right."""

from __future__ import annotations

import enum
import io
import sys
import types
from collections.abc import Callable
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from registry_fakes import spec

from axon_compose.registry import (
    Fault,
    Options,
    PluginFault,
    Raised,
    check_options,
    defaults,
    load_factory,
    option_names,
    options_schema,
    pydantic_faults,
)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Rope(Options):
    theta: float = Field(10_000.0, gt=0)
    scaling: dict[str, float] = Field(default_factory=dict)


class Model(Options):
    heads: int = Field(ge=1, le=64, description="Number of heads.")
    kind: Literal["silu", "gelu"] = "silu"
    rank: int | Literal["auto"] = "auto"
    eps: float = Field(1e-6, gt=0, lt=1)
    bias: bool = False
    colour: Colour = Colour.RED
    label: str = Field("", max_length=5, pattern="^[a-z]*$")
    sizes: tuple[int, ...] = Field((), max_length=3)
    rope: Rope | None = None
    ropes: list[Rope] = Field(default_factory=list)


ROPE = {
    "type": "object",
    "properties": {
        "theta": {"type": "number", "exclusiveMinimum": 0, "default": 10_000.0},
        "scaling": {"type": "object", "additionalProperties": {"type": "number"}},
    },
    "additionalProperties": False,
}
SCHEMA = {
    "$defs": {"rope": ROPE},
    "properties": {
        "heads": {"type": "integer", "minimum": 1, "maximum": 64, "description": "Number of heads."},
        "kind": {"enum": ["silu", "gelu"], "default": "silu"},
        "rank": {"anyOf": [{"type": "integer"}, {"const": "auto"}], "default": "auto"},
        "eps": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1, "default": 1e-6},
        "bias": {"type": "boolean", "default": False},
        "colour": {"enum": ["red", "blue"], "default": "red"},
        "label": {"type": "string", "maxLength": 5, "pattern": "^[a-z]*$", "default": ""},
        "sizes": {"type": "array", "items": {"type": "integer"}, "maxItems": 3, "default": []},
        "rope": {"anyOf": [{"$ref": "#/$defs/rope"}, {"type": "null"}], "default": None},
        "ropes": {"type": "array", "items": {"$ref": "#/$defs/rope"}, "default": []},
    },
    "required": ["heads"],
}
BOTH = pytest.mark.parametrize("options", [Model, SCHEMA], ids=["pydantic", "schema"])


def faults(options: Any, data: dict[str, Any]) -> list[Fault]:
    checked, found = check_options(spec("moe", options=options), data)
    assert (checked is None) == bool(found)
    return found


def value(path: Any, kind: Any, message: str, found: str, help_: str | None = None) -> Fault:
    path = path if isinstance(path, tuple) else (path,)
    return Fault(path, kind, f"option {message}", f"expected {message.partition(' must be ')[2]}, found {found}", help_)


CASES: dict[str, tuple[dict[str, Any], list[Fault]]] = {
    "missing": (
        {},
        [
            Fault(
                ("heads",),
                "missing",
                "missing option `heads`",
                "`moe` needs `heads`",
                "`heads`: Number of heads.",
                True,
            )
        ],
    ),
    "a near miss is one fault": (
        {"haeds": 3},
        [
            Fault(
                ("haeds",), "unknown", "unknown option `haeds`", "not an option of `moe`", "did you mean `heads`?", True
            )
        ],
    ),
    "inner unknown": (
        {"heads": 1, "ropes": [{}, {"thet": 1.0}]},
        [
            Fault(
                ("ropes", 1, "thet"),
                "unknown",
                "unknown option `thet`",
                "not an option of `ropes`",
                "did you mean `theta`?",
                True,
            )
        ],
    ),
    "unknown inside a union": (
        {"heads": 1, "rope": {"zzz": 1.0}},
        [
            Fault(
                ("rope", "zzz"),
                "unknown",
                "unknown option `zzz`",
                "not an option of `rope`",
                "options of `rope`: `theta`, `scaling`",
                True,
            )
        ],
    ),
    "text for a number": (
        {"heads": "many"},
        [value("heads", "type", "`heads` must be an integer", "text")],
    ),
    "quoted number": (
        {"heads": "12"},
        [value("heads", "type", "`heads` must be an integer", "text", "write 12 without quotes")],
    ),
    "grouped digits": ({"heads": "1_2"}, [value("heads", "type", "`heads` must be an integer", "text", "write 12")]),
    "truth is no number": ({"heads": True}, [value("heads", "type", "`heads` must be an integer", "true")]),
    "whole float": ({"heads": 4.0}, [value("heads", "type", "`heads` must be an integer", "the number 4.0")]),
    "null": ({"heads": None}, [value("heads", "type", "`heads` must be an integer", "null")]),
    "a list": ({"heads": [1]}, [value("heads", "type", "`heads` must be an integer", "a list")]),
    "a mapping": ({"heads": {"a": 1}}, [value("heads", "type", "`heads` must be an integer", "a mapping")]),
    "too small": ({"heads": 0}, [value("heads", "range", "`heads` must be at least 1", "0")]),
    "too large": ({"heads": 65}, [value("heads", "range", "`heads` must be at most 64", "65")]),
    "huge": ({"heads": 10**60}, [value("heads", "range", "`heads` must be at most 64", "a huge number")]),
    "not above": (
        {"heads": 1, "rope": {"theta": 0.0}},
        [value(("rope", "theta"), "range", "`rope.theta` must be more than 0", "0.0")],
    ),
    "not below": ({"heads": 1, "eps": 1.0}, [value("eps", "range", "`eps` must be less than 1", "1.0")]),
    "choice": (
        {"heads": 1, "kind": "sliu"},
        [value("kind", "choice", "`kind` must be one of `silu`, `gelu`", "`sliu`", "did you mean `silu`?")],
    ),
    "enum": (
        {"heads": 1, "colour": "green"},
        [value("colour", "choice", "`colour` must be one of `red`, `blue`", "`green`")],
    ),
    "union": (
        {"heads": 1, "rank": "atuo"},
        [value("rank", "type", "`rank` must be an integer or `auto`", "text", "did you mean `auto`?")],
    ),
    "yes": (
        {"heads": 1, "bias": "yes"},
        [value("bias", "type", "`bias` must be true or false", "text", "write `true`")],
    ),
    "long text": (
        {"heads": 1, "label": "abcdef"},
        [value("label", "range", "`label` must be text of at most 5 characters", "`abcdef`")],
    ),
    "pattern": (
        {"heads": 1, "label": "A"},
        [value("label", "range", "`label` must be text that matches `^[a-z]*$`", "`A`")],
    ),
    "long list": (
        {"heads": 1, "sizes": [1, 2, 3, 4]},
        [value("sizes", "range", "`sizes` must be a list of at most 3 entries", "4 entries")],
    ),
    "inner value": (
        {"heads": 1, "sizes": [1, "x"]},
        [value(("sizes", 1), "type", "`sizes[1]` must be an integer", "text")],
    ),
    "mapping value": (
        {"heads": 1, "rope": {"scaling": {"a": "x"}}},
        [value(("rope", "scaling", "a"), "type", "`rope.scaling.a` must be a number", "text")],
    ),
}


@BOTH
@pytest.mark.parametrize("case", CASES)
def test_faults_in_plain_words(options: Any, case: str) -> None:
    data, expected = CASES[case]
    assert faults(options, data) == expected


class Names(Options):
    names: list[str] = Field(min_length=1)
    short: str = Field("a", min_length=1)


NAMES = {"properties": {"names": {"type": "array", "minItems": 1}, "short": {"type": "string", "minLength": 1}}}


@pytest.mark.parametrize("options", [Names, NAMES], ids=["pydantic", "schema"])
def test_one_is_singular(options: Any) -> None:
    assert [fault.label for fault in faults(options, {"names": [], "short": ""})] == [
        "expected a list of at least 1 entry, found 0 entries",
        "expected text of at least 1 character, found ``",
    ]


@BOTH
def test_every_fault_is_told(options: Any) -> None:
    found = faults(options, {"kind": "x", "bias": 3, "sizes": ["a", "b"], "zzz": 1})
    assert {fault.path for fault in found} == {("heads",), ("kind",), ("bias",), ("sizes", 0), ("sizes", 1), ("zzz",)}


@BOTH
def test_defaults_are_filled_in(options: Any) -> None:
    checked, found = check_options(spec(options=options), {"heads": 2, "ropes": [{}]})
    assert not found
    plain = checked if isinstance(checked, dict) else checked.model_dump(mode="json")
    assert (plain["kind"], plain["bias"], plain["sizes"], plain["rope"]) == ("silu", False, [], None)
    assert plain["heads"] == 2


@BOTH
def test_names_and_defaults(options: Any) -> None:
    record = spec(options=options)
    assert option_names(record) == list(Model.model_fields)
    assert set(defaults(record)) == set(Model.model_fields) - {"heads"}
    assert defaults(record)["eps"] == 1e-6


@BOTH
def test_the_published_schema_agrees(options: Any) -> None:
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(options_schema(spec(options=options)))
    assert validator.is_valid({"heads": 1})
    assert not validator.is_valid({"heads": 1, "zzz": 2})
    assert not validator.is_valid({})


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 70)
    | st.floats(-2, 2)
    | st.sampled_from(["silu", "auto", "red", "", "x"])
)
VALUES = st.recursive(
    SCALARS,
    lambda v: st.lists(v, max_size=4) | st.dictionaries(st.sampled_from(["theta", "scaling", "a"]), v, max_size=2),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*Model.model_fields, "zzz"]), VALUES, max_size=4))
def test_model_and_schema_agree(data: dict[str, Any]) -> None:
    by_model, by_schema = faults(Model, data), faults(SCHEMA, data)
    assert {f.path for f in by_model} == {f.path for f in by_schema}
    for fault in by_model + by_schema:
        assert fault.message
        assert "\n" not in fault.message + fault.label


def test_the_data_is_not_changed() -> None:
    data: dict[str, Any] = {"heads": 1, "rope": {}}
    checked, _ = check_options(spec(options=SCHEMA), data)
    checked["ropes"].append(1)
    assert data == {"heads": 1, "rope": {}}
    assert check_options(spec(options=SCHEMA), data)[0]["ropes"] == []


def test_a_schema_is_closed_unless_it_says_otherwise() -> None:
    inner = {"width": {"type": "integer"}}
    shared = {"$defs": {"base": {"properties": inner}}, "allOf": [{"$ref": "#/$defs/base"}], "properties": {"a": {}}}
    assert faults(shared, {"width": 1, "a": 2}) == []
    assert [f.help for f in faults(shared, {"widht": 1})] == ["did you mean `width`?"]
    assert faults({"properties": inner, "additionalProperties": True}, {"zzz": 1}) == []
    pattern = {"properties": inner, "patternProperties": {"^x_": {}}, "additionalProperties": False}
    assert [f.path for f in faults(pattern, {"x_1": 1, "zzz": 1})] == [("zzz",)]


def test_a_name_of_another_alternative_is_refused() -> None:
    schema = {
        "oneOf": [
            {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"b": {"type": "integer"}}, "required": ["b"]},
        ]
    }
    assert faults(schema, {"a": 1}) == []
    assert faults(schema, {"a": 1, "b": "x"})


WIDTHS: dict[str, Any] = {
    "properties": {"kind": {"enum": ["wide", "deep"], "default": "wide"}},
    "if": {"properties": {"kind": {"const": "wide"}}},
    "then": {"properties": {"width": {"type": "integer"}, "bias": {"type": "boolean"}}, "required": ["width"]},
    "else": {"properties": {"depth": {"type": "integer"}}},
}


@pytest.mark.parametrize(
    "schema",
    [
        WIDTHS,
        {"allOf": [WIDTHS, {"properties": {"name": {"type": "string"}}}]},
        {"$ref": "#/$defs/widths", "$defs": {"widths": WIDTHS}},
        {
            "properties": WIDTHS["properties"],
            "anyOf": [
                {"properties": {"kind": {"const": "wide"}} | WIDTHS["then"]["properties"], "required": ["width"]},
                {"properties": {"kind": {"const": "deep"}} | WIDTHS["else"]["properties"], "required": ["kind"]},
            ],
        },
    ],
    ids=["if", "allOf", "$ref", "anyOf"],
)
def test_a_mistyped_option_of_an_alternative_is_reported_once(schema: dict[str, Any]) -> None:
    """A validator calls whatever stands beside it unevaluated, too."""
    assert faults(schema, {"width": 3, "bias": True}) == []
    assert faults(schema, {"kind": "deep", "depth": 3}) == []
    found = faults(schema, {"width": "3", "bias": True})
    assert [(f.path, f.kind) for f in found] == [(("width",), "type")]
    found = faults(schema, {"width": "3", "bias": True, "depht": 1})
    assert {(f.path, f.kind, f.help) for f in found} == {
        (("width",), "type", "write 3 without quotes"),
        (("depht",), "unknown", "did you mean `depth`?"),
    }


def test_a_schema_that_is_closed_before_its_alternatives() -> None:
    """`additionalProperties` sees none of them, so the schema is wrong; a mistyped option is still reported once."""
    closed = {**WIDTHS, "additionalProperties": False}
    assert [f.path for f in faults(closed, {"width": "3"})] == [("width",)]
    assert "must be an integer" in faults(closed, {"width": "3"})[0].message
    (found,) = faults(closed, {"width": 3})
    assert found.message == "`width` belongs to an alternative of the options, and the schema refuses it"


def test_an_option_of_the_other_alternative() -> None:
    (found,) = faults(WIDTHS, {"width": 3, "depth": 1})
    assert found.path == ("depth",)
    assert found.message == "`depth` belongs to an alternative of the options, and another one is chosen"
    assert {f.path for f in faults(WIDTHS, {"width": "3", "depth": 1})} == {("depth",), ("width",)}


def test_a_dangling_reference_blames_the_plugin() -> None:
    found = faults({"properties": {"a": {"$ref": "#/$defs/nothing"}}}, {"a": 1})
    assert [(f.path, f.kind, f.message) for f in found] == [((), "plugin", "the options of `moe` cannot be checked")]


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **n: asked.append(a) or io.BytesIO(b"{}"))
    remote = {"properties": {"a": {"$ref": "https://example.com/a.json"}}}
    assert [f.kind for f in faults(remote, {"a": 1})] == ["plugin"]
    assert asked == []


class Checked(Options):
    heads: int
    groups: int = 1

    @model_validator(mode="after")
    def _divides(self) -> Checked:
        if self.groups == 7:
            raise ZeroDivisionError("seven")
        if self.heads % self.groups:
            raise ValueError(f"`heads` ({self.heads}) is not a multiple\nof `groups` ({self.groups})")
        return self


def test_validators_speak_for_themselves() -> None:
    assert faults(Checked, {"heads": 5, "groups": 2}) == [
        Fault((), "value", "`heads` (5) is not a multiple of `groups` (2)")
    ]


class Loose(Options):
    activation: Callable[[float], float] = abs
    width: int = Field(4, gt=0)


def test_options_that_have_no_schema_are_open_and_the_others_are_not() -> None:
    """A function cannot be written in a file anyway."""
    schema = options_schema(spec(options=Loose))
    assert schema["properties"]["width"]["exclusiveMinimum"] == 0
    assert set(schema["properties"]["activation"]) <= {"title"}
    assert faults(Loose, {"width": 3}) == []
    (found,) = faults(Loose, {"activation": "abs"})
    assert found.path == ("activation",)


def test_a_schema_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(Options):
        @classmethod
        def __get_pydantic_json_schema__(cls, *arguments: Any) -> Any:
            raise SystemExit(0)

    with pytest.raises(Raised, match=r"SystemExit: 0, at registry/test_registry_options\.py:\d+"):
        options_schema(spec(options=Odd))


def test_a_validator_that_breaks_blames_the_plugin() -> None:
    (found,) = faults(Checked, {"heads": 5, "groups": 7})
    line = Checked._divides.__code__.co_firstlineno + 3
    assert (found.kind, found.label) == (
        "plugin",
        f"ZeroDivisionError: seven, at registry/test_registry_options.py:{line}",
    )


def test_a_number_that_python_cannot_write() -> None:
    assert [f.kind for f in faults(Checked, {"heads": 10**5000})] == ["value"]


class Stack(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    items: list[Rope | str] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _accept_list(cls, value: Any) -> Any:
        return {"items": value} if isinstance(value, list) else value


class Envelope(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    stack: Stack


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"stack": [{"thet": 1.0}]}, ("stack", 0, "thet")),
        ({"stack": [{"theta": "x"}]}, ("stack", 0, "theta")),
        ({"stack": {"items": [{"theta": "x"}]}}, ("stack", "items", 0, "theta")),
    ],
)
def test_paths_lead_into_the_file(data: dict[str, Any], path: tuple[str | int, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        Envelope.model_validate(data)
    found = pydantic_faults(caught.value, data, model=Envelope, owner="the file", noun="key")
    assert [fault.path for fault in found] == [path]
    if path[-1] == "thet":
        assert (found[0].message, found[0].help) == ("unknown key `thet`", "did you mean `theta`?")


def test_tags_are_guessed_without_the_data() -> None:
    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"heads": 1, "rank": "x"})
    assert [fault.path for fault in pydantic_faults(caught.value)] == [("rank",)]


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    made = types.ModuleType("acme_layers")
    made.Hyena = type("Hyena", (), {"make": staticmethod(dict), "size": 3})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "acme_layers", made)
    return made


def test_factory_is_found(acme: Any) -> None:
    assert load_factory(spec(module="acme_layers:Hyena")) is acme.Hyena
    assert load_factory(spec(module="acme_layers:Hyena.make")) is dict


@pytest.mark.parametrize(
    ("module", "label", "help_"),
    [
        (
            "no_such_module:X",
            "`import no_such_module` fails: ModuleNotFoundError: No module named 'no_such_module'",
            "AXON_COMPOSE_PLUGIN_DEBUG=1 shows the traceback",
        ),
        ("acme_layers:Hyana", "`acme_layers` has no `Hyana`", "did you mean `Hyena`?"),
        ("acme_layers:Hyena.mkae", "`acme_layers` has no `Hyena.mkae`", "did you mean `make`?"),
        ("acme_layers:Hyena.size", "`acme_layers:Hyena.size` cannot be called", None),
    ],
)
def test_factory_is_not_found(acme: Any, module: str, label: str, help_: str | None) -> None:
    with pytest.raises(PluginFault) as caught:
        load_factory(spec(module=module), "`acme/hyena` (axon-acme 1.2)")
    message = f"the code of `acme/hyena` (axon-acme 1.2) cannot be imported: {label}"
    assert (caught.value.code, caught.value.message, caught.value.help) == ("AX208", message, help_)
