"""A family file with the sizes of a GGUF file: its metadata laid over the dims, then compiled."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from axon_compose.checkpoints.gguf._families import family_of
from axon_compose.checkpoints.gguf._header import read_gguf
from axon_compose.checkpoints.gguf._metadata import Metadata
from axon_compose.checkpoints.gguf._overlay import overlay_of
from axon_compose.checkpoints.huggingface import whole_config
from axon_compose.diagnostics import Problems
from axon_compose.language.config import Config, make_config
from axon_compose.language.source import Mapping, to_source
from axon_compose.machine.files import read_regular
from axon_compose.plan import Compiled, Given, compile_source, compile_text
from axon_compose.registry import Registry

__all__ = ["compile_gguf", "gguf_config"]

#: Ids of tokens in the metadata, by their fields in config.json; the first that is there.
_IDS = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "padding_token_id"}
#: Further tokens that end an answer, as llama.cpp takes them.
_ENDS = ("eot_token_id", "eom_token_id")


def compile_gguf(
    path: str | Path,
    source: Given | None = None,
    *,
    settings: Iterable[str] = (),
    registry: Registry | None = None,
) -> Compiled:
    """Read, validate and plan a family file with the sizes of a GGUF file.

    Args:
        path: The file, of several parts the first.
        source: The family file; the family that reads the file's architecture unless given.
        settings: Texts of `--set`.
        registry: The plugins to use; the installed ones unless given.

    Raises:
        ArchitectureError: With every fault that was found.
        CheckpointError: AX511 the file is damaged.
        OSError: If a file cannot be read.
    """
    registry, problems = registry or Registry.installed(), Problems()
    metadata = Metadata(read_gguf(Path(path)))
    options: dict[str, Any] = {"settings": tuple(settings), "overlay": overlay_of(metadata), "registry": registry}
    if source is not None:
        found = compile_source(source, **options, problems=problems)
    else:
        family = family_of(metadata, registry, problems)
        problems.raise_if_any()
        assert family is not None  # otherwise it was reported
        data, place = read_regular(family.path), family.path.parent
        found = compile_text(data, family.name, place, **options, problems=problems)
    return replace(found, config=_config(found, metadata))


def gguf_config(path: Path) -> Config:
    """What a GGUF file says of tokens and lengths."""
    metadata = Metadata(read_gguf(path))
    return _made(_tokens(metadata), metadata)


def _config(compiled: Compiled, metadata: Metadata) -> Config:
    """The config.json that a published checkpoint of this model would have."""
    section = compiled.document.huggingface
    fields: dict[str, Any] = {}
    if section is not None and section.model_types:
        fields = whole_config(section, compiled.document.dims, compiled.document.envelope.dims)
    return _made({**fields, **_tokens(metadata)}, metadata)


def _tokens(metadata: Metadata) -> dict[str, Any]:
    """Ids of tokens, and the longest context."""
    written = metadata.file.metadata
    keys = (*_IDS.values(), *_ENDS)
    ids = {key: number for key in keys if type(number := written.get(f"tokenizer.ggml.{key}")) is int}
    found: dict[str, Any] = {field: ids.get(key) for field, key in _IDS.items()}
    ends = list(dict.fromkeys(ids[key] for key in (_IDS["eos_token_id"], *_ENDS) if key in ids))
    found["eos_token_id"] = ends[0] if len(ends) == 1 else ends or None
    found["max_position_embeddings"] = metadata.keys.get("context_length")
    return {field: value for field, value in found.items() if value is not None}


def _made(fields: dict[str, Any], metadata: Metadata) -> Config:
    path, problems = metadata.file.path, Problems()
    node = to_source(fields, f"<config.json of {path}>", problems)
    problems.raise_if_any()
    assert isinstance(node, Mapping)  # otherwise it was reported
    return make_config(path, node, lambda: frozenset(metadata.file.tensors))
