"""Values and components in a few words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from axon_compose.plan import Branch, Layer, Plan, Use

__all__ = ["Describer", "branch_label", "ready", "short_type", "value_text"]

_LONGEST: Final = 60
#: Options that a component is introduced with.
_SHOWN: Final = 3
#: An option with more values than this in one stack is a number of the layer, not a size.
_MANY: Final = 3


def ready(value: Any) -> Any:
    """A value as JSON-ready data."""
    if isinstance(value, Mapping):
        return {str(key): ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [ready(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def value_text(value: Any) -> str:
    """A value as a file would say it, shortened."""
    match value:
        case None:
            text = "none"
        case bool():
            text = str(value).lower()
        case float():
            text = f"{value:.12g}"
        case Mapping():
            text = (
                "{" + ", ".join(f"{key}: {value_text(item)}" for key, item in value.items() if item is not None) + "}"
            )
        case list() | tuple():
            text = "[" + ", ".join(map(value_text, value)) + "]"
        case _:
            text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def short_type(use: Use) -> str:
    """The type without the namespace of the core."""
    return use.type.removeprefix("core/")


def branch_label(branch: Branch) -> str:
    """A branch by its components."""
    return " + ".join(member.use.name for member in branch.members) or f"add {branch.add}"


class Describer:
    """Introduces the components of a model by the first options that were written.

    Options that differ in many layers, such as the number of a layer itself, are left out.
    """

    def __init__(self, plan: Plan) -> None:
        values: dict[tuple[str, str], set[str]] = {}
        for layer in plan.layers:
            for use in layer.uses():
                for option, value in use.written.items():
                    values.setdefault((use.name, option), set()).add(repr(value))
        self.varying = {key for key, found in values.items() if len(found) > _MANY}

    def details(self, use: Use) -> str:
        """`8 experts top 2, intermediate_size 4096`, numbers first."""
        written = {key: value for key, value in use.written.items() if (use.name, key) not in self.varying}
        parts = []
        if isinstance(written.get("num_experts"), int) and isinstance(written.get("top_k"), int):
            parts.append(f"{written.pop('num_experts')} experts top {written.pop('top_k')}")
        plain = [(key, value) for key, value in written.items() if isinstance(value, int | float | str)]
        plain = [(key, value) for key, value in plain if not isinstance(value, bool)]
        plain.sort(key=lambda entry: isinstance(entry[1], str))
        parts += [f"{key} {value_text(value)}" for key, value in plain]
        return ", ".join(parts[:_SHOWN])

    def named(self, use: Use) -> str:
        """Name, type where that is another word, and details."""
        what = use.name if use.name == short_type(use) else f"{use.name} ({short_type(use)})"
        return ", ".join(part for part in (what, self.details(use)) if part)

    def layer(self, layer: Layer) -> str:
        """A layer by its components in order, with what they are."""
        return " → ".join(
            " + ".join(self._in_layer(member.use) for member in branch.members) or f"add {branch.add}"
            for branch in layer.branches
        )

    def _in_layer(self, use: Use) -> str:
        kind = "" if use.name == short_type(use) else short_type(use)
        inside = ": ".join(part for part in (kind, self.details(use)) if part)
        return f"{use.name} ({inside})" if inside else use.name
