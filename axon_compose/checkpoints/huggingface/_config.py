"""The config.json of a checkpoint's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from axon_compose.checkpoints.files import read_header
from axon_compose.checkpoints.gguf._path import gguf_files
from axon_compose.diagnostics import Problems
from axon_compose.language.config import Config, make_config
from axon_compose.language.source import Mapping, read_file

__all__ = ["CONFIG_FILE", "read_config"]

CONFIG_FILE: Final = "config.json"


def read_config(folder: Path, problems: Problems) -> Config | None:
    """Read the config.json of a checkpoint; None if it cannot be read, which is reported."""
    path = folder / CONFIG_FILE
    file = str(path)
    try:
        node = read_file(path, problems, file)
    except OSError as error:
        hint = "a checkpoint is a folder with a config.json and *.safetensors"
        if files := gguf_files(folder):
            hint = f"it has GGUF files, which are named themselves: `{files[0]}`"
        problems.error("AX601", f"cannot read `{path}`: {error.strerror or error}", help=hint)
        return None
    if node is None:
        return None
    if not isinstance(node, Mapping):
        problems.error("AX601", f"`{path}` is not a mapping of fields", node.span)
        return None

    def tensors() -> frozenset[str]:
        return frozenset(name for path in folder.glob("model*.safetensors") for name in read_header(path))

    return make_config(folder, node, tensors)
