"""The ways in which config.json writes rotary positions, as one: the words of the option `rope`.

Older configurations have `rope_theta` beside `rope_scaling: {type or rope_type, …}` (or null); newer ones
`rope_parameters`, which holds both, for the whole model or for each kind of layer.
Source: transformers, modeling_rope_utils.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from axon_compose.diagnostics import Problems, Span
from axon_compose.language.config import Config

__all__ = ["ROPE_FIELDS", "rope_fields"]

#: Fields that are read here.
ROPE_FIELDS: Final = ("rope_parameters", "rope_scaling")

#: Names of one type of scaling; `mrope` differs only where there are images.
_TYPES: Final = {"su": "longrope", "mrope": "default", "deepseek_yarn": "yarn", "telechat3-yarn": "yarn"}
_LENGTH: Final = "original_max_position_embeddings"
#: What each type takes over as it is.
_KEPT: Final[dict[str, tuple[str, ...]]] = {
    "linear": ("factor",),
    "dynamic": ("factor", _LENGTH),
    "llama3": ("factor", _LENGTH, "low_freq_factor", "high_freq_factor"),
    "yarn": (
        "factor", _LENGTH, "beta_fast", "beta_slow", "truncate", "attention_factor", "mscale", "mscale_all_dim",
    ),
    "longrope": ("factor", _LENGTH, "attention_factor", "short_factor", "long_factor"),
    "proportional": ("factor",),
}  # fmt: skip
#: Read elsewhere, or informative only.
_BESIDE: Final = {
    "type", "rope_type", "rope_theta", "theta", "partial_rotary_factor", "mrope_section", "mrope_interleaved",
    "finetuned", "max_position_embeddings",
}  # fmt: skip


def rope_fields(config: Config, problems: Problems) -> dict[str, tuple[Any, Span]]:
    """Fields to their values in one form, each with the place that it comes from.

    Returns:
        `rope_theta`, `rope_scaling` and `partial_rotary_factor` where one mapping serves all layers; `rope_parameters`,
        kinds to options of `rope`, where layers differ. Only what the configuration says.
    """
    name = next((name for name in ROPE_FIELDS if isinstance(config.value(name), dict)), None)
    entry = config.find(name) if name else None
    if name is None or entry is None:
        return {}
    written, span = config.value(name), entry.key_span
    reader = _Reader(config, problems, name, span)
    kinds = {key: value for key, value in written.items() if isinstance(value, dict)}
    if kinds:
        return {"rope_parameters": ({kind: reader.options(value) for kind, value in kinds.items()}, span)}
    options = reader.options(written)
    found = {"rope_scaling": options.get("scaling")}
    found |= {ours: options[key] for key, ours in _FLAT.items() if key in options}
    return {key: (value, span) for key, value in found.items()}


_FLAT: Final = {"theta": "rope_theta", "fraction": "partial_rotary_factor"}


class _Reader:
    """Translates the mappings of one field."""

    def __init__(self, config: Config, problems: Problems, field: str, span: Span) -> None:
        self.config, self.problems, self.field, self.span = config, problems, field, span

    def options(self, written: Mapping[str, Any]) -> dict[str, Any]:
        """One mapping as options of `rope`: theta, fraction and scaling, where given."""
        found: dict[str, Any] = {}
        for ours, names in (("theta", ("rope_theta", "theta")), ("fraction", ("partial_rotary_factor",))):
            value = next((written[name] for name in names if written.get(name) is not None), None)
            if value is not None:
                found[ours] = value
        scaling = self._scaling(written)
        return {**found, "scaling": scaling} if scaling else found

    def _scaling(self, written: Mapping[str, Any]) -> dict[str, Any] | None:
        kind = str(written.get("rope_type") or written.get("type") or "default")
        kind = _TYPES.get(kind, kind)
        if kind == "default":
            return None
        if kind not in _KEPT:
            self.problems.error(
                "AX604",
                f"`{self.field}` has the type `{kind}`, which is not known",
                self.span,
                help=f"known types: default, {', '.join(_KEPT)}",
            )
            return None
        kept = {name: written[name] for name in _KEPT[kind] if written.get(name) is not None}
        for name, value in written.items():
            if name not in kept and name not in _BESIDE and value is not None and name != _LENGTH:
                self.problems.error(
                    "AX602",
                    f"`{self.field}.{name}` is not handled by `{kind}` scaling",
                    self.span,
                    label="it may change the model",
                )
        return {"type": kind, **self._with_lengths(kind, kept)}

    def _with_lengths(self, kind: str, kept: dict[str, Any]) -> dict[str, Any]:
        """What follows from fields beside the mapping: the lengths, and the factor between them."""
        longest = self.config.value("max_position_embeddings")
        if _LENGTH in _KEPT[kind] and _LENGTH not in kept:
            kept[_LENGTH] = self.config.value(_LENGTH) or longest
        if kind == "longrope" and longest:
            kept["max_position_embeddings"] = longest
        if "factor" not in kept:
            kept["factor"] = _growth(longest, kept.get(_LENGTH))
        return kept


def _growth(longest: Any, original: Any) -> float:
    """How many times as long; 1 where a length is missing, or is no number, which is reported at validation."""
    if not all(type(length) in (int, float) and length for length in (longest, original)):
        return 1.0
    try:
        return float(longest / original)
    except OverflowError:
        return 1.0
