"""What is wrong with the records that a plugin hands in, in one line each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from axon_compose.diagnostics import nearest
from axon_compose.registry import _json_schema
from axon_compose.registry._code import MODULE
from axon_compose.registry._learning import Learning
from axon_compose.registry._options import option_names
from axon_compose.registry._pydantic import definition_fault
from axon_compose.registry._specs import KINDS, ArchitectureSpec, ComponentSpec
from axon_compose.registry._transfers import transfers_fault

__all__ = ["architecture_fault", "component_fault", "defaults_fault", "options_fault"]

_ARCHITECTURE: Final = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_CONNECTION: Final = re.compile(r"[a-z][a-z0-9_]*")


def component_fault(spec: ComponentSpec, *, core: bool) -> str | None:
    """What is wrong with the record of a component, or None; its options are looked at as well."""
    return next(_faults(spec, core=core), None)


def defaults_fault(components: Iterable[ComponentSpec]) -> str | None:
    """Whether two components are the default of one kind; or None."""
    chosen: dict[str, str] = {}
    for spec in components:
        if spec.default and chosen.setdefault(spec.kind, spec.name) != spec.name:
            return f"two defaults of kind {spec.kind}: `{chosen[spec.kind]}` and `{spec.name}`"
    return None


def architecture_fault(spec: ArchitectureSpec) -> str | None:
    """What is wrong with the record of an architecture, or None."""
    if not isinstance(spec.name, str) or not _ARCHITECTURE.fullmatch(spec.name):
        return f"`{spec.name}` is not an architecture name: write it as {_ARCHITECTURE.pattern}"
    if not Path(spec.path).is_absolute():
        return f"architecture `{spec.name}`: the path `{spec.path}` is not absolute"
    if not Path(spec.path).is_file():
        return f"architecture `{spec.name}`: there is no file `{spec.path}`"
    return None


def _faults(spec: ComponentSpec, *, core: bool) -> Iterator[str]:
    if spec.kind not in KINDS:
        match = nearest(str(spec.kind), KINDS)
        yield f"unknown kind `{spec.kind}`; " + (f"did you mean `{match}`?" if match else f"one of {', '.join(KINDS)}")
    if fault := options_fault(spec.options):
        yield fault
    if not isinstance(spec.module, str) or not MODULE.fullmatch(spec.module):
        yield f"module `{spec.module}` is not of the form `package.module:attribute`"
    yield from _function_faults(spec)
    yield from _data_faults(spec)
    if spec.mask not in ("dense", "banded"):
        yield f"unknown mask `{spec.mask}`; one of dense, banded"
    if spec.default and not core:
        yield "only `core` may mark a default"
    yield from _connection_faults(spec, core=core)
    for value, option in spec.reads.items():
        if option is not None and option not in option_names(spec):
            yield f"`reads` takes `{value}` from the option `{option}`, which does not exist"


def _connection_faults(spec: ComponentSpec, *, core: bool) -> Iterator[str]:
    """A residual scheme has connections, each with a name and the options of the scheme; nothing else has any."""
    if not isinstance(spec.connections, tuple | list) or not all(
        isinstance(each, ComponentSpec) and each.kind == "connection" for each in spec.connections
    ):
        yield "`connections` must be a tuple of records of kind connection"
        return
    if bool(spec.connections) != (spec.kind == "residual"):
        yield "a component has `connections` if it is of kind residual, and only then"
    names = [each.name for each in spec.connections]
    if len(set(names)) < len(names) or not all(map(_CONNECTION.fullmatch, names)):
        yield f"names of connections must differ and be of the form {_CONNECTION.pattern}, not {', '.join(names)}"
    for each in spec.connections:
        if each.around not in ("branch", "layer", "aside"):
            yield f"connection `{each.name}`: unknown `around` `{each.around}`; one of branch, layer, aside"
        if each.options is not spec.options or each.writes:
            yield f"connection `{each.name}`: it has the options of its scheme, and no `writes`"
        alike = replace(each, kind="layer", around="branch")
        yield from (f"connection `{each.name}`: {fault}" for fault in _faults(alike, core=core))


def _function_faults(spec: ComponentSpec) -> Iterator[str]:
    for name in ("cache", "params"):
        if not callable(getattr(spec, name)):
            yield f"`{name}` must be a function of options and dims"
    for name in (
        "buffers", "active", "flops", "touched", "saved", "recomputed", "window", "chunk", "chosen", "shrink",
        "split", "streams",
    ):  # fmt: skip
        if getattr(spec, name) is not None and not callable(getattr(spec, name)):
            yield f"`{name}` must be a function or None"
    accepts = spec.accepts
    if isinstance(accepts, Mapping):
        if not accepts.keys() <= set(spec.reads) or not all(map(callable, accepts.values())):
            yield "`accepts` must map names of `reads` to functions"
    elif accepts is not None and not callable(accepts):
        yield "`accepts` must be a function, a mapping of values to functions, or None"


def _data_faults(spec: ComponentSpec) -> Iterator[str]:
    """Such as a text where a tuple of texts belongs."""
    if not isinstance(spec.summary, str):
        yield "`summary` must be a text"
    for name in ("writes", "float32", "unquantized"):
        value = getattr(spec, name)
        if not isinstance(value, tuple | list) or not all(isinstance(each, str) for each in value):
            yield f"`{name}` must be a tuple of texts"
    if isinstance(spec.learning, Learning):
        yield from spec.learning.faults()
    else:
        yield "`learning` must be a `Learning`"
    if fault := transfers_fault(spec.transfers):
        yield fault
    if not isinstance(spec.examples, tuple | list) or not all(isinstance(each, Mapping) for each in spec.examples):
        yield "`examples` must be a tuple of mappings"
    if not isinstance(spec.reads, Mapping) or not all(
        isinstance(value, str) and isinstance(option, str | None) for value, option in spec.reads.items()
    ):
        yield "`reads` must map names of values to names of options or None"


def options_fault(options: object) -> str | None:
    """What is wrong with the model or schema of options itself, or None."""
    if isinstance(options, Mapping):
        return _json_schema.schema_fault(options)
    if not (isinstance(options, type) and issubclass(options, BaseModel)):
        return "`options` is neither a pydantic model nor a JSON Schema"
    config = options.model_config
    if config.get("extra") != "forbid" or not config.get("strict"):
        return f'`{options.__name__}` needs `model_config = ConfigDict(strict=True, extra="forbid")`'
    return definition_fault(options)
