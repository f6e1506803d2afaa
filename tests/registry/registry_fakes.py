"""Plugins that are not installed, right and wrong in every way that a stranger's can be."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import Field

from axon_compose.registry import ArchitectureSpec, ComponentSpec, Options, hookimpl


class Dangling(Options):
    width: Nowhere  # type: ignore[name-defined]  # noqa: F821


class HyenaOptions(Options):
    order: int = Field(2, ge=1, description="Number of filters.")
    width: int


def spec(name: str = "hyena", **changes: Any) -> ComponentSpec:
    """A right record, with some of it changed."""
    record: dict[str, Any] = {
        "name": name,
        "kind": "layer",
        "options": HyenaOptions,
        "module": "acme.layers:Hyena",
        "summary": "Long convolutions.",
    }
    return ComponentSpec(**record | changes)


def module(**functions: Callable[..., Any]) -> types.ModuleType:
    """A module whose functions are marked as hooks."""
    made = types.ModuleType("acme")
    for name, function in functions.items():
        setattr(made, name, hookimpl(function))
    return made


def unmarked() -> types.ModuleType:
    made = types.ModuleType("acme")
    made.axon_components = lambda: [spec()]  # type: ignore[attr-defined]
    return made


def _half_way() -> Iterator[ComponentSpec]:
    yield spec("first")
    raise RuntimeError("lost\nthe rest")


def _takes_registry(registry: object) -> list[ComponentSpec]:
    return []


#: What is wrong, the plugin, and what the one-line cause must say.
BROKEN: Mapping[str, tuple[object, str]] = {
    "raises half-way": (module(axon_components=_half_way), "RuntimeError: lost the rest"),
    "exits in the hook": (module(axon_components=lambda: exit(3)), "SystemExit: 3"),
    "misspelt hook": (
        module(axon_componnets=lambda: [spec()]),
        "no hook `axon_componnets`; did you mean `axon_components`?",
    ),
    "extra argument": (module(axon_components=_takes_registry), "{'registry'}"),
    "no hookimpl": (unmarked(), "`axon_components` lacks `@hookimpl`"),
    "no hooks": (types.ModuleType("empty"), "no function is marked with `@hookimpl`"),
    "not iterable": (module(axon_components=lambda: 7), "returned int, not an iterable of ComponentSpec"),
    "text": (module(axon_components=lambda: "hyena"), "returned str, not an iterable"),
    "a mapping": (module(axon_components=lambda: {"hyena": spec()}), "returned dict, not an iterable"),
    "other record": (["hyena"], "gave str where ComponentSpec is expected"),
    "twice": ([spec(), spec()], "gave `hyena` twice"),
    "bad name": ([spec("Hyena")], "`Hyena` is not a component name"),
    "bad kind": ([spec(kind="layr")], "component `hyena`: unknown kind `layr`; did you mean `layer`?"),
    "odd kind": ([spec(kind="xyz")], "unknown kind `xyz`; one of layer, norm"),
    "options are data": ([spec(options=["order"])], "neither a pydantic model nor a JSON Schema"),
    "options are a class": ([spec(options=int)], "neither a pydantic model nor a JSON Schema"),
    "options of an unknown type": (
        [spec(options=Dangling)],
        "component `hyena`: an annotation of `Dangling` names `Nowhere`, which is not defined",
    ),
    "lax options": (
        [spec(options=type("Lax", (HyenaOptions,), {"model_config": {"extra": "allow"}}))],
        '`Lax` needs `model_config = ConfigDict(strict=True, extra="forbid")`',
    ),
    "schema of a list": ([spec(options={"type": "array"})], "must be one of an object"),
    "no schema": ([spec(options={"properties": {"a": {"type": "integr"}}})], "not a JSON Schema: 'integr'"),
    "remote schema": (
        [spec(options={"properties": {"a": {"$ref": "https://example.com/a.json"}}})],
        "`https://example.com/a.json`: only references inside the schema",
    ),
    "wrong default": (
        [spec(options={"properties": {"a": {"type": "integer", "default": "x"}}})],
        "the default of `a` does not fit: 'x' is not of type 'integer'",
    ),
    "bad module": ([spec(module="acme.layers.Hyena")], "`acme.layers.Hyena` is not of the form"),
    "cache is data": ([spec(cache={})], "`cache` must be a function of options and dims"),
    "active is data": ([spec(active=3)], "`active` must be a function or None"),
    "accepts is data": ([spec(accepts=3)], "`accepts` must be a function, a mapping of values to functions, or None"),
    "accepts what is not read": ([spec(accepts={"kv": len})], "`accepts` must map names of `reads` to functions"),
    "summary is no text": ([spec(summary=None)], "component `hyena`: `summary` must be a text"),
    "writes is a text": ([spec(writes="kv")], "`writes` must be a tuple of texts"),
    "float32 is a number": ([spec(float32=3)], "`float32` must be a tuple of texts"),
    "unquantized is mixed": ([spec(unquantized=("gate", 1))], "`unquantized` must be a tuple of texts"),
    "examples is a mapping": ([spec(examples={"width": 3})], "`examples` must be a tuple of mappings"),
    "reads is a list": ([spec(reads=["offset"])], "`reads` must map names of values to names of options or None"),
    "bad mask": ([spec(mask="sparse")], "unknown mask `sparse`; one of dense, banded"),
    "default": ([spec(default=True)], "only `core` may mark a default"),
    "reads nothing": ([spec(reads={"kv": "kv_from"})], "takes `kv` from the option `kv_from`, which does not exist"),
    "architecture name": ([ArchitectureSpec("../up", "/tmp/x.yaml")], "`../up` is not an architecture name"),
    "architecture path": ([ArchitectureSpec("a", "a.yaml")], "the path `a.yaml` is not absolute"),
    "architecture file": ([ArchitectureSpec("a", "/nowhere/a.yaml")], "there is no file `/nowhere/a.yaml`"),
}
