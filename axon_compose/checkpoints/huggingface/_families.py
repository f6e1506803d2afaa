"""Which shipped architecture reads which checkpoints."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from axon_compose.diagnostics import Problems
from axon_compose.language.config import MODEL_TYPE, Config
from axon_compose.language.families import files_of, reads
from axon_compose.registry import Registry

__all__ = ["Family", "families", "family_of"]

_LISTED: Final = "`axon-compose import --families` lists the types that are read"


@dataclass(frozen=True)
class Family:
    """A shipped architecture with a section `huggingface`.

    Attributes:
        name: Its name, for `extends` and on the command line.
        path: Its file.
        model_types: What it reads.
        architectures: Classes named in config.json by which it is chosen among the families of one model type.
    """

    name: str
    path: Path
    model_types: tuple[str, ...]
    architectures: tuple[str, ...] = ()


def families(registry: Registry, naming: Collection[str] = ()) -> list[Family]:
    """Every family that is installed, in the order of their names.

    Args:
        registry: Knows the files.
        naming: Only families whose files have one of these texts in them, which is cheap to find out.
    """
    found = ((name, path, reads(path)) for name, path in files_of(registry, naming))
    return [Family(name, path, *read) for name, path, read in found if read]


def family_of(config: Config, registry: Registry, problems: Problems) -> Family | None:
    """The family that reads a checkpoint; that there is none is reported, with the nearest name."""
    likely = families(registry, config.model_types) if config.model_types else []
    for model_type in config.model_types:
        candidates = [family for family in likely if model_type in family.model_types]
        if candidates:
            return _chosen(candidates, config)
    known = {model_type: family for family in families(registry) for model_type in family.model_types}
    entry = config.find("model_type")
    if entry is None:
        problems.error("AX606", "config.json has no `model_type`", config.top.span, help=_LISTED)
        return None
    wanted = config.model_types[0]
    near = problems.nearest(wanted, known)
    if near:
        hint = f"did you mean `{near}`? {_naming(known[near].name)}"
    else:
        hint = f"{_LISTED}; if it is built like one of them, {_naming('llama')}"
    if wanted == MODEL_TYPE:
        hint = "axon-compose built this folder; `axon-compose export DIR --to huggingface` writes it as a checkpoint"
    problems.error("AX606", f"no family reads the model type `{wanted}`", entry.node.span, help=hint)
    return None


def _chosen(candidates: list[Family], config: Config) -> Family:
    """Of the families of one model type the one that names the checkpoint's class, else one that names none."""
    classes = config.value("architectures")
    classes = set(map(str, classes)) if isinstance(classes, list) else set()
    named = [family for family in candidates if classes & set(family.architectures)]
    open_to_all = [family for family in candidates if not family.architectures]
    return (named or open_to_all or candidates)[0]


def _naming(family: str) -> str:
    """What helps with a model type that is spelt right."""
    return (
        f"name the family (`import DIR --family {family}`, `build {family} --weights DIR`), or start one "
        "(`import DIR --draft FILE`)"
    )
