"""Names that built folders and their readers agree on."""

from typing import Final

__all__ = ["CONFIG_KEY", "MODEL_TYPE"]

#: `model_type` in config.json.
MODEL_TYPE: Final = "axon_compose"
#: The key of config.json that holds the description.
CONFIG_KEY: Final = "axon_compose"
