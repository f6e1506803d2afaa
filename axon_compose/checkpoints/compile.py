"""A family file with the sizes of a checkpoint: its config.json laid over the dims, then compiled."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from axon_compose.checkpoints.huggingface import Family, family_of, field_names, overlay_of, read_config
from axon_compose.checkpoints.weights._own_head import OwnHead, own_head
from axon_compose.diagnostics import Problems
from axon_compose.language.config import Config
from axon_compose.language.document import cached_parse, is_formula
from axon_compose.language.source import Scalar
from axon_compose.machine.files import read_regular
from axon_compose.plan import Compiled, Given, compile_source, compile_text
from axon_compose.registry import Registry

__all__ = ["compile_checkpoint"]


def compile_checkpoint(
    folder: str | Path,
    source: Given | None = None,
    *,
    settings: Iterable[str] = (),
    registry: Registry | None = None,
) -> Compiled:
    """Read, validate and plan a family file with the sizes of a checkpoint.

    Args:
        folder: With a config.json.
        source: The family file; the family that reads the checkpoint's model type unless given.
        settings: Texts of `--set`.
        registry: The plugins to use; the installed ones unless given.

    Raises:
        ArchitectureError: With every fault that was found.
        OSError: If the file cannot be read.
    """
    registry, problems, settings = registry or Registry.installed(), Problems(), tuple(settings)
    config = read_config(Path(folder), problems)
    family = _family(config, registry, problems) if source is None else None

    def compiled(config: Config | None, problems: Problems, *more: str) -> Compiled:
        overlay = overlay_of(config) if config else None
        options: dict[str, Any] = {"settings": (*settings, *more), "config": config, "overlay": overlay}
        if source is not None:
            return compile_source(source, **options, registry=registry, problems=problems)
        assert family is not None
        # Its file, whatever the current folder has under that name.
        data, place = read_regular(family.path), family.path.parent
        return compile_text(data, family.name, place, **options, registry=registry, problems=problems)

    first = compiled(config, problems)
    own = own_head(first, Path(folder)) if config else None
    if config is None or own is None:
        return first
    problems = Problems()
    untied = _untied(first, config, own, problems)
    if untied is config:  # no field says that they are tied, the file does
        hint = "write `head: {tied: false}` into the file"
        message = f"`{own.head}` differs from `{own.embedding}`, so the head is not tied"
        problems.warning("AX611", message, config.top.span, help=hint)
        return compiled(config, problems, "head.tied=false")
    return compiled(untied, problems)


def _family(config: Config | None, registry: Registry, problems: Problems) -> Family:
    """The family of a checkpoint."""
    family = family_of(config, registry, problems) if config else None
    problems.raise_if_any()
    assert family is not None  # otherwise it was reported
    return family


def _untied(compiled: Compiled, config: Config, own: OwnHead, problems: Problems) -> Config:
    """The configuration that the weights mean: the fields that tie the head are false.

    transformers 5.24 decides so too (`PreTrainedModel.tie_weights`): two different matrices are not tied, whatever
    config.json says.
    """
    section = compiled.document.huggingface
    tied = compiled.document.envelope.head.options.get("tied")
    assert section is not None  # it has the rules that found the head
    for dim in cached_parse(tied).names if is_formula(tied) else ():
        name = field_names(section, dim)[0]
        entry = config.find(name)
        span = (entry.node if entry else config.top).span
        problems.warning(
            "AX611",
            f"`{own.head}` differs from `{own.embedding}`, so the head is not tied",
            span,
            label=f"`{name}` says that it is" if entry else "the model type ties them",
            help=f"as transformers reads it; `{name}: false` in config.json says the same to all tools",
        )
        config = config.with_field(name, Scalar(False, span))
    return config
