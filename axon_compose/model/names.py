"""Names that built folders and their readers agree on, and the description in config.json."""

from axon_compose.language.config import CONFIG_KEY, MODEL_TYPE, description_in
from axon_compose.plan.folder_names import FolderNames, ends, module_names

__all__ = ["CONFIG_KEY", "MODEL_TYPE", "FolderNames", "description_in", "ends", "module_names"]
