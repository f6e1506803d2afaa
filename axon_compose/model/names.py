"""Names that built folders and their readers agree on, and the description in config.json."""

from collections.abc import Mapping
from typing import Any, Final

from axon_compose.diagnostics import CheckpointError

__all__ = ["CONFIG_KEY", "MODEL_TYPE", "description_in"]

#: `model_type` in config.json.
MODEL_TYPE: Final = "axon_compose"
#: The key of config.json that holds the description.
CONFIG_KEY: Final = "axon_compose"


def description_in(config: Any) -> dict[str, Any]:
    """What `build` wrote about the model: `architecture`, all bases merged in, and `source` if it read a checkpoint.

    Args:
        config: The content of a config.json. A text in place of the architecture would be a path, and `extends` names
            another file: neither is followed.

    Raises:
        CheckpointError: AX560 it is not that of a built folder.
    """
    described: Any = config.get(CONFIG_KEY) if isinstance(config, Mapping) else None
    if isinstance(described, Mapping):
        architecture, source = described.get("architecture"), described.get("source", {})
        if isinstance(architecture, Mapping) and isinstance(source, Mapping) and "extends" not in architecture:
            return dict(described)
    hint = "`axon-compose build FILE --out DIR` writes such a folder"
    raise CheckpointError("AX560", "config.json does not describe a model that axon-compose has built", hint)
