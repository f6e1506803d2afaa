"""Known faults that an architecture file carries, in `huggingface.faults`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from axon_compose.checkpoints.upstream._fault import UpstreamFault
from axon_compose.language.document import FormulaError, KnownFault, cached_parse, is_formula
from axon_compose.plan import Compiled

__all__ = ["written_faults"]


def written_faults(compiled: Compiled) -> tuple[UpstreamFault, ...]:
    """The faults of a file, with its dims, looked at before those that are known anyway."""
    section = compiled.document.huggingface
    dims = compiled.document.dims
    return tuple(_fault(written, dims) for written in (section.faults if section else ()))


def _fault(written: KnownFault, dims: Mapping[str, Any]) -> UpstreamFault:
    return UpstreamFault(
        written.name,
        written.peer,
        written.what,
        written.right,
        owner=written.owner or "",
        when=lambda config, tokens: bool(_value(written.when, {**dims, "tokens": tokens})),
        fields=partial(_fields, written, dims) if written.fields else None,
        settings=partial(_settings, written, dims) if written.settings else None,
        error=written.error or "",
    )


def _fields(written: KnownFault, dims: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(value, dims) for name, value in written.fields.items()}


def _settings(written: KnownFault, dims: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(_value(value, dims))}" for key, value in written.settings.items()]


def _value(written: Any, names: Mapping[str, Any]) -> Any:
    """A value, or what a formula gives; null where that has no value."""
    if not is_formula(written):
        return written
    try:
        return cached_parse(written).evaluate(names)
    except FormulaError:
        return None
