"""The ways in which config.json writes rotary positions, as one: the words of the option `rope`.

Older configurations have `rope_theta` beside `rope_scaling: {type or rope_type, …}` (or null); newer ones
`rope_parameters`, which holds both, for the whole model or for each kind of layer.
Further keys of the mapping belong to a family: a dim reads one as the field `rope_parameters.KEY`, however the mapping
is called and wherever it is. Source: transformers 5.24, modeling_rope_utils.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from collections.abc import Mapping as MappingOf
from typing import Any, Final

from axon_compose.checkpoints.huggingface._rope_twice import written_positions
from axon_compose.checkpoints.huggingface._unhandled import report_unhandled
from axon_compose.diagnostics import Problems, Span
from axon_compose.language.config import Config
from axon_compose.language.source import Entry, Mapping, Node

__all__ = ["ORIGINAL_LENGTH", "ROPE_FIELDS", "SCALING_KEYS", "key_of_rope", "rope_fields", "rope_key"]

#: Fields that are read here and nowhere else.
ROPE_FIELDS: Final = ("rope_parameters", "rope_scaling")
#: Read here too; a family may have a dim of this name.
ORIGINAL_LENGTH: Final = "original_max_position_embeddings"
_LONGEST: Final = "max_position_embeddings"

#: Names of one type of scaling; `mrope` differs only where there are images.
_TYPES: Final = {"su": "longrope", "mrope": "default", "deepseek_yarn": "yarn", "telechat3-yarn": "yarn"}
#: What each type takes over as it is.
_KEPT: Final[dict[str, tuple[str, ...]]] = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", ORIGINAL_LENGTH, "low_freq_factor", "high_freq_factor"),
    "yarn": (
        "factor", ORIGINAL_LENGTH, "beta_fast", "beta_slow", "truncate", "attention_factor", "mscale", "mscale_all_dim",
    ),
    "longrope": ("factor", ORIGINAL_LENGTH, "attention_factor", "short_factor", "long_factor"),
    "proportional": ("factor",),
}  # fmt: skip
#: What belongs to the scaling itself, type and lengths included.
SCALING_KEYS: Final = frozenset({"type", "rope_type", "max_position_embeddings"}.union(*_KEPT.values()))
#: Read elsewhere, or informative only.
_BESIDE: Final = {
    "type", "rope_type", "rope_theta", "theta", "partial_rotary_factor", "mrope_section", "mrope_interleaved",
    "finetuned", _LONGEST, ORIGINAL_LENGTH,
}  # fmt: skip
#: Keys of a type that vLLM multiplies by and transformers does not read; 1 changes nothing in either.
_UNREAD: Final = {"yarn": ("attn_factor", "extrapolation_factor")}
_FLAT: Final = {"theta": "rope_theta", "fraction": "partial_rotary_factor"}


def key_of_rope(field: str) -> str | None:
    """The key that a field is of the mapping about positions, such as `alpha` for `rope_parameters.alpha`.

    `rope_scaling.alpha` is the same, since a checkpoint has the mapping under either name. None for another field.
    """
    name, dot, key = field.partition(".")
    return key if dot and name in ROPE_FIELDS else None


def rope_key(config: Config, key: str) -> Entry | None:
    """A key of the mapping about positions, `kind.key` where layers differ; None where it is not there."""
    found = written_positions(config, Problems())
    node: Node | None = None if found is None else found[1].node
    *outer, last = key.split(".")
    for name in outer:
        node = node.get(name) if isinstance(node, Mapping) else None
    return node.entries.get(last) if isinstance(node, Mapping) else None


def rope_fields(
    config: Config,
    problems: Problems,
    ignored: Collection[str],
    length: Callable[[str], Any],
    read: Collection[str] = (),
) -> dict[str, tuple[Any, Span]]:
    """Fields to their values in one form, each with the place that it comes from.

    Args:
        config: The configuration.
        problems: Collects keys and types that are not known, and contradictions.
        ignored: Keys that change nothing, such as `rope_scaling.note`.
        length: Gives a field about the length of the context, also where it has its default.
        read: Keys that dims of the family read, `kind.key` where layers differ. A family that reads `rope_type` may
            have types of its own, without a scaling.

    Returns:
        `rope_theta`, `rope_scaling` and `partial_rotary_factor` where one mapping serves all layers; `rope_parameters`,
        kinds to options of `rope`, where layers differ. Only what the configuration says.
    """
    ignored = {key_of_rope(name) or "" for name in ignored}
    found = written_positions(config, problems)
    if found is None:
        return {}
    name, entry, written = found
    kinds = [key for key, value in written.items() if isinstance(value, dict)]
    if kinds:
        readers = {kind: _Reader(config, problems, (name, kind), ignored, length, read) for kind in kinds}
        options = {kind: reader.options(written[kind]) for kind, reader in readers.items()}
        return {"rope_parameters": (options, entry.key_span)}
    flat = _Reader(config, problems, (name,), ignored, length, read).options(written)
    fields = {"rope_scaling": flat.get("scaling")} | {_FLAT[key]: flat[key] for key in _FLAT if key in flat}
    return {field: (value, entry.key_span) for field, value in fields.items()}


class _Reader:
    """Translates one mapping, that of all layers or of one kind."""

    def __init__(
        self,
        config: Config,
        problems: Problems,
        path: tuple[str, ...],
        ignored: Collection[str],
        length: Callable[[str], Any],
        read: Collection[str],
    ) -> None:
        self.config, self.problems, self.length = config, problems, length
        self.field, self.kind = ".".join(path), path[1:]
        self.ignored, self.read = self._own_keys(ignored), self._own_keys(read)

    def _own_keys(self, names: Collection[str]) -> frozenset[str]:
        """Keys of this mapping among those of the whole."""
        start = "".join(f"{kind}." for kind in self.kind)
        return frozenset(name.removeprefix(start) for name in names if name.startswith(start))

    def options(self, written: MappingOf[str, Any]) -> dict[str, Any]:
        """One mapping as options of `rope`: theta, fraction and scaling, where given."""
        found: dict[str, Any] = {}
        for ours, names in (("theta", ("rope_theta", "theta")), ("fraction", ("partial_rotary_factor",))):
            value = next((written[name] for name in names if written.get(name) is not None), None)
            if value is not None:
                found[ours] = value
        scaling = self._scaling(written)
        return {**found, "scaling": scaling} if scaling else found

    def _scaling(self, written: MappingOf[str, Any]) -> dict[str, Any] | None:
        kind = str(written.get("rope_type") or written.get("type") or "default")
        kind = _TYPES.get(kind, kind)
        if kind == "default":
            return None
        if kind not in _KEPT:
            if "rope_type" in self.read:
                self._check_all(kind, written, {})
                return None
            self.problems.error(
                "AX604",
                f"`{self.field}` has the type `{kind}`, which is not known",
                self._place(),
                help=f"known types: default, {', '.join(_KEPT)}",
            )
            return None
        kept = {name: written[name] for name in _KEPT[kind] if written.get(name) is not None}
        self._check_all(kind, written, kept)
        return {"type": kind, **self._with_lengths(kind, kept)}

    def _check_all(self, kind: str, written: MappingOf[str, Any], kept: MappingOf[str, Any]) -> None:
        for name, value in written.items():
            if name not in kept and name not in (_BESIDE | self.read | self.ignored) and value is not None:
                self._check(kind, name, value)

    def _check(self, kind: str, name: str, value: Any) -> None:
        """Report a key that the type does not have; a note for one that transformers does not read."""
        field = f"{self.field}.{name}"
        if name not in _UNREAD.get(kind, ()):
            report_unhandled(field, self._place(name), self.problems, f"`{field}` is not handled by `{kind}` scaling")
        elif value != 1:
            message = f"`{field}` is not read, as in transformers; vLLM multiplies by it"
            self.problems.warning("AX613", message, self._place(name))

    def _with_lengths(self, kind: str, kept: dict[str, Any]) -> dict[str, Any]:
        """What follows from fields beside the mapping: the lengths, and the factor between them.

        The original length beside a mapping for all layers comes before the one inside.
        """
        longest = self.length(_LONGEST)
        if ORIGINAL_LENGTH in _KEPT[kind]:
            beside = self.length(ORIGINAL_LENGTH) if not self.kind else None
            kept[ORIGINAL_LENGTH] = beside or kept.get(ORIGINAL_LENGTH) or longest
        elif kind == "dynamic":
            kept[ORIGINAL_LENGTH] = longest
        if kind == "longrope" and longest:
            kept[_LONGEST] = longest
        if "factor" not in kept:
            factor = _growth(longest, kept.get(ORIGINAL_LENGTH))
            kept["factor"] = max(factor, 1.0) if kind == "longrope" else factor  # no more than 1 scales nothing there
        return kept

    def _place(self, name: str | None = None) -> Span | None:
        entry = self.config.find(f"{self.field}.{name}" if name else self.field)
        return entry.key_span if entry else None


def _growth(longest: Any, original: Any) -> float:
    """How many times as long; 1 where a length is missing, or is no number, which is reported at validation."""
    if not all(type(length) in (int, float) and length for length in (longest, original)):
        return 1.0
    try:
        return float(longest / original)
    except OverflowError:
        return 1.0
