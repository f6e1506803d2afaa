"""Validation by a pydantic model, and its errors as faults."""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import ErrorDetails

from axon_compose.registry._faults import Fault, FaultKind, Findings, Path, bound

__all__ = ["OpenSchema", "Options", "check_model", "definition_fault", "field_names", "pydantic_faults"]


class Options(BaseModel):
    """Base of option models: no conversions, no unknown names, no infinities, read-only.

    A default that is a model itself is made by `model_construct`, which builds no validator that nobody needs.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


class OpenSchema(GenerateJsonSchema):
    """Leaves open what JSON Schema has no word for, instead of refusing the whole model."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012  # as pydantic declares it

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:
        """Any value."""
        return {}


_NAME: Final = re.compile(r"[a-z][a-z0-9_-]*")
#: Most faults reported for one mapping.
_MOST: Final = 1000
#: What pydantic calls the members of a union of plain types.
_TAGS: Final = frozenset({"bool", "int", "float", "str", "none", "list", "dict", "tuple"})
_TYPES: Final[dict[str, str]] = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_sub_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "none_required": "null",
}
_RANGES: Final[dict[str, str]] = {
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
    "string_pattern_mismatch": "text that matches `{pattern}`",
    "too_short": "{kind} of at least {min_length} entries",
    "too_long": "{kind} of at most {max_length} entries",
}


def check_model(
    model: type[BaseModel], data: Mapping[str, Any], owner: str, noun: str = "option"
) -> tuple[BaseModel | None, list[Fault]]:
    """Validate a mapping from a file against a model.

    Args:
        model: The model.
        data: Plain data, as JSON could hold it.
        owner: Whose options these are, for messages.
        noun: What an entry is called, for messages.

    Returns:
        The model's instance and no faults, or None and every fault.

    Raises:
        Exception: Whatever a validator of the model's author raises.
    """
    try:
        text = json.dumps(data)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return None, [Fault((), "value", f"a number among the {noun}s of `{owner}` is too large")]
    try:
        # In pydantic's JSON mode a strict tuple or enum takes the list or text that a file can hold.
        return model.model_validate_json(text), []
    except ValidationError as error:
        return None, pydantic_faults(error, data, model=model, owner=owner, noun=noun)


def definition_fault(model: type[BaseModel]) -> str | None:
    """What is wrong with the model itself, such as an annotation that names nothing; or None.

    Models are completed when they are first used, which takes time. This looks only where a name was not known yet.
    """
    if getattr(model, "__pydantic_fields_complete__", True):
        return None
    try:
        model.model_rebuild()
    except PydanticUndefinedAnnotation as error:
        return f"an annotation of `{model.__name__}` names `{error.name}`, which is not defined"
    return None


def pydantic_faults(
    error: ValidationError,
    data: Any = None,
    *,
    model: type[BaseModel] | None = None,
    owner: str = "",
    noun: str = "option",
) -> list[Fault]:
    """The errors of a pydantic model in plain words, with paths that lead into `data`.

    Args:
        error: What pydantic raised.
        data: What was validated. Pydantic puts tags of unions, and whatever a `before` validator wrapped around a
            value, between the steps of a location; only steps that lead somewhere in `data` are kept. Without it
            tags are distinguished from names by their spelling.
        model: The model that raised it; needed to suggest names for unknown ones and to describe missing ones.
        owner: Whose entries these are, for messages, e.g. `attention`.
        noun: What an entry is called, for messages.
    """
    findings = Findings(owner or error.title, noun)
    for detail in error.errors(include_url=False)[:_MOST]:
        _translate(detail, findings, data, model)
    return findings.faults()


def field_names(model: type[BaseModel]) -> list[str]:
    """The names that a file may use, in the order of definition."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _translate(detail: ErrorDetails, findings: Findings, data: Any, model: type[BaseModel] | None) -> None:
    type_, loc, context = detail["type"], detail["loc"], detail.get("ctx", {})
    if type_ in ("extra_forbidden", "missing") and loc:
        parent, name = tuple(_walk(data, loc[:-1])), str(loc[-1])
        models = list(_models(model, loc[:-1]))
        if type_ == "missing":
            findings.missing(parent, name, _description(models, name))
        else:
            names = dict.fromkeys(n for m in models for n in field_names(m))
            findings.unknown(parent, name, names if models else None)
        return
    path = tuple(_walk(data, loc))
    if expectation := _expectation(type_, context):
        findings.mismatch(path, detail["input"], *expectation)
    elif type_ in ("value_error", "assertion_error"):
        findings.value(path, str(context.get("error", detail["msg"])))
    else:
        findings.value(path, detail["msg"][:1].lower() + detail["msg"][1:])


def _walk(data: Any, loc: Path) -> Iterator[str | int]:
    """The steps of a location that lead somewhere in `data`."""
    for step in loc:
        if data is None:
            if isinstance(step, int) or (_NAME.fullmatch(step) and step not in _TAGS):
                yield step
        elif isinstance(data, Mapping):
            if step in data:
                yield step
                data = data[step]
        elif isinstance(data, list) and isinstance(step, int) and 0 <= step < len(data):
            yield step
            data = data[step]


def _expectation(type_: str, context: Mapping[str, Any]) -> tuple[FaultKind, str, list[str]] | None:
    """Kind, wording and choices of a value error; None for those that speak for themselves."""
    if type_ in _TYPES:
        return "type", _TYPES[type_], []
    if type_ in _RANGES:
        kind = "a mapping" if context.get("field_type") == "Dictionary" else "a list"
        limits = {name: bound(limit) for name, limit in context.items()}
        return "range", _RANGES[type_].format_map({**limits, "kind": kind}), []
    if type_ in ("literal_error", "enum", "union_tag_invalid"):
        choices = _choices(str(context.get("expected", context.get("expected_tags", ""))))
        listed = ", ".join(f"`{c}`" for c in choices)
        return "choice", listed if len(choices) == 1 else f"one of {listed}", choices
    return None


def _choices(expected: str) -> list[str]:
    """The names in pydantic's `'a', 'b' or 'c'`."""
    found = re.findall(r"'([^']*)'|([^\s,]+)", re.sub(r"(?<=\S) or (?=\S)", ", ", expected))
    return [quoted or bare for quoted, bare in found]


def _description(models: list[type[BaseModel]], name: str) -> str:
    fields = (model.model_fields.get(name) for model in models)
    return next((" ".join(f.description.split()) for f in fields if f and f.description), "")


def _models(annotation: Any, loc: Path) -> Iterator[type[BaseModel]]:
    """The models that may stand at a location inside a value of this type."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        if not loc:
            yield annotation
        for name, field in annotation.model_fields.items() if loc else ():
            if (field.alias or name) == loc[0]:
                yield from _models(field.annotation, loc[1:])
        return
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _models(arguments[0], loc)
    elif origin in (Union, types.UnionType):
        for member in arguments:
            yield from _models(member, loc)
            if loc:  # the first step may be the tag of this member
                yield from _models(member, loc[1:])
    elif loc:
        for member in arguments:
            yield from _models(member, loc[1:])
