"""The options of a component: checked, listed, described and, for `build`, handed to its factory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, Final
from weakref import WeakKeyDictionary

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from axon_compose.registry import _json_schema, _pydantic
from axon_compose.registry._code import load_code
from axon_compose.registry._faults import Fault
from axon_compose.registry._guard import DEBUG_HELP, Guard, PluginFault, Raised
from axon_compose.registry._specs import ComponentSpec, Dims, Optioned

__all__ = [
    "as_data",
    "check_options",
    "defaults",
    "load_factory",
    "option_names",
    "options_schema",
    "shrunken",
    "written",
]

#: Schemas of the models that one was asked of: pydantic takes ten milliseconds for each.
_SCHEMAS: Final[WeakKeyDictionary[type[BaseModel], dict[str, Any]]] = WeakKeyDictionary()


def check_options(spec: Optioned, data: Mapping[str, Any], owner: str | None = None) -> tuple[Any, list[Fault]]:
    """Validate the options of a component as written in a file.

    Args:
        spec: The component, or a task.
        data: Plain data with formulas resolved, without `type`.
        owner: What messages call the component; its name unless given.

    Returns:
        Options ready for the factory and no faults, or None and every fault. Options are an instance of the
        pydantic model, or a dict with the schema's defaults filled in.
    """
    owner = owner or spec.name
    try:
        with Guard():  # validators of the plugin's author, and patterns that may never end
            if isinstance(spec.options, Mapping):
                return _json_schema.check_data(spec.options, data, owner)
            return _pydantic.check_model(_model(spec), data, owner)
    except Raised as raised:
        return None, [Fault((), "plugin", f"the options of `{owner}` cannot be checked", str(raised))]


def option_names(spec: Optioned) -> list[str]:
    """The names that a file may write, in the order of definition."""
    if isinstance(spec.options, Mapping):
        return _json_schema.property_names(spec.options)
    return _pydantic.field_names(_model(spec))


def defaults(spec: Optioned) -> dict[str, Any]:
    """The values of options that need not be written."""
    if isinstance(spec.options, Mapping):
        return _json_schema.defaults(spec.options)
    fields = {field.alias or name: field for name, field in _model(spec).model_fields.items()}
    return {
        name: field.get_default(call_default_factory=True, validated_data={})
        for name, field in fields.items()
        if field.default is not PydanticUndefined or field.default_factory
    }


def options_schema(spec: Optioned) -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) of the options; those of types that it has no word for, as a function, are open.

    Raises:
        Raised: The types of a plugin's author have no schema.
    """
    with Guard():
        if isinstance(spec.options, Mapping):
            return _json_schema.closed(spec.options)
        model = _model(spec)
        if model not in _SCHEMAS:
            _SCHEMAS[model] = model.model_json_schema(schema_generator=_pydantic.OpenSchema)
        return deepcopy(_SCHEMAS[model])


def written(options: Any) -> dict[str, Any]:
    """Options as a file writes them: plain data, without what was left at its default.

    Args:
        options: What functions of a record get: an instance of the pydantic model, or a mapping.
    """
    if isinstance(options, BaseModel):
        return options.model_dump(mode="json", by_alias=True, exclude_unset=True, warnings=False)
    return dict(options)


def as_data(options: Any, who: str) -> dict[str, Any]:
    """Options as plain data, defaults included.

    Args:
        options: What functions of a record get.
        who: What messages call the component.

    Raises:
        PluginFault: `AX212`, code of the plugin that turns them into data raises.
    """
    try:
        with Guard():
            return options.model_dump(by_alias=True) if isinstance(options, BaseModel) else dict(options or {})
    except Raised as raised:
        raise PluginFault("AX212", f"the options of {who} cannot be read: {raised}", DEBUG_HELP) from raised


def shrunken(spec: ComponentSpec, values: Mapping[str, Any], dims: Dims, who: str | None = None) -> dict[str, Any]:
    """Options as written, made small by the component's own `shrink`; without one they stay.

    Args:
        spec: The component.
        values: Its options as a file writes them, right ones, formulas resolved.
        dims: Of the model as it is.
        who: What messages call it, with its distribution; its name unless given.

    Raises:
        PluginFault: `AX212`, `shrink` raises, or gives something else than options that the component takes.
    """
    if spec.shrink is None:
        return dict(values)
    options, _ = check_options(spec, values)
    name = f"`shrink` of {who or f'`{spec.name}`'}"
    try:
        with Guard():
            small = written(spec.shrink(options, dims))
    except Raised as raised:
        raise PluginFault("AX212", f"{name} raises {raised}", DEBUG_HELP) from raised
    if faults := check_options(spec, small)[1]:
        reason = ": ".join(filter(None, (faults[0].message, faults[0].label)))
        raise PluginFault("AX212", f"{name} gives options that the component does not take: {reason}")
    return small


def load_factory(spec: Optioned, who: str | None = None) -> Callable[[Any, Any], Any]:
    """Import the code of a component: `factory(options, dims)` gives the module. Only `build` calls this.

    Args:
        spec: The component.
        who: What messages call it, with its distribution; its name unless given.

    Raises:
        PluginFault: `AX208`, the code cannot be imported or is not there.
    """
    return load_code(spec.module, who or f"`{spec.name}`")


def _model(spec: Optioned) -> type[BaseModel]:
    """The pydantic model; the host refuses components that have neither a model nor a schema."""
    assert isinstance(spec.options, type)
    assert issubclass(spec.options, BaseModel)
    return spec.options
