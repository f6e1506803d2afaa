"""Names that built folders and their readers agree on, and the description in config.json."""

from axon_compose.language.config import CONFIG_KEY, MODEL_TYPE, description_in

__all__ = ["CONFIG_KEY", "MODEL_TYPE", "description_in"]
