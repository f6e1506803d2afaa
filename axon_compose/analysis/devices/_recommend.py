"""Which way to take: of those that fit, the fastest."""

from __future__ import annotations

from collections.abc import Sequence

from axon_compose.analysis.devices._sheet import StrategyCost
from axon_compose.machine.units import human, rate

__all__ = ["recommend"]


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
    best = max(fitting, key=lambda row: (_speed(row, batch), -row.memory_bytes, -row.messages_per_token))
    return best.name, _why(best, fitting, len(strategies), batch, memory)


def _speed(row: StrategyCost, batch: int) -> float:
    return row.together if batch > 1 else row.one


def _why(best: StrategyCost, fitting: Sequence[StrategyCost], number: int, batch: int, memory: int | None) -> str:
    there = "" if memory is None else f" fit{'s' * (len(fitting) == 1)} {human(memory)} per device"
    of = "one sequence" if batch == 1 else f"{batch:,} sequences"
    bound = f"{rate(_speed(best, batch))} tokens/s of {of} at most"
    others = [row for row in fitting if row is not best]
    if best.layout.data > batch:
        bound += f"; {best.layout.data - batch:,} replicas have nothing to do"
    if not others:
        return f"{best.name} alone{there}; {bound}" if number > 1 else f"there is no other; {bound}"
    second = max(others, key=lambda row: _speed(row, batch))
    times = _speed(best, batch) / _speed(second, batch)
    among = f"of {len(fitting)} that{there}: " if memory is not None else ""
    compared = f"{times:.3g} times {second.name}" if times >= 1.005 else f"no less than {second.name}"
    return f"{among}{compared}, {bound}"
