"""The flags of `cost`, `compare` and `draw` for several devices."""

from __future__ import annotations

import argparse
from typing import Any, Final

from axon_compose.analysis.devices import CONTEXT, Hardware, Layout, SimulationSheet
from axon_compose.architecture import Architecture
from axon_compose.cli._arguments import sizes

__all__ = ["hardware", "simulated", "spread_options"]

#: Flags of a simulation, by their names among the arguments; and those of a training step alone.
_SIMULATED: Final = ("layout", "schedule", "micro_batches", "flops", "no_overlap")
_TRAINED: Final = ("schedule", "no_overlap")


def hardware(arguments: argparse.Namespace) -> Hardware:
    """What is assumed of each device; a usage error for flags that say nothing here."""
    for name in ("link", "machine", "latency", "simulate"):
        if getattr(arguments, name, None) not in (None, False) and arguments.devices is None:
            arguments.error(f"argument --{name}: only with --devices")
    if getattr(arguments, "layers", False) and arguments.devices is not None:
        arguments.error("argument --layers: not with --devices")
    for name in _SIMULATED:
        if getattr(arguments, name, None) and not arguments.simulate:
            arguments.error(f"argument --{name.replace('_', '-')}: only with --simulate")
    for name in _TRAINED:
        if getattr(arguments, name, None) and not arguments.training:
            arguments.error(f"argument --{name.replace('_', '-')}: only with --training")
    names = ("link", "latency", "bandwidth", "memory", "flops")
    given = {name: value for name in names if (value := getattr(arguments, name, None)) is not None}
    number, speed = arguments.machine or (1, None)
    return Hardware(**given, machine=number, machine_link=speed)


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
