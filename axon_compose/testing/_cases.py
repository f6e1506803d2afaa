"""Many cases of one component: options made up, the model around them checked, and failures made small."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, Final

from axon_compose.architecture import load
from axon_compose.language.layout import to_text
from axon_compose.proof.check import CheckReport, check
from axon_compose.registry import Registry
from axon_compose.testing._choices import Choices, Seeded
from axon_compose.testing._minimal import minimal
from axon_compose.testing._model import DIMS, Section, component_model
from axon_compose.testing._options import Unmakeable
from axon_compose.testing._parts import drawn_part, drawn_reader, reads_embedding

__all__ = ["Case", "layer_cases"]

#: One case in this number may read from an earlier layer of the same type, where there is such an option.
_READERS: Final = 2


@dataclass(frozen=True, slots=True)
class Case:
    """One component in one model.

    Attributes:
        seed: Of options, weights and tokens; `axon-compose check --layer TYPE --seed N --cases 1` repeats the case.
        options: As a file writes them.
        report: What was found.
        file: For a failure, a file with as few options as still fail, for `axon-compose check FILE --as-is --seed N`.
    """

    seed: int
    options: Mapping[str, Any]
    report: CheckReport
    file: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The case as JSON-ready data."""
        return {"seed": self.seed, "options": self.options, "report": self.report.to_dict(), "file": self.file}


def layer_cases(
    type_name: str,
    options: Mapping[str, Any] | None = None,
    *,
    cases: int = 5,
    seed: int = 0,
    truths: Iterable[str] | None = None,
    dims: Mapping[str, Any] = DIMS,
    registry: Registry | None = None,
) -> Iterator[Case]:
    """Check one component with options that are made up, or with given ones, one case after the other.

    Args:
        type_name: The type as a file writes it, `namespace/name`.
        options: The options of every case; made up anew for each unless given.
        cases: How many.
        seed: Of the first case; each further one has the next.
        truths: Names out of `axon_compose.proof.check.TRUTHS`; all unless given.
        dims: Sizes of the model.
        registry: The plugins; the installed ones unless given.

    Raises:
        LookupFailure: If there is no such type.
        ArchitectureError: If the given options are refused.
        CheckpointError: If they make a component that does not fit into memory.
        Unmakeable: If no options that fit can be made up.
        ValueError: For a kind that stands in no model by itself, or a name that is not that of a check.
    """
    registry = registry or Registry.installed()
    kind = registry.component(type_name).kind
    names = None if truths is None else list(truths)
    for number in islice(count(seed), cases):
        if options is None:
            model = drawn_model(type_name, Seeded(number), dims, registry)
        else:
            model = component_model(type_name, kind, options, dims)
        report = check(load(model, registry=registry), seed=number, truths=names, as_is=True)
        file = None if report.passed else to_text(minimal(model, report, registry))
        yield Case(number, _options(model, kind), report, file)


def drawn_model(type_name: str, choices: Choices, dims: Mapping[str, Any], registry: Registry) -> Section:
    """A small model around a component with options that are made up.

    Raises:
        Unmakeable: If none fit.
        ValueError: For a kind that stands in no model by itself.
    """
    spec = registry.component(type_name)
    component_model(type_name, spec.kind, {}, dims)  # refuses what stands in no model
    if reads_embedding(spec):
        tables = [name for name, table in registry.components("embedding").items() if table.writes]
        found = drawn_reader(type_name, choices.choose(tables), choices, dims, registry) if tables else None
        if found:
            part = {name: value for name, value in found[0].items() if name != "type"}
            return component_model(type_name, spec.kind, part, dims) | {"embedding": found[1]}
    else:
        options = drawn_part(type_name, choices, dims, registry)
        option = next((o for value, o in spec.reads.items() if o is not None and value in spec.writes), None)
        if options is not None and option is not None and choices.choose(range(_READERS)) == _READERS - 1:
            sources = {"source": {"type": type_name, **options}}
            fixed = {option: "source"}
            reader = drawn_part(type_name, choices, dims, registry, base=options, sources=sources, fixed=fixed)
            if reader is not None:
                return component_model(type_name, spec.kind, reader, dims, sources)
        if options is not None:
            return component_model(type_name, spec.kind, options, dims)
    raise Unmakeable(f"no options of `{type_name}` were found that fit: give its record an example, or give options")


def _options(model: Section, kind: str) -> dict[str, Any]:
    """The options of the component that a model was made for: the last one of its layers, or one around them."""
    section = model[kind] if kind in model else list(model["components"].values())[-1]
    return {name: value for name, value in section.items() if name != "type"}
