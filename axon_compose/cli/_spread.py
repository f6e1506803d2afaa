"""The flags of `cost`, `compare` and `draw` for several devices."""

from __future__ import annotations

import argparse
from typing import Any, Final

from axon_compose.analysis.devices import CONTEXT, Hardware, Layout, SimulationSheet
from axon_compose.architecture import Architecture
from axon_compose.cli._arguments import sizes

__all__ = ["hardware", "simulated", "spread_options"]

#: Flags, and others that say something with them alone, by their names among the arguments.
_ONLY_WITH: Final = {
    "devices": ("link", "machine", "latency", "simulate"),
    "simulate": ("layout", "schedule", "micro_batches", "flops", "no_overlap"),
    "training": ("schedule", "no_overlap", "segment"),
}


def hardware(arguments: argparse.Namespace) -> Hardware:
    """What is assumed of each device; a usage error for flags that say nothing here."""
    for flag, names in _ONLY_WITH.items():
        for name in names:
            if _given(arguments, name) and not _given(arguments, flag):
                arguments.error(f"argument --{name.replace('_', '-')}: only with --{flag}")
    if _given(arguments, "layers") and _given(arguments, "devices"):
        arguments.error("argument --layers: not with --devices")
    speeds = ("link", "latency", "bandwidth", "memory", "flops")
    given = {name: getattr(arguments, name) for name in speeds if _given(arguments, name)}
    number, speed = arguments.machine or (1, None)
    return Hardware(**given, machine=number, machine_link=speed)


def _given(arguments: argparse.Namespace, name: str) -> bool:
    """Whether a flag was given; a command may not have it at all."""
    value = getattr(arguments, name, None)
    return value is not None and value is not False


def spread_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """How a model is stored and run on several devices, as far as it is said; at the longest context."""
    given = {name: value for name, value in sizes(arguments).items() if name in ("dtype", "batch", "quantize")}
    return given | {
        "hardware": hardware(arguments),
        "context": max(arguments.context) if arguments.context else CONTEXT,
        "training": arguments.training,
        "segment": arguments.segment,
    }


def simulated(architecture: Architecture, arguments: argparse.Namespace) -> SimulationSheet:
    """The simulation that was asked for."""
    return architecture.simulate(
        arguments.devices,
        **spread_options(arguments),
        layout=arguments.layout and Layout(*arguments.layout),
        schedule=arguments.schedule or "1f1b",
        micro=arguments.micro_batches,
        overlap=not arguments.no_overlap,
    )
