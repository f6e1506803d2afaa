"""Which families are most like a checkpoint that none of them reads, and what each of them lacks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from axon_compose.checkpoints.compile import compile_checkpoint
from axon_compose.checkpoints.huggingface import Family, families, field_names, read_config
from axon_compose.checkpoints.huggingface._harmless import is_harmless
from axon_compose.checkpoints.weights import WeightMismatch, checkpoint_plan
from axon_compose.diagnostics import ArchitectureError, CheckpointError, Diagnostic, Problems
from axon_compose.language.config import Config
from axon_compose.language.document import HuggingFace, with_base
from axon_compose.language.source import Mapping, plain, read_file
from axon_compose.plan import Compiled
from axon_compose.registry import Registry

__all__ = ["Likeness", "kind", "likenesses"]

#: Families that are compiled for a checkpoint: those whose files know most of its fields.
_TRIED: Final = 16
#: A file is read again with what it refused taken out of the way, so often at most.
_ROUNDS: Final = 3
_NAMED: Final = re.compile(r"`([^`]+)`")
#: Fields that are read for every family alike.
_POSITIONS: Final = re.compile("rope_(parameters|scaling|theta)$|partial_rotary_factor$")
_NUMBER: Final = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True)
class Likeness:
    """How a family differs from a checkpoint.

    Attributes:
        family: The family.
        compiled: The family with the checkpoint's sizes, the unknown fields ignored; None where even that fails.
        unknown: Fields of config.json that may change the model and that the family does not know.
        unsupported: Fields that it knows with other values.
        unexpected: Tensors without a place, `<l>` for a number in their names.
        missing: Parameters that no tensor gives, likewise.
        misshaped: Parameters whose tensor has another shape.
    """

    family: Family
    compiled: Compiled | None
    unknown: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    misshaped: tuple[str, ...] = ()

    @property
    def differences(self) -> int:
        """How many things differ; a family that cannot be compiled comes after all that can.

        A component that no tensor fills is one thing, however many matrices it has.
        """
        unfilled = {name.rsplit(".", 2)[0] for name in self.missing}
        parts = (self.unknown, self.unsupported, self.unexpected, unfilled, self.misshaped)
        return sum(map(len, parts)) + (0 if self.compiled else 1000)


def likenesses(folder: Path, registry: Registry, only: str | None = None) -> list[Likeness]:
    """Families in the order of their likeness to a checkpoint, the most alike first.

    Args:
        folder: With a config.json; tensors count where there are any.
        registry: Gives the families.
        only: The one family to look at.

    Raises:
        ArchitectureError: config.json cannot be read.
    """
    problems = Problems()
    config = read_config(folder, problems)
    problems.raise_if_any()
    assert config is not None  # otherwise it was reported
    fields = {name for name, _ in config.items() if not is_harmless(name) and not _POSITIONS.match(name)}
    asked = [family for family in families(registry) if only in (None, family.name)]
    known = {family.name: _Known.of(family.path, registry) for family in asked}

    def distance(family: Family) -> tuple[int, int, bool]:
        """Fields that it does not know, then dims that the checkpoint leaves open; of two alike, the simpler one."""
        of_file = known[family.name]
        return len(fields - of_file.fields), len(of_file.sizes - fields), of_file.is_heir

    likely = sorted(asked, key=distance)
    found = [_with_tensors(_likeness(family, folder, config, registry), folder) for family in likely[:_TRIED]]
    return sorted(found, key=lambda one: (one.differences, distance(one.family)))


@dataclass(frozen=True)
class _Known:
    """What a family knows of config.json: all fields, those that are sizes, and whether it builds on another."""

    fields: frozenset[str]
    sizes: frozenset[str]
    is_heir: bool

    @classmethod
    def of(cls, path: Path, registry: Registry) -> _Known:
        """Read a family's file and its bases; what cannot be read is reported when the family is compiled."""
        node, problems = read_file(path, Problems()), Problems()
        if not isinstance(node, Mapping):
            return cls(frozenset(), frozenset(), is_heir=False)
        whole = with_base(node, path.parent, path.parent, registry.architecture_path, problems)
        data: Any = plain(whole) if whole else {}
        try:
            section = HuggingFace.model_validate(data.get("huggingface") or {})
        except ValidationError:
            section = HuggingFace()
        sizes = _tops(field for dim in data.get("dims") or {} for field in field_names(section, dim))
        fields = sizes | _tops([*section.only, *section.ignore])
        return cls(fields, sizes, is_heir="extends" in node.entries)


def _tops(names: Iterable[str]) -> frozenset[str]:
    """The first parts of `a.b`."""
    return frozenset(name.partition(".")[0] for name in names)


def _likeness(family: Family, folder: Path, config: Config, registry: Registry) -> Likeness:
    """The family laid over config.json, with what it refuses taken out of the way."""
    unknown: dict[str, None] = {}
    unsupported: dict[str, Any] = {}
    for _ in range(_ROUNDS):
        settings = [f"huggingface.ignore={json.dumps(list(unknown))}"] if unknown else []
        settings += [f"huggingface.only.{name}={json.dumps(value)}" for name, value in unsupported.items()]
        try:
            compiled = compile_checkpoint(folder, family.path, settings=settings, registry=registry)
            return Likeness(family, compiled, tuple(unknown), tuple(unsupported))
        except (ArchitectureError, CheckpointError) as error:
            diagnostics = getattr(error, "diagnostics", ())
            refused = dict.fromkeys(_named(diagnostics, "AX602"))
            others = {name: config.value(name) for name in _named(diagnostics, "AX603")}
            if not refused.keys() - unknown.keys() and not others.keys() - unsupported.keys():
                break
            unknown |= refused
            unsupported |= others
    return Likeness(family, None, tuple(unknown), tuple(unsupported))


def _named(diagnostics: Iterable[Diagnostic], code: str) -> Iterator[str]:
    """The fields that diagnostics are about, which their messages name first."""
    for diagnostic in diagnostics:
        name = _NAMED.search(diagnostic.message) if diagnostic.code == code else None
        if name:
            yield name[1]


def _with_tensors(likeness: Likeness, folder: Path) -> Likeness:
    """The same with what the tensors of the checkpoint say."""
    if likeness.compiled is None:
        return likeness
    try:
        checkpoint_plan(likeness.compiled.plan(), likeness.compiled.document, folder)
    except WeightMismatch as error:
        faults = error.faults
        return replace(
            likeness,
            unexpected=_kinds(faults.unexpected),
            missing=_kinds(faults.missing),
            misshaped=_kinds(faults.misshaped),
        )
    except CheckpointError:
        pass  # there are none, or they cannot be read: config.json alone counts
    return likeness


def _kinds(lines: Iterable[str]) -> tuple[str, ...]:
    """The names at the beginning of lines, each once for all layers."""
    names = (re.split(r"[:,] ", line, maxsplit=1)[0] for line in lines)
    return tuple(dict.fromkeys(map(kind, names)))


def kind(name: str) -> str:
    """The name of a tensor or parameter with `<l>` for its first number."""
    return _NUMBER.sub("<l>", name, count=1)
