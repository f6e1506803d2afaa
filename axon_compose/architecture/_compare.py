"""`compare`: load every model, report all their errors together, and count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from axon_compose.analysis.comparison import Comparison, Row
from axon_compose.analysis.cost import CONTEXTS, cost
from axon_compose.analysis.devices import Hardware, spread
from axon_compose.architecture._architecture import Architecture
from axon_compose.architecture._load import load
from axon_compose.diagnostics import ArchitectureError, Diagnostic
from axon_compose.proof.bench import Progress, Workload, subject
from axon_compose.proof.bench import measure as run
from axon_compose.registry import Registry

__all__ = ["Model", "compare", "gather"]

#: What stands for a model: what `load` gave, or what it takes.
Model: TypeAlias = "Architecture | str | Path | Mapping[str, Any]"


def compare(
    models: Iterable[Model],
    *,
    names: Iterable[str] | None = None,
    context: int | Iterable[int] | None = None,
    dtype: str = "bfloat16",
    batch: int = 1,
    quantize: int | None = None,
    memory: int | None = None,
    bandwidth: float | None = None,
    devices: int | None = None,
    hardware: Hardware | None = None,
    sort: str | None = None,
    reverse: bool = False,
    measure: bool | Workload = False,
    progress: Progress | None = None,
    registry: Registry | None = None,
) -> Comparison:
    """Put several models side by side: what each costs, and if wanted, how fast it is on this machine.

    Without `measure`, everything is counted from the plans, and mlx is not imported.

    Args:
        models: What `axon_compose.load` gave, or what it takes: paths, names of shipped architectures, descriptions.
        names: What the rows are called, one for each model; the models' own names unless given.
        context: Tokens of each sequence, one number or several; 4096 and 65536 unless given.
        dtype: Of weights and caches: `float32`, `bfloat16` or `float16`.
        batch: Sequences that run together.
        quantize: Bits of quantised weights; not quantised unless given.
        memory: Bytes that there are: does it fit, and how far?
        bandwidth: Bytes that memory moves in a second.
        devices: Spread each model over this number of devices too.
        hardware: What is assumed of each device, see `analysis.devices.Hardware`.
        sort: Column to sort by; in the order given otherwise. See `Comparison.sort`.
        reverse: Reverse the order of the sort.
        measure: Run each model with random weights, in processes of its own; True, or a `bench.Workload`. It needs the
            plugins to be installed, and its sequences are those of `batch`.
        progress: Called before each run; see `bench.Progress`.
        registry: The plugins to load files with; the installed ones unless given.

    Raises:
        ArchitectureError: With every fault of every file.
        OSError: If a file cannot be read.
        UnknownColumn: If there is no column to sort by; a ValueError.
        ValueError: If a number is out of its range, or there is nothing to compare.
    """
    found = gather([partial(_loaded, model, registry) for model in models])
    labels = _told_apart([architecture.name for architecture in found]) if names is None else _told_apart(list(names))
    if len(labels) != len(found):
        raise ValueError(f"`names` has {len(labels)} names for {len(found)} models")
    contexts = CONTEXTS if context is None else (context,) if isinstance(context, int) else tuple(context)
    workload = _workload(measure, batch)
    rows = tuple(
        Row(
            name,
            cost(
                architecture.plan(),
                context=contexts,
                dtype=dtype,
                batch=batch,
                quantize=quantize,
                memory=memory,
                bandwidth=bandwidth,
            ),
            plan=architecture.plan(),
            spread=None
            if devices is None
            else spread(
                architecture.plan(),
                devices,
                hardware=hardware,
                context=max(contexts),
                dtype=dtype,
                batch=batch,
                quantize=quantize,
            ),
        )
        for name, architecture in zip(labels, found, strict=True)
    )
    comparison = Comparison(rows, contexts, dtype, quantize, batch, memory, bandwidth, workload, devices)
    if sort:
        comparison.column(sort)  # a wrong name is reported before anything is measured
    if workload:
        comparison = _measured(comparison, found, workload, progress)
    return comparison.sort(sort, reverse=reverse) if sort else comparison


def _loaded(model: Model, registry: Registry | None) -> Architecture:
    return model if isinstance(model, Architecture) else load(model, registry=registry)


def gather(loaders: Iterable[Callable[[], Architecture]]) -> list[Architecture]:
    """Load every model, and report all their errors together.

    Raises:
        ArchitectureError: With every fault of every file.
        OSError: If nothing else is wrong than that a file cannot be read.
    """
    found: list[Architecture] = []
    faults: list[Diagnostic] = []
    sources: dict[str, str] = {}
    dropped = 0
    unread: OSError | None = None
    for load_one in loaders:
        try:
            found.append(load_one())
        except ArchitectureError as error:
            faults += error.diagnostics
            sources |= error.sources
            dropped += error.dropped
        except OSError as error:
            unread = unread or error
    if faults:
        if unread:
            faults.append(Diagnostic("AX500", f"`{unread.filename}`: {unread.strerror or unread}"))
        raise ArchitectureError(dict.fromkeys(faults), sources, dropped)
    if unread:
        raise unread
    if not found:
        raise ValueError("there is nothing to compare")
    return found


def _told_apart(names: list[str]) -> list[str]:
    """Names, with a number after those that occurred before."""
    seen: Counter[str] = Counter()
    apart = []
    for name in names:
        seen[name] += 1
        apart.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return apart


def _workload(measure: bool | Workload, batch: int) -> Workload | None:
    if isinstance(measure, bool):
        return Workload(batch=batch) if measure else None
    if measure.batch != batch:
        raise ValueError(f"`batch` is {batch}, that of `measure` is {measure.batch}")
    return measure


def _measured(
    comparison: Comparison,
    architectures: list[Architecture],
    workload: Workload,
    progress: Progress | None,
) -> Comparison:
    subjects = [
        subject(architecture, workload, name=row.name, dtype=comparison.dtype, quantize=comparison.quantize)
        for row, architecture in zip(comparison.rows, architectures, strict=True)
    ]
    found = run(subjects, workload, progress=progress)
    rows = (replace(row, measured=measured) for row, measured in zip(comparison.rows, found, strict=True))
    return replace(comparison, rows=tuple(rows))
