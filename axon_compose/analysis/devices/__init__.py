"""What a plan needs on several devices, and how fast they can be together; imports no mlx."""

from axon_compose.analysis.devices._collectives import (
    Traffic,
    all_gather,
    all_reduce,
    all_to_all,
    reduce_scatter,
    send,
)
from axon_compose.analysis.devices._hardware import MOST_DEVICES, Hardware
from axon_compose.analysis.devices._layout import Layout, layouts, strategies
from axon_compose.analysis.devices._measure import CONTEXT, spread
from axon_compose.analysis.devices._schedule import SCHEDULES, Job, Run, Schedule, Timeline
from axon_compose.analysis.devices._sheet import DevicesSheet, Impossible, StrategyCost, TrainingStrategy
from axon_compose.analysis.devices._simulate import SimulationSheet, simulate
from axon_compose.analysis.devices._simulation import Simulated

__all__ = [
    "CONTEXT",
    "MOST_DEVICES",
    "SCHEDULES",
    "DevicesSheet",
    "Hardware",
    "Impossible",
    "Job",
    "Layout",
    "Run",
    "Schedule",
    "Simulated",
    "SimulationSheet",
    "StrategyCost",
    "Timeline",
    "Traffic",
    "TrainingStrategy",
    "all_gather",
    "all_reduce",
    "all_to_all",
    "layouts",
    "reduce_scatter",
    "send",
    "simulate",
    "spread",
    "strategies",
]
