"""Which fields of config.json say what a model has otherwise than the stock model of its type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from axon_compose.analysis.diff import Change
from axon_compose.checkpoints.files._safetensors import listing
from axon_compose.checkpoints.huggingface._dims import field_names
from axon_compose.diagnostics import CheckpointError
from axon_compose.language.document import cached_parse, is_formula
from axon_compose.plan import Compiled

__all__ = ["dims_that_say", "other_model"]

#: Fields that are tried one by one.
_TRIES: Final = 8


def dims_that_say(changes: Sequence[Change], stock: Compiled) -> list[dict[str, Any]]:
    """Dims with which the stock model may have what ours has, each set to be tried on top of those that helped.

    Args:
        changes: How the stock model differs from ours, which comes first.
        stock: The stock model, by its family file.

    Returns:
        Options that are nothing but the value of a field, all at once; then, one by one, fields that an option is made
        of in other ways, such as a window that only some kinds of layers have.
    """
    alone = [(name, change.before) for change in changes if (name := _field(change, stock))]
    clashing = {name for name, value in alone if any(other == name and given != value for other, given in alone)}
    first = {name: value for name, value in alone if name not in clashing}
    parts = [
        {name: change.before}
        for change in changes
        for name in _dims_behind(change, stock)
        if name not in first and not isinstance(stock.document.dims.get(name), list | Mapping)
    ]
    return ([first] if first else []) + [part for at, part in enumerate(parts) if part not in parts[:at]][:_TRIES]


def other_model(model_type: str, changes: Iterable[Change], stock: Compiled) -> CheckpointError:
    """That config.json would lead to another model: where it differs, and which fields have a part in it."""
    lines, fields = [], dict[str, None]()
    for change in changes:
        names = _fields_behind(change, stock)
        fields |= dict.fromkeys(names)
        made = f" (made of {', '.join(f'`{name}`' for name in names)})" if names else ""
        lines.append(f"{change}{made}")
    if fields:
        help_ = f"change {' or '.join(f'`{name}`' for name in fields)} instead, which config.json can say"
    else:
        help_ = "no field of config.json says this: change it back, or run the folder itself with mlx_lm"
    message = f"a stock `{model_type}` would be a different model"
    return CheckpointError("AX610", message, help_, listing("differ, ours before the arrow", lines))


def _field(change: Change, stock: Compiled) -> str | None:
    """The dim that is the whole value of an option in the stock model."""
    written = _written(change, stock)
    name = written.removeprefix("=").strip() if is_formula(written) else ""
    return name if _is_field(name, stock) else None


def _dims_behind(change: Change, stock: Compiled) -> list[str]:
    """The dims that an option of the stock model is made of, and that config.json sets."""
    written = _written(change, stock)
    names = sorted(cached_parse(written).names) if is_formula(written) else []
    return [name for name in names if _is_field(name, stock)]


def _fields_behind(change: Change, stock: Compiled) -> list[str]:
    section = stock.document.huggingface
    return [field_names(section, name)[0] for name in _dims_behind(change, stock)] if section else []


def _is_field(name: str, stock: Compiled) -> bool:
    """Whether a name is a dim that config.json sets, not one that follows from others."""
    section, dims = stock.document.huggingface, stock.document.envelope.dims
    if section is None or name not in dims or name in section.tensors:
        return False
    return not is_formula(dims[name]) and bool(field_names(section, name))


def _written(change: Change, stock: Compiled) -> Any:
    """What the family file has for the option that differs: a value, a formula, or None."""
    if change.option is None:
        return None
    data = stock.document.to_dict()
    match change.kind, change.place, change.subjects:
        case "norm", _, _:
            section = data.get("norm")
        case _, "final norm", _:
            section = data.get("final_norm") or data.get("norm")
        case _, "embedding" | "residual" | "head" | "dims" as place, _:
            section = data.get(place)
        case _, "layers", (name,):
            section = data.get("components", {}).get(name)
        case _:
            return None
    for key in change.option.split("."):
        section = section.get(key) if isinstance(section, Mapping) else None
    return section
