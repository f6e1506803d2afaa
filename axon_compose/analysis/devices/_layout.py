"""How devices are divided: tensor groups inside of pipeline stages inside of replicas."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Layout", "layouts", "strategies"]


@dataclass(frozen=True)
class Layout:
    """A division of devices, of which there are as many as the product of its numbers.

    Attributes:
        tensor: Devices that share each layer, from which each has a part.
        pipeline: Stages, of which each has some of the layers.
        data: Replicas, of which each has some of the sequences.
    """

    tensor: int = 1
    pipeline: int = 1
    data: int = 1

    @property
    def devices(self) -> int:
        """How many there are."""
        return self.tensor * self.pipeline * self.data

    @property
    def name(self) -> str:
        """Such as `tensor 4` or `tensor 2 x pipeline 2`."""
        parts = [f"{name} {n}" for name, n in vars(self).items() if n > 1]
        return " x ".join(parts) or "one device"

    def __str__(self) -> str:
        return self.name


def layouts(devices: int) -> Iterator[Layout]:
    """Every way to write a number as three factors, the largest tensor groups first."""
    for tensor in _divisors(devices):
        for pipeline in _divisors(devices // tensor):
            yield Layout(tensor, pipeline, devices // tensor // pipeline)


def strategies(devices: int) -> list[Layout]:
    """What a model can be spread by: tensor, pipeline, replicas, and groups of tensor inside of a pipeline."""
    if devices == 1:
        return [Layout()]
    both = [Layout(tensor, devices // tensor) for tensor in _divisors(devices) if 1 < tensor < devices]
    return [Layout(tensor=devices), Layout(pipeline=devices), *both, Layout(data=devices)]


def _divisors(number: int) -> list[int]:
    return [n for n in range(number, 0, -1) if number % n == 0]
