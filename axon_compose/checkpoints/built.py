"""A folder that `build` wrote, or that an mlx_lm command made of one: its own description, and weights by our names.

Such a folder needs no rules of a weight map. Its config.json has the description, and its tensors have the names of the
parameters. A folder of adapters belongs to the built folder that they were trained on. Imports no mlx.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from axon_compose.diagnostics import CheckpointError, Problems
from axon_compose.language.config import CONFIG_KEY, Config, description_in, make_config
from axon_compose.language.source import Entry, Unwritable, to_source, to_yaml
from axon_compose.language.source import Mapping as MappingNode
from axon_compose.machine.files import read_regular
from axon_compose.plan import Compiled, Given, Overlay, compile_source, compile_text
from axon_compose.record import record
from axon_compose.registry import Registry

__all__ = ["CONFIG_FILE", "BuiltFolder", "compile_built", "is_adapter", "is_built", "model_folder", "read_built"]

CONFIG_FILE: Final = "config.json"
_ADAPTER: Final = "adapter_config.json"
_MAX_BYTES: Final = 64 * 1024 * 1024
#: Fields of config.json that every build writes anew.
_WRITTEN: Final = frozenset({
    "architectures", "hidden_size", "model_file", "model_type", "num_hidden_layers", "quantization",
    "quantization_config", "torch_dtype", "vocab_size", CONFIG_KEY,
})  # fmt: skip


@record
class BuiltFolder:
    """What a built folder says of itself.

    Attributes:
        folder: The folder, with the weights.
        written: Its config.json.
    """

    folder: Path
    written: Mapping[str, Any]

    @property
    def description(self) -> dict[str, Any]:
        """The description that was built, bases merged."""
        return dict(self.written[CONFIG_KEY]["architecture"])

    @property
    def source(self) -> dict[str, Any] | None:
        """The config.json of the published checkpoint that the sizes came from, if they did."""
        return self.written[CONFIG_KEY].get("source")

    @property
    def config(self) -> Config:
        """`source`, with what this folder's own config.json says of tokens and lengths on top."""
        kept = {name: value for name, value in self.written.items() if name not in _WRITTEN}
        return make_config(self.folder, _mapping({**(self.source or {}), **kept}), frozenset)


def is_built(folder: Path) -> bool:
    """Whether a folder's config.json has a description of ours, whole or not."""
    config = _json(folder / CONFIG_FILE)
    return isinstance(config, dict) and CONFIG_KEY in config


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds what `mlx_lm.lora` trained, and no model."""
    return (folder / _ADAPTER).is_file() and not (folder / CONFIG_FILE).exists()


def read_built(folder: Path) -> BuiltFolder:
    """Read the config.json of a built folder; of adapters, that of the folder that they were trained on.

    Raises:
        CheckpointError: AX560 it is no such folder, or the model of the adapters is not there.
    """
    folder = model_folder(folder)
    config = _json(folder / CONFIG_FILE)
    try:
        description_in(config)
    except CheckpointError as error:
        message = f"`{folder}` is not a folder that axon-compose has built"
        raise CheckpointError("AX560", message, error.help) from error
    return BuiltFolder(folder, config)


def model_folder(folder: Path) -> Path:
    """The folder itself, or of adapters that of the model that they were trained on.

    Raises:
        CheckpointError: AX560 that model is not there.
    """
    return _base(folder) if is_adapter(folder) else folder


def _base(folder: Path) -> Path:
    """The folder of the model that adapters were trained on, as `mlx_lm.lora` was given it."""
    config = _json(folder / _ADAPTER)
    name = config.get("model") if isinstance(config, dict) else None
    if isinstance(name, str) and is_built(Path(name)):
        return Path(name)
    hint = (
        f"join them with their model: `mlx_lm.fuse --model MODEL --trust-remote-code --adapter-path {folder} "
        "--save-path DIR`, then use DIR"
    )
    message = f"`{folder}` holds adapters of `{name}`, which is not a folder here that axon-compose has built"
    raise CheckpointError("AX560", message, hint)


def compile_built(
    folder: Path,
    source: Given | None = None,
    *,
    settings: Iterable[str] = (),
    registry: Registry | None = None,
) -> Compiled:
    """Validate and plan the description in a built folder, or another one that shall have the folder's weights.

    Args:
        folder: What `build`, or an mlx_lm command after it, wrote.
        source: Another description. One that reads checkpoints (`huggingface.model_types`) takes its sizes from the
            folder: dims of the same name.
        settings: Texts of `--set`.
        registry: The plugins to use; the installed ones unless given.

    Raises:
        ArchitectureError: With every fault that was found.
        CheckpointError: AX560.
        OSError: If `source` cannot be read.
    """
    built, registry = read_built(folder), registry or Registry.installed()
    if source is not None:
        overlay = _sizes_of(built)
        return compile_source(source, settings=settings, config=built.config, overlay=overlay, registry=registry)
    name = f"<description in {built.folder / CONFIG_FILE}>"
    try:
        text = to_yaml(built.description).encode()
    except Unwritable as error:
        raise CheckpointError("AX560", f"the description in `{built.folder}` cannot be read: {error}") from error
    return compile_text(
        text, name, built.folder, settings=settings, config=built.config, registry=registry, problems=Problems()
    )


def _sizes_of(built: BuiltFolder) -> Overlay:
    """Lays the dims of a built folder over a file that reads checkpoints; one of another kind has its own."""

    def laid(node: MappingNode, _: Problems) -> MappingNode:
        section, dims = node.get("huggingface"), node.get("dims")
        given = built.description.get("dims")
        reads = isinstance(section, MappingNode) and "model_types" in section.entries
        if not reads or not isinstance(dims, MappingNode) or not isinstance(given, dict):
            return node
        values = _mapping({name: given[name] for name in dims.entries if name in given})
        entries = {**dims.entries, **values.entries}
        return MappingNode(
            {**node.entries, "dims": Entry(node.entries["dims"].key_span, MappingNode(entries, dims.span))}, node.span
        )

    return laid


def _mapping(data: Mapping[str, Any]) -> MappingNode:
    """Plain data as nodes; an empty mapping where they cannot be nodes."""
    node, empty = (to_source(each, CONFIG_FILE, Problems()) for each in (dict(data), {}))
    assert isinstance(empty, MappingNode)
    return node if isinstance(node, MappingNode) else empty


def _json(path: Path) -> Any:
    """What a JSON file holds; None if it cannot be read, is not a regular file, or is beyond any reasonable size."""
    try:
        content = read_regular(path, _MAX_BYTES + 1)
        return json.loads(content) if len(content) <= _MAX_BYTES else None
    except (OSError, ValueError, RecursionError):
        return None
