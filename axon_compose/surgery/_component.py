"""A component that an edit writes: looked up, its options checked, and its faults reported where the edit has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axon_compose.diagnostics import Problems, Span
from axon_compose.language.document._formulas import cached_parse, report
from axon_compose.language.document.formula import FormulaError, is_formula
from axon_compose.plan import Use
from axon_compose.plan._declared import declared
from axon_compose.registry import Dims, Fault, Kind, LookupFailure, Raised, Registry, as_data, check_options
from axon_compose.surgery.document import EditText

__all__ = ["Faulty", "names_of", "planned", "valued"]


class Faulty(Exception):
    """An edit cannot be applied; the fault is already reported."""


def planned(
    registry: Registry,
    type_name: str,
    written: Mapping[str, Any],
    dims: Dims,
    path: str,
    text: EditText,
    where: tuple[str | int, ...],
    problems: Problems,
    *,
    kinds: tuple[Kind, ...] = ("layer", "block", "norm"),
    dotted: str = "",
) -> Use:
    """A component with its sizes, as if a file had it.

    Args:
        registry: The plugins.
        type_name: Its type as written.
        written: Its options, formulas resolved.
        dims: Sizes of the model.
        path: Where its weights are.
        text: The edit file.
        where: The mapping of type and options there, or that of `component.option: value`.
        problems: Collects faults.
        kinds: Kinds that may be at this place.
        dotted: The component's name, where options are written behind it as `component.option`.

    Raises:
        Faulty: If anything is wrong with it; reported.
    """
    try:
        spec = registry.component(type_name)
    except LookupFailure as failure:
        at = text.place(*where, "type")
        problems.error(failure.code, failure.message, at, label=failure.label, help=failure.help)
        raise Faulty from None
    if spec.kind not in kinds:
        message = f"`{type_name}` is a component of kind {spec.kind}"
        problems.error("AX206", message, text.place(*where, "type"), label=f"expected a {' or '.join(kinds)}")
        raise Faulty
    options, faults = check_options(spec, dict(written))
    for fault in faults:
        _report(fault, text, where, dotted, problems)
    if faults:
        raise Faulty
    try:
        sizes = declared(spec, options, dims)
    except Raised as raised:
        message = f"`{type_name}` does not work with these sizes: {raised.reason}"
        problems.error("AX145", message, text.place(*where, key=True))
        raise Faulty from None
    name = path.rpartition(".")[2]
    return Use(
        name, registry.full_name(spec), spec, options, dict(written), dims, path, sizes.params, sizes.active,
        sizes.cache, owner=registry.owner(spec),
    )  # fmt: skip


def _report(fault: Fault, text: EditText, where: tuple[str | int, ...], dotted: str, problems: Problems) -> None:
    path: tuple[str | int, ...] = (*where, *fault.path)
    if dotted and fault.path:
        path = (*where, f"{dotted}.{fault.path[0]}", *fault.path[1:])
        if text.node_at(*path[: len(where) + 1]) is None:  # an option that the edit does not name
            path = where
    code = {"unknown": "AX101", "missing": "AX103"}.get(fault.kind, "AX102")
    at = text.place(*(path[:-1] if fault.kind == "missing" else path), key=fault.at_key)
    problems.error(code, fault.message, at, label=fault.label, help=fault.help)


def names_of(use: Use | None, dims: Mapping[str, Any], layer: int | None, count: int) -> dict[str, Any]:
    """What formulas of an edit know: the options of the component that changes, dims, `i` and `num_layers`.

    Options that are not written have their defaults.
    """
    found: dict[str, Any] = {**dims, "num_layers": count}
    if layer is not None:
        found["i"] = layer
    return found | (as_data(use.options, use.who) if use is not None else {})


def valued(value: Any, names: Mapping[str, Any], span: Span, problems: Problems) -> Any:
    """Plain data with values for its formulas.

    Raises:
        Faulty: If a formula has none; reported.
    """
    if isinstance(value, Mapping):
        return {key: valued(item, names, span, problems) for key, item in value.items()}
    if isinstance(value, list):
        return [valued(item, names, span, problems) for item in value]
    if not is_formula(value):
        return value
    try:
        return cached_parse(value).evaluate(names)
    except FormulaError as error:
        report(error, value, span, problems)
        raise Faulty from None
