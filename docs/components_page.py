"""The page of components: what the registry knows of every built-in one, written out as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from axon_compose.plan._print import cache_to_dict
from axon_compose.registry import CacheSpec, ComponentSpec, Dims, Registry, check_options, defaults, options_schema

_INTRODUCTION: Final = """\
# Components

<!-- Written by `python docs/refresh.py` from the records of the built-in components; do not edit. -->

What a file can name as `type`, with every option. This page covers the built-in types;
`axon-compose plugins` lists the types of installed plugins, and `axon-compose schema` describes the options of all of
them for an editor.

A value may be a formula (see [language.md](language.md#formulas)). In the calls, `x` and `y` are arrays of shape
(B, L, D): sequences, tokens, hidden size. [plugins.md](plugins.md) explains how to write your own layer.
"""

_KINDS: Final = {
    "layer": "Layers: the parts of a block",
    "block": "Whole blocks: layers with their own norms and residual connections",
    "norm": "Norms: for `norm`, `final_norm` and branches",
    "embedding": "Embeddings: for `embedding`",
    "head": "Heads: for `head`",
}
_CALLS: Final = {"norm": "norm(x) -> y", "embedding": "embedding(tokens) -> x", "head": "head(x, embedding) -> logits"}
#: Sizes for the examples of caches and weights.
_DIMS: Final = Dims({"hidden_size": 64, "vocab_size": 256})


def page() -> str:
    """The whole page."""
    registry = Registry.installed()
    parts, shown = [_INTRODUCTION], dict[str, str]()
    assert registry.components(), "the built-in components cannot be loaded"
    for kind, title in _KINDS.items():
        specs = [spec for name, spec in registry.components(kind).items() if name.startswith("core/")]  # type: ignore[arg-type]
        parts.append(f"## {title}\n")
        parts += ["\n".join(_component(spec, shown)) for spec in specs]
    return "\n".join(parts)


def _component(spec: ComponentSpec, shown: dict[str, str]) -> Iterator[str]:
    yield f"### `{spec.name}`\n"
    yield spec.summary + (" The default of its kind." if spec.default else "") + "\n"
    yield f"* Example: `{_flow({'type': spec.name, **(spec.examples[0] if spec.examples else {})})}`"
    yield f"* Call: `{_call(spec)}`"
    yield f"* Cache: {_cache(spec)}"
    yield f"* Weights of the example: {_weights(spec)}"
    yield from _exceptions(spec)
    yield "\n| option | type | default | |\n|---|---|---|---|"
    schema = options_schema(spec)
    table = _Table(spec.name, schema.get("$defs", {}), shown)
    for row in table.rows(schema, "", defaults(spec)):
        yield f"| {' | '.join(row)} |"
    yield ""


def _exceptions(spec: ComponentSpec) -> Iterator[str]:
    """Parameters that keep their precision."""
    for names, one, several in (
        (spec.float32, "stays float32 when a model is cast", "stay float32 when a model is cast"),
        (spec.unquantized, "is never quantised", "are never quantised"),
    ):
        if names:
            yield f"* {' and '.join(f'`{name}`' for name in names)} {one if len(names) == 1 else several}."


def _call(spec: ComponentSpec) -> str:
    if spec.kind in _CALLS:
        return _CALLS[spec.kind]
    words = ["x"]
    if any(_caches(spec)):
        words += ["mask=None", "cache=None"]
    words += [f"{name}=0" if name == "offset" else f"{name}=None" for name in spec.reads]
    words += ["publish=None"] if spec.writes else []
    return f"layer({', '.join(words)}) -> {'(y, cache)' if any(_caches(spec)) else 'y'}"


def _caches(spec: ComponentSpec) -> list[CacheSpec | None]:
    """What the examples keep."""
    return [spec.cache(check_options(spec, example)[0], _DIMS) for example in spec.examples]


def _cache(spec: ComponentSpec) -> str:
    named = list(dict.fromkeys(_cache_name(cache) for cache in _caches(spec)))
    asked = [option for value, option in spec.reads.items() if option and value != "offset"]
    readers = [option for option in asked if _keeps_nothing(spec, option)]
    text = " or ".join(named) + (" (with `window_size`)" if len(named) > 1 else "")
    return text + "".join(f"; none with `{option}`, which reads another layer's" for option in readers)


def _keeps_nothing(spec: ComponentSpec, option: str) -> bool:
    """Whether a layer that reads from another one by this option has no cache of its own."""
    options, _ = check_options(spec, {**spec.examples[0], option: "source"})
    return spec.cache(options, _DIMS) is None


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
    options, _ = check_options(spec, spec.examples[0])
    return ", ".join(f"`{name}`" for name in spec.params(options, _DIMS)) or "none"


@dataclass
class _Table:
    """The options of one component; mappings that an earlier one has too are told there alone."""

    component: str
    definitions: Mapping[str, Any]
    shown: dict[str, str]

    def rows(
        self, schema: Mapping[str, Any], prefix: str = "", given: Mapping[str, Any] | None = None
    ) -> Iterator[tuple[str, str, str, str]]:
        """Name, type, default and description of each option, those of a mapping below it."""
        required = schema.get("required", ())
        for name, option in schema.get("properties", {}).items():
            value = given.get(name) if given else option.get("default")
            default = "required" if name in required else _default(value)
            text = str(option.get("description", ""))
            inner = list(_references(option))
            told = [first for r in inner if (first := self.first(prefix + name, r)) != self.component]
            text += "".join(f" Options as in [`{first}`](#{first})." for first in told)
            yield f"`{prefix}{name}`", _type(option), default, text.replace("|", "\\|")
            for reference in () if told else inner:
                yield from self.rows(self.definitions[reference], f"{prefix}{name}.")

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
    kind = str(option.get("type", "any"))
    if kind == "array":
        return f"list of {_type(option['items'])}s"
    return {"object": "mapping", "boolean": "true or false", "string": "text"}.get(kind, kind) + _range(option)


def _range(option: Mapping[str, Any]) -> str:
    words = {"exclusiveMinimum": "> {}", "minimum": "≥ {}", "maximum": "≤ {}", "multipleOf": "multiple of {}"}
    limits = [text.format(option[key]) for key, text in words.items() if key in option]
    return f", {', '.join(limits)}" if limits else ""


def _default(value: Any) -> str:
    if value is None:
        return "none"
    return "see below" if isinstance(value, dict | BaseModel) else f"`{json.dumps(value)}`"


def _flow(value: Any) -> str:
    """Plain data as YAML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return value if isinstance(value, str) else json.dumps(value)
