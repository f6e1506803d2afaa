"""What a record says of a component, in words: call, cache, weights, and a row for each option."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel

from axon_compose.plan._print import cache_to_dict
from axon_compose.registry import (
    PASS_VALUES,
    CacheSpec,
    ComponentSpec,
    Dims,
    Optioned,
    check_options,
    defaults,
    one_line,
    option_names,
    options_schema,
)

__all__ = ["Described", "Option", "describe", "flow", "joins", "option_rows"]

_CALLS: Final = {
    "norm": "norm(x) -> y",
    "embedding": "embedding(tokens) -> x",
    "head": "head(x, embedding) -> logits",
    "residual": "residual.expand(x) -> state, residual.collapse(state) -> x",
}
#: Sizes for the examples of caches and weights.
_DIMS: Final = Dims({"hidden_size": 64, "vocab_size": 256})


@dataclass(frozen=True)
class Option:
    """An option of a component, or of a mapping inside one.

    Attributes:
        name: Dotted, such as `rope.theta`.
        type: What it takes.
        default: Its value where it is not written: as JSON, `required`, `none`, or `see below` for a mapping whose
            options follow.
        value: That default as JSON-ready data; None too where it is required or a mapping.
        description: What it does.
        elsewhere: The component that describes the options of this mapping, empty if they follow.
    """

    name: str
    type: str
    default: str
    value: Any
    description: str
    elsewhere: str = ""


@dataclass(frozen=True)
class Described:
    """A component in words; code in backticks.

    Attributes:
        example: A line of YAML.
        call: How its module is called.
        cache: The classes of mlx-lm that it keeps, in the examples.
        weights: Names of the parameters of the first example.
    """

    example: str
    call: str
    cache: str
    weights: str


def describe(spec: ComponentSpec) -> Described:
    """What the record and its examples say; where a plugin's function fails, what it raised."""
    first = spec.examples[0] if spec.examples else None
    example = flow({"type": spec.name, **(first or {})})
    if first is None and spec.kind not in _CALLS:
        unknown = "not known, since the record has no example"
        return Described(example, _call(spec, keeps=False), unknown, unknown)
    return Described(
        example,
        _said(lambda: _call(spec, keeps=any(_caches(spec)))),
        _said(lambda: _cache(spec)),
        _said(lambda: _weights(spec)),
    )


def joins(connection: ComponentSpec) -> str:
    """What a connection of a residual scheme is around, and what it does."""
    what = "side branch" if connection.around == "aside" else connection.around
    return f"around a {what}: {connection.summary}"


