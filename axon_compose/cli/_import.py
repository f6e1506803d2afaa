"""`import`: the folder of a checkpoint, or a GGUF file, to a short file of its own, or to a draft of a family."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, Final

from axon_compose.architecture import Architecture, load
from axon_compose.cli._catalogue import list_families
from axon_compose.cli._draft import draft, nearest_text
from axon_compose.cli._terminal import Terminal
from axon_compose.diagnostics import ArchitectureError
from axon_compose.language.config import Config
from axon_compose.language.document import MODEL_NAME
from axon_compose.machine.files import check_output, write_output
from axon_compose.registry import Registry

__all__ = ["import_checkpoint"]

_OWN: Final = ("The description of a folder that axon-compose built.",)


def import_checkpoint(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Recognise a checkpoint and write its architecture as a file without formulas of sizes."""
    if arguments.families is not None:
        return list_families(arguments.families, terminal)
    if arguments.checkpoint is None:
        arguments.error("give DIR, or --families for a list of what is known")
    if arguments.draft:
        return draft(arguments, terminal)
    try:
        return _imported(arguments, terminal)
    except ArchitectureError as error:
        if not any(found.code == "AX606" for found in error.diagnostics) or terminal.as_json:
            raise
        code = terminal.refuse(error)
        if near := nearest_text(Path(arguments.checkpoint)):
            terminal.note(near)
        return code


def _imported(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from axon_compose.checkpoints.gguf._path import is_gguf
    from axon_compose.language.layout import to_text
    from axon_compose.plan.concrete import unroll

    target = Path(arguments.output) if arguments.output else None
    if target:
        check_output(target, arguments.force)
    architecture = load(arguments.file, checkpoint=arguments.checkpoint, settings=arguments.settings)
    config = architecture.config
    assert config is not None
    if not config.model_types:  # a folder that `build` or `save` wrote of a description of one's own
        text = to_text(architecture.data | {"name": _name(architecture, target)}, _OWN)
        found: dict[str, Any] = {"family": None, "model_type": None, "fields": []}
        note = "a folder with a description of its own"
        data = architecture.data
    else:
        of_gguf = is_gguf(arguments.checkpoint)
        data = unroll(architecture.document, architecture.plan(), Registry.installed(), gguf=of_gguf)
        found = _of_gguf(architecture, arguments.checkpoint) if of_gguf else _of_config(architecture, config)
        kind = "GGUF architecture" if of_gguf else "model type"
        named = found["gguf_architecture" if of_gguf else "model_type"]
        comment = f"Imported from a {'file' if of_gguf else 'checkpoint'} of the {kind} {named}, as the family "
        text = to_text({**data, "name": _name(architecture, target)}, (f"{comment}{architecture.name} reads it.",))
        where = "the metadata" if of_gguf else "config.json"
        note = f"family {architecture.name} ({kind} {named}); read from {where}: {', '.join(found['fields'])}"
    if target:
        write_output(target, text.encode(), arguments.force)
        note += f"\nwrote {target}"
    terminal.note(note)
    return terminal.result("" if target else text, found | {"architecture": data})


def _name(architecture: Architecture, target: Path | None) -> str:
    """The name of the file, where it can be the name of a model."""
    stem = target.stem if target else ""
    return stem if re.fullmatch(MODEL_NAME, stem) else architecture.name


def _of_config(architecture: Architecture, config: Config) -> dict[str, Any]:
    """The family and type of a checkpoint, and the fields that were read."""
    from axon_compose.checkpoints.huggingface import fields_used

    used = fields_used(architecture.document, config)
    return {"family": architecture.name, "model_type": config.model_types[0], "fields": used}


def _of_gguf(architecture: Architecture, path: str) -> dict[str, Any]:
    """The same of a GGUF file, by its metadata."""
    from axon_compose.checkpoints.gguf._header import read_gguf
    from axon_compose.checkpoints.gguf._metadata import Metadata
    from axon_compose.checkpoints.gguf._overlay import keys_used

    metadata, section = Metadata(read_gguf(Path(path))), architecture.document.gguf
    used = keys_used(section, architecture.document.dims, metadata) if section else []
    return {"family": architecture.name, "gguf_architecture": metadata.file.architecture, "fields": used}
