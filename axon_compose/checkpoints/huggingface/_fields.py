"""Every field of a config.json accounted for: read, without effect, or reported."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache, partial
from typing import Any, Final

from axon_compose.checkpoints.huggingface._harmless import NEUTRAL, is_harmless
from axon_compose.checkpoints.huggingface._unhandled import report_unhandled, report_unsupported
from axon_compose.diagnostics import Problems
from axon_compose.language.config import Config
from axon_compose.language.document import HuggingFace, ModelType, allowed_values, dim_values
from axon_compose.language.source import Entry, Mapping, plain

__all__ = ["KINDS_OF_LAYERS", "check_fields"]

#: Fields that name the kind of every layer, of its attention or of what follows that.
KINDS_OF_LAYERS: Final = ("layer_types", "mlp_layer_types")


def check_fields(
    config: Config,
    section: HuggingFace,
    of_type: ModelType,
    handled: Collection[str],
    dims: Mapping,
    problems: Problems,
) -> None:
    """Report every field that may change the model and that nothing reads, and values that the file does not support.

    Args:
        config: The configuration.
        section: How the file reads it.
        of_type: What is particular to its model type.
        handled: Fields that are read, or named by the section.
        dims: The dims with the values of the checkpoint.
        problems: Collects what is found.
    """
    _Check(config, section, handled, dims, problems).all(of_type)


class _Check:
    def __init__(
        self, config: Config, section: HuggingFace, handled: Collection[str], dims: Mapping, problems: Problems
    ) -> None:
        self.config, self.section, self.handled, self.problems = config, section, handled, problems
        self.neutral = {name: value for name, value in NEUTRAL.items() if name not in handled}
        self.dims = cache(partial(dim_values, dims))

    def all(self, of_type: ModelType) -> None:
        self.check_type()
        for name, allowed in (self.neutral | self.section.only).items():
            self.check_value(name, allowed)
        for name in KINDS_OF_LAYERS:
            self.check_layer_types(name)
        for name in of_type.ignore:
            entry = self.config.find(name)
            if entry is not None and plain(entry.node) is not None:
                message = f"`{name}` is not read for the model type `{self.config.model_types[0]}`, as in transformers"
                self.problems.warning("AX613", message, entry.key_span)
        for name, entry in self.config.items():
            self.check_field(name, entry)

    def check_type(self) -> None:
        entry = self.config.find("model_type")
        if entry is not None and not set(self.config.model_types) & set(self.section.model_types):
            known = " and ".join(f"`{name}`" for name in self.section.model_types)
            message = f"the checkpoint is a `{self.config.model_types[0]}`, the file is for {known}"
            self.problems.warning("AX608", message, entry.node.span)

    def check_value(self, name: str, written: Any) -> None:
        """Compare a field with what `only` allows."""
        entry = self.config.find(name)
        if entry is None or (value := plain(entry.node)) is None:
            return
        if value not in (allowed := allowed_values(written, self.dims)):
            report_unsupported(name, value, allowed, entry.node.span, self.problems)

    def check_layer_types(self, name: str) -> None:
        """A kind for more layers than there are, predictors of further tokens included: what is meant is unknown."""
        entry, layers = self.config.find(name), self.config.value("num_hidden_layers")
        kinds, further = plain(entry.node) if entry else None, self.config.value("num_nextn_predict_layers")
        if not entry or not isinstance(kinds, list) or not isinstance(layers, int):
            return
        if len(kinds) > layers and len(kinds) != layers + (further if isinstance(further, int) else 0):
            message = f"`{name}` has {len(kinds)} items for {layers} layers"
            self.problems.error("AX603", message, entry.key_span)

    def check_field(self, name: str, entry: Entry) -> None:
        if plain(entry.node) is None or name in self.handled or name in self.neutral or is_harmless(name):
            return
        if self.at_any_key(name):
            return
        if isinstance(entry.node, Mapping) and any(_is_at(field, name, inside=True) for field in self.handled):
            self.check_inside(name, entry.node)
            return
        message = f"`{name}` in config.json is not handled by this family file"
        report_unhandled(name, entry.key_span, self.problems, message)

    def check_inside(self, name: str, node: Mapping) -> None:
        """The fields of a mapping; one with a `model_type` is a configuration, with what every configuration has."""
        whole = "model_type" in node.entries
        for key, below in node.entries.items():
            inner = f"{name}.{key}"
            if whole and inner not in self.handled and key in NEUTRAL:
                self.check_value(inner, NEUTRAL[key])
            elif not whole or not is_harmless(key):
                self.check_field(inner, below)

    def at_any_key(self, name: str) -> bool:
        """Whether a field with `*` reads it, which needs the same value everywhere."""
        read = (field for field in self.handled if "*" in field and _is_at(field, name))
        return any(self.config.find(field) is not None or field in self.section.ignore for field in read)


def _is_at(field: str, name: str, *, inside: bool = False) -> bool:
    """Whether a name is that of a handled field, or with `inside` of a mapping that holds it; `*` is any key."""
    wanted, given = field.split("."), name.split(".")
    if (len(given) >= len(wanted)) if inside else (len(given) != len(wanted)):
        return False
    return all(want in ("*", one) for want, one in zip(wanted, given, strict=False))
