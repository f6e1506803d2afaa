"""Which way to take: of those that fit, the fastest that mlx_lm runs."""

from __future__ import annotations

from collections.abc import Sequence

from axon_compose.analysis.devices._sheet import StrategyCost, TrainingStrategy
from axon_compose.machine.units import human, rate

__all__ = ["recommend", "recommend_training"]


def recommend(strategies: Sequence[StrategyCost], batch: int, memory: int | None) -> tuple[str | None, str]:
    """The name of one, and why; None if none fits.

    Args:
        strategies: At least one.
        batch: Sequences, all devices together: of several, what they do together counts.
        memory: Bytes of a device, or None if all are taken to fit.
    """
    fitting = [row for row in strategies if row.fits is not False]
    if not fitting:
        least = min(strategies, key=lambda row: row.memory_bytes)
        there = human(memory or 0)
        return None, f"none fits {there} per device: the smallest is {least.name} with {human(least.memory_bytes)}"
    fitting = [row for row in fitting if _runs(row)] or fitting
    best = max(fitting, key=lambda row: (_speed(row, batch), -row.memory_bytes, -row.messages_per_token))
    return best.name, _why(best, fitting, batch, memory) + _better(best, strategies, batch)


def recommend_training(ways: Sequence[TrainingStrategy], memory: int | None) -> str:
    """Which way to train, in a sentence: of those that fit, the one that sends least."""
    if not ways:
        return ""
    fitting = [way for way in ways if way.fits is not False]
    there = human(memory or 0)
    if not fitting:
        least = min(ways, key=lambda way: way.memory_bytes)
        return f"no step fits {there} per device: {least.name} needs {human(least.memory_bytes)}"
    best = min(fitting, key=lambda way: way.sent_per_step)
    if memory is not None and len(fitting) < len(ways):
        return f"{best.name}, the only way that fits {there} per device"
    sent = " and ".join(f"{human(round(way.sent_per_step))} {way.name}" for way in ways)
    return f"{best.name}, since less is sent in a step: {sent}"


def _runs(row: StrategyCost) -> bool:
    """Whether mlx_lm can run it: groups inside of a pipeline are a plan alone."""
    return row.layout.tensor == 1 or row.layout.pipeline == 1


def _speed(row: StrategyCost, batch: int) -> float:
    return row.together if batch > 1 else row.one


def _better(best: StrategyCost, strategies: Sequence[StrategyCost], batch: int) -> str:
    """What would be faster, or is a plan alone."""
    if not _runs(best):
        return "; mlx_lm does not run it"
    faster = [row for row in strategies if row.fits is not False and _speed(row, batch) > 1.005 * _speed(best, batch)]
    if not faster:
        return ""
    first = max(faster, key=lambda row: _speed(row, batch))
    return f"; {first.name} would be {_speed(first, batch) / _speed(best, batch):.3g} times as fast, if mlx_lm ran it"


def _why(best: StrategyCost, fitting: Sequence[StrategyCost], batch: int, memory: int | None) -> str:
    there = "" if memory is None else f" fit{'s' * (len(fitting) == 1)} {human(memory)} per device"
    of = "one sequence" if batch == 1 else f"{batch:,} sequences"
    bound = f"{rate(_speed(best, batch))} tokens/s of {of} at most"
    others = [row for row in fitting if row is not best]
    if best.layout.data > batch:
        bound += f"; {best.layout.data - batch:,} replicas have nothing to do"
    if not others:
        return f"the only one{there and f' that{there}'}, {bound}"
    second = max(others, key=lambda row: _speed(row, batch))
    times = _speed(best, batch) / _speed(second, batch)
    among = f"of {len(fitting)} that{there}: " if memory is not None else ""
    compared = f"{times:.3g} times {second.name}" if times >= 1.005 else f"no less than {second.name}"
    return f"{among}{compared}, {bound}"