def _said(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except Exception as error:
        return f"cannot be said: {one_line(error)}"


def _call(spec: ComponentSpec, *, keeps: bool) -> str:
    if spec.kind in _CALLS:
        return _CALLS[spec.kind]
    words = ["x"]
    if keeps:
        words += ["mask=None", "cache=None"]
    words += [f"{name}=0" if name == "offset" else f"{name}=None" for name in spec.reads]
    words += ["publish=None"] if spec.writes else []
    return f"layer({', '.join(words)}) -> {'(y, cache)' if keeps else 'y'}"


def _caches(spec: ComponentSpec) -> list[CacheSpec | None]:
    """What the examples keep."""
    return [spec.cache(check_options(spec, example)[0], _DIMS) for example in spec.examples]


def _cache(spec: ComponentSpec) -> str:
    named = list(dict.fromkeys(_cache_name(cache) for cache in _caches(spec)))
    asked = [option for value, option in spec.reads.items() if option and value not in PASS_VALUES]
    readers = [option for option in asked if _keeps_nothing(spec, option)]
    windowed = len(named) > 1 and "window_size" in option_names(spec)
    text = " or ".join(named) + (" (with `window_size`)" if windowed else "")
    return text + "".join(f"; none with `{option}`, which reads another layer's" for option in readers)


def _keeps_nothing(spec: ComponentSpec, option: str) -> bool:
    """Whether a layer that reads from another one by this option has no cache of its own."""
    readers = (check_options(spec, {**example, option: "source"}) for example in spec.examples)
    options = next((options for options, faults in readers if not faults), None)  # it may go with other options alone
    return options is not None and spec.cache(options, _DIMS) is None


def _cache_name(cache: CacheSpec | None) -> str:
    data = cache_to_dict(cache)
    if data is None:
        return "none"
    arrays = [
        f"`{array['name']}`" + (" in float32" if array["dtype"] == "float32" else "")
        for array in data.get("arrays", [])
    ]
    return f"`{data['class']}`" + (f" of {' and '.join(arrays)}" if arrays else "")


def _weights(spec: ComponentSpec) -> str:
    options, _ = check_options(spec, spec.examples[0] if spec.examples else {})
    return ", ".join(f"`{name}`" for name in spec.params(options, _DIMS)) or "none"


def option_rows(spec: Optioned, shown: dict[str, str] | None = None) -> Iterator[Option]:
    """Every option of a component or a task, those of a mapping after it.

    Args:
        spec: Its record.
        shown: Mappings that an earlier component has too, to its name: they are described there alone. Filled in.
    """
    schema = options_schema(spec)
    table = _Table(spec.name, schema.get("$defs", {}), {} if shown is None else shown)
    return table.rows(schema, "", defaults(spec))


@dataclass
class _Table:
    component: str
    definitions: Mapping[str, Any]
    shown: dict[str, str]
    above: list[str] = field(default_factory=list)

    def rows(
        self, schema: Mapping[str, Any], prefix: str = "", given: Mapping[str, Any] | None = None
    ) -> Iterator[Option]:
        required = schema.get("required", ())
        for name, option in schema.get("properties", {}).items():
            if not isinstance(option, Mapping):  # `true` allows anything
                option = {}
            value = given.get(name) if given else option.get("default")
            default = "required" if name in required else _default(value)
            inner = [reference for reference in _references(option) if reference in self.definitions]
            elsewhere = [first for r in inner if (first := self.first(prefix + name, r)) != self.component]
            text = str(option.get("description", ""))
            kept = None if name in required or isinstance(value, dict | BaseModel) else value
            yield Option(prefix + name, _type(option), default, kept, text, elsewhere[0] if elsewhere else "")
            for reference in () if elsewhere else inner:
                if reference not in self.above:  # a mapping may hold one of its own kind
                    self.above.append(reference)
                    yield from self.rows(self.definitions[reference], f"{prefix}{name}.")
                    self.above.pop()

    def first(self, name: str, reference: str) -> str:
        """The component that has this mapping first."""
        return self.shown.setdefault(f"{name} {json.dumps(self.definitions[reference])}", self.component)


def _references(option: Mapping[str, Any]) -> Iterator[str]:
    for part in (option, *option.get("anyOf", ())):
        if "$ref" in part:
            yield part["$ref"].rpartition("/")[2]


def _type(option: Mapping[str, Any]) -> str:
    if "anyOf" in option:
        kinds = [_type(part) for part in option["anyOf"] if part.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in option or "const" in option:
        return ", ".join(f"`{value}`" for value in option.get("enum", [option.get("const")]))
    if "$ref" in option:
        return "mapping"
    kind = option.get("type", "any")
    if isinstance(kind, list):
        return " or ".join(_type({**option, "type": one}) for one in kind if one != "null")
    if kind == "array":
        items = option.get("items")
        return f"list of {_type(items)}s" if isinstance(items, Mapping) else "list"
    words = {"object": "mapping", "boolean": "true or false", "string": "text"}
    return words.get(kind, str(kind)) + _range(option)


def _range(option: Mapping[str, Any]) -> str:
    words = {"exclusiveMinimum": "> {}", "minimum": "≥ {}", "maximum": "≤ {}", "multipleOf": "multiple of {}"}
    limits = [text.format(option[key]) for key, text in words.items() if key in option]
    return f", {', '.join(limits)}" if limits else ""


def _default(value: Any) -> str:
    if value is None:
        return "none"
    return "see below" if isinstance(value, dict | BaseModel) else json.dumps(value)


def flow(value: Any) -> str:
    """Plain data as YAML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    return value if isinstance(value, str) else json.dumps(value)
