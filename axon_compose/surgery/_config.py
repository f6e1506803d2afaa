"""The config.json of a checkpoint after layers have come and gone, so that an export still says what the model is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from axon_compose.checkpoints.huggingface import field_names
from axon_compose.language.config import Config
from axon_compose.language.document import cached_parse, is_formula
from axon_compose.language.source import Scalar, nodes_at, plain
from axon_compose.plan import Compiled

__all__ = ["edited_config"]

#: What most model types call the number of layers.
_USUAL: Final = "num_hidden_layers"


def edited_config(source: Compiled, origins: Sequence[int | None]) -> Config | None:
    """The fields of a checkpoint with the new number of layers, and with lists of one entry for each of them.

    Args:
        source: The model as it was.
        origins: The layer that each layer comes from; new ones are like the one before them.
    """
    config, count = source.config, len(source.plan().layers)
    if config is None or not config.model_types or list(origins) == list(range(count)):
        return config
    number = config.find(name := _number_field(source))
    if number is None or plain(number.node) != count:
        return config  # its layers are counted in a way of its own
    alike = [next((each for each in reversed(origins[: at + 1]) if each is not None), 0) for at in range(len(origins))]
    for field, entry in list(config.items()):
        value: Any = plain(entry.node)
        if isinstance(value, list) and len(value) == count:
            config = config.with_field(field, nodes_at(entry.node.span, [value[index] for index in alike]))
    return config.with_field(name, Scalar(len(origins), number.node.span))


def _number_field(source: Compiled) -> str:
    """The field with the number of layers."""
    generated, section = source.document.envelope.stack.generated, source.document.huggingface
    if generated is not None and section is not None and is_formula(generated.layers):
        names = cached_parse(str(generated.layers)).names
        if len(names) == 1:
            return field_names(section, next(iter(names)))[0]
    return _USUAL
