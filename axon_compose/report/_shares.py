"""What each of several devices has of a model's components, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from axon_compose.analysis.cost import Storage
from axon_compose.devices import Share, TensorPlan, shares
from axon_compose.machine.units import count, human
from axon_compose.plan import Plan, cache_nbytes, layer_ranges, total_parameters
from axon_compose.report._devices import stored
from axon_compose.report._style import Style
from axon_compose.report._table import table

__all__ = ["shares_data", "shares_text"]

#: The context for which caches are shown.
_CONTEXT = 4096
#: Components that are named in one row.
_NAMES = 4
#: Columns that numbers of layers may take.
_WIDEST = 20
#: What becomes of outputs.
_JOINED = {"sum": "summed", "gather": "put together", "whole": "-"}


def shares_text(plan: Plan, tensor: TensorPlan, style: Style, bits: int | None = None) -> str:
    """What is split and how, what is whole and why, and the totals.

    Args:
        plan: The whole model.
        tensor: What one device has of it.
        style: Whether there are colours, and how wide the terminal is.
        bits: Of quantised weights, None if they are not.
    """
    found = shares(plan, tensor)
    split = [share for share in found if not share.reason]
    rows = [["layers", "component", "parameters", "outputs", "each device has"], *map(_row, split)]
    whole = [["layers", "component", "parameters", "whole, because"], *_whole(found)]
    total = total_parameters(plan)
    head = f"{plan.name} on {tensor.size:,} devices: {len(plan.layers)} layers, {total:,} parameters ({count(total)})"
    parts = [[style.bold(head)], table(rows, "<<><<", style=style)]
    if len(whole) > 1:
        parts.append(table(whole, "<<><", style=style))
    parts.append(table(list(_totals(plan, tensor, bits)), "<<", style=style, heads=0))
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def shares_data(plan: Plan, tensor: TensorPlan, bits: int | None = None) -> dict[str, Any]:
    """The same as JSON-ready data."""
    return {
        "devices": tensor.size,
        "components": [share.to_dict() for share in shares(plan, tensor)],
        "quantize": bits,
        "weight_bytes": {dtype: _weights(tensor.plan, Storage(dtype, bits)) for dtype in ("float32", "bfloat16")},
        "cache_bytes": {str(_CONTEXT): cache_nbytes(tensor.plan, _CONTEXT)},
    }


def _row(share: Share) -> list[str]:
    has = ", ".join(
        f"{size.name} {size.part:,}" + ("" if size.whole is None else f" of {size.whole:,}") for size in share.sizes
    )
    return [_layers(share.layers), share.name, _parameters(share), _JOINED[share.output], has]


def _parameters(share: Share) -> str:
    return "-" if not share.whole_parameters else f"{count(share.parameters)} of {count(share.whole_parameters)}"


def _whole(found: tuple[Share, ...]) -> Iterator[list[str]]:
    """Components that are whole for a reason of their own; those that have the same are one row."""
    reasons: dict[str, list[Share]] = {}
    for share in found:
        if share.reason:
            reasons.setdefault(share.reason, []).append(share)
    for reason, alike in reasons.items():
        layers = sorted({layer for share in alike for layer in share.layers})
        names = list(dict.fromkeys(share.name for share in alike))
        named = ", ".join(names[:_NAMES]) + (f" and {len(names) - _NAMES} more" if len(names) > _NAMES else "")
        size = sum(share.parameters for share in alike)
        yield [_layers(tuple(layers)), named, count(size) if size else "-", reason]


def _totals(plan: Plan, tensor: TensorPlan, bits: int | None) -> Iterator[list[str]]:
    one, whole = (_weights(each, Storage("bfloat16", bits)) for each in (tensor.plan, plan))
    yield ["weights per device", f"{human(one)} of {human(whole)} in {stored('bfloat16', bits)}, {one / whole:.1%}"]
    if plan.slots:
        one, whole = (cache_nbytes(each, _CONTEXT) for each in (tensor.plan, plan))
        yield ["caches per device", f"{human(one)} of {human(whole)} at {_CONTEXT:,} tokens, {one / whole:.1%}"]


def _weights(plan: Plan, storage: Storage) -> int:
    return sum(storage.nbytes(use) for use in plan.uses())


def _layers(layers: tuple[int, ...]) -> str:
    """Their numbers, if those are few."""
    text = layer_ranges(layers)
    return text if len(text) <= _WIDEST else f"{len(layers)} of {layers[0]}..{layers[-1]}"
