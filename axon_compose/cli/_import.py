"""`import`: the folder of a checkpoint to a short file of its own, or to a draft of a family file."""

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
    from axon_compose.checkpoints.huggingface import fields_used
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
        family, model_type = architecture.name, config.model_types[0]
        data = unroll(architecture.document, architecture.plan(), Registry.installed())
        used = fields_used(architecture.document, config)
        text = to_text({**data, "name": _name(architecture, target)}, _comments(family, config.model_types))
        found = {"family": family, "model_type": model_type, "fields": used}
        note = f"family {family} (model type {model_type}); read from config.json: {', '.join(used)}"
    if target:
        write_output(target, text.encode(), arguments.force)
        note += f"\nwrote {target}"
    terminal.note(note)
    return terminal.result("" if target else text, found | {"architecture": data})


def _name(architecture: Architecture, target: Path | None) -> str:
    """The name of the file, where it can be the name of a model."""
    stem = target.stem if target else ""
    return stem if re.fullmatch(MODEL_NAME, stem) else architecture.name


def _comments(family: str, model_types: list[str]) -> tuple[str, ...]:
    return (f"Imported from a checkpoint of the model type {model_types[0]}, as the family {family} reads it.",)
