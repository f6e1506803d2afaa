"""Names that built folders and their readers agree on."""

from axon_compose.language.config import CONFIG_KEY, MODEL_TYPE

__all__ = ["CONFIG_KEY", "MODEL_TYPE"]
