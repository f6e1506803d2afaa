"""The devices that a plan is laid on: all alike, each with memory of its own, joined by links that are alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from axon_compose.analysis.devices._collectives import Traffic
from axon_compose.diagnostics import Diagnostic, Refusal
from axon_compose.machine.units import human

__all__ = ["MOST_DEVICES", "Hardware", "check_devices", "nothing_fits"]

#: Devices at most.
MOST_DEVICES: Final = 65536


@dataclass(frozen=True)
class Hardware:
    """One of several devices that are alike, and the link between two of them.

    Attributes:
        bandwidth: Bytes per second that its memory moves: 400 GB/s unless given, a large laptop.
        link: Bytes per second that it sends while it receives as many: 10 GB/s unless given, Thunderbolt 5 or a network
            of 100 Gbit/s.
        latency: Seconds from a device to another for a message without content: 50 µs unless given, TCP in one room.
        flops: Operations per second of matrix products: 30 T unless given. Decoding is bound by memory, so that only
            prompts and training ask for it.
        memory: Bytes for a model, None if nobody asks what fits.
        machine: Devices of one machine, which neighbours share as far as they go: those of a tensor group first, then
            stages, then replicas.
        machine_link: Bytes per second between devices of one machine; that of `link` unless given.
    """

    bandwidth: float = 400e9
    link: float = 10e9
    latency: float = 50e-6
    flops: float = 30e12
    memory: int | None = None
    machine: int = 1
    machine_link: float | None = None

    def __post_init__(self) -> None:
        for name in ("bandwidth", "link", "flops"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"`{name}` must be above 0")
        if self.machine < 1 or (self.machine_link is not None and not 0 < self.machine_link < float("inf")):
            raise ValueError("`machine` must be 1 or more, and `machine_link` above 0")
        if not 0 <= self.latency < float("inf"):
            raise ValueError("`latency` must not be negative")
        if self.memory is not None and self.memory < 0:
            raise ValueError("`memory` must not be negative")

    def fits(self, nbytes: int) -> bool | None:
        """Whether a device has memory for this number of bytes; None if nobody asks what fits."""
        return None if self.memory is None else nbytes <= self.memory

    def seconds(self, traffic: Traffic, span: int) -> float:
        """How long devices take that exchange something.

        Args:
            traffic: What one of them sends.
            span: Neighbours of which they are a part; all are in one machine if it holds whole groups of this size.
        """
        inside = self.machine_link is not None and self.machine % span == 0
        return traffic.seconds(self.machine_link if inside and self.machine_link else self.link, self.latency)


def nothing_fits(model: str, devices: int, hardware: Hardware, least: tuple[str, int], help_: str) -> Diagnostic:
    """The warning that a model fits on devices in no way.

    Args:
        model: Its name.
        devices: How many there are.
        hardware: What each has.
        least: The way that needs least, and its bytes of each device.
        help_: What to do.
    """
    there, (way, needed) = human(hardware.memory or 0), least
    message = f"`{model}` fits on {devices:,} devices of {there} in no way: {way} needs {human(needed)} of each"
    return Diagnostic("AX402", message, help=help_, severity="warning")


def check_devices(devices: int) -> None:
    """Refuse a number of devices that cannot be.

    Raises:
        Refusal: `AX403`.
    """
    if not 1 <= devices <= MOST_DEVICES:
        message = f"a model cannot run on {devices:,} devices"
        raise Refusal("AX403", message, f"give a number from 1 to {MOST_DEVICES:,}")
